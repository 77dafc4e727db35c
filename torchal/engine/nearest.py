"""The nearest rows of some rows, found block by block: of one process's rows, or of those of all ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.distances import PairSpace, Rows, Space
from torchal.engine.on_cpu import smallest, where_true
from torchal.engine.pool_rows import Block, PoolRows


class Best:
    """The nearest candidates so far, of some rows; their distances are values of a space.

    Args:
        n_rows: R.
        k: candidates of each row.
        like: a tensor of the values' dtype and device.
        step: see `Space.whole_step`. Where values are whole numbers, it is added once for each row before, so that ties
            go to the lowest row.
        ordered: whether ties go to the lowest row where there is no step: for values that are right at once.

    Shapes:
        values: (R, K).
        indices: (R, K) int64.
    """

    def __init__(self, n_rows: int, k: int, like: Tensor, *, step: float = 0.0, ordered: bool = False) -> None:
        self._ordered = ordered and not step
        dtype = torch.float64 if step else like.dtype
        self.values = torch.full((n_rows, k), torch.inf, dtype=dtype, device=like.device)
        self._step = step
        self.indices = torch.zeros((n_rows, k), dtype=torch.int64, device=like.device)

    def merge(self, where: slice, values: Tensor, others: Tensor, *, turned: bool = False) -> None:
        """Take in the values (R, B) of the rows `where` with others, whose numbers (B,) are given; (B, R) if turned.

        The others ascend. Sorting would cost more than all else, so only what is nearer than the worst candidate so far
        is sorted.
        """
        worst = self.values[where].amax(1)
        limit = worst
        if self._step or self._ordered:  # as far as the worst one is near enough
            limit = worst.floor() if self._step else worst
            limit = limit.to(values.dtype).nextafter(worst.new_tensor(torch.inf, dtype=values.dtype))
        if self._ordered:  # unless all candidates have lower numbers
            limit = torch.where(self.indices[where].amax(1) > others[0], limit, worst)
        near = where_true(values < (limit if turned else limit.unsqueeze(1)))
        if 8 * len(near) > values.numel():  # as in the first block, when everything is nearer than nothing
            values = values.T if turned else values
            values = values.double() + self._step * others if self._step else values
            choose = first_smallest if self._ordered else smallest
            values, columns = choose(values, min(self.values.shape[1], values.shape[1]))
            self._take(where, values, others[columns])
            return
        row, column = near // values.shape[1], near % values.shape[1]
        value = values.flatten()[near]
        if turned:
            column, order = column.sort(stable=True)
            row, column, value = column, row[order], value[order]
        other = others[column]
        if self._step:
            value = value.double() + self._step * other
            nearer = value < worst[row]
            row, other, value = row[nearer], other[nearer], value[nearer]
        count = row.bincount(minlength=len(worst))
        position = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
        shape = (len(worst), int(count.max()))  # none at all is fine too
        padded = value.new_full(shape, torch.inf).index_put_((row, position), value)
        self._take(where, padded, other.new_zeros(shape).index_put_((row, position), other))

    def clear(self, where: slice) -> None:
        """Forget the candidates of some rows."""
        self.values[where] = torch.inf

    def _take(self, where: slice, values: Tensor, others: Tensor) -> None:
        values = torch.cat([self.values[where], values], 1)
        index = torch.cat([self.indices[where], others], 1)
        if self._ordered:
            index, order = index.sort(1)
            values, columns = first_smallest(values.gather(1, order), self.values.shape[1])
        else:
            values, columns = values.topk(self.values.shape[1], largest=False, sorted=False)
        self.values[where], self.indices[where] = values, index.gather(1, columns)

    def sorted(self) -> tuple[Tensor, Tensor]:
        """Return the candidates, the nearest first, and their values without the steps, (R, K) both."""
        order = self.values.sort(1)
        values = order.values.floor() if self._step else order.values
        return self.indices.gather(1, order.indices), values


def first_smallest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest values of each row (R, B), the first of equal ones, and their columns, (R, k) both.

    Example:
        >>> first_smallest(torch.tensor([[3.0, 1.0, 2.0, 1.0, 1.0]]), 2)
        (tensor([[1., 1.]]), tensor([[1, 3]]))
    """
    largest = smallest(values, k)[0].amax(1, keepdim=True)
    below, level = values < largest, values == largest
    room = k - below.sum(1, keepdim=True)
    columns = where_true(below | (level & (level.cumsum(1, dtype=torch.int32) <= room))) % values.shape[1]
    columns = columns.view(len(values), k)
    return values.gather(1, columns), columns


def right_at_once(space: Space) -> bool:
    """Tell whether values of pairs are rounded by no more than sums of differences are."""
    return space.exact or isinstance(space, PairSpace)


def nearest_of_all_ranks(pool: PoolRows, k: int, size: int, *, wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the k rows of the pool that are nearest to each row of this rank, or to some of them, but itself.

    Args:
        pool: the rows of all ranks; each of these calls this at the same time.
        k: at most the number of the other rows.
        size: rows that are compared at once with as many others.
        wanted: which of this rank's rows, by numbers that count from its first. Values are those of matrix products
            for all rows, and of `pairwise` for some.

    Shapes:
        wanted: (R,) int64.

    Returns:
        Row numbers of the pool and values of the space, (R, k) both, the nearest first.
    """
    source, space, shards = pool.source, pool.source.space, pool.source.shards
    n_rows = len(source) if wanted is None else len(wanted)
    ordered = wanted is not None or right_at_once(space)
    best = Best(n_rows, k, source.sq, step=space.whole_step(shards.n_rows), ordered=ordered)
    for block in pool.blocks(size):

        def compare(start: int, stop: int, block: Block = block) -> None:
            here = slice(start, stop)
            if wanted is None:
                rows, own = source.part(start, stop), torch.arange(start, stop, device=block.numbers.device)
                values = space.rough(rows, block.rows)
            else:
                rows, own = source.own(wanted[here]), wanted[here]
                values = space.pairwise(rows, block.rows)
            own = own + shards.start
            place = torch.searchsorted(block.numbers, own).clamp(max=len(block.numbers) - 1)
            itself = (block.numbers[place] == own).nonzero().squeeze(1)
            values[itself, place[itself]] = torch.inf  # a row is not its own neighbour
            best.merge(here, values, block.numbers)

        source.in_chunks(n_rows, size, compare)
    return best.sorted()


def measured_of_all_ranks(
    pool: PoolRows, candidates: Tensor, k: int, *, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the k nearest of the candidates of this rank's rows, or of some, by sums of differences.

    Args:
        pool: the rows of all ranks; each of these calls this at the same time.
        candidates: rows of the pool.
        k: at most K.
        wanted: which of this rank's rows, as in `nearest_of_all_ranks`.

    Shapes:
        candidates: (R, K) int64.
        wanted: (R,) int64.

    Returns:
        Row numbers of the pool and values of the space, (R, k) both, the nearest first, and the lowest of equally near.
    """
    source, device = pool.source, candidates.device
    n_rows, kept = candidates.shape
    candidates = candidates.sort(1).values  # so that ties go to the lowest row
    others, order = candidates.flatten().sort()
    values = torch.empty(n_rows * kept, dtype=source.space.dtype, device=device)
    size = max(1, values_per_chunk(device) // source.n_columns)

    def look(where: slice, rows: Rows) -> None:
        first, last = torch.searchsorted(others, torch.tensor([where.start, where.stop], device=device)).tolist()

        def measure(start: int, stop: int) -> None:
            here = slice(first + start, first + stop)
            pairs = order[here]
            own = pairs // kept
            there = rows.select(others[here] - where.start)
            values[pairs] = source.space.between(source.own(own if wanted is None else wanted[own]), there)

        source.in_chunks(last - first, size, measure)

    pool.each(look, width=1)
    near = values.view(n_rows, kept).sort(dim=1, stable=True)
    return candidates.gather(1, near.indices)[:, :k], near.values[:, :k]
