"""Classifiers that are fitted to all rows at once, one data set or many."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.base import clone
from torch import Tensor

from torchal._checks import check_whole
from torchal.errors import ConfigError, ShapeError
from torchal.functional.chunks import values_per_chunk
from torchal.models.base import Array, TensorClassifier, TrainingData, as_alone
from torchal.models.search import Folds, alike, as_grid, stratified_folds

if TYPE_CHECKING:
    from typing_extensions import Self


class DirectClassifier(TensorClassifier):
    """Base of the classifiers that are fitted to all rows at once, with one penalty C or the best of a grid."""

    flattens = True

    C: float | Sequence[float]
    n_folds: int
    tol: float
    max_iter: int
    C_: float
    n_folds_: int
    cv_accuracies_: Array

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from the start, whatever was fitted before.

        `device="auto"` trains where a CUDA tensor is, else on CUDA where there is one, else on the CPU.

        Shapes:
            X: (n, ...), array or tensor.
            y: (n,) labels of any dtype; in a tensor whole numbers.
            sample_weight: (n,), not negative; 1 each unless given. 0 is as good as no row.

        Raises:
            DataError: values or weights that cannot be used, no rows, or one class only.
            ShapeError: lengths disagree, or a tensor is on another accelerator than the model.
            ConfigError: a setting that is not possible.
        """
        self._check_settings()
        data = self._training_data(X, y, sample_weight)
        with as_alone(data.codes.device):
            self._fit_all([self], [data])
        return self

    def fit_many(self, X: Any, y: Any) -> list[Self]:
        """Return T copies, each as if cloned and fitted alone on one of T data sets of equal size, but all at once.

        Shapes:
            X: (T, n, ...), array or tensor.
            y: (T, n).

        Raises:
            ShapeError: the lengths disagree; otherwise as `fit`.
        """
        if len(X) != len(y):
            raise ShapeError(f"X has {len(X)} data sets and y has {len(y)}")
        self._check_settings()
        fitted = [clone(self) for _ in range(len(X))]
        data = [one._training_data(rows, labels, None) for one, rows, labels in zip(fitted, X, y, strict=True)]
        alike: dict[Hashable, list[int]] = defaultdict(list)
        for i, one in enumerate(data):
            alike[one.n_classes].append(i)
        for some in alike.values():
            with as_alone(data[some[0]].codes.device):
                self._fit_all([fitted[i] for i in some], [data[i] for i in some])
        return fitted

    def _check_settings(self) -> None:
        """Require settings that are possible."""
        as_grid("C", self.C)
        check_whole("n_folds", self.n_folds, least=2)
        check_whole("max_iter", self.max_iter, least=1)
        if not self.tol >= 0:
            raise ConfigError(f"tol must be at least 0, got {self.tol!r}")

    def _fit_all(self, estimators: Sequence[Self], data: Sequence[TrainingData]) -> None:
        """Train each estimator from the start on its data; all have as many rows and classes."""
        grid = as_grid("C", self.C)
        dealt = [stratified_folds(one.codes, most=self.n_folds) if len(grid) > 1 else (one.codes, 0) for one in data]
        most = max(1, values_per_chunk(data[0].codes.device) // self._values_per_fit(data[0]))
        for n_folds, some in alike([n_folds for _, n_folds in dealt], most=most):
            folds = Folds(stacked([dealt[i][0] for i in some]), n_folds)
            self._fit_together([estimators[i] for i in some], [data[i] for i in some], grid, folds)

    @abstractmethod
    def _values_per_fit(self, data: TrainingData) -> int:
        """Return how many numbers a temporary of one fit has: as many fits are made at once as keep within a chunk."""

    @abstractmethod
    def _fit_together(
        self, estimators: Sequence[Self], data: Sequence[TrainingData], grid: list[float], folds: Folds
    ) -> None:
        """Choose a C of the grid by the folds, the only one without any, and train. Sets `module_` of each estimator.

        All have as many rows, classes and folds.
        """

    def fit_report(self) -> dict[str, Any]:
        """Return the penalty that was chosen, from how many folds, and its mean accuracy on them."""
        search = {"cv_accuracy": float(self.cv_accuracies_.max())} if self.n_folds_ else {}
        return {"C": self.C_, "n_folds": self.n_folds_, **search}

    def _note_search(self, C: float, accuracies: Tensor | None, n_folds: int) -> None:
        """Keep which C was chosen, and by which accuracies (F, G)."""
        self.C_, self.n_folds_ = C, n_folds
        self.cv_accuracies_ = np.empty(0) if accuracies is None else accuracies.mean(0).cpu().numpy()


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors; of one tensor no copy is made."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))
