import importlib
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from tests.references import cluster_margin as reference
from torchal import ConfigError, DataError, ShapeError
from torchal.functional import hac_clusters

module = importlib.import_module("torchal.functional.cluster_tree")  # the package has the function by this name


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def hac(features, **settings):
    return hac_clusters(features, generator=seeded(), **settings)


def test_by_hand():
    x = torch.tensor([[0.0], [10.0], [1.0], [12.0], [30.0], [11.0]])
    # 0 and 1; 10, 11 and 12; 30: then these two, then all
    assert hac(x, mean_size=2).tolist() == [0, 1, 0, 1, 2, 1]
    assert hac(x, mean_size=3).tolist() == [0, 0, 0, 0, 1, 0]
    assert hac(x, mean_size=3.1).tolist() == [0] * 6
    assert hac(x, mean_size=1).tolist() == [0, 1, 2, 3, 4, 5]


def test_joins_at_the_same_distance_are_all_made():
    assert hac(torch.tensor([[0.0], [1.0], [10.0], [11.0], [30.0]]), mean_size=1.25).tolist() == [0, 0, 1, 1, 2]


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(1, 14),
    n_columns=st.integers(1, 3),
    seed=st.integers(0, 1000),
    mean_size=st.sampled_from([1, 1.1, 1.25, 2.0, 3.7, 10.0]),
    cosine=st.booleans(),
    double=st.booleans(),
)
def test_agrees_with_the_loop(n_rows, n_columns, seed, mean_size, cosine, double):
    x = normal(n_rows, n_columns + cosine, seed=seed, dtype=torch.float64 if double else torch.float32)
    metric = "cosine" if cosine else "euclidean"
    assert hac(x, mean_size=mean_size, metric=metric).tolist() == reference.hac_clusters(x, mean_size, metric)


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=2, max_size=12),
    shift=st.sampled_from([0, 1000]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_ties_of_whole_numbers_are_those_of_scipy(rows, shift, dtype):
    x = torch.tensor(rows, dtype=dtype)
    joins = hierarchy.linkage(pdist(x.double().numpy()), "average")
    cuts = [hierarchy.fcluster(joins, height, "distance") for height in [-1.0, *sorted(joins[:, 2])]]
    want = next(cut for cut in cuts if cut.max() <= max(1, len(rows) // 2))
    assert hac(x + shift, mean_size=2).tolist() == reference.numbered(want.tolist())


def test_a_shift_of_whole_numbers_changes_nothing():
    x = torch.tensor([[2.0, 0], [1, 2], [1, 0], [1, 2], [1, 0], [1, 3]])
    assert hac(x, mean_size=2).equal(hac(x + 1000, mean_size=2))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_agrees_with_scikit_learn(metric, monkeypatch):
    x = normal(400, 6) + 3 * normal(20, 6, seed=1)[torch.arange(400) % 20]
    want = AgglomerativeClustering(40, metric=metric, linkage="average").fit_predict(x)
    for size in (1 << 20, 1):
        monkeypatch.setattr(module, "values_per_chunk", lambda _, size=size: size)
        assert hac(x, metric=metric).tolist() == reference.numbered(want.tolist())


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("chunk_rows", [None, 7])
def test_rows_beyond_the_bound_go_to_the_cluster_that_is_nearest_on_average(metric, chunk_rows):
    x = normal(200, 3) + 5
    found = hac(x, mean_size=10, max_rows=60, metric=metric, chunk_rows=chunk_rows)
    drawn = torch.randperm(200, generator=seeded())[:60].sort().values
    assert found[drawn].tolist() == reference.hac_clusters(x[drawn], 3, metric)  # 20 clusters, as of all 200 rows
    unit = (x / x.norm(dim=1, keepdim=True) if metric == "cosine" else x).numpy()
    members = [unit[drawn[found[drawn] == c].numpy()] for c in range(20)]
    rest = [row for row in range(200) if row not in drawn]
    assert found[rest].tolist() == [reference.nearest_on_average(unit[row], members) for row in rest]


def test_a_bound_on_the_rows_leaves_two_of_them_to_each_cluster():
    found = hac(normal(500, 3), mean_size=1, max_rows=50)
    assert len(found.unique()) == 25
    assert len(hac(normal(500, 3), mean_size=600, max_rows=50).unique()) == 1


def test_many_clusters_are_found_in_parts(monkeypatch):
    x = normal(3000, 2)
    want = hac(x, mean_size=1, max_rows=2900)
    monkeypatch.setattr("torchal.engine.sources._CENTERS", 100)
    assert hac(x, mean_size=1, max_rows=2900).equal(want)


def test_groups_far_apart_are_found_from_a_few_rows():
    group = torch.randint(5, (5000,), generator=seeded(2))
    x = 100 * normal(5, 8, seed=1)[group] + normal(5000, 8)
    found = hac(x.float(), mean_size=1000, max_rows=200)
    assert adjusted_rand_score(group, found) == 1


def test_equal_rows_are_in_one_cluster():
    x = normal(30, 40, dtype=torch.float32)[torch.arange(300) % 30]
    found = hac(x, mean_size=10)
    assert found.equal(torch.arange(300) % 30)
    assert not hac(torch.full((50, 3), 0.1), mean_size=2).any()
    assert not hac(torch.full((50, 3), 0.1), mean_size=1, max_rows=10).any()


def test_few_rows():
    assert hac(torch.rand(1, 3)).tolist() == [0]
    assert hac(torch.rand(9, 3)).tolist() == [0] * 9
    assert hac(torch.tensor([[0.0], [1.0]]), mean_size=1, max_rows=2).tolist() == [0, 1]
    assert hac(torch.tensor([[0.0], [1.0], [0.1]]), mean_size=1, max_rows=2).tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("max_rows", [10_000, 100])
def test_only_the_ratios_of_features_matter(size, max_rows):
    x = normal(300, 4)
    want = hac(x, max_rows=max_rows)
    assert hac(x * 2.0 ** round(math.log2(size)), max_rows=max_rows).equal(want)
    assert len(hac((x * size).float(), max_rows=max_rows).unique()) == len(want.unique())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_wider(dtype):
    x = normal(100, 4).to(dtype)
    assert hac(x).equal(hac(x.double()))
    assert hac(x, max_rows=50).equal(hac(x.float(), max_rows=50))


def test_a_mapped_file(tmp_path):
    x = normal(300, 4, dtype=torch.float32)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for max_rows in (10_000, 100):
        assert hac(mapped, max_rows=max_rows, chunk_rows=50).equal(hac(x, max_rows=max_rows))


def test_randomness_is_the_generator_s():
    x = normal(300, 4)
    assert hac(x).equal(hac_clusters(x, generator=seeded(1)))  # all rows: nothing is drawn
    assert not hac(x, max_rows=100).equal(hac_clusters(x, max_rows=100, generator=seeded(1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean_size": 0.5}, "mean_size must be a finite number of at least 1, got 0.5"),
        ({"mean_size": math.nan}, "mean_size must be a finite number of at least 1, got nan"),
        ({"mean_size": "10"}, "mean_size must be a finite number of at least 1, got '10'"),
        ({"max_rows": 1}, "max_rows must be a whole number of at least 2, got 1"),
        ({"metric": "manhattan"}, "metric must be one of euclidean, cosine, got 'manhattan'"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        hac(torch.rand(5, 2), **settings)


def test_refuses_features():
    with pytest.raises(DataError, match="1 of 2 rows are not, the first is row 1"):
        hac(torch.tensor([[0.0], [math.nan]]))
    with pytest.raises(DataError, match="no rows"):
        hac(torch.zeros(0, 2))
    with pytest.raises(DataError, match="row 1 is all zeros"):
        hac(torch.tensor([[1.0, 0], [0, 0]]), metric="cosine")
    with pytest.raises(ShapeError, match="real numbers"):
        hac(torch.zeros(3, 2, dtype=torch.complex64))


@pytest.mark.gpu
@pytest.mark.parametrize("generator_device", ["cpu", "cuda"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_on_a_gpu_the_same_clusters(generator_device, metric):
    x = normal(600, 5)
    generator = torch.Generator(generator_device).manual_seed(0)
    whole = hac_clusters(x.cuda(), metric=metric, generator=generator)
    assert whole.is_cuda
    assert whole.cpu().equal(hac(x, metric=metric))
    some = hac_clusters(x.cuda(), metric=metric, max_rows=200, generator=generator)
    assert some.is_cuda
    if generator_device == "cpu":
        assert some.cpu().equal(hac(x, metric=metric, max_rows=200))
    assert hac_clusters(x, metric=metric, max_rows=200, generator=seeded(), device="cuda").equal(
        hac(x, metric=metric, max_rows=200)
    )
