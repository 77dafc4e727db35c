"""Selections from rows on many ranks: the same as from all rows in one process, for any split."""

import gc
import weakref
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ranks import parts_of, run_ranks
from torchal.distributed import Shards
from torchal.engine import sharded, sources
from torchal.engine.distances import Space
from torchal.engine.features import FeatureReader
from torchal.errors import BudgetError, CapabilityError, ConfigError, DataError, GroupError, ShapeError
from torchal.functional import (
    Cover,
    assign_to_centers,
    badge,
    k_center_greedy,
    kmeans,
    kmeans_plus_plus,
    margin,
    top_n,
    uniform,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@st.composite
def pools(draw, max_rows=400):
    """Return rows, which may be copies or whole numbers, weights, a mask of labeled rows, and where they are cut."""
    n_rows = draw(st.integers(1, max_rows))
    kind = draw(st.sampled_from(["float", "whole", "copies"]))
    generator = seeded(draw(st.integers(0, 1000)))
    x = torch.randn(n_rows, draw(st.sampled_from([1, 3, 8])), generator=generator)
    if kind == "whole":
        x = x.mul_(2).round_()
    elif kind == "copies":
        x = x[torch.randint(0, max(1, n_rows // 4), (n_rows,), generator=generator)]
    weights = draw(st.sampled_from([None, "whole", "float"]))
    if weights is not None:
        weights = torch.rand(n_rows, generator=generator)
        weights = weights if weights is not None and draw(st.booleans()) else weights.mul_(3).round_().add_(1)
    labeled = torch.rand(n_rows, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    labeled[int(torch.randint(0, n_rows, (1,), generator=generator))] = False
    world_size = draw(st.sampled_from([2, 3, 4, 8]))
    cuts = sorted(draw(st.lists(st.integers(0, n_rows), min_size=world_size - 1, max_size=world_size - 1)))
    return x, weights, labeled, cuts


def on_ranks(cuts, work, *rows):
    """Return what work(group, *rows of the rank) returns on each rank; errors are raised."""
    parts = [[None] * (len(cuts) + 1) if each is None else parts_of(each, cuts) for each in rows]
    found = run_ranks(len(cuts) + 1, lambda group: work(group, *(part[group.rank] for part in parts)))
    for result in found:
        if isinstance(result, Exception):
            raise result
    return found


def check_same(found, alone):
    for selection in found:
        assert torch.equal(selection.indices, alone.indices)
        torch.testing.assert_close(selection.scores, alone.scores, rtol=1e-4, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(pools(), st.data())
def test_k_center_greedy(pool, data):
    x, weights, labeled, cuts = pool
    n = data.draw(st.integers(1, int((~labeled).sum())))
    given_to = {
        "metric": data.draw(st.sampled_from(["euclidean", "manhattan"])),
        "min_distance": data.draw(st.sampled_from([None, 0.5])),
    }

    def work(group, x, weights, labeled):
        return k_center_greedy(x, n, labeled=labeled, weights=weights, group=group, **given_to)

    x = x.double()  # in which no two different rows of these are as near as rounding
    check_same(on_ranks(cuts, work, x, weights, labeled), work(None, x, weights, labeled))


@pytest.mark.parametrize("world_size", [2, 3, 4, 8])
@pytest.mark.parametrize("kind", ["spread", "clusters", "grid", "copies"])
def test_k_center_greedy_of_more_rows_than_a_block_has(world_size, kind):
    x = torch.randn(30_000, 6, generator=seeded(0), dtype=torch.float64)
    if kind == "clusters":  # each on a rank of its own, but for the last
        x = x / 50 + torch.arange(30_000).div(2_000, rounding_mode="floor").unsqueeze(1)
    elif kind == "grid":
        x = x.round()
    elif kind == "copies":
        x = x[:300].repeat(100, 1)
    cuts = [30_000 * rank // world_size - 7 * rank for rank in range(1, world_size)]

    def work(group, x):
        return k_center_greedy(x, 400, group=group)

    check_same(on_ranks(cuts, work, x), work(None, x))


def test_a_block_of_picks_is_a_round():
    x = torch.randn(20_000, 8, generator=seeded(0)) / 10
    x += 3 * torch.randn(50, 8, generator=seeded(1))[torch.randint(0, 50, (20_000,), generator=seeded(2))]
    rounds = []

    def work(group, x):
        k_center_greedy(x, 300, group=group)
        rounds.append((group.rounds, group.received_bytes))

    on_ranks([7_000], work, x)
    assert len(set(rounds)) == 1
    assert rounds[0][0] <= 15


def test_wide_rows_travel_in_small_blocks(monkeypatch):
    monkeypatch.setattr(sharded, "values_per_chunk", lambda _: 50 * 10)
    x = torch.randn(1500, 50, generator=seeded(0)).mul_(3).round_()
    largest = []

    def work(group, x):
        exchange = group._exchange
        group._exchange = lambda sent: largest.append(len(sent)) or exchange(sent)
        return k_center_greedy(x, 40, group=group)

    check_same(on_ranks([700], work, x), k_center_greedy(x, 40))
    n_before = 2 * 2  # the meeting, and what the survey learned, with rows for the mean
    assert max(largest[n_before:]) < sharded._LEAST * sharded._MOST * (50 + 10) * 4


@settings(max_examples=40, deadline=None)
@given(pools(), st.data())
def test_draws(pool, data):
    x, weights, labeled, cuts = pool
    n = data.draw(st.integers(1, int((~labeled).sum())))
    seed = data.draw(st.integers(0, 100))
    log_probs = torch.randn(len(x), 4, generator=seeded(seed)).log_softmax(1)
    first = data.draw(st.sampled_from(["largest", "uniform"]))

    def seed_rows(group, x, weights, labeled):
        return kmeans_plus_plus(x, n, generator=seeded(seed), weights=weights, labeled=labeled, group=group)

    def by_badge(group, x, log_probs, labeled):
        return badge(log_probs, x, n, generator=seeded(seed), candidates=~labeled, first=first, group=group)

    def at_random(group, labeled):
        return uniform(n, candidates=~labeled, generator=seeded(seed), group=group)

    check_same(on_ranks(cuts, seed_rows, x, weights, labeled), seed_rows(None, x, weights, labeled))
    check_same(on_ranks(cuts, by_badge, x, log_probs, labeled), by_badge(None, x, log_probs, labeled))
    check_same(on_ranks(cuts, at_random, labeled), at_random(None, labeled))


@pytest.mark.parametrize("world_size", [2, 4])
def test_draws_from_more_rows_than_the_top_of_the_tree_has(world_size):
    x = torch.randn(40_000, 4, generator=seeded(0))
    cuts = [12_345 + 100 * rank for rank in range(1, world_size)]

    def work(group, x):
        return kmeans_plus_plus(x, 300, generator=seeded(1), group=group)

    check_same(on_ranks(cuts, work, x), work(None, x))


@settings(max_examples=25, deadline=None)
@given(pools(), st.data())
def test_kmeans(pool, data):
    x, weights, _, cuts = pool
    k = data.draw(st.integers(1, min(len(x), 6)))

    def work(group, x, weights):
        return kmeans(x, k, generator=seeded(3), weights=weights, group=group)

    alone = work(None, x, weights)
    found = on_ranks(cuts, work, x, weights)
    for clusters in found:
        torch.testing.assert_close(clusters.centers, alone.centers)
        torch.testing.assert_close(clusters.inertia, alone.inertia)
    assert torch.equal(torch.cat([clusters.assignments for clusters in found]), alone.assignments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kmeans_of_a_cluster_of_little_weight(dtype):
    x = torch.cat([torch.randn(3000, 2, generator=seeded(0)), torch.randn(9, 2, generator=seeded(1)) + 1e5]).to(dtype)
    weights = torch.ones(len(x), dtype=dtype)
    weights[3000:] = 1e-5

    def work(group, x, weights):
        return kmeans(x, 2, generator=seeded(3), weights=weights, group=group)

    alone = work(None, x, weights)
    mean = x[3000:].double().mean(0)
    assert float((alone.centers.double() - mean).norm(dim=1).min()) < 4e5 * torch.finfo(dtype).eps
    for clusters in on_ranks([1, 2999, 3004], work, x, weights):
        assert torch.equal(clusters.centers, alone.centers)


def test_kmeans_that_begins_with_a_sample():
    x = torch.randn(110_000, 3, generator=seeded(0))

    def work(group, x):
        return kmeans(x, 4, generator=seeded(3), max_iterations=20, group=group)

    alone = work(None, x)
    for clusters in on_ranks([1, 70_000], work, x):
        assert torch.equal(clusters.centers, alone.centers)  # sums are exact, whoever adds them up


@settings(max_examples=25, deadline=None)
@given(pools(), st.data())
def test_top_n_and_what_each_row_belongs_to(pool, data):
    x, _, labeled, cuts = pool
    n = data.draw(st.integers(1, int((~labeled).sum())))
    scores = margin(torch.cat([x.round(), -x.round()], 1))

    def best(group, scores, labeled):
        return top_n(scores, n, candidates=~labeled, group=group)

    alone = best(None, scores, labeled)
    check_same(on_ranks(cuts, best, scores, labeled), alone)
    centers = alone.indices

    def assign(group, x):
        return assign_to_centers(x, centers, group=group)

    found = on_ranks(cuts, assign, x)
    assert torch.equal(torch.cat([part.centers for part in found]), assign(None, x).centers)


def test_ranks_that_pick_differently_are_told(monkeypatch):
    x = torch.randn(9000, 4, generator=seeded(0))
    mark = sharded.ShardedPool._mark

    def marks(pool, picked, top):
        mark(pool, picked.flip(0) if pool._shards.rank == 1 else picked, top)  # as if a processor rounded otherwise

    monkeypatch.setattr(sharded.ShardedPool, "_mark", marks)
    for error in run_ranks(2, lambda group: k_center_greedy(parts_of(x, [4000])[group.rank], 200, group=group)):
        assert isinstance(error, GroupError)
        assert "ranks picked different rows (2 kinds of 2)" in str(error)


def test_a_cover_of_several_rounds():
    x = torch.randn(500, 3, generator=seeded(0), dtype=torch.float64)

    def work(group, x):
        cover = Cover(x, group=group)
        picks = []
        for _ in range(3):
            picks.append(cover.pick(7))
            cover.add(picks[-1].indices)
        return picks, cover.distances, cover.is_center

    alone = work(None, x)
    found = on_ranks([10, 10, 300], work, x)
    for picks, _, _ in found:
        for selection, expected in zip(picks, alone[0], strict=True):
            check_same([selection], expected)
    torch.testing.assert_close(torch.cat([distances for _, distances, _ in found]), alone[1])
    assert torch.equal(torch.cat([is_center for _, _, is_center in found]), alone[2])


@pytest.mark.gpu
@pytest.mark.parametrize("home", ["cpu", "cuda"])
def test_on_a_gpu(home):
    x = torch.randn(6000, 8, generator=seeded(0)).mul_(4).round_()  # whole numbers, so that all devices agree
    log_probs = torch.randn(6000, 4, generator=seeded(1)).log_softmax(1)
    weights = torch.randint(1, 3, (6000,), generator=seeded(2)).float()
    labeled = torch.arange(6000) % 100 == 0

    def picks(group, x, log_probs, weights, labeled, device=None):
        others = {"group": group, "device": device}
        return [
            k_center_greedy(x, 200, labeled=labeled, weights=weights, **others).indices.cpu(),
            kmeans_plus_plus(x, 100, generator=seeded(3), weights=weights, labeled=labeled, **others).indices.cpu(),
            badge(log_probs, x, 50, generator=seeded(3), candidates=~labeled, **others).indices.cpu(),
            top_n(weights, 50, candidates=~labeled, group=group).indices.cpu(),
            uniform(50, candidates=~labeled, generator=seeded(3), group=group).indices.cpu(),
            kmeans(x, 5, generator=seeded(3), **others).centers.cpu(),
        ]

    given = [each.to(home) for each in (x, log_probs, weights, labeled)]
    alone = picks(None, *given, device="cuda")
    for found in on_ranks([100, 3000], lambda *parts: picks(*parts, device="cuda"), *given):
        for one, expected in zip(found, alone, strict=True):
            torch.testing.assert_close(one, expected)


def test_badge_in_float64_where_a_rank_has_no_rows():
    x, log_probs = torch.randn(20, 3, generator=seeded(0), dtype=torch.float64), torch.zeros(20, 4).log_softmax(1)

    def work(group, x, log_probs):
        return badge(log_probs, x, 5, generator=seeded(0), group=group)

    check_same(on_ranks([0, 7], work, x, log_probs), work(None, x, log_probs))


def test_what_is_wrong_on_one_rank_is_told_to_all():
    x = torch.randn(90, 3)
    x[70, 1] = torch.nan
    errors = run_ranks(3, lambda group: k_center_greedy(parts_of(x, [30, 60])[group.rank], 5, group=group))
    assert isinstance(errors[2], DataError)
    assert "the first is row 70" in str(errors[2])
    for error in errors[:2]:
        assert isinstance(error, GroupError)
        assert "rank 2 failed with DataError: features" in str(error)
        assert "row 70" in str(error)


def test_work_that_fails_on_one_rank_is_told_to_all(monkeypatch):
    x = torch.randn(90, 3)
    x[30:60] += 1000
    nearest = Space.nearest_index

    def failing(space, rows, centers):
        if float(rows.x.max()) > 500:
            raise OSError("the disk is gone")
        return nearest(space, rows, centers)

    monkeypatch.setattr(Space, "nearest_index", failing)
    centers = torch.tensor([0, 80])
    errors = run_ranks(3, lambda group: assign_to_centers(parts_of(x, [30, 60])[group.rank], centers, group=group))
    assert [type(error) for error in errors] == [GroupError, OSError, GroupError]
    assert "rank 1 failed with OSError: the disk is gone" in str(errors[2])


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (lambda rank: (torch.randn(5, 2 + rank), 2, {}), ShapeError, r"same columns on all ranks, got \[2, 3\]"),
        (lambda rank: (torch.randn(5, 2), 2 + rank, {}), ConfigError, r"rank 0 for n=2.*rank 1 for n=3"),
        (lambda rank: (torch.randn(5, 2), 11, {}), BudgetError, "asked for 11 rows, 10 can be picked"),
        (lambda rank: (torch.randn(0, 2), 1, {}), DataError, "no rows on any of 2 ranks"),
        (lambda rank: (torch.randn(5, 2), 1, {"outliers": 0.1}), CapabilityError, "with 2 ranks"),
    ],
)
def test_bad_input(arguments, error, match):
    def work(group):
        x, n, others = arguments(group.rank)
        return k_center_greedy(x, n, group=group, **others)

    for found in run_ranks(2, work):
        assert isinstance(found, error)
        with pytest.raises(error, match=match):
            raise found


@pytest.mark.parametrize(
    ("select", "told"),
    [
        (lambda x, group, bad: k_center_greedy(x, 2, metric="taxi" if bad else "cosine", group=group), "got 'taxi'"),
        (lambda x, group, bad: k_center_greedy(x, 2, backend="jax" if bad else "auto", group=group), "got 'jax'"),
        (lambda x, group, bad: Cover(x, metric="taxi" if bad else "cosine", group=group), "got 'taxi'"),
        (lambda x, group, bad: Cover(x, group=group).add(["1"] if bad else [1]), "rows must be"),
        (
            lambda x, group, bad: assign_to_centers(x, [1], metric="taxi" if bad else "cosine", group=group),
            "got 'taxi'",
        ),
        (lambda x, group, bad: kmeans(x, 0 if bad else 2, generator=seeded(0), group=group), "at least 1, got 0"),
        (
            lambda x, group, bad: kmeans(x, 2, tolerance=-1 if bad else 0, generator=seeded(0), group=group),
            "at least 0, got -1",
        ),
        (
            lambda x, group, bad: badge(
                x.log_softmax(1), x, 2, first="last" if bad else "largest", generator=seeded(0), group=group
            ),
            "got 'last'",
        ),
    ],
)
def test_a_setting_that_is_wrong_on_one_rank_is_told_to_all(select, told):
    x = torch.randn(9, 2, generator=seeded(0))
    first, second = run_ranks(2, lambda group: select(x, group, bad=group.rank == 1))
    assert isinstance(first, GroupError)
    assert "rank 1 failed with" in str(first)
    assert told in str(first)
    assert told in str(second)


@pytest.mark.parametrize(
    ("select", "told"),
    [
        (
            lambda x, group: assign_to_centers(x if group.rank else x.to(torch.int8), [1], group=group),
            "rank 0 for .*dtype=torch.int8",
        ),
        (
            lambda x, group: kmeans(x if group.rank else x.to(torch.int8), 2, generator=seeded(0), group=group),
            "rank 0 for .*dtypes=.*torch.int8",
        ),
        (
            lambda x, group: badge(
                x.float().log_softmax(1), x if group.rank else x.to(torch.int8), 2, generator=seeded(0), group=group
            ),
            "rank 0 for .*dtypes=.*torch.int8",
        ),
        (
            lambda x, group: k_center_greedy(x, 2, backend="torch" if group.rank else "auto", group=group),
            "things: rank 0 for backend='auto'; rank 1 for backend='torch'$",
        ),
        (
            lambda x, group: Cover(x, group=group).add([0, 1] if group.rank else [0]),
            "different things: rank 0 for rows",
        ),
    ],
)
def test_ranks_that_differ(select, told):
    for error in run_ranks(2, lambda group: select(torch.arange(18).view(9, 2).float(), group)):
        assert isinstance(error, ConfigError)
        with pytest.raises(ConfigError, match=told):
            raise error


def test_what_differs_is_told_among_much_that_does_not():
    def one(group):
        with group.meeting() as meeting:
            meeting.rows(1, 1)
            meeting.same(long="x; " * 1000, last=group.rank)

    for error in run_ranks(2, one):
        assert str(error) == "the ranks were asked for different things: rank 0 for last=0; rank 1 for last=1"


def test_numbers_of_numpy_are_numbers():
    x = torch.randn(9, 2, generator=seeded(0))
    for found in run_ranks(2, lambda group: k_center_greedy(x, np.int64(3) if group.rank else 3, group=group)):
        assert torch.equal(found.indices, k_center_greedy(torch.cat([x, x]), 3).indices)


def test_an_error_does_not_hold_the_group():
    x = torch.full((4, 2), torch.nan)
    groups = []

    def work(group):
        groups.append(weakref.ref(group))
        with suppress(DataError, GroupError):
            k_center_greedy(x if group.rank else x[:0], 2, group=group)

    gc.collect()
    gc.disable()
    try:
        run_ranks(2, work)
        assert [group() for group in groups] == [None, None]
    finally:
        gc.enable()


def test_a_rank_without_rows_may_say_so_in_lists():
    x, mask = torch.randn(9, 2, generator=seeded(0)), [True, False, True] * 3

    def picks(group, x, mask, scores):
        return (
            k_center_greedy(x, 3, labeled=mask, group=group),
            uniform(3, candidates=mask, generator=seeded(0), group=group),
            top_n(scores, 3, candidates=mask, group=group),
        )

    scores = x[:, 0].tolist()
    found = run_ranks(2, lambda group: picks(group, *((x, mask, scores) if group.rank else (x[:0], [], []))))
    for of_rank in found:
        for selection, alone in zip(of_rank, picks(None, x, mask, scores), strict=True):
            check_same([selection], alone)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_cover_and_another_pool_with_the_same_group(world_size):
    x = torch.randn(30, 2, generator=seeded(0))
    alone = Cover(x)
    alone.add(torch.tensor([28]))

    def work(group):
        cover = Cover(parts_of(x, [17])[group.rank] if world_size > 1 else x, group=group)
        top_n(torch.rand(4), 2, group=group)
        cover.add(torch.tensor([28]))
        return cover.pick(5)

    found = run_ranks(2, work) if world_size > 1 else [work(Shards(None))]
    check_same(found, alone.pick(5))


def test_rows_that_cannot_be_read_while_centres_are_added_are_told_to_all():
    x = torch.randn(40, 2, generator=seeded(0), dtype=torch.float64)

    def work(group):
        cover = Cover(parts_of(x, [25])[group.rank], group=group)
        read = cover._reader.read

        def fail(start, stop):
            raise OSError("the disk is gone")

        told = None
        if group.rank:
            cover._reader.read = fail
        try:
            cover.add(torch.tensor([3]))
        except (OSError, GroupError) as error:
            told = str(error)
        cover._reader.read = read
        assert not cover.is_center.any()
        cover.add(torch.tensor([3]))
        return told, cover.pick(6)

    alone = Cover(x)
    alone.add(torch.tensor([3]))
    first, second = run_ranks(2, work)
    assert first[0] == "rank 1 failed with OSError: the disk is gone"
    assert second[0] == "the disk is gone"
    check_same([first[1], second[1]], alone.pick(6))


def test_rows_that_cannot_be_read_while_they_go_to_centres_are_told_to_all(monkeypatch):
    x = torch.randn(40, 2, generator=seeded(0))
    read, left = FeatureReader.read, [1]  # what surveys the rows can read them

    def fail(reader, start, stop):
        if reader.shards.rank == 1:
            left[0] -= 1
            if left[0] < 0:
                raise OSError("the disk is gone")
        return read(reader, start, stop)

    def trash(*sizes, **others):
        return torch.full(sizes, 2**40, **others) if others.get("dtype") == torch.int64 else empty(*sizes, **others)

    empty = torch.empty
    monkeypatch.setattr(FeatureReader, "read", fail)
    monkeypatch.setattr(torch, "empty", trash)  # which holds anything, until something is written there
    first, second = run_ranks(2, lambda group: assign_to_centers(parts_of(x, [25])[group.rank], [3, 30], group=group))
    assert str(first) == "rank 1 failed with OSError: the disk is gone"
    assert str(second) == "the disk is gone"


def test_centres_are_fetched_in_parts(monkeypatch):
    monkeypatch.setattr(sources, "_TOGETHER", 10)
    x = torch.randn(60, 3, generator=seeded(0), dtype=torch.float64)
    labeled = torch.arange(60) % 3 == 0

    def work(group, x, labeled):
        return k_center_greedy(x, 9, labeled=labeled, group=group)

    check_same(on_ranks([11, 40], work, x, labeled), work(None, x, labeled))


def test_generators_must_be_seeded_alike():
    for error in run_ranks(
        2, lambda group: kmeans_plus_plus(torch.rand(9, 2), 3, generator=seeded(group.rank), group=group)
    ):
        assert isinstance(error, ConfigError)
        assert "generator in state" in str(error)


def test_a_group_of_another_kind():
    with pytest.raises(ConfigError, match=r"group must be a process group of torch\.distributed, got int"):
        k_center_greedy(torch.rand(3, 2), 1, group=3)


def test_covers_on_ranks_are_not_extended():
    def work(group):
        return Cover(torch.rand(4, 2), group=group).extended(torch.rand(6, 2))

    for error in run_ranks(2, work):
        assert isinstance(error, CapabilityError)
