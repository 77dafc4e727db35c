import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.references import bald as reference
from torchal.engine import information
from torchal.errors import DataError, ShapeError
from torchal.functional import (
    bald,
    power_bald,
    power_scores,
    softmax_bald,
    softmax_scores,
    softrank_bald,
    softrank_scores,
)


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def some_draws(n_rows=50, n_draws=7, n_classes=5, dtype=torch.float64, scale=2.0):
    """Return log-probabilities of draws, among them rows that are sure, equal, and without some class."""
    logits = scale * torch.randn(n_rows, n_draws, n_classes, generator=seeded(), dtype=torch.float64)
    logits[1::7, :, 0] = 60.0
    logits[2::7] = logits[2::7, :1]
    logits[3::7, :, 1:2] = -math.inf
    logits[4::7, ::2, -1] = 1e4
    return logits.log_softmax(2).to(dtype)


@st.composite
def draws_of_rows(draw):
    n_rows, n_draws, n_classes = (draw(st.integers(1, most)) for most in (4, 5, 4))
    n = n_rows * n_draws * n_classes
    weights = draw(st.lists(st.sampled_from([0.0, 1e-30, 1e-3, 0.5, 1.0, 3.0]), min_size=n, max_size=n))
    weights = torch.tensor(weights, dtype=torch.float64).view(n_rows, n_draws, n_classes)
    weights[..., 0] += (weights.sum(2) == 0).double()
    return (weights / weights.sum(2, keepdim=True)).log()


def test_literal():
    rows = [
        [[1.0, 0.0], [0.0, 1.0]],  # sure, and against each other: one bit
        [[0.5, 0.5], [0.5, 0.5]],  # unsure, and of one mind
        [[1.0, 0.0], [0.5, 0.5]],  # H(3/4, 1/4) - log(2) / 2
    ]
    expected = [math.log(2), 0.0, 2 * math.log(2) - 0.75 * math.log(3) - 0.5 * math.log(2)]
    assert bald(torch.tensor(rows, dtype=torch.float64).log()).tolist() == pytest.approx(expected, abs=1e-15)


@given(draws_of_rows())
def test_agrees_with_its_definition(log_probs):
    scores = bald(log_probs)
    assert scores.tolist() == pytest.approx([reference.bald(row) for row in log_probs.exp().tolist()], abs=1e-14)
    assert bool((scores >= 0).all())


@given(draws_of_rows())
def test_the_order_of_draws_and_classes_does_not_matter(log_probs):
    want = bald(log_probs)
    assert bald(log_probs.flip(1, 2)).tolist() == pytest.approx(want.tolist(), abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n_draws", [1, 3, 20])
def test_equal_draws_are_exactly_zero(n_draws, dtype):
    logits = 5 * torch.randn(40, 1, 6, generator=seeded())
    log_probs = logits.log_softmax(2).to(dtype).expand(40, n_draws, 6)
    assert bald(log_probs).tolist() == [0.0] * 40


def test_draws_that_hardly_differ_are_not_lost_in_rounding():
    logits = torch.randn(200, 1, 100, generator=seeded()) + 0.01 * torch.randn(200, 20, 100, generator=seeded(1))
    log_probs = logits.log_softmax(2)
    exact = bald(log_probs.double())
    assert float(exact.max()) < 1e-4
    torch.testing.assert_close(bald(log_probs).double(), exact, rtol=0, atol=2e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n_draws", "n_classes"), [(20, 10), (7, 3), (3, 100), (5, 1000)])
def test_equal_rows_have_equal_scores_wherever_they_stand(n_draws, n_classes, dtype):
    some = some_draws(23, n_draws, n_classes, dtype=dtype)
    rows = torch.arange(3001) % 23
    scores = bald(some[rows])
    for row in range(23):
        assert len(scores[rows == row].unique()) == 1


@pytest.mark.parametrize("n_classes", [1, 2, 30])
def test_the_bounds(n_classes):
    assert bald(torch.zeros(3, 4, 1)).tolist() == [0.0] * 3
    sure = torch.full((1, 5, n_classes), -math.inf)
    for draw in range(5):
        sure[0, draw, draw % n_classes] = 0.0
    votes = torch.arange(5).remainder(n_classes).bincount().double() / 5
    assert bald(sure).item() == pytest.approx(torch.special.entr(votes).sum().item(), abs=1e-6)


@pytest.mark.parametrize("floor", [-90.0, -1e4, -1e30, -3e38])
def test_probabilities_that_float32_cannot_hold(floor):
    log_probs = torch.tensor([[[0.0, floor], [floor, 0.0]], [[0.0, floor], [0.0, floor]]])
    assert bald(log_probs).tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)


def test_classes_that_no_draw_predicts_count_for_nothing():
    log_probs = some_draws()
    nobody = torch.full((50, 7, 3), -math.inf, dtype=torch.float64)
    torch.testing.assert_close(bald(torch.cat([nobody, log_probs], 2)), bald(log_probs), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_is_taken_and_scored_in_float32(dtype):
    log_probs = some_draws(dtype=dtype)
    scores = bald(log_probs)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), bald(log_probs.double().log_softmax(2)), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("limit", [1, 300, 10_000])
@pytest.mark.parametrize("score", [bald, power_bald, softmax_bald, softrank_bald])
def test_chunks_do_not_change_the_answer(score, limit, monkeypatch):
    log_probs = some_draws(120)
    if score is not bald:
        log_probs = log_probs[5::7]  # the logarithm of a score near 0 is one of rounding
    settings = {} if score is bald else {"generator": seeded()}
    whole = score(log_probs, **settings)
    monkeypatch.setattr(information, "values_per_chunk", lambda _: limit)
    settings = {} if score is bald else {"generator": seeded()}
    torch.testing.assert_close(score(log_probs, **settings), whole, rtol=1e-12, atol=1e-15)


def test_layouts_and_gradients_do_not_matter_and_the_input_stays():
    log_probs = some_draws()
    before, want = log_probs.clone(), bald(log_probs)
    for other in (
        log_probs.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        torch.stack([log_probs, log_probs], 3)[..., 0],
        log_probs.clone().requires_grad_(),
    ):
        got = bald(other)
        assert got.equal(want)
        assert not got.requires_grad
    assert log_probs.equal(before)


def test_rows_draws_of_one_row_and_none():
    log_probs = some_draws()
    assert bald(log_probs[7:8]).item() == pytest.approx(bald(log_probs)[7].item(), abs=1e-14)
    assert bald(log_probs[:0]).shape == (0,)


def test_contradicting_draws_score_higher_than_unsure_ones():
    contradicting, unsure = [[0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.5, 0.5]]
    scores = bald(torch.tensor([unsure, contradicting]).log())
    assert scores[1] > scores[0]


def test_stochastic_ones_perturb_the_scores():
    log_probs = some_draws()
    pairs = ((power_bald, power_scores), (softmax_bald, softmax_scores), (softrank_bald, softrank_scores))
    for on_draws, on_scores in pairs:
        want = on_scores(bald(log_probs), beta=3.0, generator=seeded())
        assert on_draws(log_probs, beta=3.0, generator=seeded()).equal(want)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([[0.5, 0.5], [0.9, 0.1]], r"row 2 sums to 3\.\d+ after exp, in the mean over its draws"),
        ([[-0.1, -0.1], [-0.1, -0.1]], r"row 2 sums to 1\.81"),
        ([[math.nan, 0.0], [0.0, -math.inf]], "row 2 sums to nan"),
        ([[0.0, -math.inf], [math.inf, 0.0]], "row 2 sums to"),
        ([[-math.inf, -math.inf], [-math.inf, -math.inf]], "row 2 sums to 0 "),
        ([[-math.inf, -math.inf], [0.0, -math.inf]], r"row 2 sums to 0\.5 "),
    ],
)
def test_refuses_what_is_not_a_log_probability(row, message, monkeypatch):
    fine = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    monkeypatch.setattr(information, "values_per_chunk", lambda _: 1)
    with pytest.raises(DataError, match=message):
        bald(torch.stack([fine, fine, torch.tensor(row), fine]))


@pytest.mark.parametrize("shape", [(3,), (3, 2), (3, 2, 2, 2), (3, 0, 2), (3, 2, 0)])
def test_refuses_wrong_shapes(shape):
    with pytest.raises(ShapeError, match=r"3 axes|at least one draw and one class"):
        bald(torch.zeros(shape))


def test_refuses_whole_numbers_and_texts():
    with pytest.raises(ShapeError, match="floating point"):
        bald(torch.zeros(2, 2, 1, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"must be a torch\.Tensor"):
        bald("0.0")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_classes", [2, 9])
def test_cuda_gives_the_values_of_the_cpu(n_classes, dtype, monkeypatch):
    log_probs = some_draws(500, n_classes=n_classes, dtype=dtype)
    want = bald(log_probs)
    monkeypatch.setattr(information, "values_per_chunk", lambda _: 9000)
    found = bald(log_probs.cuda())
    assert found.is_cuda
    assert found.dtype == want.dtype
    torch.testing.assert_close(found.cpu(), want, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("score", [power_bald, softmax_bald, softrank_bald])
@pytest.mark.parametrize("generator_on", ["cpu", "cuda"])
def test_cuda_picks_what_the_cpu_picks(score, generator_on):
    log_probs = some_draws(500)
    here = score(log_probs, generator=seeded(device=generator_on))
    there = score(log_probs.cuda(), generator=seeded(device=generator_on))
    assert there.is_cuda
    assert there.topk(20).indices.tolist() == here.topk(20).indices.tolist()
