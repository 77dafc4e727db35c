"""The engine of coverage: exact greedy for the sum of weight times the highest similarity of each row with a pick.

Each row has a value, its highest similarity with a pick so far; a candidate's gain is what it would add to the values,
the sum of weight (similarity - value) where that is positive. The plain greedy computes all gains anew for each pick,
which takes all similarities, N x N products of rows. Here two things take its place, and each is done while it is the
cheaper one, counted in similarities:

1. Gains only shrink, so a gain that was computed some picks ago is a bound: the candidates with the largest bounds are
   computed anew until no other bound reaches the best of them (lazy greedy).
2. A pick raises the values of few rows: the p-th, of about one row in p. What all gains lose by that is said by the
   similarities of these rows alone, so that all bounds can be made gains again. Where more than half of the rows were
   raised, all similarities are computed, each pair once.

Of small pools, all similarities are held.

Where rows are on several ranks, each has its own rows with their values, and all have the gains of the whole pool's
columns, the same ones: what a rank's rows say of gains is added up over the ranks, and all make the same picks. Columns
travel from rank to rank, in blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.distributed import Shards
from torchal.engine.affinity import Affinity, part
from torchal.engine.distances import Rows
from torchal.engine.greedy import greedy_bound
from torchal.engine.sources import Source

MAX_HELD = 2**26
"""The most similarities that are held, unless told otherwise: 256 MiB in float32, of 8192 rows with each other."""

_FIRST, _MOST = 8, 512  # candidates that are computed anew together
_EAGER = 4  # of what it takes to make all bounds gains, a part of 1 / 4 is spent on single columns before that is done
_BLOCKS = 8  # a tile of whole rows or columns may be this many times as large as other temporaries
_STRIP = 128  # columns that are written together where a tile is turned


class Coverage:
    """Rows with values, columns with gains.

    Args:
        affinity: what similarity is.
        rows: what is to be covered.
        columns: what can be picked; the same object as rows where it is the same. Of rows on several ranks, these are
            those of all ranks.
        values: (R,) where the rows' values begin.
        weights: (R,) at least 0.
        allowed: (M,) bool, the columns that may be picked.
        caps: (R,) no similarity counts for more.
        bonus: (M,) what a pick adds by itself, at least 0.
        max_held: of no more similarities than these, all are held.
        shards: whose ranks have other rows.
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
        max_held: int = MAX_HELD,
        shards: Shards | None = None,
    ) -> None:
        self._shards = Shards(None) if shards is None else shards
        self._affinity, self._rows, self._columns = affinity, rows, columns
        self._symmetric = rows is columns
        # Equal rows may differ by rounding: what is not higher than that is covered.
        values = values.to(affinity.dtype)
        self._values = values + (values > 0) * affinity.error
        self._weights = weights.to(affinity.dtype)
        self._caps = None if caps is None else caps.to(affinity.dtype)
        n_rows, n_columns, self._device = len(rows), len(columns), values.device
        self._bonus = torch.zeros(n_columns, dtype=torch.float64, device=self._device)
        if bonus is not None:
            self._bonus += bonus
        # the same decisions on every rank
        most_rows = int(self._shards.all_reduce(torch.tensor(n_rows), "max"))
        self._n_rows = self._shards.total(n_rows)
        self._matrix: Tensor | None = None
        if most_rows * n_columns <= max_held:
            self._matrix = self._shards.attempt(
                lambda: torch.empty(n_columns, n_rows, dtype=affinity.dtype, device=self._device), lambda: None
            )
        self._most = max(_FIRST, min(_MOST, _BLOCKS * values_per_chunk(self._device) // most_rows))
        heaviest = self._weights.max() if n_rows else self._weights.new_zeros(())
        self._heaviest = float(self._shards.all_reduce(heaviest, "max"))
        self._exact = self._bonus.masked_fill(~allowed, -torch.inf)  # gains, as of the values below
        self._bonus_doubt = 0.0 if bonus is None else 2 * affinity.error * max(1.0, float(self._bonus.max()))
        squares = self._shards.all_reduce(self._weights.double().square().sum())
        self._doubt = squares.sqrt() * 2 * affinity.error + self._bonus_doubt
        self._filled, self._spent = False, 0
        self._compute_all()

    def pick(self, n: int) -> tuple[Tensor, Tensor]:
        """Pick n of the columns that may be picked, (n,), each with its gain, (n,) float64; the values rise.

        Once no column adds anything, the lowest are picked, with gain 0.
        """
        picked = torch.empty(n, dtype=torch.int64, device=self._device)
        scores = torch.zeros(n, dtype=torch.float64, device=self._device)
        for step in range(n):
            column, gain = self._best()
            if not gain > 0:
                picked[step:] = (self._bounds > -torch.inf).nonzero().squeeze(1)[: n - step]
                self._bounds[picked[step:]] = -torch.inf
                break
            picked[step], scores[step] = column[0], gain
            self._bounds[column] = self._exact[column] = -torch.inf
            self._look_at_all(column, self._raise)
        return picked, scores

    def _rise(self, tile: Tensor, values: Tensor) -> Tensor:
        """Return what similarities would add to values; in place."""
        return tile.sub_(values).clamp_(min=0)

    def _loss(self, tile: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Return how much less that is for values that are high than for low ones; in place."""
        return torch.minimum(tile.sub_(low).clamp_(min=0), high - low, out=tile)

    def _raise(self, rows: slice, tile: Tensor) -> None:
        """Raise the values of some rows to the similarities with a new pick (1, r)."""
        values = self._values[rows]
        torch.maximum(values, tile[0].add_(self._affinity.error), out=values)

    def total(self) -> float:
        """Return the weighted sum of the values."""
        values = self._values - (self._values > 0) * self._affinity.error
        values = values if self._caps is None else torch.minimum(values, self._caps)
        return float(self._shards.all_reduce(self._weights.double() @ values.double()))

    @property
    def gains(self) -> Tensor:
        """(M,) float64, as of the picks so far or some of them; -inf where a column may not be picked."""
        return self._exact

    def largest_bounds(self, n: int) -> Tensor:
        """Return the n largest bounds on gains, fewer where fewer may be picked."""
        return self._bounds[self._bounds > -torch.inf].sort(descending=True).values[:n].clamp(min=0)

    def pick_and_bound(self, n: int) -> tuple[Tensor, Tensor, float, float]:
        """Return n picks, what each added, all that is reached (the start included), and what no n picks can exceed."""
        start, at_first = self.total(), float(self.largest_bounds(n).sum())
        picked, gains = self.pick(n)
        gained = float(gains.sum())
        left = gained + float(self.largest_bounds(n).sum())
        value = self.total() + float(self._bonus[picked].sum())
        weight = float(self._shards.all_reduce(self._weights.sum()))
        rounding = 4 * self._affinity.error * weight + 4 * self._slack
        return picked, gains, value, max(value, start + min(greedy_bound(gains), left, at_first)) + rounding

    def _best(self) -> tuple[Tensor, Tensor]:
        """Return the column with the largest gain, (1,), and it; the first of those that rounding tells apart."""
        left, size = self._bounds.clone(), _FIRST
        seen, gains, best = left.new_empty(0, dtype=torch.int64), left.new_empty(0), left.new_tensor(-torch.inf)
        while True:
            top = left.topk(min(size, len(left)))
            columns = top.indices[(top.values >= best - self._slack - self._doubt) & (top.values > -torch.inf)]
            if not len(columns):
                break
            if self._make_exact(len(columns)):
                return self._best()
            found = self._gains(columns)
            self._bounds[columns] = found
            left[columns] = -torch.inf
            seen, gains = torch.cat([seen, columns]), torch.cat([gains, found])
            best = gains.max()
            size = min(2 * size, self._most)
        tied = seen[gains >= best - self._doubt]
        if len(tied) > 1:
            tied = seen[gains >= best - torch.minimum(self._doubt_of(seen[gains.argmax()].reshape(1)), self._doubt)]
        return tied.min().reshape(1), best

    def _make_exact(self, n_columns: int) -> bool:
        """Make all bounds gains where enough was spent on single columns since they were, these n columns included."""
        raised = ((self._values > self._as_of) & (self._weights > 0)).nonzero().squeeze(1)
        n_raised = self._shards.total(len(raised))
        n_pairs = self._n_rows * len(self._bounds)
        everything = n_pairs // 2 if self._symmetric else n_pairs
        some = n_raised * len(self._bounds)
        spent = self._spent + n_columns * self._n_rows
        if some and _EAGER * spent > some and some < everything:
            self._lower(raised, n_raised)
        elif _EAGER * spent > everything and (some or self._drifted):
            self._compute_all()
        else:
            self._spent = spent
            return False
        return True

    def _compute_all(self) -> None:
        """Compute all gains, in one pass; of similarities of a pool with itself, half are computed."""
        gains = torch.zeros_like(self._bonus)
        n_columns = len(gains)
        if self._matrix is not None and self._filled:
            self._shards.attempt(partial(self._compute_held, gains, self._matrix), lambda: None)
        else:
            side, at_first = math.isqrt(values_per_chunk(self._device)), not bool(self._values.any())
            compute = partial(self._compute_some, gains, at_first=at_first)
            if self._shards.alone:
                for first in range(0, n_columns, side):
                    last = min(first + side, n_columns)
                    compute(slice(first, last), part(self._columns, first, last, self._device))
            else:
                self._columns.each(compute, width=side)
            self._filled = True
        gains = self._shards.all_reduce(gains)
        self._exact = torch.where(self._exact > -torch.inf, gains + self._bonus, -torch.inf)
        self._slack, self._drifted = 0.0, False
        self._note(self._exact.max(), self._n_rows)

    def _compute_held(self, gains: Tensor, matrix: Tensor) -> None:
        """Set the gains, (M,), from similarities (M, R) that are held."""
        size = max(1, values_per_chunk(self._device) // max(1, len(self._values)))
        for first in range(0, len(gains), size):
            columns = slice(first, first + size)
            gains[columns] = self._added(matrix[columns].clone(), slice(None))

    def _compute_some(self, gains: Tensor, columns: slice, there: Rows, *, at_first: bool) -> None:
        """Add all that the similarities of some columns say to the gains: of a pool with itself, those not seen yet.

        Where no row has a value, as at first, what a similarity adds is the same for both of its rows.
        """
        side = columns.stop - columns.start

        def look(rows: slice, *, mirrored: bool) -> None:
            tile = self._affinity.between(there, part(self._rows, rows.start, rows.stop, self._device))
            if self._matrix is not None:
                self._matrix[columns, rows] = tile
                if mirrored:
                    _turn(tile, self._matrix[rows, columns])
            others = self._added(tile if at_first else tile.clone(), columns, across=True) if mirrored else None
            gains[columns] += self._added(tile, rows)
            if others is not None:
                gains[rows] += others

        in_chunks, n_rows = self._rows.in_chunks, len(self._rows)
        if self._symmetric:
            at, after = columns.start, columns.stop
            in_chunks(side, side, lambda start, stop: look(slice(at + start, at + stop), mirrored=False))
            in_chunks(n_rows - after, side, lambda i, j: look(slice(after + i, after + j), mirrored=True))
        else:
            in_chunks(n_rows, side, lambda start, stop: look(slice(start, stop), mirrored=False))

    def _added(self, tile: Tensor, rows: slice, *, across: bool = False) -> Tensor:
        """Return what the columns of a tile (m, r) add to the values of rows, (m,); across, of (r, m); in place."""
        values, weights = self._values[rows], self._weights[rows]
        caps = None if self._caps is None else self._caps[rows]
        if across:
            values = values.unsqueeze(1)
            caps = None if caps is None else caps.unsqueeze(1)
        rise = self._rise(tile if caps is None else torch.minimum(tile, caps, out=tile), values)
        return (weights @ rise if across else rise @ weights).double()

    def _lower(self, raised: Tensor, n_raised: int) -> None:
        """Take off the gains what they lost by the rise of the values of some rows (r,), n_raised on all ranks."""
        low, high = self._as_of[raised], self._values[raised]
        if self._caps is not None:
            high = torch.maximum(torch.minimum(high, self._caps[raised]), low)
        lost = torch.zeros_like(self._exact)

        def lose(rows: Tensor, columns: slice, tile: Tensor) -> None:
            loss = self._loss(tile, low[rows].unsqueeze(1), high[rows].unsqueeze(1))
            lost[columns] += (self._weights[raised[rows]] @ loss).double()

        if self._shards.alone:
            self._look_from(raised, lose)
        else:
            self._look_from_ranks(raised, n_raised, lose)
        lost = self._shards.all_reduce(lost)
        self._exact -= lost
        self._drifted = True
        self._note(lost.max(), n_raised)

    def _look_from(self, raised: Tensor, work: Callable[[Tensor, slice, Tensor], None]) -> None:
        """Call work(some, columns, tile) with similarities of some of the raised rows (r,) and of all columns."""
        room = values_per_chunk(self._device)
        size = math.isqrt(room) if self._matrix is None else max(1, room // len(self._exact))
        for rows in torch.arange(len(raised), device=self._device).split(size):
            if self._matrix is None:
                here = self._rows.select(raised[rows])

                def look(columns: slice, there: Rows, rows: Tensor = rows, here: Rows = here) -> None:
                    work(rows, columns, self._affinity.between(here, there))

                self._columns.each(look, width=len(rows))
            elif self._symmetric:
                work(rows, slice(None), self._matrix.index_select(0, raised[rows]))
            else:
                work(rows, slice(None), self._matrix.index_select(1, raised[rows]).T)

    def _look_from_ranks(self, raised: Tensor, n_raised: int, work: Callable[[Tensor, slice, Tensor], None]) -> None:
        """Do what `_look_from` does with this rank's raised rows, of n_raised on all ranks."""
        room, everywhere = values_per_chunk(self._device), torch.arange(len(raised), device=self._device)
        side = math.isqrt(room)

        def from_rows(columns: slice, there: Rows) -> None:
            for rows in everywhere.split(side) if len(raised) else ():
                work(rows, columns, self._affinity.between(self._rows.select(raised[rows]), there))

        def from_matrix(matrix: Tensor) -> None:
            size = max(1, room // max(1, len(raised)))  # all rows at once: what is read lies as near as it can
            for first in range(0, len(matrix) if len(raised) else 0, size):
                columns = slice(first, first + size)
                work(everywhere, columns, matrix[columns].index_select(1, raised).T)

        if self._matrix is None:
            self._columns.each(from_rows, width=min(side, n_raised))
        else:
            self._shards.attempt(partial(from_matrix, self._matrix), lambda: None)

    def _note(self, largest: Tensor, n_terms: int) -> None:
        """Let the gains be those of today's values, more off than before by the rounding of sums of so many terms."""
        eps = torch.finfo(self._weights.dtype).eps
        # A pair's similarity may have other last bits in another product; over the rows such errors cancel out.
        pairs = self._affinity.error * math.sqrt(n_terms) * self._heaviest
        self._slack += 4 * pairs + 16 * eps * max(float(largest), 0.0)
        self._bounds = self._exact.clone()
        self._as_of = self._values.clone()
        self._spent = 0

    def _gains(self, columns: Tensor) -> Tensor:
        """Return the gains of some columns (k,), float64."""
        gains = torch.zeros_like(columns, dtype=torch.float64)

        def look(rows: slice, tile: Tensor) -> None:
            rise = self._rise(tile, self._values[rows])
            gains.add_(rise.mul_(self._weights[rows]).sum(1).double())

        self._look_at_all(columns, look)
        return self._shards.all_reduce(gains) + self._bonus[columns]

    def _doubt_of(self, column: Tensor) -> Tensor:
        """Return how far rounding may have moved the gain of a column (1,): over the rows, errors cancel out."""
        square = torch.zeros_like(self._doubt)

        def look(rows: slice, tile: Tensor) -> None:
            counts = self._rise(tile[0], self._values[rows]) > 0
            square.add_(self._weights[rows].square() @ counts.to(tile.dtype))

        self._look_at_all(column, look)
        return self._shards.all_reduce(square).sqrt().mul_(2 * self._affinity.error).add_(self._bonus_doubt)

    def _look_at_all(self, columns: Tensor, work: Callable[[slice, Tensor], None]) -> None:
        """Call work(rows, tile) with similarities of some columns (k,) and all rows, capped, part by part, (k, r)."""

        def capped(rows: slice, tile: Tensor) -> None:
            work(rows, tile if self._caps is None else torch.minimum(tile, self._caps[rows], out=tile))

        matrix = self._matrix
        if matrix is not None:
            self._shards.attempt(lambda: capped(slice(None), matrix.index_select(0, columns)), lambda: None)
        else:
            there = self._columns.select(columns)
            self._rows.each(lambda rows, here: capped(rows, self._affinity.between(there, here)), width=len(columns))


def _turn(tile: Tensor, into: Tensor) -> None:
    """Write a tile (m, r) into another (r, m), in strips: a CPU's cache holds the lines that a strip goes to."""
    for start in range(0, len(tile), _STRIP):
        into[:, start : start + _STRIP] = tile[start : start + _STRIP].T
