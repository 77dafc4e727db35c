"""Values as people bring them: finite numbers of one type, and labels as classes."""

from __future__ import annotations

import unicodedata
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal.errors import DataError, ShapeError

_EXACT_INTEGERS = 2.0**53  # float64 holds every whole number up to here


def as_inputs(what: str, inputs: object) -> NDArray[Any]:
    """Return inputs as an array (M, ...) of finite numbers.

    Raises:
        DataError: they are not numbers or not finite, or there are no rows or columns.
        ShapeError: there are fewer than two axes.
    """
    if isinstance(inputs, Tensor):
        inputs = inputs.detach().cpu()
        inputs = (inputs.float() if inputs.dtype == torch.bfloat16 else inputs).numpy()
    array = np.asarray(inputs)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} must be real numbers, got {array.dtype}")
    if array.ndim < 2:
        raise ShapeError(f"{what} must have a row axis and at least one more, got shape {array.shape}")
    if array.size == 0:
        raise DataError(f"{what} must have at least one row and one column, got shape {array.shape}")
    place = find_not_finite(array)
    if place is not None:
        raise DataError(f"{what} must be finite: row {place[0]}, column {column_of(place)} is {array[place]}")
    return array


def as_classes(what: str, labels: object, *, n_rows: int) -> NDArray[Any]:
    """Return labels as an array (M,) of whole numbers where every label is one, else of text.

    Text is of whole numbers where each is written as a whole number is: two texts are never one class.

    Raises:
        DataError: a label is neither a whole number nor text.
        ShapeError: there is not one label per row.
    """
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1:
        raise ShapeError(f"{what} must have one axis, got shape {array.shape}: one label per row, not multi-label")
    if len(array) != n_rows:
        raise ShapeError(f"{what} must be one per row: {n_rows} rows of inputs, {len(array)} labels")
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array):
        array = array.astype(str)
    if array.dtype.kind not in "biufSU":
        raise DataError(f"{what} must be whole numbers or text, got {array.dtype}")
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{what} must be whole numbers or text, got bytes that are not UTF-8: {error}") from error
    values, codes = np.unique(array, return_inverse=True)
    if values.dtype.kind == "U":
        values = _as_whole_numbers(np.array([composed(value) for value in values]))
    if values.dtype.kind == "f":
        # comparisons with NaN are false, so this refuses NaN and infinity too
        fractional = ~((values == np.floor(values)) & (np.abs(values) <= _EXACT_INTEGERS))
        if fractional.any():
            row = int(fractional[codes].argmax())
            raise DataError(f"{what} must be classes, but row {row} has {array[row]}: regression is not supported")
        values = values.astype(np.int64)
    return np.asarray(values[codes])


def find_not_finite(array: NDArray[Any]) -> tuple[int, ...] | None:
    """Return the place (row, column, ...) of the first value that is NaN or infinite, or None."""
    if array.dtype.kind != "f":
        return None
    finite = np.isfinite(array)
    if finite.all():
        return None
    return tuple(int(i) for i in np.unravel_index(finite.argmin(), array.shape))


def column_of(place: tuple[int, ...]) -> int | tuple[int, ...]:
    """Return the column of a place (row, column), or its place in a row of more axes."""
    return place[1] if len(place) == 2 else place[1:]


def composed(text: str) -> str:
    """Return text with its letters composed (Unicode's NFC), so that what looks the same is the same."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _as_whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Return text as whole numbers where all of it is just that, in the one way to write each."""
    with suppress(ValueError, OverflowError):
        numbers = values.astype(np.int64)
        if (numbers.astype(str) == values).all():
            return np.asarray(numbers)
    return values


def in_order(values: NDArray[Any]) -> NDArray[Any]:
    """Return the order of distinct labels, (C,) int64: as numbers where all of them are, else as they are."""
    if values.dtype.kind != "U" or any("_" in value for value in values):  # Python reads "1_0" as 10
        return np.arange(len(values))
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return np.arange(len(values))
    return np.asarray(sorted(range(len(values)), key=lambda i: (numbers[i], str(values[i]))))
