"""The rows of all ranks, as each of them sees the others' on their way: block by block, never more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

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
    pieces: list[tuple[int, int]]
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

    @property
    def longest_sq(self) -> Tensor:
        """() the largest squared length of a row of the whole pool."""
        return self._source.longest_sq

    def __len__(self) -> int:
        return len(self._source)

    def select(self, index: Tensor) -> Rows:
        """Return a copy of some rows."""
        return self._source.own(index)

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
        self._reader, self._shards = reader, reader.shards

    @property
    def longest_sq(self) -> Tensor:
        """() the largest squared length of a row of the pool."""
        return self.source.longest_sq

    def __len__(self) -> int:
        return self._shards.n_rows

    def select(self, index: Tensor) -> Rows:
        """Return a copy of some rows of the pool, the same on every rank."""
        return self.source.select(index)

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
        self._shards.attempt(lambda: work(where, rows), lambda: None)

    def blocks(self, size: int) -> Iterator[Block]:
        """Yield all rows of the pool, made ready, about `size` at once.

        What is done with one block is not to fail, but in `Shards.attempt` or in chunks: the next one is a message.
        """
        shards, reader, space = self._shards, self._reader, self.source.space
        device, starts = reader.device, shards.offsets[:-1]
        counts = [end - begin for begin, end in zip(starts, shards.offsets[1:], strict=True)]
        n_blocks = -(-len(counts) * max(counts) // size)
        nothing = torch.empty(0, self.n_columns, dtype=reader.dtype, device=device)
        for i in range(n_blocks):
            pieces = [(n * i // n_blocks, n * (i + 1) // n_blocks) for n in counts]
            own = pieces[shards.rank]
            here = shards.attempt(lambda own=own: reader.read(*own), lambda: nothing)  # type: ignore[misc]
            sizes = [end - begin for begin, end in pieces]
            x = shards.all_gather_together([here], [sizes])[0]
            placed = [(start + begin, start + end) for start, (begin, end) in zip(starts, pieces, strict=True)]
            numbers = torch.cat([torch.arange(begin, end, device=device) for begin, end in placed])
            if len(numbers):
                yield Block(numbers, space.prepare(x), placed)
