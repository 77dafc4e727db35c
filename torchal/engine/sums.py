"""Sums of weighted rows by group: as fast as can be, or the same whoever adds up which rows, and in whatever order."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_AT_ONCE = {"cpu": 1 << 17}  # numbers that are rounded and added while they are in a cache
_AT_ONCE_ELSEWHERE = 1 << 22


class ExactSums:
    """Sums of rows of each of some groups, and of their weights, without a rounding error but that of each row.

    Each number is rounded to a multiple of a power of two, so large that no sum of all rows has more digits than
    float64 holds: of a million rows it is 2^-32 of the longest. Where that is not fine enough, what was rounded off is
    added up once more, in steps that are as much smaller.

    Args:
        n_groups: k.
        n_columns: D.
        longest: no row is longer.
        n_rows: how many there are, on all ranks.
        fine: whether to add up what is rounded off too: for weights that differ very much, and for float64.
        device: where the rows are.

    Attributes:
        parts: (1 or 2, k, D + 1) float64, to be added up over ranks before `total` is taken.

    Example:
        >>> sums = ExactSums(2, 1, longest=4.0, n_rows=3, fine=False, device=torch.device("cpu"))
        >>> sums.add(torch.tensor([0, 1, 0]), torch.tensor([[1.0], [4.0], [3.0]]), torch.tensor([1.0, 1.0, 0.5]))
        >>> sums.total(sums.parts)
        (tensor([[2.5000],
                [4.0000]], dtype=torch.float64), tensor([1.5000, 1.0000], dtype=torch.float64))
    """

    def __init__(
        self, n_groups: int, n_columns: int, *, longest: float, n_rows: int, fine: bool, device: torch.device
    ) -> None:
        self._unit = 2.0 ** math.frexp(longest)[1]
        room = 2.0 ** (n_rows.bit_length() - 52)
        # what is added to a number, and taken off again, so that it keeps no digits below the step
        self._rounders = [1.5 * 2.0**52 * self._unit * room ** (level + 1) for level in range(1 + fine)]
        self.parts = torch.zeros(1 + fine, n_groups, n_columns + 1, dtype=torch.float64, device=device)
        self._rows_at_once = max(1, _AT_ONCE.get(device.type, _AT_ONCE_ELSEWHERE) // (n_columns + 1))
        self._room = self.parts.new_empty(1 + fine, self._rows_at_once, n_columns + 1)

    def add(self, index: Tensor, rows: Tensor, weights: Tensor) -> None:
        """Add rows to their groups, or none of them if the device is out of memory.

        Shapes:
            index: (R,) int64.
            rows: (R, D).
            weights: (R,), of at most 1.
        """
        on_cpu = rows.device.type == "cpu"
        parts = self.parts if on_cpu else torch.zeros_like(self.parts)
        size = self._rows_at_once
        unweighted = weights.stride(0) == 0 and on_cpu and float(weights[:1].sum()) == 1
        for where, x, w in zip(index.split(size), rows.split(size), weights.split(size), strict=True):
            rest, rounded = self._room[0, : len(x)], self._room[-1, : len(x)]
            rest[:, :-1] = x
            rest[:, -1] = self._unit
            if not unweighted:
                rest.mul_(w.unsqueeze(1))
            for level, rounder in enumerate(self._rounders):
                last = level == len(self._rounders) - 1
                step = rest.add_(rounder) if last else torch.add(rest, rounder, out=rounded)
                parts[level].index_add_(0, where, step.sub_(rounder))
                if not last:
                    rest.sub_(rounded)
        if not on_cpu:
            self.parts.add_(parts)

    def total(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of the rows, (k, D) float64, and of their weights, (k,), of parts that all ranks made."""
        sums = parts.sum(0)
        return sums[:, :-1], sums[:, -1] / self._unit


class ChunkSums:
    """Does what `ExactSums` does, by rounded sums of a chunk in the rows' own dtype: for rows that all ranks have."""

    def __init__(self, n_groups: int, n_columns: int, *, device: torch.device) -> None:
        self.parts = torch.zeros(n_groups, n_columns + 1, dtype=torch.float64, device=device)

    def add(self, index: Tensor, rows: Tensor, weights: Tensor) -> None:
        """Add rows to their groups, or none of them if the device is out of memory."""
        weights = weights.unsqueeze(1)
        part = torch.cat([self._sum_by(index, rows * weights), self._sum_by(index, weights)], 1)
        self.parts.add_(part)

    def total(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of the rows, (k, D) float64, and of their weights, (k,)."""
        return parts[:, :-1], parts[:, -1]

    def _sum_by(self, index: Tensor, rows: Tensor) -> Tensor:
        """Return the sums of the rows (R, D) with each index; on a GPU by a product, always in the same order."""
        k = len(self.parts)
        if rows.device.type == "cpu":
            return rows.new_zeros(k, rows.shape[1]).index_add_(0, index, rows)
        return (index == torch.arange(k, device=index.device).unsqueeze(1)).to(rows.dtype) @ rows
