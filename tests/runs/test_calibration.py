import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchal import ConfigError
from torchal.runs.calibration import calibration_error, reliability
from torchal.runs.metrics import Outcome, expected_calibration_error


def outcome(confidences, right):
    """Return answers of class 0 with these probabilities."""
    first = torch.tensor(confidences, dtype=torch.float64)
    probs = torch.stack([first, 1 - first], 1)
    return Outcome(
        torch.tensor([int(not hit) for hit in right]), torch.zeros(len(right), dtype=torch.int64), probs.log()
    )


def test_by_hand():
    found = reliability(outcome([0.55, 0.65, 0.61, 1.0], [True, False, True, True]), n_bins=10)
    assert found["rows"] == [1, 2, 1]
    assert found["confidence"] == [pytest.approx(0.55), pytest.approx(0.63), 1.0]
    assert found["accuracy"] == [1.0, 0.5, 1.0]
    assert calibration_error(found) == pytest.approx((0.45 + 2 * 0.13 + 0) / 4)


def test_the_confidence_is_that_of_the_predicted_class_and_not_the_largest():
    log_probs = torch.tensor([[0.25, 0.75]]).log()  # as of an SVC, whose predictions are not those of its probabilities
    found = reliability(Outcome(torch.tensor([0]), torch.tensor([0]), log_probs))
    assert (found["confidence"], found["accuracy"]) == ([pytest.approx(0.25)], [1.0])


def test_rows_without_a_probability_are_left_out():
    log_probs = torch.tensor([[math.nan, math.nan], [0.0, -math.inf], [-math.inf, 0.0]])
    found = reliability(Outcome(torch.tensor([0, 0, 0]), torch.tensor([0, 0, 0]), log_probs))
    assert found == {"confidence": [0.0, 1.0], "accuracy": [1.0, 1.0], "rows": [1.0, 1.0]}


def test_a_model_without_probabilities_has_none():
    assert reliability(Outcome(torch.tensor([0]), torch.tensor([0]), None)) == {}


def test_no_bins_are_refused():
    with pytest.raises(ConfigError, match="bins must be a whole number of at least 1, got 0"):
        reliability(outcome([0.5], [True]), n_bins=0)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 20))
def test_bins_hold_all_rows_and_agree_with_a_loop(answers, n_bins):
    confidences, right = zip(*answers, strict=True)
    given_outcome = outcome(confidences, right)
    found = reliability(given_outcome, n_bins=n_bins)
    seen = given_outcome.log_probs[:, 0].exp().tolist()
    bins = {}
    for confidence, hit in zip(seen, right, strict=True):
        below = sum(edge / n_bins < confidence for edge in range(1, n_bins))
        bins.setdefault(below, []).append((confidence, hit))
    rows = [len(bins[number]) for number in sorted(bins)]
    assert found["rows"] == rows
    for number, mean, share in zip(sorted(bins), found["confidence"], found["accuracy"], strict=True):
        assert mean == pytest.approx(sum(c for c, _ in bins[number]) / len(bins[number]), abs=1e-12)
        assert share == pytest.approx(sum(h for _, h in bins[number]) / len(bins[number]), abs=1e-12)
    gaps = [n * abs(a - c) for n, a, c in zip(rows, found["accuracy"], found["confidence"], strict=True)]
    assert calibration_error(found) == pytest.approx(sum(gaps) / len(answers))


def test_the_error_is_that_of_the_metric():
    chance = torch.Generator().manual_seed(0)
    log_probs = torch.randn(200, 3, generator=chance, dtype=torch.float64).log_softmax(1)
    some = Outcome(torch.randint(3, (200,), generator=chance), log_probs.argmax(1), log_probs)
    assert calibration_error(reliability(some)) == pytest.approx(expected_calibration_error(some))


def test_no_probability_at_all_is_nothing_to_draw():
    log_probs = torch.full((3, 2), math.nan)
    assert reliability(Outcome(torch.zeros(3).long(), torch.zeros(3).long(), log_probs)) == {}
