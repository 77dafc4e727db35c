import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.references import quotas as reference
from torchal.errors import BudgetError, DataError, ShapeError
from torchal.functional import fill_quotas, top_n


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
