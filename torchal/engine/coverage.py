"""The engine of coverage: exact greedy for the sum of weight times the highest similarity of each row with a pick.

Each row has a value, its highest similarity with a pick so far; a candidate's gain is what it would add to the values,
the sum of weight (similarity - value) where that is positive. The plain greedy computes all gains anew for each pick,
which takes all similarities, N x N products of rows. What is done here, so that most are computed once or twice:

1. A pick raises the values of few rows: the p-th, of about one row in p. Gains change by what these rows say, and by
   nothing else, so all gains are kept right by the similarities of the raised rows alone.
2. A similarity that is not above its row's value will never count again. After p picks about one in p is left, so rows
   that were raised keep what is left of theirs (`KeptPairs`), and are not multiplied again.
3. Where all similarities are few enough, they are kept from the start.

What was added and taken off again leaves rounding errors behind. So of all candidates whose gain is within these of the
best, the gains are computed anew, as one sum over all rows, before one of them is picked; and when gains have become
small beside what they once were, all of them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.affinity import Affinity, part
from torchal.engine.kept_pairs import KeptPairs
from torchal.engine.sources import Source

_HELD = 1 << 26  # similarities (256 MiB) that are held where they are all; no more than these are kept of many
_FEW = 16  # candidates beyond which it is worth to look for equal ones
_FADED = 1 / 8  # of what the best gain was: all are computed anew


class Covering(NamedTuple):
    """Rows in the order in which they were picked, and what theory says of them.

    Shapes:
        indices: (n,) int64, rows of the pool.
        scores: (n,) float, what each pick added when it was picked.
    """

    indices: Tensor
    scores: Tensor
    value: float
    """What the picks cover, labeled rows included."""
    bound: float
    """What no n picks can cover more than."""


class Coverage:
    """Rows with values, candidates with gains.

    Args:
        affinity: what similarity is.
        rows: what is to be covered.
        columns: what can be picked.
        values: (R,) where the rows' values begin.
        weights: (R,) at least 0.
        allowed: (M,) bool, the columns that may be picked.
        caps: (R,) at least the values: no similarity counts for more.
        bonus: (M,) what a pick adds by itself.
    """

    def __init__(
        self,
        affinity: Affinity,
        rows: Source,
        columns: Source,
        *,
        values: Tensor,
        weights: Tensor,
        allowed: Tensor,
        caps: Tensor | None = None,
        bonus: Tensor | None = None,
    ) -> None:
        self.values = values.to(affinity.dtype)
        self._affinity, self._rows, self._columns = affinity, rows, columns
        self._weights = weights.to(affinity.dtype)
        self._caps = None if caps is None else caps.to(affinity.dtype)
        self._device = values.device
        n_rows, n_columns = len(rows), len(columns)
        self._bonus = torch.zeros(n_columns, dtype=torch.float64, device=self._device)
        if bonus is not None:
            self._bonus += bonus
        self._matrix: Tensor | None = None
        if n_rows * n_columns <= _HELD:
            self._matrix = torch.empty(n_rows, n_columns, dtype=affinity.dtype, device=self._device)
        self._pairs: KeptPairs | None = None
        self._gains = self._bonus.clone()
        self._open()
        self._gains.masked_fill_(~allowed, -torch.inf)
        self._set_slack(n_rows)

    def _open(self) -> None:
        """Compute all gains, in one pass; of similarities of a pool with itself, half are computed."""
        side = math.isqrt(values_per_chunk(self._device))
        n_rows, n_columns = len(self._rows), len(self._columns)
        symmetric = self._rows is self._columns
        for first in range(0, n_columns, side):
            last = min(first + side, n_columns)
            there = part(self._columns, first, last, self._device)

            def look(start: int, stop: int, mirrored: bool, first: int = first, last: int = last) -> None:
                tile = self._affinity.between(part(self._rows, start, stop, self._device), there)  # noqa: B023
                if self._matrix is not None:
                    self._matrix[start:stop, first:last] = tile
                    if mirrored:
                        self._matrix[first:last, start:stop] = tile.T
                gains = self._added(tile.T.contiguous(), slice(first, last)) if mirrored else None
                self._gains[first:last] += self._added(tile, slice(start, stop))
                if gains is not None:
                    self._gains[start:stop] += gains

            if symmetric:
                self._rows.in_chunks(last - first, side, lambda a, b: look(first + a, first + b, False))  # noqa: B023
                self._rows.in_chunks(n_rows - last, side, lambda a, b: look(last + a, last + b, True))  # noqa: B023
            else:
                self._rows.in_chunks(n_rows, side, lambda a, b: look(a, b, False))

    def _added(self, tile: Tensor, where: slice | Tensor) -> Tensor:
        """Return what each column of a tile (r, M) would add to the values of rows, (M,); the tile is used up."""
        low = self.values[where].unsqueeze(1)
        if self._caps is None:
            tile.sub_(low).clamp_(min=0)
        else:
            torch.minimum(tile, self._caps[where].unsqueeze(1), out=tile).sub_(low).clamp_(min=0)
        return self._weights[where] @ tile

    def pick(self, n: int) -> tuple[Tensor, Tensor]:
        """Pick n of the columns that may be picked, (n,), each with its gain, (n,) float64; the values rise."""
        picked = torch.empty(n, dtype=torch.int64, device=self._device)
        scores = torch.zeros(n, dtype=torch.float64, device=self._device)
        for step in range(n):
            best = self._gains.max()
            if best < _FADED * self._scale:
                self._renew()
                best = self._gains.max()
            close = (self._gains >= best - self._slack).nonzero().squeeze(1)
            if len(close) > 1:
                close, gain = self._settle(close)
                if gain <= 0:  # no pick adds anything any more
                    rest = (self._gains > -torch.inf).nonzero().squeeze(1)[: n - step]
                    picked[step:] = rest
                    self._gains[rest] = -torch.inf
                    break
            values, gain = self._column(close)
            picked[step], scores[step] = close[0], gain
            self._gains[close] = -torch.inf
            self._raise_to(values)
        return picked, scores

    def largest_gains(self, n: int) -> Tensor:
        """Return the n largest gains of the columns that may be picked, fewer where there are fewer."""
        gains = self._gains[self._gains > -torch.inf]
        return gains.clamp(min=0).topk(min(n, len(gains))).values

    def total(self) -> Tensor:
        """Return the weighted sum of the values, ()."""
        return (self._weights.double() * self.values.double()).sum()

    def _settle(self, close: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of some columns (k,), in ascending order, has the largest gain, (1,), and the gain.

        Among those that rounding alone may tell apart, the first.
        """
        if len(close) > _FEW:
            kinds, kind = self._columns.select(close).x.unique(dim=0, return_inverse=True)
            first = close.new_full((len(kinds),), len(self._gains)).scatter_reduce_(0, kind, close, "amin")
            close = first.sort().values
        gains, doubt = (torch.empty(len(close), dtype=torch.float64, device=self._device) for _ in range(2))
        width = max(1, min(256, values_per_chunk(self._device) // len(self.values)))
        for start in range(0, len(close), width):
            some = slice(start, start + width)
            gains[some], doubt[some] = self._direct(close[some])
        best = gains.argmax()
        return close[(gains >= gains[best] - doubt[best]).to(torch.uint8).argmax(0, keepdim=True)], gains[best]

    def _direct(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gains of some columns (k,), and how far rounding may have moved them."""
        gains, active = self._bonus[columns].clone(), torch.zeros(len(columns), dtype=torch.float64, device=self._device)
        there = self._columns.select(columns)
        size = max(1, values_per_chunk(self._device) // max(len(columns), self._rows.n_columns))
        for start in range(0, len(self.values), size):
            where = slice(start, min(start + size, len(self.values)))
            tile = self._part_of_columns(where, columns, there)
            rise = self._rise(tile, where).double()
            weights = self._weights[where].double()
            gains += weights @ rise
            active += weights @ (rise > 0).double()
        return gains, active.mul_(self._affinity.error)

    def _column(self, column: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values that the rows have with one more pick, (R,), and what it adds, ()."""
        values, gain = self.values.clone(), self._bonus[column[0]].clone()
        there = self._columns.select(column)
        size = max(1, values_per_chunk(self._device) // self._rows.n_columns)
        for start in range(0, len(values), size):
            where = slice(start, min(start + size, len(values)))
            rise = self._rise(self._part_of_columns(where, column, there), where)
            gain += (self._weights[where].double() * rise[:, 0].double()).sum()
            tops = self._part_of_columns(where, column, there)[:, 0]
            tops = tops if self._caps is None else torch.minimum(tops, self._caps[where])
            torch.maximum(values[where], tops, out=values[where])
        return values, gain
