"""Checks at the door of public functions: what was asked and what was there, in numbers."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from importlib.util import find_spec
from numbers import Integral, Real

import torch
from torch import Tensor

from torchal.errors import BudgetError, ConfigError, DataError, MissingExtraError, ShapeError

# How far from 1 a row may sum: a logarithm of -10 is rounded by 0.004 in float16, by 0.03 in bfloat16. Probabilities
# given in place of their logarithms sum to at least C after exp.
SUM_TOLERANCE = {torch.float16: 0.01, torch.bfloat16: 0.1}


def check_installed(package: str, *, extra: str) -> None:
    """Require an optional package; the error says how to get it."""
    if find_spec(package) is None:
        raise MissingExtraError(f"{package} is not installed; pip install 'torchal[{extra}]' brings it", name=package)


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


def check_mask(name: str, mask: Tensor, *, n_rows: int, device: torch.device) -> None:
    """Require an (N,) bool mask on the given device."""
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise ShapeError(f"{name} must be a bool tensor, got {got}")
    if mask.shape != (n_rows,):
        raise ShapeError(f"{name} must have shape ({n_rows},), got {tuple(mask.shape)}")
    if mask.device != device:
        raise ShapeError(f"{name} must be on {device}, got {mask.device}")


def check_log_probs(log_probs: Tensor) -> None:
    """Require an (N, C) float matrix with at least one column; what its rows hold is for `check_distributions`."""
    check_float("log_probs", log_probs, ndim=2)
    if log_probs.shape[1] == 0:
        raise ShapeError(f"log_probs must have at least one column, got shape {tuple(log_probs.shape)}")


def check_distributions(probs: Tensor, dtype: torch.dtype, *, first_row: int = 0) -> None:
    """Require that rows (R, C) of probabilities sum to 1, as far as logarithms of this dtype can tell."""
    off = ~((probs.sum(1) - 1).abs() <= SUM_TOLERANCE.get(dtype, 1e-3))  # also true of NaN
    if bool(off.any()):
        row = int(off.nonzero()[0])
        raise DataError(
            "log_probs must hold logarithms of probabilities: "
            f"row {first_row + row} sums to {float(probs[row].sum()):.4g} after exp, not to 1"
        )


def check_last_layer(weight: Tensor, bias: Tensor, *, n_columns: int, device: torch.device) -> None:
    """Require a last layer for features of n_columns: weight (C, D) and bias (C,), finite, on the given device."""
    check_float("weight", weight, ndim=2)
    check_float("bias", bias, ndim=1)
    if not len(weight) or weight.shape[1] != n_columns or weight.device != device:
        raise ShapeError(
            f"weight must be (C, {n_columns}) on {device} with C at least 1, "
            f"got {tuple(weight.shape)} on {weight.device}"
        )
    if bias.shape != weight.shape[:1] or bias.device != device:
        raise ShapeError(f"bias must be ({len(weight)},) on {device}, got {tuple(bias.shape)} on {bias.device}")
    check_finite("weight", weight)
    check_finite("bias", bias)


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


def check_row_weights(name: str, weights: Tensor, *, n_rows: int, device: torch.device) -> None:
    """Require a weight for each row, (N,) float on the given device, finite and at least 0."""
    check_float(name, weights, ndim=1)
    if len(weights) != n_rows or weights.device != device:
        raise ShapeError(f"{name} must be ({n_rows},) on {device}, got {tuple(weights.shape)} on {weights.device}")
    check_finite(name, weights)
    negative = int((weights < 0).sum())
    if negative:
        raise DataError(f"{name} must be at least 0: {negative} of {n_rows} are not, down to {float(weights.min()):g}")


def check_groups(name: str, groups: Tensor, *, n_rows: int, device: torch.device) -> None:
    """Require the number of a group for each row, (N,) int64 on the given device, none of them negative."""
    if groups.shape != (n_rows,) or groups.dtype != torch.int64 or groups.device != device:
        raise ShapeError(
            f"{name} must be ({n_rows},) int64 on {device}, got {tuple(groups.shape)} {groups.dtype} on {groups.device}"
        )
    if bool((groups < 0).any()):
        raise DataError(f"{name} must be at least 0: {int((groups < 0).sum())} of {n_rows} are not")


def as_integers(name: str, values: object) -> Tensor:
    """Return whole numbers, in a tensor, an array or a list, as (n,) int64; no values at all may have any dtype."""
    try:
        tensor = torch.as_tensor(values)
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
