"""Learning curves over several runs: their mean and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchal.errors import DataError
from torchal.runs.results import Run
from torchal.statistics.curves import mean_interval


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
