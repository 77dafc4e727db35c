"""The shape of rows, of one tensor or several by name, and how many of them a network takes at once."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from torchal._batch import NamedRows, Rows
from torchal._chunks import values_per_chunk
from torchal.errors import DataError
from torchal.pool.inputs import read_rows

_CHUNK_ROWS = (32, 8192)  # fewest and most rows in a chunk of a prediction
_LAYERS_PER_IMAGE = 8  # numbers that a network holds at once, for each of an image
_NAMED_ROWS = 64, 256  # rows by name in a chunk, on the CPU and elsewhere: all are padded to the longest of them

RowShape: TypeAlias = "tuple[int, ...] | dict[str, tuple[int | None, ...]]"
"""The shape of a row, or of each of its tensors by name; None along axes that collating rows may pad."""


def row_shape(inputs: Any) -> RowShape:
    """Return the shape of a row of any inputs, of `NamedRows` too."""
    if hasattr(inputs, "shape"):
        return tuple(inputs.shape[1:])
    first: Rows = inputs if isinstance(inputs, NamedRows) else read_rows(inputs, [0])
    if isinstance(first, Tensor):
        return tuple(first.shape[1:])
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in first.tensors.items()}
    if getattr(inputs, "collate", None) is None:
        return dict(shapes)
    return {name: (None,) * len(shape) for name, shape in shapes.items()}


def have_one_shape(one: RowShape, other: RowShape) -> bool:
    """Tell whether rows of one shape may be of another: None stands for any number."""
    if isinstance(one, tuple) or isinstance(other, tuple) or one.keys() != other.keys():
        return one == other
    return all(
        len(one[name]) == len(other[name])
        and all(a == b or a is None or b is None for a, b in zip(one[name], other[name], strict=True))
        for name in one
    )


def check_real(name: str, tensor: Tensor, *, on_meta: bool = False) -> None:
    """Require real numbers, and some that are there unless `on_meta`."""
    if tensor.is_complex() or tensor.is_quantized or tensor.is_nested or (tensor.is_meta and not on_meta):
        kind = "a nested tensor" if tensor.is_nested else f"{tensor.dtype} on {tensor.device}"
        raise DataError(f"{name} must have real numbers, got {kind}")


def rows_per_chunk(one_row: Rows, device: torch.device) -> int:
    """Return how many rows of this shape a chunk of a prediction has."""
    if isinstance(one_row, NamedRows):
        return _NAMED_ROWS[device.type != "cpu"]
    fewest, most = _CHUNK_ROWS
    return min(most, max(fewest, values_per_chunk(device) // max(1, one_row.numel())))


def rows_per_pass(one_row: Rows, device: torch.device) -> int:
    """Return how many rows of this shape go through a network at once: of images, what its layers make of them counts.

    Convolutions of more than about 200 small images at once take up to twice as long on a CPU: they leave its cache.
    """
    if isinstance(one_row, NamedRows) or one_row.ndim <= 2 or device.type != "cpu":
        return rows_per_chunk(one_row, device)
    return max(_CHUNK_ROWS[0], rows_per_chunk(one_row, device) // _LAYERS_PER_IMAGE)
