"""K-center in two steps: of each part of the pool by itself, and of what the parts found; read once, with a bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchal._checks import ArrayLike, check_budget, check_whole
from torchal.distributed import Group, as_shards
from torchal.engine.distances import Backend, Metric, check_rows
from torchal.engine.features import FeatureReader, Features
from torchal.errors import ConfigError, DataError
from torchal.functional.k_center import check_masks, distance_settings, k_center_greedy

_PART_BYTES = 1 << 29  # of the features of a part


class PartsCover(NamedTuple):
    """Rows that cover the pool, in the order in which they were picked, and how well they do.

    Shapes:
        indices: (n,) int64, rows of the pool.
        scores: (n,) float, the distance of each pick to the nearest centre when it was picked.
        radius: () float, no candidate is farther than this from its nearest centre.
        bound: () float, with no n centres beside the labeled rows would all candidates be nearer than this.
    """

    indices: Tensor
    scores: Tensor
    radius: Tensor
    bound: Tensor


def k_center_by_parts(
    features: Features,
    n: int,
    *,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    part_rows: int | None = None,
    metric: Metric = "euclidean",
    backend: Backend = "auto",
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> PartsCover:
    r"""Pick rows that cover each part of the pool, and of these the n that cover them all.

    An approximation of `k_center_greedy` that reads the pool once, and on many ranks speaks as often for many picks as
    for few: for files on slow disks, and for ranks that are far from each other. It saves no products, and where
    neither is slow, `k_center_greedy` is as fast and covers better.

    The picks are those of `k_center_greedy` where there is one part. With more they depend on where parts begin, and so
    on the number of ranks; they are the same on every rank, and from run to run.

    Args:
        features: as in `k_center_greedy`.
        n: how many rows to pick.
        labeled: the first centres. Every rank holds all of them while it picks.
        candidates: the rows that may be picked, and are to be covered; those that are not labeled, unless given. A part
            without any is not read.
        part_rows: rows of a part, at most; more than n. As many as are 512 MiB, or four times n if that is more, unless
            given. The picks of all parts, n rows of each, are held in memory, on every rank.
        metric: as in `k_center_greedy`.
        backend: as in `k_center_greedy`.
        device: as in `k_center_greedy`.
        chunk_rows: as in `k_center_greedy`.
        group: of ranks that call this together, each with its own rows; see `torchal.distributed`. No part has rows of
            two ranks.

    Shapes:
        features: (N, D) float.
        labeled, candidates: (N,) bool, on the features' device.

    Returns:
        Picks and scores, as `k_center_greedy` has them, of the second step; the radius that both steps come to, and a
        bound below which no n centres come, with the distances that were measured anyway. The radius is at most four
        times the bound (cosine, which is half the square of a distance: sixteen times), up to rounding.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ConfigError: part_rows is not more than n; see `k_center_greedy` for others.
        ShapeError, DataError, CapabilityError, DeviceMemoryError, GroupError: as `k_center_greedy` does.

    Reference:
        Malkomes, Kusner, Chen, Weinberger & Moseley, "Fast Distributed k-Center Clustering with Outliers on Massive
        Data", NeurIPS 2015, their algorithm without outliers: at most four times the least radius. The bound is
        Gonzalez's (1985) argument: of n + 1 rows that are r apart, two have the same centre, and one of these is at
        least r / 2 from it.

    Complexity:
        N D (L + n) multiply-adds for L labeled rows, as many as `k_center_greedy` at most, and P n D (L + n) for the
        second step with P parts. A part, and a few times (L + P n) D numbers, in memory.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [5.0], [9.0], [2.0], [8.0]])
        >>> found = k_center_by_parts(x, 2, labeled=torch.arange(6) == 0, part_rows=3)
        >>> found.indices, float(found.radius), float(found.bound)
        (tensor([3, 2]), 3.0, 1.0)
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        reader = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
        meeting.rows(len(reader), reader.n_columns)
        meeting.same(n=n, part_rows=part_rows, **distance_settings(reader, metric, backend))
        labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
        meeting.count(candidates.count_nonzero())
    check_budget(n, meeting.totals[0])
    if part_rows is None:
        part_rows = max(_PART_BYTES // (reader.n_columns * reader.dtype.itemsize), 4 * n)
    check_whole("part_rows", part_rows, least=1)
    if part_rows <= n:
        raise ConfigError(f"part_rows must be more than n, or all rows would be picked of each part: {part_rows}, {n}")
    numbers = shards.numbers_of(labeled)
    centers = reader.rows(numbers)
    _check_centers(centers, numbers, metric, reader.chunk_rows())
    greedy = _Greedy(centers, n, {"metric": metric, "backend": backend, "chunk_rows": chunk_rows})
    own = shards.attempt(lambda: _picks_of_parts(reader, candidates, part_rows, greedy), lambda: _nothing(centers))
    said = shards.all_gather(torch.tensor([[len(own.rows), own.n_parts, own.farthest]], dtype=torch.float64))
    sizes = said[:, 0].long().tolist()
    rows, values, scores = shards.all_gather_together([own.rows + shards.start, own.values, own.scores], [sizes] * 3)
    n_parts, of_parts, of_picks = int(said[:, 1].sum()), float(said[:, 2].max()), 0.0
    if n_parts > 1:
        blank = torch.zeros(n + 1, 2, dtype=torch.float64, device=rows.device)
        table = shards.attempt(
            lambda: _picks_of_picks(rows, values, greedy) if shards.rank == 0 else blank, lambda: blank
        )
        picked, measured = shards.broadcast(table).unbind(1)
        rows, scores, of_picks = picked[:n].long(), measured[:n].to(scores.dtype), float(measured[n])
    radius, bound = _bounds(of_parts, of_picks, metric)
    rows, scores = rows.to(reader.home), scores.to(reader.home)
    return PartsCover(rows, scores, scores.new_tensor(radius), scores.new_tensor(bound))


class _Picked(NamedTuple):
    """What was picked of some rows.

    Attributes:
        rows: (m,) int64.
        values: (m, D) float, what these rows hold.
        scores: (m,) float, as `k_center_greedy` has them.
        farthest: how far the farthest candidate is that was not picked.
        n_parts: of how many parts they are.
    """

    rows: Tensor
    values: Tensor
    scores: Tensor
    farthest: float
    n_parts: int


@dataclass(frozen=True)
class _Greedy:
    """`k_center_greedy` behind centres.

    Attributes:
        centers: (L, D) float.
        n: how many rows to pick, or all if there are fewer.
        settings: of `k_center_greedy`.
    """

    centers: Tensor
    n: int
    settings: dict[str, Any]

    def room(self, n_rows: int) -> Tensor:
        """Return room for so many rows behind the centres, (L + n_rows, D)."""
        room = self.centers.new_empty(len(self.centers) + n_rows, self.centers.shape[1])
        room[: len(self.centers)] = self.centers
        return room

    def __call__(self, x: Tensor, allowed: Tensor) -> _Picked:
        """Pick rows, whose numbers count from the first behind the centres.

        Shapes:
            x: (L + m, D) float, the centres and the rows.
            allowed: (m,) bool.
        """
        first = len(self.centers)
        is_center = torch.arange(len(x), device=x.device) < first
        candidates = torch.cat([allowed.new_zeros(first), allowed])
        count = min(self.n + 1, int(allowed.count_nonzero()))  # one more says how far it is that is left
        found = k_center_greedy(x, count, labeled=is_center, candidates=candidates, **self.settings)
        indices, scores = found.indices[: self.n], found.scores[: self.n]
        farthest = float(found.scores[self.n]) if count > self.n else 0.0
        return _Picked(indices - first, x[indices], scores, farthest, 1)


def _check_centers(centers: Tensor, numbers: Tensor, metric: Metric, chunk_rows: int) -> None:
    """Require of the labeled rows that they have distances, and call them by their numbers in the pool.

    Shapes:
        centers: (L, D) float.
        numbers: (L,) int64.
    """
    for x, of_x in zip(centers.split(chunk_rows), numbers.split(chunk_rows), strict=True):
        wrong = ~x.isfinite().all(1)
        if metric == "cosine":
            wrong |= (x == 0).all(1)
        if bool(wrong.any()):
            row = int(of_x[wrong.nonzero()[0]])
            what = " and have a direction" if metric == "cosine" else ""
            raise DataError(f"features must be finite{what}: labeled row {row} is not")


def _nothing(centers: Tensor) -> _Picked:
    """Return what a rank without candidates picked."""
    scores = centers.new_empty(0, dtype=torch.promote_types(centers.dtype, torch.float32))
    return _Picked(torch.empty(0, dtype=torch.int64, device=centers.device), centers[:0], scores, 0.0, 0)


def _picks_of_parts(reader: FeatureReader, candidates: Tensor, part_rows: int, greedy: _Greedy) -> _Picked:
    """Pick of each part of this rank's rows, by numbers that count from its first."""
    found = [_nothing(greedy.centers)]
    first = len(greedy.centers)
    room = greedy.room(min(part_rows, len(reader)))
    for begin in range(0, len(reader), part_rows):
        allowed = candidates[begin : begin + part_rows].to(reader.device)
        if not bool(allowed.any()):
            continue
        x = room[: first + len(allowed)]

        def read(start: int, stop: int, x: Tensor = x, begin: int = begin) -> None:
            rows = x[first + start : first + stop]
            rows.copy_(reader.read(begin + start, begin + stop))
            # here, for behind this no row has the number that it has in the pool
            check_rows(rows, greedy.settings["metric"], first_row=reader.shards.start + begin + start)

        reader.in_chunks(len(allowed), reader.chunk_rows(), read)
        if reader.shards.failed:  # what was read is not to be used, and nobody will look at what is picked
            break
        of_part = greedy(x, allowed)
        found.append(of_part._replace(rows=of_part.rows + begin))
    rows, values, scores, farthest, n_parts = zip(*found, strict=True)
    return _Picked(torch.cat(rows), torch.cat(values), torch.cat(scores), max(farthest), sum(n_parts))


def _picks_of_picks(rows: Tensor, values: Tensor, greedy: _Greedy) -> Tensor:
    """Pick n of the rows that the parts proposed.

    Returns:
        (n + 1, 2) float64: the picks and their scores, and behind them how far the farthest is that was not picked.
    """
    order = rows.argsort()  # equal distances go to the lowest row
    x = greedy.room(len(rows))
    torch.index_select(values, 0, order, out=x[len(greedy.centers) :])
    found = greedy(x, torch.ones_like(order, dtype=torch.bool))
    table = torch.zeros(greedy.n + 1, 2, dtype=torch.float64, device=rows.device)
    table[:-1, 0], table[:-1, 1], table[-1, 1] = rows[order][found.rows], found.scores, found.farthest
    return table


def _bounds(of_parts: float, of_picks: float, metric: Metric) -> tuple[float, float]:
    """Return a radius that is not exceeded, and one below which no n centres come.

    Args:
        of_parts: how far a candidate is at most from the picks of its part.
        of_picks: how far one of these is at most from those that were picked of them.
        metric: of both; cosine distances are half the squares of distances between rows of length 1.
    """
    power = 2 if metric == "cosine" else 1
    first, second = of_parts ** (1 / power), of_picks ** (1 / power)
    return (first + second) ** power, (max(first, second) / 2) ** power
