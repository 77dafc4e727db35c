import math

import pytest
import torch
from hypothesis import given

from tests.functional.test_bald import draws_of_rows, some_draws
from tests.references import committee as reference
from torchal.engine import information
from torchal.errors import DataError, ShapeError
from torchal.functional import bald, consensus_kl, variation_ratio, vote_entropy

MEASURES = {"vote_entropy": vote_entropy, "consensus_kl": consensus_kl, "variation_ratio": variation_ratio}
ON_VOTES = [vote_entropy, variation_ratio]


def committees_of(*votes, n_classes=4):
    """Return log-probabilities of members that vote so, not all equally sure."""
    logits = torch.nn.functional.one_hot(torch.tensor(votes), n_classes).double()
    return (logits * (1 + torch.arange(len(votes[0]))[:, None])).log_softmax(2)


def test_literal():
    members = committees_of([0, 0, 0, 0], [0, 0, 1, 0], [3, 1, 1, 3], [3, 1, 2, 0])
    quarter = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert vote_entropy(members).tolist() == pytest.approx([0.0, quarter, math.log(2), math.log(4)], abs=1e-11)
    assert variation_ratio(members).tolist() == [0.0, 0.25, 0.5, 0.75]
    sure = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.3, 0.7], [0.3, 0.7]]]).log()
    assert consensus_kl(sure).tolist() == pytest.approx([math.log(2), 0.0])


@pytest.mark.parametrize("name", MEASURES)
@given(draws_of_rows())
def test_agrees_with_its_definition(name, log_probs):
    expected = [getattr(reference, name)(row) for row in log_probs.exp().tolist()]
    assert MEASURES[name](log_probs).tolist() == pytest.approx(expected, abs=1e-11)


def test_consensus_kl_is_the_mutual_information():
    log_probs = some_draws()
    assert consensus_kl(log_probs).equal(bald(log_probs))
    expected = [reference.consensus_kl(row) for row in log_probs.exp().tolist()]
    assert bald(log_probs).tolist() == pytest.approx(expected, abs=1e-13)


@pytest.mark.parametrize("measure", ON_VOTES)
def test_votes_of_equal_probabilities_go_to_the_lowest_class(measure):
    tied = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.5, 0.25, 0.25]]).log()
    other = torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]]).log()
    found = measure(torch.stack([tied, other]))
    assert found[0] == 0
    assert found[1] == measure(committees_of([1, 0, 0])).float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("measure", ON_VOTES)
def test_votes_shared_out_alike_are_equal_to_the_last_bit(measure, dtype):
    n_members, n_classes = 13, 9
    votes = torch.tensor([0] * 5 + [1] * 3 + [2] * 3 + [3, 4])
    orders = torch.rand(500, n_members, generator=torch.Generator().manual_seed(0)).argsort(1)
    names = torch.rand(500, n_classes, generator=torch.Generator().manual_seed(1)).argsort(1)
    logits = torch.nn.functional.one_hot(names.gather(1, votes[orders]), n_classes).to(dtype)
    scores = measure(logits.log_softmax(2))
    assert len(scores.unique()) == 1


@pytest.mark.parametrize("measure", MEASURES.values())
def test_one_member_and_one_class_disagree_with_nobody(measure):
    log_probs = some_draws()
    assert measure(log_probs[:, :1]).tolist() == [0.0] * 50
    assert measure(torch.zeros(3, 4, 1)).tolist() == [0.0] * 3
    assert measure(log_probs[:, :1].expand(50, 6, 5)).tolist() == [0.0] * 50
    assert measure(log_probs[:0]).shape == (0,)
    assert measure(log_probs[7:8]).item() == pytest.approx(measure(log_probs)[7].item(), abs=1e-14)


@pytest.mark.parametrize("measure", MEASURES.values())
def test_a_committee_at_odds_scores_higher_than_one_of_one_mind(measure):
    scores = measure(torch.tensor([[[0.6, 0.4], [0.6, 0.4]], [[0.9, 0.1], [0.1, 0.9]]]).log())
    assert scores[1] > scores[0]


@pytest.mark.parametrize("measure", MEASURES.values())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_taken_and_scored_in_float32(measure, dtype):
    log_probs = some_draws(dtype=dtype)
    scores = measure(log_probs)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), measure(log_probs.double().log_softmax(2)), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("measure", MEASURES.values())
@pytest.mark.parametrize("limit", [1, 300, 10_000])
def test_chunks_do_not_change_the_answer(measure, limit, monkeypatch):
    log_probs = some_draws()
    whole = measure(log_probs)
    monkeypatch.setattr(information, "values_per_chunk", lambda _: limit)
    torch.testing.assert_close(measure(log_probs), whole, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("measure", ON_VOTES)
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([[0.9, 0.1], [0.5, 0.5]], r"the largest that member 0 gives row 2 is 0\.9"),
        ([[-0.1, -3.0], [math.nan, 0.0]], "member 1 gives row 2 is nan"),
        ([[-0.1, -3.0], [math.inf, 0.0]], "member 1 gives row 2 is inf"),
        ([[-0.1, -3.0], [-math.inf, -math.inf]], "member 1 gives row 2 is -inf"),
    ],
)
def test_refuses_what_is_not_a_log_probability(measure, row, message, monkeypatch):
    fine = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    monkeypatch.setattr(information, "values_per_chunk", lambda _: 1)
    with pytest.raises(DataError, match=message):
        measure(torch.stack([fine, fine, torch.tensor(row), fine]))


@pytest.mark.parametrize("measure", MEASURES.values())
@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2, 2), (3, 0, 2), (3, 2, 0)])
def test_refuses_wrong_shapes(measure, shape):
    with pytest.raises(ShapeError, match=r"3 axes|at least one draw and one class"):
        measure(torch.zeros(shape))


@pytest.mark.parametrize("measure", MEASURES.values())
def test_refuses_whole_numbers_and_texts(measure):
    with pytest.raises(ShapeError, match="floating point"):
        measure(torch.zeros(2, 2, 1, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"must be a torch\.Tensor"):
        measure("0.0")


@pytest.mark.gpu
@pytest.mark.parametrize("measure", MEASURES.values())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_cuda_gives_the_values_of_the_cpu(measure, dtype, monkeypatch):
    log_probs = some_draws(500, dtype=dtype)
    want = measure(log_probs)
    monkeypatch.setattr(information, "values_per_chunk", lambda _: 9000)
    found = measure(log_probs.cuda())
    assert found.is_cuda
    assert found.dtype == want.dtype
    exact = {} if measure is consensus_kl else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(found.cpu(), want, **(exact or {"rtol": 1e-4, "atol": 1e-6}))
