"""Rows made ready for a metric, in memory or on their way: what a pass over a pool reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from torchal._chunks import Chunker, values_per_chunk
from torchal.distributed import Shards
from torchal.engine.distances import Rows, Space

_CENTERS = 1024  # centres of one matrix product
_TOGETHER = 1 << 22  # numbers of rows that travel at once, the same on all ranks


class Source(Protocol):
    """Where a pool's rows are."""

    n_columns: int
    in_chunks: Chunker
    shards: Shards

    @property
    def longest_sq(self) -> Tensor:
        """() the largest squared length of a row of the whole pool."""

    def __len__(self) -> int:
        """Return N."""

    def select(self, index: Tensor) -> Rows:
        """Return a copy of some rows of the pool, those of other ranks too."""

    def select_beside(self, index: Tensor, *values: Tensor) -> tuple[Rows, list[Tensor]]:
        """Return a copy of some rows of the pool, and their values, (n, ...) of (N, ...) each, in one round."""

    def each(self, work: Callable[[slice, Rows], None], *, width: int) -> None:
        """Call work(where, rows) on all rows in chunks that leave room for `width` values per row."""


class Reader(Protocol):
    """What reads rows for `StreamedRows`: a `FeatureReader`, or one of several matrices."""

    n_columns: int
    shards: Shards
    device: torch.device
    in_chunks: Chunker

    def __len__(self) -> int:
        """Return N."""

    def chunk_rows(self, width: int = 1) -> int:
        """Return how many rows to take at once when each makes `width` further values."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop on the device, until the next read."""

    def rows(self, index: Tensor) -> Tensor:
        """Return a copy of the rows of this index (n,) int64 of the pool on the device, those of other ranks too."""

    def own_rows(self, index: Tensor) -> Tensor:
        """Return a copy of some of this rank's rows, by numbers that count from its first."""


class HeldRows:
    """Rows in the memory of the device, ready: some of a pool."""

    def __init__(self, rows: Rows, longest_sq: Tensor, in_chunks: Chunker) -> None:
        self.rows = rows
        self._longest_sq = longest_sq
        self.n_columns = rows.x.shape[1]
        self.in_chunks = in_chunks
        self.shards = Shards(None, n_rows=len(rows.x))

    @property
    def longest_sq(self) -> Tensor:
        """() the largest squared length of a row of the whole pool."""
        return self._longest_sq

    def __len__(self) -> int:
        return len(self.rows.x)

    def select(self, index: Tensor) -> Rows:
        """Return a copy of some rows."""
        return self.rows.select(index)

    def select_beside(self, index: Tensor, *values: Tensor) -> tuple[Rows, list[Tensor]]:
        """Return a copy of some rows, and their values."""
        return self.rows.select(index), [each[index] for each in values]

    def each(self, work: Callable[[slice, Rows], None], *, width: int) -> None:
        """Call work on all rows in chunks."""
        x, sq = self.rows
        size = max(64, values_per_chunk(x.device) // max(x.shape[1], min(width, _CENTERS)))

        def part(start: int, stop: int) -> None:
            work(slice(start, stop), Rows(x[start:stop], sq[start:stop]))

        self.in_chunks(len(x), size, part)


class StreamedRows:
    """Rows that are read, and made ready, chunk by chunk, each time they are needed; of a rank's part of them."""

    def __init__(self, reader: Reader, space: Space) -> None:
        self.reader = reader
        self.space = space
        self.n_columns = reader.n_columns
        self.in_chunks = reader.in_chunks
        self.shards = reader.shards
        self._sq = torch.empty(len(reader), dtype=space.dtype, device=reader.device)
        self._measured = False
        self._longest_sq: Tensor | None = None

    def __len__(self) -> int:
        return len(self.reader)

    def select(self, index: Tensor) -> Rows:
        """Return a copy of some rows of the pool, those of other ranks too."""
        size = self.reader.chunk_rows() if self.shards.alone else max(1, _TOGETHER // self.n_columns)
        if len(index) <= size:
            return self.space.prepare(self.reader.rows(index))
        # what comes between the rows as they are read and as they are made ready is that of a chunk
        first = self.space.prepare(self.reader.rows(index[:size]))
        x, sq = first.x.new_empty(len(index), *first.x.shape[1:]), first.sq.new_empty(len(index))
        x[:size], sq[:size] = first
        for start in range(size, len(index), size):
            some = slice(start, start + size)
            x[some], sq[some] = self.space.prepare(self.reader.rows(index[some]))
        return Rows(x, sq)

    def select_beside(self, index: Tensor, *values: Tensor) -> tuple[Rows, list[Tensor]]:
        """Return a copy of some rows of the pool, and their values, (n, ...) of (N, ...) each, in one round."""
        x = self._sq.new_empty(0, self.n_columns)
        like = [x, self._sq[:0], *(each[:0] for each in values)]

        def read(mine: Tensor) -> list[Tensor]:
            return [*self.own(mine), *(each[mine] for each in values)]

        x, sq, *found = self.shards.gather_rows(index, read, like)
        return Rows(x, sq), found

    def own(self, index: Tensor) -> Rows:
        """Return a copy of some of this rank's rows, by numbers that count from its first."""
        return self.space.prepare(self.reader.own_rows(index))

    def part(self, start: int, stop: int) -> Rows:
        """Return rows start to stop; for use until the next call."""
        known = self._sq[start:stop] if self._measured else None
        rows = self.space.prepare(self.reader.read(start, stop), known)
        if known is None:
            self._sq[start:stop] = rows.sq
        return rows

    @property
    def sq(self) -> Tensor:
        """(N,) the squared lengths of the rows; a pass, unless there was one already."""
        if not self._measured:
            self.each(lambda *_: None, width=1)
        return self._sq

    @property
    def longest_sq(self) -> Tensor:
        """() the largest squared length of a row of the pool."""
        if self._longest_sq is None:
            longest = self.sq.max() if len(self) else self._sq.new_zeros(())
            self._longest_sq = self.shards.all_reduce(longest, "max")
        return self._longest_sq

    def each(self, work: Callable[[slice, Rows], None], *, width: int) -> None:
        """Call work on all rows in chunks."""

        def part(start: int, stop: int) -> None:
            work(slice(start, stop), self.part(start, stop))

        self.in_chunks(len(self), self.reader.chunk_rows(min(width, _CENTERS)), part)
        self._measured = not self.shards.failed


def joined(parts: list[Rows]) -> Rows:
    """Return rows behind each other."""
    return Rows(torch.cat([rows.x for rows in parts]), torch.cat([rows.sq for rows in parts]))


def split(rows: Rows) -> Iterator[Rows]:
    """Return rows in parts that are small enough for one matrix product with a chunk."""
    return (Rows(x, sq) for x, sq in zip(rows.x.split(_CENTERS), rows.sq.split(_CENTERS), strict=True))


def nearest_in_chunk(rows: Rows, space: Space, centers: Rows) -> tuple[Tensor, Tensor]:
    """Return which centre is nearest to each row of a chunk, (R,) int64, and the value of the two, (R,)."""
    if len(centers.x) <= _CENTERS:
        values, assigned = space.nearest_index(rows, centers)
        return assigned, values
    assigned = torch.zeros(len(rows.x), dtype=torch.int64, device=rows.x.device)
    values = torch.full_like(rows.sq, torch.inf)
    first = 0
    for some in split(centers):
        value, index = space.nearest_index(rows, some)
        nearer = value < values
        assigned = torch.where(nearer, index + first, assigned)
        values = torch.where(nearer, value, values)
        first += len(some.x)
    return assigned, values


def nearest_centers(source: Source, space: Space, centers: Rows) -> tuple[Tensor, Tensor]:
    """Return which centre is nearest to each row, (N,) int64, and the value of the two, (N,); ties to the first."""
    assigned = torch.empty(len(source), dtype=torch.int64, device=centers.x.device)
    values = torch.empty(len(source), dtype=centers.x.dtype, device=centers.x.device)

    def assign(where: slice, rows: Rows) -> None:
        index, _ = nearest_in_chunk(rows, space, centers)
        assigned[where], values[where] = index, space.between(rows, centers.select(index))

    source.each(assign, width=len(centers.x))
    return assigned, values
