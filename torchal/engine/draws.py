"""Draws of rows in proportion to chances: any number of rows, on one rank or many, with the same outcome.

`torch.multinomial` refuses more than 2^24 rows and rounds long before.

Rows are drawn down a tree: first one of many rows' sums, then one of the sums that this is of, and so on to a row, each
by a uniform number of its own. The branches are fixed by the rows' numbers, so it does not matter which rank has which.
A chance that is off by a part e, as another order of adding up may make it, changes a step's outcome with a probability
of about e sqrt(128), and no step makes that of the next one worse; in one long cumulative sum, where a row is a small
part of the whole, it would be e sqrt(N).
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.distributed import Shards
from torchal.engine.order_statistics import Largest

_BRANCHES = 128  # of a node of the tree
_TOP = 1 << 14  # the tree begins with at most so many sums
_UNIFORMS = 1 << 20  # made at once, so that every rank makes them alike
_PERMUTED = 1 << 22  # up to so many things in random order are a permutation


def draw(
    chances: Tensor,
    n: int,
    generator: torch.Generator,
    shards: Shards | None = None,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """Draw n rows with replacement, in proportion to chances (N,) float, at least 0, without a float64 copy of them.

    Args:
        chances: of this rank's rows.
        n: rows to draw.
        generator: the randomness, in the same state on all ranks.
        shards: which rows these are; all of them unless given.
        weights: (N,) what chances are multiplied by, of which those below 0 are 0; nothing so long is made of them.

    Returns:
        (n,) int64, row numbers of the pool, the same on all ranks; none if all chances are 0.
    """
    shards = Shards(None, n_rows=len(chances)) if shards is None else shards
    start, n_rows = shards.start, shards.n_rows
    if weights is not None and n_rows <= _TOP:
        chances, weights = _weighed(chances, weights), None
    levels = [(chances, start)]
    while n_rows > _TOP:
        levels.append(_sums(*levels[-1], None if len(levels) > 1 else weights))
        n_rows = -(-n_rows // _BRANCHES)
    ends = _whole(*levels[-1], n_rows, shards).cumsum(0)
    if not bool(ends[-1] > 0):
        return torch.empty(0, dtype=torch.int64, device=chances.device)
    node = _first_above(ends, _uniforms(n, generator, chances.device), n_rows)
    for level in reversed(range(len(levels) - 1)):
        parents, parent = node.unique(return_inverse=True)
        ends = _children(*levels[level], parents, shards, None if level else weights).cumsum(1)[parent]
        child = _first_above(ends, _uniforms(n, generator, chances.device).unsqueeze(1), _BRANCHES).squeeze(1)
        node = node * _BRANCHES + child
    return node


def _uniforms(n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(n, generator=generator, device=generator.device, dtype=torch.float64).to(device)


def _sums(values: Tensor, start: int, weights: Tensor | None = None) -> tuple[Tensor, int]:
    """Return the sums of values in groups, as their numbers are cut, and the number of the first group.

    Chunk by chunk: on a CPU torch makes a float64 copy of all that is summed up so.
    """
    first, end = start // _BRANCHES, start + len(values)
    sums = torch.zeros(-(-end // _BRANCHES) - first, dtype=torch.float64, device=values.device)
    size = max(1, values_per_chunk(values.device) // _BRANCHES) * _BRANCHES
    begin = start
    while begin < end:
        group = begin // _BRANCHES
        stop = min(end, begin + size) // _BRANCHES * _BRANCHES  # no group is cut
        if begin % _BRANCHES or stop <= begin:
            stop = min((group + 1) * _BRANCHES, end)
        where = slice(begin - start, stop - start)
        part = values[where] if weights is None else _weighed(values[where], weights[where])
        part = part.view(-1, _BRANCHES) if (stop - begin) % _BRANCHES == 0 else part.unsqueeze(0)
        sums[group - first : group - first + len(part)] = part.sum(1, dtype=torch.float64)
        begin = stop
    return sums, first


def _weighed(values: Tensor, weights: Tensor) -> Tensor:
    return values.clamp(min=0) * weights


def _whole(sums: Tensor, first: int, n: int, shards: Shards) -> Tensor:
    """Return the sums of all ranks, (n,) float64; where two ranks have rows of one, they are added up."""
    if shards.alone:
        return sums.double()
    got = shards.all_gather(torch.stack([sums.double(), torch.arange(first, first + len(sums)).to(sums.device)], 1))
    return sums.new_zeros(n, dtype=torch.float64).index_add_(0, got[:, 1].long(), got[:, 0].contiguous())


def _children(sums: Tensor, first: int, parents: Tensor, shards: Shards, weights: Tensor | None) -> Tensor:
    """Return the sums that are parts of each of some (p,) others, (p, branches) float64."""
    place = parents.unsqueeze(1) * _BRANCHES + torch.arange(_BRANCHES, device=parents.device) - first
    here = (place >= 0) & (place < len(sums))
    if not len(sums):
        found = torch.zeros(place.shape, dtype=torch.float64, device=sums.device)
    else:
        place = place.clamp(0, len(sums) - 1)
        values = sums[place] if weights is None else _weighed(sums[place], weights[place])
        found = torch.where(here, values.double(), 0)
    return shards.all_reduce(found)


def _first_above(ends: Tensor, uniform: Tensor, n: int) -> Tensor:
    """Return where running sums first exceed a part of their end; what is rounded beyond it belongs to the last."""
    last = ends[..., -1:]
    points = torch.minimum(uniform * last, last * (1 - 2**-52))
    return torch.searchsorted(ends, points, right=True).clamp_(max=n - 1)


def draw_stratified(chances: Tensor, n: int, generator: torch.Generator, shards: Shards | None = None) -> Tensor:
    """Draw n rows, in ascending order, one from each n-th of the sum of chances (N,): no row is far off its share."""
    shards = Shards(None) if shards is None else shards
    ends = chances.cumsum(0, dtype=torch.float64)
    totals = shards.all_gather(ends[-1:] if len(ends) else ends.new_zeros(1), [1] * shards.world_size).cumsum(0)
    before = totals[shards.rank - 1] if shards.rank else totals.new_zeros(())
    points = _uniforms(n, generator, chances.device) + torch.arange(n, device=chances.device)
    points = torch.minimum(points * (totals[-1] / max(n, 1)), totals[-1] * (1 - 2**-52))
    if shards.alone:
        return torch.searchsorted(ends, points, right=True)
    mine = torch.searchsorted(totals, points, right=True) == shards.rank
    rows = torch.searchsorted(ends, points[mine] - before, right=True).clamp_(max=max(len(ends) - 1, 0))
    return shards.all_gather(rows + shards.start).sort().values


def draw_without_replacement(
    chances: Tensor, n: int, generator: torch.Generator, shards: Shards | None = None
) -> Tensor:
    """Draw n rows one after another in proportion to chances (N,), by exponential races."""
    shards = Shards(None, n_rows=len(chances)) if shards is None else shards
    start, n_rows = shards.start, shards.n_rows
    first_of_race = Largest(min(n, len(chances)), chances.new_empty(0, dtype=torch.float64))
    for first in range(0, n_rows, _UNIFORMS):  # every rank makes all numbers, and keeps those of its rows
        uniform = _uniforms(min(_UNIFORMS, n_rows - first), generator, chances.device)
        low, high = max(first, start), min(first + len(uniform), start + len(chances))
        if low < high:
            here = slice(low - start, high - start)
            times = -(1 - uniform[low - first : high - first]).log() / chances[here]
            first_of_race.add(-times, here.start)
    best = first_of_race.values.sort(descending=True, stable=True)
    rows = first_of_race.rows[best.indices]
    if shards.alone:
        return rows
    got = shards.all_gather(torch.stack([-best.values, (rows + shards.start).double()], 1))
    return got[got[:, 0].topk(n, largest=False).indices, 1].long()


def draw_places(n: int, among: int, generator: torch.Generator) -> Tensor:
    """Draw n different numbers below `among`, in random order, (n,) int64, on the generator's device.

    Memory is that of n numbers, if these are few beside the others, or not more than 2^22.
    """
    device = generator.device
    if among <= _PERMUTED or 4 * n > among:
        return torch.randperm(among, generator=generator, device=device)[:n]
    drawn = torch.empty(0, dtype=torch.int64, device=device)
    while len(drawn) < n:  # the first appearances, one after another, in draws with replacement
        more = torch.randint(among, (n - len(drawn) + n // 8 + 16,), generator=generator, device=device)
        drawn = torch.cat([drawn, more])
        kinds, kind = drawn.unique(return_inverse=True)
        places = torch.arange(len(drawn), device=device)
        first = places.new_full((len(kinds),), len(drawn)).scatter_reduce_(0, kind, places, "amin")
        drawn = drawn[first.sort().values]
    return drawn[:n]
