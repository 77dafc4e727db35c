"""Similarities that still matter: of each row those above its value, with their columns, in a bounded store."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk


class KeptPairs:
    """Sparse rows that only ever shrink: an entry that is not above its row's value will never count again.

    Args:
        n_rows: R.
        n_columns: M.
        room: how many entries there may be.
        dtype: of the similarities.
        device: where they are.
    """

    def __init__(self, n_rows: int, n_columns: int, room: int, *, dtype: torch.dtype, device: torch.device) -> None:
        self.n_columns = n_columns
        self.room = min(room, n_rows * n_columns)
        self.is_kept = torch.zeros(n_rows, dtype=torch.bool, device=device)
        self._begin = torch.zeros(n_rows, dtype=torch.int64, device=device)
        self._length = torch.zeros(n_rows, dtype=torch.int64, device=device)
        self._columns = torch.empty(self.room, dtype=torch.int32, device=device)
        self._values = torch.empty(self.room, dtype=dtype, device=device)
        self._end = 0
        self._n_missing = n_rows

    @property
    def has_all(self) -> bool:
        """Whether every row is here."""
        return self._n_missing == 0

    def keep(self, rows: Tensor, tile: Tensor, values: Tensor) -> None:
        """Take in those rows (r,) of a tile (r, M) for which there is room: what of them is above their values (r,)."""
        alive = tile > values.unsqueeze(1)
        counts = alive.sum(1)
        share = 2 * (self.room - self._end) // max(1, self._n_missing)
        fits = (counts <= share) & (counts.cumsum(0) <= self.room - self._end) & ~self.is_kept[rows]
        rows, counts = rows[fits], counts[fits]
        if not len(rows):
            return
        alive = alive[fits]
        where = alive.nonzero()
        stop = self._end + len(where)
        self._columns[self._end : stop] = where[:, 1].int()
        self._values[self._end : stop] = tile[fits][alive]
        self._begin[rows] = self._end + counts.cumsum(0) - counts
        self._length[rows] = counts
        self.is_kept[rows] = True
        self._n_missing -= len(rows)
        self._end = stop

    def raise_values(self, rows: Tensor, low: Tensor, high: Tensor, weights: Tensor) -> Tensor:
        """Return what the columns lose, (M,) float64, when kept rows (r,) rise from low to high; forget what is dead."""
        lost = torch.zeros(self.n_columns, dtype=torch.float64, device=rows.device)
        for some in self._parts(rows):
            inside = rows[some]
            place, owner = self._entries(inside)
            values, columns = self._values[place], self._columns[place].long()
            above, top = low[some][owner], high[some][owner]
            loss = torch.minimum(values, top).sub_(above).clamp_(min=0).mul_(weights[some][owner])
            lost += torch.bincount(columns, loss.double(), minlength=self.n_columns)
            alive = values > top
            self._length[inside] = torch.bincount(owner[alive], minlength=len(inside))
            kept, _ = self._entries(inside)
            self._values[kept], self._columns[kept] = values[alive], columns[alive].int()
        return lost

    def gains(self, values: Tensor, caps: Tensor | None, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return what each column would add to the rows' values, and how many entries that is the sum of, (M,) both."""
        total = torch.zeros(self.n_columns, dtype=torch.float64, device=values.device)
        counts = torch.zeros(self.n_columns, dtype=torch.int64, device=values.device)
        everything = torch.arange(len(values), device=values.device)
        for some in self._parts(everything):
            place, owner = self._entries(everything[some])
            similarity, columns = self._values[place], self._columns[place].long()
            if caps is not None:
                similarity = torch.minimum(similarity, caps[some][owner])
            gain = similarity.sub_(values[some][owner]).clamp_(min=0).mul_(weights[some][owner])
            total += torch.bincount(columns, gain.double(), minlength=self.n_columns)
            counts += torch.bincount(columns, minlength=self.n_columns)
        return total, counts

    def compact(self) -> None:
        """Close the gaps that dead entries have left."""
        order = self._begin.masked_fill(~self.is_kept, self.room).argsort()[: int(self.is_kept.sum())]
        end = 0
        for some in self._parts(order):
            rows = order[some]
            place, _ = self._entries(rows)
            stop = end + len(place)  # never beyond where these entries were
            self._values[end:stop], self._columns[end:stop] = self._values[place], self._columns[place]
            self._begin[rows] = end + self._length[rows].cumsum(0) - self._length[rows]
            end = stop
        self._end = end

    def _parts(self, rows: Tensor) -> Iterator[slice]:
        """Return parts of these rows, each with about as many entries as a temporary may have."""
        ends = self._length[rows].cumsum(0)
        start = 0
        while start < len(rows):
            before = int(ends[start - 1]) if start else 0
            limit = before + values_per_chunk(rows.device)
            stop = max(start + 1, int(torch.searchsorted(ends, limit, right=True)))
            yield slice(start, stop)
            start = stop

    def _entries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return where the entries of these rows are, and which of the rows each belongs to."""
        lengths = self._length[rows]
        owner = torch.arange(len(rows), device=rows.device).repeat_interleave(lengths)
        first = self._begin[rows] - (lengths.cumsum(0) - lengths)
        return torch.arange(len(owner), device=rows.device) + first[owner], owner
