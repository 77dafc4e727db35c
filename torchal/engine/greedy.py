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
from torchal.engine.sources import HeldRows, Source, split

_SHARE = 8  # a block is about 1 / 8 of its pool: eight times cheaper per pick, and few blocks
_BLOCKS = 16  # a block may be this many times as large as a chunk
_FIRST_PROPOSALS = 128  # of sampling by value, in one block; and the least while as many are needed
_STEPS = 64  # picks between two looks at whether a block is done
_BLOCK_COST = 1 << 17  # distances that take as long as a block of proposals takes at least
_READING = 32  # centres whose distances cost as much as it does to read a row
_PART = 128  # rows among which a draw looks at each
_PICKED = -torch.inf  # the value of a row that may not be picked

Picks: TypeAlias = tuple[Tensor, Tensor]
"""Rows (p,) int64 in pick order, and their values (p,) when they were picked."""


class Pool:
    """Rows with the value of each: that of its nearest centre so far; -inf where it may not be picked.

    Shapes:
        values: (N,) float.
    """

    def __init__(self, source: Source, space: Space, values: Tensor) -> None:
        self.source = source
        self.space = space
        self.values = values

    def block(self, index: Tensor) -> Pool:
        """Return some of the rows as a pool of their own, in memory."""
        rows = HeldRows(self.source.select(index), self.source.longest_sq, self.source.in_chunks)
        return Pool(rows, self.space, self.values[index])

    def lower(self, picked: Tensor) -> None:
        """Make these rows (p,) int64 centres: lower the values of all rows near them, in one pass."""
        centers = self.source.select(picked)

        def lower_chunk(where: slice, rows: Rows) -> None:
            values = self.values[where]
            for some in split(centers):
                torch.minimum(values, self.space.nearest(rows, some), out=values)

        self.source.each(lower_chunk, width=len(picked))


def farthest_first(pool: Pool, n: int, least: Tensor | float = _PICKED, *, finish: bool = True) -> Picks:
    """Pick the row with the largest value, again and again: n rows, or until the largest is below `least`.

    Args:
        pool: its values are lowered by the picks.
        n: at most the number of rows that may be picked.
        least: where to stop.
        finish: whether the values must know of the last picks too; the pass that this takes is not needed for them.
    """
    rows: list[Tensor] = []
    scores: list[Tensor] = []
    missing = n
    while missing:
        best = pool.values.max()
        if best < least or best == _PICKED:
            break
        if best == 0:  # only copies of centres are left, and no pick changes their values
            picked = (pool.values == 0).nonzero().squeeze(1)[:missing]
            values = pool.values.new_zeros(len(picked))
            pool.values[picked] = _PICKED
        elif len(pool.source) <= _matrix_rows(pool):
            picked, values = _pick_in_matrix(pool, missing, least)
        else:
            inside, threshold, left_out = _block(pool, least)
            if threshold is None:
                picked, values = _pick_one_by_one(pool, min(missing, _STEPS), least)
            else:
                within, values = farthest_first(pool.block(inside), missing, threshold, finish=False)
                picked = inside[within]
                picked, values = before_left_out(picked, values, threshold, left_out)
                pool.values[picked] = _PICKED
                if finish or len(picked) < missing:
                    pool.lower(picked)
        rows.append(picked)
        scores.append(values)
        missing -= len(picked)
    if not rows:
        return torch.empty(0, dtype=torch.int64, device=pool.values.device), pool.values[:0]
    return torch.cat(rows), torch.cat(scores)


def _block(pool: Pool, least: Tensor | float) -> Block:
    values = pool.values
    wanted = block_rows(values, pool.source.n_columns, _matrix_rows(pool))
    threshold = values.topk(wanted, sorted=False).values.min().clamp(min=0)  # not -inf, where few may be picked
    threshold = torch.maximum(threshold, torch.as_tensor(least, dtype=values.dtype, device=values.device))
    inside = (values >= threshold - pool.space.slack(threshold, pool.source.longest_sq)).nonzero().squeeze(1)
    return small_block(inside, values, threshold, wanted, exact=pool.space.exact)


class Block(NamedTuple):
    """The rows among which the next picks are.

    Shapes:
        rows: (B,) int64, ascending.
        threshold: (), what all others are below or at; None if so many rows are alike that no block is small.
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


def small_block(inside: Tensor, values: Tensor, threshold: Tensor, wanted: int, *, exact: bool) -> Block:
    """Return a block of about as many rows as wanted, where that can be.

    Args:
        inside: the rows that may have values of at least the threshold, (B,) int64, ascending.
        values: (N,).
        threshold: ().
        wanted: rows of a block.
        exact: whether values are without rounding.
    """
    if len(inside) <= 4 * wanted:
        return Block(inside, threshold, None)
    if not exact:
        return Block(inside, None, None)
    # Of the rows at the threshold the lowest are enough, since ties go to them.
    level = (values[inside] == threshold).nonzero().squeeze(1)
    keep = torch.ones_like(inside, dtype=torch.bool)
    keep[level[wanted:]] = False
    return Block(inside[keep], threshold, inside[level[wanted]])


def before_left_out(picked: Tensor, values: Tensor, threshold: Tensor, left_out: Tensor | None) -> Picks:
    """Return the picks of a block up to one that came down to the threshold, behind a row left out there."""
    if left_out is None:
        return picked, values
    wrong = ((values == threshold) & (picked > left_out)).nonzero()
    return (picked[: wrong[0]], values[: wrong[0]]) if len(wrong) else (picked, values)


def _matrix_rows(pool: Pool) -> int:
    """Return how many rows a pool may have for its picks to be made by the matrix of all their distances."""
    if has_triton(pool.values):  # a pick then costs about a microsecond, and a block some milliseconds
        return math.isqrt(values_per_chunk(pool.values.device))
    return pool.space.block_rows


def _pick_in_matrix(pool: Pool, n: int, least: Tensor | float) -> Picks:
    """Do what `farthest_first` does on few rows, by the matrix of all their distances."""
    everything = torch.arange(len(pool.source), device=pool.values.device)
    rows = pool.source.select(everything)
    if pool.values.device.type != "cpu":
        return _pick_on_device(pool.values, pool.space.pairwise(rows, rows), n, least)
    values, distances_of = pool.values.numpy(), pool.space.lookup(rows)
    least = float(least)
    picked, scores = [], []
    for _ in range(n):
        row = int(values.argmax())
        best = values[row]
        if best < least or best == _PICKED:
            break
        distances = distances_of(row)
        if best > 0:  # then no row like this one was picked, and the lowest of them is meant
            alike = (distances == 0).nonzero()[0]
            row = row if len(alike) == 1 else int(alike[values[alike] > _PICKED][0])
        picked.append(row)
        scores.append(best)
        np.minimum(values, distances, out=values)
        values[row] = _PICKED
    return torch.tensor(np.array(picked, np.int64)), torch.tensor(np.array(scores, values.dtype))


def _pick_on_device(values: Tensor, distances: Tensor, n: int, least: Tensor | float) -> Picks:
    """Do what the loop of `_pick_in_matrix` does: on CUDA by one kernel, else by a dozen operators for each pick."""
    if has_triton(distances):
        from torchal.engine import triton_kernels

        return triton_kernels.pick_in_matrix(values, distances, n, least)
    return _pick_masked(values, distances, n, least)


def _pick_masked(values: Tensor, distances: Tensor, n: int, least: Tensor | float) -> Picks:
    """Do what the loop of `_pick_in_matrix` does, without waiting for the device after each pick.

    When the block is done, further steps change nothing, and now and then it is asked whether it is.
    """
    n = min(n, len(values))
    picked = torch.full((n,), -1, device=values.device)
    scores = torch.zeros(n, dtype=values.dtype, device=values.device)
    for step in range(n):
        row = values.argmax(0, keepdim=True)
        best = values[row]
        going = (best >= least) & (best > _PICKED)
        alike = (distances[row].squeeze(0) == 0) & (values > _PICKED)
        row = torch.where(best > 0, alike.to(torch.uint8).argmax(0, keepdim=True), row)
        lowered = torch.minimum(values, distances[row].squeeze(0)).index_fill_(0, row, _PICKED)
        values.copy_(torch.where(going, lowered, values))
        picked[step : step + 1] = torch.where(going, row, -1)
        scores[step : step + 1] = best
        if step % _STEPS == _STEPS - 1 and not bool(going):
            break
    done = int((picked >= 0).sum())
    return picked[:done], scores[:done]


def _pick_one_by_one(pool: Pool, n: int, least: Tensor | float) -> Picks:
    """Do what `farthest_first` does with one pass per pick, where so many rows are alike that no block is small."""
    picked, scores = [], []
    for _ in range(n):
        row = pool.values.argmax(0, keepdim=True)
        best = pool.values[row]
        if best < least or best <= 0:
            break
        wanted = pool.values > 0
        pool.lower(row)
        row = (wanted & (pool.values == 0)).to(torch.uint8).argmax(0, keepdim=True)  # the lowest of those like it
        pool.values[row] = _PICKED
        picked.append(row)
        scores.append(best)
    return torch.cat(picked), torch.cat(scores)


def sample_by_value(pool: Pool, n: int, weights: Tensor, generator: torch.Generator) -> Picks:
    """Draw rows one after another, each in proportion to weight times value at that time.

    Once all values are 0, rows are drawn in proportion to their weights.

    Args:
        pool: its values come out as bounds: not every row is told of every pick.
        n: at most the number of rows with a positive weight that may be picked.
        weights: (N,), not negative.
        generator: the randomness.
    """
    rows: list[Tensor] = []
    scores: list[Tensor] = []
    missing, proposals = n, min(_FIRST_PROPOSALS, 16 + 5 * n // 4)
    untold = torch.empty(0, dtype=torch.int64, device=pool.values.device)  # picks since the last pass
    wasted = 0.0
    while missing:
        chances = pool.values.clamp(min=0) * weights
        if not bool((chances > 0).any()):
            left = torch.where(pool.values > _PICKED, weights, 0)
            rows.append(draw_without_replacement(left, missing, generator))
            scores.append(torch.zeros_like(left[:missing]))
            break
        proposals = min(proposals, pool.space.block_rows)
        picked, values = _accept(pool, draw(chances, proposals, generator), untold, missing, generator)
        rows.append(picked)
        scores.append(values * weights[picked])
        missing -= len(picked)
        # A block learns of the picks since the last pass by itself. A pass makes proposals better, so it is made once
        # it costs less than rejected ones do: half of those since the last pass and of those to come.
        rejected = proposals - len(picked)
        a_proposal = _cost_of_block(pool, proposals, len(untold)) / proposals
        wasted += rejected * a_proposal
        expected = missing * rejected / (len(picked) + 1) * a_proposal
        untold = torch.cat([untold, picked])
        if missing and wasted + expected > 2 * len(pool.source) * (_READING + len(untold)):
            pool.lower(untold)
            untold, wasted = untold[:0], 0.0
        # A block costs its size squared, and a look at all bounds: about as large as pays, and as are still needed.
        wanted = len(picked) * (8 if 10 * len(picked) >= 9 * proposals else 2)
        needed = 16 + 5 * missing * (proposals + 1) // (4 * len(picked) + 4)
        proposals = min(max(wanted, _FIRST_PROPOSALS), needed)
    return torch.cat(rows), torch.cat(scores)


def _cost_of_block(pool: Pool, size: int, n_untold: int) -> float:
    """Return what a block of proposals costs, in distances between a row of the pool and a centre.

    The same on every device, so that draws are.
    """
    return size * (size + n_untold) + 2 * len(pool.source) + _BLOCK_COST


def _accept(pool: Pool, proposed: Tensor, untold: Tensor, n: int, generator: torch.Generator) -> Picks:
    """Accept proposals (m,), made in proportion to the pool's values, each with probability new value / old value.

    The proposed rows' values are lowered by the picks (p,) that they may not know of, and by those accepted before.
    """
    kinds, kind = proposed.unique(return_inverse=True)
    rows, bounds = pool.source.select(kinds), pool.values[kinds]
    lowered = bounds.clone()
    if len(untold):
        for some in split(pool.source.select(untold)):
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
        new[row] = _PICKED
        first += 1
    device = kinds.device
    pool.values[kinds] = torch.from_numpy(new).to(device)
    picked = kinds[torch.tensor(accepted, dtype=torch.int64, device=device)]
    return picked, torch.from_numpy(np.array(values, dtype=new.dtype)).to(device)


def draw(chances: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n rows with replacement, in proportion to chances (N,): any number of rows, and no float64 copy of them.

    `torch.multinomial` refuses more than 2^24 rows and rounds long before.
    """
    size = min(_PART, len(chances))
    whole = len(chances) // size * size
    parts = torch.cat(
        [
            chances[:whole].view(-1, size).sum(1, dtype=torch.float64),
            chances[whole:].sum(dtype=torch.float64).unsqueeze(0),
        ]
    )
    ends = parts.cumsum(0)
    points = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64).to(ends.device) * ends[-1]
    part = _first_above(ends, points)
    index = part.unsqueeze(1) * size + torch.arange(size, device=part.device)
    inside = torch.where(index < len(chances), chances[index.clamp(max=len(chances) - 1)].double(), 0).cumsum(1)
    points = (points - (ends[part] - parts[part])).unsqueeze(1)
    return index.gather(1, _first_above(inside, points)).squeeze(1)


def draw_stratified(chances: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n rows, in ascending order, one from each n-th of the sum of chances (N,): no row is far off its share."""
    ends = chances.cumsum(0, dtype=torch.float64)
    uniform = torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64).to(ends.device)
    return _first_above(ends, (uniform + torch.arange(n, device=ends.device)) * (ends[-1] / max(n, 1)))


def _first_above(ends: Tensor, points: Tensor) -> Tensor:
    """Return where the running sums first exceed the points; a point rounded beyond the end belongs to the last."""
    last = ends[..., -1:]
    return torch.searchsorted(ends, torch.minimum(points, last * (1 - 2**-52)), right=True)


def draw_without_replacement(chances: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n rows one after another in proportion to chances (N,), by exponential races."""
    uniform = torch.rand(len(chances), generator=generator, device=generator.device, dtype=torch.float64)
    times = -(1 - uniform).log().to(chances.device) / chances
    return times.topk(n, largest=False).indices
