"""How near rows are to the nearest others of their own group, where its rows are on several ranks.

As in `near_in_group`: limits first, by matrix products, then what these cannot tell from the smallest is measured by
differences in float64. The rows of a group travel past all ranks, a block at once, and each compares its own with them.

Axes: R rows of this rank in all groups; G groups; M rows of this rank in one of them; S of these that are measured;
n rows asked for.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.distances import Rows
from torchal.engine.features import FeatureReader
from torchal.engine.near_in_group import Groups, mean_limits, spans, width_of
from torchal.engine.on_cpu import smallest_values
from torchal.engine.pool_rows import Pieces, in_turn
from torchal.engine.sources import StreamedRows


def least_of_all_ranks(
    reader: FeatureReader, source: StreamedRows, groups: Groups, k: int, *, wanted: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the rows of each group with the smallest mean distances to their k nearest others in it.

    Equal means go to the lowest row. In a group of k rows or fewer, the neighbours are all others. The result is the
    same on every rank.

    Args:
        reader: of this rank's rows.
        source: the same, in a euclidean space.
        groups: of this rank's rows, by numbers that count from its first; a group may have none of them.
        k: neighbours.
        wanted: which of this rank's rows can be among the smallest.
        counts: how many of each group are asked for: at least 1, and no more than are wanted on all ranks.

    Shapes:
        wanted: (R,) bool.
        counts: (G,) int64, the same on every rank.

    Returns:
        Rows of the pool, (n,) int64, the first of each group, then the next of it, group by group; and their mean
        distances, (n,) float64, infinite for a row that is alone.
    """
    shards, device = reader.shards, groups.rows.device
    sizes = shards.all_gather(groups.sizes.unsqueeze(0), [1] * shards.world_size).T.tolist()
    places = list(spans(groups.sizes))
    members = [_Members(reader, source, groups.rows[some], of) for some, of in zip(places, sizes, strict=True)]
    low = torch.full((len(groups.rows),), torch.inf, dtype=torch.float64, device=device)
    high = low.clone()
    for some, group in zip(places, members, strict=True):
        group.limit(k, low[some], high[some])
    # whose lower limit is above the count-th smallest upper one is not among the smallest
    limits, _ = _leading(groups, torch.where(wanted, high, torch.inf), counts)
    limits = shards.all_gather(limits.unsqueeze(0), [1] * shards.world_size)
    limit = torch.stack([limits[:, some].flatten().sort().values[some.stop - some.start - 1] for some in spans(counts)])
    near = (wanted & (low <= limit[groups.group])).nonzero().squeeze(1)
    n_near = groups.group[near].bincount(minlength=len(counts))
    means = torch.empty(len(near), dtype=low.dtype, device=device)
    for some, group, here in zip(places, members, spans(n_near), strict=True):
        group.measure(near[here] - some.start, k, means[here])
    return _merged(reader, Groups(groups.rows[near], groups.group[near], n_near), means, counts)


def _leading(groups: Groups, values: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest values (R,) of each group, as many as its count, (n,), and their places, (n,).

    Where a group has fewer rows here, the rest are infinite, with place -1.
    """
    order = groups.sorted_by(values)
    group = groups.group[order]
    rank = torch.arange(len(order), device=order.device) - groups.begins[group]
    kept = rank < counts[group]
    slot = ((counts.cumsum(0) - counts)[group] + rank)[kept]
    n = int(counts.sum())
    leading = values.new_full((n,), torch.inf).index_put_((slot,), values[order[kept]])
    return leading, order.new_full((n,), -1).index_put_((slot,), order[kept])


def _merged(reader: FeatureReader, near: Groups, means: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the smallest means of each group over all ranks, and their rows of the pool, (n,) both."""
    shards = reader.shards
    leading, places = _leading(near, means, counts)
    rows = torch.full_like(places, -1)
    rows[places >= 0] = near.rows[places[places >= 0]] + shards.start
    ones = [1] * shards.world_size
    means, rows = shards.all_gather_together([leading.unsqueeze(0), rows.unsqueeze(0)], [ones, ones])
    first: list[Tensor] = []
    least: list[Tensor] = []
    for some in spans(counts):
        row, mean = rows[:, some].flatten(), means[:, some].flatten()  # rows of a rank are behind those of the last
        row, mean = row[row >= 0], mean[row >= 0]
        order = mean.argsort(stable=True)[: some.stop - some.start]
        first.append(row[order])
        least.append(mean[order])
    return torch.cat(first), torch.cat(least)


class _Members:
    """This rank's rows of a group, among those of all ranks.

    Args:
        reader: of this rank's rows.
        source: the same, in a euclidean space.
        rows: those of the group.
        counts: how many rows of it each rank has.

    Shapes:
        rows: (M,) int64.
    """

    def __init__(self, reader: FeatureReader, source: StreamedRows, rows: Tensor, counts: list[int]) -> None:
        self._reader, self._source, self._rows, self._counts = reader, source, rows, counts
        self._width = width_of(source)

    def _blocks(self) -> Iterator[tuple[Tensor, Pieces]]:
        """Yield the rows of the group, of all ranks, as their readers read them."""

        def read(begin: int, end: int) -> Tensor:
            return self._reader.own_rows(self._rows[begin:end])

        return in_turn(self._reader, read, self._counts, self._width)

    def _without_itself(self, values: Tensor, places: Tensor, pieces: Pieces) -> Tensor:
        """Set the values (H, B) of members (H,) of this rank with themselves to infinity."""
        rank = self._reader.shards.rank
        begin, end = pieces[rank]
        first = sum(last - start for start, last in pieces[:rank])
        inside = ((places >= begin) & (places < end)).nonzero().squeeze(1)
        values[inside, places[inside] - begin + first] = torch.inf
        return values

    def limit(self, k: int, low: Tensor, high: Tensor) -> None:
        """Set below and above what the members' mean distances are, (M,) float64 both."""
        k, space, source = min(k, sum(self._counts) - 1), self._source.space, self._source
        if not k:
            return
        n_rows, device = len(self._rows), low.device
        best = torch.full((n_rows, k), torch.inf, dtype=space.dtype, device=device)
        sq = torch.empty(n_rows, dtype=space.dtype, device=device)
        height = max(1, values_per_chunk(device) // min(self._width, sum(self._counts)))
        shift: Tensor | None = None
        for x, pieces in self._blocks():
            there = space.prepare(x).x
            shift = there.mean(0) if shift is None else shift  # to about the mean of the group
            self._compare(best, sq, _shifted(there, shift), shift, pieces, height)
        low[:], high[:] = mean_limits(best, sq, source.space)

    def _compare(  # noqa: PLR0917 - what `limit` knows
        self, best: Tensor, sq: Tensor, there: Rows, shift: Tensor, pieces: Pieces, height: int
    ) -> None:
        """Take the values with a block of the group's rows among the best (M, k) so far."""
        source, k = self._source, best.shape[1]

        def compare(start: int, stop: int) -> None:
            here = slice(start, stop)
            rows = _shifted(source.own(self._rows[here]).x, shift)
            places = torch.arange(start, stop, device=sq.device)
            values = self._without_itself(source.space.rough(rows, there), places, pieces)
            sq[here] = rows.sq
            best[here] = smallest_values(torch.cat([best[here], smallest_values(values, k)], 1), k)

        source.in_chunks(len(best), height, compare)

    def measure(self, places: Tensor, k: int, out: Tensor) -> None:
        """Set the mean distances (S,) float64 of the members at some places (S,), by differences."""
        k, source, scale = min(k, sum(self._counts) - 1), self._source, self._source.space.scale
        if not k:
            out.fill_(torch.inf)
            return
        best = torch.full((len(places), k), torch.inf, dtype=out.dtype, device=out.device)
        size = max(1, values_per_chunk(out.device) // max(self._width, source.n_columns))
        for block, pieces in self._blocks():
            y = block.double() * scale

            def measure(start: int, stop: int, y: Tensor = y, pieces: Pieces = pieces) -> None:
                some, here = places[start:stop], slice(start, stop)
                x = self._reader.own_rows(self._rows[some]).double() * scale
                distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
                distances = self._without_itself(distances, some, pieces)
                best[here] = torch.cat([best[here], distances], 1).topk(k, dim=1, largest=False).values

            source.in_chunks(len(places), size, measure)
        # as in one process: from the nearest on, one after another
        out[:] = best.sort(1).values.cumsum(1)[:, -1] / k / scale


def _shifted(x: Tensor, shift: Tensor) -> Rows:
    x = x - shift
    return Rows(x, (x * x).sum(1))
