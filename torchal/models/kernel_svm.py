"""Support vector machines with an RBF kernel, for each pair of classes, with C tuned by cross-validation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from torchal.errors import ConfigError
from torchal.functional.chunks import values_per_chunk
from torchal.functional.kernels import most_voted, ovr_values, pair_values, rbf_kernel
from torchal.functional.svm import svm_dual
from torchal.models.base import Array, TrainingData
from torchal.models.direct import DirectClassifier
from torchal.models.kernel import PairMachine, check_gamma, width_of
from torchal.models.search import Folds, best

if TYPE_CHECKING:
    from typing_extensions import Self

_SHARED_KERNEL = 12_000  # rows whose whole kernel matrix is kept for LIBSVM, 1.1 GB; above it makes its own


class KernelSVM(DirectClassifier):
    """Fit a support vector machine with an RBF kernel to each pair of classes, in float64.

    It is scikit-learn's SVC: hinge loss, an intercept that is not penalised, one class against another, prediction by
    votes. There are no probabilities. Rows of more than one axis are flattened.

    Args:
        C: the most that a row counts, times its weight; of a grid the best by the accuracy, weighted where rows are,
            of a stratified cross-validation that does not shuffle. Of equally good ones the smallest.
        gamma: of the kernel exp(-gamma |x - y|^2): "scale" is 1 / (D times the variance of X), "auto" 1 / D, or a
            number.
        solver: "torch" solves all pairs, folds and data sets at once by an interior-point method; "auto" is LIBSVM, as
            in scikit-learn, on the CPU, where it is several times faster, else "torch". Either way the folds' kernels
            are made once for all C, and a solution that no C limits is not looked for again at a larger C.
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
        `torchal.functional.svm` for the interior-point method.

    Complexity:
        O(m^3) for each pair of classes with m rows together, and C of the grid, by "torch", in chunks of pairs.

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
        array: Array = self.module_.support.cpu().numpy()
        return array

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
        array: Array = sign * values.detach().cpu().numpy()
        return array

    def _check_settings(self) -> None:
        super()._check_settings()
        check_gamma(self.gamma)
        if self.solver not in ("auto", "torch"):
            raise ConfigError(f"solver must be 'auto' or 'torch', got {self.solver!r}")
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

    def _fit_together(
        self, estimators: Sequence[Self], data: Sequence[TrainingData], grid: list[float], folds: Folds
    ) -> None:
        chosen, accuracies, n_open = [0] * len(data), None, 0
        if folds.n_folds:
            accuracies, n_open = self._search(data, grid, folds)
            chosen = best(accuracies).tolist()
        tasks = [self._task(one) for one in data]
        machines = self._solve(tasks, [[grid[at]] for at in chosen])
        for i, (one, task, machine) in enumerate(zip(estimators, tasks, machines, strict=True)):
            one._note_search(grid[chosen[i]], None if accuracies is None else accuracies[i], folds.n_folds)
            weight = machine.weight[0]
            support = (weight != 0).any(0).nonzero().squeeze(1)
            one.gamma_ = task.gamma
            one.n_iter_ = machine.n_iter[0].cpu().numpy().astype(np.int32)
            one.module_ = PairMachine(
                task.x[support], task.gamma, weight[:, support], codes=task.codes[support], bias=machine.bias[0].clone()
            )
        n_open += sum(machine.n_open for machine in machines)
        if n_open:
            warnings.warn(
                f"{n_open} pairs of classes of {type(self).__name__} did not converge in {self.max_iter} steps to tol "
                f"{self.tol:.1e}. Increase max_iter or tol, or bring the features to a common scale.",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _search(self, data: Sequence[TrainingData], grid: list[float], folds: Folds) -> tuple[Tensor, int]:
        """Fit all folds of all data sets; return accuracies (T, F, G) and how many pairs did not converge."""
        tested = [
            (rows, of_row == fold)
            for rows, of_row in zip(data, folds.of_row, strict=True)
            for fold in range(folds.n_folds)
        ]
        tasks = [self._task(rows.rows((~test).nonzero().squeeze(1))) for rows, test in tested]
        machines = self._solve(tasks, [grid] * len(tasks))
        accuracies = [
            _accuracies(task, machine, rows.rows(test.nonzero().squeeze(1)))
            for task, machine, (rows, test) in zip(tasks, machines, tested, strict=True)
        ]
        n_open = sum(machine.n_open for machine in machines)
        return torch.stack(accuracies).unflatten(0, (len(data), folds.n_folds)), n_open

    def _task(self, data: TrainingData) -> _Task:
        x = data.inputs.double()
        return _Task(x, data.codes, data.weights, width_of(self.gamma, x), data.n_classes)

    def _solve(self, tasks: Sequence[_Task], grids: Sequence[Sequence[float]]) -> list[_Machines]:
        """Solve each task for each of its penalties, ascending; all tasks have as many."""
        complete = all(
            len(task.codes.unique()) == task.n_classes for task in tasks
        )  # LIBSVM takes no class without rows
        if self.solver == "auto" and tasks[0].x.device.type == "cpu" and complete:
            return [_by_libsvm(task, grid, tol=self.tol) for task, grid in zip(tasks, grids, strict=True)]
        return _by_interior_point(tasks, grids, tol=self.tol, max_iter=self.max_iter)


class _Task(NamedTuple):
    """Rows (n, D) to fit to, their classes (n,) and weights (n,), and the kernel's width."""

    x: Tensor
    codes: Tensor
    weights: Tensor | None
    gamma: float
    n_classes: int


class _Machines(NamedTuple):
    """The solutions of a task for G penalties.

    Shapes:
        weight: (G, C - 1, n), as of `pair_values`.
        bias: (G, P).
        n_iter: (G, P).
    """

    weight: Tensor
    bias: Tensor
    n_iter: Tensor
    n_open: int
    """How many of all pairs did not converge."""


def _accuracies(task: _Task, machines: _Machines, test: TrainingData) -> Tensor:
    """Return the accuracy of each machine (G,) on other rows."""
    n_machines, n_others, n_support = machines.weight.shape
    values = max(n_support, n_machines * n_others * task.n_classes)
    size = max(1, values_per_chunk(task.x.device) // values)
    right = torch.zeros(n_machines, dtype=torch.float64, device=task.x.device)
    weights = torch.ones_like(test.codes, dtype=torch.float64) if test.weights is None else test.weights
    parts = (part.split(size) for part in (test.inputs.double(), test.codes, weights))
    for x, codes, counted in zip(*parts, strict=True):
        pairs = pair_values(rbf_kernel(x, task.x, task.gamma), machines.weight, task.codes, machines.bias)
        right += (most_voted(pairs.flatten(0, 1), task.n_classes).view(n_machines, -1) == codes).double() @ counted
    return right / weights.sum()


def _by_libsvm(task: _Task, grid: Sequence[float], *, tol: float) -> _Machines:
    """Solve by scikit-learn's LIBSVM with one kernel matrix for all penalties."""
    n_rows, n_pairs = len(task.x), task.n_classes * (task.n_classes - 1) // 2
    shared = n_rows <= _SHARED_KERNEL
    x = rbf_kernel(task.x, task.x, task.gamma).numpy() if shared else task.x.numpy()
    kernel: dict[str, Any] = {"kernel": "precomputed"} if shared else {"kernel": "rbf", "gamma": task.gamma}
    codes, weights = task.codes.numpy(), None if task.weights is None else task.weights.numpy()
    weight = torch.zeros(len(grid), task.n_classes - 1, n_rows, dtype=torch.float64, device="cpu")
    bias = torch.zeros(len(grid), n_pairs, dtype=torch.float64, device="cpu")
    n_iter = torch.zeros(len(grid), n_pairs, dtype=torch.int64, device="cpu")
    for i, C in enumerate(grid):
        model = SVC(C=C, tol=tol, cache_size=500, random_state=0, **kernel).fit(x, codes, sample_weight=weights)
        sign = 1 if task.n_classes == 2 else -1
        weight[i][:, torch.from_numpy(model.support_).long()] = sign * torch.from_numpy(model.dual_coef_)
        bias[i] = sign * torch.from_numpy(model.intercept_)
        n_iter[i] = torch.as_tensor(model.n_iter_)
        most: float | Tensor = C if task.weights is None else C * task.weights
        if bool((weight[i].abs() < most).all()):  # no C limits it, so none that is larger changes it
            weight[i:], bias[i:], n_iter[i:] = weight[i].clone(), bias[i].clone(), n_iter[i].clone()
            break
    return _Machines(weight, bias, n_iter, 0)


class _Pairs(NamedTuple):
    """Pairs of classes of several tasks, filled up to as many rows as the largest has.

    Shapes:
        task, first, second: (B,) int64, whose and which classes.
        rows: (B, m) int64 of the task.
        signs: (B, m) float64: -1 the first class, 1 the second, 0 no row.
    """

    task: Tensor
    first: Tensor
    second: Tensor
    rows: Tensor
    signs: Tensor


def _pairs(tasks: Sequence[_Task]) -> Iterator[_Pairs]:
    """Yield all pairs of classes of all tasks, in chunks of pairs of about the same size."""
    device = tasks[0].x.device
    members = [[(task.codes == code).nonzero().squeeze(1) for code in range(task.n_classes)] for task in tasks]
    sizes = [
        (len(of_class[first]) + len(of_class[second]), at, first, second)
        for at, of_class in enumerate(members)
        for first in range(len(of_class))
        for second in range(first + 1, len(of_class))
    ]
    sizes.sort()
    while sizes:
        most = sizes[-1][0]
        some, sizes = (
            sizes[-max(1, values_per_chunk(device) // most**2) :],
            sizes[: -max(1, values_per_chunk(device) // most**2)],
        )
        rows = [torch.cat([members[at][first], members[at][second]]) for _, at, first, second in some]
        signs = [
            torch.cat([-torch.ones(len(members[at][first])), torch.ones(len(members[at][second]))])
            for _, at, first, second in some
        ]
        at, first, second = torch.tensor([one[1:] for one in some], device=device).T
        yield _Pairs(
            at,
            first,
            second,
            pad_sequence(rows, batch_first=True),
            pad_sequence(signs, batch_first=True).double().to(device),
        )


def _by_interior_point(
    tasks: Sequence[_Task], grids: Sequence[Sequence[float]], *, tol: float, max_iter: int
) -> list[_Machines]:
    """Solve all pairs of classes of all tasks at once, one penalty after another."""
    n_classes, device = tasks[0].n_classes, tasks[0].x.device
    n_pairs, most = n_classes * (n_classes - 1) // 2, max(len(task.x) for task in tasks)
    C = torch.tensor(grids, dtype=torch.float64, device=device)  # (tasks, G)
    weight = torch.zeros(len(tasks), C.shape[1], n_classes - 1, most, dtype=torch.float64, device=device)
    bias = weight.new_zeros(len(tasks), C.shape[1], n_pairs)
    n_iter = torch.zeros_like(bias, dtype=torch.int64)
    is_open = torch.zeros_like(bias, dtype=torch.bool)
    gamma = weight.new_tensor([task.gamma for task in tasks])
    x = pad_sequence([task.x for task in tasks], batch_first=True)
    ones = [torch.ones_like(task.x[:, 0]) if task.weights is None else task.weights for task in tasks]
    weights = pad_sequence(ones, batch_first=True)
    number = torch.zeros(n_classes, n_classes, dtype=torch.int64, device=device)
    first, second = torch.triu_indices(n_classes, n_classes, 1, device=device)
    number[first, second] = torch.arange(n_pairs, device=device)
    for pairs in _pairs(tasks):
        task = pairs.task.unsqueeze(1)
        rows = x[task, pairs.rows]
        kernel = rbf_kernel(rows, rows, gamma[pairs.task, None, None])
        where = pairs.signs != 0
        coefficient_row = torch.where(pairs.signs < 0, pairs.second.unsqueeze(1) - 1, pairs.first.unsqueeze(1))
        places = (task.expand_as(where)[where], coefficient_row[where], pairs.rows[where])
        column = number[pairs.first, pairs.second]
        going = torch.arange(len(pairs.task), device=device)  # pairs that some C still limits
        alpha = torch.zeros_like(pairs.signs)
        for i in range(C.shape[1]):
            upper = C[pairs.task[going], i, None] * weights[task, pairs.rows][going]
            found = svm_dual(kernel[going], pairs.signs[going], upper, tol=tol, max_iter=max_iter)
            alpha[going] = found.alpha
            at = pairs.task[going], column[going]
            bias[at[0], i:, at[1]] = found.bias.unsqueeze(1)
            n_iter[at[0], i:, at[1]] = found.n_iter.unsqueeze(1)
            is_open[at[0], i:, at[1]] = ~(found.violation <= tol).unsqueeze(1)
            weight[places[0], i, places[1], places[2]] = (pairs.signs * alpha)[where]
            limited = ((found.alpha >= upper) & where[going]).any(1)
            going = going[limited]
            if not len(going):
                weight[places[0], i + 1 :, places[1], places[2]] = (pairs.signs * alpha)[where].unsqueeze(1)
                break
    return [
        _Machines(weight[at, :, :, : len(task.x)], bias[at], n_iter[at], int(is_open[at].sum()))
        for at, task in enumerate(tasks)
    ]
