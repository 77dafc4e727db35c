import math
import random

import pytest
import torch

from tests.references import composite as reference
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional import exp3_probabilities, exp3_update


def test_the_first_draw_is_uniform():
    assert exp3_probabilities(torch.zeros(5, dtype=torch.float64), gamma=0.5).tolist() == [0.2] * 5


def test_literal_case():
    # w = exp(0.5 * 0.8 / 0.5 / 2) = e^0.4 for the arm that was pulled
    weights = exp3_update(torch.zeros(2, dtype=torch.float64), 0, 0.8, gamma=0.5)
    share = 2.718281828459045**0.4 / (1 + 2.718281828459045**0.4)
    assert exp3_probabilities(weights, gamma=0.5).tolist() == pytest.approx([0.5 * share + 0.25, 0.75 - 0.5 * share])


@pytest.mark.parametrize("gamma", [0.1, 0.5, 1.0])
def test_follows_the_formula_to_1e_12(gamma):
    rng = random.Random(0)
    pulls = [(rng.randrange(4), rng.random()) for _ in range(300)]
    weights = torch.zeros(4, dtype=torch.float64)
    for (arm, reward), expected in zip(pulls, reference.exp3(4, gamma, pulls), strict=False):
        assert exp3_probabilities(weights, gamma=gamma).tolist() == pytest.approx(expected, abs=1e-12)
        weights = exp3_update(weights, arm, reward, gamma=gamma)
    last = reference.exp3(4, gamma, pulls)[-1]
    assert exp3_probabilities(weights, gamma=gamma).tolist() == pytest.approx(last, abs=1e-12)


def test_no_overflow_after_many_rounds():
    weights = torch.zeros(2, dtype=torch.float64)
    for _ in range(5000):
        weights = exp3_update(weights, 1, 1.0, gamma=0.5)
    assert exp3_probabilities(weights, gamma=0.5).tolist() == pytest.approx([0.25, 0.75])
    assert math.isnan(reference.exp3(2, 0.5, [(1, 1.0)] * 5000)[-1][1])  # plain weights


@pytest.mark.parametrize("reward", [-0.1, 1.1, float("nan"), float("inf")])
def test_refuses_rewards_outside_0_to_1(reward):
    with pytest.raises(DataError, match=r"in \[0, 1\], got"):
        exp3_update(torch.zeros(2), 0, reward, gamma=0.5)


@pytest.mark.parametrize("gamma", [0, -0.5, 1.5, "half"])
def test_refuses_gamma_out_of_range(gamma):
    with pytest.raises(ConfigError, match="gamma"):
        exp3_probabilities(torch.zeros(2), gamma=gamma)


def test_refuses_arms_that_are_not_there():
    with pytest.raises(ShapeError, match="2 arms, got arm 2"):
        exp3_update(torch.zeros(2), 2, 1.0, gamma=0.5)
    with pytest.raises(ShapeError, match="at least one arm"):
        exp3_probabilities(torch.zeros(0), gamma=0.5)
    with pytest.raises(DataError, match="finite"):
        exp3_probabilities(torch.tensor([0.0, float("nan")]), gamma=0.5)


@pytest.mark.gpu
def test_cuda_gives_the_weights_of_the_cpu():
    weights = {device: torch.tensor([0.3, -1.2, 2.0], dtype=torch.float64, device=device) for device in ("cpu", "cuda")}
    for arm, reward in ((0, 0.7), (2, 0.25), (1, 1.0)):
        weights = {device: exp3_update(before, arm, reward, gamma=0.4) for device, before in weights.items()}
    found = exp3_probabilities(weights["cuda"], gamma=0.4)
    assert found.is_cuda
    torch.testing.assert_close(weights["cuda"].cpu(), weights["cpu"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.cpu(), exp3_probabilities(weights["cpu"], gamma=0.4), rtol=1e-12, atol=1e-12)
