import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import herding as reference
from tests.references import submodular
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.functional import (
    calibrated_temperature,
    labeled_distance,
    max_herding,
    tempered_uncertainty,
    uncertainty_herding,
)


def normal(n_rows, n_columns, seed=0, dtype=torch.float64):
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mask(n_rows, rows):
    out = torch.zeros(n_rows, dtype=torch.bool)
    out[list(rows)] = True
    return out


class TestByHand:
    line = torch.tensor([[0.0], [1.0], [2.0], [9.0]])

    def test_kernels_of_the_bandwidth(self):
        picks = max_herding(self.line, 2, bandwidth=2.0, normalize=False)
        assert picks.indices.tolist() == [1, 3]
        assert picks.scores.tolist() == pytest.approx([1 + 2 * math.exp(-1 / 4), 1], abs=1e-4)
        assert picks.value == pytest.approx(2 + 2 * math.exp(-1 / 4))

    def test_rows_are_scaled_to_length_1(self):
        x = torch.tensor([[1.0, 0.0], [0.0, 5.0], [0.0, 7.0]])
        picks = max_herding(x, 2)
        assert picks.indices.tolist() == [1, 0]
        assert picks.scores.tolist() == pytest.approx([2 + math.exp(-2), 1 - math.exp(-2)], abs=1e-5)

    def test_rows_count_as_much_as_the_model_is_unsure(self):
        unsure = torch.tensor([0.1, 0.2, 0.1, 0.7])
        picks = uncertainty_herding(self.line, 2, uncertainty=unsure, bandwidth=1.0, normalize=False)
        assert picks.indices.tolist() == [3, 1]
        assert picks.scores.tolist() == pytest.approx([0.7, 0.2 + 0.2 * math.exp(-1)], abs=1e-4)

    def test_the_bandwidth_is_the_least_distance_of_labeled_rows(self):
        x = torch.tensor([[0.0], [0.0], [4.0], [7.0], [20.0], [21.0]])
        labeled = mask(6, [0, 1, 2, 3])
        assert labeled_distance(x, labeled, normalize=False) == 3
        unsure = torch.tensor([1.0, 1, 1, 1, 1, 0.5])
        got = uncertainty_herding(x, 2, uncertainty=unsure, labeled=labeled, normalize=False)
        want = uncertainty_herding(x, 2, uncertainty=unsure, labeled=labeled, normalize=False, bandwidth=3.0)
        assert got.indices.tolist() == want.indices.tolist() == [4, 5]
        assert got.scores.equal(want.scores)


pools = st.tuples(st.integers(1, 9), st.integers(1, 3)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float64, shape, elements=st.sampled_from([-3.0, -1.0, -0.5, 0.1, 1.0, 2.0, 2.5])),
        hnp.arrays(np.int8, shape[0], elements=st.integers(0, 2)),
        hnp.arrays(np.float64, shape[0], elements=st.sampled_from([0.0, 0.25, 1.0])),
        st.integers(1, shape[0]),
        st.booleans(),
    )
)


@settings(max_examples=60, deadline=None)
@given(pools)
def test_agrees_with_the_reference(case):
    features, kinds, unsure, n, normalize = case
    x, unsure = torch.from_numpy(features), torch.from_numpy(unsure)
    labeled, candidates = torch.from_numpy(kinds == 0), torch.from_numpy(kinds == 1)
    rows, centers = np.flatnonzero(kinds == 1).tolist(), np.flatnonzero(kinds == 0).tolist()
    n = min(n, len(rows))
    if not n:
        return
    points = submodular.unit(x.tolist()) if normalize else x.tolist()
    masks = {"labeled": labeled, "candidates": candidates, "normalize": normalize}
    want, gains = reference.herding(points, [1.0] * len(x), 0.7, n, centers, rows)
    assume(submodular.is_clear(reference.objective(points, [1.0] * len(x), 0.7), want, centers, rows))
    got = max_herding(x, n, bandwidth=0.7, **masks)
    assert got.indices.tolist() == want
    assert got.scores.tolist() == pytest.approx(gains, abs=1e-9)
    bandwidth = reference.least_distance(points, centers)
    assert labeled_distance(x, labeled, normalize=normalize) == pytest.approx(bandwidth, rel=1e-9)
    want, gains = reference.herding(points, unsure.tolist(), bandwidth, n, centers, rows)
    assume(submodular.is_clear(reference.objective(points, unsure.tolist(), bandwidth), want, centers, rows))
    got = uncertainty_herding(x, n, uncertainty=unsure, **masks)
    assert got.indices.tolist() == want
    assert got.scores.tolist() == pytest.approx(gains, abs=1e-9)


class TestTheLimits:
    """What the method becomes at its two ends."""

    def test_a_narrow_kernel_leaves_the_least_sure_rows(self):
        unsure = normal(60, 1, seed=1)[:, 0].abs()
        picks = uncertainty_herding(normal(60, 5), 20, uncertainty=unsure, bandwidth=1e-3)
        assert picks.indices.tolist() == unsure.topk(20).indices.tolist()

    def test_equal_uncertainties_leave_max_herding(self):
        x = normal(60, 5)
        want = max_herding(x, 20, bandwidth=0.5)
        got = uncertainty_herding(x, 20, uncertainty=torch.full((60,), 0.5), bandwidth=0.5)
        assert got.indices.equal(want.indices)
        assert got.scores.tolist() == pytest.approx((want.scores / 2).tolist())

    def test_rows_that_the_model_is_sure_of_come_last_and_lowest_first(self):
        picks = uncertainty_herding(normal(9, 3), 9, uncertainty=mask(9, [4]).double(), bandwidth=0.1)
        assert picks.indices.tolist() == [4, 0, 1, 2, 3, 5, 6, 7, 8]
        assert picks.scores[1:].tolist() == [0] * 8


class TestEdges:
    def test_labeled_rows_that_do_not_differ_have_the_bandwidth_1(self):
        x = torch.ones(6, 2)
        for rows in ([], [2], [0, 1, 2]):
            assert labeled_distance(x, mask(6, rows)) == 1
        assert labeled_distance(x, mask(6, [0, 1]), default=3.0) == 3
        picks = uncertainty_herding(x, 2, uncertainty=torch.ones(6), labeled=mask(6, [0, 3]))
        assert picks.indices.tolist() == [1, 2]
        assert picks.scores.tolist() == [0, 0]

    def test_parallel_rows_are_equal_ones_at_length_1(self):
        x = normal(8, 5, dtype=torch.float32).repeat(3, 1) * torch.arange(1, 25)[:, None]
        units = torch.nn.functional.normalize(x[:8].double())
        labeled = torch.ones(24, dtype=torch.bool)
        assert labeled_distance(x, labeled) == pytest.approx(float(torch.pdist(units).min()), rel=1e-5)

    def test_very_near_labeled_rows(self):
        x = normal(51, 8)
        x[50] = x[0] + 1e-12
        picks = uncertainty_herding(x, 30, uncertainty=torch.ones(51), labeled=mask(51, [0, 50]))
        assert picks.scores.tolist() == pytest.approx([1] * 30, abs=1e-3)
        assert picks.indices.tolist() == list(range(1, 31))

    def test_a_pair_in_another_block(self, monkeypatch):
        x = normal(50, 3)
        want = labeled_distance(x, torch.ones(50, dtype=torch.bool))
        monkeypatch.setitem(labeled_distance.__globals__, "values_per_chunk", lambda device: 49)
        assert labeled_distance(x, torch.ones(50, dtype=torch.bool)) == want

    def test_one_row_left_and_all(self):
        x = normal(7, 3)
        assert max_herding(x, 1, labeled=mask(7, [0, 1, 2, 4, 5, 6])).indices.tolist() == [3]
        assert max_herding(x, 7).indices.sort().values.tolist() == list(range(7))

    @pytest.mark.parametrize("size", [1e-30, 1e30])
    def test_sizes_far_from_1(self, size):
        x = normal(40, 3)
        labeled = mask(40, range(4))
        for normalize in (True, False):
            want = uncertainty_herding(x, 9, uncertainty=torch.ones(40), labeled=labeled, normalize=normalize)
            got = uncertainty_herding(x * size, 9, uncertainty=torch.ones(40), labeled=labeled, normalize=normalize)
            assert got.indices.equal(want.indices)

    def test_half_precision(self):
        x = normal(40, 3).half()
        assert max_herding(x, 9).indices.equal(max_herding(x.float(), 9).indices)


class TestTempered:
    def test_by_hand(self):
        log_probs = torch.tensor([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0]]).log()
        assert tempered_uncertainty(log_probs).tolist() == pytest.approx([0.5, 0])
        assert tempered_uncertainty(log_probs, "least_confidence").tolist() == pytest.approx([0.3, 0], abs=1e-6)
        entropy = -sum(p * math.log(p) for p in (0.7, 0.2, 0.1))
        assert tempered_uncertainty(log_probs, "entropy").tolist() == pytest.approx([entropy, 0])
        half = [p**0.5 for p in (0.7, 0.2, 0.1)]  # at a temperature of 2
        margin = 1 - (half[0] - half[1]) / sum(half)
        assert tempered_uncertainty(log_probs, temperature=2.0).tolist() == pytest.approx([margin, 0])

    @pytest.mark.parametrize("uncertainty", ["margin", "least_confidence", "entropy"])
    def test_a_doubtful_row_counts_more_than_a_sure_one_and_one_class_not_at_all(self, uncertainty):
        sure, doubtful = tempered_uncertainty(torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log(), uncertainty).tolist()
        assert 0 < sure < doubtful
        assert tempered_uncertainty(torch.zeros(3, 1), uncertainty).tolist() == [0, 0, 0]
        assert tempered_uncertainty(torch.zeros(3, 1).half(), uncertainty).dtype == torch.float32

    def test_parts_change_nothing(self, monkeypatch):
        log_probs = normal(50, 4).log_softmax(1)
        want = tempered_uncertainty(log_probs, "entropy", temperature=3.0)
        monkeypatch.setitem(tempered_uncertainty.__globals__, "values_per_chunk", lambda device: 9)
        assert tempered_uncertainty(log_probs, "entropy", temperature=3.0).tolist() == pytest.approx(want.tolist())

    def test_refuses(self):
        log_probs = torch.tensor([[0.5, 0.5]]).log()
        with pytest.raises(ConfigError, match="uncertainty must be one of margin, entropy, least_confidence"):
            tempered_uncertainty(log_probs, "conf")
        with pytest.raises(ConfigError, match="temperature must be a finite number above 0"):
            tempered_uncertainty(log_probs, temperature=0)
        with pytest.raises(ShapeError, match="log_probs must have 2 axes"):
            tempered_uncertainty(log_probs[0])
        with pytest.raises(DataError, match="row 0 sums to"):
            tempered_uncertainty(log_probs * 0)


class TestTemperature:
    def test_by_hand(self):
        """Sure at 0.9 and right in 2 of 3: a temperature of 3 makes 0.9 to 0.675."""
        log_probs = torch.tensor([[0.9, 0.1]] * 3).log()
        targets = torch.tensor([0, 0, 1])
        assert calibrated_temperature(log_probs, targets) == 3.2  # 0.6652
        assert calibrated_temperature(log_probs, torch.tensor([0, 0, -1])) == 3.2  # an unknown class is a mistake
        assert calibrated_temperature(log_probs, torch.tensor([0, 0, 0])) == 1.0  # not sure enough: the first

    @settings(max_examples=40, deadline=None)
    @given(
        hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 4)), elements=st.floats(-8, 8, width=16)),
        st.integers(0, 1000),
        st.integers(1, 20),
    )
    def test_agrees_with_the_reference(self, logits, seed, n_bins):
        log_probs = torch.from_numpy(logits).log_softmax(1)
        generator = torch.Generator().manual_seed(seed)
        targets = torch.randint(-1, logits.shape[1], (len(logits),), generator=generator)
        tried = (0.5, 1.0, 1.7, 4.0)
        got = calibrated_temperature(log_probs, targets, temperatures=tried, n_bins=n_bins)
        errors = {
            t: reference.calibration_error((log_probs / t).log_softmax(1).tolist(), targets.tolist(), n_bins)
            for t in tried
        }
        assert errors[got] <= min(errors.values()) + 1e-9

    def test_probabilities_0_and_1(self):
        log_probs = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()
        assert calibrated_temperature(log_probs, torch.tensor([0, 0])) == 1.0

    def test_refuses(self):
        log_probs, targets = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([0])
        with pytest.raises(ShapeError, match=r"targets must be \(1,\)"):
            calibrated_temperature(log_probs, torch.tensor([0, 1]))
        with pytest.raises(ShapeError, match="log_probs must have 2 axes"):
            calibrated_temperature(log_probs[0], targets)
        with pytest.raises(DataError, match="no held-out rows"):
            calibrated_temperature(log_probs[:0], targets[:0])
        with pytest.raises(DataError, match="columns below 2, or -1"):
            calibrated_temperature(log_probs, torch.tensor([2]))
        with pytest.raises(DataError, match="must not be NaN"):
            calibrated_temperature(log_probs * math.nan, targets)
        with pytest.raises(ConfigError, match="at least one temperature"):
            calibrated_temperature(log_probs, targets, temperatures=())
        with pytest.raises(ConfigError, match="a temperature must be a finite number above 0"):
            calibrated_temperature(log_probs, targets, temperatures=(0.0,))
        with pytest.raises(ConfigError, match="n_bins must be a whole number"):
            calibrated_temperature(log_probs, targets, n_bins=0)


class TestRefuses:
    x, unsure = normal(6, 2), torch.ones(6)

    def test_what_makes_no_sense(self):
        with pytest.raises(BudgetError, match="asked for 7 rows, 6 can be picked"):
            max_herding(self.x, 7)
        for bandwidth in (0, -1.0, math.nan, math.inf):
            with pytest.raises(ConfigError, match="bandwidth must be a finite number above 0"):
                max_herding(self.x, 1, bandwidth=bandwidth)
        with pytest.raises(ConfigError, match="bandwidth must be a finite number above 0, got 0"):
            uncertainty_herding(self.x, 1, uncertainty=self.unsure, bandwidth=0)
        with pytest.raises(ShapeError, match=r"uncertainty must be \(6,\)"):
            uncertainty_herding(self.x, 1, uncertainty=self.unsure[1:])
        with pytest.raises(ShapeError, match="got NoneType"):
            uncertainty_herding(self.x, 1, uncertainty=None)
        with pytest.raises(DataError, match="uncertainty must be at least 0: 6 of 6 are not"):
            uncertainty_herding(self.x, 1, uncertainty=-self.unsure)
        with pytest.raises(DataError, match="features of labeled rows must be finite"):
            uncertainty_herding(self.x * math.nan, 1, uncertainty=self.unsure, labeled=mask(6, [0, 1]))
        with pytest.raises(DataError, match="features must be finite"):
            max_herding(self.x * math.nan, 1)


def test_a_row_of_zeros_is_at_a_distance_of_1():
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [-2.0, 0.0]])
    picks = max_herding(x, 3, bandwidth=1.0)
    assert picks.indices.tolist() == [0, 1, 2]
    assert picks.scores.tolist() == pytest.approx([1 + 2 / math.e, 1 - 1 / math.e, 1 - 1 / math.e])
    assert max_herding(x, 1, bandwidth=0.01, labeled=mask(3, [1])).indices.tolist() == [0]
    assert labeled_distance(x, mask(3, [0, 1])) == 1
    assert uncertainty_herding(x, 1, uncertainty=torch.tensor([0.1, 0.1, 0.9]), bandwidth=0.1).indices.tolist() == [2]
    for normalize in (False, True):
        assert max_herding(x * 0, 2, normalize=normalize).indices.tolist() == [0, 1]


@pytest.mark.gpu
def test_the_same_on_a_gpu():
    x, unsure, labeled = normal(500, 6), normal(500, 1, seed=2)[:, 0].abs(), mask(500, range(0, 500, 25))
    want = uncertainty_herding(x, 60, uncertainty=unsure, labeled=labeled)
    got = uncertainty_herding(x.cuda(), 60, uncertainty=unsure.cuda(), labeled=labeled.cuda())
    assert got.indices.tolist() == want.indices.tolist()
    log_probs = normal(50, 4).log_softmax(1)
    targets = torch.arange(50) % 4
    assert calibrated_temperature(log_probs.cuda(), targets.cuda()) == calibrated_temperature(log_probs, targets)
