"""Neighbours among rows on several ranks are those that one process finds, however the rows are split."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import parts_of, run_ranks
from torchal import CapabilityError, ConfigError, DataError, ShapeError
from torchal.engine.distances import Space
from torchal.errors import GroupError
from torchal.functional import knn_graph, neighbors
from torchal.functional.neighbors import Neighbors

METRICS = ["euclidean", "cosine", "manhattan"]


def drawn(n_rows, n_columns, seed, *, whole):
    generator = torch.Generator().manual_seed(seed)
    if whole:
        return torch.randint(-3, 4, (n_rows, n_columns), generator=generator).float()
    return torch.randn(n_rows, n_columns, generator=generator)


def on_ranks(x, cuts, k, **given):
    """Return what the ranks found, together."""
    parts = parts_of(x, cuts)
    found = run_ranks(len(parts), lambda shards: knn_graph(parts[shards.rank], k, group=shards, **given))
    for part, got in zip(parts, found, strict=True):
        assert isinstance(got, Neighbors), got
        assert got.indices.shape == got.distances.shape == (len(part), k)
        assert got.recall == 1
    return Neighbors(torch.cat([got.indices for got in found]), torch.cat([got.distances for got in found]))


def some_cuts(n_rows):
    """Draw where parts begin: of 1 to 8 ranks, some of them without a row."""
    return st.lists(st.integers(0, n_rows), max_size=7).map(sorted)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("whole", [True, False])
@settings(max_examples=12, deadline=None)
@given(st.data(), st.integers(2, 60), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
def test_as_in_one_process(metric, whole, data, n_rows, n_columns, k, seed):
    x = drawn(n_rows, n_columns, seed, whole=whole)
    if metric == "cosine":
        x[(x == 0).all(1)] = 1
    k = min(k, n_rows - 1)
    cuts = data.draw(some_cuts(n_rows))
    want = knn_graph(x, k, metric=metric)
    got = on_ranks(x, cuts, k, metric=metric, chunk_rows=data.draw(st.sampled_from([None, 1, 7, 64])))
    assert got.distances.equal(want.distances)
    if not whole:  # equally far rows, of which any may come first
        at = knn_graph(x, n_rows - 1, metric=metric)
        tied = (at.distances[:, 1:] - at.distances[:, :-1] < 1e-6).any(1)
        got, want = Neighbors(got.indices[~tied], got.distances), Neighbors(want.indices[~tied], want.distances)
    assert got.indices.equal(want.indices)


@pytest.mark.parametrize("n_ranks", [2, 3, 4, 8])
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_ties_of_whole_numbers_go_to_the_lowest_row(n_ranks, metric):
    x = torch.randint(0, 3, (200, 4), generator=torch.Generator().manual_seed(0)).float()
    power = 1 if metric == "manhattan" else 2
    far = (x[:, None] - x).abs().pow(power).sum(2).fill_diagonal_(torch.inf)
    cuts = [200 * i * i // n_ranks**2 for i in range(1, n_ranks)]
    assert on_ranks(x, cuts, 5, metric=metric, chunk_rows=32).indices.equal(far.sort(dim=1, stable=True).indices[:, :5])


@pytest.mark.parametrize("metric", METRICS)
def test_the_lowest_of_many_copies(metric):
    x = torch.cat([drawn(30, 5, 0, whole=False), drawn(1, 5, 1, whole=False).expand(90, 5)])
    x = x[torch.randperm(120, generator=torch.Generator().manual_seed(2))]
    copies = (x == x.mode(0).values).all(1).nonzero().squeeze(1)
    want = torch.stack([copies[copies != row][:4] for row in copies])
    for chunk_rows in (None, 16):
        assert knn_graph(x, 4, metric=metric, chunk_rows=chunk_rows).indices[copies].equal(want)
        assert on_ranks(x, [40, 41, 41, 90], 4, metric=metric, chunk_rows=chunk_rows).indices[copies].equal(want)


def test_what_rounding_hides_is_compared_again(monkeypatch):
    centers = drawn(4, 8, 1, whole=False) * 1000
    x = centers[torch.arange(160) % 4] + drawn(160, 8, 2, whole=False) * 0.05
    fine = []
    pairwise = Space.pairwise
    monkeypatch.setattr(Space, "pairwise", lambda self, a, b: fine.append(self.dtype) or pairwise(self, a, b))
    want = knn_graph(x, 5)
    assert torch.float64 in fine
    fine.clear()
    got = on_ranks(x, [50, 51, 51, 120], 5)
    assert torch.float64 in fine
    assert got.indices.equal(want.indices)
    assert got.distances.equal(want.distances)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.uint8])
def test_other_dtypes(dtype):
    x = drawn(50, 3, 0, whole=True).abs().to(dtype)
    got, want = on_ranks(x, [10, 30], 4), knn_graph(x, 4)
    assert got.indices.equal(want.indices)
    assert got.distances.equal(want.distances)


@pytest.mark.parametrize("cuts", [[40, 80, 120], [0, 0, 150], [150, 155, 160]])
def test_no_rank_has_more_than_a_block_of_the_others_rows(cuts, monkeypatch):
    held = []
    blocks = neighbors.PoolRows.blocks

    def watched(self, size):
        for block in blocks(self, size):
            held.append((len(block.numbers), size))
            yield block

    monkeypatch.setattr(neighbors.PoolRows, "blocks", watched)
    on_ranks(drawn(160, 3, 0, whole=True), cuts, 3, chunk_rows=16)
    assert max(n for n, size in held if size == 16) <= 16 + 4


class TestErrors:
    x = drawn(30, 3, 0, whole=False)

    def errors(self, x, k=3, n_ranks=3, **given):
        parts = parts_of(x, [len(x) * i // n_ranks for i in range(1, n_ranks)])

        def one(shards):
            mine = {name: value[shards.rank] if isinstance(value, list) else value for name, value in given.items()}
            return knn_graph(parts[shards.rank], mine.pop("k", k), group=shards, **mine)

        return run_ranks(n_ranks, one)

    def test_a_bad_number_on_one_rank_is_an_error_on_all(self):
        x = self.x.clone()
        x[15, 1] = torch.nan
        first, second, third = self.errors(x)
        assert isinstance(second, DataError)
        assert "row 15" in str(second)
        assert isinstance(first, GroupError)
        assert isinstance(third, GroupError)
        assert "rank 1 failed with DataError" in str(first)

    def test_one_that_comes_up_on_the_way(self, monkeypatch):
        read = neighbors.FeatureReader.read
        seen = []

        def failing(self, start, stop):
            if self.shards.rank == 2:
                seen.append(start)
                if len(seen) == 4:
                    raise OSError("the disk is gone")
            return read(self, start, stop)

        monkeypatch.setattr(neighbors.FeatureReader, "read", failing)
        first, second, third = self.errors(self.x)
        assert isinstance(third, OSError)
        assert isinstance(first, GroupError)
        assert isinstance(second, GroupError)

    def test_more_neighbours_than_all_ranks_have_rows(self):
        assert all(isinstance(error, ConfigError) and "31 rows" in str(error) for error in self.errors(self.x, k=30))
        assert all(isinstance(found, Neighbors) for found in self.errors(self.x, k=29))

    def test_settings_that_are_not_the_same(self):
        assert all(isinstance(error, ConfigError) for error in self.errors(self.x, k=[3, 3, 4]))
        assert all(isinstance(error, ConfigError) for error in self.errors(self.x, chunk_rows=[3, 3, 4]))
        found = self.errors(self.x, metric=["cosine", "nearest", "cosine"])
        assert [type(error) for error in found] == [GroupError, ConfigError, GroupError]
        assert all(isinstance(error, CapabilityError) for error in self.errors(self.x, backend="faiss"))

    def test_other_columns(self):
        parts = [self.x, self.x[:, :2]]
        found = run_ranks(2, lambda shards: knn_graph(parts[shards.rank], 2, group=shards))
        assert all(isinstance(error, ShapeError) for error in found)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
def test_cuda_finds_the_same(metric):
    x = drawn(500, 6, 0, whole=True) + 5
    want = knn_graph(x, 7, metric=metric)
    for chunk_rows in (None, 64):
        got = on_ranks(x.cuda(), [100, 100, 350], 7, metric=metric, chunk_rows=chunk_rows)
        assert got.indices.is_cuda
        assert got.indices.cpu().equal(want.indices)
        assert on_ranks(x, [100, 100, 350], 7, metric=metric, device="cuda").indices.equal(want.indices)
