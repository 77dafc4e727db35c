import importlib
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.references import hierarchical_kmeans as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.functional import ClusterLevels, balanced_sample, hierarchical_kmeans, kmeans

module = importlib.import_module("torchal.functional.hierarchical_kmeans")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def levels_of(*parents):
    """Return levels with these parents, all rows at their centres."""
    parents = tuple(torch.tensor(parent) for parent in parents)
    centers = tuple(torch.zeros(int(parent.max()) + 1, 1) for parent in parents)
    return ClusterLevels(centers, parents, torch.zeros(len(parents[0])))


# Two clusters at the top: one of 8 and 4 rows, one of 2 and 1 and 1.
LEVELS = levels_of([0] * 8 + [1] * 4 + [2] * 2 + [3, 4], [0, 0, 1, 1, 1])


def counts(picks, levels=LEVELS, level=0):
    return levels.clusters_at(level)[picks.indices].bincount(minlength=len(levels.centers[level])).tolist()


def test_each_level_is_balanced():
    for seed in range(5):
        picks = balanced_sample(LEVELS, 8, generator=seeded(seed))
        assert counts(picks, level=1) == [4, 4]
        assert counts(picks) == [2, 2, 2, 1, 1]
        tops = LEVELS.clusters_at(1)[picks.indices].view(-1, 2)
        assert bool((tops[:, 0] != tops[:, 1]).all())  # in turn


def test_clusters_that_run_out_leave_the_rest_to_others():
    picks = balanced_sample(LEVELS, 12, generator=seeded())
    assert counts(picks, level=1) == [8, 4]
    assert counts(picks) == [4, 4, 2, 1, 1]
    assert balanced_sample(LEVELS, 16, generator=seeded()).indices.sort().values.tolist() == list(range(16))


def test_labeled_rows_count_as_drawn():
    labeled = torch.arange(16) < 3  # of the first cluster
    picks = balanced_sample(LEVELS, 3, generator=seeded(), labeled=labeled)
    assert counts(picks, level=1) == [0, 3]
    picks = balanced_sample(LEVELS, 5, generator=seeded(), labeled=labeled)
    assert counts(picks) == [0, 1, 2, 1, 1]
    candidates = torch.arange(16) >= 14
    assert balanced_sample(LEVELS, 2, generator=seeded(), labeled=labeled, candidates=candidates).indices.sum() == 29


def test_rows_are_drawn_evenly():
    seen = Counter()
    n_runs = 600
    for seed in range(n_runs):
        seen.update(balanced_sample(LEVELS, 5, generator=seeded(seed)).indices.tolist())
    # 5 rows: 2.5 at each top cluster; the first of them gives 1.25 a cluster, the second 2.5 / 3
    expected = [1.25 / 8] * 8 + [1.25 / 4] * 4 + [2.5 / 6] * 2 + [2.5 / 3] * 2
    for row, chance in enumerate(expected):
        assert stats.binomtest(seen[row], n_runs, chance).pvalue > 1e-5


def test_the_closest():
    levels = ClusterLevels(LEVELS.centers, LEVELS.parents, torch.arange(16.0).flip(0))
    picks = balanced_sample(levels, 8, generator=seeded(), within="closest")
    assert picks.indices.sort().values.tolist() == [6, 7, 10, 11, 12, 13, 14, 15]
    assert picks.scores.tolist() == [0.0] * 8


@settings(deadline=None, max_examples=80)
@given(
    had=st.lists(st.integers(0, 6), min_size=1, max_size=7),
    n_groups=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_shares_are_those_of_one_row_after_another(had, n_groups, seed):
    generator = seeded(seed)
    had = torch.tensor(had)
    room = torch.randint(0, 7, had.shape, generator=generator)
    above = torch.randint(n_groups, had.shape, generator=generator)
    full = torch.zeros(n_groups, dtype=torch.int64).index_add_(0, above, room)
    quotas = (torch.rand(n_groups, generator=generator) * (full + 1)).long().minimum(full)
    found = module._even_shares(had, room, above, quotas, generator)
    assert bool((found <= room).all())
    for group, quota in enumerate(quotas.tolist()):
        inside = above == group
        heights = (had + found)[inside].sort().values.tolist()
        assert int(found[inside].sum()) == quota
        assert heights == reference.shares(had[inside].tolist(), room[inside].tolist(), quota)


@settings(deadline=None, max_examples=25)
@given(
    n_rows=st.integers(1, 30),
    sizes=st.sampled_from([(1,), (4,), (6, 2), (12, 5, 2)]),
    near=st.integers(1, 3),
    n_resamples=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_loop(n_rows, sizes, near, n_resamples, seed):
    x = normal(n_rows, 2, seed=seed, dtype=torch.float64)
    found = hierarchical_kmeans(
        x, sizes, generator=seeded(seed), resample=[near] * len(sizes), n_resamples=n_resamples, max_iterations=5
    )
    generator = seeded(seed)

    def given_kmeans(points, k, wanted):
        weights = None if wanted is None or all(wanted) else torch.tensor(wanted, dtype=torch.float64)
        points = torch.tensor(points, dtype=torch.float64)
        return kmeans(points, k, weights=weights, generator=generator, max_iterations=5).centers.tolist()

    want = reference.hierarchical_kmeans(x.tolist(), sizes, [near] * len(sizes), n_resamples, given_kmeans)
    for level, (centers, assigned) in enumerate(want):
        np.testing.assert_allclose(found.centers[level], centers, rtol=1e-9, atol=1e-12)
        assert found.parents[level].tolist() == assigned
    far = [math.dist(row, want[0][0][c]) for row, c in zip(x.tolist(), want[0][1], strict=True)]
    assert found.distances.tolist() == pytest.approx(far, abs=1e-12)


def test_resampling_spreads_the_centres():
    dense, thin = normal(2000, 2), 12 + 3 * normal(100, 2, seed=1)
    x = torch.cat([dense, thin])
    shares = []
    for n_resamples in (0, 10):
        centers = [
            hierarchical_kmeans(x, (40,), generator=seeded(seed), n_resamples=n_resamples, resample=(5,)).centers[0]
            for seed in range(4)
        ]
        shares.append(float((torch.cat(centers).sum(1) > 10).double().mean()))
    assert shares[0] + 0.1 < shares[1]


def test_how_many_are_resampled_unless_given(monkeypatch):
    asked = []
    spread = module._spread

    def watched(points, wanted, k, near, n_resamples, *rest):
        asked.append((k, near, n_resamples))
        return spread(points, wanted, k, near, n_resamples, *rest)

    monkeypatch.setattr(module, "_spread", watched)
    hierarchical_kmeans(normal(1000, 2), (10, 3), generator=seeded(), max_iterations=2, n_resamples=1)
    hierarchical_kmeans(normal(1000, 2), (100, 60), generator=seeded(), max_iterations=2, n_resamples=2)
    assert asked == [(10, 20, 1), (3, 1, 0), (100, 5, 2), (60, 0, 0)]


def test_a_sample_of_clusters_that_are_not_even():
    x = torch.cat([normal(900, 2), 50 + normal(90, 2, seed=1), -50 + normal(10, 2, seed=2)])
    levels = hierarchical_kmeans(x, (30, 3), generator=seeded())
    picks = balanced_sample(levels, 30, generator=seeded()).indices
    kind = (picks >= 900).long() + (picks >= 990).long()
    assert kind.bincount().tolist() == [10, 10, 10]


def test_few_different_rows():
    same = hierarchical_kmeans(torch.ones(20, 3), (10, 4), generator=seeded())
    assert same.clusters_at(1).unique().numel() == 1
    assert not same.distances.any()
    assert balanced_sample(same, 20, generator=seeded()).indices.sort().values.tolist() == list(range(20))
    x = torch.tensor([[0.0], [9.0]]).repeat_interleave(20, 0)
    levels = hierarchical_kmeans(x, (10, 4), generator=seeded())
    assert counts_of_halves(balanced_sample(levels, 8, generator=seeded()).indices) == [4, 4]
    one = hierarchical_kmeans(x[:1], (5, 2, 1), generator=seeded())
    assert balanced_sample(one, 1, generator=seeded()).indices.tolist() == [0]


def counts_of_halves(rows):
    return (rows >= 20).long().bincount(minlength=2).tolist()


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_the_size_of_features_does_not_count(size):
    x = torch.cat([normal(60, 3), 50 + normal(60, 3, seed=1)])
    want = hierarchical_kmeans(x, (8, 2), generator=seeded())
    found = hierarchical_kmeans(x * size, (8, 2), generator=seeded())
    assert found.clusters_at(1).bincount().tolist() == want.clusters_at(1).bincount().tolist() == [60, 60]
    assert (found.distances / size).max() < 5


def test_half_precision_and_files(tmp_path):
    x = normal(200, 4)
    assert hierarchical_kmeans(x.half(), (9, 3), generator=seeded()).centers[1].dtype == torch.float32
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    want = hierarchical_kmeans(x, (9, 3), generator=seeded())
    found = hierarchical_kmeans(mapped, (9, 3), generator=seeded())
    assert found.clusters_at(0).equal(want.clusters_at(0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sizes": ()}, ConfigError, "sizes must be one whole number for each level"),
        ({"sizes": 5}, ConfigError, "sizes must be one whole number for each level, got 5"),
        ({"sizes": (5, 0)}, ConfigError, "each of sizes must be a whole number of at least 1"),
        ({"sizes": (5, 5)}, ConfigError, r"sizes must fall from level to level, got \(5, 5\)"),
        ({"resample": (3, 2)}, ConfigError, "resample must have one number for each of 1 levels, got 2"),
        ({"resample": (0,)}, ConfigError, "each of resample must be"),
        ({"n_resamples": -1}, ConfigError, "n_resamples must be a whole number of at least 0"),
        ({"max_iterations": 0}, ConfigError, "max_iterations must be"),
        ({"features": torch.full((60, 3), math.nan)}, DataError, "features must be finite"),
        ({"features": torch.full((60, 3), math.inf)}, DataError, "features must be finite"),
        ({"features": torch.zeros(60, 3, dtype=torch.complex64)}, ShapeError, "features must be real numbers"),
        ({"features": torch.zeros(0, 3)}, DataError, "features has no rows"),
    ],
)
def test_refuses_what_it_cannot_cluster(change, error, message):
    arguments = {"features": normal(60, 3), "sizes": (4,)} | change
    with pytest.raises(error, match=message):
        hierarchical_kmeans(arguments.pop("features"), arguments.pop("sizes"), **arguments, generator=seeded())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 17}, BudgetError, "asked for 17 rows, 16 can"),
        ({"n": 0}, BudgetError, "asked for 0 rows"),
        ({"labeled": torch.ones(16)}, ShapeError, "labeled must be a bool"),
        ({"candidates": torch.ones(15, dtype=torch.bool)}, ShapeError, r"candidates must have shape \(16,\)"),
        ({"labeled": torch.ones(16) > 0, "candidates": torch.ones(16) > 0}, ShapeError, "16 rows are both"),
        ({"within": "first"}, ConfigError, "within must be one of random, closest; got 'first'"),
    ],
)
def test_refuses_what_it_cannot_draw(change, error, message):
    arguments = {"n": 3} | change
    with pytest.raises(error, match=message):
        balanced_sample(LEVELS, arguments.pop("n"), **arguments, generator=seeded())


@pytest.mark.gpu
def test_cuda_clusters_and_draws_the_same():
    x = torch.cat([normal(300, 3), 90 + normal(100, 3, seed=1), -90 + normal(20, 3, seed=2)])
    labeled = torch.arange(420) < 30
    want = hierarchical_kmeans(x, (3, 2), generator=seeded())
    found = hierarchical_kmeans(x.cuda(), (3, 2), generator=seeded())
    assert found.clusters_at(1).cpu().equal(want.clusters_at(1))
    for within in ("random", "closest"):
        here = balanced_sample(want, 50, generator=seeded(), labeled=labeled, within=within)
        there = balanced_sample(found, 50, generator=seeded(), labeled=labeled.cuda(), within=within)
        assert there.indices.cpu().equal(here.indices), within
    drawn = balanced_sample(found, 50, generator=torch.Generator("cuda").manual_seed(0), labeled=labeled.cuda())
    assert len(drawn.indices.unique()) == 50
    many = hierarchical_kmeans(x.cuda(), (60, 9), generator=torch.Generator("cuda").manual_seed(0))
    assert many.centers[0].is_cuda
