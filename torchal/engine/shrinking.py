"""The engine for gains that only shrink as picks are made: exact greedy selection in few passes over the pool.

The idea is that of `torchal.engine.greedy`: a gain that was computed some picks ago is an upper bound on today's. So the
rows with the largest old gains are a block; inside it gains are kept up to date after every pick, and a row is picked
while its gain is the largest there and not below every old gain outside. All picks of a block are then applied to the
pool in one pass. A block is itself a pool, down to so few rows that they stay in a cache.

What a pick does to the gains of other rows is the affair of the pool.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import torch
from torch import Tensor

_SHARE = 8  # a block is about 1 / 8 of its pool: eight times cheaper per pick, and few blocks
_STEPS = 32  # picks between two looks at whether a block is done, where a look waits for the device
PICKED = -torch.inf  # the gain of a row that may not be picked

Picks: TypeAlias = tuple[Tensor, Tensor]
"""Rows (p,) int64 in pick order, and their gains (p,) when they were picked."""


class Shrinking(Protocol):
    """Rows with the gain of each, which no pick raises; -inf where a row may not be picked.

    Shapes:
        values: (N,) float.
    """

    values: Tensor
    few: int
    """So many rows are cheap to look at for every pick."""
    most: int
    """For so many rows of a block there is memory."""

    def __len__(self) -> int:
        """Return N."""

    def refresh(self) -> None:
        """Compute the gains again from the start, where they have become too inexact."""

    def slack(self) -> Tensor | float:
        """Return how far apart the computed gains of two equal rows may be."""

    def block(self, index: Tensor) -> Block:
        """Return some of the rows (m,) int64, ascending, as a pool of their own in memory, of which none was picked."""

    def lower(self, picked: Tensor) -> None:
        """Let the gains of all rows know of these picks (p,) int64."""


class Block(Shrinking, Protocol):
    """Rows in memory, of which picks can also be made one by one."""

    def room(self) -> tuple[int, Tensor | float]:
        """Return how many picks can be made before the next `refresh`, and above which gain."""

    def pick(self, row: Tensor, best: Tensor, going: Tensor) -> Tensor:
        """Pick this row (1,), the first with the largest gain `best` (1,), or a lower one equal to it.

        Gains are lowered, but for that of the pick itself. Where not `going` (1,), nothing is changed.

        Returns:
            (1,) the pick.
        """


def pick_largest(pool: Shrinking, n: int) -> Picks:
    """Pick the row with the largest gain, n times; the pool's gains are lowered, but not by the last picks.

    Args:
        pool: of at least n rows that may be picked.
        n: how many.
    """
    least = torch.full((), PICKED, dtype=pool.values.dtype, device=pool.values.device)
    return _pick_from_blocks(pool, n, least)


def _pick_from_blocks(pool: Shrinking, n: int, least: Tensor) -> Picks:
    """Make n picks, or until the largest gain is below `least` ()."""
    rows, scores = [], []
    missing = n
    while missing:
        pool.refresh()
        best = pool.values.max()
        if best < least or best == PICKED:
            break
        index, threshold = _largest(pool, least)
        block = pool.block(index)
        block.refresh()
        if threshold is None:
            within, values = _pick(block, 1, least.new_tensor(PICKED))
        else:  # the block's largest is picked in any case, even if its gain comes out otherwise there
            within, values = _pick(block, missing, torch.minimum(threshold, block.values.max()))
        picked = index[within]
        pool.values[picked] = PICKED
        missing -= len(picked)
        if missing:
            pool.lower(picked)
        rows.append(picked)
        scores.append(values)
    if not rows:
        return torch.empty(0, dtype=torch.int64, device=least.device), pool.values[:0]
    return torch.cat(rows), torch.cat(scores)


def _pick(block: Block, n: int, least: Tensor) -> Picks:
    """Make n picks of a block, or until the largest gain is below `least` ()."""
    if len(block) > 2 * block.few:
        return _pick_from_blocks(block, n, least)
    rows, scores = [], []
    missing = n
    while missing:
        block.refresh()
        best = block.values.max()
        if best < least or best == PICKED:
            break
        picked, values = _pick_one_by_one(block, missing, torch.minimum(best, least))
        rows.append(picked)
        scores.append(values)
        missing -= len(picked)
    if not rows:
        return torch.empty(0, dtype=torch.int64, device=least.device), block.values[:0]
    return torch.cat(rows), torch.cat(scores)


def _largest(pool: Shrinking, least: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return the rows of the next block, ascending, and above which gain their picks are those of the pool.

    No such gain where so many rows are alike that no block is small: then one pick can be made, of the lowest of them.
    """
    values, n_rows = pool.values, len(pool)
    slack = pool.slack()
    wanted = min(max(n_rows // _SHARE, pool.few), pool.most)
    if n_rows <= 2 * wanted:
        return (values > PICKED).nonzero().squeeze(1), least
    threshold = torch.maximum(values.topk(wanted, sorted=False).values.min(), least)
    inside = ((values >= threshold - slack) & (values > PICKED)).nonzero().squeeze(1)
    if len(inside) <= 4 * wanted:
        return inside, threshold
    return (values >= values.max() - slack).nonzero().squeeze(1)[:wanted], None


def _pick_one_by_one(block: Block, n: int, least: Tensor) -> Picks:
    """Make picks one by one: n, or until the largest gain is below `least`, or the block is to be refreshed.

    The first one is always made. Where a look at a number waits for the device, it is taken now and then only; picks
    after the end change nothing.
    """
    values = block.values
    room, lowest = block.room()
    n = min(n, room, len(block))
    end = torch.maximum(least, torch.as_tensor(lowest, dtype=values.dtype, device=values.device))
    picked = torch.full((n,), -1, dtype=torch.int64, device=values.device)
    scores = torch.zeros(n, dtype=values.dtype, device=values.device)
    look_each = 1 if values.device.type == "cpu" else _STEPS
    for step in range(n):
        best, row = values.max(0, keepdim=True)
        going = best > PICKED if step == 0 else (best >= end) & (best > PICKED)
        if step % look_each == 0 and step and not bool(going):
            break
        row = block.pick(row, best, going)
        values.index_copy_(0, row, torch.where(going, PICKED, values[row]))
        picked[step : step + 1] = torch.where(going, row, -1)
        scores[step : step + 1] = best
        if step == 0:
            end = torch.minimum(end, best.squeeze(0))
    done = int((picked >= 0).sum())
    return picked[:done], scores[:done]
