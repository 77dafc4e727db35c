"""Which of many values come first, found part by part: no temporary is as long as the values are."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk


class Largest:
    """The n largest of values that come part by part, and their rows; among equal ones those that came first.

    `torch.topk` makes pairs of all values and their numbers on a CPU, 16 bytes each, and leaves the order of ties open.

    Args:
        n: how many to keep.
        like: a tensor of the values' dtype and device.

    Example:
        >>> largest = Largest(2, torch.empty(0))
        >>> largest.add(torch.tensor([1.0, 5.0, 3.0]), 0)
        >>> largest.add(torch.tensor([5.0, 3.0]), 3)
        >>> largest.rows, largest.least
        (tensor([1, 3]), tensor(5.))
    """

    def __init__(self, n: int, like: Tensor) -> None:
        self._n = n
        self._values = [like.new_empty(0)]
        self._rows = [like.new_empty(0, dtype=torch.int64)]
        self._limit: Tensor | None = None
        self._waiting = 0

    def add(self, values: Tensor, first: int, among: Tensor | None = None) -> None:
        """Add the values (R,) of consecutive rows, the first of which has this number; of these only some, if said so.

        Shapes:
            values: (R,), none of them NaN.
            among: (R,) bool.
        """
        wanted = among
        if self._limit is not None:  # what equals the limit comes too late
            wanted = values > self._limit if among is None else (values > self._limit) & among
        if wanted is None:
            self._values.append(values.clone())
            self._rows.append(torch.arange(first, first + len(values), device=values.device))
        else:
            rows = wanted.nonzero().squeeze(1)
            self._values.append(values[rows])
            self._rows.append(rows + first)
        self._waiting += len(self._rows[-1])
        # Not later: many small tensors that stay would be in the way of large ones, and the heap would grow.
        if self._waiting >= 2 * self._n:
            self._trim()

    @property
    def rows(self) -> Tensor:
        """(m,) int64, at most n, in the order in which they came."""
        self._trim()
        return self._rows[0]

    @property
    def values(self) -> Tensor:
        """(m,) their values."""
        self._trim()
        return self._values[0]

    @property
    def least(self) -> Tensor:
        """() the n-th largest value."""
        return self.values.min()

    def _trim(self) -> None:
        if len(self._rows) > 1:
            self._values, self._rows = [torch.cat(self._values)], [torch.cat(self._rows)]
        values, rows = self._values[0], self._rows[0]
        self._waiting = min(len(values), self._n)
        if len(values) < self._n or not self._n:
            return
        limit = values.topk(self._n, sorted=False).values.min()
        if len(values) > self._n:
            above = values > limit
            level = (values == limit).nonzero().squeeze(1)[: self._n - int(above.sum())]
            keep = above.index_fill_(0, level, True).nonzero().squeeze(1)
            self._values, self._rows = [values[keep]], [rows[keep]]
        self._limit = limit


def nth_largest(values: Tensor, n: int) -> Tensor:
    """Return the n-th largest of values (N,), ().

    Example:
        >>> nth_largest(torch.tensor([1.0, 5.0, 3.0]), 2)
        tensor(3.)
    """
    size = values_per_chunk(values.device)
    if len(values) <= size:
        return values.topk(n, sorted=False).values.min()
    largest = Largest(n, values)
    for start in range(0, len(values), size):
        largest.add(values[start : start + size], start)
    return largest.least


def first_between(values: Tensor, low: float, high: float, n: int) -> Tensor:
    """Return the first n rows, or all if they are fewer, whose values (N,) lie in [low, high], (m,) int64.

    Example:
        >>> first_between(torch.tensor([1.0, 5.0, 3.0, 2.0]), 2.0, 3.0, 1)
        tensor([2])
    """
    size = values_per_chunk(values.device)
    found = [values.new_empty(0, dtype=torch.int64)]
    for start in range(0, len(values), size):
        part = values[start : start + size]
        found.append(((part >= low) & (part <= high)).nonzero().squeeze(1)[:n] + start)
        n -= len(found[-1])
        if not n:
            break
    return torch.cat(found)


def nth_true(mask: Tensor, places: Tensor) -> Tensor:
    """Return which rows of a mask (N,) bool are the true ones at these places among them, (p,) int64.

    Example:
        >>> nth_true(torch.tensor([True, False, True, True]), torch.tensor([2, 0]))
        tensor([3, 0])
    """
    size = values_per_chunk(mask.device)
    ends = torch.stack([part.count_nonzero() for part in mask.split(size)]).cumsum(0)
    owner = torch.searchsorted(ends, places, right=True)
    found = torch.empty_like(places)
    for part in owner.unique().tolist():
        here = owner == part
        before = int(ends[part - 1]) if part else 0
        rows = mask[part * size : (part + 1) * size].nonzero().squeeze(1)
        found[here] = rows[places[here] - before] + part * size
    return found
