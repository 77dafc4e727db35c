"""The engine: exact greedy selection in a few passes over the pool, instead of one pass per pick.

Each row has a value, its distance to the nearest centre so far, and each pick becomes a centre. The plain greedy reads
the whole pool for every pick. Here a block of picks is found among few rows, and then applied to the whole pool in one
pass, which is a matrix product. Why the picks are the same:

1. Values only shrink, so a value that was computed some picks ago is an upper bound on today's.
2. A block is all rows whose value is at least some threshold. Every other row's value is below it, and stays below.
3. Inside the block, values are kept up to date after every pick.
4. A row is picked only while its value is the largest in the block and not below the threshold: no row of the pool is
   larger. Equal rows, whose values may differ by rounding, are in the block too: it begins one rounding bound lower.
5. The largest value of the pool is never below the threshold, so every block yields a pick.

Nothing of this needs the value to be the distance itself. It may be the distance times a weight of the row, which only
shrinks too; and the row picked may be the second or the hundredth largest, while a block holds more rows than that.

A block is itself a pool, so the same function makes the picks inside it, down to a few hundred rows whose distances to
each other fit into a cache. For sampling in proportion to the values, the same bound makes rejection sampling exact: a
row is proposed in proportion to its old value, and accepted with probability new / old. How old that value is does not
matter, so only the rows that are proposed need to know of all picks, and most picks cost no pass at all.

A pass needs nothing but `Pool.lower`, so rows may come from memory, from a file or another device (`StreamedRows`), or
from the parts of a process group, which would share their blocks and repeat the same small greedy.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.distances import Rows, Space, has_triton
from torchal.engine.draws import draw, draw_without_replacement
from torchal.engine.order_statistics import first_between, nth_largest
from torchal.engine.sources import HeldRows, Source, joined, split

_SHARE = 8  # a block is about 1 / 8 of its pool: eight times cheaper per pick, and few blocks
_BLOCKS = 16  # a block may be this many times as large as a chunk
_FIRST_PROPOSALS = 128  # of sampling by value, in one block; and the least while as many are needed
_STEPS = 64  # picks between two looks at whether a block is done
_BLOCK_COST = 1 << 17  # distances that take as long as a block of proposals takes at least
_READING = 32  # centres whose distances cost as much as it does to read a row
PICKED = -torch.inf  # the value of a row that may not be picked
_EVERYWHERE = slice(None)

Picks: TypeAlias = tuple[Tensor, Tensor]
"""Rows (p,) int64 in pick order, and their values (p,) when they were picked."""


class Pool:
    """Rows with the value of each: that of its nearest centre so far; -inf where it may not be picked.

    With weights, a value is the space's value times the row's weight, for `farthest_first` alone.

    Args:
        source: the rows.
        space: what measures them.
        values: (N,) float.
        weights: (N,) of the values' dtype, at least 0.
        closest: with weights, rows whose value of the space is below this count as copies of the centre.
    """

    def __init__(
        self, source: Source, space: Space, values: Tensor, weights: Tensor | None = None, closest: float = 0.0
    ) -> None:
        self.source = source
        self.space = space
        self.values = values
        self.weights = weights
        self.closest = closest
        self.nothing = 0.0 if weights is None else torch.finfo(values.dtype).smallest_normal
        """A value that counts as 0: no product of a weight and a value that is so small is exact."""

    def block(self, index: Tensor) -> Pool:
        """Return some of the rows as a pool of their own, in memory."""
        rows = HeldRows(self.source.select(index), self.source.longest_sq, self.source.in_chunks)
        weights = None if self.weights is None else self.weights[index]
        return Pool(rows, self.space, self.values[index], weights, self.closest)

    def lower(self, picked: Tensor) -> None:
        """Make these rows (p,) int64 centres: lower the values of all rows near them, in one pass."""
        self.lower_near(self.source.select(picked))

    def lower_near(self, centers: Rows) -> None:
        """Lower the values of all rows near these centres, in one pass."""

        def lower_chunk(where: slice, rows: Rows) -> None:
            values = self.values[where]
            for some in split(centers):
                torch.minimum(values, self.weighed(self.space.nearest(rows, some), where), out=values)

        self.source.each(lower_chunk, width=len(centers.x))

    def weighed(self, near: Tensor, where: slice = _EVERYWHERE) -> Tensor:
        """Return what values of the space, of some rows and their nearest centres, make of the rows' values."""
        if self.weights is None:
            return near
        values = near * self.weights[where]
        return values.masked_fill_(near < self.closest, 0) if self.closest else values

    def slack(self, threshold: Tensor, where: slice = _EVERYWHERE) -> Tensor:
        """Return how far below a threshold a row may be whose copy is not, () or one number for each row."""
        if self.weights is None:
            return self.space.slack(threshold, self.source.longest_sq)
        return self.space.slack(threshold, self.source.longest_sq, self.weights[where])

    def largest(self, beyond: int = 0) -> Tensor:
        """Return the largest value, (), but for so many that are larger or equal."""
        return nth_largest(self.values, beyond + 1) if beyond else self.values.max()


def farthest_first(
    pool: Pool, n: int, least: Tensor | float = PICKED, *, finish: bool = True, beyond: int = 0
) -> Picks:
    """Pick the row with the largest value, again and again: n rows, or until the largest is below `least`.

    Args:
        pool: its values are lowered by the picks.
        n: at most the number of rows that may be picked, without those `beyond`.
        least: where to stop.
        finish: whether the values must know of the last picks too; the pass that this takes is not needed for them.
        beyond: how many rows with larger or equal values are passed over at each pick. A block holds twice as many, and
            where that is half of the pool, each pick costs a pass.
    """
    rows: list[Tensor] = []
    scores: list[Tensor] = []
    missing = n
    while missing:
        best = pool.largest(beyond)
        if best < least or best == PICKED:
            break
        if best <= pool.nothing:  # only copies of centres, or rows of weight 0, are left
            picked = first_between(pool.values, 0.0, pool.nothing, missing)
            values = pool.values.new_zeros(len(picked))
            pool.values[picked] = PICKED
        elif len(pool.source) <= matrix_rows(pool):
            picked, values = _pick_in_matrix(pool, missing, least, beyond)
        else:
            inside, threshold, left_out = _block(pool, least, beyond)
            if threshold is None:
                picked, values = _pick_one_by_one(pool, min(missing, _STEPS), least, beyond)
            else:
                block = pool.block(inside)
                within, values = farthest_first(block, missing, threshold, finish=False, beyond=beyond)
                picked = inside[within]
                picked, values = before_left_out(picked, values, threshold, left_out)
                pool.values[picked] = PICKED
                if finish or len(picked) < missing:
                    pool.lower(picked)
        rows.append(picked)
        scores.append(values)
        missing -= len(picked)
    if not rows:
        return torch.empty(0, dtype=torch.int64, device=pool.values.device), pool.values[:0]
    return torch.cat(rows), torch.cat(scores)


def _block(pool: Pool, least: Tensor | float, beyond: int) -> Block:
    values = pool.values
    wanted = block_rows(values, pool.source.n_columns, matrix_rows(pool))
    if 4 * beyond > len(values):
        return Block(values.new_empty(0, dtype=torch.int64), None, None)
    wanted = max(wanted, 2 * beyond)
    threshold = nth_largest(values, wanted).clamp(min=pool.nothing)  # not -inf: few may be picked
    threshold = torch.maximum(threshold, torch.as_tensor(least, dtype=values.dtype, device=values.device))
    most = min(4 * wanted, len(values) // 2) if beyond else 4 * wanted  # a block of half the pool is no block
    return small_block(_near(pool, threshold), values, threshold, wanted, most, exact=pool.space.exact)


def _near(pool: Pool, threshold: Tensor) -> Tensor:
    """Return the rows whose values may be those of rows at the threshold, (B,) int64, ascending."""
    parts = []
    size = values_per_chunk(pool.values.device)
    for start in range(0, len(pool.values), size):
        where = slice(start, start + size)
        values = pool.values[where]
        near = values >= threshold - pool.slack(threshold, where)
        if pool.weights is not None:  # rows without weight may be many; they wait until nothing else is left
            near &= values > pool.nothing
        parts.append(near.nonzero().squeeze(1) + start)
    return torch.cat(parts)


class Block(NamedTuple):
    """The rows among which the next picks are.

    Shapes:
        rows: (B,) int64, ascending.
        threshold: (), what all others are below or at; None if so many rows are alike, or passed over, that no block is
            small.
        left_out: (), the first of the rows at the threshold that are not in the block, if there are some.
    """

    rows: Tensor
    threshold: Tensor | None
    left_out: Tensor | None


def block_rows(values: Tensor, n_columns: int, in_matrix: int) -> int:
    """Return how many rows a block of a pool with these values (N,) should have.

    Args:
        values: of the pool.
        n_columns: how many numbers a row has.
        in_matrix: how many rows the matrix of their distances may have.
    """
    room = _BLOCKS * values_per_chunk(values.device) // n_columns
    wanted = max(1, min(len(values) // _SHARE, max(room, in_matrix)))
    if in_matrix < wanted < 2 * in_matrix:
        wanted = in_matrix  # rather a smaller share than one more floor of blocks
    return wanted


def small_block(
    inside: Tensor, values: Tensor, threshold: Tensor, wanted: int, most: int | None = None, *, exact: bool
) -> Block:
    """Return a block of about as many rows as wanted, where that can be.

    Args:
        inside: the rows that may have values of at least the threshold, (B,) int64, ascending.
        values: (N,).
        threshold: ().
        wanted: rows of a block.
        most: rows that a block may have; 4 times as many as wanted, if None.
        exact: whether values are without rounding.
    """
    if len(inside) <= (4 * wanted if most is None else most):
        return Block(inside, threshold, None)
    level = (values[inside] == threshold).nonzero().squeeze(1)
    if not exact or len(level) <= wanted:
        return Block(inside, None, None)
    # Of the rows at the threshold the lowest are enough, since ties go to them.
    keep = torch.ones_like(inside, dtype=torch.bool)
    keep[level[wanted:]] = False
    return Block(inside[keep], threshold, inside[level[wanted]])


def before_left_out(picked: Tensor, values: Tensor, threshold: Tensor, left_out: Tensor | None) -> Picks:
    """Return the picks of a block up to one that came down to the threshold, behind a row left out there."""
    if left_out is None:
        return picked, values
    wrong = ((values == threshold) & (picked > left_out)).nonzero()
    return (picked[: wrong[0]], values[: wrong[0]]) if len(wrong) else (picked, values)


def matrix_rows(pool: Pool) -> int:
    """Return how many rows a pool may have for its picks to be made by the matrix of all their distances."""
    if has_triton(pool.values):  # a pick then costs about a microsecond, and a block some milliseconds
        return math.isqrt(values_per_chunk(pool.values.device))
    return pool.space.block_rows


def _pick_in_matrix(pool: Pool, n: int, least: Tensor | float, beyond: int = 0) -> Picks:
    """Do what `farthest_first` does on few rows, by the matrix of all their distances, down to values that count as 0.

    What is left at 0 lowers nothing: with rows passed over, a row of weight 0 would lower those that have more.
    """
    everything = torch.arange(len(pool.source), device=pool.values.device)
    rows = pool.source.select(everything)
    if pool.values.device.type != "cpu":
        return _pick_on_device(pool, pool.space.pairwise(rows, rows), n, least, beyond)
    values, distances_of = pool.values.numpy(), pool.space.lookup(rows)
    weights = None if pool.weights is None else pool.weights.numpy()
    least, rank = float(least), len(values) - 1 - beyond
    picked, scores = [], []
    for _ in range(n):
        row = int(values.argmax()) if not beyond else int((values == np.partition(values, rank)[rank]).argmax())
        best = values[row]
        if best < least or best == PICKED or (beyond and best <= pool.nothing):
            break
        distances = distances_of(row)
        if best > 0:  # then no row like this one was picked, and the lowest of them is meant
            alike = (distances == 0).nonzero()[0]
            if len(alike) > 1:
                alike = alike[values[alike] > PICKED]
                row = int((alike if weights is None else alike[weights[alike] == weights[row]])[0])
        picked.append(row)
        scores.append(best)
        if weights is not None:
            near, distances = distances, distances * weights
            distances[near < pool.closest] = 0
        np.minimum(values, distances, out=values)
        values[row] = PICKED
    return torch.tensor(np.array(picked, np.int64)), torch.tensor(np.array(scores, values.dtype))


def _pick_on_device(pool: Pool, distances: Tensor, n: int, least: Tensor | float, beyond: int) -> Picks:
    """Do what the loop of `_pick_in_matrix` does: on CUDA by one kernel, else by a dozen operators for each pick."""
    if has_triton(distances) and not beyond and not pool.closest:
        from torchal.engine import triton_kernels

        return triton_kernels.pick_in_matrix(pool.values, distances, n, least, pool.weights)
    return _pick_masked(pool.values, distances, n, least, pool=pool, beyond=beyond)


def _pick_masked(
    values: Tensor, distances: Tensor, n: int, least: Tensor | float, *, pool: Pool | None = None, beyond: int = 0
) -> Picks:
    """Do what the loop of `_pick_in_matrix` does, without waiting for the device after each pick.

    When the block is done, further steps change nothing, and now and then it is asked whether it is.

    Args:
        values: lowered by the picks.
        distances: (R, R) values of the space.
        n: rows to pick.
        least: where to stop.
        pool: what weighs the rows, if anything does.
        beyond: as in `farthest_first`.
    """
    n = min(n, len(values))
    weights = None if pool is None else pool.weights
    nothing = PICKED if pool is None or not beyond else pool.nothing  # as in `_pick_in_matrix`
    picked = torch.full((n,), -1, device=values.device)
    scores = torch.zeros(n, dtype=values.dtype, device=values.device)
    for step in range(n):
        row = values.argmax(0, keepdim=True)
        if beyond:
            best = values.topk(beyond + 1, sorted=False).values.amin(0, keepdim=True)
            row = (values == best).to(torch.uint8).argmax(0, keepdim=True)
        best = values[row]
        going = (best >= least) & (best > nothing)
        alike = (distances[row].squeeze(0) == 0) & (values > PICKED)
        if weights is not None:
            alike &= weights == weights[row]
        row = torch.where(best > 0, alike.to(torch.uint8).argmax(0, keepdim=True), row)
        near = distances[row].squeeze(0)
        near = near if pool is None else pool.weighed(near)
        lowered = torch.minimum(values, near).index_fill_(0, row, PICKED)
        values.copy_(torch.where(going, lowered, values))
        picked[step : step + 1] = torch.where(going, row, -1)
        scores[step : step + 1] = best
        if step % _STEPS == _STEPS - 1 and not bool(going):
            break
    done = int((picked >= 0).sum())
    return picked[:done], scores[:done]


def _pick_one_by_one(pool: Pool, n: int, least: Tensor | float, beyond: int) -> Picks:
    """Do what `farthest_first` does with one pass per pick, where so many rows are alike that no block is small."""
    picked, scores = [], []
    near = torch.empty(len(pool.values), dtype=pool.space.dtype, device=pool.values.device)
    for _ in range(n):
        best = pool.largest(beyond).reshape(1)
        if best < least or best <= pool.nothing:
            break
        row = (pool.values == best).to(torch.uint8).argmax(0, keepdim=True)  # the first, on every device
        center = pool.source.select(row)

        def measure(where: slice, rows: Rows, center: Rows = center) -> None:
            near[where] = pool.space.nearest(rows, center)

        pool.source.each(measure, width=1)
        alike = (near == 0) & (pool.values > 0)
        if pool.weights is not None:
            alike &= pool.weights == pool.weights[row]
        row = alike.to(torch.uint8).argmax(0, keepdim=True)  # the lowest of those like it
        torch.minimum(pool.values, pool.weighed(near), out=pool.values)
        pool.values[row] = PICKED
        picked.append(row)
        scores.append(best)
    return torch.cat(picked), torch.cat(scores)


def sample_by_value(pool: Pool, n: int, weights: Tensor, generator: torch.Generator) -> Picks:
    """Draw rows one after another, each in proportion to weight times value at that time.

    Once all values are 0, rows are drawn in proportion to their weights. Where the pool's rows are on several ranks,
    proposals are drawn from all of them, and every rank accepts the same ones.

    Args:
        pool: its values come out as bounds: not every row is told of every pick.
        n: at most the number of rows with a positive weight that may be picked.
        weights: (N,), not negative.
        generator: the randomness, in the same state on all ranks.
    """
    shards = pool.source.shards
    n_rows = shards.n_rows
    rows: list[Tensor] = []
    scores: list[Tensor] = []
    missing, proposals = n, min(_FIRST_PROPOSALS, 16 + 5 * n // 4)
    untold: list[Rows] = []  # picks since the last pass
    n_untold, wasted = 0, 0.0
    while missing:
        proposals = min(proposals, pool.space.block_rows)
        proposed = draw(pool.values, proposals, generator, shards, weights=weights)
        if not len(proposed):
            left = torch.where(pool.values > PICKED, weights, 0)
            rows.append(draw_without_replacement(left, missing, generator, shards))
            scores.append(left.new_zeros(missing))
            break
        picked, values, there = _accept(pool, weights, proposed, untold, missing, generator)
        rows.append(picked)
        scores.append(values)
        missing -= len(picked)
        # A block learns of the picks since the last pass by itself. A pass makes proposals better, so it is made once
        # it costs less than rejected ones do: half of those since the last pass and of those to come.
        rejected = proposals - len(picked)
        a_proposal = _cost_of_block(n_rows, proposals, n_untold) / proposals
        wasted += rejected * a_proposal
        expected = missing * rejected / (len(picked) + 1) * a_proposal
        if len(picked):
            untold.append(there)
            n_untold += len(picked)
        if missing and wasted + expected > 2 * n_rows * (_READING + n_untold):
            pool.lower_near(joined(untold))
            untold, n_untold, wasted = [], 0, 0.0
        # A block costs its size squared, and a look at all bounds: about as large as pays, and as are still needed.
        wanted = len(picked) * (8 if 10 * len(picked) >= 9 * proposals else 2)
        needed = 16 + 5 * missing * (proposals + 1) // (4 * len(picked) + 4)
        proposals = min(max(wanted, _FIRST_PROPOSALS), needed)
    return torch.cat(rows), torch.cat(scores)


def _cost_of_block(n_rows: int, size: int, n_untold: int) -> float:
    """Return what a block of proposals costs, in distances between a row of the pool and a centre.

    The same on every device and number of ranks, so that draws are.
    """
    return size * (size + n_untold) + 2 * n_rows + _BLOCK_COST


def _accept(  # noqa: PLR0917 - all of it
    pool: Pool, weights: Tensor, proposed: Tensor, untold: list[Rows], n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Rows]:
    """Accept proposals (m,), made in proportion to the pool's values, each with probability new value / old value.

    The proposed rows' values are lowered by the picks that they may not know of, and by those accepted before.

    Returns:
        The rows picked, their values times weights, and what these rows hold.
    """
    kinds, kind = proposed.unique(return_inverse=True)
    rows, (bounds, of_rows) = pool.source.select_beside(kinds, pool.values, weights)
    lowered = bounds.clone()
    for centers in untold:
        for some in split(centers):
            torch.minimum(lowered, pool.space.nearest(rows, some), out=lowered)
    # one copy for the whole block
    distances, new = pool.space.pairwise(rows, rows).cpu().numpy(), lowered.cpu().numpy()
    index = kind.cpu().numpy()
    uniform = torch.rand(len(index), generator=generator, device=generator.device, dtype=torch.float64)
    limits = bounds.cpu().numpy()[index] * uniform.cpu().numpy()
    accepted: list[int] = []
    values: list[np.floating[Any]] = []
    first = 0
    while first < len(index) and len(accepted) < n:
        first += int((limits[first:] < new[index[first:]]).argmax())
        row = index[first]
        if not limits[first] < new[row]:
            break
        accepted.append(row)
        values.append(new[row])
        np.minimum(new, distances[row], out=new)
        new[row] = PICKED
        first += 1
    device, shards = kinds.device, pool.source.shards
    mine = shards.mine(kinds)
    pool.values[shards.local(kinds)] = torch.from_numpy(new).to(device)[mine]
    within = torch.tensor(accepted, dtype=torch.int64, device=device)
    found = torch.from_numpy(np.array(values, dtype=new.dtype)).to(device)
    return kinds[within], found * of_rows[within], rows.select(within)


def greedy_bound(gains: Tensor) -> float:
    """Return what no n picks can gain more than, of a monotone submodular function with these greedy gains (n,).

    Greedy picks gain at least 1 - (1 - 1/n)^n of it, which is above 1 - 1/e (Nemhauser, Wolsey & Fisher, 1978).
    """
    n = len(gains)
    return float(gains.sum(dtype=torch.float64)) / (1 - (1 - 1 / n) ** n)
