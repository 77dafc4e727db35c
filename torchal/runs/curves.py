"""Learning curves over several runs: means, intervals, areas, and labels needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchal.errors import ConfigError, DataError
from torchal.runs.results import Run


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """A metric against the number of labels (or cost, or seconds), over S runs that differ in their seed.

    Shapes:
        n_labeled: (P,) int64, ascending; float64 of cost or seconds.
        values: (S, P) float64.
        mean, lower, upper: (P,) float64; the two bounds are NaN for a single run.
    """

    n_labeled: NDArray[Any]
    values: NDArray[Any]
    mean: NDArray[Any]
    lower: NDArray[Any]
    upper: NDArray[Any]


def learning_curve(
    runs: Sequence[Run],
    *,
    metric: str = "accuracy",
    part: str = "test",
    confidence: float = 0.95,
    against: str = "labels",
) -> LearningCurve:
    """Return the mean curve of some runs with Student's t interval at each number of labels (or cost, ...).

    Runs that recorded other numbers of labels are interpolated linearly, over the labels that all of them span.

    Raises:
        DataError: there is no run, or the runs have no number of labels in common.
        ConfigError: a run did not record the metric.
    """
    if not runs:
        raise DataError("a learning curve needs at least one run, got none")
    curves = [run.curve(metric, part, against=against) for run in runs]
    low, high = max(labels[0] for labels, _ in curves), min(labels[-1] for labels, _ in curves)
    points = sorted({n for labels, _ in curves for n in labels if low <= n <= high})
    grid: NDArray[Any] = np.array(points, dtype=np.int64 if against == "labels" else np.float64)
    if not len(grid):
        what = "number of labels" if against == "labels" else against
        raise DataError(f"the {len(runs)} runs have no {what} in common")
    values = np.stack([np.interp(grid, labels, recorded) for labels, recorded in curves])
    lower, upper = mean_interval(values, confidence=confidence)
    return LearningCurve(grid, values, values.mean(0), lower, upper)


def mean_interval(values: NDArray[Any], *, confidence: float = 0.95) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the lower and upper end of Student's t interval of the mean over the first axis.

    Shapes:
        values: (S, ...) float; NaN is returned for S = 1.

    Raises:
        ConfigError: confidence is not between 0 and 1.

    Example:
        >>> lower, upper = mean_interval(np.array([1.0, 2.0, 3.0]))
        >>> round(float(lower), 3), round(float(upper), 3)
        (-0.484, 4.484)
    """
    from scipy import stats

    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must lie between 0 and 1, got {confidence}")
    n_runs = len(values)
    mean = values.mean(0)
    if n_runs == 1:
        unknown = np.full_like(mean, math.nan, dtype=np.float64)
        return unknown, unknown
    half = stats.t.ppf((1 + confidence) / 2, n_runs - 1) * values.std(0, ddof=1) / math.sqrt(n_runs)
    return mean - half, mean + half


def area_under_curve(n_labeled: Sequence[float], values: Sequence[float]) -> float:
    """Return the mean height of a learning curve: its trapezoid area divided by its range of labels.

    A curve of one point has that point's value.

    Shapes:
        n_labeled: (P,) ascending.
        values: (P,).

    Example:
        >>> round(area_under_curve([20, 40, 80], [0.5, 0.7, 0.9]), 4)
        0.7333
    """
    if len(n_labeled) == 1:
        return float(values[0])
    x, y = np.asarray(n_labeled, dtype=np.float64), np.asarray(values, dtype=np.float64)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def labels_to_reach(n_labeled: Sequence[float], values: Sequence[float], threshold: float) -> int | None:
    """Return the first recorded number of labels at which the curve is at least the threshold, None where it never is.

    Example:
        >>> labels_to_reach([20, 40, 80], [0.5, 0.7, 0.9], 0.6)
        40
    """
    return next((int(n) for n, value in zip(n_labeled, values, strict=True) if value >= threshold), None)
