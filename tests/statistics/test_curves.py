import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import trapezoid

from tests.references import statistics as reference
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.statistics.curves import (
    area_under_curve,
    data_utilisation,
    deficiency,
    labels_to_reach,
    mean_interval,
    reached,
)


class TestMeanInterval:
    def test_agrees_with_scipy(self):
        values = np.random.default_rng(0).random((5, 3))
        lower, upper = mean_interval(values, confidence=0.9)
        for column in range(3):
            sample = values[:, column]
            expected = stats.t.interval(0.9, 4, loc=sample.mean(), scale=stats.sem(sample))
            assert (lower[column], upper[column]) == pytest.approx(expected)

    def test_one_run_has_none(self):
        lower, upper = mean_interval(np.array([[0.5, 0.6]]))
        assert np.isnan(lower).all()
        assert np.isnan(upper).all()

    @pytest.mark.parametrize("confidence", [0, 1, 95, math.nan])
    def test_refuses_a_confidence_that_is_none(self, confidence):
        with pytest.raises(ConfigError, match="between 0 and 1"):
            mean_interval(np.zeros((2, 1)), confidence=confidence)

    def test_refuses_no_values(self):
        with pytest.raises(DataError, match="got none"):
            mean_interval(np.zeros(0))


class TestAreaUnderCurve:
    def test_is_the_trapezoid_rule_over_the_range_of_labels(self):
        assert area_under_curve([20, 40, 80], [0.5, 0.7, 0.9]) == pytest.approx((20 * 0.6 + 40 * 0.8) / 60)
        assert area_under_curve([20, 400], [0.3, 0.3]) == pytest.approx(0.3)
        assert area_under_curve([20], [0.4]) == 0.4

    def test_agrees_with_scipy(self):
        x, y = np.cumsum(np.arange(1, 30)), np.random.default_rng(0).random(29)
        assert area_under_curve(x, y) == pytest.approx(trapezoid(y, x) / (x[-1] - x[0]))

    @given(data=st.data(), n=st.integers(2, 6))
    def test_a_window_is_cut_out_of_the_broken_line(self, data, n):
        x = np.cumsum(data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n)))
        y = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
        low, high = sorted(data.draw(st.lists(st.integers(x[0], x[-1]), min_size=2, max_size=2)))
        found = area_under_curve(x, y, low=low, high=high)
        if low == high:
            assert found == pytest.approx(np.interp(low, x, y))
        else:
            assert found == pytest.approx(reference.area(x, y, low, high, pieces=400), abs=0.02)

    def test_a_window_by_hand(self):
        assert area_under_curve([0, 10, 20], [0.0, 1.0, 1.0], low=5) == pytest.approx((5 * 0.75 + 10) / 15)
        assert area_under_curve([0, 10, 20], [0.0, 1.0, 1.0], high=5) == pytest.approx(0.25)
        assert area_under_curve([0, 10], [0.2, 0.4], low=0, high=10) == area_under_curve([0, 10], [0.2, 0.4])

    @pytest.mark.parametrize("window", [{"low": 19}, {"high": 81}, {"low": 50, "high": 40}, {"low": math.nan}])
    def test_refuses_a_window_outside_the_curve(self, window):
        with pytest.raises(DataError, match=r"was asked of a curve from 20 to 80"):
            area_under_curve([20, 40, 80], [0.5, 0.7, 0.9], **window)

    def test_refuses_what_is_no_curve(self):
        with pytest.raises(ShapeError, match="got 1 at 2"):
            area_under_curve([1, 2], [0.5])
        with pytest.raises(DataError, match="at least one point"):
            area_under_curve([], [])
        with pytest.raises(DataError, match="40 was followed by 30"):
            area_under_curve([20, 40, 30], [0.5, 0.7, 0.9])


class TestLabelsToReach:
    def test_is_the_first_round_that_has_come_to_it(self):
        assert labels_to_reach([20, 40, 60], [0.5, 0.9, 0.8], 0.85) == 40
        assert labels_to_reach([20, 40], [0.5, 0.9], 0.5) == 20
        assert labels_to_reach([20, 40], [0.5, 0.9], 0.95) is None

    def test_where_less_is_better(self):
        assert labels_to_reach([20, 40, 60], [1.5, 0.9, 0.4], 0.9, lower_is_better=True) == 40
        assert labels_to_reach([20, 40], [1.5, 0.9], 0.5, lower_is_better=True) is None

    def test_labels_stay_whole_and_seconds_do_not(self):
        assert isinstance(labels_to_reach([20, 40], [0.5, 0.9], 0.6), int)
        assert labels_to_reach([0.25, 1.75], [0.5, 0.9], 0.6) == 1.75

    def test_a_number_that_is_not_known_has_not_come_to_it(self):
        assert labels_to_reach([20, 40], [math.nan, 0.9], 0.6) == 40
        assert labels_to_reach([20, 40], [math.nan, math.nan], 0.6, lower_is_better=True) is None

    def test_refuses_what_is_no_curve(self):
        with pytest.raises(ShapeError, match="got 1 at 2"):
            labels_to_reach([1, 2], [0.5], 0.5)


class TestReached:
    def test_by_hand(self):
        found = reached([20, 40, 60, 80], [100] * 4)
        assert (found["runs"], found["reached"], found["median"]) == (4, 4, 40)
        found = reached([20, None, None, 80], [100] * 4)
        assert (found["runs"], found["reached"], found["median"]) == (4, 2, 80)

    def test_fewer_than_half(self):
        found = reached([20, None, None], [100] * 3)
        assert found == {"runs": 3, "reached": 1, "median": None, "lower": pytest.approx(20), "upper": None}
        assert reached([None], [100]) == {"runs": 1, "reached": 0, "median": None, "lower": None, "upper": None}

    def test_a_run_that_ended_early_counts_until_then(self):
        # by 60 labels both that still went on had come to it; that the third ended at 30 says nothing against it
        assert reached([50, 60, None], [100, 100, 30])["median"] == 50
        assert reached([50, 60, None], [100, 100, 100])["median"] == 60

    @given(runs=st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=9))
    def test_agrees_with_the_loop(self, runs):
        labels = [n if came else None for n, came in runs]
        limits = [n for n, _ in runs]
        assert reached(labels, limits)["median"] == reference.kaplan_meier_median(labels, limits)

    @given(runs=st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=20))
    def test_the_median_lies_in_its_interval(self, runs):
        found = reached([n if came else None for n, came in runs], [n for n, _ in runs])
        if found["median"] is not None:
            assert found["lower"] is None or found["lower"] <= found["median"]
            assert found["upper"] is None or found["median"] <= found["upper"]

    def test_the_interval_covers_the_median_mostly(self):
        rng, inside = np.random.default_rng(0), 0
        for _ in range(200):
            found = reached(rng.exponential(100, 30), [1e9] * 30)
            inside += found["lower"] <= 100 * math.log(2) <= found["upper"]
        assert 180 <= inside <= 199

    def test_refuses_what_cannot_be(self):
        with pytest.raises(DataError, match="needed 50 labels and had 40"):
            reached([30, 50], [40, 40])
        with pytest.raises(ShapeError, match="2 runs and 1 limits"):
            reached([30, 50], [40])
        with pytest.raises(DataError, match="at least one run"):
            reached([], [])


class TestDataUtilisation:
    def test_by_hand(self):
        found = data_utilisation([20, 80, None, 50, None], [40, 40, 50, None, None])
        assert found["ratio"] == pytest.approx(1.0)
        assert [found[key] for key in ("pairs", "censored", "censored_baseline", "censored_both")] == [2, 1, 1, 1]

    def test_interval_is_that_of_the_logarithm(self):
        a, b = np.array([20.0, 30.0, 60.0]), np.array([40.0, 50.0, 50.0])
        found = data_utilisation(a, b)
        logs = np.log(a / b)
        ends = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
        assert (found["lower"], found["upper"]) == pytest.approx(tuple(np.exp(ends)))
        assert found["ratio"] == pytest.approx(stats.gmean(a / b))

    def test_with_the_two_exchanged_it_is_one_over_it(self):
        first = data_utilisation([20, 30, 60], [40, 50, 55])
        second = data_utilisation([40, 50, 55], [20, 30, 60])
        assert first["ratio"] == pytest.approx(1 / second["ratio"])
        assert first["lower"] == pytest.approx(1 / second["upper"])

    def test_one_pair_and_none(self):
        found = data_utilisation([20], [40])
        assert (found["ratio"], found["lower"], found["upper"]) == (pytest.approx(0.5), None, None)
        assert data_utilisation([None], [40])["ratio"] is None
        assert data_utilisation([], [])["pairs"] == 0

    def test_refuses_what_has_no_ratio(self):
        with pytest.raises(ShapeError, match="got 1 and 2"):
            data_utilisation([1], [1, 2])
        with pytest.raises(DataError, match="above 0, got 0"):
            data_utilisation([1, 0], [1, 2])


class TestDeficiency:
    def test_by_hand(self):
        # the baseline lacks 0.4 + 0.2 to its end, the curve 0.4 + 0.1
        assert deficiency([0.5, 0.8, 0.9], [0.5, 0.7, 0.9]) == pytest.approx(0.5 / 0.6)
        assert deficiency([0.5, 0.7, 0.9], [0.5, 0.7, 0.9]) == pytest.approx(1)
        assert deficiency([0.9, 0.9, 0.9], [0.5, 0.7, 0.9]) == pytest.approx(0)
        assert deficiency([1.0, 1.0], [0.5, 0.9]) < 0

    def test_where_less_is_better(self):
        error = deficiency([0.5, 0.2, 0.1], [0.5, 0.3, 0.1], lower_is_better=True)
        assert error == pytest.approx(deficiency([0.5, 0.8, 0.9], [0.5, 0.7, 0.9]))

    def test_none_where_the_baseline_learned_nothing(self):
        assert deficiency([0.5, 0.8], [0.7, 0.7]) is None
        assert deficiency([0.5, 0.8], [0.9, 0.7]) is None
        assert deficiency([0.5, 0.8], [0.9, 0.7], lower_is_better=True) is not None

    def test_refuses_curves_at_other_numbers_of_labels(self):
        with pytest.raises(ShapeError, match="got 1 and 2"):
            deficiency([0.5], [0.5, 0.6])
        with pytest.raises(DataError, match="at least one point"):
            deficiency([], [])
