import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.references import uncertainty as reference
from torchal import functional
from torchal.errors import DataError, ShapeError
from torchal.functional import uncertainty

VALUES = st.floats(-50, 50, width=32)
ON_LOG_PROBS = ["entropy", "least_confidence"]


@st.composite
def matrices(draw):
    n_rows, n_columns = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    rows = draw(st.lists(st.lists(VALUES, min_size=n_columns, max_size=n_columns), min_size=n_rows, max_size=n_rows))
    return torch.tensor(rows, dtype=torch.float64).reshape(n_rows, n_columns)


def test_margin_literal():
    assert functional.margin(torch.tensor([[3.0, 1.0, 2.5], [1.0, 1.0, 0.0]])).tolist() == [-0.5, 0.0]
    assert functional.margin(torch.tensor([[-2.0], [0.5]])).tolist() == [-2.0, -0.5]
    assert functional.margin(torch.tensor([-2.0, 0.5])).tolist() == [-2.0, -0.5]


def test_entropy_and_least_confidence_literal():
    log_probs = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], dtype=torch.float64).log()
    assert functional.entropy(log_probs).tolist() == pytest.approx([1.5 * math.log(2), 0.0])
    assert functional.least_confidence(log_probs).tolist() == [0.5, 0.0]


@given(matrices())
def test_margin_agrees_with_its_definition(values):
    assert functional.margin(values).tolist() == pytest.approx([reference.margin(row) for row in values.tolist()])


@pytest.mark.parametrize("name", ON_LOG_PROBS)
@given(logits=matrices())
def test_agrees_with_its_definition(name, logits):
    log_probs = logits.log_softmax(1)
    expected = [getattr(reference, name)(row) for row in log_probs.exp().tolist()]
    assert getattr(functional, name)(log_probs).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["margin", *ON_LOG_PROBS])
def test_chunks_do_not_change_the_answer(name, monkeypatch):
    log_probs = torch.randn(101, 7, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    whole = getattr(functional, name)(log_probs)
    monkeypatch.setattr(uncertainty, "_CHUNK_VALUES", 20)
    assert getattr(functional, name)(log_probs).equal(whole)


@pytest.mark.parametrize(
    ("name", "sure", "doubtful"),
    [
        ("margin", [4.0, -4.0, 0.0], [0.1, 0.0, 0.0]),
        ("entropy", [0.98, 0.01, 0.01], [0.34, 0.33, 0.33]),
        ("least_confidence", [0.98, 0.01, 0.01], [0.34, 0.33, 0.33]),
    ],
)
def test_a_doubtful_row_scores_higher_than_a_sure_one(name, sure, doubtful):
    rows = torch.tensor([sure, doubtful])
    scores = getattr(functional, name)(rows if name == "margin" else rows.log())
    assert scores[1] > scores[0]


@pytest.mark.parametrize("name", ON_LOG_PROBS)
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.5, 0.5], [0.9, 0.1]], "row 0 sums to 3.297"),
        ([[math.log(0.5)] * 2, [math.nan, 0.0]], "row 1 sums to nan"),
        ([[math.inf, 0.0]], "row 0 sums to inf"),
    ],
)
def test_refuses_what_is_not_a_log_probability(name, rows, message):
    with pytest.raises(DataError, match=message):
        getattr(functional, name)(torch.tensor(rows))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_margin_refuses_values_that_are_not_finite(bad):
    with pytest.raises(DataError, match="2 of 3 rows are not, the first is row 1"):
        functional.margin(torch.tensor([[0.0, 1.0], [bad, 0.0], [bad, bad]]))


@pytest.mark.parametrize("name", ["margin", *ON_LOG_PROBS])
@pytest.mark.parametrize("shape", [(3, 0), (2, 3, 4)])
def test_refuses_wrong_shapes(name, shape):
    with pytest.raises(ShapeError):
        getattr(functional, name)(torch.zeros(shape))


@pytest.mark.parametrize("name", ON_LOG_PROBS)
def test_log_probs_need_two_axes(name):
    with pytest.raises(ShapeError, match="2 axes"):
        getattr(functional, name)(torch.zeros(3))


@pytest.mark.parametrize("name", ON_LOG_PROBS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_classes", [2, 10, 1000])
def test_half_precision_is_taken_and_scored_in_float32(name, dtype, n_classes):
    log_probs = torch.randn(500, n_classes, generator=torch.Generator().manual_seed(0)).to(dtype).log_softmax(1)
    scores = getattr(functional, name)(log_probs)
    assert scores.dtype == torch.float32
    exact = getattr(functional, name)(log_probs.double().log_softmax(1))
    assert scores.numpy() == pytest.approx(exact.numpy(), rel=0.1, abs=0.01)
    with pytest.raises(DataError, match="row 0 sums to"):
        getattr(functional, name)(log_probs.exp())
