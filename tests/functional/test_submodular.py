import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import submodular as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import coverage
from torchal.functional import facility_location, max_herding, saturated_coverage

ENGINE = coverage.Coverage.__init__.__globals__


def normal(n_rows, n_columns, seed=0, dtype=torch.float32):
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mask(n_rows, rows):
    out = torch.zeros(n_rows, dtype=torch.bool)
    out[list(rows)] = True
    return out


def plain(x, n, labeled=None, weights=None):
    """Return the picks and gains of the greedy algorithm on a matrix of all cosines, in float64."""
    x = torch.nn.functional.normalize(x.double())
    table = x @ x.T
    weights = torch.ones(len(x)) if weights is None else weights
    value = torch.zeros(len(x), dtype=torch.float64)
    free = torch.ones(len(x), dtype=torch.bool)
    if labeled is not None:
        value = table[labeled].amax(0).clamp(min=0)
        free = ~labeled
    picked, gains = [], []
    for _ in range(n):
        gain = ((table - value).clamp(min=0) @ weights.double()).masked_fill(~free, -1)
        row = int((gain >= gain.max() - 1e-9).nonzero()[0])  # two rows near each other alone have the same gain
        free[row] = False
        picked.append(row)
        gains.append(float(gain[row]))
        value = torch.maximum(value, table[row])
    return picked, gains


@pytest.fixture
def small_parts(monkeypatch):
    """No matrix is held, and every pass is made of many tiles."""
    monkeypatch.setitem(ENGINE, "values_per_chunk", lambda device: 400)


class TestByHand:
    # the cosines of the first three rows with each other are 0.6, 0.8 and 0.96; the last row is opposite to the first
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]])

    def test_each_pick_adds_most_to_the_sum_of_highest_similarities(self):
        picks = facility_location(self.x, 2)
        assert picks.indices.tolist() == [2, 3]
        assert picks.scores.tolist() == pytest.approx([0.8 + 0.96 + 1, 1])
        assert picks.value == pytest.approx(3.76)
        assert picks.bound >= 3.76  # as no two rows reach more

    def test_labeled_rows_cover_from_the_start_and_count_in_the_value(self):
        picks = facility_location(self.x, 1, labeled=mask(4, [2]))
        assert picks.indices.tolist() == [3]
        assert picks.value == pytest.approx(3.76)

    def test_rows_that_are_no_candidates_want_to_be_covered(self):
        picks = facility_location(self.x, 1, candidates=mask(4, [0, 3]))
        assert picks.indices.tolist() == [0]
        assert picks.scores.tolist() == pytest.approx([2.4])

    def test_weights_say_how_much(self):
        weights = torch.tensor([0.0, 0.0, 0.0, 2.0])
        picks = facility_location(self.x, 2, weights=weights)
        assert picks.indices.tolist() == [3, 0]
        assert picks.scores.tolist() == [2, 0]

    def test_rbf_and_euclidean(self):
        line = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
        picks = facility_location(line, 2, similarity="euclidean")
        assert picks.indices.tolist() == [1, 3]
        assert picks.scores.tolist() == pytest.approx([1 + 0.5 + 0.5 + 0.1, 0.9])
        picks = facility_location(line, 2, similarity="rbf", gamma=0.5)
        assert picks.scores.tolist() == pytest.approx([1 + 2 * math.exp(-0.5), 1], abs=1e-4)


pools = st.tuples(st.integers(1, 9), st.integers(1, 3)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float64, shape, elements=st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.1, 1.0, 2.0, 2.5])),
        hnp.arrays(np.int8, shape[0], elements=st.integers(0, 2)),
        hnp.arrays(np.float64, shape[0], elements=st.sampled_from([0.0, 0.5, 1.0, 3.0])),
        st.integers(1, shape[0]),
    )
)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("similarity", ["cosine", "rbf", "euclidean"])
@settings(max_examples=12, deadline=None)
@given(pools)
def test_agrees_with_the_reference_and_reaches_the_share_that_theory_grants(similarity, held, case):
    features, kinds, weights, n = case
    x = torch.from_numpy(features)
    if similarity == "cosine":
        x[(x == 0).all(1)] = 1.0
    labeled, candidates = torch.from_numpy(kinds == 0), torch.from_numpy(kinds == 1)
    rows, centers = np.flatnonzero(kinds == 1).tolist(), np.flatnonzero(kinds == 0).tolist()
    n = min(n, len(rows))
    if not n:
        return
    gamma = reference.inverse_variance(x.tolist()) if similarity == "rbf" else 1.0
    table = reference.similarities(x.tolist(), similarity, gamma)

    def objective(picked):
        return reference.value(table, picked, weights.tolist())

    want, gains = reference.greedy(objective, n, centers, rows)
    with pytest.MonkeyPatch.context() as patch:
        if not held:
            patch.setitem(ENGINE, "values_per_chunk", lambda device: 9)
        picks = facility_location(
            x,
            n,
            max_held=100 if held else 0,
            similarity=similarity,
            labeled=labeled,
            candidates=candidates,
            weights=torch.from_numpy(weights),
        )
    assert picks.indices.tolist() == want
    assert picks.scores.tolist() == pytest.approx(gains, abs=1e-9)
    assert picks.value == pytest.approx(objective([*centers, *want]))
    base, most = objective(centers), reference.best(objective, n, centers, rows)
    assert picks.value - base >= (1 - 1 / math.e) * (most - base) - 1e-9
    assert most <= picks.bound <= base + (picks.value - base) / (1 - 1 / math.e) + 1e-6


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("similarity", ["cosine", "rbf", "euclidean"])
@settings(max_examples=12, deadline=None)
@given(pools, st.sampled_from([0.1, 0.4, 1.0]))
def test_saturated_coverage_agrees_with_the_reference(similarity, held, case, saturation):
    features, kinds, weights, n = case
    x = torch.from_numpy(features)
    if similarity == "cosine":
        x[(x == 0).all(1)] = 1.0
    labeled, candidates = torch.from_numpy(kinds == 0), torch.from_numpy(kinds == 1)
    rows, centers = np.flatnonzero(kinds == 1).tolist(), np.flatnonzero(kinds == 0).tolist()
    n = min(n, len(rows))
    if not n:
        return
    table = reference.similarities(x.tolist(), similarity, 0.4)

    def objective(picked):
        return reference.saturated(table, picked, weights.tolist(), saturation)

    want, gains = reference.greedy(objective, n, centers, rows)
    with pytest.MonkeyPatch.context() as patch:
        if not held:
            patch.setitem(ENGINE, "values_per_chunk", lambda device: 9)
        picks = saturated_coverage(
            x,
            n,
            max_held=100 if held else 0,
            saturation=saturation,
            similarity=similarity,
            gamma=0.4 if similarity == "rbf" else None,
            labeled=labeled,
            candidates=candidates,
            weights=torch.from_numpy(weights),
        )
    assert picks.indices.tolist() == want
    assert picks.scores.tolist() == pytest.approx(gains, abs=1e-9)
    assert picks.value == pytest.approx(objective([*centers, *want]))
    base, most = objective(centers), reference.best(objective, n, centers, rows)
    assert picks.value - base >= (1 - 1 / math.e) * (most - base) - 1e-9
    assert most <= picks.bound + 1e-12


class TestSaturatedCoverage:
    def test_by_hand(self):
        """The rows' similarities sum to 2.4, 2.56, 2.76 and 1, of which three tenths are enough."""
        x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]])
        picks = saturated_coverage(x, 2, saturation=0.3)
        assert picks.indices.tolist() == [2, 3]  # row 2 gives all rows like it enough
        assert picks.scores.tolist() == pytest.approx([0.72 + 0.768 + 0.828, 0.3])
        assert picks.value == pytest.approx(2.616)

    @pytest.mark.parametrize("eager", [0, 4, 1e9])
    @pytest.mark.parametrize("held", [0, 1 << 26])
    def test_policies(self, eager, held, monkeypatch):
        x = normal(200, 4, dtype=torch.float64)
        monkeypatch.setitem(ENGINE, "_EAGER", eager)
        table = torch.nn.functional.normalize(x)
        table = (table @ table.T).clamp(min=0)
        room, free, want = 0.05 * table.sum(1), torch.ones(200, dtype=torch.bool), []
        for _ in range(60):
            gain = torch.minimum(table, room).sum(1).masked_fill(~free, -1)
            want.append(int((gain >= gain.max() - 1e-9).nonzero()[0]))
            free[want[-1]] = False
            room = (room - table[want[-1]]).clamp(min=0)
        assert saturated_coverage(x, 60, saturation=0.05, max_held=held).indices.tolist() == want

    def test_all_rows_once_equal_rows_and_one_row(self):
        picks = saturated_coverage(normal(30, 3), 30, saturation=1.0)
        assert picks.indices.sort().values.tolist() == list(range(30))
        assert picks.value == pytest.approx(picks.bound, rel=1e-3)
        assert saturated_coverage(torch.ones(9, 2), 4, saturation=0.2).indices.tolist() == [0, 1, 2, 3]
        assert saturated_coverage(torch.ones(9, 2), 4, saturation=0.2).scores.tolist() == pytest.approx(
            [9, 7.2, 0, 0], abs=1e-4
        )
        assert saturated_coverage(normal(1, 3), 1).value == pytest.approx(0.1)

    def test_refuses(self):
        for saturation in (0, 1.5, True, math.nan):
            with pytest.raises(ConfigError, match=r"saturation must be a number in \(0, 1\]"):
                saturated_coverage(normal(3, 2), 1, saturation=saturation)
        with pytest.raises(DataError, match="weights must be at least 0"):
            saturated_coverage(normal(3, 2), 1, weights=-torch.ones(3))


class TestEngine:
    """The same picks as with all gains anew, whichever way gains are brought up to date."""

    x = normal(300, 8, dtype=torch.float64)

    @pytest.mark.parametrize("eager", [0, 4, 1e9])
    @pytest.mark.parametrize("held", [0, 1 << 26])
    def test_policies(self, eager, held, monkeypatch):
        monkeypatch.setitem(ENGINE, "_EAGER", eager)
        labeled = mask(300, range(0, 300, 50))
        weights = normal(300, 1, seed=1)[:, 0].abs()
        picks = facility_location(self.x, 294, labeled=labeled, weights=weights, max_held=held)
        want, gains = plain(self.x, 294, labeled, weights)
        assert picks.indices.tolist() == want
        assert picks.scores.tolist() == pytest.approx(gains, abs=1e-9)

    def test_tiles_and_chunks_change_nothing(self, small_parts):
        want, _ = plain(self.x, 60)
        assert facility_location(self.x, 60, max_held=0).indices.tolist() == want
        assert facility_location(self.x, 60, max_held=0, chunk_rows=7).indices.tolist() == want

    def test_streamed_rows_and_mapped_files(self, tmp_path, monkeypatch):
        want, _ = plain(self.x, 30)
        np.save(tmp_path / "x.npy", self.x.numpy())
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert facility_location(mapped, 30).indices.tolist() == want
        monkeypatch.setitem(sys.modules["torchal.engine.affinity"].__dict__, "_HELD", 0)
        assert facility_location(mapped, 30, chunk_rows=70).indices.tolist() == want
        assert facility_location(self.x, 30, similarity="rbf").indices.equal(
            facility_location(mapped, 30, similarity="rbf").indices
        )

    def test_float32_picks_are_as_good(self):
        picks = facility_location(self.x.float(), 40)
        assert picks.scores.dtype == torch.float32
        assert picks.scores.tolist() == pytest.approx(plain(self.x, 40)[1], rel=1e-3)


class TestEdges:
    def test_all_candidates_each_once(self):
        for similarity in ("cosine", "rbf", "euclidean"):
            picks = facility_location(normal(40, 3), 40, similarity=similarity)
            assert picks.indices.sort().values.tolist() == list(range(40))
            assert picks.value == pytest.approx(40, abs=1e-3)
            assert picks.bound >= picks.value

    def test_equal_rows_go_to_the_lowest_and_add_nothing_twice(self):
        x = normal(5, 30).repeat(20, 1)
        picks = facility_location(x, 8)
        assert sorted(picks.indices[:5].tolist()) == list(range(5))
        assert picks.indices[5:].tolist() == [5, 6, 7]
        assert picks.scores[5:].tolist() == [0, 0, 0]
        assert facility_location(torch.ones(9, 4), 3).indices.tolist() == [0, 1, 2]

    def test_one_row_and_one_left(self):
        assert facility_location(normal(1, 3), 1).indices.tolist() == [0]
        picks = facility_location(normal(6, 3), 1, labeled=mask(6, [0, 1, 2, 3, 5]))
        assert picks.indices.tolist() == [4]

    def test_weights_of_nothing_but_zero(self):
        picks = facility_location(normal(6, 3), 3, weights=torch.zeros(6))
        assert picks.indices.tolist() == [0, 1, 2]
        assert picks.value == 0

    @pytest.mark.parametrize("size", [1e-30, 1e30])
    def test_sizes_far_from_1(self, size):
        x = normal(40, 3, dtype=torch.float64)
        for similarity in ("cosine", "rbf"):  # which do not know a unit
            want = facility_location(x, 10, similarity=similarity).indices
            assert facility_location(x * size, 10, similarity=similarity).indices.equal(want)
        far = facility_location((x * size).float(), 10, similarity="euclidean")
        assert far.scores.isfinite().all()

    def test_half_precision_is_computed_in_float32(self):
        x = normal(60, 5).half()
        picks = facility_location(x, 10)
        assert picks.indices.equal(facility_location(x.float(), 10).indices)
        assert picks.scores.dtype == torch.float32

    def test_a_kernel_too_sharp_for_float32(self):
        x = normal(50, 4).repeat(2, 1) + 100
        for gamma in (1e6, 1e200):
            picks = facility_location(x, 60, similarity="rbf", gamma=gamma)
            assert picks.indices.sort().values.tolist() == list(range(60))
            assert picks.scores[:50].tolist() == pytest.approx([2] * 50, abs=1e-2)


@pytest.mark.parametrize("max_held", [0, coverage.MAX_HELD])
@pytest.mark.parametrize("pick", [facility_location, saturated_coverage])
def test_a_row_of_zeros_is_like_nothing(pick, max_held):
    x = normal(30, 3)
    with_zeros = torch.cat([torch.zeros(1, 3), x, torch.zeros(1, 3)])
    want, picks = pick(x, 5, max_held=max_held), pick(with_zeros, 5, max_held=max_held)
    assert picks.indices.equal(want.indices + 1)
    assert picks.value == pytest.approx(want.value)
    everything = pick(with_zeros, 32, max_held=max_held)
    assert everything.scores[(everything.indices == 0) | (everything.indices == 31)].tolist() == [0, 0]
    assert pick(with_zeros, 1, labeled=mask(32, [0]), max_held=max_held).indices.equal(picks.indices[:1])


class TestRefuses:
    x = normal(6, 2)

    @pytest.mark.parametrize("n", [0, 7, True, 1.5])
    def test_budgets(self, n):
        with pytest.raises(BudgetError):
            facility_location(self.x, n)

    def test_settings(self):
        with pytest.raises(ConfigError, match="similarity must be one of cosine, rbf, euclidean, got 'l1'"):
            facility_location(self.x, 1, similarity="l1")
        with pytest.raises(ConfigError, match="gamma must be a finite number above 0, got 0"):
            facility_location(self.x, 1, similarity="rbf", gamma=0)
        with pytest.raises(ConfigError, match="max_held must be a whole number of at least 0, got -1"):
            facility_location(self.x, 1, max_held=-1)
        with pytest.raises(ConfigError, match="gamma is of 'rbf', the similarity is 'cosine'"):
            facility_location(self.x, 1, gamma=1.0)

    def test_features(self):
        with pytest.raises(ShapeError, match="features must have 2 axes"):
            facility_location(self.x[0], 1)
        with pytest.raises(DataError, match="features must be finite"):
            facility_location(torch.full((3, 2), math.nan), 1)
        with pytest.raises(DataError, match="no rows"):
            facility_location(self.x[:0], 1)

    def test_masks_and_weights(self):
        with pytest.raises(ShapeError, match="1 rows are both labeled and candidates"):
            facility_location(self.x, 1, labeled=mask(6, [0]), candidates=mask(6, [0, 1]))
        with pytest.raises(ShapeError, match=r"weights must be \(6,\) on cpu, got \(5,\)"):
            facility_location(self.x, 1, weights=torch.ones(5))
        with pytest.raises(ShapeError, match="weights must be floating point"):
            facility_location(self.x, 1, weights=torch.ones(6, dtype=torch.int64))
        with pytest.raises(DataError, match="weights must be at least 0: 2 of 6 are not"):
            facility_location(self.x, 1, weights=torch.tensor([1.0, 1, -1, -2, 0, 0]))
        with pytest.raises(DataError, match="weights must be finite"):
            facility_location(self.x, 1, weights=torch.tensor([1.0, 1, math.inf, 1, 0, 0]))


@pytest.mark.gpu
class TestOnGpu:
    @pytest.mark.parametrize("similarity", ["cosine", "rbf", "euclidean"])
    @pytest.mark.parametrize("held", [0, 1 << 26])
    def test_the_same_picks(self, similarity, held, monkeypatch):
        x, labeled = normal(700, 9, dtype=torch.float64), mask(700, [3, 5])
        want = facility_location(x, 80, similarity=similarity, labeled=labeled, max_held=held)
        got = facility_location(x.cuda(), 80, similarity=similarity, labeled=labeled.cuda(), max_held=held)
        assert got.indices.is_cuda
        assert got.indices.tolist() == want.indices.tolist()
        assert facility_location(x, 80, similarity=similarity, labeled=labeled, device="cuda").indices.equal(
            want.indices
        )
        want = saturated_coverage(x, 40, similarity=similarity, labeled=labeled)
        got = saturated_coverage(x.cuda(), 40, similarity=similarity, labeled=labeled.cuda())
        assert got.indices.tolist() == want.indices.tolist()
        assert max_herding(x.cuda(), 20).indices.tolist() == max_herding(x, 20).indices.tolist()
