"""Choosing a penalty by cross-validation, as scikit-learn's GridSearchCV does it."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold
from torch import Tensor

from torchal.errors import ConfigError

Key = TypeVar("Key", bound=Hashable)

_LARGEST = sys.float_info.max

NEVER = -1
"""The fold of a row that is trained on in all folds: the only one of its class."""


def as_grid(name: str, value: Any) -> list[float]:
    """Return a number, or a grid of them, as ascending numbers without repeats.

    Raises:
        ConfigError: one of them is not above 0 and finite, or there is none.
    """
    values: Any = value.tolist() if isinstance(value, np.ndarray | np.generic | Tensor) else value
    values = list(values) if isinstance(values, Sequence) and not isinstance(values, str | bytes) else [values]
    for one in values:
        if isinstance(one, bool) or not isinstance(one, Real) or not 0 < one <= _LARGEST:  # type: ignore[operator]
            raise ConfigError(f"{name} must be above 0 and finite, or a grid of such numbers, got {value!r}")
    if not values:
        raise ConfigError(f"{name} must have at least one number, got an empty grid")
    return sorted({float(one) for one in values})


def stratified_folds(codes: Tensor, *, most: int) -> tuple[Tensor, int]:
    """Deal rows out to folds as scikit-learn's StratifiedKFold does without shuffling, class by class in their order.

    There are no more folds than the smallest class has rows, so that each fold tests and trains on all classes. A class
    of one row is trained on everywhere and tested nowhere.

    Shapes:
        codes: (n,) int64, classes.

    Returns:
        The fold (n,) int64 in which each row is tested, or `NEVER`; and how many folds there are, 0 if no class has 2
        rows.
    """
    labels = codes.cpu().numpy()
    counts = np.bincount(labels)
    folds = np.full(len(labels), NEVER)
    rows = (counts[labels] >= 2).nonzero()[0]
    n_folds = min(most, int(counts[counts >= 2].min())) if len(rows) else 0
    if n_folds:
        for fold, (_, tested) in enumerate(StratifiedKFold(n_folds).split(rows, labels[rows])):
            folds[rows[tested]] = fold
    return torch.as_tensor(folds, device=codes.device), n_folds


class Folds(NamedTuple):
    """In which fold each row of T data sets is tested, or `NEVER`.

    Shapes:
        of_row: (T, n) int64.
    """

    of_row: Tensor
    n_folds: int
    """0 where there is nothing to choose."""

    def tested(self) -> Tensor:
        """(T, n, F) bool."""
        return self.of_row.unsqueeze(2) == torch.arange(self.n_folds, device=self.of_row.device)


def best(accuracies: Tensor, is_open: Tensor | None = None) -> Tensor:
    """Return which of G candidates is best on average over the folds, (...) int64; of equally good ones the first.

    The accuracy of a fit that did not converge is that of wherever it stopped: such a candidate is not chosen, unless
    there is no other.

    Shapes:
        accuracies: (..., F, G) float64; candidates in ascending order.
        is_open: (..., G) bool, candidates with a fit that did not converge; none unless given.
    """
    mean = accuracies.mean(-2)
    if is_open is not None:
        mean = torch.where(is_open & ~is_open.all(-1, keepdim=True), -torch.inf, mean)
    level = mean >= mean.amax(-1, keepdim=True) - 1e-12  # the same counts, added up in another order
    return level.int().argmax(-1)


def alike(keys: Sequence[Key]) -> dict[Key, list[int]]:
    """Return for each key, in the order of their first places, the positions where it stands."""
    positions = defaultdict(list)
    for i, key in enumerate(keys):
        positions[key].append(i)
    return dict(positions)


def accuracies_one_by_one(
    grid: Sequence[float],
    folds: Folds,
    codes: Tensor,
    fit_predict: Callable[[float, NDArray[Any], NDArray[Any]], NDArray[Any]],
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the accuracies (1, F, G) of fits that are made one after another.

    Args:
        grid: candidates, ascending.
        folds: of one data set.
        codes: (n,) int64, classes.
        fit_predict: fits with a candidate on some rows, and returns the codes that it predicts for others.
        weights: (n,) of the rows that are predicted; 1 each unless given.
    """
    labels, fold_of = codes.cpu().numpy(), folds.of_row[0].cpu().numpy()
    counted = np.ones(len(labels)) if weights is None else weights.cpu().numpy()
    accuracies = torch.empty(1, folds.n_folds, len(grid), dtype=torch.float64, device="cpu")
    for fold in range(folds.n_folds):
        trained, tested = (fold_of != fold).nonzero()[0], (fold_of == fold).nonzero()[0]
        for i, candidate in enumerate(grid):
            right = fit_predict(candidate, trained, tested) == labels[tested]
            accuracies[0, fold, i] = float(np.average(right, weights=counted[tested]))
    return accuracies
