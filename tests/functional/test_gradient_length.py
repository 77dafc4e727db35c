import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import gradient_length as reference
from torchal import ConfigError, DataError, ShapeError
from torchal.engine import features as feature_rows
from torchal.functional import expected_gradient_length


def drawn(n_rows, n_classes, n_columns, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(n_rows, n_classes, generator=generator, dtype=dtype)
    return logits.log_softmax(1), torch.randn(n_rows, n_columns, generator=generator, dtype=dtype)


def test_literal():
    log_probs = torch.tensor([[0.5, 0.5], [0.75, 0.25]], dtype=torch.float64).log()
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)
    # |p - e| is sqrt(1/2) for either label of the first row; of the second sqrt(2) / 4 and 3 sqrt(2) / 4
    want = [5 * math.sqrt(0.5), 0.0]
    assert expected_gradient_length(log_probs, x, bias=False).tolist() == pytest.approx(want)
    want = [math.sqrt(26) * math.sqrt(0.5), 2 * math.sqrt(2) * 0.75 * 0.25]
    assert expected_gradient_length(log_probs, x).tolist() == pytest.approx(want)


@settings(deadline=None)
@given(
    n_rows=st.integers(1, 6),
    n_classes=st.integers(1, 6),
    n_columns=st.integers(1, 4),
    seed=st.integers(0, 1000),
    bias=st.booleans(),
)
def test_agrees_with_gradients(n_rows, n_classes, n_columns, seed, bias):
    log_probs, x = drawn(n_rows, n_classes, n_columns, seed)
    found = expected_gradient_length(log_probs, x, bias=bias).tolist()
    rows = zip(log_probs.exp().tolist(), x.tolist(), strict=True)
    assert found == pytest.approx([reference.expected_gradient_length(p, h, bias) for p, h in rows], rel=1e-9)


@pytest.mark.parametrize("small", [1e-3, 1e-9, 1e-20, 1e-30])
def test_nothing_is_lost_where_the_largest_probability_rounds_to_one(small):
    log_probs = torch.tensor([[1 - 3 * small, small, 2 * small]], dtype=torch.float64).log().float()
    want = reference.expected_gradient_length([1 - 3 * small, small, 2 * small], [2.0], bias=True)
    assert float(expected_gradient_length(log_probs, torch.tensor([[2.0]]))) == pytest.approx(want, rel=1e-5)


def test_probabilities_of_zero_and_one():
    log_probs = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]).log()
    found = expected_gradient_length(log_probs, torch.tensor([[5.0], [0.0]]))
    assert found.tolist() == pytest.approx([0.0, math.sqrt(0.5)])


def test_one_class_never_moves():
    assert expected_gradient_length(torch.zeros(3, 1), torch.rand(3, 2)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(("size", "want"), [(1e30, 5e30), (1e-30, 5e-30)])
def test_the_length_of_large_and_small_features(size, want):
    log_probs = torch.tensor([[0.5, 0.5]]).log()
    x = torch.tensor([[3.0, 4.0]]) * size
    assert float(expected_gradient_length(log_probs, x, bias=False)) == pytest.approx(want * math.sqrt(0.5))
    with_bias = float(expected_gradient_length(log_probs, x))
    assert with_bias == pytest.approx(max(want, 1.0) * math.sqrt(0.5))


def test_a_doubtful_row_scores_higher_than_a_sure_one():
    log_probs = torch.tensor([[0.98, 0.01, 0.01], [0.34, 0.33, 0.33]]).log()
    sure, doubtful = expected_gradient_length(log_probs, torch.ones(2, 4))
    assert doubtful > sure


def test_half_precision():
    log_probs, x = drawn(50, 5, 4, dtype=torch.float32)
    log_probs, x = (log_probs / 2).log_softmax(1).half(), x.half()
    found = expected_gradient_length(log_probs, x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected_gradient_length(log_probs.double(), x.double()).float())


def test_equal_rows_have_equal_scores_and_chunks_do_not_change_them(monkeypatch):
    log_probs, x = drawn(101, 7, 3)
    whole = expected_gradient_length(log_probs, x)
    same = expected_gradient_length(log_probs[:1].expand(50, -1), x[:1].expand(50, -1))
    assert same.unique().numel() == 1
    monkeypatch.setattr(feature_rows, "values_per_chunk", lambda _: 20)
    monkeypatch.setattr(feature_rows, "SMALLEST_CHUNK", 1)
    torch.testing.assert_close(expected_gradient_length(log_probs, x), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"log_probs": torch.tensor([[0.5, 0.5]] * 3)}, DataError, "row 0 sums to 3.297"),
        ({"log_probs": torch.tensor([[0.0, -math.inf], [math.nan, 0.0], [0.0, -math.inf]])}, DataError, "row 1"),
        ({"log_probs": torch.zeros(3)}, ShapeError, "2 axes"),
        ({"log_probs": torch.zeros(3, 0)}, ShapeError, "at least one column"),
        ({"log_probs": torch.zeros(2, 1)}, ShapeError, r"log_probs must be \(3, C\) on cpu, got \(2, 1\)"),
        ({"log_probs": torch.zeros(3, 1, dtype=torch.int64)}, ShapeError, "floating point"),
        ({"features": torch.full((3, 2), math.inf)}, DataError, "features must be finite"),
        ({"features": torch.zeros(3, 2, dtype=torch.complex64)}, ShapeError, "features must be real numbers"),
        ({"bias": "no"}, ConfigError, "bias must be true or false"),
    ],
)
def test_refuses_what_it_cannot_use(change, error, message):
    arguments = {"log_probs": torch.zeros(3, 1), "features": torch.rand(3, 2)} | change
    with pytest.raises(error, match=message):
        expected_gradient_length(**arguments)


@pytest.mark.gpu
def test_cuda_gives_the_same():
    log_probs, x = drawn(3000, 7, 5)
    found = expected_gradient_length(log_probs.cuda(), x.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected_gradient_length(log_probs, x))
    with pytest.raises(ShapeError, match=r"log_probs must be \(3000, C\) on cuda:0, got .* on cpu"):
        expected_gradient_length(log_probs, x.cuda())
