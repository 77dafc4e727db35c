import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from tests.token_nets import Texts, pad
from torchal import DatasetInputs
from torchal._batch import NamedRows
from torchal.errors import DataError
from torchal.models.rows import check_real, have_one_shape, row_shape, rows_per_chunk, rows_per_pass

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (torch.zeros(4, 3, 2), (3, 2)),
        (np.zeros((4, 3)), (3,)),
        (DatasetInputs(TensorDataset(torch.zeros(4, 3))), (3,)),
        (DatasetInputs([{"x": [1, 2], "age": 3.0}]), {"x": (2,), "age": ()}),
        (DatasetInputs(Texts(3), collate=pad), {"input_ids": (None,), "attention_mask": (None,)}),
        (NamedRows({"x": torch.zeros(4, 3)}), {"x": (3,)}),
    ],
)
def test_shapes_of_rows(inputs, expected):
    assert row_shape(inputs) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ((3, 2), (3, 2), True),
        ((3, 2), (2, 3), False),
        ((1,), {"x": (1,)}, False),
        ({"x": (1,)}, {"x": (1,)}, True),
        ({"x": (1,)}, {"x": (2,)}, False),
        ({"x": (1,)}, {"y": (1,)}, False),
        ({"x": (1,)}, {"x": (1,), "y": (1,)}, False),
        ({"x": (None,)}, {"x": (7,)}, True),
        ({"x": (None,)}, {"x": (7, 7)}, False),
        ({"x": (None, 2)}, {"x": (7, 3)}, False),
        ({"x": (1,), "y": (2,)}, {"y": (2,), "x": (1,)}, True),
    ],
)
def test_which_rows_are_alike(one, other, same):
    assert have_one_shape(one, other) == have_one_shape(other, one) == same


def test_rows_by_name_go_in_by_few():
    """The first row does not tell how long the longest of them is."""
    short = NamedRows({"x": torch.zeros(1, 1, dtype=torch.int64)})
    assert rows_per_pass(short, CPU) == rows_per_chunk(short, CPU) == 64
    assert rows_per_pass(torch.zeros(1, 1), CPU) == 8192
    assert rows_per_pass(torch.zeros(1, 1000, 1000), CPU) == 32


def test_what_is_no_real_number():
    check_real("X", torch.zeros(2, device="meta"), on_meta=True)
    for tensor in (torch.zeros(2, dtype=torch.complex64), torch.zeros(2, device="meta")):
        with pytest.raises(DataError, match=rf"X\['a'\] must have real numbers, got {tensor.dtype} on {tensor.device}"):
            check_real("X['a']", tensor)
