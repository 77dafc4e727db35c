"""Support vector machines with an RBF kernel, for each pair of classes, with C tuned by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from torchal.errors import ConfigError
from torchal.models.base import TrainingData
from torchal.models.checks import Array
from torchal.models.classical.direct import DirectClassifier, Fitted, Trials, as_array, check_solver
from torchal.models.classical.kernel import PairMachine, check_gamma, warn_of_degenerate, width_of
from torchal.models.classical.search import Folds
from torchal.models.classical.svm_pairs import Limits, Machines, Task, accuracies_of, by_interior_point, by_libsvm
from torchal.solvers.kernels import most_voted, ovr_values


class KernelSVM(DirectClassifier):
    """Fit a support vector machine with an RBF kernel to each pair of classes, in float64.

    It is scikit-learn's SVC: hinge loss, an intercept that is not penalised, one class against another, prediction by
    votes. There are no probabilities. Rows of more than one axis are flattened.

    Args:
        C: the most that a row counts, times its weight; of a grid the best by the accuracy, weighted where rows are,
            of a stratified cross-validation that does not shuffle. Of equally good ones the smallest.
        gamma: of the kernel exp(-gamma |x - y|^2): "scale" is 1 / (D times the variance of X), "auto" 1 / D, or a
            number.
        solver: "torch" solves all pairs, folds and data sets at once by an interior-point method; "auto" lets LIBSVM,
            as in scikit-learn, begin on the CPU, where it is several times faster, and goes on with those pairs by
            which it misses tol: it keeps kernels in float32. Either way one kernel matrix of a fold serves all C, and a
            solution that no C limits is not looked for again at a larger C. With more than 12 000 rows LIBSVM makes its
            own kernel, and pairs of so many rows are left as it solves them, with a warning where that misses tol.
        n_folds: folds of the cross-validation; fewer where a class has fewer rows. The only row of a class is trained
            on in all folds; with no class of two rows, the smallest C is taken.
        tol: by how much the most violating pair of rows may violate the conditions of the optimum, as in SVC.
        max_iter: most steps of the interior-point method.
        device: "auto" (that of a CUDA tensor, else CUDA, else CPU), or a torch device.

    Outputs are float64 whatever the dtype of the inputs.

    Attributes:
        module_: PairMachine in float64, (n, D) -> (n, P), positive for the second of a pair of classes.
        support_vectors_: (S, D) rows that the decisions rest on, in the order of the training data.
        dual_coef_: (C - 1, S) their coefficients as SVC has them.
        intercept_: (P,) the intercepts as SVC has them, with P = C (C - 1) / 2.
        gamma_: gamma as a number.
        C_: the penalty that was used.
        cv_accuracies_: (G,) mean accuracy over the folds of each C of a grid, ascending; else empty.
        n_folds_: how many folds there were; 0 without a search.
        n_iter_: (P,) steps of each pair.
        classes_: (C,) labels in the order of the columns.

    Reference:
        Chang & Lin, "LIBSVM: A Library for Support Vector Machines", ACM TIST 2011, for the problem and the votes;
        `torchal.solvers.svm_dual.svm_dual` for the interior-point method.

    Complexity:
        O(m^3) and 4 m^2 numbers of 8 bytes for each pair of classes with m rows together, and C of the grid, by
        "torch", in chunks of pairs. By LIBSVM 2 n^2 numbers for n rows.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]])
        >>> model = KernelSVM(C=10.0).fit(x, torch.tensor([3, 3, 7, 7]))
        >>> model.predict(x).tolist(), model.decision_function(x).shape
        ([3, 3, 7, 7], torch.Size([4]))
    """

    def __init__(
        self,
        *,
        C: float | Sequence[float] = 1.0,
        gamma: float | Literal["auto", "scale"] = "scale",
        solver: Literal["auto", "torch"] = "auto",
        n_folds: int = 3,
        tol: float = 1e-4,
        max_iter: int = 100,
        device: str | torch.device = "auto",
    ) -> None:
        self.C = C
        self.gamma = gamma
        self.solver = solver
        self.n_folds = n_folds
        self.tol = tol
        self.max_iter = max_iter
        self.device = device

    module_: PairMachine

    @property
    def support_vectors_(self) -> Array:
        """(S, D) rows that the decisions rest on."""
        return as_array(self.module_.support)

    @property
    def dual_coef_(self) -> Array:
        """(C - 1, S) the coefficients as SVC has them."""
        return self._as_svc(self.module_.weight)

    @property
    def intercept_(self) -> Array:
        """(P,) the intercepts as SVC has them."""
        return self._as_svc(self.module_.bias)

    def _as_svc(self, values: Tensor) -> Array:
        """Return values as an array, positive for the first of a pair, but for the second of two classes."""
        sign = 1 if len(self.classes_) == 2 else -1
        return as_array(sign * values)

    def _check_settings(self) -> None:
        super()._check_settings()
        check_gamma(self.gamma)
        check_solver(self.solver)
        if self.tol == 0:
            raise ConfigError("tol must be above 0, got 0: no solver reaches it")

    def _logits(self, rows: Tensor) -> Tensor:
        pairs: Tensor = self.module_(rows)
        return pairs

    def _decision(self, logits: Tensor) -> Tensor:
        return logits[:, 0] if logits.shape[1] == 1 else ovr_values(logits, len(self.classes_))

    def _predicted(self, logits: Tensor) -> Tensor:
        return most_voted(logits, len(self.classes_))

    def _values_per_fit(self, data: TrainingData) -> int:
        return len(data.codes) * data.n_classes * self.n_folds  # of the coefficients; kernels have chunks of their own

    def _trials(self, data: Sequence[TrainingData]) -> Trials:
        return _PairTrials(self, data)


class _PairTrials(Trials):
    """T data sets, each with a machine for each pair of classes."""

    def __init__(self, model: KernelSVM, data: Sequence[TrainingData]) -> None:
        self._data = data
        self._gamma = model.gamma
        self._solver = model.solver
        self._limits = Limits(model.tol, model.max_iter)

    def search(self, grid: Sequence[float], folds: Folds) -> tuple[Tensor, Tensor]:
        """Fit all folds of all data sets at once."""
        parts = [
            (rows, rows_of == f)
            for rows, rows_of in zip(self._data, folds.of_row, strict=True)
            for f in range(folds.n_folds)
        ]
        tasks = [self._task(rows.rows((~tested).nonzero().squeeze(1))) for rows, tested in parts]
        machines = self._solve(tasks, [grid] * len(tasks))
        accuracies = [
            accuracies_of(task, machine, rows.rows(tested.nonzero().squeeze(1)))
            for task, machine, (rows, tested) in zip(tasks, machines, parts, strict=True)
        ]
        shape = len(self._data), folds.n_folds
        n_open = torch.stack([machine.is_open.sum(1) for machine in machines]).unflatten(0, shape).sum(1)
        return torch.stack(accuracies).unflatten(0, shape), n_open

    def fit(self, penalties: Sequence[float]) -> list[Fitted]:
        """Fit each data set, of which the rows of support are kept."""
        tasks = [self._task(one) for one in self._data]
        for task in tasks:
            warn_of_degenerate(task.x, task.gamma)
        machines = self._solve(tasks, [[C] for C in penalties])
        fits = []
        for task, machine in zip(tasks, machines, strict=True):
            weight = machine.weight[0]
            support = (weight != 0).any(0).nonzero().squeeze(1)
            module = PairMachine(
                task.x[support], task.gamma, weight[:, support], codes=task.codes[support], bias=machine.bias[0].clone()
            )
            complaint = (
                f"the rows of {machine.n_open} of {machine.bias.shape[1]} pairs of classes violate the conditions of "
                f"the optimum by more than tol, {self._limits.tol:.1e}"
                if machine.n_open
                else ""
            )
            n_iter = as_array(machine.n_iter[0]).astype(np.int32)
            fits.append(Fitted(module, n_iter, complaint, {"gamma_": task.gamma}))
        return fits

    def _task(self, data: TrainingData) -> Task:
        x = data.inputs.double()
        return Task(x, data.codes, data.row_weights, width_of(self._gamma, x), data.n_classes)

    def _solve(self, tasks: Sequence[Task], grids: Sequence[Sequence[float]]) -> list[Machines]:
        """Solve each task for each of its penalties, ascending; all tasks have as many."""
        # LIBSVM takes no class without rows
        complete = all(len(task.codes.unique()) == task.n_classes for task in tasks)
        if self._solver == "auto" and tasks[0].x.device.type == "cpu" and complete:
            return [by_libsvm(task, grid, self._limits) for task, grid in zip(tasks, grids, strict=True)]
        return by_interior_point(tasks, grids, self._limits)
