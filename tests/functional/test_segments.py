import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import segments as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.functional import aggregate, top_n, top_of_groups
from torchal.functional.segments import Segments, as_segments

SCORES = torch.tensor([0.1, 0.9, 0.5, 0.4, 0.6, 0.2])
IDS = [7, 3, 7, 3, 7, 5]


def test_by_hand():
    want = {"max": [0.6, 0.9, 0.2], "mean": [0.4, 0.65, 0.2], "sum": [1.2, 1.3, 0.2]}
    for how, scores in want.items():
        found = aggregate(SCORES, IDS, how)
        assert found.ids == [7, 3, 5]  # as they come
        assert found.counts.tolist() == [3, 2, 1]
        assert found.groups.tolist() == [0, 1, 0, 1, 0, 2]
        assert found.scores.tolist() == pytest.approx(scores)
    assert aggregate(SCORES, IDS, "top_k", k=2).scores.tolist() == pytest.approx([0.55, 0.65, 0.2])
    assert aggregate(SCORES, IDS, "top_k", k=1).scores.equal(aggregate(SCORES, IDS).scores)
    assert top_n(aggregate(SCORES, IDS, "sum").scores, 2).indices.tolist() == [1, 0]


def test_whole_groups_by_hand():
    assert top_of_groups(SCORES, IDS, 6).indices.tolist() == [1, 3, 4, 2, 0, 5]
    cut = top_of_groups(SCORES, IDS, 3)
    assert cut.indices.tolist() == [1, 3, 4]  # the last group gives its best row
    assert cut.scores.tolist() == pytest.approx([0.9, 0.9, 0.6])
    assert top_of_groups(SCORES, IDS, 6, per_group=1).indices.tolist() == [1, 4, 5, 3, 2, 0]
    assert top_of_groups(SCORES, IDS, 4, per_group=2).indices.tolist() == [1, 3, 4, 2]


@given(
    scores=st.lists(st.integers(-3, 3), min_size=1, max_size=20),
    how=st.sampled_from(["max", "mean", "sum", "top_k"]),
    per_group=st.sampled_from([None, 1, 2, 5]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_agrees_with_a_loop(scores, how, per_group, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 4, len(scores)).tolist()
    candidates = rng.random(len(scores)) < 0.7
    candidates[0] = True
    k = 2 if how == "top_k" else None
    want = reference.aggregate(scores, ids, how, k, candidates)
    mask = torch.from_numpy(candidates)
    found = aggregate(torch.tensor(scores).double(), ids, how, k=k, candidates=mask)
    assert dict(zip(found.ids, found.scores.tolist(), strict=True)) == pytest.approx(want)
    n = int(rng.integers(1, candidates.sum() + 1))
    got = top_of_groups(torch.tensor(scores).double(), ids, n, how=how, k=k, per_group=per_group, candidates=mask)
    assert got.indices.tolist() == reference.top_of_groups(scores, ids, n, how, k, per_group, candidates)
    assert got.scores.tolist() == pytest.approx([want[ids[row]] for row in got.indices.tolist()])


@pytest.mark.parametrize(
    "ids",
    [
        ["b", "a", "b"],
        np.array(["b", "a", "b"]),
        np.array(["b", "a", "b"], dtype=object),
        ("b", "a", "b"),
        [5, -2, 5],
        torch.tensor([5, -2, 5]),
        np.array([5, -2, 5], dtype=np.int16),
        [2**60, 3, 2**60],
    ],
    ids=["text", "text array", "objects", "tuple", "list", "tensor", "array", "huge"],
)
def test_ids_are_whole_numbers_or_text(ids):
    found = as_segments(ids, n_rows=3)
    assert found.groups.tolist() == [0, 1, 0]
    assert found.ids == [ids[0], ids[1]]
    assert all(type(name) in {int, str} for name in found.ids)
    assert as_segments(found, n_rows=3) == found


def test_texts_may_be_long_and_hold_any_letter():
    assert as_segments(["a", "a\0", "a", ""], n_rows=4).groups.tolist() == [0, 1, 0, 2]
    names = [f"{i}.jpg" for i in range(20_000)]
    names[7] = 2_000_000 * "x"  # an array of all of them, as wide as the widest, would take 160 GB
    found = as_segments(names, n_rows=len(names))
    assert found.groups.equal(torch.arange(20_000))
    assert found.ids == names


def test_digests_tell_segments_apart():
    found = [as_segments(ids, n_rows=2).digest for ids in (["a", "b"], ["a", "a"], ["1", "2"], [1, 2], ["a, b", "a"])]
    assert len(set(found)) == 5
    assert as_segments(np.array(["a", "b"]), n_rows=2).digest == found[0]


@pytest.mark.parametrize(
    ("groups", "ids"),
    [([0, 5, 1], "ab"), ([0, 1, -1], "ab"), ([0, 1, 0], "abc"), ([0, 1, 2], "ab"), ([1, 0, 1], "ab"), ([], "a")],
)
def test_segments_that_were_made_by_others_are_looked_at(groups, ids):
    with pytest.raises(ShapeError, match=f"numbered 0 to {len(ids) - 1} for {len(ids)} ids"):
        as_segments(Segments(torch.tensor(groups, dtype=torch.int64), list(ids)), n_rows=len(groups))
    with pytest.raises(ShapeError, match=r"the groups of segments must be \(n,\) integers, got torch.float32"):
        as_segments(Segments(torch.zeros(3), ["a"]), n_rows=3)
    assert as_segments(Segments(torch.tensor([0, 1, 0]), ["a", "b"]), n_rows=3).groups.tolist() == [0, 1, 0]


def test_a_group_without_candidates_is_never_wanted():
    candidates = torch.tensor([True, False, True, False, True, True])
    found = aggregate(SCORES, IDS, "mean", candidates=candidates)
    assert found.scores.tolist() == pytest.approx([0.4, -torch.inf, 0.2])
    assert found.counts.tolist() == [3, 0, 1]
    assert top_of_groups(SCORES, IDS, 4, candidates=candidates).indices.tolist() == [4, 2, 0, 5]
    nobody = aggregate(SCORES, IDS, "sum", candidates=torch.zeros(6, dtype=torch.bool))
    assert nobody.scores.tolist() == [-torch.inf] * 3


@pytest.mark.parametrize("how", ["max", "mean", "sum", "top_k"])
def test_groups_of_one_row_are_the_rows(how):
    k = 3 if how == "top_k" else None
    assert aggregate(SCORES, torch.arange(6), how, k=k).scores.equal(SCORES)
    for per_group in (None, 1):
        got = top_of_groups(SCORES, torch.arange(6), 4, how=how, k=k, per_group=per_group)
        assert got.indices.equal(top_n(SCORES, 4).indices)
    assert aggregate(SCORES[:1], ["a"], how, k=k).scores.equal(SCORES[:1])


def test_ties_go_to_the_group_and_the_row_that_come_first():
    scores = torch.tensor([1.0, 2.0, 2.0, 1.0, 2.0])
    assert top_of_groups(scores, ["z", "z", "a", "a", "z"], 5).indices.tolist() == [1, 4, 0, 2, 3]


def test_infinite_scores():
    scores = torch.tensor([torch.inf, 1.0, -torch.inf, -torch.inf])
    assert aggregate(scores, [0, 0, 1, 1], "sum").scores.tolist() == [torch.inf, -torch.inf]
    assert top_of_groups(scores, [0, 0, 1, 1], 4).indices.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="group 'b' has scores inf and -inf, which have no mean"):
        aggregate(torch.tensor([0.0, torch.inf, -torch.inf]), ["a", "b", "b"], "top_k", k=2)


def test_sums_of_many_small_numbers_and_half_precision():
    scores = torch.full((100_000,), 0.1)
    assert float(aggregate(scores, torch.zeros(100_000, dtype=torch.int64), "sum").scores) == pytest.approx(1e4)
    assert aggregate(SCORES.half(), IDS).scores.dtype == torch.float32
    assert aggregate(SCORES.double(), IDS).scores.dtype == torch.float64


@pytest.mark.parametrize(
    ("scores", "ids", "settings", "error", "match"),
    [
        (SCORES, IDS[:5], {}, ShapeError, "one id for each of 6 rows, got 5"),
        (SCORES, [0.5] * 6, {}, ShapeError, "segments must be .* integers, got torch.float32"),
        (SCORES, ["a", 1, "a", "b", "c", 2], {}, ShapeError, "all text or all whole numbers: 4 of 6 are text"),
        (SCORES, "abcdef", {}, ShapeError, "a list of ids, got the text 'abcdef'"),
        (SCORES.int(), IDS, {}, ShapeError, "scores must be floating point"),
        (SCORES[None], IDS, {}, ShapeError, "scores must have 1 axes"),
        (SCORES, IDS, {"candidates": torch.ones(5, dtype=torch.bool)}, ShapeError, "candidates must have shape"),
        (SCORES / 0 * 0, IDS, {}, DataError, "scores must not be NaN: 6 of 6"),
        (SCORES, IDS, {"how": "median"}, ConfigError, "max, mean, sum, top_k, got 'median'"),
        (SCORES, IDS, {"how": "top_k"}, ConfigError, "k must be a whole number of at least 1, got None"),
        (SCORES, IDS, {"how": "top_k", "k": 0}, ConfigError, "k must be a whole number of at least 1, got 0"),
        (SCORES, IDS, {"k": 2}, ConfigError, "k is for how='top_k', got k=2 with how='max'"),
    ],
)
def test_bad_input(scores, ids, settings, error, match):
    with pytest.raises(error, match=match):
        aggregate(scores, ids, **settings)
    with pytest.raises(error, match=match):
        top_of_groups(scores, ids, 2, **settings)


def test_bad_budgets():
    with pytest.raises(BudgetError, match="asked for 7 rows, 6 can be picked"):
        top_of_groups(SCORES, IDS, 7)
    with pytest.raises(BudgetError, match="asked for 2 rows, 1 can be picked"):
        top_of_groups(SCORES, IDS, 2, candidates=torch.arange(6) == 1)
    with pytest.raises(ConfigError, match="per_group must be a whole number of at least 1, got 0"):
        top_of_groups(SCORES, IDS, 2, per_group=0)


@pytest.mark.gpu
@pytest.mark.parametrize("how", ["max", "mean", "sum", "top_k"])
def test_on_cuda_as_on_the_cpu(how):
    generator = torch.Generator().manual_seed(0)
    scores, ids = torch.rand(500, generator=generator), torch.randint(0, 40, (500,), generator=generator)
    k = 3 if how == "top_k" else None
    assert aggregate(scores.cuda(), ids, how, k=k).scores.cpu().equal(aggregate(scores, ids, how, k=k).scores)
    for per_group in (None, 2):
        want = top_of_groups(scores, ids, 90, how=how, k=k, per_group=per_group)
        got = top_of_groups(scores.cuda(), ids.cuda(), 90, how=how, k=k, per_group=per_group)
        assert got.indices.cpu().equal(want.indices)
