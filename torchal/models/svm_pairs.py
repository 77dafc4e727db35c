"""Machines for pairs of classes with an RBF kernel: by LIBSVM, or many at once by an interior-point method."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import SVC
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from torchal.functional.chunks import values_per_chunk
from torchal.functional.kernels import most_voted, pair_values, rbf_kernel
from torchal.functional.svm import svm_dual, svm_violation
from torchal.models.base import TrainingData

_SHARED_KERNEL = 12_000  # rows whose whole kernel matrix is kept for LIBSVM, 1.1 GB; above it makes its own
_FLOAT32_ROUNDING = 2.0**-24  # of LIBSVM's kernel values, relative to them
_LIBSVM_STEPS = 1_000_000  # most of a pair; what is not solved by then is badly scaled, and for the interior point


class Limits(NamedTuple):
    """When a solution is good enough, and most steps of the interior-point method to get there."""

    tol: float
    max_iter: int


class Task(NamedTuple):
    """Rows (n, D) to fit to, their classes (n,) and weights (n,), and the kernel's width."""

    x: Tensor
    codes: Tensor
    weights: Tensor | None
    gamma: float
    n_classes: int


class Machines(NamedTuple):
    """The solutions of a task for G penalties.

    Shapes:
        weight: (G, C - 1, n), as of `pair_values`.
        bias: (G, P).
        n_iter: (G, P).
        is_open: (G, P) bool, what did not converge.
    """

    weight: Tensor
    bias: Tensor
    n_iter: Tensor
    is_open: Tensor

    @property
    def n_open(self) -> int:
        """How many of all pairs did not converge."""
        return int(self.is_open.sum())

    def copy_onward(self, i: int) -> None:
        """Take the solution of a penalty for all larger ones."""
        for part in self:
            part[i + 1 :] = part[i].clone()

    def merge(self, i: int, better: Machines, pairs: Sequence[_Pair], codes: Tensor) -> None:
        """Take some pairs of one penalty from the only one of other machines."""
        n_classes = self.weight.shape[1] + 1
        for _, first, second in pairs:
            for code, row in ((first, second - 1), (second, first)):
                mine = codes == code
                self.weight[i, row, mine] = better.weight[0, row, mine]
        taken = torch.zeros(n_classes, n_classes, dtype=torch.bool, device=codes.device)
        taken[[pair.first for pair in pairs], [pair.second for pair in pairs]] = True
        at = taken[tuple(torch.triu_indices(n_classes, n_classes, 1, device=codes.device))]
        self.bias[i, at], self.is_open[i, at] = better.bias[0, at], better.is_open[0, at]
        self.n_iter[i, at] += better.n_iter[0, at]


def _no_machines(task: Task, n_penalties: int) -> Machines:
    n_pairs = task.n_classes * (task.n_classes - 1) // 2
    weight = task.x.new_zeros(n_penalties, task.n_classes - 1, len(task.x))
    bias = weight.new_zeros(n_penalties, n_pairs)
    return Machines(weight, bias, torch.zeros_like(bias, dtype=torch.int64), torch.zeros_like(bias, dtype=torch.bool))


def accuracies_of(task: Task, machines: Machines, test: TrainingData) -> Tensor:
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


def by_libsvm(task: Task, grid: Sequence[float], limits: Limits) -> Machines:
    """Solve by scikit-learn's LIBSVM with one kernel matrix for all penalties, and what it leaves by an interior point.

    LIBSVM keeps kernels in float32, so that it may take for solved what is not.
    """
    n_rows = len(task.x)
    shared = n_rows <= _SHARED_KERNEL
    matrix = rbf_kernel(task.x, task.x, task.gamma) if shared else None
    kernel: dict[str, Any] = {"kernel": "precomputed"} if shared else {"kernel": "rbf", "gamma": task.gamma}
    codes, weights = task.codes.numpy(), None if task.weights is None else task.weights.numpy()
    found = _no_machines(task, len(grid))
    for i, C in enumerate(grid):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # how close it came is looked at below
            model = SVC(C=C, tol=0.9 * limits.tol, cache_size=500, max_iter=_LIBSVM_STEPS, random_state=0, **kernel)
            model.fit((task.x if matrix is None else matrix).numpy(), codes, sample_weight=weights)
        sign = 1 if task.n_classes == 2 else -1
        found.weight[i][:, torch.from_numpy(model.support_).long()] = sign * torch.from_numpy(model.dual_coef_)
        found.bias[i] = sign * torch.from_numpy(model.intercept_)
        found.n_iter[i] = torch.as_tensor(model.n_iter_, device="cpu")
        upper = C * (torch.ones(n_rows, dtype=torch.float64, device="cpu") if task.weights is None else task.weights)
        left = _left_over(task, found, i, upper, limits.tol)
        if left:
            found.merge(i, by_interior_point([task], [[C]], limits, pairs=left)[0], left, task.codes)
        if bool((found.weight[i].abs() < upper).all()):  # no C limits it, so none that is larger changes it
            found.copy_onward(i)
            break
    return found


def _left_over(task: Task, found: Machines, i: int, upper: Tensor, tol: float) -> list[_Pair]:
    """Return the pairs that LIBSVM has not solved to tol with the i-th penalty, of which upper (n,) are the bounds."""
    n_classes, weight = task.n_classes, found.weight[i]
    first, second = torch.triu_indices(n_classes, n_classes, 1, device="cpu")
    sums = weight.new_zeros(n_classes - 1, n_classes).index_add_(1, task.codes, weight.abs())
    rounding = 2 * _FLOAT32_ROUNDING * (sums[second - 1, first] + sums[first, second])  # of the gradients, at most
    unsure = ((rounding > 0.1 * tol) | (found.n_iter[i] >= _LIBSVM_STEPS)).nonzero().squeeze(1)
    pairs = [_Pair(0, int(first[pair]), int(second[pair])) for pair in unsure.tolist()]
    left = []
    for some, listed in _chunks_of_pairs([task], pairs):
        rows = task.x[some.rows]
        alpha = weight[some.coefficient_rows(), some.rows].abs() * some.signs.abs()
        violation = svm_violation(rbf_kernel(rows, rows, task.gamma), some.signs, upper[some.rows], alpha)
        left += [pair for pair, off in zip(listed, violation.tolist(), strict=True) if not off <= tol]
    return left


class _Pair(NamedTuple):
    task: int
    first: int
    second: int


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

    def coefficient_rows(self) -> Tensor:
        """(B, m): in which row of a task's weights the coefficient of each row is."""
        return torch.where(self.signs < 0, self.second.unsqueeze(1) - 1, self.first.unsqueeze(1))


def _chunks_of_pairs(tasks: Sequence[Task], pairs: Sequence[_Pair] | None) -> Iterator[tuple[_Pairs, list[_Pair]]]:
    """Yield pairs of classes, in chunks of pairs of about the same size."""
    device = tasks[0].x.device
    members = [[(task.codes == code).nonzero().squeeze(1) for code in range(task.n_classes)] for task in tasks]
    if pairs is None:
        classes = range(tasks[0].n_classes)
        pairs = [_Pair(at, i, j) for at in range(len(tasks)) for i in classes for j in classes if i < j]
    sizes = sorted((len(members[pair.task][pair.first]) + len(members[pair.task][pair.second]), pair) for pair in pairs)
    while sizes:
        n_fit = max(1, values_per_chunk(device) // max(1, sizes[-1][0]) ** 2)
        some, sizes = [pair for _, pair in sizes[-n_fit:]], sizes[:-n_fit]
        rows = [torch.cat([members[at][first], members[at][second]]) for at, first, second in some]
        signs = [2.0 * (tasks[at].codes[mine] == second) - 1 for mine, (at, _, second) in zip(rows, some, strict=True)]
        at, first, second = torch.tensor(some, device=device).T
        filled, signed = (pad_sequence(part, batch_first=True) for part in (rows, signs))
        yield _Pairs(at, first, second, filled, signed.double()), some


def by_interior_point(
    tasks: Sequence[Task],
    grids: Sequence[Sequence[float]],
    limits: Limits,
    *,
    pairs: Sequence[_Pair] | None = None,
) -> list[Machines]:
    """Solve pairs of classes of all tasks at once, one penalty after another.

    Args:
        tasks: of as many classes.
        grids: the penalties of each task, ascending, as many for each.
        limits: when to stop.
        pairs: which to solve: task, first class, second class; all unless given.
    """
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
    for some, _ in _chunks_of_pairs(tasks, pairs):
        task = some.task.unsqueeze(1)
        rows = x[task, some.rows]
        kernel = rbf_kernel(rows, rows, gamma[some.task, None, None])
        where = some.signs != 0
        places = (task.expand_as(where)[where], some.coefficient_rows()[where], some.rows[where])
        column = number[some.first, some.second]
        going = torch.arange(len(some.task), device=device)  # pairs that some C still limits
        alpha = torch.zeros_like(some.signs)
        for i in range(C.shape[1]):
            upper = C[some.task[going], i, None] * weights[task, some.rows][going]
            found = svm_dual(kernel[going], some.signs[going], upper, tol=limits.tol, max_iter=limits.max_iter)
            alpha[going] = found.alpha
            at = some.task[going], column[going]
            bias[at[0], i:, at[1]] = found.bias.unsqueeze(1)
            n_iter[at[0], i:, at[1]] = found.n_iter.unsqueeze(1)
            is_open[at[0], i:, at[1]] = ~(found.violation <= limits.tol).unsqueeze(1)
            weight[places[0], i, places[1], places[2]] = (some.signs * alpha)[where]
            limited = ((found.alpha >= upper) & where[going]).any(1)
            going = going[limited]
            if not len(going):
                weight[places[0], i + 1 :, places[1], places[2]] = (some.signs * alpha)[where].unsqueeze(1)
                break
    return [
        Machines(weight[at, :, :, : len(task.x)], bias[at], n_iter[at], is_open[at]) for at, task in enumerate(tasks)
    ]
