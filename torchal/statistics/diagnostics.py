"""What was picked, and how far a model's probabilities can be believed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_whole
from torchal.errors import DataError, ShapeError
from torchal.statistics.given import Floats, Numbers, as_floats

_OVER = 1e-6  # by how much float32 makes a probability, or a sum of them, larger than 1


def class_divergence(counts: Numbers, pool_counts: Numbers) -> float:
    """Return how far the classes of some rows are from those of the pool: 0 where the shares are the same, in nats.

    It is the Kullback-Leibler divergence of the rows from the pool, which is finite also where the rows lack a class;
    the other way round it would be infinite for nearly every batch of a pool with many classes.

    Args:
        counts: how many of the rows each class has; shares do as well.
        pool_counts: how many it has in the pool.

    Shapes:
        counts, pool_counts: (C,).

    Raises:
        ShapeError: the two differ in length.
        DataError: a count is negative, there are no rows, or they have a class that the pool has not.

    Reference:
        Kullback & Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics, 1951.

    Example:
        >>> class_divergence([5, 5], [500, 500])
        0.0
        >>> round(class_divergence([10, 0], [500, 500]), 4)
        0.6931
    """
    some, whole = as_floats("counts", counts), as_floats("pool_counts", pool_counts)
    if some.shape != whole.shape:
        raise ShapeError(f"both count the same classes, got {len(some)} and {len(whole)}")
    for name, given in (("counts", some), ("pool_counts", whole)):
        if (given < 0).any() or not given.any():
            raise DataError(f"{name} must be at least 0 and not all 0, got {given.tolist()}")
    strangers = np.flatnonzero((some > 0) & (whole == 0))
    if len(strangers):
        raise DataError(f"the pool has no row of class {strangers[0]}, of which there are {some[strangers[0]]:g}")
    there = some > 0
    shares, pool_shares = some[there] / some.sum(), whole[there] / whole.sum()
    return max(0.0, float((shares * np.log(shares / pool_shares)).sum()))  # rounding could make it less


def sole_picks(picks: Mapping[str, Iterable[int]]) -> dict[str, float]:
    """Return for each strategy which share of its rows no other strategy picked.

    0 for one that others could stand in for, 1 for one that picks what nobody else does; NaN for one without a row. A
    row counts once for each strategy, however often it is named.

    Args:
        picks: by strategy, rows of the same pool: a set, an array, a list.

    Example:
        >>> sole_picks({"margin": [1, 2, 3, 4], "entropy": [3, 4], "uniform": [9, 4]})
        {'margin': 0.5, 'entropy': 0.0, 'uniform': 0.5}
    """
    rows = {name: {int(row) for row in own} for name, own in picks.items()}
    times: dict[int, int] = {}
    for own in rows.values():
        for row in own:
            times[row] = times.get(row, 0) + 1
    return {name: sum(times[row] == 1 for row in own) / len(own) if own else math.nan for name, own in rows.items()}


def reliability(confidence: Numbers, right: Any, bins: int = 15) -> dict[str, Any]:
    """Return for bins of confidence how sure a model was and how often it was right: the points of a calibration curve.

    Bins have equal width. Each holds what is above its lower edge and up to its upper one; 0 is in the first.

    Args:
        confidence: the probability of the class that was predicted.
        right: whether the prediction was right, as bool or as 0 and 1.
        bins: how many.

    Returns:
        edges: (bins + 1) of them, from 0 to 1.
        confidence, accuracy: the mean of each bin; None where no row fell into it.
        count: how many rows did.

    Shapes:
        confidence, right: (M,).

    Raises:
        ShapeError: the two differ in length.
        DataError: there is no row, a confidence is not between 0 and 1, or `right` is something else.
        ConfigError: bins is no whole number of at least 1.

    Reference:
        Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.

    Example:
        >>> found = reliability([0.6, 0.9, 1.0], [True, True, False], bins=2)
        >>> found["count"], found["accuracy"]
        ([0, 3], [None, 0.6666666666666666])
    """
    sure, true, count = _binned(confidence, right, bins)
    return {
        "edges": (np.arange(bins + 1) / bins).tolist(),
        "confidence": [float(total / n) if n else None for total, n in zip(sure, count, strict=True)],
        "accuracy": [float(total / n) if n else None for total, n in zip(true, count, strict=True)],
        "count": count.tolist(),
    }


def expected_calibration_error(confidence: Numbers, right: Any, bins: int = 15) -> float:
    """Return by how much confidence and accuracy differ, on average over rows: 0 is calibrated, 1 is the worst.

    Of each bin of `reliability` the gap counts as much as it has rows. The more bins, the more of it is chance.

    Args:
        confidence: the probability of the class that was predicted.
        right: whether the prediction was right.
        bins: how many.

    Shapes:
        confidence, right: (M,).

    Raises:
        ShapeError, DataError, ConfigError: see `reliability`.

    Reference:
        Naeini, Cooper & Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015, and
        Guo et al., ICML 2017, whose bins these are.

    Example:
        >>> round(expected_calibration_error([0.8, 0.8, 0.8, 0.8], [1, 1, 1, 0]), 4)
        0.05
    """
    sure, true, count = _binned(confidence, right, bins)
    return float(np.abs(sure - true).sum() / count.sum())


def brier_score(probs: NDArray[Any], targets: Any) -> float:
    """Return the mean squared distance of the probabilities from the truth, summed over classes: 0 is best, 2 worst.

    With two classes it is twice what is called so where only the probability of one of them counts.

    Shapes:
        probs: (M, C), rows sum to 1.
        targets: (M,) whole numbers, the column of the true class.

    Raises:
        ShapeError: the two differ in length, or the targets are no whole numbers.
        DataError: there is no row, a row does not sum to 1 or has a negative number, or a target is no column.

    Reference:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review, 1950.

    Example:
        >>> round(brier_score(np.array([[0.8, 0.2], [0.4, 0.6]]), [0, 0]), 4)
        0.4
    """
    given, true = as_floats("probs", probs, ndim=2), np.asarray(targets)
    if true.shape != given.shape[:1] or true.dtype.kind not in "iu":
        raise ShapeError(f"targets must be ({len(given)},) whole numbers, got {true.dtype} of shape {true.shape}")
    if not len(given):
        raise DataError("a Brier score needs at least one row, got none")
    off = (given < 0).any(1) | (np.abs(given.sum(1) - 1) > 1e-3)
    if off.any():
        row = int(np.argmax(off))
        total, least = given[row].sum(), given[row].min()
        raise DataError(f"probs must be probabilities: row {row} sums to {total:.4g}, least {least:.4g}")
    if true.min() < 0 or true.max() >= given.shape[1]:
        raise DataError(f"targets must be columns of {given.shape[1]} classes, got {true.min()} to {true.max()}")
    of_truth = given[np.arange(len(given)), true]
    return float(((given**2).sum(1) - 2 * of_truth + 1).mean())


def _binned(confidence: Numbers, right: Any, bins: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Return for each bin the sum of confidence, how many were right, and how many rows there are."""
    check_whole("bins", bins, least=1)
    sure, true = as_floats("confidence", confidence), as_floats("right", right)
    if sure.shape != true.shape:
        raise ShapeError(f"each confidence was right or not, got {len(sure)} and {len(true)}")
    if not len(sure):
        raise DataError("calibration needs at least one row, got none")
    if sure.min() < 0 or sure.max() > 1 + _OVER:
        raise DataError(f"confidence must lie between 0 and 1, got {sure.min():g} to {sure.max():g}")
    if not ((true == 0) | (true == 1)).all():
        raise DataError(f"right must be true or false, got {true[(true != 0) & (true != 1)][0]:g}")
    # the edges are compared, and not the product with their number, which rounds 0.2 * 15 up beyond 3
    index = np.searchsorted(np.arange(1, bins) / bins, sure, side="left")
    confident, correct = (np.bincount(index, some, minlength=bins).astype(np.float64) for some in (sure, true))
    return confident, correct, np.bincount(index, minlength=bins)
