import math

import numpy as np
import pytest
import torch

from tests.ranks import run_ranks
from torchal import CapabilityError, ConfigError, MissingExtraError
from torchal.engine import inverted_lists
from torchal.engine.inverted_lists import lowest_mean, sample_size
from torchal.functional import knn_graph

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of faiss, when it is imported


@pytest.fixture(autouse=True)
def _faiss():
    pytest.importorskip("faiss")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n_rows, n_columns=16, seed=0):
    return torch.randn(n_rows, n_columns, generator=seeded(seed))


def clustered(n_rows, n_columns=16, n_clusters=200, seed=0):
    centers = normal(n_clusters, n_columns, seed) * 4
    return centers[torch.randint(n_clusters, (n_rows,), generator=seeded(seed))] + normal(n_rows, n_columns, seed + 1)


def share_found(found, want):
    """Return what share of the true neighbours was found, by number, or, in case of ties, by distance."""
    same = (found.indices.unsqueeze(2) == want.indices.unsqueeze(1)).any(2)
    return (same | (found.distances <= want.distances[:, -1:])).double().mean().item()


def assert_distances_are_exact(x, found, metric="euclidean"):
    y = x.double()
    if metric == "cosine":
        y = y / y.norm(dim=1, keepdim=True)
    apart = (y.unsqueeze(1) - y[found.indices]).square().sum(2)
    want = apart / 2 if metric == "cosine" else apart.sqrt()
    torch.testing.assert_close(found.distances.double(), want, rtol=1e-4, atol=1e-6)
    assert (found.distances.diff() >= 0).all()
    assert not (found.indices == torch.arange(len(x)).unsqueeze(1)).any()
    assert (found.indices.sort(1).values.diff() > 0).all()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("make", [normal, clustered])
@pytest.mark.parametrize("recall", [0.8, 0.95])
def test_the_recall_that_is_asked_for_is_reached(make, metric, recall):
    x = make(20_000)
    want = knn_graph(x, 10, metric=metric)
    found = knn_graph(x, 10, metric=metric, backend="ivf", recall=recall, generator=seeded())
    assert recall <= found.recall < 1
    assert recall <= share_found(found, want) < 1  # less than all, or nothing was saved
    assert_distances_are_exact(x, found, metric)


@pytest.mark.parametrize("make", [normal, clustered])
def test_what_is_said_of_the_recall_holds_for_other_draws_too(make):
    x = make(4000, 8)
    want = knn_graph(x, 5)
    draws = [knn_graph(x, 5, backend="ivf", recall=0.9, generator=seeded(seed)) for seed in range(12)]
    wrong = sum(share_found(found, want) < found.recall for found in draws)
    assert all(0.9 <= found.recall < 1 for found in draws)
    assert wrong <= 3  # each with a probability of at most 0.05: more has one of 0.002


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    ("n_rows", "recall"), [(3000, 1.0), (900, 0.95), (3000, 0.999), (2, 0.5)], ids=["all", "few", "sample", "two"]
)
def test_exact_where_all_is_asked_for_or_no_sample_would_show_less(metric, n_rows, recall):
    x = normal(n_rows, 6)
    want = knn_graph(x, min(7, n_rows - 1), metric=metric)
    found = knn_graph(x, min(7, n_rows - 1), metric=metric, backend="ivf", recall=recall, generator=seeded())
    assert found.recall == want.recall == 1
    assert found.indices.equal(want.indices)
    assert found.distances.equal(want.distances)


def test_exact_where_half_of_the_lists_would_not_do():
    x = normal(3000, 64)  # so many directions that neighbours are everywhere
    found = knn_graph(x, 10, backend="ivf", recall=0.99, generator=seeded())
    assert found.recall == 1
    assert found.indices.equal(knn_graph(x, 10).indices)


def test_more_neighbours_than_rows_in_any_list():
    x = clustered(2000, 4, n_clusters=400)
    k = 300  # lists have 11 rows on average
    found = knn_graph(x, k, backend="ivf", recall=0.5, generator=seeded())
    assert found.indices.shape == (2000, k)
    assert 0.5 <= found.recall < 1
    assert share_found(found, knn_graph(x, k)) >= 0.5
    assert_distances_are_exact(x, found)


def test_rows_alone_in_their_lists_get_as_many_neighbours():
    x = torch.cat([clustered(5000, 4, n_clusters=20), 1e4 * normal(30, 4, seed=5)])
    found = knn_graph(x, 40, backend="ivf", recall=0.5, generator=seeded())
    assert found.recall < 1
    assert_distances_are_exact(x, found)


def test_copies_are_neighbours_and_the_lowest_of_them_come_first():
    x = clustered(2000, 8).repeat(3, 1)
    found = knn_graph(x, 5, backend="ivf", recall=0.9, generator=seeded())
    copies = found.indices[:, :2]
    assert (copies % 2000 == torch.arange(6000).unsqueeze(1) % 2000).all()
    assert not found.distances[:, :2].any()
    assert (copies.diff() > 0).all()
    equal = knn_graph(torch.full((3000, 3), 0.7), 4, backend="ivf", generator=seeded())
    assert not equal.distances.any()
    assert not (equal.indices == torch.arange(3000).unsqueeze(1)).any()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", ["float64", "float16", "bytes", "far", "large", "small"])
def test_whatever_the_numbers_are(metric, kind):
    x = clustered(4000, 8)
    if kind == "bytes":
        x = (x * 6 + 128).clamp(1, 255).to(torch.uint8)
    elif kind.startswith("float"):
        x = x.to(getattr(torch, kind))
    else:
        x = {"far": x + 1e3, "large": x * 1e25, "small": x * 1e-25}[kind]
    want = knn_graph(x, 6, metric=metric)
    found = knn_graph(x, 6, metric=metric, backend="ivf", recall=0.9, generator=seeded())
    assert 0.9 <= found.recall < 1
    assert found.distances.dtype == want.distances.dtype
    assert share_found(found, want) >= 0.9


def test_mapped_files_and_chunks_change_nothing(tmp_path):
    x = clustered(5000, 8)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    want = knn_graph(x, 4, backend="ivf", generator=seeded(3))
    found = knn_graph(mapped, 4, backend="ivf", generator=seeded(3), chunk_rows=700)
    assert found.recall == want.recall
    assert found.indices.equal(want.indices)
    assert knn_graph(x, 4, backend="ivf", generator=seeded(3)).indices.equal(want.indices)


def test_never_chosen_unless_asked_for(monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(inverted_lists, "ListIndex", refuse)
    assert knn_graph(normal(3000, 4), 3).recall == 1


def test_the_bound_is_that_of_binomial_draws_or_lower():
    from scipy.stats import beta, binom

    for n in (1000, 3000):
        assert lowest_mean(1.0, n) == pytest.approx(0.05 ** (1 / n), rel=1e-9)
        for hits in (n - 1, n - 20, n // 2, 3):
            low = lowest_mean(hits / n, n)
            assert low < beta.ppf(0.05, hits, n - hits + 1)  # the exact bound where each number is 0 or 1
            assert low > hits / n - math.sqrt(math.log(20) / (2 * n))  # Hoeffding's simpler one
            assert binom.sf(hits - 1, n, low) <= 0.05
    for recall in (0.5, 0.95, 0.99, 0.999):
        n = sample_size(recall)
        assert lowest_mean(1.0, n) > recall
        assert lowest_mean(recall, n) < recall
    assert sample_size(1.0) is None


X = normal(2000, 4)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"metric": "manhattan"}, CapabilityError, "euclidean and cosine distances, got 'manhattan'"),
        ({"features": X.to("meta")}, CapabilityError, "searches on the CPU, asked for meta"),
        ({"generator": None}, ConfigError, "needs a generator, got None"),
        ({"recall": 0}, ConfigError, r"recall must be a number in \(0, 1\], got 0"),
        ({"recall": 1.5}, ConfigError, r"recall must be a number in \(0, 1\], got 1.5"),
        ({"backend": "torch", "recall": -1}, ConfigError, "recall must be"),
    ],
)
def test_refuses_what_it_cannot_do(settings, error, match):
    with pytest.raises(error, match=match):
        knn_graph(k=3, **{"features": X, "backend": "ivf", "generator": seeded()} | settings)


def test_refuses_rows_on_several_ranks():
    found = run_ranks(2, lambda shards: knn_graph(X, 3, backend="ivf", generator=seeded(), group=shards))
    assert all(isinstance(error, CapabilityError) for error in found), found
    assert "rows of one process, asked for 2 ranks" in str(found[0])


def test_says_that_faiss_is_not_installed(monkeypatch):
    monkeypatch.setattr("torchal._checks.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="faiss"):
        knn_graph(X, 3, backend="ivf", generator=seeded())


@pytest.mark.gpu
def test_refuses_a_gpu():
    with pytest.raises(CapabilityError, match="on the CPU, asked for cuda:0"):
        knn_graph(X.cuda(), 3, backend="ivf", generator=seeded())
    assert knn_graph(X.cuda(), 3, backend="ivf", generator=seeded(), device="cpu").indices.is_cuda
