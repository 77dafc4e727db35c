"""The engine of coverage: exact greedy for the sum of weight times the highest similarity of each row with a pick.

Each row has a value, its highest similarity with a pick so far; a candidate's gain is what it would add to the values,
the sum of weight (similarity - value) where that is positive. The plain greedy computes all gains anew for each pick,
which takes all similarities, N x N products of rows. What is done here, so that most are computed once or twice:

1. A pick raises the values of few rows: the p-th, of about one row in p. Gains change by what these rows say, and by
   nothing else, so all gains are kept right by the similarities of the raised rows alone.
2. A similarity that is not above its row's value will never count again. After p picks about one in p is left, so rows
   that were raised keep what is left of theirs (`KeptPairs`), as far as there is room, and are not multiplied again.
3. Where all similarities are few enough, they are kept from the start.

What was added and taken off again leaves rounding errors behind. So of all candidates whose gain is within these of the
best, the gains are computed anew, as one sum over all rows, before one of them is picked; and when gains have become
small beside what they once were, all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.affinity import Affinity, part
from torchal.engine.kept_pairs import KeptPairs
from torchal.engine.sources import HeldRows, Source

_HELD = 1 << 26  # similarities (256 MiB) that are held where they are all; no more than these are kept of many
_FEW = 16  # candidates beyond which it is worth to look for equal ones
_TILES = 4  # a tile of all columns may have this many times what else a temporary may
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
        """Return the gains of some columns (k,), and how far rounding may have moved them, float64."""
        gains = self._bonus[columns].clone()
        squares = torch.zeros_like(gains)  # of what counts: over the rows errors cancel out
        for where, tile in self._tiles(columns):
            rise = tile.sub_(self.values[where].unsqueeze(1)).clamp_(min=0).double()
            weights = self._weights[where].double()
            gains += weights @ rise
            squares += weights.square() @ (rise > 0).double()
        return gains, squares.sqrt_().mul_(self._affinity.error).add_(gains.abs() * 4 * torch.finfo(gains.dtype).eps)

    def _column(self, column: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values that the rows have with one more pick (1,), (R,), and what it adds, (), float64."""
        values, gain = torch.empty_like(self.values), self._bonus[column[0]].clone()
        for where, tile in self._tiles(column):
            values[where] = torch.maximum(tile[:, 0], self.values[where])
            gain += (self._weights[where].double() * (values[where] - self.values[where])).sum()
        return values, gain

    def _tiles(self, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Return the similarities of all rows, part by part, with some columns (k,), capped, (r, k)."""
        there = None if self._matrix is not None else self._columns.select(columns)
        size = max(1, values_per_chunk(self._device) // max(len(columns), self._rows.n_columns))
        for start in range(0, len(self.values), size):
            where = slice(start, min(start + size, len(self.values)))
            if there is None:
                assert self._matrix is not None
                tile = self._matrix[where].index_select(1, columns)
            else:
                tile = self._affinity.between(part(self._rows, where.start, where.stop, self._device), there)
            yield where, tile if self._caps is None else torch.minimum(tile, self._caps[where].unsqueeze(1))

    def _raise_to(self, values: Tensor) -> None:
        """Give the rows other values (R,), none of them lower, and the gains what follows."""
        raised = ((values > self.values) & (self._weights > 0)).nonzero().squeeze(1)
        low, high, weights = self.values[raised], values[raised], self._weights[raised]
        self.values = values
        kept = self._pairs.is_kept[raised] if self._pairs is not None else torch.zeros_like(raised, dtype=torch.bool)
        if self._pairs is not None:
            self._gains -= self._pairs.raise_values(raised[kept], low[kept], high[kept], weights[kept])
        raised, low, high, weights = raised[~kept], low[~kept], high[~kept], weights[~kept]
        if not len(raised):
            return
        if self._matrix is None and self._pairs is None:
            n_rows, n_columns = len(values), len(self._gains)
            self._pairs = KeptPairs(n_rows, n_columns, _HELD, dtype=values.dtype, device=self._device)
        size = max(_FEW, _TILES * values_per_chunk(self._device) // len(self._gains))
        for start in range(0, len(raised), size):
            some = slice(start, start + size)
            tile = self._similarities(raised[some])
            if self._pairs is not None:
                self._pairs.keep(raised[some], tile, high[some])
            bottom = low[some].unsqueeze(1)
            tile.clamp_(min=bottom, max=high[some].unsqueeze(1)).sub_(bottom)
            self._gains -= weights[some] @ tile

    def _similarities(self, rows: Tensor) -> Tensor:
        """Return the similarities of some rows (r,) with all columns, (r, M)."""
        if self._matrix is not None:
            return self._matrix.index_select(0, rows)
        here, n_columns = self._rows.select(rows), len(self._gains)
        width = n_columns if isinstance(self._columns, HeldRows) else math.isqrt(values_per_chunk(self._device))
        parts = (part(self._columns, i, min(i + width, n_columns), self._device) for i in range(0, n_columns, width))
        tiles = [self._affinity.between(here, there) for there in parts]
        return tiles[0] if len(tiles) == 1 else torch.cat(tiles, 1)

    def _renew(self) -> None:
        """Compute all gains anew from what is kept, where that is enough: old rounding errors are gone."""
        if self._matrix is not None:
            gains = self._bonus.clone()
            size = max(1, _TILES * values_per_chunk(self._device) // len(gains))
            for start in range(0, len(self.values), size):
                where = slice(start, min(start + size, len(self.values)))
                gains += self._added(self._matrix[where].clone(), where)
            n_terms = len(self.values)
        elif self._pairs is not None and self._pairs.has_all:
            gains, counts = self._pairs.gains(self.values, self._caps, self._weights)
            gains += self._bonus
            n_terms = int(counts.max())
        else:
            return
        self._gains = gains.masked_fill_(self._gains == -torch.inf, -torch.inf)
        self._set_slack(n_terms)

    def _set_slack(self, n_terms: int) -> None:
        """Say how far gains that are kept right may be from those computed anew; each is a sum of so many terms."""
        self._scale = float(self._gains.max())
        eps = torch.finfo(self._weights.dtype).eps
        # A pair's similarity may have other last bits in another product; over the rows such errors cancel out.
        pairs = self._affinity.error * math.sqrt(n_terms) * float(self._weights.max())
        self._slack = 8 * pairs + 16 * eps * max(self._scale, 0.0)
