"""Linear classifiers by Newton's method, to scikit-learn's optimum, with their penalty tuned by cross-validation."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from torchal._checks import check_flag, check_whole
from torchal._chunks import values_per_chunk
from torchal.errors import ConfigError
from torchal.models.base import ProbabilityMixin, TrainingData, as_answer, likeliest, log_probs
from torchal.models.checks import Array
from torchal.models.classical.direct import DirectClassifier, Fitted, Trials, as_array, stacked
from torchal.models.classical.search import Folds
from torchal.models.laplace import LaplaceFit, LastLayerGaussian
from torchal.models.seeding import draw_seed
from torchal.models.sparse import csr_rows, dense_where_small
from torchal.pool.inputs import is_sparse
from torchal.protocols import LastLayer
from torchal.solvers.linear_losses import Loss
from torchal.solvers.linear_rows import Intercept
from torchal.solvers.newton import LinearSolution, LinearSolver

SEARCH_TOL = 1e-4  # of the fits that are to tell which penalty is best; far below, 1 in 270 accuracies is another


class LinearClassifier(DirectClassifier):
    """Base of the linear classifiers. A child says which loss and which intercept."""

    takes_sparse = True

    fit_intercept: bool
    module_: nn.Linear

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    @property
    def coef_(self) -> Array:
        """(1 or C, D) the weights as an array."""
        return as_array(self.module_.weight)

    @property
    def intercept_(self) -> Array:
        """(1 or C,) the intercepts as an array."""
        bias = self.module_.bias
        return np.zeros(len(self.coef_)) if bias is None else as_array(bias)

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

    def _check_settings(self) -> None:
        super()._check_settings()
        check_flag("fit_intercept", self.fit_intercept)

    def _trials(self, data: Sequence[TrainingData]) -> Trials:
        # what fits in a chunk anyway is solved faster, and with more digits, as a dense matrix
        return LinearTrials(self, [one._replace(inputs=dense_where_small(one.inputs)) for one in data])

    def _is_fitted_alone(self, data: TrainingData) -> bool:
        return data.codes.device.type == "cpu"  # whose arithmetic a single one keeps busy

    def _values_per_fit(self, data: TrainingData) -> int:
        n_features = int(data.inputs.shape[1])
        return len(data.codes) * (data.n_classes * self.n_folds + n_features)


class LinearTrials(Trials):
    """T data sets of n rows each, with K outputs: one for two classes, else one for each class."""

    repeats_bits = False

    def __init__(self, model: LinearClassifier, data: Sequence[TrainingData]) -> None:
        loss = model._loss(data[0].n_classes)
        x = [one.inputs.double() for one in data]
        self.solver = LinearSolver(
            x[0] if is_sparse(x[0]) else stacked(x), loss=loss, intercept=model._intercept(), max_iter=model.max_iter
        )
        self._tol = model.tol
        self._has_intercept = model._intercept() != "none"
        self._codes = stacked([one.codes for one in data])
        onehot = nn.functional.one_hot(self._codes, data[0].n_classes).double()
        self.targets = onehot[..., 1:] if data[0].n_classes == 2 else onehot
        """(T, n, K)."""
        self._weights = stacked([one.row_weights for one in data])
        self._coupled = loss == "softmax"  # the K outputs are one problem, else K
        self._starts: dict[float, Tensor] = {}  # for each C of a search, where to start a fit of all rows

    def search(self, grid: Sequence[float], folds: Folds) -> tuple[Tensor, Tensor]:
        """Fit all folds at once, one C after another, each from where the last two point."""
        n_folds, tested = folds.n_folds, folds.tested()
        accuracies, n_open = [], []
        path: list[Tensor] = []
        tol = max(self._tol, SEARCH_TOL)
        for i, C in enumerate(grid):
            starts = path[-1:]
            if i >= 2:  # the optimum moves about evenly in log C
                ahead = math.log(C / grid[i - 1]) / math.log(grid[i - 1] / grid[i - 2])
                starts = [*starts, torch.lerp(path[0], path[1], 1 + ahead)]
            weights = ~tested * (C * self._weights).unsqueeze(2)
            solution = self._solve(weights, n_folds, tol=tol, starts=starts)
            path = [*path[-1:], solution.theta]
            n_open.append((~(solution.gap <= tol)).sum(1))
            self._starts[C] = solution.theta.unflatten(1, (n_folds, -1)).mean(1)
            logits = solution.logits.flatten(2).unflatten(2, (n_folds, -1))  # (T, n, F, K)
            predicted = likeliest(logits)
            counted = tested * self._weights.unsqueeze(2)
            right = predicted == self._codes.unsqueeze(2)
            accuracies.append((right * counted).sum(1) / counted.sum(1))
        return torch.stack(accuracies, 2), torch.stack(n_open, 1)

    def fit(self, penalties: Sequence[float]) -> list[Fitted]:
        """Fit each data set from the mean of its folds' solutions, where there are some."""
        starts = [self._starts[C][i] for i, C in enumerate(penalties) if C in self._starts]
        weights = self._weights.new_tensor(penalties)[:, None, None] * self._weights.unsqueeze(2)
        solution = self._solve(weights, 1, tol=self._tol, starts=[torch.stack(starts)] if starts else [])
        return self.fitted(solution)

    def fitted(self, solution: LinearSolution) -> list[Fitted]:
        """Return a layer for each data set (T) of the solution of its problems."""
        coef, intercept = (part.flatten(1, 2) for part in self.solver.coefficients(solution.theta))
        gap, n_steps = solution.gap.amax(1), solution.n_steps
        return [
            Fitted(
                linear_layer(coef[i], intercept[i] if self._has_intercept else None),
                as_array(n_steps[i]).astype(np.int32),
                self.complaint(float(gap[i]), int(n_steps[i].max())),
            )
            for i in range(len(coef))
        ]

    def complaint(self, gap: float, n_steps: int) -> str:
        """Say that a gap is too large, if it is."""
        if 0 <= gap <= self._tol:
            return ""
        return (
            f"after {n_steps} Newton steps the objective is about {gap:.1e} of itself above the least, tol is "
            f"{self._tol:.1e}"
        )

    def _solve(self, weights: Tensor, n_folds: int, *, tol: float, starts: Sequence[Tensor]) -> LinearSolution:
        """Solve the problems of weights (T, n, F): one for each fold, or one for each fold and class."""
        targets = self.targets.unsqueeze(2)
        if not self._coupled:
            targets = targets.expand(-1, -1, n_folds, -1).flatten(2).unsqueeze(3)
            weights = weights.repeat_interleave(self.targets.shape[2], 2)
        return self.solver.solve(targets, weights, tol=tol, starts=starts)


def linear_layer(coef: Tensor, intercept: Tensor | None) -> nn.Linear:
    """Return a layer of these weights (K, D), made without numbers: nn.Linear would draw some from the global ones."""
    layer = nn.Linear(coef.shape[1], coef.shape[0], bias=intercept is not None, device="meta")
    layer.weight = nn.Parameter(coef.clone())
    if intercept is not None:
        layer.bias = nn.Parameter(intercept.clone())
    return layer


class LogisticRegression(ProbabilityMixin, LinearClassifier):
    """Fit a multinomial logistic regression with an L2 penalty, by Newton's method in float64.

    The objective is scikit-learn's: C times the weighted sum of the rows' log-losses, plus half the squared weights;
    the intercept is not penalised. Two classes have one weight vector. (A softmax over two at C is this at 2C.) Rows of
    more than one axis are flattened. Sparse rows, SciPy's or torch's, stay sparse, unless all of them fit in a chunk.

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
        posterior: "laplace" for `sample_log_probs`, which there is only then: a Gaussian around the weights, whose
            prior is the penalty (`torchal.models.laplace.LaplaceFit`). A fit ends with one more pass over the rows.
        random_state: of the draws: a number, a RandomState to draw it from, or None for another one at each fit.

    Outputs are float64 whatever the dtype of the inputs, so that close margins keep their order.

    Attributes:
        module_: nn.Linear in float64, with one output for two classes, else C.
        coef_: (1 or C, D) its weights as an array.
        intercept_: (1 or C,) its intercepts; zeros without.
        C_: the penalty that was used.
        cv_accuracies_: (G,) mean accuracy over the folds of each C of a grid, ascending; else empty.
        n_folds_: how many folds there were; 0 without a search.
        n_iter_: (1,) Newton steps taken, by the last fit.
        laplace_: the Gaussian, with `posterior`.
        classes_: (C,) labels in the order of the columns.

    Reference:
        The inexact Newton method of Nocedal & Wright, "Numerical Optimization", 2nd ed., algorithm 7.1, with
        preconditioned conjugate gradients.

    Complexity:
        As of `torchal.solvers.newton.LinearSolver`. A search fits all folds at once, from one C to the next, and
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

    laplace_: LastLayerGaussian
    seed_: int

    def __init__(
        self,
        *,
        C: float | Sequence[float] = 1.0,
        fit_intercept: bool = True,
        n_folds: int = 3,
        tol: float = 1e-10,
        max_iter: int = 100,
        device: str | torch.device = "auto",
        posterior: Literal["laplace"] | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.C = C
        self.fit_intercept = fit_intercept
        self.n_folds = n_folds
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.posterior = posterior
        self.random_state = random_state

    @available_if(lambda self: self.posterior == "laplace")  # type: ignore[untyped-decorator]
    def sample_log_probs(self, X: Any, k: int) -> Any:
        """Return log-probabilities of k draws of the weights; each draw is one function, the same for all rows.

        Shapes:
            X: (n, ...).

        Returns:
            (n, K, C).
        """
        check_whole("k", k, least=1)
        check_is_fitted(self, "laplace_")
        weights = self.laplace_.draw(k, self.seed_)

        def draw(rows: Tensor) -> tuple[Tensor]:
            logits = self.laplace_.logits(rows.double(), weights)
            return (log_probs(logits.flatten(0, 1)).unflatten(0, (-1, k)),)

        return as_answer(X, self._by_chunk(X, draw)[0])

    def last_layer(self, X: Any) -> LastLayer:
        """Return the layer as weight (C, D) and bias (C,); of two classes the first one's are zeros.

        NumPy in gives NumPy out.
        """
        check_is_fitted(self, "module_")
        layer = self.module_
        weight = layer.weight.detach()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        if len(weight) == 1:
            weight, bias = (torch.cat([torch.zeros_like(part), part]) for part in (weight, bias))
        return LastLayer(as_answer(X, weight), as_answer(X, bias))

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.posterior not in (None, "laplace"):
            raise ConfigError(f"posterior must be 'laplace' or None, got {self.posterior!r}")

    def _fit_posterior(self, data: TrainingData) -> None:
        if self.posterior is None:
            return
        layer, inputs = self.module_, data.inputs
        fit = LaplaceFit(layer.weight, layer.bias, prior=1 / self.C_, flat_bias=True)
        size = max(1, values_per_chunk(inputs.device) // inputs.shape[1])
        for start in range(0, len(inputs), size):
            chunk = slice(start, start + size)
            rows = csr_rows(inputs, chunk).to_dense() if is_sparse(inputs) else inputs[chunk]
            fit.add(rows, None if data.weights is None else data.weights[chunk])
        self.laplace_ = fit.gaussian()
        self.seed_ = draw_seed(self.random_state)

    def _loss(self, n_classes: int) -> Loss:
        return "softmax" if n_classes > 2 else "logistic"

    def _intercept(self) -> Intercept:
        return "free" if self.fit_intercept else "none"


class OneVsRestLogisticRegression(ProbabilityMixin, LinearClassifier):
    """Fit a logistic regression of each class against all others, with an L2 penalty, by Newton's method in float64.

    It is scikit-learn's OneVsRestClassifier(LogisticRegression()); with `penalize_intercept` that of
    LogisticRegression(solver="liblinear"). All classes share one C. Rows are read as `LogisticRegression` reads them.

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
