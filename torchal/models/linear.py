"""Linear classifiers by Newton's method, to scikit-learn's optimum, with their penalty tuned by cross-validation."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from torchal._checks import check_flag
from torchal.errors import ConfigError
from torchal.functional.linear_losses import Loss
from torchal.functional.linear_rows import Intercept
from torchal.functional.newton import LinearSolution, LinearSolver
from torchal.inputs import SparseInputs, is_sparse
from torchal.models.base import Array, ProbabilityMixin, TrainingData
from torchal.models.direct import DirectClassifier, stacked
from torchal.models.search import Folds, as_grid, best, search_one_by_one

if TYPE_CHECKING:
    from typing_extensions import Self

_SEARCH_TOL = 1e-4  # of the fits that are to tell which penalty is best: below it no prediction changes

_COMPILED_TOL = 1e-4  # of LinearSVC, in a measure of its own, which may end far from the optimum
_SEARCH_BOUND, _FINAL_BOUND = 1e-3, 1e-7  # relative distances to the least objective up to which its answer is taken


class LinearClassifier(DirectClassifier):
    """Base of the linear classifiers. A child says which loss and which intercept."""

    takes_sparse = True

    module_: nn.Linear
    n_iter_: Array

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @property
    def coef_(self) -> Array:
        """(1 or C, D) the weights as an array."""
        return _as_array(self.module_.weight)

    @property
    def intercept_(self) -> Array:
        """(1 or C,) the intercepts as an array."""
        bias = self.module_.bias
        return np.zeros(len(self.coef_)) if bias is None else _as_array(bias)

    @abstractmethod
    def _loss(self, n_classes: int) -> Loss:
        """Return which loss is minimised."""

    @abstractmethod
    def _intercept(self) -> Intercept:
        """Return what the penalty is to the intercept."""

    def _logits(self, rows: Tensor) -> Tensor:
        rows, layer = rows.double(), self.module_
        logits: Tensor
        if is_sparse(rows):  # which nn.Linear does not take
            logits = rows @ layer.weight.T
            return logits if layer.bias is None else logits + layer.bias
        logits = layer(rows)
        return logits

    def _values_per_fit(self, data: TrainingData) -> int:
        return len(data.codes) * data.n_classes * self.n_folds

    def _fit_together(
        self, estimators: Sequence[Self], data: Sequence[TrainingData], grid: list[float], folds: Folds
    ) -> None:
        trials = _Trials(self, data)
        chosen = torch.zeros_like(folds.of_row[:, 0])
        accuracies: Tensor | None = None
        n_open, starts = chosen, None
        if folds.n_folds:
            accuracies, paths, n_open = trials.search(grid, folds)
            chosen = best(accuracies)
            starts = paths[chosen, torch.arange(len(data), device=chosen.device)]
        C = torch.tensor(grid, dtype=torch.float64, device=chosen.device)[chosen]
        fits = trials.fit(C, starts)
        for i, one in enumerate(estimators):
            one._note_search(float(C[i]), None if accuracies is None else accuracies[i], folds.n_folds)
            one.n_iter_ = _as_array(fits.n_steps[i]).astype(np.int32)
            one.module_ = _linear(fits.coef[i], None if self._intercept() == "none" else fits.intercept[i])
            self._warn(float(fits.gap[i].max()), int(fits.n_steps[i].max()), int(n_open[i]))

    def _warn(self, gap: float, n_steps: int, n_open: int) -> None:
        """Say that a fit, or some of the fits that searched for its penalty, did not converge."""
        name = type(self).__name__
        advice = "Increase max_iter or tol, lower C, or bring the features to a common scale."
        if not 0 <= gap <= self.tol:
            warnings.warn(
                f"{name} did not converge in {n_steps} of at most {self.max_iter} Newton steps: the objective is about "
                f"{gap:.1e} of itself above the least, tol is {self.tol:.1e}. {advice}",
                ConvergenceWarning,
                stacklevel=5,
            )
        if n_open:
            warnings.warn(
                f"{n_open} problems of {name}'s search for C did not converge. {advice}",
                ConvergenceWarning,
                stacklevel=5,
            )


class LogisticRegression(ProbabilityMixin, LinearClassifier):
    """Fit a multinomial logistic regression with an L2 penalty, by Newton's method in float64.

    The objective is scikit-learn's: C times the weighted sum of the rows' log-losses, plus half the squared weights;
    the intercept is not penalised. Two classes have one weight vector. (A softmax over two at C is this at 2C.) Rows of
    more than one axis are flattened. Sparse rows, SciPy's or torch's, stay sparse.

    Convergence is judged by the Newton decrement, the gradient's length in the metric of the inverse Hessian: half its
    square is the distance to the least objective, whatever the features' scales.

    Args:
        C: inverse strength of the penalty; of a grid the best by the accuracy, weighted where rows are, of a stratified
            cross-validation that does not shuffle. Of equally good ones the smallest.
        fit_intercept: whether each class has an intercept.
        n_folds: folds of the cross-validation; fewer where a class has fewer rows. The only row of a class is trained
            on in all folds; with no class of two rows, the smallest C is taken.
        tol: distance to the least objective, relative to the objective, at which to take the last step, which ends
            well below it.
        max_iter: most Newton steps.
        device: "auto" (that of a CUDA tensor, else CUDA, else CPU), or a torch device.

    Outputs are float64 whatever the dtype of the inputs, so that close margins keep their order.

    Attributes:
        module_: nn.Linear in float64, with one output for two classes, else C.
        coef_: (1 or C, D) its weights as an array.
        intercept_: (1 or C,) its intercepts; zeros without.
        C_: the penalty that was used.
        cv_accuracies_: (G,) mean accuracy over the folds of each C of a grid, ascending; else empty.
        n_folds_: how many folds there were; 0 without a search.
        n_iter_: (1,) Newton steps taken, by the last fit.
        classes_: (C,) labels in the order of the columns.

    Reference:
        The inexact Newton method of Nocedal & Wright, "Numerical Optimization", 2nd ed., algorithm 7.1, with
        preconditioned conjugate gradients.

    Complexity:
        As of `torchal.functional.newton.LinearSolver`. A search fits all folds at once, from one C to the next, and
        starts each where the last two point.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = LogisticRegression().fit(x, torch.tensor([3, 3, 7, 7]))
        >>> model.predict(x)
        tensor([3, 3, 7, 7])
        >>> model.coef_.round(4)
        array([[1.0066]])
        >>> LogisticRegression(C=[0.01, 1.0, 100.0]).fit(x, torch.tensor([3, 3, 7, 7])).C_
        0.01
    """

    def __init__(
        self,
        *,
        C: float | Sequence[float] = 1.0,
        fit_intercept: bool = True,
        n_folds: int = 3,
        tol: float = 1e-10,
        max_iter: int = 100,
        device: str | torch.device = "auto",
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.n_folds = n_folds
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def _loss(self, n_classes: int) -> Loss:
        return "softmax" if n_classes > 2 else "logistic"

    def _intercept(self) -> Intercept:
        return "free" if self.fit_intercept else "none"


class OneVsRestLogisticRegression(ProbabilityMixin, LinearClassifier):
    """Fit a logistic regression of each class against all others, with an L2 penalty, by Newton's method in float64.

    It is scikit-learn's OneVsRestClassifier(LogisticRegression()); with `penalize_intercept` that of
    LogisticRegression(solver="liblinear"). All classes share one C. Rows of more than one axis are flattened; sparse
    rows stay sparse.

    Args:
        C: as of `LogisticRegression`.
        fit_intercept: whether each class has an intercept.
        penalize_intercept: whether the penalty counts the intercept as the weight of a feature that is always 1.
        n_folds, tol, max_iter, device: as of `LogisticRegression`.

    Attributes:
        module_: nn.Linear in float64, with one output for two classes, else C.
        n_iter_: (1 or C,) Newton steps of each class.
        coef_, intercept_, C_, cv_accuracies_, n_folds_, classes_: as of `LogisticRegression`.

    Probabilities are the classes' own, divided by their sum.

    Example:
        >>> x = torch.tensor([[-3.0], [-2.0], [0.0], [1.0], [4.0], [5.0]])
        >>> model = OneVsRestLogisticRegression(C=10.0).fit(x, torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> model.decision_function(x).shape, model.n_iter_.shape
        (torch.Size([6, 3]), (3,))
    """

    def __init__(
        self,
        *,
        C: float | Sequence[float] = 1.0,
        fit_intercept: bool = True,
        penalize_intercept: bool = False,
        n_folds: int = 3,
        tol: float = 1e-10,
        max_iter: int = 100,
        device: str | torch.device = "auto",
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.penalize_intercept = penalize_intercept
        self.n_folds = n_folds
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    def _check_settings(self) -> None:
        super()._check_settings()
        check_flag("penalize_intercept", self.penalize_intercept)

    def _loss(self, n_classes: int) -> Loss:  # noqa: ARG002
        return "logistic"

    def _intercept(self) -> Intercept:
        if not self.fit_intercept:
            return "none"
        return "penalized" if self.penalize_intercept else "free"

    def _log_probs(self, logits: Tensor) -> Tensor:
        if logits.shape[1] == 1:
            return super()._log_probs(logits)
        own = nn.functional.logsigmoid(logits)
        return own - own.logsumexp(1, keepdim=True)


class LinearSVM(LinearClassifier):
    """Fit a linear support vector machine of each class against all others, with the squared hinge loss, in float64.

    It is scikit-learn's LinearSVC: the penalty counts the intercept as the weight of a feature that is always 1. There
    are no probabilities. Rows of more than one axis are flattened; sparse rows stay sparse.

    Args:
        C: as of `LogisticRegression`.
        fit_intercept: whether each class has an intercept.
        solver: "torch" is Newton's method here; "auto" lets scikit-learn's compiled LinearSVC begin for sparse rows on
            the CPU, where that is several times faster, and goes on by Newton's method where its answer is not sure to
            be close: relatively within 1e-7 of the least objective, and 1e-3 in the search.
        n_folds: as of `LogisticRegression`.
        tol: as of `LogisticRegression`.
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

    def _fit_all(self, estimators: Sequence[Self], data: Sequence[TrainingData]) -> None:
        for one, rows in zip(estimators, data, strict=True):
            if not self._is_compiled(rows):
                super()._fit_all(estimators, data)  # which are all of one kind
                return
            one._fit_compiled(rows)

    def _is_compiled(self, data: TrainingData) -> bool:
        """Tell whether LinearSVC is to be asked first; it takes no class without rows."""
        on_cpu = is_sparse(data.inputs) and data.codes.device.type == "cpu"
        return self.solver == "auto" and on_cpu and len(data.codes.unique()) == data.n_classes

    def _fit_compiled(self, data: TrainingData) -> None:
        """Fit by LinearSVC, and go on by Newton's method where its answer is not sure to be close to the optimum."""
        x, trials = SparseInputs(data.inputs.double()).matrix, _Trials(self, [data])
        codes = data.codes.numpy()
        weights = np.ones(len(codes)) if data.weights is None else data.weights.numpy()

        def fit(C: float, rows: Array, tol: float) -> tuple[LinearSVC, LinearSolution | None]:
            settings = {"fit_intercept": self.fit_intercept, "tol": _COMPILED_TOL, "random_state": 0}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # how close it came is looked at below
                model = LinearSVC(C=C, **settings).fit(x[rows], codes[rows], sample_weight=weights[rows])
            start = torch.as_tensor(model.coef_)
            if self.fit_intercept:
                start = torch.cat([start, torch.as_tensor(model.intercept_).reshape(-1, 1)], 1)
            counted = torch.zeros(len(codes), dtype=torch.float64, device="cpu")
            counted[torch.from_numpy(rows)] = C * torch.from_numpy(weights[rows])
            return model, trials.improve(counted, start, tol)

        n_open = 0

        def predict(C: float, trained: Array, tested: Array) -> Array:
            nonlocal n_open
            model, better = fit(C, trained, _SEARCH_BOUND)
            if better is None:
                predicted: Array = model.predict(x[tested])
                return predicted
            n_open += int((~(better.gap <= _SEARCH_TOL)).sum())
            logits = better.logits[0, torch.from_numpy(tested), :, 0]
            return self._predicted(logits).numpy()

        C, accuracies, n_folds = search_one_by_one(
            as_grid("C", self.C), data.codes, predict, weights=data.weights, most_folds=self.n_folds
        )
        self.C_, self.cv_accuracies_, self.n_folds_ = C, accuracies, n_folds
        model, better = fit(C, np.arange(len(codes)), _FINAL_BOUND)
        coef, intercept = torch.as_tensor(model.coef_), torch.as_tensor(model.intercept_).reshape(-1)
        gap, n_steps = 0.0, 0
        if better is not None:
            coef, intercept = (part[0, :, 0] for part in trials.coefficients(better.theta))
            gap, n_steps = float(better.gap.max()), int(better.n_steps.max())
        self.n_iter_ = np.array([model.n_iter_ + n_steps], dtype=np.int32)
        self.module_ = _linear(coef, intercept if self.fit_intercept else None)
        self._warn(gap, n_steps, n_open)


def check_solver(solver: object) -> None:
    """Require the name of a way to solve."""
    if solver not in ("auto", "torch"):
        raise ConfigError(f"solver must be 'auto' or 'torch', got {solver!r}")


class _Fits(NamedTuple):
    """Shapes: coef (T, K, D), intercept (T, K), n_steps and gap (T, problems)."""

    coef: Tensor
    intercept: Tensor
    n_steps: Tensor
    gap: Tensor


class _Trials:
    """T data sets of n rows each, with K outputs: one for two classes, else one for each class."""

    def __init__(self, model: LinearClassifier, data: Sequence[TrainingData]) -> None:
        loss = model._loss(data[0].n_classes)
        x = [one.inputs.double() for one in data]
        self._solver = LinearSolver(
            x[0] if is_sparse(x[0]) else stacked(x), loss=loss, intercept=model._intercept(), max_iter=model.max_iter
        )
        self._tol = model.tol
        self._codes = stacked([one.codes for one in data])
        onehot = nn.functional.one_hot(self._codes, data[0].n_classes).double()
        self._targets = onehot[..., 1:] if data[0].n_classes == 2 else onehot  # (T, n, K)
        ones = onehot[..., 0].new_ones(self._codes.shape[1])
        self._weights = stacked([ones if one.weights is None else one.weights for one in data])
        self._coupled = loss == "softmax"  # the K outputs are one problem, else K

    def search(self, grid: Sequence[float], folds: Folds) -> tuple[Tensor, Tensor, Tensor]:
        """Fit all folds, one C after another.

        Returns:
            Accuracies (T, F, G); where to start a fit of all rows (G, T, problems, outputs, columns); and (T,) how many
            problems did not converge.
        """
        n_folds, tested = folds.n_folds, folds.tested()
        accuracies, means, n_open = [], [], torch.zeros_like(folds.of_row[:, 0])
        path: list[Tensor] = []
        tol = max(self._tol, _SEARCH_TOL)
        for i, C in enumerate(grid):
            starts = path[-1:]
            if i >= 2:  # the optimum moves about evenly in log C
                ahead = np.log(C / grid[i - 1]) / np.log(grid[i - 1] / grid[i - 2])
                starts = [*starts, torch.lerp(path[0], path[1], 1 + ahead)]
            weights = ~tested * (C * self._weights).unsqueeze(2)
            solution = self._solve(weights, n_folds, tol=tol, starts=starts)
            path = [*path[-1:], solution.theta]
            n_open += (~(solution.gap <= tol)).sum(1)
            means.append(solution.theta.unflatten(1, (n_folds, -1)).mean(1))
            logits = solution.logits.flatten(2).unflatten(2, (n_folds, -1))  # (T, n, F, K)
            predicted = (logits[..., 0] > 0).long() if logits.shape[3] == 1 else logits.argmax(3)
            counted = tested * self._weights.unsqueeze(2)
            right = predicted == self._codes.unsqueeze(2)
            accuracies.append((right * counted).sum(1) / counted.sum(1))
        return torch.stack(accuracies, 2), torch.stack(means), n_open

    def fit(self, C: Tensor, start: Tensor | None) -> _Fits:
        """Fit each trial to all its rows with its own C (T,)."""
        weights = C[:, None, None] * self._weights.unsqueeze(2)
        solution = self._solve(weights, 1, tol=self._tol, starts=[] if start is None else [start])
        coef, intercept = self._solver.coefficients(solution.theta)
        return _Fits(coef.flatten(1, 2), intercept.flatten(1, 2), solution.n_steps, solution.gap)

    def improve(self, weights: Tensor, start: Tensor, tol: float) -> LinearSolution | None:
        """Solve from parameters (K, columns) on weights (n,) times C; None where these are within tol already."""
        theta = start[None, :, None]
        spread = weights[None, :, None].expand(-1, -1, len(start))
        targets = self._targets.unsqueeze(3)
        if bool((self._solver.bound(targets, spread, theta) <= tol).all()):
            return None
        return self._solver.solve(
            targets, spread, tol=max(self._tol, _SEARCH_TOL if tol == _SEARCH_BOUND else 0), starts=[theta]
        )

    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients and intercepts of parameters."""
        return self._solver.coefficients(theta)

    def _solve(self, weights: Tensor, n_folds: int, *, tol: float, starts: Sequence[Tensor]) -> LinearSolution:
        """Solve the problems of weights (T, n, F): one for each fold, or one for each fold and class."""
        targets = self._targets.unsqueeze(2)
        if not self._coupled:
            targets = targets.expand(-1, -1, n_folds, -1).flatten(2).unsqueeze(3)
            weights = weights.repeat_interleave(self._targets.shape[2], 2)
        return self._solver.solve(targets, weights, tol=tol, starts=starts)


def _linear(coef: Tensor, intercept: Tensor | None) -> nn.Linear:
    """Return a layer of these weights (K, D), made without numbers: nn.Linear would draw some from the global ones."""
    linear = nn.Linear(coef.shape[1], coef.shape[0], bias=intercept is not None, device="meta")
    linear.weight = nn.Parameter(coef.clone())
    if intercept is not None:
        linear.bias = nn.Parameter(intercept.clone())
    return linear


def _as_array(parameter: Any) -> Array:
    array: Array = parameter.detach().cpu().numpy()
    return array
