import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import representatives as reference
from torchal import BudgetError, DataError, ShapeError
from torchal.engine.distances import unit_rows
from torchal.functional import cluster_representatives, kmeans, representatives


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n_rows, n_columns, seed=0, dtype=torch.float64):
    return torch.randn(n_rows, n_columns, generator=seeded(seed), dtype=dtype)


def pick(x, n, *, wanted=None, scores=None, **rest):
    wanted = torch.ones(len(x), dtype=torch.bool) if wanted is None else wanted
    scores = torch.zeros(len(x)) if scores is None else scores
    rest.setdefault("generator", seeded())
    return cluster_representatives(x, n, wanted=wanted, scores=scores, **rest)


def test_the_middle_of_each_direction():
    x = torch.tensor([[1.0, 0.0], [200.0, 20.0], [1.0, 0.2], [0.0, 3.0], [0.001, 0.01], [20.0, 100.0]])
    picked = pick(x, 2, scores=torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))
    assert picked.indices.tolist() == [4, 1]
    assert picked.scores.tolist() == [4.0, 1.0]


@settings(deadline=None)
@given(data=st.data(), n_rows=st.integers(1, 14))
def test_agrees_with_the_loop_for_the_same_clusters(data, n_rows):
    x = normal(n_rows, 3, seed=data.draw(st.integers(0, 1000)))
    booleans = st.lists(st.booleans(), min_size=n_rows, max_size=n_rows)
    wanted, candidates = data.draw(booleans), data.draw(booleans.filter(any))
    scores = data.draw(st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 2.0]), min_size=n_rows, max_size=n_rows))
    n = data.draw(st.integers(1, sum(candidates)))
    rows = [row for row in range(n_rows) if wanted[row] and candidates[row]]
    chosen = rows
    if len(rows) > n:
        units = torch.tensor([reference.unit(x[row].tolist()) for row in rows], dtype=x.dtype)
        clusters = kmeans(unit_rows(x[rows]), n, generator=seeded(), max_iterations=20)
        members = reference.nearest_members(units, clusters.assignments, clusters.centers)
        chosen = [rows[i] for i in members]
    picked = pick(
        x,
        n,
        wanted=torch.tensor(wanted),
        scores=torch.tensor(scores),
        candidates=torch.tensor(candidates),
    )
    expected = reference.filled(chosen, scores, candidates, n)
    assert len(set(picked.indices.tolist())) == n
    # two members are equally far from their mean up to rounding, so clusters of two may differ
    if len(rows) <= n or clusters.assignments.bincount(minlength=n).ne(2).all():
        assert picked.indices.tolist() == expected
        assert picked.scores.tolist() == [scores[row] for row in expected]


def test_a_row_near_the_mean_of_another_cluster_does_not_stand_for_both():
    clusters = kmeans(torch.tensor([[0.0], [10.0], [11.0], [20.0]]), 2, generator=seeded())._replace(
        centers=torch.tensor([[10.0], [13.0]]), assignments=torch.tensor([0, 1, 1, 1])
    )
    x = torch.tensor([[0.0], [10.0], [11.0], [20.0]])
    assert representatives._nearest_members(x, clusters).tolist() == [0, 2]


def test_fewer_wanted_rows_than_picks_are_all_picked_and_filled_by_score():
    wanted = torch.tensor([False, True, False, False, False])
    scores = torch.tensor([0.0, -5.0, 2.0, 2.0, 1.0])
    assert pick(normal(5, 2), 3, wanted=wanted, scores=scores).indices.tolist() == [2, 3, 1]
    candidates = torch.tensor([True, True, False, True, False])
    assert pick(normal(5, 2), 3, wanted=wanted, scores=scores, candidates=candidates).indices.tolist() == [3, 0, 1]


@pytest.mark.parametrize("row", [[1.0, 2.0], [0.0, 0.0]])
def test_equal_rows_are_distinct_picks(row):
    picked = pick(torch.tensor([row] * 7), 4, scores=torch.tensor([0.0, 0, 0, 3, 2, 1, 0]))
    assert sorted(picked.indices.tolist()) == [0, 3, 4, 5]


def test_all_candidates_and_one_row():
    assert pick(normal(6, 2), 6).indices.tolist() == [0, 1, 2, 3, 4, 5]
    assert pick(normal(1, 2), 1).indices.tolist() == [0]


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_size_of_features_does_not_count(size):
    x = normal(40, 3, dtype=torch.float32)
    assert pick(x * size, 7).indices.sort().values.equal(pick(x, 7).indices.sort().values)


def test_half_precision_and_chunks(monkeypatch):
    x = normal(300, 8).half()
    want = pick(x.float(), 9).indices
    assert pick(x, 9).indices.equal(want)
    monkeypatch.setattr(representatives, "values_per_chunk", lambda _: 20)
    assert pick(x, 9).indices.equal(want)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 7}, BudgetError, "asked for 7 rows, 6 can"),
        ({"scores": torch.zeros(5)}, ShapeError, r"scores must be \(6,\)"),
        ({"wanted": torch.zeros(6)}, ShapeError, "wanted must be a bool"),
        ({"candidates": torch.zeros(5, dtype=torch.bool)}, ShapeError, r"candidates must have shape \(6,\)"),
        ({"features": torch.zeros(6, dtype=torch.int64)}, ShapeError, "features"),
        ({"features": torch.full((6, 1), math.nan)}, DataError, "finite"),
        ({"scores": torch.full((6,), math.nan)}, DataError, "NaN"),
    ],
)
def test_refuses_what_it_cannot_use(change, error, message):
    arguments = {"features": torch.rand(6, 2), "n": 2} | change
    with pytest.raises(error, match=message):
        pick(arguments.pop("features"), arguments.pop("n"), **arguments)


@pytest.mark.gpu
def test_cuda_picks_the_same():
    x, scores = normal(1500, 6), torch.rand(1500, generator=seeded(1))
    wanted, candidates = torch.rand(1500, generator=seeded(2)) < 0.4, torch.rand(1500, generator=seeded(3)) < 0.8
    want = pick(x, 20, wanted=wanted, scores=scores, candidates=candidates)
    found = pick(x.cuda(), 20, wanted=wanted.cuda(), scores=scores.cuda(), candidates=candidates.cuda())
    assert found.indices.is_cuda
    assert found.indices.cpu().equal(want.indices)
    there = torch.Generator("cuda").manual_seed(0)
    whole = pick(x.cuda(), 20, wanted=wanted.cuda(), scores=scores.cuda(), generator=there)
    assert len(whole.indices.unique()) == 20
