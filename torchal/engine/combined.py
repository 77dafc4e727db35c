"""Exact greedy selection by a product of factors, some of which every pick lowers, in a few passes over the pool.

The value of a row is its fixed factor, times its distance to the nearest centre so far and its balance, each to some
power. A pick becomes a centre, and its classes become less wanted. The balance of a row is the sum over classes of
probability x target / (1 + labels so far), labels being counted by the probabilities of the rows picked.

Distance and balance only shrink, so a value that was computed some picks ago is an upper bound, and blocks of picks are
made as in `torchal.engine.greedy`: inside a block, which holds all rows whose value is at least a threshold, picks are
made while the largest value there is not below what the others can have at most. That is the threshold, times how much
the balance of every row must have shrunk since.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.distances import Rows, Space, has_triton
from torchal.engine.greedy import Block, Picks, before_left_out, block_rows, small_block
from torchal.engine.sources import HeldRows, Source, split

_ROWS = 1024  # of a block without distances
_STEPS = 64  # picks between two looks at whether a block is done
_PICKED = -torch.inf  # the value of a row that may not be picked
_LEAST = 5e-324  # the smallest number above 0


class Diversity(NamedTuple):
    """Distances to the nearest centre so far.

    Shapes:
        near: (N,) values of the space, infinite where there is no centre.
    """

    source: Source
    space: Space
    near: Tensor
    strength: float

    def factor(self, near: Tensor) -> Tensor:
        """Return what distances with these values contribute."""
        return self.space.distance(near.double()).pow(self.strength)


class Balance(NamedTuple):
    """How wanted the classes of a row are.

    Shapes:
        log_probs: (N, C).
        target: (C,) float64.
        counts: (C,) float64, of the labels so far.
    """

    log_probs: Tensor
    target: Tensor
    counts: Tensor
    strength: float

    def probs(self, index: Tensor) -> Tensor:
        """Return the probabilities of some rows, (R, C)."""
        return self.log_probs[index].double().exp()

    def factor(self) -> Tensor:
        """Return what the balance of each row contributes, (N,)."""
        n_rows, n_classes = self.log_probs.shape
        out = self.counts.new_empty(n_rows)
        size = max(1, values_per_chunk(out.device) // n_classes)
        for start in range(0, n_rows, size):
            out[start : start + size] = self.of(self.log_probs[start : start + size].double().exp())
        return out

    def of(self, probs: Tensor) -> Tensor:
        """Return what the balance of rows (R, C) contributes, (R,); of equal rows the same bits."""
        return (probs * (self.target / (1 + self.counts))).sum(1).pow(self.strength)

    def shrunk(self, since: Tensor) -> Tensor:
        """Return how large a part of any row's factor may be left, (), since the counts were others (C,)."""
        left = (1 + since) / (1 + self.counts)
        return torch.where(self.target > 0, left, 0).max().pow(self.strength)


@dataclass
class CombinedPool:
    """Rows, and what their values are made of.

    Shapes:
        fixed: (N,) float64, the factor that does not change.
        free: (N,) bool, the rows that may be picked.
    """

    fixed: Tensor
    free: Tensor
    diversity: Diversity | None = None
    balance: Balance | None = None

    def __post_init__(self) -> None:
        self.refresh()

    def __len__(self) -> int:
        return len(self.fixed)

    def refresh(self) -> None:
        """Compute `merit`, all factors but the distance, and `values`, all of them, (N,) both."""
        self.merit = self.fixed if self.balance is None else self.fixed * self.balance.factor()
        self.values = self.valued(0)

    def valued(self, slack: Tensor | float) -> Tensor:
        """Return the values if all distances were farther by some value of the space."""
        values = self.merit
        if self.diversity is not None:
            values = values * self.diversity.factor(self.diversity.near + slack)
        return torch.where(self.free, values, _PICKED)

    def block(self, index: Tensor) -> CombinedPool:
        """Return some of the rows as a pool of their own, in memory."""
        diversity, balance = self.diversity, self.balance
        if diversity is not None:
            source = diversity.source
            rows = HeldRows(source.select(index), source.longest_sq, source.in_chunks)
            diversity = diversity._replace(source=rows, near=diversity.near[index])
        if balance is not None:
            balance = balance._replace(log_probs=balance.log_probs[index])
        return CombinedPool(self.fixed[index], self.free[index], diversity, balance)

    def lower(self, picked: Tensor) -> None:
        """Make these rows (p,) int64 centres, in one pass."""
        if self.diversity is None or not len(picked):
            return
        source, space, near, _ = self.diversity
        centers = source.select(picked)

        def lower_chunk(where: slice, rows: Rows) -> None:
            for some in split(centers):
                torch.minimum(near[where], space.nearest(rows, some), out=near[where])

        source.each(lower_chunk, width=len(picked))

    def take(self, picked: Tensor) -> None:
        """Count these rows (p,) int64 as picked, once they are centres, and bring all values up to date."""
        self.free[picked] = False
        if self.balance is not None:
            counts = self.balance.counts + self.balance.probs(picked).sum(0)
            self.balance = self.balance._replace(counts=counts)
        self.refresh()

    @property
    def slack(self) -> Tensor | float:
        """How far apart the computed values of the space of two equal rows may be."""
        if self.diversity is None or self.diversity.space.exact:
            return 0.0
        source, space, near, _ = self.diversity
        return space.slack(near, source.longest_sq)

    @property
    def exact(self) -> bool:
        """Whether values of equal rows are the same to the last bit."""
        return self.diversity is None or self.diversity.space.exact


def pick_combined(pool: CombinedPool, n: int, least: Tensor | float = _PICKED, *, finish: bool = True) -> Picks:
    """Pick the row with the largest value, again and again: n rows, or until others may have a larger one.

    Args:
        pool: its values are lowered by the picks.
        n: at most the number of rows that may be picked.
        least: what rows outside of the pool have at most, before the picks.
        finish: whether the values must know of the last picks too.
    """
    rows: list[Tensor] = []
    scores: list[Tensor] = []
    since = None if pool.balance is None else pool.balance.counts
    missing = n
    while missing:
        best = pool.values.max()
        limit = torch.as_tensor(least, dtype=torch.float64, device=best.device)
        shrunk = best.new_ones(()) if since is None or pool.balance is None else pool.balance.shrunk(since)
        limit = torch.where(limit > 0, limit * shrunk, limit)
        if best == _PICKED or best < limit or (best == limit and shrunk < 1):
            break
        if best == 0:  # so are all others, and no pick changes that
            picked = (pool.values == 0).nonzero().squeeze(1)[:missing]
            values = pool.values.new_zeros(len(picked))
            pool.free[picked] = False
            pool.values[picked] = _PICKED
        elif len(pool) <= _matrix_rows(pool):
            picked, values = _pick_in_matrix(pool, missing, limit)
        else:
            inside, threshold, left_out = _block(pool, limit)
            if threshold is None:
                picked, values = _pick_one(pool)
            else:
                within, values = pick_combined(pool.block(inside), missing, threshold, finish=False)
                picked = inside[within]
                picked, values = before_left_out(picked, values, threshold, left_out)
                if finish or len(picked) < missing:
                    pool.lower(picked)
                    pool.take(picked)
        rows.append(picked)
        scores.append(values)
        missing -= len(picked)
    if not rows:
        return torch.empty(0, dtype=torch.int64, device=pool.values.device), pool.values[:0]
    return torch.cat(rows), torch.cat(scores)


def _matrix_rows(pool: CombinedPool) -> int:
    """Return how many rows a pool may have for its picks to be made by the matrix of all their distances."""
    if pool.diversity is None:
        return _ROWS
    if has_triton(pool.values):
        return math.isqrt(values_per_chunk(pool.values.device))
    return pool.diversity.space.block_rows


def _block(pool: CombinedPool, limit: Tensor) -> Block:
    values = pool.values
    n_columns = 1 if pool.diversity is None else pool.diversity.source.n_columns
    n_columns += 0 if pool.balance is None else len(pool.balance.target)
    wanted = block_rows(values, n_columns, _matrix_rows(pool))
    threshold = values.topk(wanted, sorted=False).values.min()
    threshold = torch.maximum(threshold, limit).clamp(min=_LEAST)  # rows of value 0 are picked once all are
    inside = (pool.valued(pool.slack) >= threshold).nonzero().squeeze(1)
    return small_block(inside, values, threshold, wanted, exact=pool.exact)


def _pick_one(pool: CombinedPool) -> Picks:
    """Pick one row, in one pass, where so many rows are alike that no block is small."""
    row = pool.values.argmax(0, keepdim=True)
    best = pool.values[row]
    pool.lower(row)
    if pool.diversity is not None:
        alike = (pool.values > 0) & (pool.diversity.near == 0)
        row = torch.where(alike, pool.merit, _PICKED).argmax(0, keepdim=True)
    pool.take(row)
    return row, best


def _pick_in_matrix(pool: CombinedPool, n: int, least: Tensor) -> Picks:
    """Do what `pick_combined` does on few rows, by the matrix of all their distances, without waiting for the device.

    When the block is done, further steps change nothing, and now and then it is asked whether it is.
    """
    n = min(n, len(pool))
    everything = torch.arange(len(pool), device=pool.values.device)
    diversity, balance = pool.diversity, pool.balance
    distances = None
    if diversity is not None:
        rows = diversity.source.select(everything)
        distances = diversity.space.pairwise(rows, rows)
    probs = None if balance is None else balance.probs(everything)
    since = None if balance is None else balance.counts
    near = None if diversity is None else diversity.near
    values, merit, free = pool.values, pool.merit, pool.free
    picked = torch.full((n,), -1, device=values.device)
    scores = torch.zeros(n, dtype=values.dtype, device=values.device)
    every = 1 if values.device.type == "cpu" else _STEPS
    for step in range(n):
        row = values.argmax(0, keepdim=True)
        best = values[row]
        going = (best > 0) & (best >= least)
        if balance is not None and since is not None:
            shrunk = balance.shrunk(since)
            going = (best > 0) & ((best > least * shrunk) | ((best == least) & (shrunk == 1)))
        if step % every == every - 1 and not bool(going):
            break
        if distances is not None:
            # of rows like this one, which are as far, the one of the most merit; the lowest of several
            alike = free & (distances[row].squeeze(0) == 0)
            row = torch.where(alike, merit, _PICKED).argmax(0, keepdim=True)
        picked[step : step + 1] = torch.where(going, row, -1)
        scores[step : step + 1] = best
        free = torch.where(going, free.index_fill(0, row, False), free)
        if balance is not None and probs is not None:
            balance = balance._replace(counts=balance.counts + torch.where(going, probs[row].squeeze(0), 0))
            merit = pool.fixed * balance.of(probs)
        values = merit
        if diversity is not None and distances is not None and near is not None:
            near = torch.where(going, torch.minimum(near, distances[row].squeeze(0)), near)
            values = merit * diversity.factor(near)
        values = torch.where(free, values, _PICKED)
    pool.free, pool.merit, pool.values, pool.balance = free, merit, values, balance
    if diversity is not None and near is not None:
        pool.diversity = diversity._replace(near=near)
    done = int((picked >= 0).sum())
    return picked[:done], scores[:done]
