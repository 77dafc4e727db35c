import math
import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.references import cluster_margin as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.functional import cluster_margin, top_n


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_by_hand():
    # the six rows of least margin: one in cluster 7, two in 2, three in 5
    scores = torch.tensor([-0.1, -0.2, -0.3, -0.4, -0.5, -0.6, -0.9])
    clusters = torch.tensor([5, 2, 5, 7, 2, 5, 7])
    picks = cluster_margin(scores, clusters, 6, generator=seeded(), oversampling=1)
    assert clusters[picks.indices].tolist() == [7, 2, 5, 2, 5, 5]
    assert sorted(picks.indices.tolist()) == [0, 1, 2, 3, 4, 5]
    assert picks.scores.equal(scores[picks.indices])
    few = cluster_margin(scores, clusters, 2, generator=seeded(), oversampling=3)
    assert clusters[few.indices].tolist() == [7, 2]


@settings(max_examples=150, deadline=None)
@given(data=st.data(), n_rows=st.integers(1, 30), oversampling=st.sampled_from([1, 1.1, 1.25, 3.0, 10.0]))
def test_turns_go_through_the_clusters_as_in_the_loop(data, n_rows, oversampling):
    scores = data.draw(st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0]), min_size=n_rows, max_size=n_rows))
    clusters = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 10**12]), min_size=n_rows, max_size=n_rows))
    candidates = data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows).filter(any))
    n = data.draw(st.integers(1, sum(candidates)))
    seed = data.draw(st.integers(0, 5))
    picks = cluster_margin(
        torch.tensor(scores),
        torch.tensor(clusters),
        n,
        generator=seeded(seed),
        candidates=torch.tensor(candidates),
        oversampling=oversampling,
    )
    rows = picks.indices.tolist()
    want = reference.cluster_margin(scores, clusters, n, candidates, oversampling, lambda left: left[0])
    # which row of a cluster it is, is random; whose turn it is, is not
    assert [clusters[row] for row in rows] == [clusters[row] for row in want]
    assert len(set(rows)) == n
    assert all(candidates[row] for row in rows)
    assert picks.scores.tolist() == [scores[row] for row in rows]
    margin_rows = top_n(
        torch.tensor(scores),
        min(sum(candidates), math.ceil(round(n * oversampling, 6))),
        candidates=torch.tensor(candidates),
    )
    assert set(rows) <= set(margin_rows.indices.tolist())


def test_rows_of_a_cluster_have_the_distribution_of_the_loop():
    scores = torch.arange(9.0)
    clusters = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])
    ours, theirs = Counter(), Counter()
    rng = random.Random(0)
    for seed in range(3000):
        picks = cluster_margin(scores, clusters, 5, generator=seeded(seed), oversampling=1.8)
        ours[tuple(picks.indices[[0, 3]].tolist())] += 1  # both of cluster 0
        ours[tuple(picks.indices[[1, 4]].tolist())] += 1  # the first two of the three in cluster 1
        want = reference.cluster_margin(scores.tolist(), clusters.tolist(), 5, [True] * 9, 1.8, rng.choice)
        theirs[want[0], want[3]] += 1
        theirs[want[1], want[4]] += 1
    assert ours.keys() == theirs.keys()
    assert len(ours) == 2 + 6
    table = [[counts[key] for key in sorted(ours)] for counts in (ours, theirs)]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_all_in_one_cluster_are_drawn_among_the_uncertain_and_each_its_own_are_too():
    scores = torch.arange(20.0)
    for clusters in (torch.zeros(20, dtype=torch.int64), torch.arange(20)):
        picks = cluster_margin(scores, clusters, 4, generator=seeded(), oversampling=2.0)
        assert set(picks.indices.tolist()) <= set(range(12, 20))
        assert len(picks.indices.unique()) == 4
        every = cluster_margin(scores, clusters, 20, generator=seeded())
        assert every.indices.sort().values.equal(torch.arange(20))
    assert picks.indices.tolist() == sorted(picks.indices.tolist())  # clusters of one row each, by number


def test_one_row_and_one_candidate():
    one = cluster_margin(torch.zeros(1), torch.zeros(1, dtype=torch.int64), 1, generator=seeded())
    assert one.indices.tolist() == [0]
    last = cluster_margin(
        torch.tensor([1.0, 0.0, math.nan]), torch.arange(3), 1, generator=seeded(), candidates=torch.arange(3) == 1
    )
    assert last.indices.tolist() == [1]


def test_half_precision_scores():
    picks = cluster_margin(torch.arange(8).half(), torch.arange(8) // 4, 2, generator=seeded(), oversampling=2.0)
    assert picks.scores.dtype == torch.float16
    assert set(picks.indices.tolist()) <= {4, 5, 6, 7}


def test_the_same_seed_the_same_picks():
    scores, clusters = torch.rand(300, generator=seeded()), torch.arange(300) % 7
    first, again, other = (cluster_margin(scores, clusters, 40, generator=seeded(s)).indices for s in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    cluster_margin(scores, clusters, 40, generator=seeded())
    assert torch.get_rng_state().equal(before)


ROWS = torch.zeros(3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("scores", "clusters", "n", "more", "error", "message"),
    [
        (torch.zeros(3), ROWS[:2], 1, {}, ShapeError, r"clusters must be \(3,\) int64 on cpu, got \(2,\)"),
        (torch.zeros(3), ROWS.int(), 1, {}, ShapeError, r"got \(3,\) torch.int32"),
        (torch.zeros(3), torch.tensor([0, -1, 0]), 1, {}, DataError, "clusters must be at least 0: 1 of 3 are not"),
        (torch.zeros(3), ROWS, 4, {}, BudgetError, "asked for 4 rows, 3 can be picked"),
        (torch.zeros(3), ROWS, 0, {}, BudgetError, "asked for 0 rows"),
        (torch.tensor([0.0, math.nan, 1.0]), ROWS, 1, {}, DataError, "1 of 3 candidates"),
        (torch.zeros(3, 1), ROWS, 1, {}, ShapeError, "scores must have 1 axes"),
        (torch.zeros(3), ROWS, 1, {"candidates": torch.ones(2) > 0}, ShapeError, r"candidates must have shape \(3,\)"),
        (torch.zeros(3), ROWS, 1, {"oversampling": 0.5}, ConfigError, "at least 1, got 0.5"),
        (torch.zeros(3), ROWS, 1, {"oversampling": math.inf}, ConfigError, "finite number of at least 1, got inf"),
        (torch.zeros(3), ROWS, 1, {"oversampling": True}, ConfigError, "got True"),
    ],
)
def test_refuses_what_it_cannot_use(scores, clusters, n, more, error, message):
    with pytest.raises(error, match=message):
        cluster_margin(scores, clusters, n, generator=seeded(), **more)


@pytest.mark.gpu
@pytest.mark.parametrize("generator_device", ["cpu", "cuda"])
def test_cuda_picks_the_same(generator_device):
    scores = torch.randint(50, (3000,), generator=seeded()).float()  # with ties
    clusters = torch.randint(90, (3000,), generator=seeded(1))
    candidates = torch.rand(3000, generator=seeded(2)) < 0.5
    want = cluster_margin(scores, clusters, 100, generator=seeded(), candidates=candidates)
    generator = torch.Generator(generator_device).manual_seed(0)
    found = cluster_margin(scores.cuda(), clusters.cuda(), 100, generator=generator, candidates=candidates.cuda())
    assert found.indices.is_cuda
    assert found.scores.is_cuda
    assert clusters[found.indices.cpu()].equal(clusters[want.indices])
    if generator_device == "cpu":
        assert found.indices.cpu().equal(want.indices)
        assert found.scores.cpu().equal(want.scores)
