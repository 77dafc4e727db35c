import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from tests.references import statistics as reference
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.statistics.diagnostics import (
    brier_score,
    class_divergence,
    expected_calibration_error,
    reliability,
    sole_picks,
)


class TestClassDivergence:
    @given(data=st.data(), n=st.integers(2, 5))
    def test_agrees_with_scipy(self, data, n):
        pool = data.draw(st.lists(st.integers(1, 50), min_size=n, max_size=n))
        batch = data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n).filter(any))
        found = class_divergence(batch, pool)
        assert found == pytest.approx(stats.entropy(batch, pool), abs=1e-12)
        assert found >= 0

    def test_a_class_that_neither_has_is_none(self):
        assert class_divergence([1, 0, 1], [5, 0, 5]) == 0

    def test_refuses_what_has_no_divergence(self):
        with pytest.raises(DataError, match="the pool has no row of class 1, of which there are 3"):
            class_divergence([1, 3], [5, 0])
        with pytest.raises(DataError, match="counts must be at least 0 and not all 0"):
            class_divergence([0, 0], [5, 5])
        with pytest.raises(DataError, match="pool_counts must be at least 0"):
            class_divergence([1, 1], [5, -5])
        with pytest.raises(ShapeError, match="got 1 and 2"):
            class_divergence([1], [5, 5])


class TestSolePicks:
    def test_sets_arrays_and_repeats(self):
        found = sole_picks({"a": {1, 2}, "b": np.array([2, 3, 3, 4]), "c": []})
        assert found["a"] == 0.5
        assert found["b"] == pytest.approx(2 / 3)
        assert math.isnan(found["c"])

    def test_one_strategy_has_all_of_its_rows_to_itself(self):
        assert sole_picks({"a": range(4)}) == {"a": 1.0}


answers = st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.25, 1 / 3, 0.5, 0.6, 0.9, 1.0]), st.booleans()), min_size=1)


class TestCalibration:
    @given(answers=answers, bins=st.sampled_from([1, 2, 3, 5, 10, 15]))
    def test_error_agrees_with_the_loop(self, answers, bins):
        confidence, right = zip(*answers, strict=True)
        found = expected_calibration_error(confidence, right, bins)
        assert found == pytest.approx(reference.calibration_error(confidence, right, bins), abs=1e-12)
        assert 0 <= found <= 1

    @given(answers=answers, bins=st.sampled_from([1, 2, 3, 5, 10, 15]))
    def test_error_is_the_mean_gap_of_the_curve(self, answers, bins):
        confidence, right = zip(*answers, strict=True)
        curve = reliability(confidence, right, bins)
        gaps = [
            n * abs(sure - accuracy)
            for n, sure, accuracy in zip(curve["count"], curve["confidence"], curve["accuracy"], strict=True)
            if n
        ]
        assert sum(gaps) / len(right) == pytest.approx(expected_calibration_error(confidence, right, bins))
        assert sum(curve["count"]) == len(right)

    def test_edges_belong_to_the_bin_below(self):
        found = reliability([0.0, 0.5, 0.500001, 1.0], [0, 1, 1, 0], bins=2)
        assert found == {
            "edges": [0.0, 0.5, 1.0],
            "confidence": [0.25, pytest.approx(0.7500005)],
            "accuracy": [0.5, 0.5],
            "count": [2, 2],
        }
        # 0.2 * 15 is more than 3 in floats
        assert reliability([0.2], [1])["count"].index(1) == 2

    def test_an_empty_bin_has_no_mean(self):
        found = reliability([0.9], [True], bins=2)
        assert (found["confidence"], found["accuracy"], found["count"]) == ([None, 0.9], [None, 1.0], [0, 1])

    def test_a_confidence_that_is_1_up_to_rounding(self):
        assert expected_calibration_error(np.array([1.0000001], dtype=np.float32), [1]) == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize("function", [reliability, expected_calibration_error])
    def test_refuses_what_has_no_calibration(self, function):
        with pytest.raises(DataError, match=r"confidence must lie between 0 and 1, got 0\.5 to 2"):
            function([0.5, 2.0], [1, 0])
        with pytest.raises(DataError, match="right must be true or false, got 3"):
            function([0.5, 0.6], [1, 3])
        with pytest.raises(DataError, match="at least one row"):
            function([], [])
        with pytest.raises(ShapeError, match="got 2 and 1"):
            function([0.5, 0.6], [1])
        with pytest.raises(ConfigError, match="bins"):
            function([0.5], [1], 0)


class TestBrierScore:
    def test_by_hand(self):
        assert brier_score(np.array([[1.0, 0.0], [0.0, 1.0]]), [0, 1]) == 0
        assert brier_score(np.array([[1.0, 0.0]]), [1]) == 2
        assert brier_score(np.array([[0.5, 0.3, 0.2]]), [1]) == pytest.approx(0.25 + 0.49 + 0.04)

    def test_of_two_classes_is_twice_that_of_scikit_learn(self):
        rng = np.random.default_rng(0)
        probs, targets = rng.dirichlet([1, 1], 40), rng.integers(0, 2, 40)
        assert brier_score(probs, targets) == pytest.approx(2 * sk.brier_score_loss(targets, probs[:, 1]))

    def test_refuses_what_has_no_score(self):
        half = np.full((2, 2), 0.5)
        with pytest.raises(DataError, match=r"row 1 sums to 1\.5"):
            brier_score(np.array([[0.5, 0.5], [0.5, 1.0]]), [0, 1])
        with pytest.raises(DataError, match=r"row 0 sums to 1, least -0\.5"):
            brier_score(np.array([[1.5, -0.5]]), [0])
        with pytest.raises(DataError, match="columns of 2 classes, got 0 to 2"):
            brier_score(half, [0, 2])
        with pytest.raises(ShapeError, match=r"must be \(2,\) whole numbers, got float64"):
            brier_score(half, [0.0, 1.0])
        with pytest.raises(DataError, match="at least one row"):
            brier_score(np.empty((0, 2)), np.empty(0, dtype=np.int64))
