"""Wrong labels, for simulations of people who make mistakes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import check_whole, rows_in
from torchal.data.cut import SUM_TOLERANCE
from torchal.data.splits import Splits
from torchal.errors import ConfigError
from torchal.pool.inputs import SparseInputs
from torchal.protocols import UNLABELED

_KINDS = ("uniform", "confusion")


def with_label_noise(
    splits: Splits,
    share: float | None = None,
    *,
    kind: str = "uniform",
    matrix: Sequence[Sequence[float]] | None = None,
    seed: int = 0,
) -> Splits:
    """Return splits in whose training part some labels are another class; validation and test stay true.

    Args:
        splits: the data; `true_targets` of the answer are its training labels.
        share: the share of the training rows whose labels are flipped, in [0, 1), rounded down to whole rows.
        kind: "uniform", where each of the other classes is as likely; or "confusion", where a class is mistaken for
            those that it is confused with by the nearest mean of the classes in 3-fold cross-validation (one is added
            to each count). Two classes are the same by both.
        matrix: (C, C) probabilities in place of share: in row i those of each label that a row of class i gets.
        seed: draws the rows and their labels.

    Raises:
        ConfigError: a setting is unknown or impossible.

    Reference:
        google/active-learning, `utils.flip_label`. Deviation: there the labels of the whole data set are flipped, those
        of validation and test with them.

    Example:
        >>> from torchal.data import iris
        >>> noisy = with_label_noise(iris(), 0.1)
        >>> int((noisy.train.targets != noisy.true_targets).sum()), len(noisy.train.targets)
        (10, 100)
    """
    check_whole("seed", seed, least=0)
    if kind not in _KINDS:
        raise ConfigError(f"noise.kind must be one of {', '.join(_KINDS)}; got {kind!r}")
    if (share is None) == (matrix is None):
        raise ConfigError(f"give one of the share of noise and its matrix, got share={share!r} and matrix={matrix!r}")
    check_noise(share)
    truth = splits.train.targets
    labels, n_classes = truth.cpu().numpy().copy(), splits.n_classes
    known = np.flatnonzero(labels != UNLABELED)
    generator = np.random.default_rng([seed, 3])  # another stream than the split, which is drawn from the seed alone
    if matrix is not None:
        rows, odds = known, _checked_matrix(matrix, n_classes)
    else:
        rows = np.sort(generator.choice(known, rows_in(share, len(known)) if share else 0, replace=False))
        odds = np.ones((n_classes, n_classes)) if kind == "uniform" or n_classes == 2 else _confusions(splits, known)
        np.fill_diagonal(odds, 0)
    ends = (odds / odds.sum(1, keepdims=True)).cumsum(1)
    ends[:, -1] = 1.0  # and not a rounding below it
    drawn = generator.random(len(rows))
    labels[rows] = (drawn[:, None] >= ends[labels[rows]]).sum(1)
    noisy = torch.from_numpy(labels).to(truth.device)
    return replace(splits, train=splits.train._replace(targets=noisy), true_targets=truth)


def check_noise(share: object) -> None:
    """Require a share of wrong labels that is possible."""
    good = share is None or (isinstance(share, Real) and not isinstance(share, bool) and math.isfinite(share))
    if not good or (share is not None and not 0 <= float(share) < 1):  # type: ignore[arg-type]
        raise ConfigError(f"the share of noise must be a number in [0, 1), got {share!r}")


def _checked_matrix(matrix: object, n_classes: int) -> NDArray[np.float64]:
    try:
        odds = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"noise.matrix must be {n_classes} x {n_classes} numbers: {error}") from error
    if odds.shape != (n_classes, n_classes):
        raise ConfigError(f"noise.matrix must be {n_classes} x {n_classes}, one row for each class, got {odds.shape}")
    if not (odds >= 0).all() or not np.allclose(odds.sum(1), 1, atol=SUM_TOLERANCE):
        raise ConfigError(f"each row of noise.matrix must be probabilities that sum to 1, got sums {odds.sum(1)}")
    return odds


def _confusions(splits: Splits, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return how often each class is taken for each other one by the nearest mean, and one more."""
    from sklearn.metrics import confusion_matrix
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.neighbors import NearestCentroid

    inputs, labels = splits.train.inputs, splits.train.targets.cpu().numpy()[rows]
    if isinstance(inputs, SparseInputs):
        flat = inputs[torch.from_numpy(rows)].matrix
    elif isinstance(inputs, Tensor):
        flat = inputs[torch.from_numpy(rows).to(inputs.device)].flatten(1).cpu().numpy()
    else:
        raise ConfigError("noise.kind=confusion needs inputs in one tensor or sparse matrix; use uniform, or a matrix")
    predicted = cross_val_predict(NearestCentroid(), flat, labels, cv=KFold(3))
    counts: NDArray[np.float64] = confusion_matrix(labels, predicted, labels=range(splits.n_classes)) + 1.0
    return counts
