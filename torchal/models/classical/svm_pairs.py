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

from torchal._chunks import values_per_chunk
from torchal.models.base import TrainingData
from torchal.solvers.kernels import RbfKernel, most_voted, pair_values, rbf_kernel
from torchal.solvers.svm_dual import svm_dual, svm_violation

_WHOLE_KERNEL = 12_000  # rows whose whole kernel matrix is made, 1.1 GB, for LIBSVM or to go on where it ends
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
    weights: Tensor
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
        at = [_position(pair, n_classes) for pair in pairs]
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
    values = max(n_support, task.x.shape[1], n_machines * n_others * task.n_classes)
    size = max(1, values_per_chunk(task.x.device) // values)
    right = torch.zeros(n_machines, dtype=torch.float64, device=task.x.device)
    kernel, weights = RbfKernel(task.x, task.gamma), test.row_weights
    parts = (part.split(size) for part in (test.inputs.double(), test.codes, weights))
    for x, codes, counted in zip(*parts, strict=True):
        pairs = pair_values(kernel(x), machines.weight, task.codes, machines.bias)
        right += (most_voted(pairs.flatten(0, 1), task.n_classes).view(n_machines, -1) == codes).double() @ counted
    return right / weights.sum()


def by_libsvm(task: Task, grid: Sequence[float], limits: Limits) -> Machines:
    """Solve by scikit-learn's LIBSVM with one kernel matrix for all penalties, and what it leaves by an interior point.

    LIBSVM keeps kernels in float32, so that it may take for solved what is not. A pair of more rows than a whole kernel
    matrix is made for stays as LIBSVM leaves it.
    """
    matrix = rbf_kernel(task.x, task.x, task.gamma) if len(task.x) <= _WHOLE_KERNEL else None
    kernel: dict[str, Any] = {"kernel": "rbf", "gamma": task.gamma} if matrix is None else {"kernel": "precomputed"}
    codes, weights = task.codes.numpy(), task.weights.numpy()
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
        left = [
            pair for pair, off in _unsure(task, found, i, C=C, tol=limits.tol, matrix=matrix) if not off <= limits.tol
        ]
        small = [pair for pair in left if len(_members(task, pair)[0]) <= _WHOLE_KERNEL]
        if small:
            found.merge(i, by_interior_point([task], [[C]], limits, pairs=small)[0], small, task.codes)
        for pair in left:
            if pair not in small:
                found.is_open[i, _position(pair, task.n_classes)] = True
        if bool((found.weight[i].abs() < C * task.weights).all()):  # no C limits it, so none that is larger changes it
            found.copy_onward(i)
            break
    return found


def _unsure(
    task: Task, found: Machines, i: int, *, C: float, tol: float, matrix: Tensor | None
) -> Iterator[tuple[_Pair, float]]:
    """Yield the pairs of which it is not sure that LIBSVM has solved them to tol with the i-th penalty, C.

    With each comes by how much its rows violate the conditions of the optimum. The matrix is the kernel of all rows.
    """
    n_classes, weight = task.n_classes, found.weight[i]
    first, second = torch.triu_indices(n_classes, n_classes, 1, device="cpu")
    sums = weight.new_zeros(n_classes - 1, n_classes).index_add_(1, task.codes, weight.abs())
    rounding = 2 * _FLOAT32_ROUNDING * (sums[second - 1, first] + sums[first, second])  # of the gradients, at most
    unsure = ((rounding > 0.1 * tol) | (found.n_iter[i] >= _LIBSVM_STEPS)).nonzero().squeeze(1)
    for at in unsure.tolist():
        pair = _Pair(0, int(first[at]), int(second[at]))
        rows, signs = _members(task, pair)
        signed = torch.where(signs < 0, weight[pair.second - 1, rows], weight[pair.first, rows])
        size = max(1, values_per_chunk(rows.device) // len(task.x))
        if matrix is None:
            kernel = RbfKernel(task.x[rows], task.gamma)
            parts = [kernel(some) @ signed for some in task.x[rows].split(size)]
        else:
            parts = [matrix[some][:, rows] @ signed for some in rows.split(size)]
        values = torch.cat(parts)
        upper = C * task.weights[rows]
        yield pair, float(svm_violation(values[None], signs[None], upper[None], signed.abs()[None]))


def _members(task: Task, pair: _Pair) -> tuple[Tensor, Tensor]:
    """Return the rows of a pair of classes (m,) int64, and their signs (m,): -1 for the first class, else 1."""
    rows = torch.cat([(task.codes == code).nonzero().squeeze(1) for code in (pair.first, pair.second)])
    return rows, 2.0 * (task.codes[rows] == pair.second).double() - 1


def _position(pair: _Pair, n_classes: int) -> int:
    """Return which of all pairs one is: (0, 1), (0, 2), ..., (1, 2), ..."""
    return pair.first * n_classes - pair.first * (pair.first + 1) // 2 + pair.second - pair.first - 1


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


def _chunks_of_pairs(tasks: Sequence[Task], pairs: Sequence[_Pair] | None) -> Iterator[_Pairs]:
    """Yield pairs of classes, in chunks of pairs of about the same size."""
    device = tasks[0].x.device
    if pairs is None:
        classes = range(tasks[0].n_classes)
        pairs = [_Pair(at, i, j) for at in range(len(tasks)) for i in classes for j in classes if i < j]
    counts = [task.codes.bincount(minlength=task.n_classes).tolist() for task in tasks]
    sizes = sorted((counts[pair.task][pair.first] + counts[pair.task][pair.second], pair) for pair in pairs)
    while sizes:
        n_fit = max(1, values_per_chunk(device) // max(1, sizes[-1][0]) ** 2)
        some, sizes = [pair for _, pair in sizes[-n_fit:]], sizes[:-n_fit]
        rows, signs = zip(*(_members(tasks[pair.task], pair) for pair in some), strict=True)
        at, first, second = torch.tensor(some, device=device).T
        yield _Pairs(at, first, second, *(pad_sequence(list(part), batch_first=True) for part in (rows, signs)))


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
    weights = pad_sequence([task.weights for task in tasks], batch_first=True)
    number = torch.zeros(n_classes, n_classes, dtype=torch.int64, device=device)
    first, second = torch.triu_indices(n_classes, n_classes, 1, device=device)
    number[first, second] = torch.arange(n_pairs, device=device)
    for some in _chunks_of_pairs(tasks, pairs):
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
