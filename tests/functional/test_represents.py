import numpy as np
import pytest
import torch

from torchal import ConfigError, DataError, ShapeError
from torchal.functional import represents

X = torch.randn(30, 3, generator=torch.Generator().manual_seed(0))


def test_by_hand():
    x = torch.tensor([[0.0, 0.0], [0.0, 3.0], [4.0, 0.0], [4.0, 1.0], [2.0, 0.0]])
    found = represents(x, torch.tensor([2, 0]))
    assert found.ranks.tolist() == [1, 1, 0, 0, 0]  # the last is as near to both
    assert found.distances.tolist() == [0.0, 3.0, 0.0, 1.0, 2.0]
    assert found.counts.tolist() == [3, 2]
    assert found.farthest.tolist() == [2.0, 3.0]
    assert found.rows_of(0).tolist() == [2, 3, 4]
    assert found.rows_of(1).tolist() == [0, 1]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("chunk_rows", [None, 7])
def test_each_row_is_stood_for_by_its_nearest_pick(metric, chunk_rows):
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    picks = torch.randperm(300, generator=torch.Generator().manual_seed(2))[:20]
    rows = x / x.norm(dim=1, keepdim=True) if metric == "cosine" else x
    far = torch.cdist(rows, rows[picks], p=1 if metric == "manhattan" else 2)
    far = far.square() / 2 if metric == "cosine" else far
    found = represents(x, picks, metric=metric, chunk_rows=chunk_rows)
    assert found.ranks.equal(far.argmin(1))
    assert torch.allclose(found.distances, far.amin(1), atol=1e-7)
    assert found.counts.equal(far.argmin(1).bincount(minlength=20))
    assert found.farthest.tolist() == [float(found.distances[found.ranks == rank].max()) for rank in range(20)]
    assert int(found.counts.sum()) == 300


def test_only_some_rows_are_to_be_stood_for():
    among = torch.arange(30) % 3 == 0
    picks = torch.tensor([1, 6, 2])
    whole, found = represents(X, picks), represents(X, picks, among=among)
    assert found.ranks[among].equal(whole.ranks[among])
    assert (found.ranks[~among] == -1).all()
    assert found.distances[~among].isnan().all()
    assert int(found.counts.sum()) == 10
    assert 6 in found.rows_of(1)
    nobody = represents(X, picks, among=torch.zeros(30, dtype=torch.bool))
    assert nobody.counts.tolist() == [0, 0, 0]
    assert nobody.farthest.tolist() == [0.0, 0.0, 0.0]


def test_equal_rows_belong_to_the_first_pick_of_them():
    found = represents(torch.ones(5, 2), torch.tensor([3, 1]))
    assert found.ranks.tolist() == [0] * 5
    assert found.counts.tolist() == [5, 0]


def test_the_smallest_and_all_rows():
    assert represents(torch.ones(1, 1), torch.tensor([0])).counts.tolist() == [1]
    everything = represents(X, torch.arange(29, -1, -1))
    assert everything.ranks.tolist() == list(range(29, -1, -1))
    assert not everything.distances.any()


def test_half_precision_and_files(tmp_path):
    picks = torch.tensor([4, 9])
    want = represents(X.half().float(), picks)
    assert represents(X.half(), picks).ranks.equal(want.ranks)
    np.save(tmp_path / "x.npy", X.half().numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    got = represents(mapped, picks, chunk_rows=4)
    assert got.ranks.equal(want.ranks)
    assert got.distances.dtype == torch.float32


@pytest.mark.parametrize(
    ("features", "picks", "settings", "error", "match"),
    [
        (X, [], {}, ShapeError, "at least one row, got none"),
        (X, [1, 1], {}, ShapeError, "picks must be distinct: 1 of 2 are repeats"),
        (X, [30], {}, ShapeError, r"picks must lie in \[0, 30\), got 30 to 30"),
        (X, [0.5], {}, ShapeError, "picks must be .* integers"),
        (
            X,
            [1],
            {"among": torch.ones(29, dtype=torch.bool)},
            ShapeError,
            r"among must have shape \(30,\), got \(29,\)",
        ),
        (X, [1], {"among": torch.ones(30)}, ShapeError, "among must be a bool tensor"),
        (X, [1], {"metric": "l2"}, ConfigError, "got 'l2'"),
        (X * torch.nan, [1], {}, DataError, "30 of 30 rows are not"),
        (X[0], [1], {}, ShapeError, "2 axes"),
    ],
)
def test_bad_input(features, picks, settings, error, match):
    with pytest.raises(error, match=match):
        represents(features, torch.tensor(picks), **settings)


@pytest.mark.gpu
def test_on_cuda_as_on_the_cpu():
    x, picks = X.double(), torch.tensor([5, 3, 20])
    for here, there in zip(represents(x, picks), represents(x.cuda(), picks.cuda()), strict=True):
        assert there.is_cuda
        assert torch.allclose(here, there.cpu())
