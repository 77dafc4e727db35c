import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, Dataset, TensorDataset

from torchal import ActiveLearner, DatasetInputs, Pool
from torchal.errors import DataError, ShapeError
from torchal.pool.inputs import SparseInputs, as_inputs, gather, have_distances, is_streamed, joined, read_rows
from torchal.samplers import Margin

ROWS = torch.arange(12.0).reshape(4, 3)


def test_what_is_streamed(tmp_path):
    np.save(tmp_path / "x.npy", ROWS.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert is_streamed(mapped)
    assert is_streamed(TensorDataset(ROWS))
    assert is_streamed(DatasetInputs(TensorDataset(ROWS)))
    assert not is_streamed(ROWS)
    assert not is_streamed(ROWS.numpy())
    assert read_rows(mapped, [1, 0]).equal(ROWS[[1, 0]])
    assert isinstance(gather(mapped, torch.tensor([1])), np.ndarray)
    assert not is_streamed(as_inputs(np.array(["a"])))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float32, True), (torch.float16, True), (torch.uint8, True), (torch.bool, True), (torch.int64, False)],
)
def test_which_rows_have_distances(dtype, expected, tmp_path):
    rows = torch.ones(4, 3).to(dtype)
    mapped = np.lib.format.open_memmap(tmp_path / "rows.npy", mode="w+", dtype=rows.numpy().dtype, shape=(4, 3))
    for inputs in (rows, mapped, DatasetInputs(TensorDataset(rows))):
        assert have_distances(inputs) == expected
    assert not have_distances(SparseInputs(rows.float().to_sparse()))
    assert not have_distances(ByNumber(lambda rows: ["text"] * len(rows)))


def test_other_byte_orders_are_read(tmp_path):
    np.save(tmp_path / "x.npy", ROWS.numpy().astype(">f4"))
    assert read_rows(np.load(tmp_path / "x.npy", mmap_mode="r"), [2]).equal(ROWS[2:3])


class Made(Dataset):
    """Rows that a function makes of their numbers."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 6

    def __getitem__(self, row):
        return self.make(row)


class ByNumber:
    """Six rows that give whatever they are told to for numbers of rows."""

    def __init__(self, answer):
        self.answer = answer

    def __len__(self):
        return 6

    def __getitem__(self, rows):
        return self.answer(rows)


def broken(row):
    raise OSError("the disk")


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        ("abcdef", DataError, "which str does not: TypeError"),
        ({i: i for i in range(6)}, DataError, "which dict does not: KeyError"),
        ({1, 2, 3}, DataError, "which set does not: TypeError"),
        (range(6), DataError, "which range does not: TypeError"),
        (None, DataError, "a length and rows by number, got NoneType"),
        (iter([1.0]), DataError, "a length and rows by number, got list_iterator"),
        (torch.tensor(1.0), DataError, "a length and rows by number, got Tensor"),
        (DataLoader(TensorDataset(torch.rand(6, 2))), DataError, r"DatasetInputs\(loader.dataset\)"),
        (torch.rand(6), ShapeError, r"got shape \(6,\); one feature is"),
        (torch.rand(6, 0), ShapeError, r"at least one column, got shape \(6, 0\)"),
        (np.ma.masked_array(np.ones((6, 2)), mask=[[True, False]] * 6), DataError, "6 masked values"),
        (np.array([[["a"]]] * 6), ShapeError, r"texts or objects must be .*, got shape \(6, 1, 1\)"),
        (np.array(["a", None], dtype=object), DataError, "1 of 2 are not, the first is row 1, of type NoneType"),
        (["a", 1.0], DataError, "1 of 2 are not, the first is row 1, of type float"),
        ([], ShapeError, "a row axis and at least one more"),
        (np.zeros(6, [("a", "f4")]), DataError, "must be numbers, got an array of"),
        (np.zeros((6, 2), "M8[s]"), DataError, "must be numbers, got an array of datetime64"),
        (torch.zeros(6, 2, dtype=torch.complex64), DataError, "real numbers, got torch.complex64"),
        (torch.zeros(6, 2).to(torch.float8_e4m3fn), DataError, "real numbers, got torch.float8_e4m3fn"),
        (torch.zeros(6, 2, device="meta"), DataError, "real numbers, got torch.float32 on meta"),
        (Made(lambda row: torch.zeros(row + 1)), ShapeError, r"row 0 has \(1,\), row 5 has \(6,\)"),
        (Made(broken), DataError, r"row 0 of the data set \(Made\) cannot be read: OSError: the disk"),
        (Made(lambda row: "text"), DataError, "got str; give to_row="),
        (Made(lambda row: {"x": "text"}), DataError, r"row 0 of the data set \(Made\) .* 'x' is no tensor.* but str"),
        (
            Made(lambda row: {"x": [1] * (row + 1)}),
            ShapeError,
            r"of 'x': row 0 has \(1,\), row 5 has \(6,\); give",
        ),
        (DatasetInputs(Made(lambda row: row), to_row=lambda row: [row]), DataError, "to_row must return .*, got list"),
        (ByNumber(lambda rows: "x"), DataError, "6 rows for 6|2 rows for 2 numbers, ByNumber gave str of length 1"),
        (ByNumber(lambda rows: [[1.0]] * 5), DataError, "2 rows for 2 numbers, ByNumber gave list of length 5"),
        (ByNumber(lambda rows: rows[7]), DataError, "which ByNumber does not: IndexError"),
    ],
)
def test_what_no_model_could_read_stays_out_of_a_pool(inputs, error, words):
    with pytest.raises(error, match=words):
        Pool.unlabeled(inputs, n_classes=2)


def test_rows_that_training_reads_otherwise_are_looked_at_too():
    good = TensorDataset(torch.rand(6, 2))
    with pytest.raises(DataError, match="the disk"):
        Pool.unlabeled(DatasetInputs(good, train=Made(broken)), n_classes=2)


def test_half_precision_reaches_a_model_of_numpy():
    x = (torch.arange(12.0).reshape(6, 2) / 12).bfloat16()
    learner = ActiveLearner(LogisticRegression(), Margin(), Pool.unlabeled(x, n_classes=2))
    learner.tell([0, 5, 1, 4], [0, 1, 0, 1])
    assert len(learner.ask(1)) == 1


class TestJoined:
    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ([[1, 2]], [[0.5, 1.0]], "int64, which cannot hold 1 of 2 new rows"),
            ([[1, 2]], [[math.nan, 1.0]], "int64, which cannot hold 1 of 2 new rows"),
            ([[1.0, 2.0]], [[1e300, 1.0]], "float32, which cannot hold 1 of 2 new rows"),
        ],
    )
    def test_no_value_becomes_another(self, old, new, words):
        more = torch.tensor([*new, [1.0, 2.0]], dtype=torch.float64)
        with pytest.raises(DataError, match=words):
            joined(torch.tensor(old), more)
        assert joined(torch.tensor(old), more[1:]).tolist() == [*old, [1.0, 2.0]]
