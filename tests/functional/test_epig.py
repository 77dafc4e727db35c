import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.references import epig as reference
from torchal import DataError, ShapeError
from torchal.engine import information
from torchal.functional.epig import epig, epig_of_targets


def draws(n_rows, n_draws, n_classes, *, seed=0, scale=2.0, agree=0.0, n_features=3, dtype=torch.float64):
    """Return log-probabilities (n, K, C) by linear models that have nothing in common, or a share."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(n_rows, n_features, generator=generator, dtype=torch.float64)
    weights = torch.randn(n_draws, n_features, n_classes, generator=generator, dtype=torch.float64)
    weights = torch.lerp(weights, weights[:1], agree)
    return (scale * torch.einsum("nd,kdc->nkc", features, weights)).log_softmax(2).to(dtype)


@st.composite
def pools(draw):
    n_rows, n_targets = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    n_draws, n_classes = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    some = draws(n_rows + n_targets, n_draws, n_classes, seed=draw(st.integers(0, 99)), scale=draw(st.floats(0, 9)))
    if draw(st.booleans()):  # probabilities of 0 and 1
        sure = some.exp().round()
        keep = sure.sum(2, keepdim=True) == 1
        some = torch.where(keep, sure.log(), some)
    return some[:n_rows], some[n_rows:]


def test_a_label_that_decides_the_target_is_worth_its_entropy():
    pool = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]])
    assert epig(pool.log(), pool[:1].log()).tolist() == pytest.approx([math.log(2), 0, 0], abs=1e-6)


def test_literal():
    # one of two equally likely draws: the joint probabilities are 0.41 on the diagonal, 0.09 off it
    row = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]])
    expected = 2 * 0.41 * math.log(0.41 / 0.25) + 2 * 0.09 * math.log(0.09 / 0.25)
    assert epig(row.log(), row.log()).tolist() == pytest.approx([expected], abs=1e-6)


def test_what_matters_to_no_target_scores_lower_than_what_does():
    of_one, of_other = [0.9, 0.9, 0.1, 0.1], [1.0, 0.0, 1.0, 0.0]  # four draws
    pool = torch.tensor([of_one, of_other], dtype=torch.float64)
    pool = torch.stack([pool, 1 - pool], 2).log()
    scores = epig(pool, pool[:1])
    assert scores[0] > 0.1
    assert scores[1] == pytest.approx(0, abs=1e-12)  # BALD would pick it


@given(pools())
def test_agrees_with_its_definition(pool_and_targets):
    pool, targets = pool_and_targets
    expected = reference.epig(pool.exp().tolist(), targets.exp().tolist())
    assert epig(pool, targets).tolist() == pytest.approx(expected, abs=1e-10)
    assert epig(pool.float(), targets.float()).tolist() == pytest.approx(expected, abs=1e-5)


@given(pools())
def test_targets_agree_with_the_definition(pool_and_targets):
    for targets in pool_and_targets:
        expected = reference.epig_of_targets(targets.exp().tolist())
        assert epig_of_targets(targets).tolist() == pytest.approx(expected, abs=1e-10)
        assert epig_of_targets(targets.float()).tolist() == pytest.approx(expected, abs=1e-5)


def test_a_single_target_has_no_other_and_refuses_what_epig_refuses():
    assert epig_of_targets(draws(1, 4, 3)).tolist() == [0]
    with pytest.raises(ShapeError, match="at least one row"):
        epig_of_targets(draws(1, 4, 3)[:0])
    with pytest.raises(DataError, match="row 0 sums to"):
        epig_of_targets(draws(3, 4, 3).exp())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_chunks_of_targets_do_not_change_the_answer(dtype, monkeypatch):
    targets = draws(23, 4, 3).to(dtype)
    whole = epig_of_targets(targets)
    assert whole.dtype == torch.float32
    monkeypatch.setattr(sys.modules[epig.__module__], "values_per_chunk", lambda device: 25)
    torch.testing.assert_close(epig_of_targets(targets), whole, atol=1e-7, rtol=1e-5)


def test_no_two_dozen_targets_change_the_scale():
    pool, targets = draws(5, 4, 3), draws(3, 4, 3, seed=1)
    assert epig(pool, targets.repeat(8, 1, 1)).tolist() == pytest.approx(epig(pool, targets).tolist(), abs=1e-12)


def test_small_information_keeps_its_digits_in_float32():
    pool, targets = draws(50, 6, 4, scale=0.05), draws(20, 6, 4, seed=1, scale=0.05)
    exact = epig(pool, targets)
    assert float(exact.max()) < 1e-4
    assert epig(pool.float(), targets.float()).tolist() == pytest.approx(exact.tolist(), abs=2e-6)


def test_labels_that_are_left_out_cost_what_is_said():
    pool, targets = draws(200, 8, 6, scale=12.0), draws(40, 8, 6, seed=1, scale=12.0)
    less = epig(pool, targets) - epig(pool.float(), targets.float())
    assert float(less.abs().max()) < 4e-6


@pytest.mark.parametrize("n_values", [1, 7, 300])
def test_chunks_do_not_change_the_answer(n_values, monkeypatch):
    pool, targets = draws(23, 4, 3), draws(11, 4, 3, seed=1)
    whole = epig(pool, targets)
    monkeypatch.setattr(information, "_CACHED_VALUES", n_values)
    monkeypatch.setattr(information, "values_per_chunk", lambda device: 5 * n_values)
    assert epig(pool, targets).tolist() == pytest.approx(whole.tolist(), abs=1e-12)


@pytest.mark.parametrize("case", ["one draw", "one class", "equal draws", "sure"])
def test_labels_that_say_nothing_score_zero(case):
    some = {
        "one draw": draws(6, 1, 3),
        "one class": torch.zeros(6, 4, 1),
        "equal draws": draws(6, 1, 3).expand(6, 5, 3),
        "sure": torch.tensor([1.0, 0.0, 0.0]).log().expand(6, 5, 3),
    }[case]
    assert epig(some, some[:2]).tolist() == pytest.approx([0.0] * 6, abs=1e-12)


def test_equal_rows_score_the_same_and_a_class_never_predicted_changes_nothing():
    pool, targets = draws(5, 4, 3), draws(4, 4, 3, seed=1)
    scores = epig(pool, targets)
    again = epig(torch.cat([pool, pool]), targets)
    assert again.tolist() == pytest.approx(scores.tolist() * 2, abs=1e-12)
    wider = [torch.nn.functional.pad(x, (0, 1), value=-math.inf) for x in (pool, targets)]
    assert epig(*wider).tolist() == pytest.approx(scores.tolist(), abs=1e-12)


def test_no_rows_have_no_scores():
    assert epig(torch.zeros(0, 3, 2), draws(2, 3, 2)).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_and_scored_in_float32(dtype):
    pool, targets = draws(30, 5, 4, scale=1.0), draws(10, 5, 4, seed=1, scale=1.0)
    scores = epig(pool.to(dtype), targets.to(dtype))
    assert scores.dtype == torch.float32
    assert scores.tolist() == pytest.approx(epig(pool, targets).tolist(), abs=0.02)


def test_settings_of_the_caller_do_not_matter():
    pool, targets = draws(6, 3, 2).requires_grad_(), draws(3, 3, 2, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        scores = epig(pool, targets)
    assert not scores.requires_grad
    assert scores.equal(epig(pool.detach(), targets))


@pytest.mark.parametrize(
    ("pool", "targets", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3, 1), r"pool_log_probs must have 3 axes, got shape \(2, 3\)"),
        (torch.zeros(2, 3, 1), torch.zeros(2, 3), r"target_log_probs must have 3 axes"),
        (torch.zeros(2, 3, 1).long(), torch.zeros(2, 3, 1), "floating point"),
        (torch.zeros(2, 0, 1), torch.zeros(2, 0, 1), r"at least one draw and one class, got shape \(2, 0, 1\)"),
        (torch.zeros(2, 3, 1), torch.zeros(2, 4, 1), "same draws on the same device, got 3 on cpu and 4 on cpu"),
        (torch.zeros(2, 3, 1), torch.zeros(2, 3, 1, device="meta"), "got 3 on cpu and 3 on meta"),
        (torch.zeros(2, 3, 1), torch.zeros(0, 3, 1), "at least one row, got none"),
    ],
)
def test_refuses_wrong_shapes(pool, targets, message):
    with pytest.raises(ShapeError, match=message):
        epig(pool, targets)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.5])
@pytest.mark.parametrize("which", [0, 1])
def test_refuses_what_is_not_a_log_probability(bad, which, monkeypatch):
    monkeypatch.setattr(information, "values_per_chunk", lambda device: 12)
    inputs = [draws(7, 3, 2), draws(6, 3, 2, seed=1)]
    inputs[which][4, 1, 0] = bad
    name = ("pool_log_probs", "target_log_probs")[which]
    with pytest.raises(DataError, match=rf"{name} must hold logarithms.*row 4 sums to .* under draw 1, not to 1"):
        epig(*inputs)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_cuda_gives_the_values_of_the_cpu(dtype):
    pool, targets = draws(300, 8, 5, dtype=dtype), draws(70, 8, 5, seed=1, dtype=dtype)
    want, found = epig(pool, targets), epig(pool.cuda(), targets.cuda())
    assert found.is_cuda
    assert found.dtype == want.dtype
    torch.testing.assert_close(found.cpu(), want, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(epig_of_targets(targets.cuda()).cpu(), epig_of_targets(targets), atol=1e-6, rtol=1e-4)
