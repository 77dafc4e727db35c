import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from tests.runs.test_results import make_result
from torchal import ConfigError, DataError, Run
from torchal.runs.curves import area_under_curve, labels_to_reach, learning_curve, mean_interval


def make_run(points):
    rounds = [make_result(i, n_labeled=n, test={"accuracy": value}) for i, (n, value) in enumerate(points)]
    return Run(Path("run"), {}, rounds, finished=True)


def test_area_is_the_trapezoid_rule_over_the_range_of_labels():
    assert area_under_curve([20, 40, 80], [0.5, 0.7, 0.9]) == pytest.approx((20 * 0.6 + 40 * 0.8) / 60)
    assert area_under_curve([20, 400], [0.3, 0.3]) == pytest.approx(0.3)
    assert area_under_curve([20], [0.4]) == 0.4


def test_area_agrees_with_scipy():
    x, y = np.cumsum(np.arange(1, 30)), np.random.default_rng(0).random(29)
    from scipy.integrate import trapezoid

    assert area_under_curve(x, y) == pytest.approx(trapezoid(y, x) / (x[-1] - x[0]))


def test_labels_to_reach():
    assert labels_to_reach([20, 40, 60], [0.5, 0.9, 0.8], 0.85) == 40
    assert labels_to_reach([20, 40], [0.5, 0.9], 0.5) == 20
    assert labels_to_reach([20, 40], [0.5, 0.9], 0.95) is None


def test_interval_agrees_with_scipy():
    values = np.random.default_rng(0).random((5, 3))
    lower, upper = mean_interval(values, confidence=0.9)
    for column in range(3):
        sample = values[:, column]
        expected = stats.t.interval(0.9, 4, loc=sample.mean(), scale=stats.sem(sample))
        assert (lower[column], upper[column]) == pytest.approx(expected)


def test_one_run_has_no_interval():
    lower, upper = mean_interval(np.array([[0.5, 0.6]]))
    assert np.isnan(lower).all()
    assert np.isnan(upper).all()


@pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
def test_refuses_a_confidence_that_is_none(confidence):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        mean_interval(np.zeros((2, 1)), confidence=confidence)


def test_learning_curve_of_runs_with_the_same_labels():
    curve = learning_curve([make_run([(10, 0.4), (20, 0.6)]), make_run([(10, 0.6), (20, 0.8)])])
    assert curve.n_labeled.tolist() == [10, 20]
    assert curve.mean.tolist() == pytest.approx([0.5, 0.7])
    half = stats.t.ppf(0.975, 1) * np.std([0.4, 0.6], ddof=1) / math.sqrt(2)
    assert (curve.upper - curve.mean).tolist() == pytest.approx([half, half])


def test_learning_curve_of_runs_with_other_labels_is_interpolated_where_all_have_some():
    curve = learning_curve([make_run([(10, 0.4), (30, 0.6)]), make_run([(20, 0.6), (30, 0.8), (40, 0.9)])])
    assert curve.n_labeled.tolist() == [20, 30]
    assert curve.mean.tolist() == pytest.approx([0.55, 0.7])


def test_learning_curve_refuses_runs_without_anything_in_common():
    with pytest.raises(DataError, match="no number of labels in common"):
        learning_curve([make_run([(10, 0.4)]), make_run([(20, 0.6)])])
    with pytest.raises(DataError, match="at least one run"):
        learning_curve([])
