"""K-center by parts: the picks of a plain greedy in two steps, and a radius and a bound that hold."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import parts_of, run_ranks
from tests.references.k_center import best_radius
from tests.references.k_center import k_center_by_parts as reference
from torchal import BudgetError, ConfigError, DataError, FileRows, ShapeError
from torchal.errors import GroupError
from torchal.functional import PartsCover, k_center_by_parts, k_center_greedy

METRICS = ("euclidean", "cosine", "manhattan")
metrics = pytest.mark.parametrize("metric", METRICS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(n_rows, n_columns, seed):
    """Return whole numbers, no row of which is all 0."""
    x = torch.randint(-3, 4, (n_rows, n_columns), generator=seeded(seed)).float()
    x[(x == 0).all(1), 0] = 1
    return x


def some_masks(n_rows, seed):
    draw = torch.rand(n_rows, generator=seeded(seed))
    labeled, candidates = draw < 0.15, draw > 0.3
    labeled[0], candidates[0] = True, False
    labeled[1], candidates[1] = False, True
    return labeled, candidates


@metrics
@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 40), st.integers(1, 3), st.integers(0, 99))
def test_picks_are_those_of_a_plain_greedy_in_two_steps(metric, data, n_rows, n_columns, seed):
    x, (labeled, candidates) = drawn(n_rows, n_columns, seed), some_masks(n_rows, seed)
    n = data.draw(st.integers(1, int(candidates.sum())))
    part_rows = data.draw(st.integers(n + 1, n_rows + 2))
    found = k_center_by_parts(x, n, labeled=labeled, candidates=candidates, part_rows=part_rows, metric=metric)
    parts = [slice(begin, begin + part_rows) for begin in range(0, n_rows, part_rows)]
    assert found.indices.tolist() == reference(x.tolist(), n, labeled, candidates, metric, parts)


def all_distances(x, metric):
    x = x.double().numpy()
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return 1 - x @ x.T
    difference = x[:, None] - x
    return np.abs(difference).sum(2) if metric == "manhattan" else np.sqrt((difference**2).sum(2))


@metrics
@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(3, 9), st.integers(1, 2), st.integers(0, 9999), st.booleans())
def test_radius_and_bound_hold(metric, data, n_rows, n_columns, seed, any_labeled):
    x, (labeled, candidates) = drawn(n_rows, n_columns, seed), some_masks(n_rows, seed)
    labeled &= any_labeled
    n = data.draw(st.integers(1, min(3, int(candidates.sum()))))
    part_rows = data.draw(st.integers(n + 1, n_rows))
    found = k_center_by_parts(x, n, labeled=labeled, candidates=candidates, part_rows=part_rows, metric=metric)
    distances, among = all_distances(x, metric), candidates.nonzero().squeeze(1).tolist()
    known = labeled.nonzero().squeeze(1).tolist()
    best = best_radius(distances, n, labeled=known, among=among)
    reached = distances[np.ix_(among, [*known, *found.indices.tolist()])].min(1).max()
    rounding = 1e-5 * (1 + best)
    assert float(found.bound) <= best + rounding
    assert best - rounding <= reached <= float(found.radius) + rounding
    assert float(found.radius) <= (16 if metric == "cosine" else 4) * float(found.bound) + rounding


@metrics
def test_one_part_is_k_center_greedy(metric):
    x = torch.randn(500, 6, generator=seeded(1))
    labeled = torch.arange(500) < 3
    found = k_center_by_parts(x, 40, labeled=labeled, metric=metric)
    exact = k_center_greedy(x, 41, labeled=labeled, metric=metric)
    assert isinstance(found, PartsCover)
    assert found.indices.equal(exact.indices[:40])
    assert found.scores.equal(exact.scores[:40])
    assert found.radius == exact.scores[40]


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(2, 60), st.integers(0, 99), st.booleans())
def test_ranks_pick_as_one_process_with_the_same_parts(data, n_rows, seed, any_labeled):
    x, (labeled, candidates) = drawn(n_rows, 3, seed), some_masks(n_rows, seed)
    labeled &= any_labeled
    n = data.draw(st.integers(1, int(candidates.sum())))
    part_rows = n + data.draw(st.integers(1, 9))
    cuts = sorted(part_rows * part for part in data.draw(st.lists(st.integers(0, n_rows // part_rows), max_size=4)))
    split = [parts_of(each, cuts) for each in (x, labeled, candidates)]
    want = k_center_by_parts(x, n, labeled=labeled, candidates=candidates, part_rows=part_rows)

    def one(shards):
        mine, known, allowed = (each[shards.rank] for each in split)
        return k_center_by_parts(mine, n, labeled=known, candidates=allowed, part_rows=part_rows, group=shards)

    for got in run_ranks(len(cuts) + 1, one):
        assert isinstance(got, PartsCover), got
        for mine, wanted in zip(got, want, strict=True):
            assert mine.equal(wanted)


def test_ranks_speak_as_often_for_many_picks_as_for_few():
    x = torch.randn(4000, 4, generator=seeded(2))

    def one(shards, n):
        k_center_by_parts(x[shards.rank * 2000 : (shards.rank + 1) * 2000], n, group=shards)
        return shards.rounds

    few, many = (run_ranks(2, lambda shards, n=n: one(shards, n))[0] for n in (2, 600))
    assert few == many <= 9


def test_a_file_is_read_once(tmp_path, monkeypatch):
    x = torch.randn(3000, 5, generator=seeded(3))
    np.save(tmp_path / "x.npy", x.numpy())
    read, n_read = FileRows.read_into, []

    def counting(rows, room, start):
        n_read.append(len(room))
        return read(rows, room, start)

    monkeypatch.setattr(FileRows, "read_into", counting)
    found = k_center_by_parts(FileRows([tmp_path / "x.npy"]), 30, part_rows=700, chunk_rows=256)
    assert sum(n_read) == 3000
    assert found.indices.equal(k_center_by_parts(x, 30, part_rows=700).indices)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int16])
def test_dtypes(dtype):
    x = drawn(200, 4, 4)
    found, plain = (k_center_by_parts(each, 9, part_rows=50) for each in (x.to(dtype), x))
    assert found.indices.equal(plain.indices)
    assert found.scores.dtype == found.radius.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.gpu
@metrics
@pytest.mark.parametrize("home", ["cpu", "cuda"])
def test_picks_on_cuda_are_those_on_the_cpu(metric, home):
    x, labeled = drawn(3000, 6, 8), torch.arange(3000) % 100 == 0
    want = k_center_by_parts(x, 50, labeled=labeled, part_rows=700, metric=metric)
    got = k_center_by_parts(x.to(home), 50, labeled=labeled.to(home), part_rows=700, metric=metric, device="cuda")
    assert {each.device.type for each in got} == {home}
    assert got.indices.tolist() == want.indices.tolist()
    torch.testing.assert_close(got.radius.cpu(), want.radius)


def test_copies_only():
    found = k_center_by_parts(torch.ones(20, 2), 5, part_rows=7)
    assert found.indices.unique().numel() == 5
    assert found.radius == found.bound == 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"part_rows": 5}, ConfigError, "part_rows must be more than n"),
        ({"part_rows": 0}, ConfigError, "part_rows"),
        ({"n": 0}, BudgetError, "0"),
        ({"n": 101}, BudgetError, "asked for 101 rows, 100 can be picked"),
        ({"candidates": torch.arange(100) < 4}, BudgetError, "asked for 5 rows, 4 can be picked"),
        ({"metric": "dot"}, ConfigError, "dot"),
        ({"features": torch.full((100, 2), torch.nan)}, DataError, "finite"),
        ({"features": torch.zeros(0, 2)}, DataError, "no rows"),
        ({"features": torch.zeros(100)}, ShapeError, "2 axes"),
        ({"labeled": torch.zeros(7, dtype=torch.bool)}, ShapeError, "labeled"),
    ],
    ids=str,
)
def test_refuses(change, error, words):
    given = {"features": drawn(100, 2, 5), "n": 5, "part_rows": 30} | change
    with pytest.raises(error, match=words):
        k_center_by_parts(given.pop("features"), given.pop("n"), **given)


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        (
            "euclidean",
            torch.nan,
            r"features \(from row 60 on\) must be finite: 1 of 30 rows are not, the first is row 77",
        ),
        ("cosine", 0.0, "row 77 is all zeros"),
    ],
)
@pytest.mark.parametrize("n_ranks", [1, 3])
def test_a_bad_row_is_called_by_its_number_in_the_pool(metric, value, words, n_ranks):
    x = torch.randn(90, 3, generator=seeded(6))
    x[77] = value
    size = 90 // n_ranks

    def one(shards):
        own = slice(size * shards.rank, size * (shards.rank + 1))
        group = None if n_ranks == 1 else shards
        return k_center_by_parts(
            x[own], 4, part_rows=30, labeled=torch.arange(90)[own] % 10 == 0, metric=metric, group=group
        )

    with pytest.raises(DataError, match=words):
        raise run_ranks(n_ranks, one)[-1]


@pytest.mark.parametrize(("metric", "value"), [("manhattan", torch.inf), ("cosine", 0.0)])
def test_a_bad_labeled_row_is_called_by_its_number_in_the_pool(metric, value):
    x = torch.randn(90, 3, generator=seeded(6))
    x[77] = value
    labeled = torch.arange(90) >= 70
    for got in run_ranks(
        2,
        lambda shards: k_center_by_parts(
            *(x[45 * shards.rank : 45 * shards.rank + 45], 4),
            labeled=labeled[45 * shards.rank : 45 * shards.rank + 45],
            metric=metric,
            group=shards,
        ),
    ):
        assert isinstance(got, DataError), got
        assert str(got).endswith(": labeled row 77 is not")


def test_a_rank_that_failed_picks_no_more(monkeypatch):
    x = torch.randn(100, 3, generator=seeded(6))
    x[50] = torch.nan
    calls = itertools.count()

    def counting(*args, **kwargs):
        next(calls)
        return k_center_greedy(*args, **kwargs)

    monkeypatch.setattr("torchal.functional.k_center_parts.k_center_greedy", counting)
    first, second = run_ranks(
        2, lambda shards: k_center_by_parts(x[50 * shards.rank :][:50], 4, part_rows=10, group=shards)
    )
    assert isinstance(first, GroupError)
    assert "rank 1 failed with DataError: " in str(first)
    assert isinstance(second, DataError)
    assert next(calls) == 5, "the parts of the other rank"


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_error_on_one_rank_is_told_to_all(bad):
    x = torch.randn(90, 3, generator=seeded(6))
    x[30 * bad + 7] = torch.inf
    for rank, got in enumerate(
        run_ranks(3, lambda shards: k_center_by_parts(x[30 * shards.rank : 30 * shards.rank + 30], 4, group=shards))
    ):
        assert isinstance(got, DataError if rank == bad else GroupError), got


def test_an_error_of_the_second_step_is_told_to_all(monkeypatch):
    x = torch.randn(60, 3, generator=seeded(7))
    calls = itertools.count()

    def failing(rows, values, greedy):
        next(calls)
        raise OSError("no room")

    monkeypatch.setattr("torchal.functional.k_center_parts._picks_of_picks", failing)
    first, second = run_ranks(
        2, lambda shards: k_center_by_parts(x[30 * shards.rank : 30 * shards.rank + 30], 4, group=shards)
    )
    assert isinstance(first, OSError)
    assert isinstance(second, GroupError)
    assert "rank 0 failed with OSError: no room" in str(second)
    assert next(calls) == 1
