import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import margin_clusters as reference
from torchal.errors import BudgetError, DataError, ShapeError
from torchal.functional import inside_margin, kmeans, margin_cluster_mean, margin_clusters, nearest_rows, top_n

VALUES = st.sampled_from([-math.inf, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, math.inf])
GRID = st.integers(-3, 3).map(float)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@given(data=st.data(), n_rows=st.integers(1, 12), n_columns=st.integers(1, 4))
def test_inside_agrees_with_the_loop(data, n_rows, n_columns):
    values = data.draw(
        st.lists(st.lists(VALUES, min_size=n_columns, max_size=n_columns), min_size=n_rows, max_size=n_rows)
    )
    labeled = data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows).filter(any))
    found = inside_margin(torch.tensor(values), labeled=torch.tensor(labeled))
    assert found.tolist() == reference.inside(values, labeled)


def test_inside_in_chunks(monkeypatch):
    values, labeled = torch.randn(50, 3, generator=seeded()), torch.arange(50) % 7 == 0
    whole, unit = inside_margin(values, labeled=labeled), inside_margin(values)
    monkeypatch.setattr(margin_clusters, "values_per_chunk", lambda _: 10)
    assert inside_margin(values, labeled=labeled).equal(whole)
    assert inside_margin(values).equal(unit)
    assert unit.equal((values.abs() < 1).any(1))


def test_nothing_labeled_leaves_every_finite_row_inside():
    values = torch.tensor([[3.0], [math.inf]])
    assert inside_margin(values, labeled=torch.zeros(2, dtype=torch.bool)).tolist() == [True, False]


def test_inside_names_the_row_that_is_nan():
    with pytest.raises(DataError, match="row 2"):
        inside_margin(torch.tensor([[0.0], [1.0], [math.nan]]))


@settings(deadline=None)
@given(data=st.data(), shape=st.tuples(st.integers(1, 12), st.integers(1, 3)), k=st.integers(1, 5))
def test_nearest_rows_agree_with_exact_fractions(data, shape, k):
    # a grid: ties and copies everywhere
    features = data.draw(hnp.arrays("float32", shape, elements=GRID))
    centers = data.draw(hnp.arrays("float32", (k, shape[1]), elements=GRID.map(lambda x: x / 2)))
    found = nearest_rows(torch.from_numpy(features), torch.from_numpy(centers), chunk_rows=3)
    assert found.tolist() == reference.nearest_rows(features, centers)


def test_nearest_rows_do_not_depend_on_chunks_and_take_the_first_of_copies():
    x = torch.randn(300, 40, generator=seeded()) + 50
    x = torch.cat([x, x])
    centers = x[:20] + 0.01 * torch.randn(20, 40, generator=seeded(1))
    for chunk_rows in (1, 7, 64, None):
        assert nearest_rows(x, centers, chunk_rows=chunk_rows).equal(torch.arange(20))


@pytest.mark.parametrize(
    ("centers", "error"),
    [(torch.zeros(0, 2), ShapeError), (torch.zeros(1, 3), ShapeError), (torch.full((1, 2), math.nan), DataError)],
)
def test_nearest_rows_refuse_other_centers(centers, error):
    with pytest.raises(error, match="centers"):
        nearest_rows(torch.zeros(3, 2), centers)


@settings(deadline=None)
@given(data=st.data(), n_rows=st.integers(2, 14))
def test_the_picks_agree_with_the_loop_for_the_same_centers(data, n_rows):
    features = torch.tensor(
        data.draw(st.lists(st.lists(GRID, min_size=2, max_size=2), min_size=n_rows, max_size=n_rows))
    )
    uncertainty = data.draw(st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0]), min_size=n_rows, max_size=n_rows))
    inside = data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows))
    candidates = data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows).filter(any))
    n = data.draw(st.integers(1, sum(candidates)))
    both = torch.tensor(inside) & torch.tensor(candidates)
    centers = []
    if int(both.sum()) >= n:
        centers = kmeans(features[both], n, generator=seeded(), max_iterations=20).centers.tolist()
    picked = margin_cluster_mean(
        features,
        n,
        uncertainty=torch.tensor(uncertainty),
        inside=torch.tensor(inside),
        candidates=torch.tensor(candidates),
        generator=seeded(),
    )
    expected = reference.cluster_mean(features.tolist(), centers, n, uncertainty, inside, candidates)
    assert picked.indices.tolist() == expected
    assert picked.scores.tolist() == [uncertainty[row] for row in expected]


def test_fewer_inside_than_the_batch_is_the_batch_of_uncertainty():
    uncertainty = -torch.rand(20, generator=seeded())
    inside = torch.arange(20) < 3
    picked = margin_cluster_mean(
        torch.randn(20, 2, generator=seeded()), 4, uncertainty=uncertainty, inside=inside, generator=seeded()
    )
    assert picked.indices.equal(top_n(uncertainty, 4).indices)


def test_fewer_distinct_rows_than_clusters_are_filled_by_uncertainty():
    x = torch.tensor([[0.0], [0.0], [0.0], [5.0], [5.0], [5.0]])
    uncertainty = torch.tensor([-0.3, -0.1, -0.2, -0.6, -0.5, -0.4])
    inside = torch.ones(6, dtype=torch.bool)
    picked = margin_cluster_mean(x, 4, uncertainty=uncertainty, inside=inside, generator=seeded())
    # the first rows of the two kinds, 0 and 3, and the two most uncertain others, 1 and 2
    assert picked.indices.tolist() == [1, 2, 0, 3]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 7}, BudgetError, "asked for 7 rows, 6 can"),
        ({"uncertainty": torch.zeros(5)}, ShapeError, r"uncertainty must be \(6,\)"),
        ({"inside": torch.zeros(6)}, ShapeError, "inside must be a bool"),
        ({"features": torch.zeros(6, dtype=torch.int64)}, ShapeError, "features"),
        ({"features": torch.full((6, 1), math.nan)}, DataError, "finite"),
    ],
)
def test_refuses_what_it_cannot_use(change, error, message):
    arguments = {
        "features": torch.rand(6, 2),
        "n": 2,
        "uncertainty": torch.zeros(6),
        "inside": torch.ones(6, dtype=torch.bool),
    } | change
    with pytest.raises(error, match=message):
        margin_cluster_mean(arguments.pop("features"), arguments.pop("n"), generator=seeded(), **arguments)


@pytest.mark.gpu
def test_cuda_finds_the_same_rows_inside():
    values = torch.randn(2000, 3, generator=seeded(), dtype=torch.float64)
    labeled = torch.arange(2000) % 97 == 0
    for mask in (None, labeled, torch.zeros_like(labeled)):
        found = inside_margin(values.cuda(), labeled=None if mask is None else mask.cuda())
        assert found.is_cuda
        assert found.cpu().equal(inside_margin(values, labeled=mask))
    with pytest.raises(ShapeError, match="labeled must be on cuda:0, got cpu"):
        inside_margin(values.cuda(), labeled=labeled)


@pytest.mark.gpu
@pytest.mark.parametrize("share", [0.5, 0.001], ids=["clusters", "too few inside"])
def test_cuda_picks_the_same(share):
    x = torch.randn(1500, 6, generator=seeded(), dtype=torch.float64)
    uncertainty = torch.rand(1500, generator=seeded(1), dtype=torch.float64)
    inside, candidates = torch.rand(1500, generator=seeded(2)) < share, torch.rand(1500, generator=seeded(3)) < 0.8
    want = margin_cluster_mean(
        x, 20, uncertainty=uncertainty, inside=inside, candidates=candidates, generator=seeded(4)
    )
    found = margin_cluster_mean(
        x.cuda(),
        20,
        uncertainty=uncertainty.cuda(),
        inside=inside.cuda(),
        candidates=candidates.cuda(),
        generator=seeded(4),
    )
    assert found.indices.is_cuda
    assert found.indices.cpu().equal(want.indices)
    assert found.scores.cpu().equal(want.scores)
    whole = margin_cluster_mean(
        x.cuda(), 20, uncertainty=uncertainty.cuda(), inside=inside.cuda(), generator=torch.Generator("cuda")
    )
    assert len(whole.indices.unique()) == 20
