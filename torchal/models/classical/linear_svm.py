"""Linear support vector machines, with their penalty tuned by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor

from torchal.models.base import TrainingData, likeliest
from torchal.models.checks import Array
from torchal.models.classical.direct import Fitted, Trials, as_array, check_solver
from torchal.models.classical.linear import SEARCH_TOL, LinearClassifier, LinearTrials, linear_layer
from torchal.models.classical.search import Folds, accuracies_one_by_one
from torchal.pool.inputs import SparseInputs, is_sparse
from torchal.solvers.linear_losses import Loss
from torchal.solvers.linear_rows import Intercept
from torchal.solvers.newton import LinearSolution

_COMPILED = {"tol": 1e-8, "max_iter": 2000}  # of LinearSVC, which may end far from the optimum all the same
_FEW_NUMBERS = 2**16  # of a matrix, zeros counted, that is solved as fast when dense
_SEARCH_BOUND, _FINAL_BOUND = 1e-3, 1e-7  # relative distances to the least objective up to which its answer is taken


class LinearSVM(LinearClassifier):
    """Fit a linear support vector machine of each class against all others, with the squared hinge loss, in float64.

    It is scikit-learn's LinearSVC: the penalty counts the intercept as the weight of a feature that is always 1. There
    are no probabilities. Rows are read as `LogisticRegression` reads them.

    Args:
        C: as of `LogisticRegression`.
        fit_intercept: whether each class has an intercept.
        solver: "torch" is Newton's method here; "auto" lets scikit-learn's compiled LinearSVC begin for sparse rows on
            the CPU, where that is up to ten times faster, and goes on by Newton's method where its answer is not sure
            to be close: relatively within 1e-7 of the least objective, and 1e-3 in the search.
        n_folds: as of `LogisticRegression`.
        tol: as of `LogisticRegression`, for what Newton's method solves.
        max_iter: most Newton steps; separable rows with a large C need some hundreds.
        device: as of `LogisticRegression`.

    Attributes:
        module_: nn.Linear in float64, with one output for two classes, else C.
        n_iter_: (1 or C,) steps of each class; (1,), the most, by LinearSVC.
        coef_, intercept_, C_, cv_accuracies_, n_folds_, classes_: as of `LogisticRegression`.

    Reference:
        Keerthi & DeCoste, "A Modified Finite Newton Method for Fast Solution of Large Scale Linear SVMs", JMLR 2005;
        steps are halved here where they search the line for its least objective.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = LinearSVM(C=[0.1, 10.0]).fit(x, torch.tensor([0, 0, 1, 1]))
        >>> model.C_, model.decision_function(x).sign().tolist()
        (0.1, [-1.0, -1.0, 1.0, 1.0])
    """

    def __init__(
        self,
        *,
        C: float | Sequence[float] = 1.0,
        fit_intercept: bool = True,
        solver: Literal["auto", "torch"] = "auto",
        n_folds: int = 3,
        tol: float = 1e-10,
        max_iter: int = 1000,
        device: str | torch.device = "auto",
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.n_folds = n_folds
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def _check_settings(self) -> None:
        super()._check_settings()
        check_solver(self.solver)

    def _loss(self, n_classes: int) -> Loss:  # noqa: ARG002
        return "squared_hinge"

    def _intercept(self) -> Intercept:
        return "penalized" if self.fit_intercept else "none"

    def _trials(self, data: Sequence[TrainingData]) -> Trials:
        first = data[0]  # sparse rows come alone
        faster = is_sparse(first.inputs) and first.inputs.numel() > _FEW_NUMBERS and first.codes.device.type == "cpu"
        complete = len(first.codes.unique()) == first.n_classes  # LinearSVC takes no class without rows
        return _CompiledTrials(self, data) if self.solver == "auto" and faster and complete else super()._trials(data)


class _CompiledTrials(LinearTrials):
    """One sparse data set. LinearSVC begins, and Newton's method goes on where its answer is not sure to be close."""

    repeats_bits = True  # LinearSVC has no state

    def __init__(self, model: LinearSVM, data: Sequence[TrainingData]) -> None:
        super().__init__(model, data)
        self._data = data[0]
        self._x = SparseInputs(self._data.inputs.double()).matrix
        self._settings = {"fit_intercept": model.fit_intercept, "random_state": 0, **_COMPILED}

    def search(self, grid: Sequence[float], folds: Folds) -> tuple[Tensor, Tensor]:
        """Fit each fold for each C alone."""
        n_open, tol = dict.fromkeys(grid, 0), max(self._tol, SEARCH_TOL)

        def fit_predict(C: float, trained: Array, tested: Array) -> Array:
            begun, theta = self._begin(C, trained)
            if self._is_within(_SEARCH_BOUND, theta, C, trained):
                codes: Array = begun.predict(self._x[tested])
                return codes
            solution = self._go_on(theta, C, trained, tol=tol)
            n_open[C] += int((~(solution.gap <= tol)).sum())
            return as_array(likeliest(solution.logits[0, torch.from_numpy(tested), :, 0]))

        codes, weights = self._data.codes, self._data.weights
        accuracies = accuracies_one_by_one(grid, folds, codes, fit_predict, weights=weights)
        return accuracies, torch.tensor([list(n_open.values())], device="cpu")

    def fit(self, penalties: Sequence[float]) -> list[Fitted]:
        """Fit all rows."""
        rows = np.arange(len(self._data.codes))
        begun, theta = self._begin(penalties[0], rows)
        if not self._is_within(_FINAL_BOUND, theta, penalties[0], rows):
            return self.fitted(self._go_on(theta, penalties[0], rows, tol=self._tol))
        intercept = torch.from_numpy(begun.intercept_) if self._has_intercept else None
        layer = linear_layer(torch.from_numpy(begun.coef_), intercept)
        return [Fitted(layer, np.array([begun.n_iter_], dtype=np.int32))]

    def _begin(self, C: float, rows: Array) -> tuple[LinearSVC, Tensor]:
        """Return a LinearSVC that is fitted to some rows, and its parameters (K, columns)."""
        codes, weights = self._data.codes.numpy(), self._weights[0].numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # how close it came is looked at anyway
            begun = LinearSVC(C=C, **self._settings).fit(self._x[rows], codes[rows], sample_weight=weights[rows])
        parts = [torch.from_numpy(begun.coef_)]
        if self._has_intercept:
            parts.append(torch.from_numpy(begun.intercept_).unsqueeze(1))
        return begun, torch.cat(parts, 1)

    def _is_within(self, distance: float, theta: Tensor, C: float, rows: Array) -> bool:
        """Tell whether parameters are surely within a relative distance of the least objective."""
        bound = self.solver.bound(self.targets.unsqueeze(3), self._problem_weights(C, rows), theta[None, :, None])
        return bool((bound <= distance).all())

    def _go_on(self, theta: Tensor, C: float, rows: Array, *, tol: float) -> LinearSolution:
        weights = self._problem_weights(C, rows)
        return self.solver.solve(self.targets.unsqueeze(3), weights, tol=tol, starts=[theta[None, :, None]])

    def _problem_weights(self, C: float, rows: Array) -> Tensor:
        """Return C times the weights of some rows, 0 of the others, for each class: (1, n, K)."""
        counted = torch.zeros(len(self._data.codes), dtype=torch.float64, device="cpu")
        counted[torch.from_numpy(rows)] = C * self._weights[0, torch.from_numpy(rows)]
        return counted[None, :, None].expand(-1, -1, self.targets.shape[2])
