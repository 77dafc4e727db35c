import importlib
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from tests.references import kmeans as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import draws
from torchal.engine.distances import Space
from torchal.functional import k_center_greedy, kmeans, kmeans_plus_plus, nearest_rows

WITHIN = kmeans.__globals__


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_features_near_the_smallest_number():
    x = torch.tensor([[0.0], [1.0], [8.0], [9.0]], dtype=torch.float64) * 2.0**-560
    clusters = kmeans(x, 2, generator=torch.Generator().manual_seed(0))
    assert (clusters.centers / 2.0**-560).sort(0).values.flatten().tolist() == [0.5, 8.5]
    assert len(kmeans_plus_plus(x, 3, generator=torch.Generator()).indices.unique()) == 3


def normal(n_rows, n_columns, seed=0, dtype=torch.float32):
    return torch.randn(n_rows, n_columns, generator=seeded(seed), dtype=dtype)


@pytest.mark.parametrize(
    ("features", "weights"),
    [
        ([[0.0, 0], [1, 0], [5, 5], [5.5, 5], [9, 0]], [1.0, 1, 1, 1, 1]),
        ([[0.1], [0.1], [3.0], [3.5], [8.0]], [1.0, 0.5, 2, 1, 0]),
        ([[2.0], [2.0], [7.0], [7.0]], [1.0, 3, 2, 2]),
    ],
    ids=["plain", "weighted", "copies"],
)
def test_draws_have_the_distribution_of_the_sequential_algorithm(features, weights):
    features, weights = torch.tensor(features), torch.tensor(weights)
    chances = reference.draws(features.numpy(), 3, weights.numpy())
    counts = Counter()
    n_runs = 800
    for seed in range(n_runs):
        picks = kmeans_plus_plus(features, 3, generator=seeded(seed), weights=weights)
        counts[tuple(picks.indices.tolist())] += 1
    assert not [rows for rows in counts if not chances[rows]]
    often = [rows for rows in chances if chances[rows] * n_runs >= 5]
    seldom = sum(chance for rows, chance in chances.items() if rows not in often)
    observed = [*(counts[rows] for rows in often), n_runs - sum(counts[rows] for rows in often)]
    expected = [*(chances[rows] * n_runs for rows in often), seldom * n_runs]
    if expected[-1] < 1:
        assert observed[-1] <= 5
        observed, expected = ([*values[:-2], values[-2] + values[-1]] for values in (observed, expected))
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_the_expected_potential_is_that_of_the_sequential_algorithm():
    # enough draws for many blocks, and for blocks that lose most of their proposals
    groups = normal(12, 5) * 6
    x = groups[torch.arange(1500) % 12] + normal(1500, 5, seed=1)
    ours, theirs = [], []
    for seed in range(60):
        picks = kmeans_plus_plus(x, 100, generator=seeded(seed)).indices
        ours.append(float(torch.cdist(x.double(), x[picks].double()).square().amin(1).sum()))
        theirs.append(reference.kmeans_plus_plus(x.numpy(), 100, np.random.default_rng(seed))[1])
    assert stats.ttest_ind(ours, theirs).pvalue > 1e-3
    assert abs(np.mean(ours) / np.mean(theirs) - 1) < 0.02


def test_scores_are_the_weighted_squared_distances_at_the_draw():
    x, weights = normal(200, 4, dtype=torch.float64), torch.rand(200, generator=seeded(1), dtype=torch.float64)
    picks = kmeans_plus_plus(x, 50, generator=seeded(0), weights=weights, chunk_rows=17)
    far = torch.cdist(x, x).square()
    want = [float(weights[picks.indices[0]])]
    for step in range(1, 50):
        row = picks.indices[step]
        want.append(float(weights[row] * far[row, picks.indices[:step]].min()))
    assert picks.scores.tolist() == pytest.approx(want, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 20), st.integers(1, 3)).flatmap(
        lambda shape: hnp.arrays(np.float32, shape, elements=st.integers(0, 2).map(lambda i: np.float32(i / 3)))
    ),
    st.integers(1, 20),
    st.integers(0, 2**31),
    st.integers(1, 20),
)
def test_draws_are_distinct_and_copies_come_last(features, n, seed, chunk_rows):
    n = min(n, len(features))
    picks = kmeans_plus_plus(torch.from_numpy(features), n, generator=seeded(seed), chunk_rows=chunk_rows)
    assert len(set(picks.indices.tolist())) == n
    n_kinds = len(np.unique(features, axis=0))
    drawn = features[picks.indices.numpy()]
    assert len(np.unique(drawn, axis=0)) == min(n, n_kinds)
    assert bool((picks.scores[: min(n, n_kinds)] > 0).all())
    assert not picks.scores[n_kinds:].any()


def test_labeled_rows_count_as_drawn():
    x = torch.tensor([[0.0], [0.0], [4.0], [4.0]])
    labeled = torch.tensor([True, False, False, False])
    for seed in range(10):
        assert int(kmeans_plus_plus(x, 1, generator=seeded(seed), labeled=labeled).indices) in (2, 3)


def test_the_same_seed_gives_the_same_draws_from_a_file_too(tmp_path):
    x = normal(3000, 6)
    np.save(tmp_path / "x.npy", x.numpy())
    want = kmeans_plus_plus(x, 300, generator=seeded(3))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    got = kmeans_plus_plus(mapped, 300, generator=seeded(3))
    assert got.indices.equal(want.indices)
    assert not kmeans_plus_plus(x, 300, generator=seeded(4)).indices.equal(want.indices)


def test_more_rows_than_multinomial_takes():
    n_rows = 2**24 + 4099
    chances = torch.zeros(n_rows)
    some = torch.tensor([5, 2**24 + 1, 2**24 + 4098])
    chances[some] = torch.tensor([1.0, 2.0, 1.0])
    counts = torch.bincount(torch.searchsorted(some, draws.draw(chances, 4000, seeded(0))), minlength=3)
    assert stats.chisquare(counts.numpy(), [1000, 2000, 1000]).pvalue > 1e-3
    x = torch.zeros(n_rows, 1)
    x[some] = torch.tensor([[1.0], [2.0], [3.0]])
    picks = kmeans_plus_plus(x, 4, generator=seeded(0)).indices
    assert sorted(x[picks].squeeze(1).tolist()) == [0.0, 1.0, 2.0, 3.0]


def test_a_row_of_next_to_no_weight_is_drawn_before_one_of_none():
    x = torch.randn(30, 2, generator=seeded(0))
    weights = torch.zeros(30, dtype=torch.float64)
    weights[[3, 20]] = torch.tensor([1.0, 1e-60], dtype=torch.float64)
    for seed in range(5):
        assert kmeans_plus_plus(x, 2, weights=weights, generator=seeded(seed)).indices.tolist() == [3, 20]


def test_draws_at_the_edges_of_parts():
    # rounding must never give a row without a chance, nor one beyond the end
    chances = torch.zeros(1024 * 3)
    chances[[1023, 1024, 2047]] = torch.tensor([1e-30, 1.0, 1e30])
    assert set(draws.draw(chances, 1000, seeded(0)).tolist()) == {2047}
    assert set(draws.draw(chances[:2047], 1000, seeded(0)).tolist()) == {1024}
    assert set(draws.draw(chances[:1024], 1000, seeded(0)).tolist()) == {1023}


def test_stratified_draws_are_never_far_off_their_share():
    chances = torch.rand(5000, generator=seeded(0)) * (torch.arange(5000) % 3 > 0)
    rows = draws.draw_stratified(chances, 2000, seeded(1))
    assert (rows.diff() >= 0).all()
    assert (chances[rows] > 0).all()
    shares = chances.double().cumsum(0) * (2000 / chances.double().sum())
    assert (rows.bincount(minlength=5000).cumsum(0) - shares).abs().max() <= 1 + 1e-9
    assert set(draws.draw_stratified(torch.tensor([0.0, 1, 0]), 50, seeded(0)).tolist()) == {1}
    runs = torch.stack([draws.draw_stratified(torch.tensor([1.0, 2, 5]), 2, seeded(seed)) for seed in range(400)])
    assert stats.chisquare(runs.flatten().bincount(), torch.tensor([100, 200, 500])).pvalue > 1e-3
    assert draws.draw_stratified(chances, 0, seeded(0)).shape == (0,)


def test_clusters_by_hand():
    x = torch.tensor([[0.0, 0], [0, 2], [10, 0], [10, 2], [11, 1]])
    clusters = kmeans(x, 2, generator=seeded(0), tolerance=0)
    assert clusters.assignments[0] == clusters.assignments[1] != clusters.assignments[2]
    assert len(clusters.assignments[2:].unique()) == 1
    centers = clusters.centers[clusters.assignments[[0, 2]]]
    assert torch.allclose(centers, torch.tensor([[0.0, 1], [31 / 3, 1]]))
    assert float(clusters.inertia) == pytest.approx(2 + 2 + 2 / 3, rel=1e-6)


@pytest.mark.parametrize("chunk_rows", [None, 7])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_clusters_agree_with_lloyd_from_the_same_start(chunk_rows, offset):
    x = (normal(8, 3)[torch.arange(400) % 8] * 3 + normal(400, 3, seed=1)).double() + offset
    start = kmeans_plus_plus(x, 8, generator=seeded(2)).indices
    for steps in (1, 3, 20):
        got = kmeans(x, 8, generator=seeded(2), max_iterations=steps, tolerance=0, chunk_rows=chunk_rows)
        centers, assignments, inertia = reference.lloyd(x.numpy(), x[start].numpy(), steps)
        assert np.allclose(got.centers, centers)
        assert (got.assignments.numpy() == assignments).all()
        assert float(got.inertia) == pytest.approx(inertia)


def test_clusters_are_as_good_as_scikit_learns():
    from sklearn.cluster import KMeans

    x = normal(2000, 6)
    ours = [float(kmeans(x, 20, generator=seeded(seed)).inertia) for seed in range(10)]
    theirs = [KMeans(20, n_init=1, random_state=seed).fit(x.numpy()).inertia_ for seed in range(10)]
    # theirs tries several rows for each draw of the start, so it may begin a little better
    assert np.mean(ours) < np.mean(theirs) * 1.01


@pytest.mark.parametrize("chunk_rows", [None, 1000])
def test_many_rows_by_way_of_a_sample(chunk_rows):
    kinds = torch.tensor([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]])
    kind = torch.randint(4, (300_000,), generator=seeded(3))
    x, weights = kinds[kind] + normal(300_000, 3), torch.rand(300_000, generator=seeded(4))
    weights[kind == 3] = 0
    got = kmeans(x, 3, generator=seeded(0), weights=weights, tolerance=0, chunk_rows=chunk_rows)
    masses = torch.zeros(3).index_add_(0, got.assignments, weights)
    means = torch.zeros(3, 3).index_add_(0, got.assignments, x * weights.unsqueeze(1)) / masses.unsqueeze(1)
    assert torch.allclose(got.centers, means, atol=0.05)
    assert torch.cdist(x[:1000], got.centers).argmin(1).equal(got.assignments[:1000])
    far = (x - got.centers[got.assignments]).double().square().sum(1)
    assert float(got.inertia) == pytest.approx(float((far * weights).sum()), rel=1e-6)
    again = kmeans(x, 3, generator=seeded(0), weights=weights, tolerance=0, chunk_rows=chunk_rows)
    assert again.assignments.equal(got.assignments)


def test_many_rows_are_clustered_as_well_as_by_lloyd():
    from sklearn.cluster import KMeans

    x = normal(120_000, 8) * torch.linspace(1, 3, 8)
    theirs = [KMeans(6, n_init=1, random_state=seed).fit(x.numpy()).inertia_ for seed in range(5)]
    ours = [float(kmeans(x, 6, generator=seeded(seed)).inertia) for seed in range(5)]
    assert np.mean(ours) <= np.mean(theirs) * 1.001


def test_many_rows_of_fewer_kinds_than_clusters_and_with_one_that_weighs_nearly_all():
    x = (torch.arange(120_000) % 2).double().unsqueeze(1)
    clusters = kmeans(x, 3, generator=seeded(0))
    assert float(clusters.inertia) == 0
    assert clusters.centers[clusters.assignments].equal(x)
    weights = torch.full((120_000,), 1e-12)
    weights[77] = 1
    clusters = kmeans(normal(120_000, 2), 3, generator=seeded(0), weights=weights)
    assert clusters.assignments.bincount().min() > 0
    assert float(clusters.inertia) < 1e-6


def test_the_best_of_several_starts():
    """Clusters near enough to each other that single starts have two centres in some of them, and none in others."""
    corners = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)) * 8
    x = (corners[:, None] + torch.randn(25, 12, 2, generator=seeded(0))).flatten(0, 1)
    generator = seeded(1)
    single = [float(kmeans(x, 25, generator=generator).inertia) for _ in range(10)]
    several = float(kmeans(x, 25, generator=seeded(1), n_starts=10).inertia)
    assert several == pytest.approx(min(single), rel=1e-6)
    assert several < 0.8 * max(single)


@pytest.mark.parametrize(("n_rows", "k"), [(9_000, 9), (108_000, 9), (108_000, 200)])
def test_there_are_as_many_starts_as_asked_for(n_rows, k, monkeypatch):
    corners = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0)) * 20
    x = corners.repeat_interleave(n_rows // 9, 0) + torch.randn(n_rows, 2, generator=seeded(0))
    starts, started = [], WITHIN["_started"]
    monkeypatch.setitem(WITHIN, "_started", lambda *arguments: starts.append(1) or started(*arguments))
    inertia = float(kmeans(x, k, generator=seeded(0), n_starts=4, max_iterations=5).inertia)
    assert len(starts) == 4
    if k == 9:
        best = float((x - corners.repeat_interleave(n_rows // 9, 0)).square().sum())
        assert inertia == pytest.approx(best, rel=1e-2)


def test_an_empty_cluster_starts_anew(monkeypatch):
    module = importlib.import_module("torchal.functional.kmeans")  # the package has the function by this name
    x = torch.cat([normal(50, 2), normal(50, 2) + 100, normal(50, 2) - 100])
    monkeypatch.setattr(module, "_draw_start", lambda *_: (torch.tensor([0, 0, 60]), None))  # the second is empty
    clusters = kmeans(x, 3, generator=seeded(0))
    assert sorted(torch.bincount(clusters.assignments).tolist()) == [50, 50, 50]


def test_weights_count_as_copies():
    x, counts = normal(60, 2), torch.randint(0, 4, (60,), generator=seeded(0))
    copies = x.repeat_interleave(counts, 0)
    start = x[kmeans_plus_plus(x, 4, generator=seeded(1), weights=counts.float()).indices]
    got = kmeans(x, 4, generator=seeded(1), weights=counts.float(), tolerance=0)
    centers, _, inertia = reference.lloyd(copies.numpy(), start.numpy(), 50)
    assert np.allclose(got.centers, centers, atol=1e-5)
    assert float(got.inertia) == pytest.approx(inertia, rel=1e-5)


@pytest.mark.parametrize("size", [1e-300, 1e-38, 1e38, 1e300])
def test_only_the_ratios_of_weights_matter(size):
    x = normal(50, 3) * 100
    weights = torch.rand(50, generator=seeded(0), dtype=torch.float64) + 0.5
    want = kmeans_plus_plus(x, 20, generator=seeded(0), weights=weights).indices
    assert kmeans_plus_plus(x, 20, generator=seeded(0), weights=weights * size).indices.equal(want)
    assert kmeans(x, 5, generator=seeded(0), weights=weights * size).assignments.equal(
        kmeans(x, 5, generator=seeded(0), weights=weights).assignments
    )


@settings(max_examples=30, deadline=None)
@given(power=st.sampled_from([-100, -40, 40, 100]), seed=st.integers(0, 9), labeled=st.booleans())
def test_only_the_ratios_of_features_matter(power, seed, labeled):
    """Far from 1 the engine computes in float64, on a scale of its own; random numbers are used up alike."""
    x, labeled = normal(200, 5, seed=seed), torch.arange(200) < 3 if labeled else None
    scaled = x * 2.0**power
    want = kmeans_plus_plus(x, 20, generator=seeded(seed), labeled=labeled).indices
    assert kmeans_plus_plus(scaled, 20, generator=seeded(seed), labeled=labeled).indices.equal(want)
    want = kmeans(x, 5, generator=seeded(seed)).assignments
    assert kmeans(scaled, 5, generator=seeded(seed)).assignments.equal(want)
    want = k_center_greedy(x, 20, labeled=labeled)
    got = k_center_greedy(scaled, 20, labeled=labeled)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores / 2.0**power, want.scores, rtol=1e-6)
    assert nearest_rows(scaled, scaled[:9] * 1.5).equal(nearest_rows(x, x[:9] * 1.5))


def test_one_row_with_nearly_all_the_weight():
    x = torch.tensor([[5.0], [0.0], [1.0], [2.0]])
    for seed in range(4):
        clusters = kmeans(x, 2, generator=seeded(seed), weights=torch.tensor([1, 1e-30, 1e-30, 1e-30]))
        assert clusters.assignments[0] not in clusters.assignments[1:]


def test_fewer_kinds_than_clusters():
    x = torch.tensor([[1.0], [1.0], [2.0], [2.0]])
    clusters = kmeans(x, 3, generator=seeded(0))
    assert float(clusters.inertia) == 0
    assert clusters.centers[clusters.assignments].equal(x)
    assert set(kmeans(x, 4, generator=seeded(0)).centers.squeeze(1).tolist()) == {1.0, 2.0}


X = normal(10, 3)


@pytest.mark.parametrize(
    ("n", "settings", "error", "match"),
    [
        (0, {}, BudgetError, "asked for 0 rows"),
        (11, {}, BudgetError, "asked for 11 rows, 10 can be picked"),
        (9, {"weights": torch.arange(10.0) * (torch.arange(10) > 2)}, BudgetError, "asked for 9 rows, 7 can be picked"),
        (1, {"weights": torch.ones(9)}, ShapeError, r"weights must be \(10,\) on cpu, got \(9,\)"),
        (1, {"weights": torch.ones(10).long()}, ShapeError, "floating point"),
        (1, {"weights": -torch.ones(10)}, DataError, "weights must be at least 0: 10 of 10"),
        (1, {"weights": torch.ones(10) / 0}, DataError, "weights must be finite"),
        (10, {"labeled": torch.arange(10) < 1}, BudgetError, "asked for 10 rows, 9 can be picked"),
        (1, {"labeled": torch.ones(10)}, ShapeError, "labeled must be a bool tensor"),
    ],
)
def test_bad_input(n, settings, error, match):
    with pytest.raises(error, match=match):
        kmeans_plus_plus(X, n, generator=seeded(0), **settings)


@pytest.mark.parametrize(
    ("k", "settings", "error", "match"),
    [
        (0, {}, ConfigError, "k must be a whole number of at least 1, got 0"),
        (11, {}, BudgetError, "asked for 11 rows, 10 can be picked"),
        (2, {"max_iterations": 0}, ConfigError, "max_iterations"),
        (2, {"n_starts": 0}, ConfigError, "n_starts must be a whole number of at least 1, got 0"),
        (2, {"tolerance": -1}, ConfigError, "tolerance must be at least 0, got -1"),
        (2, {"weights": torch.zeros(10)}, BudgetError, "0 can be picked"),
    ],
)
def test_bad_clusters(k, settings, error, match):
    with pytest.raises(error, match=match):
        kmeans(X, k, generator=seeded(0), **settings)
    with pytest.raises(DataError, match="not"):
        kmeans(X / 0, 2, generator=seeded(0))


def test_small_blocks_draw_alike(monkeypatch):
    monkeypatch.setattr(Space, "block_rows", 32)
    x = normal(500, 3)
    assert len(kmeans_plus_plus(x, 500, generator=seeded(0)).indices.unique()) == 500


@pytest.mark.gpu
def test_cuda_draws_the_same_rows():
    x = normal(5000, 16, dtype=torch.float64)
    want = kmeans_plus_plus(x, 200, generator=seeded(0)).indices
    assert kmeans_plus_plus(x.cuda(), 200, generator=seeded(0)).indices.cpu().equal(want)
    here, there = (kmeans(rows, 20, generator=seeded(0)) for rows in (x, x.cuda()))
    assert torch.allclose(here.centers, there.centers.cpu())
    assert kmeans(x.cuda(), 20, generator=seeded(0)).centers.equal(there.centers)


@pytest.mark.gpu
def test_cuda_takes_weights_and_labeled_rows_and_streams():
    x = normal(3000, 8, dtype=torch.float64)
    weights, labeled = torch.rand(3000, generator=seeded(1), dtype=torch.float64), torch.arange(3000) % 300 == 0
    want = kmeans_plus_plus(x, 50, generator=seeded(0), weights=weights, labeled=labeled)
    there = kmeans_plus_plus(x.cuda(), 50, generator=seeded(0), weights=weights.cuda(), labeled=labeled.cuda())
    streamed = kmeans_plus_plus(
        x, 50, generator=seeded(0), weights=weights, labeled=labeled, device="cuda", chunk_rows=700
    )
    assert there.indices.is_cuda
    assert there.scores.is_cuda
    assert streamed.indices.device.type == "cpu"
    for found in (there, streamed):
        assert found.indices.cpu().equal(want.indices)
        torch.testing.assert_close(found.scores.cpu(), want.scores)
    here = kmeans(x, 12, generator=seeded(0), weights=weights)
    for found in (
        kmeans(x.cuda(), 12, generator=seeded(0), weights=weights.cuda()),
        kmeans(x, 12, generator=seeded(0), weights=weights, device="cuda", chunk_rows=700),
    ):
        torch.testing.assert_close(found.centers.cpu(), here.centers)
        assert found.assignments.cpu().equal(here.assignments)
        assert found.assignments.device == found.centers.device


@pytest.mark.gpu
def test_a_generator_on_cuda_draws():
    x = normal(2000, 8, dtype=torch.float64)
    for rows in (x, x.cuda()):
        first, again = (
            kmeans_plus_plus(rows, 40, generator=torch.Generator("cuda").manual_seed(2)).indices for _ in range(2)
        )
        assert first.equal(again)
        assert len(first.unique()) == 40
        clusters = kmeans(rows, 5, generator=torch.Generator("cuda").manual_seed(2))
        assert clusters.assignments.device == rows.device


@pytest.mark.gpu
def test_cuda_finds_the_rows_nearest_to_points():
    x, centers = normal(2000, 8, dtype=torch.float64), normal(30, 8, seed=1, dtype=torch.float64)
    want = nearest_rows(x, centers)
    there = nearest_rows(x.cuda(), centers.cuda())
    assert there.is_cuda
    assert there.cpu().equal(want)
    assert nearest_rows(x, centers, device="cuda", chunk_rows=300).equal(want)
