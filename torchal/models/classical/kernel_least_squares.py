"""Kernel least squares of one-hot targets, with its ridge tuned by cross-validation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from torchal._checks import check_whole
from torchal._chunks import values_per_chunk
from torchal.models.base import ProbabilityMixin, TrainingData
from torchal.models.checks import Array
from torchal.models.classical.direct import DirectClassifier, Fitted, Trials, as_array, stacked
from torchal.models.classical.kernel import KernelMachine, check_gamma, warn_of_degenerate, width_of
from torchal.models.classical.search import Folds
from torchal.solvers.kernel_ridge import RidgeSystem
from torchal.solvers.kernels import RbfKernel

_ROUNDING = 1e-8  # residual that float64 may leave where the ridge is tiny


class KernelLeastSquares(ProbabilityMixin, DirectClassifier):
    """Fit one-hot targets by least squares in the space of an RBF kernel, with a ridge, in float64.

    The coefficients are (K + C s W^-1)^-1 Y, with Y the one-hot targets, W the diagonal of the rows' weights, which is
    I unless given, and s their sum: scikit-learn's KernelRidge at alpha = C s. There is no intercept. Rows of more than
    one axis are flattened.

    Args:
        C: the ridge: larger is smoother. Of a grid the best by the accuracy, weighted where rows are, of a stratified
            cross-validation that does not shuffle; of equally good ones the smallest.
        gamma: of the kernel exp(-gamma |x - y|^2): "auto" is 1 / D, "scale" 1 / (D times the variance of X), or a
            number.
        block_size: rows whose kernel matrix is factorised at once. More rows are solved by conjugate gradients with a
            preconditioner made from so many of them, in memory that does not grow with the square of n.
        n_folds: folds of the cross-validation; fewer where a class has fewer rows. The only row of a class is trained
            on in all folds; with no class of two rows, the smallest C is taken.
        tol: residual, relative to the targets, at which conjugate gradients end.
        max_iter: most of their steps.
        device: "auto" (that of a CUDA tensor, else CUDA, else CPU), or a torch device.

    Probabilities are the softmax of the C fitted targets, which are not calibrated: all of them are close together.
    Outputs are float64 whatever the dtype of the inputs.

    Attributes:
        module_: KernelMachine in float64, (n, D) -> (n, C), also for two classes.
        dual_coef_: (n, C) the coefficients as an array.
        gamma_: gamma as a number.
        C_: the ridge that was used.
        cv_accuracies_: (G,) mean accuracy over the folds of each C of a grid, ascending; else empty.
        n_folds_: how many folds there were; 0 without a search.
        n_iter_: (1,) steps of conjugate gradients; 1 where the system was solved directly.
        classes_: (C,) labels in the order of the columns.

    Reference:
        Tu, Roelofs, Venkataraman & Recht, "Large Scale Kernel Learning using Block Coordinate Descent", 2016, for the
        model, which it solves another way.

    Complexity:
        As of `torchal.solvers.kernel_ridge.RidgeSystem`: O(n^3) for each C, and O(n^2) memory, up to `block_size`.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = KernelLeastSquares(C=[0.01, 1.0]).fit(x, torch.tensor([3, 3, 7, 7]))
        >>> model.C_, model.predict(x).tolist()
        (0.01, [3, 3, 7, 7])
    """

    def __init__(
        self,
        *,
        C: float | Sequence[float] = 0.1,
        gamma: float | Literal["auto", "scale"] = "auto",
        block_size: int = 4000,
        n_folds: int = 3,
        tol: float = 1e-8,
        max_iter: int = 200,
        device: str | torch.device = "auto",
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.block_size = block_size
        self.n_folds = n_folds
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    module_: KernelMachine

    @property
    def dual_coef_(self) -> Array:
        """(n, C) the coefficients as an array."""
        return as_array(self.module_.weight)

    def _check_settings(self) -> None:
        super()._check_settings()
        check_gamma(self.gamma)
        check_whole("block_size", self.block_size, least=1)

    def _logits(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.module_(rows)
        return logits

    def _values_per_fit(self, data: TrainingData) -> int:
        n_rows = len(data.codes)
        return n_rows**2 if n_rows <= self.block_size else sys.maxsize  # above, systems are solved one by one

    def _trials(self, data: Sequence[TrainingData]) -> Trials:
        return _RidgeTrials(self, data)

    _advice = "Increase max_iter, tol, C or block_size."


class _RidgeTrials(Trials):
    """T data sets, each with a linear system for each ridge."""

    def __init__(self, model: KernelLeastSquares, data: Sequence[TrainingData]) -> None:
        self._model = model
        self._x = stacked([one.inputs.double() for one in data])
        self._codes = stacked([one.codes for one in data])
        self._targets = nn.functional.one_hot(self._codes, data[0].n_classes).double()
        self._is_weighted = any(one.weights is not None for one in data)
        self._weights = stacked([one.row_weights for one in data])
        self._within = max(model.tol, _ROUNDING)

    def search(self, grid: Sequence[float], folds: Folds) -> tuple[Tensor, Tensor]:
        """Fit one fold after another, each with one kernel for all ridges."""
        found = [self._search_fold(folds.of_row == fold, grid) for fold in range(folds.n_folds)]
        accuracies, n_open = zip(*found, strict=True)
        return torch.stack(accuracies, 1), torch.stack(n_open).sum(0)

    def fit(self, penalties: Sequence[float]) -> list[Fitted]:
        """Fit all data sets at once."""
        widths = [width_of(self._model.gamma, rows) for rows in self._x]
        for rows, width in zip(self._x, widths, strict=True):
            warn_of_degenerate(rows, width)
        gamma = self._x.new_tensor(widths)
        system = self._system(self._x, gamma, self._weights if self._is_weighted else None)
        ridge = self._x.new_tensor(penalties) * self._weights.sum(1)
        coef, n_iter = self._solve(system, self._targets, ridge)
        residual = system.residual(coef, self._targets, ridge)
        fits = []
        for i in range(len(coef)):
            how = f"after {n_iter} steps of conjugate gradients" if n_iter else "of the solution by a factorisation"
            complaint = ""
            if bool(ridge[i] < system.least_ridge[i]):
                complaint = (
                    f"its ridge, {float(ridge[i]):.1e}, is below the rounding of the kernel matrix, and was taken as "
                    f"{float(system.least_ridge[i]):.1e}"
                )
            elif not residual[i] <= self._within:
                complaint = f"the residual {how} is {float(residual[i]):.1e} of the targets, tol is {self._within:.1e}"
            module = KernelMachine(self._x[i].clone(), float(gamma[i]), coef[i].clone())
            fits.append(
                Fitted(module, np.array([max(1, n_iter)], dtype=np.int32), complaint, {"gamma_": float(gamma[i])})
            )
        return fits

    def _search_fold(self, tested: Tensor, grid: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Return the accuracies (T, G) on the rows that a fold tests (T, n), and (T, G) which fits did not converge."""
        train, test = _rows_where(~tested), _rows_where(tested)
        x, cross, targets = (
            part.take_along_dim(rows.unsqueeze(2), 1)
            for part, rows in ((self._x, train.rows), (self._x, test.rows), (self._targets, train.rows))
        )
        weights = self._weights.gather(1, train.rows) * train.used
        gamma = x.new_tensor(
            [width_of(self._model.gamma, rows[used]) for rows, used in zip(x, train.used, strict=True)]
        )
        filled_up = not bool(train.used.all())
        system = self._system(x, gamma, weights if self._is_weighted or filled_up else None)
        truth = self._codes.gather(1, test.rows)
        counted = self._weights.gather(1, test.rows) * test.used
        coefs, is_open = [], []
        for C in grid:
            ridge = C * weights.sum(1)
            coef, _ = self._solve(system, targets, ridge)
            is_open.append(self._is_open(system, coef, targets, ridge))
            coefs.append(coef)
        right = _largest(cross, x, gamma, torch.stack(coefs, 2)) == truth.unsqueeze(2)
        return (right * counted.unsqueeze(2)).sum(1) / counted.sum(1, keepdim=True), torch.stack(is_open, 1)

    def _is_open(self, system: RidgeSystem, coef: Tensor, targets: Tensor, ridge: Tensor) -> Tensor:
        """Return (T,) where coefficients are no solution, or one that rounding alone has made."""
        return ~(system.residual(coef, targets, ridge) <= self._within) | (ridge < system.least_ridge)

    def _system(self, x: Tensor, gamma: Tensor, weights: Tensor | None) -> RidgeSystem:
        return RidgeSystem(x, gamma, weights=weights, block_size=self._model.block_size)

    def _solve(self, system: RidgeSystem, targets: Tensor, ridge: Tensor) -> tuple[Tensor, int]:
        return system.solve(targets, ridge, tol=self._model.tol, max_iter=self._model.max_iter)


class _Rows(NamedTuple):
    """Some rows of each trial, filled up to as many as the trial with most of them has.

    Shapes:
        rows: (T, m) int64.
        used: (T, m) bool.
    """

    rows: Tensor
    used: Tensor


def _rows_where(mask: Tensor) -> _Rows:
    """Return the rows where a mask (T, n) is set, in their order."""
    order = (~mask).long().argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
    return _Rows(order, mask.gather(1, order))


def _largest(x: Tensor, support: Tensor, gamma: Tensor, coef: Tensor) -> Tensor:
    """Return which fitted target is largest, (T, k, G) int64, at rows x (T, k, D), for coefficients (T, m, G, C)."""
    n_trials, n_support, n_ridges, n_targets = coef.shape
    per_row = n_trials * max(n_support, n_ridges * n_targets, x.shape[2])
    kernel, flat = RbfKernel(support, gamma[:, None, None]), coef.flatten(2)
    chunks = x.split(max(1, values_per_chunk(x.device) // per_row), 1)
    return torch.cat([(kernel(some) @ flat).unflatten(2, (n_ridges, n_targets)).argmax(3) for some in chunks], 1)
