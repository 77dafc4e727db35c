"""The rows in a ball around each row: which, exactly, as a sparse graph; and how many there will be, before it is made.

Two rows are near if their distance is *below* the radius, as float64 says of the sum of their squared differences. That
sum is taken only where it matters: the matrix product that gives all squared distances of two blocks has a known
rounding bound (`torchal.engine.distances`), so a pair that is farther from the radius than that is decided already.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.distances import Metric, Rows, make_space, survey, unit_rows
from torchal.engine.features import FeatureReader
from torchal.engine.on_cpu import where_true
from torchal.errors import ConfigError

_SAMPLED = 512  # rows whose balls say how large the graph will be
_HELD = 2**12  # rows that these balls hold of those looked at, if all hold max_edges: as many are found as that
_LOOKED_AT = 2**16  # rows, or more
_COUNTED = 1 << 24  # numbers that histc counts right, since it does so in their dtype
_BINS = 256  # in which the distances of the sampled rows are counted
_LEAST_BLOCK = 256  # rows; smaller products are slow
_BLOCKS = 8  # or more, where they are not that small: of the pairs within a block each is compared twice


class Balls(NamedTuple):
    """The rows in the ball around each row, ascending, the row itself among them: one edge for each.

    Shapes:
        starts: (N + 1,) int64, where the rows of each ball begin.
        rows: (E,) int32.
    """

    starts: Tensor
    rows: Tensor

    def around(self, centers: Tensor) -> Tensor:
        """Return the rows of the balls around some rows (p,) int64, one ball after another."""
        starts = self.starts[centers]
        sizes = self.starts[centers + 1] - starts
        ends = sizes.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        shift = (starts - ends + sizes).repeat_interleave(sizes, output_size=total)
        return self.rows[shift.add_(torch.arange(total, device=shift.device))]


class Block(NamedTuple):
    """Rows as they were read, and made ready by a space.

    Shapes:
        raw: (R, D).
    """

    raw: Tensor
    rows: Rows

    def copy(self) -> Block:
        """Return a copy, which outlives the next read."""
        return Block(self.raw.clone(), Rows(self.rows.x.clone(), self.rows.sq.clone()))

    def select(self, index: Tensor) -> Block:
        """Return a copy of the rows of this index (n,) int64."""
        return Block(self.raw.index_select(0, index), self.rows.select(index))


class Ruler:
    """Measures pairs of rows: roughly by products, finely by differences in float64.

    The rough value of a pair of rows a and b is off by at most `band` (|a|^2 + |b|^2).
    """

    def __init__(self, reader: FeatureReader, metric: Metric) -> None:
        self.reader = reader
        self._metric = metric
        seen = survey(reader, metric)
        # Cosines of whole numbers have values of their own, which are no squared distances.
        self.space = make_space(reader, seen._replace(whole=False) if metric == "cosine" else seen, metric)
        # 8: for rows that were shifted, for the radius, and for sums of all these; 2: for lengths that are rounded too
        bound = self.space.bound * (2 if metric == "cosine" else 1)
        self.band = 0.0 if self.space.exact else bound + 8 * torch.finfo(self.space.dtype).eps

    def read(self, start: int, stop: int) -> Block:
        """Return rows start to stop, for use until the next call."""
        raw = self.reader.read(start, stop)
        return Block(raw, self.space.prepare(raw))

    def select(self, index: Tensor) -> Block:
        """Return a copy of some rows."""
        raw = self.reader.rows(index)
        return Block(raw, self.space.prepare(raw))

    def fine(self, a: Block, i: Tensor, b: Block, j: Tensor) -> Tensor:
        """Return the values of pairs of a row of a and a row of b, (p,) int64 both, (p,) float64."""
        size = max(1, values_per_chunk(i.device) // a.raw.shape[1])
        values = torch.empty(len(i), dtype=torch.float64, device=i.device)
        for some in slices(len(i), size):
            x, y = (self._straight(block.raw.index_select(0, k[some])) for block, k in ((a, i), (b, j)))
            values[some] = x.sub_(y).square_().sum(1)
        return values

    def distance(self, value: float) -> float:
        """Return the distance that has a fine value: a radius at which pairs of that value are not near.

        By Python, whose roots are right in the last bit, where torch's are not on every CPU.
        """
        return value / 2 if self._metric == "cosine" else math.sqrt(value) / self.space.scale

    def limit(self, radius: float) -> float:
        """Return the least fine value of a pair that is not nearer than the radius."""
        if self._metric == "cosine":
            return 2 * radius
        length = radius * self.space.scale
        limit = length * length  # which is rounded, while the root of a rounded square is the number itself
        while limit > 0 and math.sqrt(limit) >= length:
            limit = math.nextafter(limit, 0)
        while math.sqrt(limit) < length:
            limit = math.nextafter(limit, math.inf)
        return limit

    def near(self, a: Block, b: Block, limit: float) -> Tensor:
        """Return pairs whose fine value is below the limit, counted through a table (A, B); ascending, (p,) int32."""
        if self.space.exact:  # values are whole numbers
            whole = math.ceil(min(limit, self.space.largest + 1))
            return where_true(self.space.products(a.rows, b.rows) < (whole - a.rows.sq).unsqueeze(1)).int()
        top, less = min(limit, torch.finfo(self.space.dtype).max), 1 - self.band
        products = self.space.products(a.rows, b.rows._replace(sq=b.rows.sq * less))
        highest = top - a.rows.sq * less
        near = where_true(products < highest.unsqueeze(1)).int()
        # Sure are those that are below by the bound on either side of their value; one number a row says so.
        sure = highest - 2 * self.band * (a.rows.sq + b.rows.sq.max())
        i = near // len(b.raw)
        values = products.flatten().index_select(0, near)
        doubtful = (values >= sure.index_select(0, i)).nonzero().squeeze(1)
        keep = torch.ones_like(near, dtype=torch.bool)
        keep[doubtful] = self.fine(a, i[doubtful], b, near[doubtful] % len(b.raw)) < limit
        return near[keep]

    def _straight(self, raw: Tensor) -> Tensor:
        """Return a new copy of rows as they were read, in float64, not shifted."""
        return unit_rows(raw.double()) if self._metric == "cosine" else raw.double() * self.space.scale


def slices(n: int, size: int) -> list[slice]:
    """Return the parts of n things, of this size each but for the last."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def check_edges(ruler: Ruler, radius: float, max_edges: int) -> None:
    """Require that the balls hold no more than `max_edges` rows in all, as far as those of some rows can say.

    Raises:
        ConfigError: they hold more; the message says how many, and which radius is small enough.
    """
    n_rows, device = len(ruler.reader), ruler.reader.device
    if n_rows * n_rows <= max_edges:
        return
    n_sampled = min(n_rows, _SAMPLED)
    n_others = min(n_rows, max(_LOOKED_AT, _HELD * n_rows * n_rows // (n_sampled * max_edges)))
    index = torch.linspace(0, n_rows - 1, n_sampled, dtype=torch.float64, device=device).long()
    some = ruler.select(index)
    # half a step off, so that the sampled rows, which are near themselves, are not all among them
    steps = torch.arange(n_others, dtype=torch.float64, device=device).add_(0.5)
    others = steps.mul_(n_rows / n_others).long().clamp_(max=n_rows - 1)
    found = torch.zeros((), dtype=torch.int64, device=device)
    farthest = torch.zeros((), dtype=ruler.space.dtype, device=device)

    def count(distances: Tensor) -> None:
        found.add_((distances < radius).sum())
        torch.maximum(farthest, distances.max(), out=farthest)

    _each_distance(ruler, some, others, count)
    per_row = int(found) / n_sampled * (n_rows / n_others)
    if per_row * n_rows <= max_edges:
        return
    reach = max(min(radius, float(farthest)), torch.finfo(farthest.dtype).tiny)  # above 0, where all rows are equal
    counts = torch.zeros(_BINS, dtype=torch.int64, device=device)

    def fill(distances: Tensor) -> None:
        for far in distances.flatten().split(_COUNTED):
            counts.add_(torch.histc(far, _BINS, 0, reach).long())

    _each_distance(ruler, some, others, fill)
    fits = int((counts.cumsum(0) <= 0.9 * max_edges * (n_sampled / n_rows) * (n_others / n_rows)).sum())
    smaller, rounding = reach * fits / _BINS, ruler.space.distance(2 * ruler.band * some.rows.sq.max())
    instead = f"a radius of {smaller:.4g} is small enough" if smaller > rounding else "so do balls far smaller"
    raise ConfigError(
        f"balls of radius {radius:.4g} hold {per_row:.4g} of {n_rows} rows each, as measured on {n_sampled}: about "
        f"{per_row * n_rows:.3g} in all, and max_edges is {max_edges}; {instead}"
    )


def _each_distance(ruler: Ruler, some: Block, others: Tensor, work: Callable[[Tensor], object]) -> None:
    """Call work(distances) on the rough distances (S, R) of some rows from others (p,) int64, chunk by chunk."""

    def measure(start: int, stop: int) -> None:
        values = ruler.space.rough(some.rows, ruler.select(others[start:stop]).rows)
        work(ruler.space.distance(values.clamp_(min=0)))

    ruler.reader.in_chunks(len(others), ruler.reader.chunk_rows(len(some.raw)), measure)


class _Piece(NamedTuple):
    """The near pairs of two blocks, which are these rows of the pool.

    Shapes:
        near: (p,) int32, counted through a table of all pairs.
    """

    here: slice
    there: slice
    near: Tensor

    def sides(self) -> tuple[Tensor, Tensor]:
        """Return which row of its block either side of each pair is, (p,) int32 both."""
        width = self.there.stop - self.there.start
        return self.near // width, self.near % width


def find_balls(ruler: Ruler, radius: float, max_edges: int) -> Balls:
    """Return which rows are nearer to each row than the radius; each pair of blocks is compared once.

    An edge takes 6 bytes while the graph is made, and 4 then.

    Raises:
        ConfigError: the balls hold more than `max_edges` rows in all, where a sample said that they do not.
    """
    reader, device = ruler.reader, ruler.reader.device
    most = math.isqrt(values_per_chunk(device))
    size = min(reader.given_chunk_rows or max(_LEAST_BLOCK, -(-len(reader) // _BLOCKS)), most)
    pieces = reader.in_chunks.halve(size, lambda size: _compare(ruler, radius, max_edges, size))
    sizes = torch.zeros(len(reader), dtype=torch.int64, device=device)
    for piece in pieces:
        a, b = piece.sides()
        sizes[piece.here] += a.bincount(minlength=piece.here.stop - piece.here.start)
        if piece.here != piece.there:
            sizes[piece.there] += b.bincount(minlength=piece.there.stop - piece.there.start)
    starts = torch.zeros(len(reader) + 1, dtype=torch.int64, device=device)
    torch.cumsum(sizes, 0, out=starts[1:])
    rows = torch.empty(int(starts[-1]), dtype=torch.int32, device=device)
    filled = starts[:-1].clone()

    def put(where: slice, centers: Tensor, members: Tensor) -> None:
        """Go on with the balls of the rows of a block, given by centres that ascend."""
        count = centers.bincount(minlength=where.stop - where.start)
        begin = filled[where] - (count.cumsum(0) - count)
        places = begin.index_select(0, centers).add_(torch.arange(len(centers), device=device))
        rows[places] = members
        filled[where] += count

    while pieces:  # in the order of the other block for each row, so that its ball ascends
        piece = pieces.popleft()  # and let go
        a, b = piece.sides()
        put(piece.here, a, b + piece.there.start)
        if piece.here != piece.there:
            order = _order(b)
            put(piece.there, b[order], a[order] + piece.here.start)
    return Balls(starts, rows)


def _order(small: Tensor) -> Tensor:
    """Return what sorts numbers below 2^15 and leaves equal ones in order, (p,) int64."""
    if small.device.type == "cpu":  # a radix sort of 16 bits, ten times faster than torch's
        return torch.from_numpy(small.numpy().astype(np.int16).argsort(kind="stable"))
    return small.sort(stable=True).indices


def _compare(ruler: Ruler, radius: float, max_edges: int, size: int) -> deque[_Piece]:
    """Return the near pairs of all pairs of blocks."""
    n_rows, limit, n_edges = len(ruler.reader), ruler.limit(radius), 0
    pieces: deque[_Piece] = deque()
    blocks = slices(n_rows, size)
    for i, here in enumerate(blocks):
        rows = ruler.read(here.start, here.stop)
        if len(blocks) > 1:  # they must outlive the next read
            rows = rows.copy()
        for there in blocks[i:]:
            near = ruler.near(rows, rows if here == there else ruler.read(there.start, there.stop), limit)
            n_edges += len(near) * (1 if here == there else 2)
            if n_edges > max_edges:
                raise ConfigError(
                    f"balls of radius {radius:.4g} hold more than {max_edges} rows in all, which is max_edges; "
                    "take a smaller radius"
                )
            pieces.append(_Piece(here, there, near))
    return pieces
