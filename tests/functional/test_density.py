import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import density as reference
from tests.references import neighbors as nearest
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.functional import density, density_graph, graph_density, graph_density_greedy, subtract_picks

LINE = torch.tensor([[0.0], [1.0], [3.0], [7.0]])


def edges_of(graph):
    dense = graph.to_dense()
    return {(i, j): float(dense[i, j]) for i, j in dense.nonzero().tolist()}


def test_by_hand():
    # nearest: 0-1, 1-0, 2-1, 3-2, so the edges are 0-1, 1-2 and 2-3
    graph = density_graph(LINE, 1)
    a, b, c = math.exp(-1), math.exp(-2), math.exp(-4)
    want = {(0, 1): a, (1, 0): a, (1, 2): b, (2, 1): b, (2, 3): c, (3, 2): c}
    assert edges_of(graph) == pytest.approx(want)
    values = graph_density(graph)
    assert values.tolist() == pytest.approx([a, (a + b) / 2, (b + c) / 2, c])
    picks = graph_density_greedy(graph, 4)
    # 0 goes first and takes a off row 1; row 2 takes its own off rows 1 and 3; then row 3, negative, raises row 2
    assert picks.indices.tolist() == [0, 2, 3, 1]
    assert picks.scores.tolist() == pytest.approx([a, (b + c) / 2, c - (b + c) / 2, (a + b) / 2 - a - (b + c) / 2])
    left = subtract_picks(graph, values, torch.tensor([0, 2]))
    assert left.tolist() == pytest.approx([a, (a + b) / 2 - a - (b + c) / 2, (b + c) / 2, c - (b + c) / 2])


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(2, 20), st.integers(1, 3)).flatmap(
        lambda shape: st.tuples(
            hnp.arrays(np.float64, shape, elements=st.floats(-8, 8, width=16)),
            hnp.arrays(np.bool_, shape[0]),
            st.integers(1, min(4, shape[0] - 1)),
        )
    )
)
def test_agrees_with_the_reference(case):
    features, candidates, k = case
    candidates[0] = True
    n_rows, n = len(features), int(candidates.sum())
    # rows that are equally far at the k-th place may be chosen either way, so there must be none
    values = nearest.distances(features, "manhattan")
    apart = all(len({v for j, v in enumerate(row) if j != i}) == n_rows - 1 for i, row in enumerate(values))
    graph = density_graph(torch.from_numpy(features), k)
    edges = edges_of(graph)
    if apart:
        want = reference.graph(nearest.knn(nearest.distances(features, "manhattan"), k), features.shape[1])
        assert edges == pytest.approx(want)
    assert all(i != j and edges[j, i] == weight for (i, j), weight in edges.items())
    start = graph_density(graph)
    assert start.tolist() == pytest.approx(reference.density(edges, n_rows))
    picks = graph_density_greedy(graph, n, candidates=torch.from_numpy(candidates))
    picked, scores, left = reference.greedy(edges, start.tolist(), n, candidates)
    assert picks.indices.tolist() == picked
    assert picks.scores.tolist() == pytest.approx(scores)
    assert subtract_picks(graph, start, picks.indices).tolist() == pytest.approx(left)
    masked = density._pick_masked(graph, torch.where(torch.from_numpy(candidates), start, -torch.inf), n)
    assert masked.indices.equal(picks.indices)
    assert masked.scores.equal(picks.scores)


def test_ties_go_to_the_lowest_row():
    square = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    graph = density_graph(square, 2)
    assert graph_density_greedy(graph, 2, candidates=torch.arange(4) > 0).indices.tolist() == [1, 2]


def test_a_weight_that_vanishes_is_no_edge():
    graph = density_graph(torch.tensor([[0.0], [1.0], [1e6], [1e6 + 1]]), 2)
    assert set(edges_of(graph)) == {(0, 1), (1, 0), (2, 3), (3, 2)}
    with pytest.warns(UserWarning, match=r"3 of 3 rows are so far from all others .*Bring the features to"):
        alone = density_graph(torch.tensor([[0.0], [1e6], [3e6]]), 1)
    assert graph_density(alone).tolist() == [0.0, 0.0, 0.0]
    assert graph_density_greedy(alone, 3).indices.tolist() == [0, 1, 2]
    assert density._pick_masked(alone, graph_density(alone), 3).indices.tolist() == [0, 1, 2]


def test_given_values_count_and_are_left_alone():
    graph = density_graph(LINE, 1)
    values = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    assert graph_density_greedy(graph, 2, values=values).indices.tolist() == [3, 0]
    assert values.tolist() == [0, 0, 0, 1]


def test_duplicates_are_neighbours():
    graph = density_graph(torch.ones(5, 2), 2)
    assert set(edges_of(graph).values()) == {1.0}
    assert graph_density_greedy(graph, 5).indices.sort().values.tolist() == [0, 1, 2, 3, 4]


GRAPH = density_graph(LINE, 1)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: density_graph(LINE, 4), ConfigError, "4 neighbours of each row need at least 5 rows, features has 4"),
        (lambda: density_graph(LINE / 0, 1), DataError, "finite"),
        (lambda: graph_density(LINE), ShapeError, "sparse CSR tensor, got torch.strided of shape"),
        (lambda: graph_density_greedy(GRAPH, 0), BudgetError, "asked for 0 rows, 4 can be picked"),
        (lambda: graph_density_greedy(GRAPH, 5), BudgetError, "asked for 5 rows, 4 can be picked"),
        (lambda: graph_density_greedy(GRAPH, 1, candidates=torch.ones(3).bool()), ShapeError, "candidates"),
        (lambda: graph_density_greedy(GRAPH, 1, values=torch.ones(3)), ShapeError, r"values must have shape \(4,\)"),
        (lambda: graph_density_greedy(GRAPH, 1, values=torch.ones(4) / 0), DataError, "values must be finite"),
        (lambda: subtract_picks(GRAPH, torch.ones(4), torch.tensor([4])), ShapeError, r"lie in \[0, 4\)"),
        (lambda: subtract_picks(GRAPH, torch.ones(4), torch.tensor([1, 1])), ShapeError, "distinct"),
    ],
)
def test_bad_input(call, error, match):
    with pytest.raises(error, match=match):
        call()


@pytest.mark.gpu
def test_cuda_picks_the_same():
    x = torch.randn(3000, 8, generator=torch.Generator().manual_seed(0))
    here, there = density_graph(x), density_graph(x.cuda())
    assert torch.equal(here.col_indices(), there.col_indices().cpu())
    assert graph_density_greedy(there, 100).indices.cpu().equal(graph_density_greedy(here, 100).indices)


@pytest.mark.gpu
def test_cuda_takes_picks_off_and_leaves_rows_out_as_the_cpu_does():
    x = torch.randn(800, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    here, there = density_graph(x, 5), density_graph(x.cuda(), 5)
    values = graph_density(here)
    assert graph_density(there).is_cuda
    torch.testing.assert_close(graph_density(there).cpu(), values, rtol=1e-12, atol=0)
    candidates, rows = torch.arange(800) % 3 > 0, torch.arange(0, 90, 9)
    left, there_left = subtract_picks(here, values, rows), subtract_picks(there, values.cuda(), rows.cuda())
    torch.testing.assert_close(there_left.cpu(), left, rtol=1e-12, atol=1e-12)
    want = graph_density_greedy(here, 60, values=left, candidates=candidates)
    found = graph_density_greedy(there, 60, values=there_left, candidates=candidates.cuda())
    assert found.indices.cpu().equal(want.indices)
    torch.testing.assert_close(found.scores.cpu(), want.scores, rtol=1e-9, atol=1e-12)
    computed_there = density_graph(x, 5, device="cuda", chunk_rows=300)
    assert computed_there.device.type == "cpu"
    assert computed_there.col_indices().equal(here.col_indices())
