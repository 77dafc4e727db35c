"""Coverage of rows on several ranks is that of one process, however the rows are split."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import parts_of, run_ranks
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import affinity, coverage, features
from torchal.errors import GroupError
from torchal.functional import facility_location, saturated_coverage
from torchal.functional.submodular import Covering

ENGINE = coverage.Coverage.__init__.__globals__
COVERINGS = [facility_location, saturated_coverage]


def drawn(n_rows, n_columns, seed):
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def on_ranks(pick, cuts, x, n, **given):
    """Return what one of the ranks found, after a look at that all found the same."""
    beside = {name: parts_of(value, cuts) for name, value in given.items() if isinstance(value, torch.Tensor)}
    parts = parts_of(x, cuts)

    def one(shards):
        mine = {name: beside[name][shards.rank] if name in beside else value for name, value in given.items()}
        return pick(parts[shards.rank], n, group=shards, **mine)

    found = run_ranks(len(parts), one)
    for got in found:
        assert isinstance(got, Covering), got
        assert got.indices.equal(found[0].indices)
        assert got.scores.equal(found[0].scores)
        assert got[2:] == found[0][2:]
    return found[0]


def check(pick, cuts, x, n, *, rel=1e-6, **given):
    want, got = pick(x, n, **given), on_ranks(pick, cuts, x, n, **given)
    assert got.indices.equal(want.indices)
    torch.testing.assert_close(got.scores, want.scores, rtol=rel, atol=1e-6)
    assert (got.value, got.bound) == pytest.approx((want.value, want.bound), rel=rel, abs=1e-6)


def some_cuts(n_rows):
    """Draw where parts begin: of 1 to 8 ranks, some of them without a row."""
    return st.lists(st.integers(0, n_rows), max_size=7).map(sorted)


@pytest.mark.parametrize("pick", COVERINGS)
@pytest.mark.parametrize("similarity", ["cosine", "rbf", "euclidean"])
@pytest.mark.parametrize("held", [True, False])
@settings(max_examples=8, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 4), st.integers(0, 99), st.integers(1, 3))
def test_as_in_one_process(pick, similarity, held, data, n_rows, n_columns, seed, n_copies):
    x = drawn(n_rows, n_columns, seed).repeat(n_copies, 1)
    generator = torch.Generator().manual_seed(seed)
    labeled = torch.rand(len(x), generator=generator) < data.draw(st.sampled_from([0.0, 0.2]))
    candidates = ~labeled & (torch.rand(len(x), generator=generator) < 0.9)
    candidates[0], labeled[0] = True, False
    weights = None
    if data.draw(st.booleans()):
        weights = torch.rand(n_rows, generator=generator, dtype=torch.float64).repeat(n_copies)
    n = data.draw(st.integers(1, min(12, int(candidates.sum()))))
    given = {"labeled": labeled, "candidates": candidates, "weights": weights, "similarity": similarity}
    if not held:
        given |= {"max_held": 0, "chunk_rows": data.draw(st.sampled_from([None, 1, 7]))}
    check(pick, data.draw(some_cuts(len(x))), x, n, **given)


@pytest.mark.parametrize("n_ranks", [2, 3, 4, 8])
@pytest.mark.parametrize("max_held", [0, 2**26])
@pytest.mark.parametrize("pick", COVERINGS)
def test_many_picks_in_small_parts(n_ranks, max_held, pick, monkeypatch):
    x = drawn(240, 6, 0)
    want = pick(x, 60, max_held=max_held)
    lowered = []
    lower = coverage.Coverage._lower
    monkeypatch.setattr(coverage.Coverage, "_lower", lambda self, *some: lowered.append(some) or lower(self, *some))
    monkeypatch.setitem(ENGINE, "values_per_chunk", lambda device: 400)
    monkeypatch.setattr(features, "values_per_chunk", lambda device: 400)  # so that widths make blocks smaller
    monkeypatch.setattr(features, "SMALLEST_CHUNK", 1)
    got = on_ranks(pick, [240 * i * i // n_ranks**2 for i in range(1, n_ranks)], x, 60, max_held=max_held)
    assert lowered
    assert got.indices.equal(want.indices)
    torch.testing.assert_close(got.scores, want.scores, rtol=1e-6, atol=1e-6)


def test_rows_that_no_rank_holds(monkeypatch):
    x = drawn(90, 3, 0)
    want = facility_location(x, 20)
    monkeypatch.setattr(affinity, "_HELD", 150)  # the second rank's are held, those of the others are read
    for max_held in (0, 2**20):
        assert on_ranks(facility_location, [20, 60], x[:, :], 20, max_held=max_held).indices.equal(want.indices)


@pytest.mark.parametrize("similarity", ["cosine", "rbf", "euclidean"])
@pytest.mark.parametrize("pick", COVERINGS)
def test_ties_go_to_the_lowest_row_of_the_pool(pick, similarity):
    x = torch.eye(4).repeat(6, 1)  # each row six times
    got = on_ranks(pick, [1, 1, 9, 20], x, 24, similarity=similarity)
    assert got.indices[:4].tolist() == [0, 1, 2, 3]
    check(pick, [1, 1, 9, 20], x, 24, similarity=similarity)


def test_single_precision():
    check(facility_location, [30, 100], drawn(150, 5, 3).float(), 25, rel=1e-4)


def test_more_ranks_hold_more_similarities(monkeypatch):
    shapes = []
    empty = torch.empty

    def watched(*shape, **given):
        shapes.append(shape)
        return empty(*shape, **given)

    monkeypatch.setattr(torch, "empty", watched)
    on_ranks(facility_location, [10, 20, 30], drawn(40, 3, 0), 3, max_held=400)
    assert (40, 10) in shapes
    shapes.clear()
    on_ranks(facility_location, [10, 20], drawn(40, 3, 0), 3, max_held=400)
    assert not {(40, 10), (40, 20)} & set(shapes)


class TestErrors:
    x = drawn(30, 3, 0)

    def errors(self, x=None, n=3, pick=facility_location, **given):
        parts = parts_of(self.x if x is None else x, [10, 20])

        def one(shards):
            mine = {name: value[shards.rank] if isinstance(value, list) else value for name, value in given.items()}
            return pick(parts[shards.rank], n, group=shards, **mine)

        return run_ranks(3, one)

    @pytest.mark.parametrize("pick", COVERINGS)
    def test_a_bad_number_on_one_rank_is_an_error_on_all(self, pick):
        x = self.x.clone()
        x[25, 1] = torch.nan
        first, second, third = self.errors(x, pick=pick)
        assert isinstance(third, DataError)
        assert "row 25" in str(third)
        assert isinstance(first, GroupError)
        assert isinstance(second, GroupError)

    @pytest.mark.parametrize("max_held", [0, 2**26])
    def test_one_that_comes_up_on_the_way(self, max_held, monkeypatch):
        between = affinity.Affinity.between
        asked = itertools.count()

        def failing(self, a, b):
            if next(asked) == 7:
                raise OSError("no more")
            return between(self, a, b)

        monkeypatch.setattr(affinity.Affinity, "between", failing)
        found = self.errors(max_held=max_held)
        assert sorted(type(error).__name__ for error in found) == ["GroupError", "GroupError", "OSError"]

    def test_the_budget_is_that_of_all_ranks(self):
        assert all(isinstance(error, BudgetError) and "30" in str(error) for error in self.errors(n=31))
        assert all(len(found.indices) == 30 for found in self.errors(n=30))
        masks = [torch.ones(10, dtype=torch.bool), torch.zeros(10, dtype=torch.bool), torch.zeros(10, dtype=torch.bool)]
        assert all(found.indices.max() < 10 for found in self.errors(n=10, candidates=masks))
        assert all(isinstance(error, BudgetError) for error in self.errors(n=11, candidates=masks))

    @pytest.mark.parametrize("pick", COVERINGS)
    def test_settings_that_are_not_the_same(self, pick):
        for other in ({"similarity": ["cosine", "rbf", "rbf"]}, {"max_held": [0, 0, 1]}, {"chunk_rows": [None, 3, 3]}):
            assert all(isinstance(error, ConfigError) for error in self.errors(pick=pick, **other))
        found = self.errors(pick=pick, weights=[None, -torch.ones(10), None])
        assert [type(error) for error in found] == [GroupError, DataError, GroupError]
        found = self.errors(pick=pick, labeled=[None, torch.ones(9, dtype=torch.bool), None])
        assert [type(error) for error in found] == [GroupError, ShapeError, GroupError]


@pytest.mark.gpu
@pytest.mark.parametrize("max_held", [0, 2**26])
@pytest.mark.parametrize("pick", COVERINGS)
def test_cuda_picks_the_same(pick, max_held):
    x, labeled = drawn(400, 6, 0), torch.arange(400) % 90 == 3
    want = pick(x, 40, labeled=labeled, max_held=max_held)
    got = on_ranks(pick, [100, 100, 350], x.cuda(), 40, labeled=labeled.cuda(), max_held=max_held)
    assert got.indices.is_cuda
    assert got.indices.cpu().equal(want.indices)
    got = on_ranks(pick, [100, 100, 350], x, 40, labeled=labeled, max_held=max_held, device="cuda")
    assert got.indices.equal(want.indices)
