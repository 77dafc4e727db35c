"""What learning curves come to: intervals of their mean, areas under them, labels needed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from torchal.errors import DataError, ShapeError
from torchal.statistics.given import ROUNDING, Floats, Numbers, as_floats, check_open

Number = TypeVar("Number", bound=float)


def mean_interval(values: NDArray[Any], *, confidence: float = 0.95) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the lower and upper end of Student's t interval of the mean over the first axis.

    Shapes:
        values: (S, ...) float; NaN is returned for S = 1.

    Raises:
        ConfigError: confidence is not between 0 and 1.
        DataError: there are no values.

    Example:
        >>> lower, upper = mean_interval(np.array([1.0, 2.0, 3.0]))
        >>> round(float(lower), 3), round(float(upper), 3)
        (-0.484, 4.484)
    """
    from scipy import special

    check_open("confidence", confidence)
    n_runs = len(values)
    if not n_runs:
        raise DataError("the interval of a mean needs at least one value, got none")
    mean = values.mean(0)
    if n_runs == 1:
        unknown = np.full_like(mean, math.nan, dtype=np.float64)
        return unknown, unknown
    half = special.stdtrit(n_runs - 1, (1 + confidence) / 2) * values.std(0, ddof=1) / math.sqrt(n_runs)
    return mean - half, mean + half


def area_under_curve(
    n_labeled: Numbers, values: Numbers, *, low: float | None = None, high: float | None = None
) -> float:
    """Return the mean height of a learning curve: its trapezoid area divided by its range of labels.

    A curve of one point has that point's value.

    Args:
        n_labeled: numbers of labels, or cost, or seconds.
        values: of a metric at each.
        low: count from here on, for curves that begin at different numbers of labels; between two points the curve is
            a straight line. Its first point unless given.
        high: count up to here; its last point unless given.

    Shapes:
        n_labeled: (P,) ascending.
        values: (P,).

    Raises:
        ShapeError: the two differ in length.
        DataError: there is no point, the numbers of labels do not ascend, or the window is not a part of the curve.

    Example:
        >>> round(area_under_curve([20, 40, 80], [0.5, 0.7, 0.9]), 4)
        0.7333
        >>> round(area_under_curve([20, 40, 80], [0.5, 0.7, 0.9], low=30, high=40), 4)
        0.65
    """
    x, y = _points(n_labeled, values)
    start, stop = float(x[0] if low is None else low), float(x[-1] if high is None else high)
    if not x[0] <= start <= stop <= x[-1]:
        raise DataError(f"the area from {start:g} to {stop:g} was asked of a curve from {x[0]:g} to {x[-1]:g}")
    if start == stop:
        return float(np.interp(start, x, y))
    if low is not None or high is not None:
        inside = (x > start) & (x < stop)
        ends = np.interp([start, stop], x, y)
        x, y = (
            np.concatenate([[start], x[inside], [stop]]),
            np.concatenate([ends[:1], y[inside], ends[1:]]),
        )
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def labels_to_reach(
    n_labeled: Sequence[Number], values: Sequence[float], threshold: float, *, lower_is_better: bool = False
) -> Number | None:
    """Return the first recorded number of labels at which the curve has come to the threshold, None where it never has.

    Not interpolated: between two rounds there was no model. Cost or seconds in place of labels give these.

    Args:
        n_labeled: numbers of labels, in the order of the rounds.
        values: of the metric with them.
        threshold: to which the curve is to come.
        lower_is_better: whether it comes there from above.

    Raises:
        ShapeError: the two differ in length.

    Example:
        >>> labels_to_reach([20, 40, 80], [0.5, 0.7, 0.9], 0.6)
        40
        >>> labels_to_reach([0.5, 1.5], [1.2, 0.3], 0.6, lower_is_better=True)
        1.5
    """
    if len(n_labeled) != len(values):
        raise ShapeError(f"a curve has a value at each number of labels, got {len(values)} at {len(n_labeled)}")
    points = zip(n_labeled, values, strict=True)
    return next((n for n, value in points if (value <= threshold if lower_is_better else value >= threshold)), None)


def reached(labels: Sequence[float | None], limits: Sequence[float], *, confidence: float = 0.95) -> dict[str, Any]:
    """Return by how many labels half of all runs had come to a target, where some runs ended before they did.

    A run that ended is not one that needed as many labels as it had; the estimate of Kaplan and Meier counts it only as
    long as it went on.

    Args:
        labels: what each run needed, None where it did not come to the target.
        limits: how many labels each run had in the end.
        confidence: of the interval.

    Returns:
        runs: how many there are.
        reached: how many of them came to the target.
        median: the smallest number of labels by which half had, None where they never had.
        lower, upper: of the median: where the ends of the log-log interval of the share that has not come to the target
            pass one half (Brookmeyer and Crowley). None where an end never does, as the upper one with few runs, or is
            not defined, as both are where all runs needed the same.

    Raises:
        ShapeError: labels and limits differ in number.
        DataError: there is no run, or one needed more labels than it had.

    Reference:
        Kaplan & Meier, "Nonparametric Estimation from Incomplete Observations", Journal of the American Statistical
        Association, 1958. Brookmeyer & Crowley, "A Confidence Interval for the Median Survival Time", Biometrics, 1982;
        their interval with the log-log transform in place of none.

    Example:
        >>> reached([60, None, 40, 80], [100, 100, 100, 100])
        {'runs': 4, 'reached': 3, 'median': 60.0, 'lower': 40.0, 'upper': None}
    """
    from scipy import stats

    check_open("confidence", confidence)
    ends = as_floats("limits", limits)
    if len(labels) != len(ends):
        raise ShapeError(f"each run has a limit, got {len(labels)} runs and {len(ends)} limits")
    if not len(labels):
        raise DataError("labels to a target need at least one run, got none")
    came = np.array([n is not None for n in labels])
    needed = as_floats("labels", [n for n in labels if n is not None])
    late = needed > ends[came]
    if late.any():
        raise DataError(f"a run needed {needed[late][0]:g} labels and had {ends[came][late][0]:g}")
    found: dict[str, Any] = {"runs": len(labels), "reached": len(needed), "median": None, "lower": None, "upper": None}
    if not len(needed):
        return found
    left = stats.ecdf(stats.CensoredData(uncensored=needed, right=ends[~came])).sf
    found["median"] = _first_half(left.quantiles, left.probabilities)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # where all or none have come to it, there is no interval: that is the NaN which never passes one half
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = left.confidence_interval(confidence, method="log-log")
    found["lower"] = _first_half(left.quantiles, interval.low.probabilities)
    found["upper"] = _first_half(left.quantiles, interval.high.probabilities)
    return found


def data_utilisation(
    labels: Sequence[float | None], baseline: Sequence[float | None], *, confidence: float = 0.95
) -> dict[str, Any]:
    """Return which share of the baseline's labels was needed to come to the same target, over paired runs.

    Below 1 is better than the baseline. A pair counts if both runs came to the target, so read the ratio beside the
    numbers of those that did not: runs that failed are the worst ones, and they are not in it.

    Args:
        labels: what each run needed, None where it did not come to the target.
        baseline: the same of the baseline, in the same order.
        confidence: of the interval.

    Returns:
        ratio: the geometric mean over the pairs of the labels needed divided by the baseline's; None without a pair.
        lower, upper: Student's t interval, of the logarithm; None with fewer than two pairs.
        pairs: how many were used.
        censored, censored_baseline, censored_both: pairs in which only the run, only that of the baseline, or neither
            came to the target.

    Raises:
        ShapeError: the two differ in number.
        DataError: a number of labels that is not above 0.

    Reference:
        Culver, Kun & Scott, "Active Learning to Maximize Area Under the ROC Curve", ICDM 2006. Here each run is divided
        by the one it is paired with, and the mean is geometric: with the two exchanged it is one over what it was.

    Example:
        >>> found = data_utilisation([50, 80, None], [100, 80, 60])
        >>> round(found["ratio"], 4), found["pairs"], found["censored"]
        (0.7071, 2, 1)
    """
    if len(labels) != len(baseline):
        raise ShapeError(f"runs are paired with the baseline's, got {len(labels)} and {len(baseline)}")
    check_open("confidence", confidence)
    both = [(a, b) for a, b in zip(labels, baseline, strict=True) if a is not None and b is not None]
    needed = as_floats("labels", both or np.empty((0, 2)), ndim=2)
    if (needed <= 0).any():
        raise DataError(f"a ratio needs numbers of labels above 0, got {needed.min():g}")
    ratios = np.log(needed[:, 0]) - np.log(needed[:, 1])
    ends = mean_interval(ratios, confidence=confidence) if len(ratios) > 1 else None
    missed = [(a is None, b is None) for a, b in zip(labels, baseline, strict=True)]
    return {
        "ratio": math.exp(ratios.mean()) if len(ratios) else None,
        "lower": None if ends is None else math.exp(ends[0]),
        "upper": None if ends is None else math.exp(ends[1]),
        "pairs": len(ratios),
        "censored": missed.count((True, False)),
        "censored_baseline": missed.count((False, True)),
        "censored_both": missed.count((True, True)),
    }


def deficiency(values: Numbers, baseline: Numbers, *, lower_is_better: bool = False) -> float | None:
    """Return what a learning curve lacks, over its length, to where the baseline's ends, as a share of what that lacks.

    Below 1 is better than the baseline, 0 is as good on average as the baseline in the end, below 0 better than that.

    Args:
        values: a metric at P numbers of labels, mostly a mean over runs.
        baseline: the same of the baseline, at the same numbers of labels.
        lower_is_better: whether less of the metric is more wanted.

    Returns:
        None where the baseline is on average no worse than at its end: there is then nothing to lack.

    Shapes:
        values, baseline: (P,).

    Raises:
        ShapeError: the two differ in length.
        DataError: there is no point.

    Reference:
        Baram, El-Yaniv & Luz, "Online Choice of Active Learning Algorithms", JMLR 5, 2004. Their sums have a term for
        each label; these have one for each number of labels that is given.

    Example:
        >>> round(deficiency([0.5, 0.8, 0.9], [0.5, 0.7, 0.9]), 4)
        0.8333
    """
    curve, other = as_floats("values", values), as_floats("baseline", baseline)
    if curve.shape != other.shape:
        raise ShapeError(f"curves are compared at the same numbers of labels, got {len(curve)} and {len(other)} values")
    if not len(other):
        raise DataError("a deficiency needs at least one point of each curve, got none")
    sign = -1.0 if lower_is_better else 1.0
    lacks, other_lacks = (sign * float((other[-1] - some).sum()) for some in (curve, other))
    if other_lacks <= ROUNDING * float(np.abs(other).sum()):
        return None
    return lacks / other_lacks


def _points(n_labeled: Numbers, values: Numbers) -> tuple[Floats, Floats]:
    x, y = as_floats("n_labeled", n_labeled), as_floats("values", values, finite=False)
    if x.shape != y.shape:
        raise ShapeError(f"a curve has a value at each number of labels, got {len(y)} at {len(x)}")
    if not len(x):
        raise DataError("a curve needs at least one point, got none")
    if (np.diff(x) < 0).any():
        at = int(np.argmax(np.diff(x) < 0))
        raise DataError(f"a curve's numbers of labels ascend; {x[at]:g} was followed by {x[at + 1]:g}")
    return x, y


def _first_half(quantiles: Floats, left: Floats) -> float | None:
    """Return the first place at which no more than half are left; NaN is not."""
    passed = np.flatnonzero(left <= 0.5 + ROUNDING)
    return float(quantiles[passed[0]]) if len(passed) else None
