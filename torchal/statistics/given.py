"""Checks of the arrays that statistics are made of: what was asked and what was there, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torchal.errors import ConfigError, DataError, ShapeError

Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = "Sequence[float] | NDArray[Any]"
"""Plain numbers, in a list or an array."""

ROUNDING = 1e-12
"""Scores are equal that differ by no more than this share of the largest, and so are their differences: in floats
0.3 - 0.2 is not 0.2 - 0.1, and a test of ranks would see no tie."""


def as_floats(name: str, values: object, *, ndim: int = 1, finite: bool = True) -> Floats:
    """Return numbers with so many axes, (...) float64.

    Raises:
        ShapeError: they are no numbers, or have other axes.
        DataError: one is infinite; or NaN, unless that is allowed.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"{name} must be numbers with {ndim} axes, got {type(values).__name__}: {error}") from error
    if array.ndim != ndim:
        raise ShapeError(f"{name} must have {ndim} axes, got shape {array.shape}")
    bad = ~np.isfinite(array) if finite else np.isinf(array)
    if bad.any():
        where = ", ".join(map(str, np.argwhere(bad)[0]))
        raise DataError(f"{name} must be finite: {bad.sum()} of {array.size} are not, the first at {where}")
    return array


def check_open(name: str, value: object) -> None:
    """Require a number between 0 and 1, neither of them."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ConfigError(f"{name} must lie between 0 and 1, got {value!r}")


def largest(*numbers: Floats) -> float:
    """Return the largest absolute value, 0 where there is none."""
    return max((float(np.abs(some).max()) for some in numbers if len(some)), default=0.0)
