import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import combine as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import combined
from torchal.engine.distances import ManhattanSpace, Space
from torchal.functional import combined_greedy, k_center_greedy, query_similarity, top_n

METRICS = ["euclidean", "cosine", "manhattan"]


@pytest.fixture(params=[4, 1024], ids=["tiny blocks", "usual blocks"])
def block_rows(request, monkeypatch):
    """With tiny blocks, small pools too go through every level of the engine."""
    monkeypatch.setattr(Space, "block_rows", request.param)
    monkeypatch.setattr(ManhattanSpace, "block_rows", request.param)
    monkeypatch.setattr(combined, "_ROWS", request.param)
    return request.param


def normal(n_rows, n_columns, seed=0, dtype=torch.float64):
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def one_of(*rows, n_rows):
    return torch.zeros(n_rows, dtype=torch.bool).index_fill_(0, torch.tensor(rows), True)


def test_by_hand():
    x = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    unsure, labeled = torch.tensor([9.0, 4.0, 2.0, 1.0]), one_of(0, n_rows=4)
    picks = combined_greedy(3, utilities=[unsure], strengths=[1.0], features=x, labeled=labeled)
    # 4 x 1, 2 x 5, 1 x 9; then 4 x 1, 1 x 4, of which the lower row is taken; then 1 x 4
    assert picks.indices.tolist() == [2, 1, 3]
    assert picks.scores.tolist() == [10, 4, 4]
    picks = combined_greedy(1, utilities=[unsure], strengths=[0.5], features=x, diversity=2.0, labeled=labeled)
    assert picks.indices.tolist() == [3]
    assert picks.scores.tolist() == [81]


def test_balance_by_hand():
    log_probs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], dtype=torch.float64).log()
    picks = combined_greedy(4, log_probs=log_probs, counts=torch.tensor([1, 0]))
    # needs are 1/4 and 1/2; then 1/4 both, of which rows 0, 1 and 3 have all; then 1/6 and 1/4; then 1/6 and 1/5
    assert picks.indices.tolist() == [2, 0, 3, 1]
    assert picks.scores.tolist() == pytest.approx([1 / 2, 1 / 4, (1 / 6 + 1 / 4) / 2, 1 / 7])


def test_balance_brings_picks_near_the_target():
    classes = torch.randint(0, 3, (3000,), generator=torch.Generator().manual_seed(0))
    log_probs = torch.nn.functional.one_hot(classes, 3).double().log()
    picks = combined_greedy(300, log_probs=log_probs, target=torch.tensor([3.0, 2.0, 1.0])).indices
    assert classes[picks].bincount().tolist() == [150, 100, 50]
    counts = torch.tensor([150, 0, 0])
    picks = combined_greedy(150, log_probs=log_probs, target=torch.tensor([3.0, 2.0, 1.0]), counts=counts).indices
    assert classes[picks].bincount(minlength=3).tolist() == [0, 100, 50]


@pytest.mark.parametrize("metric", METRICS)
def test_agrees_with_the_values_of_every_pick(metric, block_rows):
    @settings(max_examples=40, deadline=None)
    @given(st.data(), st.integers(0, 10**6))
    def check(data, seed):
        n_rows = data.draw(st.integers(1, 40))
        uses = data.draw(st.sets(st.sampled_from(["utility", "features", "log_probs"]), min_size=1))
        n_labeled = data.draw(st.integers(0, max(0, n_rows - 1)))
        labeled = torch.arange(n_rows) < n_labeled
        candidates = ~labeled & (torch.arange(n_rows) % 5 != 3)
        candidates[-1] = True
        x, utility = normal(n_rows, 3, seed), normal(n_rows, 1, seed + 1).squeeze(1).abs()
        log_probs = (2 * normal(n_rows, 3, seed + 2)).log_softmax(1)
        target, counts = torch.tensor([0.2, 0.0, 0.5]), torch.tensor([3, 1, 0])
        strengths = [data.draw(st.sampled_from([0.5, 1.0, 2.0])) for _ in range(3)]
        n = data.draw(st.integers(1, int(candidates.sum())))
        arguments = {}
        if "utility" in uses:
            arguments |= {"utilities": [utility], "strengths": strengths[:1]}
        if "features" in uses:
            arguments |= {"features": x, "diversity": strengths[1], "metric": metric}
        if "log_probs" in uses:
            arguments |= {"log_probs": log_probs, "balance": strengths[2], "target": target, "counts": counts}
        got = combined_greedy(n, labeled=labeled, candidates=candidates, chunk_rows=7, **arguments)
        made_of = {
            "fixed": utility.pow(strengths[0]).tolist() if "utility" in uses else [1.0] * n_rows,
            "rows": x.tolist() if "features" in uses else None,
            "diversity": strengths[1],
            "probs": log_probs.exp().tolist() if "log_probs" in uses else None,
            "balance": strengths[2],
            "target": target.tolist(),
            "counts": counts.tolist(),
            "labeled": labeled.tolist(),
            "metric": metric,
        }
        want, scores = reference.combined_greedy(n, candidates=candidates.tolist(), **made_of)
        assert got.indices.tolist() == want
        assert got.scores.tolist() == pytest.approx(scores, rel=1e-6, abs=1e-12)

    check()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("n_labeled", [0, 9])
def test_features_alone_are_k_center(metric, n_labeled, block_rows):
    x, labeled = normal(500, 6), torch.arange(500) < n_labeled
    want = k_center_greedy(x, 120, labeled=labeled, metric=metric)
    for chunk_rows in (None, 33):
        got = combined_greedy(120, features=x, labeled=labeled, metric=metric, chunk_rows=chunk_rows)
        assert got.indices.equal(want.indices)
        assert torch.allclose(got.scores, want.scores)


@pytest.mark.parametrize("metric", METRICS)
def test_one_utility_and_features_are_weighted_k_center(metric, block_rows):
    x, labeled = normal(300, 3, seed=3), one_of(7, 8, n_rows=300)
    unsure = torch.rand(300, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    want = k_center_greedy(x, 60, labeled=labeled, weights=unsure, metric=metric)
    got = combined_greedy(60, utilities=[unsure], strengths=[1.0], features=x, labeled=labeled, metric=metric)
    assert got.indices.equal(want.indices)
    torch.testing.assert_close(got.scores, want.scores, check_dtype=False)


def test_utilities_alone_are_the_top(block_rows):
    scores = torch.randint(0, 40, (700,), generator=torch.Generator().manual_seed(0)).double()  # with ties
    candidates = torch.arange(700) % 3 > 0
    want = top_n(scores, 400, candidates=candidates)
    got = combined_greedy(400, utilities=[scores], strengths=[1.0], candidates=candidates)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
    square = combined_greedy(400, utilities=[scores, scores], strengths=[0.5, 0.5], candidates=candidates)
    assert torch.allclose(square.scores, want.scores)


def test_strength_0_leaves_a_factor_out():
    x, u, log_probs = normal(60, 3), normal(60, 1).squeeze(1).abs(), normal(60, 3).log_softmax(1)
    want = combined_greedy(9, utilities=[u], strengths=[1.0])
    got = combined_greedy(
        9,
        utilities=[u, x[:, 0].abs()],
        strengths=[1.0, 0.0],
        features=x,
        diversity=0.0,
        log_probs=log_probs,
        balance=0.0,
    )
    assert got.indices.equal(want.indices)


def test_the_scale_of_a_factor_does_not_count():
    x, u, labeled = normal(300, 4, dtype=torch.float32), normal(300, 1).squeeze(1).abs(), torch.arange(300) < 3
    want = combined_greedy(50, utilities=[u], strengths=[1.0], features=x, labeled=labeled).indices
    for size in (1e-30, 1e30):
        got = combined_greedy(50, utilities=[u * size], strengths=[1.0], features=x * size, labeled=labeled).indices
        assert got.equal(want)


def test_half_precision_is_computed_in_single():
    x, u, labeled = normal(200, 4).half(), normal(200, 1).squeeze(1).abs().half(), torch.arange(200) < 3
    half = combined_greedy(40, utilities=[u], strengths=[1.0], features=x, labeled=labeled)
    single = combined_greedy(40, utilities=[u.float()], strengths=[1.0], features=x.float(), labeled=labeled)
    assert half.indices.equal(single.indices)
    assert half.scores.equal(single.scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("balanced", [False, True])
def test_of_equal_rows_the_lowest_comes_first(dtype, balanced, block_rows):
    x, u, log_probs = normal(150, 9, dtype=dtype) + 5, normal(150, 1).squeeze(1).abs(), normal(150, 3).log_softmax(1)
    place = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    twin = {int(a): int(b) for a, b in zip(place.argsort()[:150], place.argsort()[150:], strict=True)}
    twin |= {b: a for a, b in twin.items()}
    twice = [torch.cat([t, t])[place] for t in (x, u, log_probs)]
    start = int(place.argsort()[0])
    made_of = {"log_probs": twice[2]} if balanced else {}
    picks = combined_greedy(
        299, utilities=[twice[1]], strengths=[1.0], features=twice[0], labeled=one_of(start, n_rows=300), **made_of
    )
    assert all(row < twin[row] for row in picks.indices[:149].tolist())
    rest = picks.indices[149:].tolist()  # nothing but copies of centres is left
    assert rest == sorted(rest)
    assert picks.scores[149:].tolist() == [0] * 150


def test_of_equal_rows_the_one_worth_most_comes_first(block_rows):
    x = torch.full((60, 2), 0.3)
    x[:20] = 5.1
    worth = torch.arange(60.0)
    picks = combined_greedy(4, utilities=[worth], strengths=[1.0], features=x, labeled=one_of(0, n_rows=60))
    assert picks.indices.tolist() == [59, 1, 2, 3]


def test_rows_worth_nothing_come_last(block_rows):
    worth = (torch.arange(200) % 4 == 1).double()
    picks = combined_greedy(
        60, utilities=[worth], strengths=[2.0], features=normal(200, 3), labeled=one_of(0, n_rows=200)
    ).indices
    assert bool((picks[:50] % 4 == 1).all())
    assert picks[50:].tolist() == [2, 3, 4, 6, 7, 8, 10, 11, 12, 14]


@pytest.mark.parametrize("whole", [True, False])
def test_more_equal_rows_than_a_block_holds(whole, block_rows):
    kinds = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [3, 1, 0]]) + (0.0 if whole else 0.3)
    kind = torch.arange(4000) % 3
    kind[:2], kind[3999] = 0, 3
    picks = combined_greedy(8, features=kinds[kind], labeled=one_of(0, n_rows=4000)).indices.tolist()
    assert picks[0] == 3999
    assert sorted(picks[:3]) == [2, 4, 3999]
    assert picks[3:] == [1, 3, 5, 6, 7]


def test_probabilities_0_and_1_in_many_equal_rows(block_rows):
    log_probs = torch.eye(4, dtype=torch.float64)[torch.arange(4000) % 4].log()
    picks = combined_greedy(12, log_probs=log_probs)
    assert picks.indices.tolist() == list(range(12))
    assert picks.scores.tolist() == pytest.approx([1 / 4] * 4 + [1 / 8] * 4 + [1 / 12] * 4)


@pytest.mark.parametrize("n", [1, 2, 50])
def test_the_smallest_pools_and_all_rows(n):
    x, log_probs = normal(n, 2), normal(n, 2).log_softmax(1)
    picks = combined_greedy(n, utilities=[x[:, 0].abs()], strengths=[1.0], features=x, log_probs=log_probs).indices
    assert sorted(picks.tolist()) == list(range(n))
    last = combined_greedy(1, features=x, labeled=torch.arange(n) != n - 1).indices
    assert last.tolist() == [n - 1]


def test_reads_a_mapped_file(tmp_path):
    x, log_probs = normal(400, 5, dtype=torch.float32), normal(400, 3).log_softmax(1)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    want = combined_greedy(40, features=x, log_probs=log_probs)
    got = combined_greedy(40, features=mapped, log_probs=log_probs, chunk_rows=37)
    assert got.indices.equal(want.indices)


def test_what_is_given_stays_as_it_was():
    x, u, candidates = normal(90, 3), normal(90, 1).squeeze(1).abs(), torch.arange(90) > 4
    counts, target = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])
    given_before = [t.clone() for t in (x, u, candidates, counts, target)]
    log_probs = normal(90, 2).log_softmax(1)
    combined_greedy(
        9, utilities=[u], strengths=[1.0], features=x, log_probs=log_probs, candidates=candidates, counts=counts,
        target=target,
    )  # fmt: skip
    assert all(a.equal(b) for a, b in zip(given_before, (x, u, candidates, counts, target), strict=True))


U, X, P = torch.ones(4), torch.arange(8.0).view(4, 2) + 1, torch.full((4, 2), 0.5).log()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ShapeError, "nothing to choose by"),
        ({"features": X, "n": 5}, BudgetError, "asked for 5 rows, 4 can be picked"),
        ({"utilities": [U]}, ConfigError, "one strength for each of 1 utilities, got 0"),
        ({"utilities": [U], "strengths": [-1.0]}, ConfigError, "at least 0, got -1.0"),
        ({"utilities": [U], "strengths": "1"}, ConfigError, "list of numbers, got '1'"),
        ({"features": X, "diversity": math.nan}, ConfigError, "finite numbers of at least 0, got nan"),
        ({"log_probs": P, "balance": True}, ConfigError, "got True"),
        (
            {"utilities": [U - 2], "strengths": [1.0]},
            DataError,
            r"utilities\[0\] must be .* 4 of 4 candidates' are not",
        ),
        ({"utilities": [U * math.nan], "strengths": [1.0]}, DataError, "finite and at least 0"),
        ({"utilities": [U[:3]], "strengths": [1.0], "features": X}, ShapeError, r"got utilities\[0\] 3 rows on cpu"),
        ({"utilities": [X], "strengths": [1.0]}, ShapeError, "axes"),
        ({"log_probs": P.exp()}, DataError, "sums to"),
        ({"log_probs": P, "target": torch.ones(3)}, ShapeError, r"each of 2 classes, got \(3,\)"),
        ({"log_probs": P, "target": torch.zeros(2)}, DataError, "above 0 for at least one of 2"),
        ({"log_probs": P, "target": torch.tensor([1.0, -1.0])}, DataError, "target must not be negative"),
        ({"log_probs": P, "counts": torch.tensor([-1, 0])}, DataError, "counts must not be negative"),
        ({"log_probs": P, "counts": torch.tensor([math.inf, 0])}, DataError, "counts must be finite"),
        ({"features": X * math.nan}, DataError, "finite"),
        ({"features": X * 0, "metric": "cosine"}, DataError, "row 0 is all zeros"),
        ({"features": X, "metric": "hamming"}, ConfigError, "metric must be one of"),
        ({"features": X, "labeled": torch.ones(3, dtype=torch.bool)}, ShapeError, r"shape \(4,\)"),
    ],
)
def test_refuses_what_it_cannot_use(arguments, error, message):
    arguments = {"n": 1} | arguments
    with pytest.raises(error, match=message):
        combined_greedy(arguments.pop("n"), **arguments)


def test_similarity_to_queries():
    x = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [5.0, 0.0], [3.0, 3.0]])
    assert query_similarity(x, torch.tensor([0])).tolist() == pytest.approx([1, 0.5, 0, 1, (1 + 0.5**0.5) / 2])
    assert query_similarity(x, torch.tensor([1, 0])).tolist() == pytest.approx([1, 1, 0.5, 1, (1 + 0.5**0.5) / 2])
    with pytest.raises(ShapeError, match="at least one row"):
        query_similarity(x, torch.tensor([], dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"queries must lie in \[0, 5\)"):
        query_similarity(x, torch.tensor([5]))


@pytest.mark.gpu
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("n_labeled", [0, 5])
def test_cuda_picks_the_same(metric, n_labeled):
    x, u, log_probs = normal(3000, 6), normal(3000, 1).squeeze(1).abs(), normal(3000, 4).log_softmax(1)
    labeled, target = torch.arange(3000) < n_labeled, torch.tensor([1.0, 2.0, 3.0, 4.0])

    def picks(home, **more):
        return combined_greedy(
            200, utilities=[u.to(home)], strengths=[0.7], features=x.to(home), log_probs=log_probs.to(home),
            balance=0.5, target=target.to(home), labeled=labeled.to(home), metric=metric, **more,
        )  # fmt: skip

    want, found, streamed = picks("cpu"), picks("cuda"), picks("cpu", device="cuda")
    assert found.indices.is_cuda
    assert found.indices.cpu().equal(want.indices)
    assert torch.allclose(found.scores.cpu(), want.scores)
    assert streamed.indices.device.type == "cpu"
    assert streamed.indices.equal(want.indices)
    near = query_similarity(x.cuda(), torch.tensor([3]))
    assert torch.allclose(near.cpu(), query_similarity(x, torch.tensor([3])))
