import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.references import quotas as reference
from torchal.errors import BudgetError, DataError, ShapeError
from torchal.functional import class_quotas, fill_quotas, top_n


def test_literal_case():
    # half of the pool is in group 0: two of four picks; a quarter in 1 and in 2: one each
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2])
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
    picked = fill_quotas(scores, groups, 4)
    assert picked.indices.tolist() == [0, 1, 4, 6]
    assert picked.scores.tolist() == pytest.approx([0.9, 0.8, 0.5, 0.3])


def test_a_group_that_runs_dry_is_made_up_for_by_score():
    scores = torch.tensor([0.9, 0.8, 0.7, 0.1, 0.2, 0.3])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    candidates = torch.tensor([True, True, True, True, False, False])
    assert fill_quotas(scores, groups, 4, candidates=candidates).indices.tolist() == [0, 1, 3, 2]


def test_shares_without_an_exact_float_are_exact():
    # 3 of 9 rows: a batch of 3 has room for exactly one of them, whatever 1 / 3 is rounded to
    groups = torch.arange(9) // 3
    assert (fill_quotas(torch.zeros(9), groups, 3).indices // 3).tolist() == [0, 1, 2]


@given(data=st.data(), n_rows=st.integers(1, 25))
def test_agrees_with_the_loop(data, n_rows):
    scores = data.draw(st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0]), min_size=n_rows, max_size=n_rows))
    groups = data.draw(st.lists(st.sampled_from([0, 1, 2, 5]), min_size=n_rows, max_size=n_rows))
    candidates = data.draw(st.lists(st.booleans(), min_size=n_rows, max_size=n_rows).filter(any))
    n = data.draw(st.integers(1, sum(candidates)))
    picked = fill_quotas(torch.tensor(scores), torch.tensor(groups), n, candidates=torch.tensor(candidates))
    assert picked.indices.tolist() == reference.fill_quotas(scores, groups, n, candidates)
    assert picked.scores.tolist() == [scores[row] for row in picked.indices.tolist()]


def test_groups_may_have_any_numbers():
    groups = torch.tensor([7, 10**12, 7, 3])
    scores = torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert fill_quotas(scores, groups, 4).indices.tolist() == [0, 1, 2, 3]
    assert fill_quotas(scores, groups, 2).indices.tolist() == [0, 1]


@pytest.mark.parametrize("n", [1, 30])
def test_one_row_or_all_of_them_are_those_with_the_highest_scores(n):
    generator = torch.Generator().manual_seed(0)
    scores, groups = torch.rand(30, generator=generator), torch.randint(0, 4, (30,), generator=generator)
    picked, best = fill_quotas(scores, groups, n).indices, top_n(scores, n).indices
    assert sorted(picked.tolist()) == sorted(best.tolist())


@pytest.mark.parametrize(
    ("scores", "groups", "n", "error", "message"),
    [
        (torch.zeros(3), torch.zeros(2, dtype=torch.int64), 1, ShapeError, r"groups must be \(3,\) int64"),
        (torch.zeros(3), torch.zeros(3), 1, ShapeError, "torch.float32"),
        (torch.zeros(3), torch.tensor([0, -1, 0]), 1, DataError, "1 of 3 are not"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.int64), 4, BudgetError, "asked for 4 rows, 3 can"),
        (torch.tensor([0.0, math.nan, 1.0]), torch.zeros(3, dtype=torch.int64), 1, DataError, "1 of 3 candidates"),
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64), 1, ShapeError, "1 axes"),
    ],
)
def test_refuses_what_it_cannot_use(scores, groups, n, error, message):
    with pytest.raises(error, match=message):
        fill_quotas(scores, groups, n)


def test_quotas_may_be_given():
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    groups = torch.tensor([0, 0, 0, 1, 1])
    assert fill_quotas(scores, groups, 3, quotas=torch.tensor([1, 2])).indices.tolist() == [0, 3, 4]
    assert fill_quotas(scores, groups, 3, quotas=torch.tensor([0, 1])).indices.tolist() == [3, 0, 1]
    with pytest.raises(DataError, match="group 1 has no quota: there are 1"):
        fill_quotas(scores, groups, 3, quotas=torch.tensor([3]))


@pytest.mark.parametrize(
    ("n", "available", "counts", "target", "quotas"),
    [
        (7, [100, 1, 100], None, None, [3, 1, 3]),
        (2, [5, 5, 5], None, None, [1, 1, 0]),  # ties go to the lowest class
        (4, [9, 9, 9], [5, 1, 0], None, [0, 2, 2]),
        (5, [9, 0, 9], [0, 0, 0], None, [3, 0, 2]),
        (3, [9, 9], [0, 0], [0.0, 1.0], [0, 3]),
        (3, [9, 1], [0, 0], [0.0, 1.0], [2, 1]),
        (10, [99, 99], [0, 10], [3.0, 1.0], [10, 0]),
        (1, [0, 1], None, None, [0, 1]),
    ],
)
def test_classes_get_their_parts(n, available, counts, target, quotas):
    counts = None if counts is None else torch.tensor(counts)
    target = None if target is None else torch.tensor(target)
    assert class_quotas(n, torch.tensor(available), counts=counts, target=target).tolist() == quotas


@given(data=st.data(), n_classes=st.integers(1, 3))
def test_no_other_quotas_are_nearer_to_the_target(data, n_classes):
    numbers = st.lists(st.integers(0, 4), min_size=n_classes, max_size=n_classes)
    available, counts = data.draw(numbers.filter(any)), data.draw(numbers)
    target = data.draw(st.none() | numbers.filter(any))
    n = data.draw(st.integers(1, sum(available)))
    found = class_quotas(
        n,
        torch.tensor(available),
        counts=torch.tensor(counts),
        target=None if target is None else torch.tensor(target, dtype=torch.float64),
    ).tolist()
    assert sum(found) == n
    assert all(q <= most for q, most in zip(found, available, strict=True))
    shares = [int(a + c > 0) for a, c in zip(available, counts, strict=True)] if target is None else target
    assert reference.off_target(found, counts, shares) == reference.least_off_target(n, available, counts, shares)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n": 4}, BudgetError, "asked for 4 rows, 3 can"),
        ({"counts": torch.tensor([1])}, ShapeError, "each of 2 classes, got 1 and 2"),
        ({"target": torch.ones(3)}, ShapeError, "each of 2 classes, got 2 and 3"),
        ({"target": torch.ones(2, dtype=torch.int64)}, ShapeError, "floating point"),
        ({"target": torch.zeros(2)}, DataError, "above 0 for at least one of 2"),
        ({"target": torch.tensor([1.0, -1.0])}, DataError, "target must not be negative: 1 of 2"),
        ({"target": torch.tensor([1.0, math.nan])}, DataError, "finite"),
        ({"counts": torch.tensor([1, -1])}, DataError, "counts must not be negative"),
    ],
)
def test_class_quotas_refuse_what_they_cannot_use(settings, error, message):
    with pytest.raises(error, match=message):
        class_quotas(**{"n": 2, "available": torch.tensor([1, 2]), **settings})


@pytest.mark.gpu
@pytest.mark.parametrize("n", [1, 40, 600])
def test_cuda_picks_the_same(n):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(50, (3000,), generator=generator).float()  # with ties
    groups = torch.randint(7, (3000,), generator=generator) ** 4 * 10  # some of them larger than the number of rows
    candidates = torch.rand(3000, generator=generator) < 0.3
    want = fill_quotas(scores, groups, n, candidates=candidates)
    found = fill_quotas(scores.cuda(), groups.cuda(), n, candidates=candidates.cuda())
    assert found.indices.is_cuda
    assert found.scores.is_cuda
    assert found.indices.cpu().equal(want.indices)
    assert found.scores.cpu().equal(want.scores)
    whole = fill_quotas(scores.cuda(), groups.cuda(), n)
    assert whole.indices.cpu().equal(fill_quotas(scores, groups, n).indices)
    with pytest.raises(ShapeError, match=r"groups must be \(3000,\) int64 on cuda:0, got \(3000,\) torch.int64 on cpu"):
        fill_quotas(scores.cuda(), groups, n)
