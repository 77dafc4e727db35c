import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.references import stochastic_batch as reference
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional import power_scores, softmax_scores, softrank_scores, top_n

KERNELS = {"power": power_scores, "softmax": softmax_scores, "softrank": softrank_scores}
SCORES = [0.5, 0.1, 1.0, 0.5]


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def batches(kind, scores, n, beta, n_batches):
    """Return batches (n_batches, n) in pick order, each of its own noise."""
    generator = seeded(3)
    pools = torch.tensor(scores).expand(n_batches, -1)
    if kind == "softrank":  # ranks are those in one pool
        perturbed = torch.stack([softrank_scores(pool, beta=beta, generator=generator) for pool in pools])
    else:
        perturbed = KERNELS[kind](pools.flatten(), beta=beta, generator=generator).view(n_batches, -1)
    return perturbed.topk(n, 1).indices


def p_value(kind, scores, n, beta, n_batches=None):
    """Compare ordered batches of n rows with their exact distribution: chi-square over all ordered sets."""
    n_batches = n_batches or (1000 if kind == "softrank" else 20_000)
    chances = reference.draws(getattr(reference, f"{kind}_weights")(scores, beta), n)
    counts = {rows: 0 for rows, chance in chances.items() if chance > 0}
    for rows in batches(kind, scores, n, beta, n_batches).tolist():
        counts[tuple(rows)] += 1  # a batch that cannot be is a KeyError
    return stats.chisquare(list(counts.values()), [n_batches * chances[rows] for rows in counts]).pvalue


@pytest.mark.parametrize("beta", [1.0, 2.5])
@pytest.mark.parametrize("kind", KERNELS)
def test_the_first_pick_has_the_probability_of_the_paper(kind, beta):
    assert p_value(kind, SCORES, 1, beta) > 0.001


@pytest.mark.parametrize("kind", KERNELS)
def test_batches_are_draws_without_replacement(kind):
    assert p_value(kind, SCORES, 2, 1.0) > 0.001


def test_rows_without_worth_come_last_in_random_order():
    assert p_value("power", [0.0, 0.2, 0.0, 0.4, 0.0], 5, 1.0) > 0.001
    assert p_value("power", [0.0, 0.0, 0.0], 3, 1.0) > 0.001


def test_equal_scores_have_equal_chances_in_ranks():
    assert p_value("softrank", [0.0, 0.0, 1.0, 0.0], 1, 1.0) > 0.001


@pytest.mark.parametrize("beta", [1e-3, 1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_smallest_worth_comes_before_none(dtype, beta):
    least = torch.tensor([torch.finfo(dtype).smallest_normal, 5e-324], dtype=torch.float64).to(dtype)
    least = float(least[least > 0][-1])
    scores = torch.zeros(20_000, dtype=dtype)
    scores[10_000:] = least
    perturbed = power_scores(scores, beta=beta, generator=seeded())
    assert perturbed[10_000:].min() > perturbed[:10_000].max()
    assert bool(torch.isfinite(perturbed).all())


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.25, 1.0, 3.0, -math.inf]), min_size=1, max_size=8),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_weights_agree_with_the_reference(scores, beta):
    there = [score for score in scores if score > -math.inf]
    tensor = torch.tensor(scores, dtype=torch.float64)
    noise = softmax_scores(torch.zeros(len(scores)), generator=seeded())
    for kind, kernel in KERNELS.items():
        found = kernel(tensor, beta=beta, generator=seeded())
        assert (found == -math.inf).tolist() == [score == -math.inf for score in scores]
        logs = (found - noise)[tensor > -math.inf].tolist()
        weights = getattr(reference, f"{kind}_weights")(there, beta)
        for log, weight in zip(logs, weights, strict=True):
            assert log < -300 if weight == 0 else log == pytest.approx(math.log(weight), abs=1e-12)


@pytest.mark.parametrize("kernel", KERNELS.values())
def test_a_large_beta_gives_the_highest_scores(kernel):
    scores = torch.tensor([0.3, 0.1, 0.0, 0.9, 0.5])
    perturbed = kernel(scores, beta=1e4, generator=seeded())
    assert top_n(perturbed, 5).indices.tolist() == [3, 4, 0, 1, 2]


@pytest.mark.parametrize("kernel", KERNELS.values())
def test_a_row_keeps_its_noise_whatever_the_others_are(kernel):
    scores = torch.rand(30, generator=seeded(1))
    some = scores.clone()
    some[10:20] = -math.inf
    first, again = (kernel(one, beta=1e-9, generator=seeded()) for one in (scores, some))
    kept = some > -math.inf
    torch.testing.assert_close(first[kept], again[kept], rtol=0, atol=1e-6)
    assert bool((again[~kept] == -math.inf).all())


@pytest.mark.parametrize("kernel", KERNELS.values())
def test_the_generator_is_all_the_randomness(kernel):
    scores = torch.rand(30, generator=seeded(1))
    state = torch.get_rng_state()
    generator = seeded()
    first, second = (kernel(scores, generator=generator) for _ in range(2))
    assert first.equal(kernel(scores, generator=seeded()))
    assert not first.equal(second)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize("kernel", KERNELS.values())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_answers_are_float64_and_the_scores_stay(kernel, dtype):
    scores = torch.rand(30, generator=seeded(1)).to(dtype)
    before = scores.clone()
    assert kernel(scores.requires_grad_(), generator=seeded()).dtype == torch.float64
    assert scores.equal(before)


@pytest.mark.parametrize("kernel", KERNELS.values())
def test_extreme_scores_are_taken(kernel):
    scores = torch.tensor([1e-30, 1e30, 0.0])
    for beta in (1e-3, 1.0, 50.0):
        assert bool(torch.isfinite(kernel(scores, beta=beta, generator=seeded())).all())
    assert kernel(torch.tensor([0.7]), generator=seeded()).shape == (1,)
    assert kernel(torch.empty(0), generator=seeded()).shape == (0,)


@pytest.mark.parametrize("kernel", KERNELS.values())
def test_refuses_scores_that_are_none(kernel):
    with pytest.raises(DataError, match=r"2 of 4 rows are not, the first is row 1 with nan"):
        kernel(torch.tensor([0.0, math.nan, 1.0, math.inf]), generator=seeded())
    with pytest.raises(ShapeError, match="1 axes"):
        kernel(torch.zeros(2, 2), generator=seeded())
    with pytest.raises(ShapeError, match="floating point"):
        kernel(torch.zeros(2, dtype=torch.int64), generator=seeded())


def test_powers_are_of_no_negative_scores():
    scores = torch.tensor([0.5, 0.0, -0.1])
    with pytest.raises(DataError, match=r"finite and at least 0, .* 1 of 3 rows .* is row 2 with -0\.1"):
        power_scores(scores, generator=seeded())
    for kernel in (softmax_scores, softrank_scores):
        assert bool(torch.isfinite(kernel(scores, generator=seeded())).all())


@pytest.mark.parametrize("kernel", KERNELS.values())
@pytest.mark.parametrize("beta", [0, -1.0, math.nan, math.inf, True, "1"])
def test_refuses_a_wrong_beta(kernel, beta):
    with pytest.raises(ConfigError, match="beta must be a finite number above 0"):
        kernel(torch.zeros(2), beta=beta, generator=seeded())


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS.values())
@pytest.mark.parametrize("generator_on", ["cpu", "cuda"])
def test_cuda_gives_the_values_of_the_cpu(kernel, generator_on):
    scores = torch.rand(1000, generator=seeded(1))
    scores[::7], scores[1::7], scores[2::7] = 0.0, -math.inf, 0.25
    here = kernel(scores, beta=2.0, generator=seeded(device=generator_on))
    there = kernel(scores.cuda(), beta=2.0, generator=seeded(device=generator_on))
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here)
