"""The rows of all ranks, as each of them sees the others' on their way: block by block, never more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from torchal.distributed import Shards
from torchal.engine.distances import Rows, Space
from torchal.engine.features import FeatureReader
from torchal.engine.sources import StreamedRows


class Block(NamedTuple):
    """Rows of several ranks, a piece of each.

    Shapes:
        numbers: (B,) int64, in the pool, ascending.
    """

    numbers: Tensor
    rows: Rows
    pieces: Pieces
    """Where each rank's piece begins and ends, counted through the pool."""


class OwnRows:
    """A rank's own rows as a source: their numbers count from its first.

    Args:
        source: where they are read.
    """

    def __init__(self, source: StreamedRows) -> None:
        self._source = source
        self.n_columns = source.n_columns
        self.in_chunks = source.in_chunks
        self.shards = Shards(None)

    @property
    def longest_sq(self) -> Tensor:
        """() the largest squared length of a row of the whole pool."""
        return self._source.longest_sq

    def __len__(self) -> int:
        return len(self._source)

    def select(self, index: Tensor) -> Rows:
        """Return a copy of some rows."""
        return self._source.own(index)

    def select_beside(self, index: Tensor, *values: Tensor) -> tuple[Rows, list[Tensor]]:
        """Return a copy of some rows, and their values."""
        return self.select(index), [of_rows[index] for of_rows in values]

    def each(self, work: Callable[[slice, Rows], None], *, width: int) -> None:
        """Call work on all rows in chunks."""
        self._source.each(work, width=width)


class PoolRows:
    """A pool whose rows are on several ranks, as a source: every rank calls the same at the same time.

    All ranks send a piece of their rows at once, each as large a part of them as the others do: so all are through at
    the same time, and no block holds more rows than it is asked to, but one more of each rank.

    Args:
        reader: of this rank's rows.
        space: makes rows ready.

    Attributes:
        source: this rank's rows.
    """

    def __init__(self, reader: FeatureReader, space: Space) -> None:
        self.source = StreamedRows(reader, space)
        self.n_columns = reader.n_columns
        self.in_chunks = reader.in_chunks
        self.shards = reader.shards
        self._reader = reader

    @property
    def longest_sq(self) -> Tensor:
        """() the largest squared length of a row of the pool."""
        return self.source.longest_sq

    def __len__(self) -> int:
        return self.shards.n_rows

    def select(self, index: Tensor) -> Rows:
        """Return a copy of some rows of the pool, the same on every rank."""
        return self.source.select(index)

    def select_beside(self, index: Tensor, *values: Tensor) -> tuple[Rows, list[Tensor]]:
        """Return a copy of some rows of the pool, and their values, of which each rank has those of its own."""
        return self.source.select_beside(index, *values)

    def each(self, work: Callable[[slice, Rows], None], *, width: int) -> None:
        """Call work(where, rows) on all rows of the pool, piece by piece, with room for `width` values per row."""
        for block in self.blocks(self._reader.chunk_rows(width)):
            first = 0
            for begin, end in block.pieces:
                here = slice(first, first + end - begin)
                first = here.stop
                if end > begin:
                    self._try(work, slice(begin, end), Rows(block.rows.x[here], block.rows.sq[here]))

    def _try(self, work: Callable[[slice, Rows], None], where: slice, rows: Rows) -> None:
        self.shards.attempt(lambda: work(where, rows), lambda: None)

    def blocks(self, size: int) -> Iterator[Block]:
        """Yield all rows of the pool, made ready, about `size` at once.

        What is done with one block is not to fail, but in `Shards.attempt` or in chunks: the next one is a message.
        """
        offsets, device = self.shards.offsets, self._reader.device
        counts = [end - begin for begin, end in pairwise(offsets)]
        for x, pieces in in_turn(self._reader, self._reader.read, counts, size):
            placed = [(start + begin, start + end) for start, (begin, end) in zip(offsets, pieces, strict=False)]
            numbers = torch.cat([torch.arange(begin, end, device=device) for begin, end in placed])
            yield Block(numbers, self.source.space.prepare(x), placed)


Pieces: TypeAlias = "list[tuple[int, int]]"
"""Where each rank's part of a block begins and ends, counted through what that rank sends in all."""


def in_turn(
    reader: FeatureReader, read: Callable[[int, int], Tensor], counts: list[int], size: int
) -> Iterator[tuple[Tensor, Pieces]]:
    """Yield what all ranks read, about `size` rows at once, (B, D), the same on every rank; empty blocks are left out.

    Args:
        reader: of this rank's rows.
        read: returns numbers begin to end of what this rank sends, (end - begin, D), as its reader does.
        counts: how many rows each rank sends.
        size: rows of a block, of which each rank has the same share of its own.
    """
    shards = reader.shards
    n_blocks = -(-len(counts) * max(counts) // size)
    nothing = torch.empty(0, reader.n_columns, dtype=reader.dtype, device=reader.device)
    for i in range(n_blocks):
        pieces = [(n * i // n_blocks, n * (i + 1) // n_blocks) for n in counts]
        begin, end = pieces[shards.rank]
        here = nothing
        if end > begin:
            here = shards.attempt(partial(read, begin, end), lambda: nothing)
        (x,) = shards.all_gather_together([here], [[end - begin for begin, end in pieces]])
        if len(x):
            yield x, pieces
