import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.references import uncertainty as reference
from torchal import FileRows, functional
from torchal.errors import DataError, ShapeError
from torchal.functional import draw_labels, log_odds, uncertainty

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_odds_are_those_of_the_probabilities(dtype):
    probs = torch.tensor([[0.7, 0.2, 0.1], [1e-6, 1 - 2e-6, 1e-6], [0.5, 0.5, 0.0]], dtype=torch.float64)
    expected = (probs / (1 - probs)).log()
    assert torch.allclose(log_odds(probs.log().to(dtype)).double(), expected, rtol=1e-5)
    assert log_odds(torch.tensor([[1.0, 0.0]]).log()).tolist() == [[math.inf, -math.inf]]


def test_log_odds_of_two_classes_are_the_decision_value():
    values = torch.linspace(-20, 20, 41, dtype=torch.float64)
    log_probs = torch.stack([-values, values], 1).log_softmax(1)
    assert torch.allclose(log_odds(log_probs), torch.stack([-2 * values, 2 * values], 1))


def test_drawn_labels_have_the_predicted_distribution():
    log_probs = torch.tensor([0.1, 0.0, 0.6, 0.3]).log().expand(4000, 4)
    counts = draw_labels(log_probs, generator=torch.Generator().manual_seed(0)).bincount(minlength=4)
    assert counts[1] == 0
    expected = 4000 * torch.tensor([0.1, 0.6, 0.3])
    assert ((counts[[0, 2, 3]] - expected) ** 2 / expected).sum() < 13.8  # 2 degrees of freedom, p = 0.001


def test_drawn_labels_follow_the_generator_and_refuse_what_is_no_distribution():
    log_probs = torch.rand(50, 5).log_softmax(1)
    first, second, other = (draw_labels(log_probs, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert first.equal(second)
    assert not first.equal(other)
    with pytest.raises(DataError, match="row 0 sums to"):
        draw_labels(torch.tensor([[0.5, 0.5]]), generator=torch.Generator())


def some_log_probs(n_classes, dtype=torch.float64):
    logits = torch.randn(500, n_classes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_probs = (3 * logits).log_softmax(1)
    log_probs[0] = torch.tensor([0.0] + [-math.inf] * (n_classes - 1))
    return log_probs.to(dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("n_classes", [2, 9])
@pytest.mark.parametrize("name", ["margin", "entropy", "least_confidence", "log_odds"])
def test_cuda_gives_the_values_of_the_cpu(name, n_classes, dtype, monkeypatch):
    monkeypatch.setattr(uncertainty, "_CHUNK_VALUES", 900)
    values = some_log_probs(n_classes, dtype)
    values = values.exp() if name == "margin" else values
    want, found = getattr(functional, name)(values), getattr(functional, name)(values.cuda())
    assert found.is_cuda
    assert found.dtype == want.dtype
    torch.testing.assert_close(found.cpu(), want)


@pytest.mark.gpu
def test_cuda_gives_the_margin_of_one_decision_value():
    values = torch.tensor([0.5, -3.0, 0.0])
    for given_ in (values, values[:, None]):
        assert functional.margin(given_.cuda()).tolist() == [-0.5, -3.0, 0.0]


@pytest.mark.gpu
def test_cuda_draws_the_labels_of_the_cpu_from_a_generator_there():
    log_probs = some_log_probs(5)
    want = draw_labels(log_probs, generator=torch.Generator().manual_seed(1))
    found = draw_labels(log_probs.cuda(), generator=torch.Generator().manual_seed(1))
    assert found.is_cuda
    assert found.cpu().equal(want)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_labels_are_drawn_by_a_generator_on_cuda(device):
    log_probs = torch.tensor([0.2, 0.0, 0.8], dtype=torch.float64).log().expand(20_000, 3)
    log_probs = torch.cat([log_probs, torch.tensor([[-math.inf, 0.0, -math.inf]])]).to(device)
    first, again = (draw_labels(log_probs, generator=torch.Generator("cuda").manual_seed(1)) for _ in range(2))
    assert first.device.type == device
    assert first.equal(again)
    counts = first[:-1].bincount(minlength=3).tolist()
    assert counts[1] == 0
    assert counts[0] == pytest.approx(4000, abs=300)  # 5 standard deviations
    assert int(first[-1]) == 1


def test_a_row_that_is_surer_than_sure_is_as_sure_as_one():
    log_probs = torch.tensor([[1.0000001, 0.0], [0.5, 0.5]]).log()
    assert functional.entropy(log_probs)[0] == 0
    assert functional.least_confidence(log_probs)[0] == 0


def in_files(rows, path):
    """Return numbers as the rows of two files."""
    numbers = rows.view(torch.int16) if rows.dtype == torch.bfloat16 else rows
    for i, part in enumerate((numbers[:3], numbers[3:])):
        part.numpy().tofile(path / str(i))
    return FileRows([path / "0", path / "1"], rows.dtype, n_columns=rows.shape[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("n_classes", [1, 4])
def test_files_are_read_chunk_by_chunk(dtype, n_classes, tmp_path, monkeypatch):
    monkeypatch.setattr(uncertainty, "_CHUNK_VALUES", 8)
    log_probs = torch.randn(11, n_classes, generator=torch.Generator().manual_seed(0)).log_softmax(1).to(dtype)
    rows = in_files(log_probs, tmp_path)
    for name in ("margin", *ON_LOG_PROBS):
        function = getattr(functional, name)
        got, want = function(rows), function(log_probs)
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=0.01 if dtype == torch.bfloat16 else 1e-3, atol=1e-3)
        if dtype != torch.bfloat16:
            np.save(tmp_path / "x.npy", log_probs.numpy())
            assert torch.equal(function(np.load(tmp_path / "x.npy", mmap_mode="r")), got)
            assert torch.equal(function(np.load(tmp_path / "x.npy", mmap_mode="c")), want)


def test_errors_in_files_name_the_row_of_all(tmp_path, monkeypatch):
    monkeypatch.setattr(uncertainty, "_CHUNK_VALUES", 4)
    values = torch.zeros(9, 2)
    values[7, 1] = math.nan
    with pytest.raises(DataError, match="values must be finite: 1 of 2 rows are not, the first is row 7"):
        functional.margin(in_files(values, tmp_path))
    with pytest.raises(DataError, match="row 0 sums to 2 after exp"):
        functional.entropy(in_files(values, tmp_path))
    with pytest.raises(ShapeError, match=r"log_probs must be floating point, got torch\.int16"):
        functional.entropy(in_files(values.to(torch.int16), tmp_path))
