import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.references import selection as reference
from torchal.errors import BudgetError, DataError, ShapeError
from torchal.functional import top_n, uniform

# Few distinct values, so that ties are everywhere.
SCORES = st.lists(st.sampled_from([-math.inf, -1.5, 0.0, 1.0, 2.0, math.inf]), min_size=1, max_size=30)


def test_literal_case():
    picked = top_n(torch.tensor([0.1, 0.9, 0.9, 0.5]), 3)
    assert picked.indices.tolist() == [1, 2, 3]
    assert picked.scores.tolist() == pytest.approx([0.9, 0.9, 0.5])
    assert picked.indices.dtype == torch.int64


@given(data=st.data(), scores=SCORES)
def test_agrees_with_a_sort_of_tuples(data, scores):
    candidates = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)).filter(any))
    n = data.draw(st.integers(1, sum(candidates)))
    picked = top_n(torch.tensor(scores), n, candidates=torch.tensor(candidates))
    assert picked.indices.tolist() == reference.top_n(scores, n, candidates)
    assert picked.scores.tolist() == [scores[row] for row in picked.indices.tolist()]


def test_all_equal_goes_by_row_number_at_a_size_where_topk_does_not():
    assert top_n(torch.zeros(100_000), 1000).indices.equal(torch.arange(1000))


def test_takes_the_last_row_left():
    only = torch.tensor([False, False, True])
    assert top_n(torch.tensor([3.0, 2.0, -math.inf]), 1, candidates=only).indices.tolist() == [2]


def test_nan_counts_only_where_it_could_be_picked():
    scores = torch.tensor([math.nan, 1.0, 2.0])
    assert top_n(scores, 1, candidates=torch.tensor([False, True, True])).indices.tolist() == [2]
    with pytest.raises(DataError, match="1 of 3 candidates"):
        top_n(scores, 1)


@pytest.mark.parametrize("n", [0, -1, 4, 2.0, True])
def test_refuses_a_budget_that_cannot_be_met(n):
    with pytest.raises(BudgetError):
        top_n(torch.zeros(3), n)


def test_budget_error_has_both_numbers():
    with pytest.raises(BudgetError, match="asked for 3 rows, 2 can be picked"):
        top_n(torch.zeros(3), 3, candidates=torch.tensor([True, False, True]))


@pytest.mark.parametrize(
    ("scores", "candidates", "message"),
    [
        (torch.zeros(3, 1), None, r"1 axes, got shape \(3, 1\)"),
        (torch.zeros(3, dtype=torch.int64), None, "floating point, got torch.int64"),
        (torch.zeros(3), torch.ones(2, dtype=torch.bool), r"shape \(3,\), got \(2,\)"),
        (torch.zeros(3), torch.ones(3), "bool tensor or array, got torch.float32"),
        (torch.zeros(3), torch.ones(3, dtype=torch.bool, device="meta"), "on cpu, got meta"),
        ("1.0", None, "torch.Tensor or a NumPy array, got str"),
    ],
)
def test_refuses_wrong_tensors(scores, candidates, message):
    with pytest.raises(ShapeError, match=message):
        top_n(scores, 1, candidates=candidates)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_cuda_breaks_ties_as_the_cpu_does(dtype):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(20, (5000,), generator=generator).to(dtype)
    scores[::7] = -torch.inf
    candidates = torch.rand(5000, generator=generator) < 0.5
    for n in (1, 300, int(candidates.sum())):
        want = top_n(scores, n, candidates=candidates)
        found = top_n(scores.cuda(), n, candidates=candidates.cuda())
        assert found.indices.is_cuda
        assert found.scores.is_cuda
        assert found.indices.cpu().equal(want.indices)
        assert found.scores.cpu().equal(want.scores)
    assert top_n(scores.cuda(), 9).indices.cpu().equal(top_n(scores, 9).indices)
    with pytest.raises(ShapeError, match="candidates must be on cuda:0, got cpu"):
        top_n(scores.cuda(), 3, candidates=candidates)


@pytest.mark.parametrize("size", [1, 3, 7])
def test_parts_do_not_change_what_is_picked(size, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 5, (40,), generator=draw).float()
    scores[3] = -torch.inf
    candidates = torch.rand(40, generator=draw) < 0.6
    scores[(~candidates).nonzero()[0]] = torch.nan

    def picked():
        every = [top_n(scores.nan_to_num(1), n) for n in (1, 9, 40)]
        some = [top_n(scores, n, candidates=candidates) for n in (1, 9, int(candidates.sum()))]
        drawn = uniform(9, candidates=candidates, generator=torch.Generator().manual_seed(1))
        return [selection.indices.tolist() for selection in (*every, *some, drawn)]

    want = picked()
    monkeypatch.setattr("torchal.functional.selection.values_per_chunk", lambda _: size)
    monkeypatch.setattr("torchal.engine.order_statistics.values_per_chunk", lambda _: size)
    assert picked() == want
    with pytest.raises(DataError, match="NaN: 1 of 40 candidates are"):
        top_n(scores, 2)
