import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import graph_cut as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import features as engine_features
from torchal.functional import graph_cut


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


# cosines: 1 in the first two rows, 0 with the third, -1 with the fourth
CROSS = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])


def test_by_hand():
    # shifted similarities to all rows: 1 + 1 + 0.5 + 0, the same, 0.5 + 0.5 + 1 + 0.5, 0 + 0 + 0.5 + 1
    picks = graph_cut(CROSS, 4, redundancy=0.5)
    assert picks.indices.tolist() == [0, 2, 1, 3]
    assert picks.scores.tolist() == pytest.approx([2.5 - 0.5, 2.5 - 0.5 - 0.5, 2.5 - 0.5 - 1.5, 1.5 - 0.5 - 0.5])
    picks = graph_cut(CROSS, 2, redundancy=0.25, similarity="cosine")
    assert picks.indices.tolist() == [0, 2]
    assert picks.scores.tolist() == pytest.approx([1 - 0.25, 1 - 0.25])


def test_labeled_rows_are_in_the_set():
    labeled = torch.arange(4) == 0
    picks = graph_cut(CROSS, 1, redundancy=0.5, labeled=labeled)
    assert picks.indices.tolist() == [2]
    assert picks.scores.tolist() == pytest.approx([1.5])
    only = torch.arange(4) == 3
    assert graph_cut(CROSS, 1, labeled=labeled, candidates=only).indices.tolist() == [3]


def test_without_redundancy_it_is_the_rows_most_like_all():
    x = normal(50, 3)
    scores = torch.as_tensor(reference.similarities(x).sum(0))
    picks = graph_cut(x, 50, redundancy=0)
    assert picks.indices.equal(scores.argsort(descending=True))
    assert torch.allclose(picks.scores, scores.sort(descending=True).values)


@settings(deadline=None, max_examples=40)
@given(
    n_rows=st.integers(1, 25),
    n_columns=st.integers(1, 5),
    n_labeled=st.integers(0, 8),
    n_left_out=st.integers(0, 3),
    redundancy=st.sampled_from([0.0, 0.3, 0.5, 4.0, "balanced"]),
    similarity=st.sampled_from(["cosine", "shifted_cosine"]),
    whole=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_definition(n_rows, n_columns, n_labeled, n_left_out, redundancy, similarity, whole, seed):
    x = normal(n_rows, n_columns, seed=seed)
    x = x.round() + (x.round() == 0).all(1, keepdim=True) if whole else x  # with equal rows
    order = torch.randperm(n_rows, generator=seeded(seed))
    n_labeled = min(n_labeled, n_rows - 1)
    labeled, candidates = torch.zeros(2, n_rows, dtype=torch.bool)
    labeled[order[:n_labeled]] = True
    candidates[order[n_labeled : max(n_labeled + 1, n_rows - n_left_out)]] = True
    n = int(torch.randint(1, int(candidates.sum()) + 1, (), generator=seeded(seed)))
    chosen = {"labeled": labeled, "candidates": candidates}
    picks = graph_cut(x, n, redundancy=redundancy, similarity=similarity, **chosen, chunk_rows=7)
    weight = n_rows / (2 * (n_labeled + n)) if redundancy == "balanced" else redundancy
    s = reference.similarities(x, similarity)
    rows, gains = reference.greedy(s, n, weight, labeled, candidates)
    tied = False
    at, now = labeled.nonzero().squeeze(1).tolist(), candidates.nonzero().squeeze(1).tolist()
    for row, score in zip(picks.indices.tolist(), picks.scores.tolist(), strict=True):
        before = reference.value(s, at, weight)
        after = [reference.value(s, [*at, other], weight) - before for other in now]
        assert max(after) == pytest.approx(score, abs=1e-9)
        assert after[now.index(row)] == pytest.approx(score, abs=1e-9)
        tied |= sum(gain > max(after) - 1e-8 for gain in after) > 1
        at, now = [*at, row], [other for other in now if other != row]
    if not tied:  # as equal rows are, and at a redundancy of 0.5 the last two of all: there rounding decides
        assert picks.indices.tolist() == rows
        assert picks.scores.tolist() == pytest.approx(gains, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_submodular_and_monotone_up_to_a_half(seed):
    s = reference.similarities(normal(6, 2, seed=seed))
    sets = [set(rows) for size in range(6) for rows in itertools.combinations(range(6), size)]
    for redundancy in (0.3, 0.5, 2.0):
        gain = {
            (frozenset(rows), row): reference.value(s, [*rows, row], redundancy) - reference.value(s, rows, redundancy)
            for rows in sets
            for row in set(range(6)) - rows
        }
        for (rows, row), one in gain.items():
            assert one >= -1e-9 or redundancy > 0.5
            for other in set(range(6)) - rows - {row}:
                assert gain[rows | {other}, row] <= one + 1e-9
    best = max(reference.value(s, rows, 0.5) for rows in itertools.combinations(range(6), 3))
    found = float(graph_cut(normal(6, 2, seed=seed), 3, redundancy=0.5).scores.sum())
    assert (1 - 1 / math.e) * best <= found <= best + 1e-9


def test_balanced_picks_are_those_nearest_to_the_mean_of_the_pool():
    # two clusters, of 30 and of 10 rows: three picks of four are in the larger
    x = torch.cat([normal(30, 8, seed=1), normal(10, 8, seed=2)]) * 0.1
    x[:30, 0] += 1
    x[30:, 1] += 1
    assert int((graph_cut(x, 20).indices < 30).sum()) == 15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_go_in_order(dtype):
    assert graph_cut(torch.full((300, 3), 0.1, dtype=dtype), 20).indices.tolist() == list(range(20))
    picks = graph_cut(normal(40, 7, dtype=dtype).repeat(6, 1), 240).indices
    for row in range(40):
        assert picks[picks % 40 == row].tolist() == [row + 40 * i for i in range(6)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_size_of_features_does_not_count(size, dtype):
    x = normal(60, 4, dtype=dtype)
    want = graph_cut(x, 30)
    got = graph_cut(x * size, 30)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores, want.scores, rtol=1e-4, atol=1e-4)
    x[7] *= size
    assert graph_cut(x, 30).indices.equal(want.indices)


@pytest.mark.parametrize("size", [1e-310, 1e308])
@pytest.mark.parametrize("similarity", ["cosine", "shifted_cosine"])
def test_numbers_at_the_ends_of_float64(size, similarity):
    x = normal(60, 4)
    want = graph_cut(x, 30, similarity=similarity, labeled=torch.arange(60) < 3)
    for step in (1, 2):
        scaled = x.clone()
        scaled[::step] *= size / 9
        got = graph_cut(scaled, 30, similarity=similarity, labeled=torch.arange(60) < 3, chunk_rows=7)
        assert got.indices.equal(want.indices)
        assert torch.allclose(got.scores, want.scores)


def test_a_row_of_zeros_is_like_nothing():
    # cosines of the rows with all rows, themselves included: 1, 0 and 0; less 1/4 of those with themselves: 1, 0, 1
    x = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    picks = graph_cut(x, 4, redundancy=0.25, similarity="cosine")
    assert picks.indices.tolist() == [0, 3, 1, 2]
    assert picks.scores.tolist() == [0.75, 0.75, 0.0, 0.0]
    # shifted, to all: 1 + 0.5 x 3, 0.5 x 4; with itself 1, 0.5; with each pick 0.5
    picks = graph_cut(x, 4, redundancy=0.25)
    assert picks.indices.tolist() == [0, 3, 1, 2]
    assert picks.scores.tolist() == pytest.approx([2.5 - 0.25, 2.5 - 0.5, 2 - 0.125 - 0.5, 2 - 0.125 - 0.75])
    assert graph_cut(torch.zeros(3, 2), 3).indices.tolist() == [0, 1, 2]
    for size in (1e-310, 1e-30, 1e308 / 5):
        assert graph_cut(x * size, 4, redundancy=0.25).indices.equal(picks.indices)


def test_half_precision():
    x = normal(60, 4, dtype=torch.float16)
    assert graph_cut(x, 10).indices.equal(graph_cut(x.double(), 10).indices)


def test_every_candidate_and_one_row():
    x = normal(30, 4)
    assert graph_cut(x, 30).indices.sort().values.tolist() == list(range(30))
    assert graph_cut(x, 1, labeled=torch.arange(30) != 7).indices.tolist() == [7]
    assert graph_cut(x[:1], 1, redundancy=0.25).scores.tolist() == [0.75]


def test_chunks_do_not_change_the_picks(monkeypatch):
    x = normal(500, 6)
    want = graph_cut(x, 60)
    assert graph_cut(x, 60, chunk_rows=7).indices.equal(want.indices)
    monkeypatch.setattr(engine_features, "values_per_chunk", lambda _: 64)
    assert graph_cut(x, 60).indices.equal(want.indices)


def test_files(tmp_path):
    x = normal(3000, 6, dtype=torch.float32)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert graph_cut(mapped, 20).indices.equal(graph_cut(x, 20).indices)


FEATURES = normal(10, 4)


@pytest.mark.parametrize(
    ("n", "changed", "error", "match"),
    [
        (0, {}, BudgetError, "asked for 0 rows"),
        (11, {}, BudgetError, "asked for 11 rows, 10 can be picked"),
        (3, {"candidates": torch.arange(10) < 2}, BudgetError, "asked for 3 rows, 2 can be picked"),
        (1, {"labeled": torch.ones(9).bool()}, ShapeError, r"labeled must have shape \(10,\)"),
        (1, {"redundancy": -1.0}, ConfigError, "redundancy must be 'balanced' or a finite number of at least 0"),
        (1, {"redundancy": torch.inf}, ConfigError, "redundancy must be 'balanced' or a finite number of at least 0"),
        (1, {"redundancy": True}, ConfigError, "got True"),
        (1, {"redundancy": "fair"}, ConfigError, "got 'fair'"),
        (1, {"similarity": "rbf"}, ConfigError, "similarity must be one of cosine, shifted_cosine, got 'rbf'"),
        (1, {"chunk_rows": 0}, ConfigError, "chunk_rows"),
        (1, {"features": FEATURES[0]}, ShapeError, "features must have 2 axes"),
        (1, {"features": FEATURES.cfloat()}, ShapeError, "features must be real numbers"),
        (1, {"features": FEATURES[:0]}, DataError, "features has no rows"),
        (1, {"features": FEATURES.index_fill(0, torch.tensor(7), torch.nan)}, DataError, "the first is row 7"),
        (1, {"features": FEATURES.index_fill(0, torch.tensor(7), torch.inf)}, DataError, "the first is row 7"),
    ],
)
def test_bad_input(n, changed, error, match):
    chosen = {"features": FEATURES} | changed
    with pytest.raises(error, match=match):
        graph_cut(chosen.pop("features"), n, **chosen)


@pytest.mark.gpu
@pytest.mark.parametrize("similarity", ["cosine", "shifted_cosine"])
def test_the_same_picks_on_a_gpu(similarity):
    x, labeled = normal(2000, 8), torch.arange(2000) < 30
    want = graph_cut(x, 100, similarity=similarity, labeled=labeled)
    got = graph_cut(x.to("cuda"), 100, similarity=similarity, labeled=labeled.to("cuda"))
    assert got.indices.is_cuda
    assert got.indices.cpu().equal(want.indices)
    assert torch.allclose(got.scores.cpu(), want.scores)
    assert graph_cut(x, 100, similarity=similarity, labeled=labeled, device="cuda").indices.equal(want.indices)
