"""Classifiers that are fitted to all rows at once, one data set or many, with a penalty that they choose."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from torchal._checks import check_whole
from torchal._chunks import values_per_chunk
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.models.base import TensorClassifier, TrainingData, as_alone
from torchal.models.checks import Array
from torchal.models.classical.search import Folds, alike, as_grid, best, stratified_folds
from torchal.pool.inputs import is_sparse

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Fitted:
    """What one fit has made."""

    module: nn.Module
    n_iter: Array
    complaint: str = ""
    """Why it is not the optimum; nothing where it is."""
    learned: Mapping[str, Any] = field(default_factory=dict)
    """Further attributes of the estimator."""


class Trials(ABC):
    """T data sets of as many rows and classes, which are fitted together."""

    repeats_bits: ClassVar[bool] = True
    """Whether a fit has the same bits whatever is fitted beside it and was searched before it."""

    @abstractmethod
    def search(self, grid: Sequence[float], folds: Folds) -> tuple[Tensor, Tensor]:
        """Fit all folds for each penalty of a grid, ascending.

        Returns:
            Accuracies (T, F, G) on the rows that each fold tests, and (T, G) how many of the fits did not converge.
        """

    @abstractmethod
    def fit(self, penalties: Sequence[float]) -> list[Fitted]:
        """Fit each data set to all its rows, each with a penalty of its own."""


class DirectClassifier(TensorClassifier):
    """Base of the classifiers that are fitted to all rows at once, with one penalty C or the best of a grid."""

    flattens = True
    fits_as_alone = True

    C: float | Sequence[float]
    n_folds: int
    tol: float
    max_iter: int
    C_: float
    n_folds_: int
    cv_accuracies_: Array
    n_iter_: Array

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
        self._forget()
        try:
            self._check_settings()
            complaints = self._fit_all([self], [self._training_data(X, y, sample_weight)], same_bits=True)
        except BaseException:
            self._forget()
            raise
        for complaint in complaints:
            warnings.warn(complaint, ConvergenceWarning, stacklevel=2)
        return self

    def fit_many(self, X: Any, y: Any, *, same_bits: bool = False) -> list[Self]:
        """Return T copies, each as if cloned and fitted alone on one of T data sets of equal size, but all at once.

        Args:
            X: the data sets.
            y: their labels.
            same_bits: search for C together, and then make the fit of each by itself, so that it has the bits of `fit`.
                Otherwise these may differ by rounding.

        Shapes:
            X: (T, n, ...), array or tensor, not sparse.
            y: (T, n).

        Raises:
            ShapeError: the lengths or the rows' shapes disagree; otherwise as `fit`.
        """
        if is_sparse(X) or not (hasattr(X, "__len__") and hasattr(y, "__len__")):
            raise DataError(
                f"X and y must be arrays, tensors or lists of data sets, got {type(X).__name__} and {type(y).__name__}"
            )
        if len(X) != len(y):
            raise ShapeError(f"X has {len(X)} data sets and y has {len(y)}")
        self._check_settings()
        fitted = [clone(self) for _ in range(len(X))]
        data = [one._training_data(rows, labels, None) for one, rows, labels in zip(fitted, X, y, strict=True)]
        for one in data:
            if is_sparse(one.inputs):
                raise DataError("data sets that are fitted together must be dense, got sparse ones; fit each alone")
            if one.inputs.shape != data[0].inputs.shape:
                shapes = f"{tuple(data[0].inputs.shape)} and {tuple(one.inputs.shape)}"
                raise ShapeError(f"data sets that are fitted together must be of one shape, got {shapes}")
        for complaint in self._fit_all(fitted, data, same_bits=same_bits):
            warnings.warn(complaint, ConvergenceWarning, stacklevel=2)
        return fitted

    def fit_report(self) -> dict[str, Any]:
        """Return the penalty that was chosen, from how many folds, and its mean accuracy on them."""
        search = {"cv_accuracy": float(self.cv_accuracies_.max())} if self.n_folds_ else {}
        return {"C": self.C_, "n_folds": self.n_folds_, **search}

    def _forget(self) -> None:
        """Take away what was learned: a fit that fails leaves nothing of itself, nor of the one before."""
        for name in [name for name in vars(self) if name.endswith("_") and not name.startswith("_")]:
            delattr(self, name)

    def _check_settings(self) -> None:
        """Require settings that are possible."""
        as_grid("C", self.C)
        check_whole("n_folds", self.n_folds, least=2)
        check_whole("max_iter", self.max_iter, least=1)
        if isinstance(self.tol, bool) or not isinstance(self.tol, Real) or not 0 <= self.tol < math.inf:
            raise ConfigError(f"tol must be a number of at least 0, got {self.tol!r}")

    def _fit_all(self, estimators: Sequence[Self], data: Sequence[TrainingData], *, same_bits: bool) -> list[str]:
        """Train each estimator on its data; return what is to be said of fits that did not converge."""
        grid = as_grid("C", self.C)
        dealt = [stratified_folds(one.codes, most=self.n_folds) if len(grid) > 1 else (one.codes, 0) for one in data]
        keys = [(one.n_classes, n_folds) for one, (_, n_folds) in zip(data, dealt, strict=True)]
        complaints = []
        for (_, n_folds), same in alike(keys).items():
            device = data[same[0]].codes.device
            most = max(1, values_per_chunk(device) // self._values_per_fit(data[same[0]]))
            most = 1 if self._is_fitted_alone(data[same[0]]) else most
            for some in (same[start : start + most] for start in range(0, len(same), most)):
                folds = Folds(stacked([dealt[i][0] for i in some]), n_folds)
                with as_alone(device):
                    complaints += self._fit_together(
                        [estimators[i] for i in some], [data[i] for i in some], grid, folds, same_bits=same_bits
                    )
        return complaints

    def _fit_together(
        self,
        estimators: Sequence[Self],
        data: Sequence[TrainingData],
        grid: Sequence[float],
        folds: Folds,
        *,
        same_bits: bool,
    ) -> list[str]:
        trials, complaints = self._trials(data), []
        penalties, accuracies = [grid[0]] * len(data), None
        if folds.n_folds:
            accuracies, n_open = trials.search(grid, folds)
            penalties = [grid[at] for at in best(accuracies, n_open.to(accuracies.device) > 0).tolist()]
            if bool(n_open.any()):
                complaints.append(
                    f"{int(n_open.sum())} of the problems by which {type(self).__name__} has chosen C did not "
                    f"converge; their C ({_named(grid, n_open)}) {_CHOSEN[bool((n_open > 0).all(1).any())]}. "
                    f"{self._advice}"
                )
        if same_bits and not trials.repeats_bits and (len(data) > 1 or folds.n_folds):
            del trials  # and its copies of the rows
            fits = [self._trials([one]).fit([C])[0] for one, C in zip(data, penalties, strict=True)]
        else:
            fits = trials.fit(penalties)
        for i, (one, fitted) in enumerate(zip(estimators, fits, strict=True)):
            one.module_, one.n_iter_ = fitted.module, fitted.n_iter
            one.C_, one.n_folds_ = penalties[i], folds.n_folds
            one.cv_accuracies_ = np.empty(0) if accuracies is None else accuracies[i].mean(0).cpu().numpy()
            for name, value in fitted.learned.items():
                setattr(one, name, value)
            one._fit_posterior(data[i])
            if fitted.complaint:
                complaints.append(f"{type(self).__name__} did not converge: {fitted.complaint}. {self._advice}")
        return complaints

    def _fit_posterior(self, data: TrainingData) -> None:
        """Learn from the rows of a finished fit what there is to draw from; most models have nothing."""

    _advice = "Increase max_iter or tol, lower C, or bring the features to a common scale."
    """What to do about a fit that did not converge."""

    @abstractmethod
    def _trials(self, data: Sequence[TrainingData]) -> Trials:
        """Return data sets to be fitted together by these settings; all have as many rows and classes."""

    def _is_fitted_alone(self, data: TrainingData) -> bool:  # noqa: ARG002
        """Tell whether data sets like this one are fitted one after another: nothing is in doing it at once."""
        return False

    @abstractmethod
    def _values_per_fit(self, data: TrainingData) -> int:
        """Return how many numbers a temporary of one fit has: as many fits are made at once as keep within a chunk."""


_CHOSEN = {False: "was not chosen", True: "was chosen only where no other converged"}


def _named(grid: Sequence[float], n_open: Tensor) -> str:
    """Return the penalties of a grid with fits that did not converge, (T, G), as text."""
    return ", ".join(f"{C:g}" for C, is_open in zip(grid, n_open.any(0).tolist(), strict=True) if is_open)


def check_solver(solver: object) -> None:
    """Require the name of a way to solve."""
    if solver not in ("auto", "torch"):
        raise ConfigError(f"solver must be 'auto' or 'torch', got {solver!r}")


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors; of one tensor no copy is made."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(list(tensors))


def as_array(values: Tensor) -> Array:
    """Return a copy of a tensor's numbers on the host."""
    array: Array = values.detach().cpu().numpy().copy()
    return array
