import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import typiclust as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.functional import kmeans, typical_rows, typiclust

near_in_group = importlib.import_module("torchal.engine.near_in_group")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def blobs(n_blobs, n_rows, n_columns=3, seed=0):
    """Return rows around far means, n_rows of each, and the blob of each."""
    blob = torch.arange(n_blobs * n_rows) % n_blobs
    return 50 * normal(n_blobs, n_columns, seed=seed)[blob] + normal(len(blob), n_columns, seed=seed + 1), blob


def masks(n_rows, seed, n_labeled):
    order = torch.randperm(n_rows, generator=seeded(seed))
    labeled = torch.zeros(n_rows, dtype=torch.bool)
    labeled[order[:n_labeled]] = True
    return labeled


# Cluster 5 has the rows 0 to 3, cluster 2 the rows 4 to 6, cluster 9 row 7.
LINE = torch.tensor([[0.0], [1.0], [2.0], [4.0], [10.0], [11.0], [13.0], [50.0]])
CLUSTERS = torch.tensor([5, 5, 5, 5, 2, 2, 2, 9])


def test_by_hand():
    picks = typical_rows(LINE, 8, clusters=CLUSTERS, n_neighbors=2)
    # mean distances to the two nearest: 1.5, 1, 1.5, 2.5; 2, 1.5, 2.5; none
    assert picks.indices.tolist() == [1, 5, 7, 0, 4, 2, 6, 3]
    assert picks.scores.tolist() == pytest.approx([1, 2 / 3, 0, 2 / 3, 1 / 2, 2 / 3, 2 / 5, 2 / 5])


def test_labels_count_and_labeled_rows_are_neighbours():
    labeled = torch.arange(8) == 1
    picks = typical_rows(LINE, 3, clusters=CLUSTERS, labeled=labeled, n_neighbors=2)
    assert picks.indices.tolist() == [5, 7, 0]  # row 0 has the labeled row 1 beside it
    assert picks.scores[2] == pytest.approx(2 / 3)


def test_the_cluster_with_the_fewest_labels_goes_on_where_others_have_more():
    labeled = torch.tensor([True, True, False, False, False, False, False, False])
    picks = typical_rows(LINE, 5, clusters=CLUSTERS, labeled=labeled)
    assert CLUSTERS[picks.indices].tolist() == [2, 9, 2, 5, 2]


def test_small_clusters_come_last():
    picks = typical_rows(LINE, 8, clusters=CLUSTERS, min_cluster_size=4)
    assert CLUSTERS[picks.indices].tolist() == [5, 5, 5, 5, 2, 9, 2, 2]
    # and where all are small they are clusters like others
    every = typical_rows(LINE, 8, clusters=CLUSTERS, min_cluster_size=100)
    assert every.indices.equal(typical_rows(LINE, 8, clusters=CLUSTERS).indices)


def test_rows_that_are_neither_take_no_part():
    candidates = torch.tensor([True, False, True, True, True, True, True, True])
    picks = typical_rows(LINE, 2, clusters=CLUSTERS, candidates=candidates, n_neighbors=1)
    # now both clusters have three rows, and the lower number goes first; of equally typical rows the lowest
    assert picks.indices.tolist() == [4, 0]
    assert picks.scores.tolist() == [1, 1 / 2]
    within = typiclust(LINE, 1, generator=seeded(), candidates=torch.arange(8) > 3, n_neighbors=2)
    assert within.indices.tolist() == [5]


@settings(deadline=None, max_examples=60)
@given(
    n_rows=st.integers(1, 14),
    n_clusters=st.integers(1, 4),
    n_labeled=st.integers(0, 6),
    n_left_out=st.integers(0, 3),
    min_cluster_size=st.integers(1, 5),
    k=st.integers(1, 6),
    whole=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_loop(n_rows, n_clusters, n_labeled, n_left_out, min_cluster_size, k, whole, seed):
    generator = seeded(seed)
    x = normal(n_rows, 2, seed=seed, dtype=torch.float64)
    x = (2 * x).round() if whole else x
    clusters = 3 * torch.randint(n_clusters, (n_rows,), generator=generator)
    order = torch.randperm(n_rows, generator=generator)
    n_labeled = min(n_labeled, n_rows - 1)
    labeled, candidates = torch.zeros(2, n_rows, dtype=torch.bool)
    labeled[order[:n_labeled]] = True
    candidates[order[n_labeled : max(n_labeled + 1, n_rows - n_left_out)]] = True
    n = int(torch.randint(1, int(candidates.sum()) + 1, (), generator=generator))
    settings = {"labeled": labeled, "candidates": candidates, "min_cluster_size": min_cluster_size}
    picks = typical_rows(x.to(torch.float32) if whole else x, n, clusters=clusters, n_neighbors=k, **settings)
    lists = {name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in settings.items()}
    rows, scores = reference.typical_rows(x.tolist(), n, clusters.tolist(), k=k, **lists)
    assert picks.scores.tolist() == pytest.approx(scores, rel=1e-6)
    assert picks.indices.tolist() == rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_size_of_features_does_not_count(size, dtype):
    x, clusters = blobs(3, 40)
    want = typical_rows(x.to(dtype), 12, clusters=clusters)
    picks = typical_rows(x.to(dtype) * size, 12, clusters=clusters)
    assert picks.scores.dtype == dtype
    assert (picks.scores * size).tolist() == pytest.approx(want.scores.tolist(), rel=1e-5)
    assert picks.indices.equal(want.indices)


def test_half_precision():
    x, clusters = blobs(3, 40)
    picks = typical_rows(x.half(), 12, clusters=clusters)
    assert picks.scores.dtype == torch.float32
    assert picks.indices.equal(typical_rows(x.half().double(), 12, clusters=clusters).indices)


def test_rounding_of_products_does_not_decide():
    x = normal(90, 8, dtype=torch.float64)
    x[:30] += 1000  # far from the others, so that no common shift makes all rows short
    x[15:30] = x[:15] + 1e-3 * normal(15, 8, seed=3, dtype=torch.float64)
    x = x.float()
    clusters = (torch.arange(90) >= 60).long()
    picks = typical_rows(x, 20, clusters=clusters, n_neighbors=1)
    rows, scores = reference.typical_rows(x.tolist(), 20, clusters.tolist(), [False] * 90, [True] * 90, 1, 1)
    assert picks.indices.tolist() == rows
    assert picks.scores.tolist() == pytest.approx(scores, rel=1e-5)


@pytest.mark.parametrize(("width", "values"), [(16, 1 << 20), (7, 40), (2, 1)])
def test_tiles_do_not_change_the_picks(monkeypatch, width, values):
    x = normal(60, 4)
    clusters = torch.randint(3, (60,), generator=seeded(5)) // 2  # about 40 and 20 rows
    want = typical_rows(x, 20, clusters=clusters)
    monkeypatch.setattr(near_in_group, "_WIDTH", width)
    monkeypatch.setattr(near_in_group, "values_per_chunk", lambda _: values)
    picks = typical_rows(x, 20, clusters=clusters)
    assert picks.indices.equal(want.indices)
    assert picks.scores.equal(want.scores)


def test_no_temporary_grows_with_the_cluster(monkeypatch):
    largest = []
    rough = near_in_group.Space.rough
    monkeypatch.setattr(near_in_group, "values_per_chunk", lambda _: 1000)
    monkeypatch.setattr(near_in_group, "_WIDTH", 100)

    def watched(self, a, b):
        largest.append(len(a.x) * len(b.x))
        return rough(self, a, b)

    monkeypatch.setattr(near_in_group.Space, "rough", watched)
    typical_rows(normal(300, 4), 3, clusters=torch.zeros(300, dtype=torch.int64))
    assert max(largest) <= 1000
    assert sum(largest) == 300 * 300


def test_copies_and_all_rows_equal():
    x = normal(12, 3).repeat_interleave(2, 0)
    picks = typical_rows(x, 24, clusters=torch.zeros(24, dtype=torch.int64), n_neighbors=1)
    assert picks.indices.tolist() == list(range(24))
    assert picks.scores.tolist() == [math.inf] * 24
    same = typiclust(torch.ones(20, 3), 20, generator=seeded())
    assert same.indices.sort().values.tolist() == list(range(20))
    assert typiclust(torch.ones(20, 3), 4, generator=seeded()).indices.tolist() == [0, 1, 2, 3]


def test_one_typical_row_of_each_blob_without_any_label():
    x, blob = blobs(6, 30)
    picks = typiclust(x, 6, generator=seeded())
    assert sorted(blob[picks.indices].tolist()) == list(range(6))
    rows, _ = reference.typical_rows(x.tolist(), 6, blob.tolist(), [False] * 180, [True] * 180, 5, 20)
    assert sorted(picks.indices.tolist()) == sorted(rows)


def test_labeled_blobs_are_covered():
    x, blob = blobs(6, 30)
    labeled = (torch.arange(180) < 4) | (torch.arange(180) == 6)  # of the blobs 0 to 3, two of blob 0
    picks = typiclust(x, 2, generator=seeded(), labeled=labeled)
    assert len(kmeans(x, 7, generator=seeded()).assignments.unique()) == 7
    assert not labeled[picks.indices].any()
    picks = typiclust(x, 4, generator=seeded(), labeled=labeled, max_clusters=6)
    assert blob[picks.indices].sort().values.tolist()[2:] == [4, 5] or {4, 5} <= set(blob[picks.indices].tolist())


def test_the_clusters_are_as_many_as_labels_and_picks(monkeypatch):
    asked = []
    module = importlib.import_module("torchal.functional.typiclust")

    def watched(features, k, **rest):
        asked.append((len(features), k, rest["max_iterations"]))
        return kmeans(features, k, **rest)

    monkeypatch.setattr(module, "kmeans", watched)
    x, labeled = normal(60, 3), masks(60, 1, 7)
    typiclust(x, 5, generator=seeded(), labeled=labeled)
    typiclust(x, 30, generator=seeded(), labeled=labeled, max_clusters=10, max_iterations=3)
    candidates = ~labeled & (torch.arange(60) % 2 == 0)
    typiclust(x, 5, generator=seeded(), labeled=labeled, candidates=candidates)
    assert asked == [(60, 12, 20), (60, 10, 3), (7 + int(candidates.sum()), 12, 20)]


def test_more_picks_than_clusters():
    x, blob = blobs(3, 30)
    picks = typiclust(x, 9, generator=seeded(), max_clusters=3)
    assert blob[picks.indices].bincount().tolist() == [3, 3, 3]
    assert len(blob[picks.indices[:3]].unique()) == 3


def test_all_candidates_one_row_and_one_left():
    x = normal(40, 3)
    labeled = masks(40, 2, 10)
    picks = typiclust(x, 30, generator=seeded(), labeled=labeled)
    assert picks.indices.sort().values.equal((~labeled).nonzero().squeeze(1))
    only = typiclust(x[:1], 1, generator=seeded())
    assert (only.indices.tolist(), only.scores.tolist()) == ([0], [0.0])
    assert typiclust(x, 1, generator=seeded(), labeled=torch.arange(40) != 17).indices.tolist() == [17]


def test_from_a_file(tmp_path):
    x, clusters = blobs(4, 50)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    want = typical_rows(x, 20, clusters=clusters)
    assert typical_rows(mapped, 20, clusters=clusters).indices.equal(want.indices)
    labeled = torch.arange(200) < 9
    candidates = ~labeled & (torch.arange(200) % 3 > 0)
    arguments = {"labeled": labeled, "candidates": candidates}
    want = typiclust(x, 20, generator=seeded(), **arguments)
    assert typiclust(mapped, 20, generator=seeded(), **arguments).indices.equal(want.indices)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 61}, BudgetError, "asked for 61 rows, 60 can"),
        ({"labeled": torch.ones(60)}, ShapeError, "labeled must be a bool"),
        ({"candidates": torch.ones(59, dtype=torch.bool)}, ShapeError, r"candidates must have shape \(60,\)"),
        ({"labeled": torch.ones(60) > 0, "candidates": torch.ones(60) > 0}, ShapeError, "60 rows are both"),
        ({"features": torch.full((60, 3), math.nan)}, DataError, "must be finite"),
        ({"features": torch.full((60, 3), math.inf)}, DataError, "must be finite"),
        ({"features": torch.zeros(60, 3, dtype=torch.complex64)}, ShapeError, "features must be real numbers"),
        ({"features": torch.zeros(60)}, ShapeError, "features must have 2 axes"),
        ({"features": torch.zeros(0, 3)}, DataError, "features has no rows"),
        ({"min_cluster_size": 0}, ConfigError, "min_cluster_size must be a whole number of at least 1"),
        ({"n_neighbors": 1.5}, ConfigError, "n_neighbors must be a whole number of at least 1"),
    ],
)
def test_refuses_what_it_cannot_use(change, error, message):
    arguments = {"features": normal(60, 3), "n": 3} | change
    x, n = arguments.pop("features"), arguments.pop("n")
    with pytest.raises(error, match=message):
        typiclust(x, n, **arguments, generator=seeded())
    with pytest.raises(error, match=message):
        typical_rows(x, n, **arguments, clusters=torch.zeros(len(x), dtype=torch.int64))


def test_refuses_clusters_and_settings_that_make_no_sense():
    x = normal(60, 3)
    with pytest.raises(ShapeError, match=r"clusters must be \(60,\) int64 on cpu, got \(59,\) torch.int64"):
        typical_rows(x, 3, clusters=torch.zeros(59, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"clusters must be \(60,\) int64 on cpu, got \(60,\) torch.float32"):
        typical_rows(x, 3, clusters=torch.zeros(60))
    with pytest.raises(DataError, match="clusters must be at least 0: 60 of 60 are not"):
        typical_rows(x, 3, clusters=torch.full((60,), -1))
    with pytest.raises(ConfigError, match="max_clusters"):
        typiclust(x, 3, generator=seeded(), max_clusters=0)
    with pytest.raises(ConfigError, match="max_iterations"):
        typiclust(x, 3, generator=seeded(), max_iterations=0)


@pytest.mark.gpu
def test_cuda_picks_the_same():
    x, blob = blobs(8, 60)
    labeled = masks(480, 4, 20)
    want = typical_rows(x, 50, clusters=blob, labeled=labeled)
    picks = typical_rows(x.cuda(), 50, clusters=blob.cuda(), labeled=labeled.cuda())
    assert picks.indices.is_cuda
    assert picks.indices.cpu().equal(want.indices)
    assert picks.scores.cpu().tolist() == pytest.approx(want.scores.tolist(), rel=1e-6)
    few = torch.arange(480) < 3
    want = typiclust(x, 5, generator=seeded(), labeled=few, n_neighbors=5)
    picks = typiclust(x.cuda(), 5, generator=seeded(), labeled=few.cuda(), n_neighbors=5)
    assert picks.indices.cpu().equal(want.indices)
    there = typiclust(x.cuda(), 30, generator=torch.Generator("cuda").manual_seed(0), labeled=few.cuda())
    assert len(there.indices.unique()) == 30
