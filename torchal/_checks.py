"""Checks at the door of public functions: what was asked and what was there, in numbers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal.errors import BudgetError, ConfigError, DataError, MissingExtraError, ShapeError

ArrayLike: TypeAlias = "Tensor | NDArray[Any] | Sequence[Any]"
"""Numbers for each row or column: a tensor, or an array or a list, which is put where the features are."""

# How far from 1 a row may sum: a logarithm of -10 is rounded by 0.004 in float16, by 0.03 in bfloat16. Probabilities
# given in place of their logarithms sum to at least C after exp.
SUM_TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.1}


def check_installed(package: str, *, extra: str) -> None:
    """Require an optional package; the error says how to get it."""
    if find_spec(package) is None:
        raise MissingExtraError(f"{package} is not installed; pip install 'torchal[{extra}]' brings it", name=package)


def as_tensor(name: str, values: object, *, device: torch.device | None = None) -> Tensor:
    """Return numbers in a tensor, an array or a list as a tensor; that of an array shares its memory if torch can.

    A tensor stays where it is; an array or a list comes to the device, if one is given.

    Raises:
        ShapeError: they are something else, or of a dtype without numbers that torch knows.
        DataError: some of an array's values are masked.
    """
    if isinstance(values, Tensor):
        return values
    if isinstance(values, list | tuple):
        try:
            values = np.asarray(values)
        except ValueError as error:  # ragged
            raise ShapeError(f"{name} must be a tensor or an array of numbers, got a list: {error}") from error
    return torch.from_numpy(as_torch_takes(as_array(name, values))).to(device)


def as_array(name: str, values: object) -> NDArray[Any]:
    """Return an array of numbers that torch has a dtype for, as it is.

    Raises:
        ShapeError: it is no array, or of another dtype.
        DataError: some of its values are masked.
    """
    if not isinstance(values, np.ndarray):
        hint = f"; use {name}.to_numpy()" if hasattr(values, "to_numpy") else ""
        raise ShapeError(f"{name} must be a torch.Tensor or a NumPy array, got {type(values).__name__}{hint}")
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise ShapeError(f"{name} must be numbers of at most 64 bits, got an array of {values.dtype}")
    if isinstance(values, np.ma.MaskedArray):
        n_masked = int(np.ma.count_masked(values))
        if n_masked:
            raise DataError(f"{name} must have no masked values, got {n_masked} of {values.size}; fill them first")
        values = values.data
    return values if isinstance(values, np.memmap) else np.asarray(values)


def as_torch_takes(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in the machine's own byte order; torch shares no memory that is read-only or runs backwards."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.require(array, requirements=["C", "W"])


def as_float(
    name: str, values: ArrayLike, *, ndim: int | tuple[int, ...], device: torch.device | None = None
) -> Tensor:
    """Return floating-point numbers with one of the given numbers of axes as a tensor; see `as_tensor`."""
    tensor = as_tensor(name, values, device=device)
    check_float(name, tensor, ndim=ndim)
    return tensor


def check_float(name: str, tensor: Tensor, *, ndim: int | tuple[int, ...]) -> None:
    """Require a floating-point tensor with one of the given numbers of axes."""
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if not isinstance(tensor, Tensor):
        raise ShapeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if tensor.ndim not in allowed:
        axes = " or ".join(map(str, allowed))
        raise ShapeError(f"{name} must have {axes} axes, got shape {tuple(tensor.shape)}")
    if not tensor.is_floating_point():
        raise ShapeError(f"{name} must be floating point, got {tensor.dtype}; use {name}.float()")


def check_finite(name: str, tensor: Tensor, *, first_row: int = 0) -> None:
    """Require that no value is NaN or infinite; the error names the first row that is not, counted from first_row."""
    if not tensor.numel():
        return
    # NaN goes through minimum and maximum: one pass, no temporary, and 30 times faster than isfinite on a CPU
    if not bool(torch.isfinite(torch.stack(tensor.aminmax())).all()):
        finite = torch.isfinite(tensor)
        bad = (~finite).flatten(1).any(1) if tensor.ndim > 1 else ~finite
        first = first_row + int(bad.nonzero()[0])
        raise DataError(f"{name} must be finite: {int(bad.sum())} of {len(bad)} rows are not, the first is row {first}")


def as_mask(name: str, mask: ArrayLike, *, n_rows: int, device: torch.device) -> Tensor:
    """Return a mask (N,) bool on the given device as a tensor; whole numbers are none, they may be row numbers."""
    tensor = as_tensor(name, mask, device=device)
    if isinstance(mask, list | tuple) and not mask:  # of no rows, as a rank may have: a list of nothing is of any dtype
        tensor = tensor.bool()
    if tensor.dtype != torch.bool:
        got = tensor.dtype if isinstance(mask, Tensor) else f"{type(mask).__name__} of {tensor.dtype}"
        raise ShapeError(f"{name} must be a bool tensor or array, got {got}")
    if tensor.shape != (n_rows,):
        raise ShapeError(f"{name} must have shape ({n_rows},), got {tuple(tensor.shape)}")
    if tensor.device != device:
        raise ShapeError(f"{name} must be on {device}, got {tensor.device}")
    return tensor


def as_log_probs(log_probs: ArrayLike) -> Tensor:
    """Return a matrix (N, C) float with at least one column; what its rows hold is for `check_distributions`."""
    tensor = as_float("log_probs", log_probs, ndim=2)
    if tensor.shape[1] == 0:
        raise ShapeError(f"log_probs must have at least one column, got shape {tuple(tensor.shape)}")
    return tensor


def check_distributions(probs: Tensor, dtype: torch.dtype, *, first_row: int = 0) -> None:
    """Require that rows (R, C) of probabilities sum to 1, as far as logarithms of this dtype can tell."""
    off = ~((probs.sum(1) - 1).abs() <= SUM_TOLERANCE.get(dtype, 1e-3))  # also true of NaN
    if bool(off.any()):
        row = int(off.nonzero()[0])
        raise DataError(
            "log_probs must hold logarithms of probabilities: "
            f"row {first_row + row} sums to {float(probs[row].sum()):.4g} after exp, not to 1"
        )


def as_linear_layer(
    weight: ArrayLike, bias: ArrayLike, *, n_columns: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return a last layer for features of n_columns: weight (C, D) and bias (C,), finite, on the given device."""
    weight = as_float("weight", weight, ndim=2, device=device)
    bias = as_float("bias", bias, ndim=1, device=device)
    if not len(weight) or weight.shape[1] != n_columns or weight.device != device:
        raise ShapeError(
            f"weight must be (C, {n_columns}) on {device} with C at least 1, "
            f"got {tuple(weight.shape)} on {weight.device}"
        )
    if bias.shape != weight.shape[:1] or bias.device != device:
        raise ShapeError(f"bias must be ({len(weight)},) on {device}, got {tuple(bias.shape)} on {bias.device}")
    check_finite("weight", weight)
    check_finite("bias", bias)
    return weight, bias


def check_budget(n: int, available: int) -> None:
    """Require 1 <= n <= available."""
    if isinstance(n, bool) or not isinstance(n, Integral):
        raise BudgetError(f"the number of rows to pick must be an int, got {n!r}")
    if not 1 <= n <= available:
        raise BudgetError(f"asked for {n} rows, {available} can be picked")


def as_device(device: str | torch.device) -> torch.device:
    """Return a device by its full name ("cuda:0" for "cuda"); what exists, only each backend itself knows.

    Raises:
        ConfigError: there is no such device here, or nothing is computed on it.
    """
    try:
        found = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ConfigError(f"there is no device {str(device)!r} here: {str(error).splitlines()[0]}") from error
    if found.type == "meta":
        raise ConfigError("on the device 'meta' nothing is computed")
    return found


def check_whole(name: str, value: object, *, least: int) -> None:
    """Require a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_flag(name: str, value: object) -> None:
    """Require True or False: other values, as the text "no" of a config file, have a truth of their own."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")


def check_fraction(name: str, value: object) -> None:
    """Require a number in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) <= 1:
        raise ConfigError(f"{name} must be a number in (0, 1], got {value!r}")


def check_share(name: str, value: object) -> None:
    """Require a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise ConfigError(f"{name} must be a number in [0, 1), got {value!r}")


def check_positive(name: str, value: object) -> None:
    """Require a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ConfigError(f"{name} must be a finite number above 0, got {value!r}")


def check_at_least(name: str, value: object, *, least: float) -> None:
    """Require a finite number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not least <= float(value) < math.inf:
        raise ConfigError(f"{name} must be a finite number of at least {least:g}, got {value!r}")


def rows_in(fraction: float, n_rows: int) -> int:
    """Return how many of n rows a fraction is, rounded down: 0.29 of 100 is 29, which float arithmetic makes 28.

    Example:
        >>> rows_in(0.29, 100), int(0.29 * 100)
        (29, 28)
    """
    # A double is within 1e-17 of the decimal that was written, and no other fraction with such denominators is.
    return int(n_rows * Fraction(fraction).limit_denominator(1_000_000_000))


def as_row_values(name: str, values: ArrayLike, *, n_rows: int, device: torch.device) -> Tensor:
    """Return a number for each row, (N,) float on the given device."""
    tensor = as_float(name, values, ndim=1, device=device)
    if len(tensor) != n_rows or tensor.device != device:
        raise ShapeError(f"{name} must be ({n_rows},) on {device}, got {tuple(tensor.shape)} on {tensor.device}")
    return tensor


def as_row_weights(name: str, weights: ArrayLike, *, n_rows: int, device: torch.device) -> Tensor:
    """Return a weight for each row, (N,) float on the given device, finite and at least 0."""
    tensor = as_row_values(name, weights, n_rows=n_rows, device=device)
    check_finite(name, tensor)
    negative = int((tensor < 0).sum())
    if negative:
        raise DataError(f"{name} must be at least 0: {negative} of {n_rows} are not, down to {float(tensor.min()):g}")
    return tensor


def as_row_labels(name: str, labels: ArrayLike, *, n_rows: int, device: torch.device) -> Tensor:
    """Return a whole number for each row, (N,) int64 on the given device; arrays may have any integer dtype."""
    tensor = labels if isinstance(labels, Tensor) else as_integers(name, labels).to(device)
    if tensor.shape != (n_rows,) or tensor.dtype != torch.int64 or tensor.device != device:
        raise ShapeError(
            f"{name} must be ({n_rows},) int64 on {device}, got {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"
        )
    return tensor


def as_groups(name: str, groups: ArrayLike, *, n_rows: int, device: torch.device) -> Tensor:
    """Return the number of a group for each row, (N,) int64 on the given device, none of them negative."""
    tensor = as_row_labels(name, groups, n_rows=n_rows, device=device)
    if bool((tensor < 0).any()):
        raise DataError(f"{name} must be at least 0: {int((tensor < 0).sum())} of {n_rows} are not")
    return tensor


def as_integers(name: str, values: object) -> Tensor:
    """Return whole numbers, in a tensor, an array or a list, as (n,) int64; no values at all may have any dtype."""
    try:
        tensor = torch.as_tensor(as_torch_takes(values) if isinstance(values, np.ndarray) else values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(f"{name} must be (n,) integers, got {type(values).__name__}: {error}") from error
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    if tensor.ndim != 1 or not (whole or not len(tensor)):
        raise ShapeError(f"{name} must be (n,) integers, got {tensor.dtype} of shape {tuple(tensor.shape)}")
    return tensor.to(torch.int64)


def as_rows(name: str, rows: object, *, n_rows: int, device: torch.device) -> Tensor:
    """Return row numbers as an (n,) int64 tensor on `device`, distinct and inside [0, N)."""
    tensor = as_integers(name, rows).to(device=device)
    if len(tensor):
        low, high = int(tensor.min()), int(tensor.max())
        if low < 0 or high >= n_rows:
            raise ShapeError(f"{name} must lie in [0, {n_rows}), got {low} to {high}")
        repeats = len(tensor) - len(tensor.unique())
        if repeats:
            raise ShapeError(f"{name} must be distinct: {repeats} of {len(tensor)} are repeats")
    return tensor


def warn_of_probabilities(logits: Tensor, *, by: str) -> None:
    """Warn where logits (n, C) are probabilities already: no row of real ones has no negative number and the sum 1."""
    if len(logits) < 2 or logits.shape[1] < 2:
        return
    sums = logits.detach().float().sum(1)
    if bool(((logits >= 0).all(1) & ((sums - 1).abs() < 1e-2)).all()):
        warnings.warn(
            f"{by} answers with probabilities (no number is negative, and every row sums to 1), not with logits: "
            "whoever takes their softmax again sees nearly equal classes. Leave out its last softmax",
            UserWarning,
            stacklevel=3,
        )
