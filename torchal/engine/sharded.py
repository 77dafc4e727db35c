"""`farthest_first` on rows of many ranks: each rank's best rows go to all ranks, and every rank makes the same picks.

A message of a rank holds its rows with the largest values, and the largest value that it does not send. While a pick
comes before all that nobody sent, no row of the pool is larger, and so a block of picks takes one round, whatever the
number of ranks: its rows are on all of them, and each rank makes the picks by the same function as one process does.

Between two rounds a rank lowers the values of few rows only: the eighth of its rows that had the largest ones when it
last looked at all. The largest of the others is in its messages too. Once that stands in the way, each rank tells all
its rows of the picks so far, in one pass, and begins with another eighth.

Which comes first of two rows is decided by value and then by the row's number in the pool, as in one process. The
values of equal rows may differ by rounding, so rows are sent in the order of the value that an equal row may have at
most: then no row is left out whose equal could be picked. Without rounding, picks go up to the very row that comes
before the first that was left out.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.distances import Rows
from torchal.engine.greedy import PICKED, Picks, Pool, before_left_out, block_rows, farthest_first, matrix_rows
from torchal.engine.sources import HeldRows, StreamedRows, joined
from torchal.errors import GroupError

_SENT = 1 << 12  # rows of a block, all ranks together: with more, each brings more picks, but all ranks repeat them;
_NUMBERS = 1 << 19  # fewer, down to half as many, if they have more numbers than so
_MOST = 4  # times its share of these is what one rank may send
_LEAST = 32  # what each may
_AT_LEAST = 1 << 13  # rows of a rank that come first, for a round to bring more than a few picks
_ROOM = 16  # a block, and the rows that come first, may be this many times as large as a chunk
_GROWTH = 32  # times as many rows is what a block may have where many are alike
_STEPS = 64  # picks, one by one, before another block is tried


class First(NamedTuple):
    """The largest value of several rows, and the lowest row that has it, by its number in the pool."""

    value: float
    row: int


_NONE = First(-math.inf, 2**52)


@dataclass
class _Top:
    """The rows of a rank that come first, in memory.

    Shapes:
        index: (B,) int64, ascending, counted from the rank's first row.
    """

    index: Tensor
    pool: Pool
    rest: First
    """Of the rank's other rows, when it last looked at all."""
    fresh: bool = True
    """Whether it looked since the last pick."""

    def is_behind(self) -> bool:
        """Tell whether one of the others may come before all of these by now."""
        return not self.fresh and (not len(self.index) or float(self.pool.values.max()) < self.rest.value)


class _Block(NamedTuple):
    """What all ranks sent, as a pool.

    Shapes:
        rows: (B,) int64, rows of the whole pool, ascending.
        keys: (B,), the value that an equal row may have at most.
        owner: (B,) int64, the rank of each.
    """

    rows: Tensor
    keys: Tensor
    owner: Tensor
    pool: Pool
    rest: First
    """Of the rows that are in no rank's top."""
    later: First
    """Of those in a rank's top that it did not send."""
    fresh: bool
    """Whether all ranks looked at all their rows since the last pick."""


class ShardedPool:
    """A rank's part of a pool, and what the ranks do together.

    Args:
        pool: this rank's rows and their values, which come out as bounds: not all are told of the last picks.
        source: the same rows, as they are read; it knows the ranks.
    """

    def __init__(self, pool: Pool, source: StreamedRows) -> None:
        self._pool, self._source, self._shards = pool, source, source.shards
        self._longest_sq = source.longest_sq
        self._untold: list[Rows] = []  # picks of which only the top was told
        self._top: _Top | None = None
        self._digest = 0  # of the picks so far
        self._sizes: list[int] = []  # how many rows each rank sends at most
        self._share_out([1] * self._shards.world_size)

    def farthest_first(self, n: int, least: float = -math.inf) -> Picks:
        """Pick the row with the largest value, again and again: n rows, or until the largest is below `least`.

        Returns:
            Rows of the whole pool (p,) int64 and their values (p,), the same on every rank.
        """
        picks: list[Picks] = []
        missing = n
        while missing:
            top = self._top = self._look_at_all() if self._top is None or self._top.is_behind() else self._top
            block = self._gather(top)
            fresh = block.fresh
            bound = max(block.rest, block.later, key=_order)
            some = self._pick_in(block, top, bound, missing, least)
            if not len(some[0]):
                if not len(block.rows) and fresh:
                    if least <= self._pool.nothing:
                        picks.append(self._pick_without_value(missing))
                    break
                if len(block.rows) and bound.value < least:
                    break
                if bound is block.later and self._grow():
                    continue
                if not fresh:
                    self._top = None
                    continue
                some = self._pick_one_by_one(min(missing, _STEPS), least)
                if not len(some[0]):
                    break
            elif bound is block.rest:
                self._top = None
            picks.append(some)
            missing -= len(some[0])
        digest = torch.tensor([self._digest])
        self._check_alike(self._shards.all_gather(digest, [1] * self._shards.world_size))
        if not picks:
            return torch.empty(0, dtype=torch.int64, device=self._pool.values.device), self._pool.values[:0]
        return torch.cat([rows for rows, _ in picks]), torch.cat([values for _, values in picks])

    def _look_at_all(self) -> _Top:
        """Tell all rows of the picks that they do not know, in one pass; return those that come first."""
        pool = self._pool
        if self._untold:
            pool.lower_near(joined(self._untold))
            self._untold = []
        in_matrix = matrix_rows(pool)
        wanted = block_rows(pool.values, pool.source.n_columns, in_matrix)
        wanted = max(wanted, min(_AT_LEAST, max(in_matrix, self._room()), len(pool.values)))
        index, _, rest = self._leading(pool, wanted)
        nothing = self._source.space.prepare(pool.values.new_empty(0, pool.source.n_columns))
        rows = self._shards.attempt(lambda: self._source.own(index), lambda: nothing)
        if len(rows.x) != len(index):
            index = index[:0]
        weights = None if pool.weights is None else pool.weights[index]
        held = HeldRows(rows, self._longest_sq, self._source.in_chunks)
        start = self._shards.start
        there = Pool(held, pool.space, pool.values[index], weights, pool.closest)
        return _Top(index, there, First(rest.value, rest.row + start))

    def _leading(self, pool: Pool, n: int) -> tuple[Tensor, Tensor, First]:
        """Return the n rows of a pool that come first, or all that have a value, with their keys; and what comes next.

        Rows and what comes next are numbers in that pool; the rows ascend.
        """
        keys = pool.values if pool.space.exact else pool.values + pool.slack(pool.values.clamp(min=0))
        keys = torch.where(pool.values > pool.nothing, keys, PICKED)
        if n < len(keys):
            next_key = keys.topk(n + 1, sorted=False).values.min()
            if next_key > PICKED:
                chosen, level = keys > next_key, (keys == next_key).nonzero().squeeze(1)
                n_level = n - int(chosen.sum())
                chosen[level[:n_level]] = True
                index = chosen.nonzero().squeeze(1)
                return index, keys[index], First(float(next_key), int(level[n_level]))
        index = (keys > PICKED).nonzero().squeeze(1)
        return index, keys[index], _NONE

    def _gather(self, top: _Top) -> _Block:
        """Bring the first rows of all ranks' tops together, in one round."""
        shards, pool = self._shards, top.pool
        within, keys, later = self._leading(pool, self._sizes[shards.rank])
        later = First(later.value, int(top.index[later.row]) + shards.start) if later is not _NONE else _NONE
        header = torch.tensor([[len(within), *top.rest, *later, top.fresh, self._digest]], dtype=torch.float64)
        sent = [top.index[within] + shards.start, keys, pool.values[within], *pool.source.select(within)]
        if pool.weights is not None:
            sent.append(pool.weights[within])
        sizes = [[1] * shards.world_size] + [self._sizes] * len(sent)
        of_ranks, *got = shards.all_gather_together([header, *sent], sizes)
        self._check_alike(of_ranks[:, 6])
        counts = of_ranks[:, 0].long()
        first = torch.tensor([0, *self._sizes[:-1]]).cumsum(0)
        places = torch.cat([torch.arange(int(n)) + begin for n, begin in zip(counts, first, strict=True)])
        owner = torch.arange(shards.world_size).repeat_interleave(counts).to(keys.device)
        rows, keys, values, x, sq, *weights = (part[places.to(part.device)] for part in got)
        held = HeldRows(Rows(x, sq), self._longest_sq, pool.source.in_chunks)
        block = Pool(held, pool.space, values, weights[0] if weights else None, pool.closest)
        rest, later = (
            max((First(value, int(row)) for value, row in of_ranks[:, i : i + 2].tolist()), key=_order) for i in (1, 3)
        )
        return _Block(rows, keys, owner, block, rest, later, bool(of_ranks[:, 5].all()))

    def _pick_in(self, block: _Block, top: _Top, bound: First, n: int, least: float) -> Picks:
        """Pick rows of a block while they come before the bound, and tell the top of them."""
        pool = block.pool
        left_out: Tensor | None = None
        threshold = pool.values.new_tensor(bound.value)
        if pool.space.exact:
            left_out = torch.tensor(bound.row, device=block.rows.device)
        else:
            threshold = torch.nextafter(threshold, threshold.new_tensor(torch.inf))
        if not len(block.rows):
            return block.rows, pool.values
        # rows whose values count as 0 are picked at the very end, when the lowest of all ranks' is known
        above = torch.nextafter(torch.full_like(threshold, pool.nothing), threshold.new_tensor(torch.inf))
        within, values = farthest_first(pool, n, torch.maximum(threshold, above).clamp(min=least), finish=False)
        order = torch.arange(len(within), device=within.device)
        kept, values = before_left_out(block.rows[within], values, threshold, left_out)
        within = within[order[: len(kept)]]
        if len(kept):
            useful = (block.keys > bound.value).long()
            self._share_out(useful.new_zeros(self._shards.world_size).index_add_(0, block.owner, useful).tolist())
            centers = block.pool.source.select(within)
            top.fresh = False
            self._untold.append(centers)
            self._mark(kept, top)
            if len(kept) < n:  # else nobody asks again
                top.pool.lower_near(centers)
        return kept, values

    def _mark(self, picked: Tensor, top: _Top) -> None:
        """Take rows of the whole pool, once they are picked, out of this rank's."""
        mine = self._shards.local(picked)
        self._pool.values[mine] = PICKED
        self._digest = zlib.crc32(picked.cpu().numpy().tobytes(), self._digest)
        if len(top.index):
            place = torch.searchsorted(top.index, mine).clamp(max=len(top.index) - 1)
            top.pool.values[place[top.index[place] == mine]] = PICKED

    def _check_alike(self, digests: Tensor) -> None:
        """Require that all ranks picked the same rows so far.

        Raises:
            GroupError: they did not, since they compute in different ways.
        """
        if bool((digests != digests[0]).any()):
            raise GroupError(
                f"ranks picked different rows ({len(digests.unique())} kinds of {len(digests)}): their products differ "
                "in the last digits; give all of them the same processor, threads and versions"
            )

    def _share_out(self, useful: list[int]) -> None:
        """Let each rank send about as large a part of the next block as it sent useful rows of this one."""
        world_size = self._shards.world_size
        share = max(_LEAST, self._block_rows() // world_size)
        together = sum(useful) + world_size
        sizes = [int(world_size * share * (0.5 / world_size + 0.5 * (count + 1) / together)) for count in useful]
        self._sizes = [min(max(size, _LEAST), _MOST * share) for size in sizes]

    def _grow(self) -> bool:
        """Let each rank send four times as many rows, if there is room for them."""
        sizes = [4 * size for size in self._sizes]
        if sum(sizes) > min(self._room(), _GROWTH * _SENT):
            return False
        self._sizes = sizes
        return True

    def _block_rows(self) -> int:
        """Return how many rows all ranks send together."""
        return min(max(_SENT // 2, min(_SENT, _NUMBERS // self._pool.source.n_columns)), self._room())

    def _room(self) -> int:
        """Return how many rows a block may have, and a rank among those that come first."""
        return _ROOM * values_per_chunk(self._pool.values.device) // self._pool.source.n_columns

    def _pick_without_value(self, n: int) -> Picks:
        """Pick the lowest of the rows whose values count as 0: copies of picks, or rows without weight."""
        values = self._pool.values
        mine = ((values >= 0) & (values <= self._pool.nothing)).nonzero().squeeze(1)[:n]
        rows = self._shards.all_gather(mine + self._shards.start)[:n]
        values[self._shards.local(rows)] = PICKED
        return rows, values.new_zeros(len(rows))

    def _pick_one_by_one(self, n: int, least: float) -> Picks:
        """Do what `farthest_first` does with one pass per pick, where so many rows are alike that no block is small."""
        pool, shards = self._pool, self._shards
        near = torch.empty_like(pool.values, dtype=pool.space.dtype)
        rows: list[int] = []
        scores: list[Tensor] = []
        self._top = None
        for _ in range(n):
            best, center = first_of_all(pool.values, self._source)
            if best.value < least or best.value <= pool.nothing:
                break
            index = torch.tensor([best.row], device=pool.values.device)

            def measure(where: slice, some: Rows, center: Rows = center) -> None:
                near[where] = pool.space.nearest(some, center)

            pool.source.each(measure, width=1)
            alike = (near == 0) & (pool.values > 0)
            if pool.weights is not None:
                mine = shards.local(index)
                of_best = pool.weights[mine] if len(mine) else pool.weights.new_zeros(1)
                alike &= pool.weights == shards.all_reduce(of_best, "max")
            row = int(shards.lowest_of(alike))
            torch.minimum(pool.values, pool.weighed(near), out=pool.values)
            pool.values[shards.local(torch.tensor([row], device=index.device))] = PICKED
            rows.append(row)
            scores.append(pool.values.new_tensor([best.value]))
        if not rows:
            return torch.empty(0, dtype=torch.int64, device=pool.values.device), pool.values[:0]
        return torch.tensor(rows, device=pool.values.device), torch.cat(scores)


def first_of_all(values: Tensor, source: StreamedRows, rows: Tensor | None = None) -> tuple[First, Rows]:
    """Return the largest of the values (N,) of all ranks' rows, the lowest row that has it, and what it holds.

    Where `rows` (N,) are given, ascending, the values are those of some of a rank's rows.
    """
    shards, mine = source.shards, _NONE
    nothing = source.space.prepare(values.new_empty(0, source.n_columns, dtype=source.space.dtype))
    row = values.new_empty(0, dtype=torch.int64)
    if len(values):
        largest = values.max()
        row = (values == largest).to(torch.uint8).argmax(0, keepdim=True)
        row = row if rows is None else rows[row]
        mine = First(float(largest), shards.start + int(row))
    here = shards.attempt(lambda: source.own(row) if len(row) else nothing, lambda: nothing)
    firsts = torch.tensor([list(mine)], dtype=torch.float64)
    got, x, sq = shards.all_gather_together([firsts, *here], [[1] * shards.world_size] * 3)
    found = [First(value, int(row)) for value, row in got.tolist()]
    best = max(range(len(found)), key=lambda rank: _order(found[rank]))
    return found[best], Rows(x[best : best + 1], sq[best : best + 1])


def _order(first: First) -> tuple[float, int]:
    """Return what is larger for what comes first."""
    return first.value, -first.row
