"""How near rows are to the nearest others of their own group: one group at a time, in tiles, whatever its size.

Axes: R rows of all groups; G groups; M rows of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.distributed import Shards
from torchal.engine.distances import Rows, Space
from torchal.engine.on_cpu import smallest_values
from torchal.engine.sources import StreamedRows

_WIDTH = 2048  # rows that others are compared with at once
_TILES = 4  # those rows are at most this many chunks


class Groups(NamedTuple):
    """Rows together by group, ascending in each.

    Shapes:
        rows: (R,) int64.
        group: (R,) int64, the group of each, from 0 on.
        sizes: (G,) int64, how many rows each group has: at least 1, but where others are on other ranks.
    """

    rows: Tensor
    group: Tensor
    sizes: Tensor

    @property
    def begins(self) -> Tensor:
        """(G,) int64, where each group begins."""
        return self.sizes.cumsum(0) - self.sizes

    def only(self, kept: Tensor) -> Groups:
        """Return some of the groups, (G,) bool, with new numbers in the old order."""
        inside = kept[self.group]
        return Groups(self.rows[inside], (kept.cumsum(0) - 1)[self.group[inside]], self.sizes[kept])

    def sorted_by(self, values: Tensor) -> Tensor:
        """Return the places of the rows, (R,), in the order of some values (R,) within each group; equal ones stay."""
        order = values.argsort(stable=True)
        return order[self.group[order].argsort(stable=True)]


def group_rows(rows: Tensor, group: Tensor, shards: Shards | None = None) -> Groups:
    """Return ascending rows (R,) together by group (R,); groups may have any numbers, and get new ones in their order.

    The groups are those of all ranks.

    Example:
        >>> group_rows(torch.tensor([0, 1, 4]), torch.tensor([7, 3, 7]))
        Groups(rows=tensor([1, 0, 4]), group=tensor([0, 1, 1]), sizes=tensor([1, 2]))
    """
    if shards is None or shards.alone:
        _, group, sizes = group.unique(return_inverse=True, return_counts=True)
    else:
        kinds = shards.all_gather(group.unique()).unique()
        group = torch.searchsorted(kinds, group)
        sizes = group.bincount(minlength=len(kinds))
    group, order = group.sort(stable=True)
    return Groups(rows[order], group, sizes)


def least_mean_distances(source: StreamedRows, groups: Groups, k: int, *, wanted: Tensor, counts: Tensor) -> Tensor:
    """Return each row's mean distance to its k nearest others in the group, where that is among the smallest there.

    In a group of k rows or fewer, the neighbours are all others. Distances are first those of matrix products; what
    rounding cannot tell from the smallest is measured again, by differences in float64, and has equal bits where
    distances are equal.

    Args:
        source: the pool, in a euclidean space.
        groups: the groups.
        k: neighbours.
        wanted: which rows can be among the smallest.
        counts: how many of each group are asked for: at least 1, and no more than are wanted.

    Shapes:
        wanted: (R,) bool.
        counts: (G,) int64.

    Returns:
        (R,) float64: `counts` numbers at least in each group, and infinity for all other rows. A row that is alone is
        infinitely far from its neighbours.
    """
    low = torch.full((len(groups.rows),), torch.inf, dtype=torch.float64, device=groups.rows.device)
    high = low.clone()
    for span in spans(groups.sizes):
        tiles = _Tiles(source, groups.rows[span])
        for first in tiles.firsts:
            tiles.limit(first, k, low[span], high[span])
    # whose lower limit is above the count-th smallest upper one is not among the smallest
    high = torch.where(wanted, high, torch.inf)
    limit = high[groups.sorted_by(high)[groups.begins + counts - 1]]
    near = (wanted & (low <= limit[groups.group])).nonzero().squeeze(1)
    means = torch.full_like(low, torch.inf)
    found = torch.empty(len(near), dtype=low.dtype, device=low.device)
    begins, near_spans = groups.begins.tolist(), spans(groups.group[near].bincount(minlength=len(groups.sizes)))
    for begin, size, span in zip(begins, groups.sizes.tolist(), near_spans, strict=True):
        _measure(source, groups.rows[begin : begin + size], near[span] - begin, k, found[span])
    means[near] = found
    return means


def spans(counts: Tensor) -> Iterator[slice]:
    """Yield where each of some groups is, one behind the other."""
    begin = 0
    for count in counts.tolist():
        yield slice(begin, begin + count)
        begin += count


class _Tiles:
    """The rows of a group, shifted to about their mean, in blocks that are compared with each other.

    Shapes:
        members: (M,) int64.
    """

    def __init__(self, source: StreamedRows, members: Tensor) -> None:
        self._source, self._members = source, members
        self._width = width_of(source)
        first = source.select(members[: self._width]).x
        self._shift = first.mean(0)
        self._first = self._shifted(first)

    @property
    def firsts(self) -> range:
        """Where blocks begin."""
        return range(0, len(self._members), self._width)

    def limit(self, first: int, k: int, low: Tensor, high: Tensor) -> None:
        """Set below and above what the mean distances are, (M,) float64 both, of the block that begins at `first`."""
        k = min(k, len(self._members) - 1)
        if not k:
            return
        rows = self._block(first)

        def compare(start: int, stop: int) -> None:
            some = Rows(rows.x[start:stop], rows.sq[start:stop])
            best = rows.x.new_empty(stop - start, 0)
            for other in self.firsts:
                values = self._source.space.rough(some, rows if other == first else self._block(other))
                if other == first:
                    values.diagonal(start).fill_(torch.inf)  # a row is not its own neighbour
                best = smallest_values(torch.cat([best, smallest_values(values, k)], 1), k)
            here = slice(first + start, first + stop)
            low[here], high[here] = mean_limits(best, some.sq, self._source.space)

        height = values_per_chunk(low.device) // min(self._width, len(self._members))
        self._source.in_chunks(len(rows.x), max(1, height), compare)

    def _block(self, first: int) -> Rows:
        if not first:
            return self._first
        return self._shifted(self._source.select(self._members[first : first + self._width]).x)

    def _shifted(self, x: Tensor) -> Rows:
        x = x - self._shift
        return Rows(x, (x * x).sum(1))


def width_of(source: StreamedRows) -> int:
    """Return how many rows others are compared with at once."""
    return max(1, min(_WIDTH, _TILES * values_per_chunk(source.reader.device) // source.n_columns))


def mean_limits(best: Tensor, sq: Tensor, space: Space) -> tuple[Tensor, Tensor]:
    """Return below and above what the mean distances are, (H,) both, of rows with these nearest values.

    Shapes:
        best: (H, k).
        sq: (H,), the squared lengths of the rows.
    """
    sq, best = sq.double().unsqueeze(1), best.double().clamp_(min=0)
    # A neighbour is no longer than the row and the distance together. Twice the bound, for the shift was rounded too.
    error = 2 * space.bound * (sq + (sq.sqrt() + best.sqrt()).square())
    return (best - error).clamp_(min=0).sqrt_().mean(1) / space.scale, (best + error).sqrt_().mean(1) / space.scale


def _measure(source: StreamedRows, members: Tensor, places: Tensor, k: int, out: Tensor) -> None:
    """Set the mean distances (S,) float64 of the members (M,) at some places (S,), by differences."""
    n_rows, scale, width = len(members), source.space.scale, width_of(source)
    k = min(k, n_rows - 1)
    if not k:
        out.fill_(torch.inf)
        return

    def measure(start: int, stop: int) -> None:
        some = places[start:stop]
        x = source.reader.rows(members[some]).double() * scale
        best = x.new_empty(stop - start, 0)
        for first in range(0, n_rows, width):
            y = source.reader.rows(members[first : first + width]).double() * scale
            distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
            own = some.unsqueeze(1) == torch.arange(first, first + len(y), device=some.device)
            best = torch.cat([best, distances.masked_fill_(own, torch.inf)], 1)
            best = best.topk(min(k, best.shape[1]), dim=1, largest=False).values
        # from the nearest on, one after another: the same distances have the same sum
        out[start:stop] = best.sort(1).values.cumsum(1)[:, -1] / k / scale

    source.in_chunks(len(places), max(1, values_per_chunk(out.device) // max(width, source.n_columns)), measure)
