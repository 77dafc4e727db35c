"""Typical rows, and clusters of clusters, of rows on several ranks are those of one process."""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import parts_of, run_ranks
from torchal import BudgetError, ConfigError, DataError, Selection
from torchal.engine import near_on_ranks
from torchal.engine.features import FeatureReader
from torchal.errors import GroupError
from torchal.functional import ClusterLevels, hierarchical_kmeans, typical_rows, typiclust

levels_module = importlib.import_module("torchal.functional.hierarchical_kmeans")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n_rows, n_columns, seed, *, whole):
    if whole:
        return torch.randint(-3, 4, (n_rows, n_columns), generator=seeded(seed)).float()
    return torch.randn(n_rows, n_columns, generator=seeded(seed))


def some_cuts(n_rows):
    """Draw where parts begin: of 1 to 8 ranks, some of them without a row."""
    return st.lists(st.integers(0, n_rows), max_size=7).map(sorted)


def on_ranks(call, cuts, x, *args, seed=None, **given):
    """Return what each rank found."""
    beside = {name: parts_of(value, cuts) for name, value in given.items() if isinstance(value, torch.Tensor)}
    parts = parts_of(x, cuts)

    def one(shards):
        mine = {name: beside[name][shards.rank] if name in beside else value for name, value in given.items()}
        if seed is not None:
            mine["generator"] = seeded(seed)
        return call(parts[shards.rank], *args, group=shards, **mine)

    return run_ranks(len(parts), one)


def check_picks(call, cuts, x, n, *, seed=None, **given):
    generator = {} if seed is None else {"generator": seeded(seed)}
    want = call(x, n, **generator, **given)
    for got in on_ranks(call, cuts, x, n, seed=seed, **given):
        assert isinstance(got, Selection), got
        assert got.indices.equal(want.indices)
        assert got.scores.equal(want.scores)


def some_masks(n_rows, seed):
    draw = torch.rand(n_rows, generator=seeded(seed))
    labeled, candidates = draw < 0.15, draw > 0.3
    candidates[0], labeled[0] = True, False
    return {"labeled": labeled, "candidates": candidates}


class TestTypicalRows:
    @pytest.mark.parametrize("whole", [True, False])
    @settings(max_examples=30, deadline=None)
    @given(st.data(), st.integers(1, 60), st.integers(1, 4), st.integers(1, 9), st.integers(0, 99))
    def test_as_in_one_process(self, whole, data, n_rows, n_columns, n_clusters, seed):
        x = drawn(n_rows, n_columns, seed, whole=whole)
        masks = some_masks(n_rows, seed)
        clusters = 7 * torch.randint(0, n_clusters, (n_rows,), generator=seeded(seed))
        n = data.draw(st.integers(1, int(masks["candidates"].sum())))
        check_picks(
            typical_rows,
            data.draw(some_cuts(n_rows)),
            x,
            n,
            clusters=clusters,
            min_cluster_size=data.draw(st.sampled_from([1, 5])),
            n_neighbors=data.draw(st.sampled_from([1, 3, 20])),
            **masks,
        )

    @pytest.mark.parametrize("offset", [0.0, 1e4])
    @pytest.mark.parametrize("n_ranks", [2, 4, 8])
    def test_large_clusters_in_small_blocks(self, n_ranks, offset, monkeypatch):
        x = drawn(400, 5, 0, whole=False) + offset
        clusters = torch.arange(400) % 3
        held = []

        def watched(reader, read, counts, size):
            for x, pieces in in_turn(reader, read, counts, size):
                held.append(len(x))
                yield x, pieces

        in_turn = near_on_ranks.in_turn
        monkeypatch.setattr(near_on_ranks, "in_turn", watched)
        monkeypatch.setattr(near_on_ranks, "width_of", lambda source: 16)
        monkeypatch.setattr(near_on_ranks, "values_per_chunk", lambda device: 100)
        cuts = [400 * i * i // n_ranks**2 for i in range(1, n_ranks)]
        check_picks(typical_rows, cuts, x, 40, clusters=clusters, n_neighbors=7)
        assert 1 < max(held) <= 16 + n_ranks

    def test_copies_and_rows_that_are_alone(self):
        x = torch.tensor([[0.0], [0.0], [0.0], [5.0], [6.0], [6.0], [9.0]])
        clusters = torch.tensor([0, 0, 0, 1, 1, 1, 2])
        for cuts in ([1, 3, 5], [0, 2, 2, 4, 7], [6]):
            check_picks(typical_rows, cuts, x, 7, clusters=clusters, n_neighbors=1)

    def test_half_precision_and_mapped_files(self, tmp_path):
        x = drawn(60, 3, 0, whole=False).half()
        check_picks(typical_rows, [20, 40], x, 9, clusters=torch.arange(60) % 4)
        files = []
        for i, part in enumerate(parts_of(x, [20, 40])):
            there = np.memmap(tmp_path / str(i), np.float16, "w+", shape=tuple(part.shape))
            there[:] = part.numpy()
            there.flush()
            files.append(np.memmap(tmp_path / str(i), np.float16, "r", shape=tuple(part.shape)))
        clusters = torch.arange(60) // 15  # the first rank has none of the last two
        want = typical_rows(x, 9, clusters=clusters)
        parts = parts_of(clusters, [20, 40])

        def one(shards):
            return typical_rows(files[shards.rank], 9, clusters=parts[shards.rank], group=shards)

        assert all(got.indices.equal(want.indices) for got in run_ranks(3, one))
        assert FeatureReader(files[0]).own_rows(torch.empty(0, dtype=torch.int64)).shape == (0, 3)

    def test_errors_are_those_of_all(self):
        x, clusters = drawn(30, 3, 0, whole=False), torch.arange(30) % 3
        found = on_ranks(typical_rows, [10, 20], x, 31, clusters=clusters)
        assert all(isinstance(error, BudgetError) for error in found)
        found = on_ranks(typical_rows, [10, 20], x, 3, clusters=clusters.index_fill(0, torch.tensor([15]), -1))
        assert [type(error) for error in found] == [GroupError, DataError, GroupError]
        x[25] = torch.inf
        found = on_ranks(typical_rows, [10, 20], x, 3, clusters=clusters)
        assert [type(error) for error in found] == [GroupError, GroupError, DataError]

    @pytest.mark.parametrize("when", [1, 3, 6, 9])
    def test_one_that_comes_up_on_the_way(self, when, monkeypatch):
        own_rows = FeatureReader.own_rows
        asked = []

        def failing(self, index):
            if self.shards.rank == 1:
                asked.append(len(index))
                if len(asked) == when:
                    raise OSError("the disk is gone")
            return own_rows(self, index)

        monkeypatch.setattr(FeatureReader, "own_rows", failing)
        x, clusters = drawn(30, 3, 0, whole=False), torch.arange(30) % 3
        found = on_ranks(typical_rows, [10, 20], x, 6, clusters=clusters)
        assert [type(error) for error in found] == [GroupError, OSError, GroupError]


class TestTypiclust:
    @pytest.mark.parametrize("whole", [True, False])
    @settings(max_examples=12, deadline=None)
    @given(st.data(), st.integers(2, 60), st.integers(1, 3), st.integers(0, 99))
    def test_as_in_one_process(self, whole, data, n_rows, n_columns, seed):
        x = drawn(n_rows, n_columns, seed, whole=whole)
        masks = some_masks(n_rows, seed) if data.draw(st.booleans()) else {}
        n = data.draw(st.integers(1, min(9, int(masks["candidates"].sum()) if masks else n_rows)))
        check_picks(typiclust, data.draw(some_cuts(n_rows)), x, n, seed=seed, min_cluster_size=2, **masks)

    def test_errors_are_those_of_all(self):
        x = drawn(30, 3, 0, whole=False)
        assert all(isinstance(error, BudgetError) for error in on_ranks(typiclust, [10, 20], x, 31, seed=0))
        x[5] = torch.nan
        found = on_ranks(typiclust, [10, 20], x, 3, seed=0)
        assert [type(error) for error in found] == [DataError, GroupError, GroupError]


class TestHierarchicalKMeans:
    @pytest.mark.parametrize("whole", [True, False])
    @settings(max_examples=12, deadline=None)
    @given(st.data(), st.integers(2, 80), st.integers(1, 3), st.integers(0, 99))
    def test_as_in_one_process(self, whole, data, n_rows, n_columns, seed):
        x = drawn(n_rows, n_columns, seed, whole=whole)
        sizes = data.draw(st.sampled_from([(1,), (6, 2), (9, 4, 2)]))
        resample = data.draw(st.sampled_from([None, (2,) * len(sizes)]))
        given = {"resample": resample, "n_resamples": 2}
        want = hierarchical_kmeans(x, sizes, generator=seeded(seed), **given)
        cuts = data.draw(some_cuts(n_rows))
        found = on_ranks(hierarchical_kmeans, cuts, x, sizes, seed=seed, **given)
        assert all(isinstance(got, ClusterLevels) for got in found), found
        for got in found:
            assert all(a.equal(b) for a, b in zip(got.centers, want.centers, strict=True))
            assert all(a.equal(b) for a, b in zip(got.parents[1:], want.parents[1:], strict=True))
        assert torch.cat([got.parents[0] for got in found]).equal(want.parents[0])
        assert torch.cat([got.distances for got in found]).equal(want.distances)

    def test_the_nearest_rows_of_a_cluster_may_be_on_any_rank(self):
        rows, clusters = torch.arange(12), torch.arange(12) % 2
        values = torch.tensor([5.0, 1, 3, 1, 3, 1, 2, 0, 9, 9, 2, 9])
        want = levels_module._nearest_of_each(rows, clusters, values, 3)
        assert want.tolist() == [1, 2, 3, 6, 7, 10]
        for cuts in ([3, 7], [0, 6, 6, 11]):
            of, far = parts_of(clusters, cuts), parts_of(values, cuts)

            def one(shards, of=of, far=far):
                with shards.meeting() as meeting:
                    meeting.rows(len(of[shards.rank]), 1)
                here = torch.arange(len(of[shards.rank]))
                return levels_module._nearest_of_all_ranks(here, of[shards.rank], far[shards.rank], 3, shards)

            assert all(got.equal(want) for got in run_ranks(len(of), one))

    def test_errors_are_those_of_all(self, monkeypatch):
        x = drawn(30, 3, 0, whole=False)
        found = on_ranks(hierarchical_kmeans, [10, 20], x, (3, 4), seed=0)
        assert all(isinstance(error, ConfigError) for error in found)
        read = FeatureReader.read
        asked = []

        def failing(self, start, stop):
            if self.shards.rank == 2:
                asked.append(start)
                if len(asked) == 12:
                    raise OSError("the disk is gone")
            return read(self, start, stop)

        monkeypatch.setattr(FeatureReader, "read", failing)
        found = on_ranks(hierarchical_kmeans, [10, 20], x, (6, 3), seed=0)
        assert [type(error) for error in found] == [GroupError, GroupError, OSError]


@pytest.mark.gpu
def test_cuda_finds_the_same():
    x = drawn(300, 4, 0, whole=True)
    masks = some_masks(300, 0)
    want = typical_rows(x, 30, clusters=torch.arange(300) % 4, **masks)
    there = {name: mask.cuda() for name, mask in masks.items()}
    for got in on_ranks(typical_rows, [50, 50, 200], x.cuda(), 30, clusters=torch.arange(300).cuda() % 4, **there):
        assert got.indices.is_cuda
        assert got.indices.cpu().equal(want.indices)
    want = typiclust(x.cuda(), 12, generator=seeded(), **there)
    for got in on_ranks(typiclust, [50, 50, 200], x.cuda(), 12, seed=0, **there):
        assert got.indices.equal(want.indices)
    want = hierarchical_kmeans(x.cuda(), (9, 3), generator=seeded())
    found = on_ranks(hierarchical_kmeans, [50, 50, 200], x.cuda(), (9, 3), seed=0)
    assert torch.cat([got.clusters_at(1) for got in found]).equal(want.clusters_at(1))
