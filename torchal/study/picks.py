"""What samplers bought: labels of each class, and rows that nobody else picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from torchal.errors import DataError, ShapeError
from torchal.runs.results import Run
from torchal.statistics import diagnostics
from torchal.study.reading import StudyRun

_CLASSES = 20  # columns of what was bought; of more classes the rarest are put together
_ROUNDS = 40  # lines of it


def class_columns(group: Sequence[StudyRun], n_classes: int, counts: Sequence[int] | None) -> list[list[int]]:
    """Return the classes of each column of what was bought: one each, and the rarest of many together."""
    if n_classes <= _CLASSES:
        return [[number] for number in range(n_classes)]
    totals = np.zeros(n_classes)
    if counts is not None:
        totals[: len(counts)] = counts
    else:
        for one in group:
            for result in one.run.rounds:
                totals += np.bincount(result.labels.numpy(), minlength=n_classes)
    order = sorted(range(n_classes), key=lambda number: -totals[number])
    return [*([number] for number in sorted(order[: _CLASSES - 1])), sorted(order[_CLASSES - 1 :])]


def bought_by_class(runs: Sequence[Run], columns: Sequence[Sequence[int]]) -> tuple[list[float], list[list[float]]]:
    """Return the mean number of labels of each class after each round, over the rounds that all runs have."""
    n_rounds = min(len(run.rounds) for run in runs)
    n_classes = sum(len(column) for column in columns)
    totals = np.zeros((n_rounds, n_classes))
    labels = np.zeros(n_rounds)
    for run in runs:
        each = [np.bincount(result.labels.numpy(), minlength=n_classes) for result in run.rounds[:n_rounds]]
        totals += np.stack(list(accumulate(each))) / len(runs)
        labels += np.array([result.n_labeled for result in run.rounds[:n_rounds]]) / len(runs)
    keep = spread(n_rounds, most=_ROUNDS)
    summed = np.stack([totals[:, list(column)].sum(1) for column in columns], axis=1)
    return labels[keep].tolist(), summed[keep].tolist()


def spread(n: int, *, most: int) -> NDArray[np.int64]:
    """Return places spread evenly over n, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def class_divergence(runs: Sequence[StudyRun], counts: Sequence[int] | None) -> float | None:
    """Return how far the classes of all labels bought are from those of the pool, in nats, on average."""
    if counts is None:
        return None
    found = []
    for one in runs:
        each = [np.bincount(result.labels.numpy(), minlength=len(counts)) for result in one.run.rounds]
        try:
            found.append(diagnostics.class_divergence(np.sum(each, axis=0), counts))
        except (DataError, ShapeError):
            return None  # the pool of another split has no row of a class
    return float(np.mean(found))


def sole_shares(by_sampler: Mapping[str, Sequence[StudyRun]]) -> dict[str, float]:
    """Return the share of each sampler's picks that no other sampler made with the same seed, on average over seeds."""
    picks: dict[int, dict[str, list[int]]] = {}
    for sampler, runs in by_sampler.items():
        for one in runs:
            rows = [row for result in one.run.rounds if result.picked_by != "start" for row in result.rows.tolist()]
            if rows:
                picks.setdefault(one.seed, {})[sampler] = rows
    shares: dict[str, list[float]] = {}
    for together in picks.values():
        if len(together) > 1:
            for sampler, share in diagnostics.sole_picks(together).items():
                shares.setdefault(sampler, []).append(share)
    return {sampler: float(np.mean(found)) for sampler, found in shares.items()}
