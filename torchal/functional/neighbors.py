"""The nearest neighbours of every row: exact unless asked otherwise, in blocks, and never an N x N matrix."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_mask, as_rows, check_fraction, check_whole
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal._csr import csr_tensor
from torchal.distributed import Group, Shards, as_shards
from torchal.engine import faiss_search
from torchal.engine.distances import (
    Backend,
    Metric,
    Rows,
    Space,
    Survey,
    check_backend,
    check_metric,
    make_space,
    survey,
)
from torchal.engine.draws import draw_places
from torchal.engine.features import FeatureReader, Features
from torchal.engine.inverted_lists import InvertedLists, lowest_mean, sample_size
from torchal.engine.nearest import Best, measured_of_all_ranks, nearest_of_all_ranks, right_at_once
from torchal.engine.pool_rows import PoolRows
from torchal.engine.sources import StreamedRows
from torchal.errors import CapabilityError, ConfigError, ShapeError

GraphBackend: TypeAlias = Literal[Backend, "ivf"]

_SPARE = 8  # candidates kept beyond k, since rounding may hide a neighbour behind them
_AMONG = 256  # of the rows that can be neighbours are compared with a chunk at once
_BLOCKS = 4  # a block may be this many times as large as a chunk


class Neighbors(NamedTuple):
    """The nearest other rows of each row, the nearest first; of equally near ones the lowest row.

    Shapes:
        indices: (N, k) int64.
        distances: (N, k) float.
    """

    indices: Tensor
    distances: Tensor
    recall: float = 1.0
    """What share of the k nearest rows these are at least, as a mean over all rows, with a confidence of 95 %; 1 where
    the search was exact."""

    def to_csr(self) -> Tensor:
        """Return the distances as a sparse CSR tensor (N, N); a distance of 0 is an entry too."""
        n_rows, k = self.indices.shape
        columns, order = self.indices.sort(1)
        starts = torch.arange(0, n_rows * k + 1, k, device=columns.device)
        return csr_tensor(starts, columns.flatten(), self.distances.gather(1, order).flatten(), (n_rows, n_rows))


def knn_graph(
    features: Features,
    k: int,
    *,
    metric: Metric = "euclidean",
    backend: GraphBackend = "auto",
    recall: float = 0.95,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> Neighbors:
    """Find the k nearest other rows of each row: exactly, or, with the backend "ivf", most of them.

    A row is not its own neighbour; its duplicates are. Every pair of blocks is compared once, for both its sides. The
    distances of the best candidates are computed again as sums of differences; where rounding might have hidden a
    neighbour behind them, the row is compared once more in float64. Ties go to the lowest row where the features are
    whole numbers (below 2^25 / sqrt(D), cosine: 2^13 / sqrt(D)), and so they do among a row's own copies; of other rows
    that are equally far up to rounding, any may come first.

    The backend "ivf" compares each row with those of a few lists of faiss, whose centres k-means finds. How many lists
    is measured: at least 1000 rows are drawn, their neighbours found exactly, and the lists become more until the mean
    share of these that is found shows, with a confidence of 95 %, that it is at least `recall` over all rows; a row as
    near as the k-th nearest counts as one of them. What is shown is the result's `recall`. Where that takes half of the
    lists, or so many drawn rows that there are not more, or a `recall` of 1, the search is exact, since that costs no
    more. Distances are sums of differences as ever; ties go to the lowest of the rows that were found.

    Args:
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        k: neighbours of each row.
        metric: euclidean; cosine, which is 1 - cos; or manhattan.
        backend: "faiss", "torch", or "auto": faiss for manhattan distances on a CPU where it is installed, else torch,
            which is faster there. All these are exact; "ivf" is not, and is faster where there are many rows on a CPU.
        recall: the least share of the k nearest rows that is to be found, on average; for "ivf" alone.
        generator: the randomness of the lists and of the rows that are drawn to measure them; for "ivf" alone, which
            needs one.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows compared at once with as many others; what makes a block of 16 MiB (CPU) or 512 MiB (GPU),
            unless given.
        group: of ranks that call this together, each with its own rows, on the same kind of device; see
            `torchal.distributed`. The answer is about this rank's rows, and its row numbers are those of the pool.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64.

    Returns:
        indices and distances, (N, k), on the features' device; and recall.

    Raises:
        ConfigError: k is not between 1 and N - 1; an unknown metric or backend; a recall outside of (0, 1]; no
            generator for "ivf".
        ShapeError: features is no float matrix.
        DataError: no rows; features that are not finite; a row of zeros with cosine distances.
        CapabilityError: the faiss backend is asked for float64, for manhattan distances on a GPU, or for others with
            rows on several ranks; or "ivf" for manhattan distances, on a GPU, or with rows on several ranks.
        MissingExtraError: faiss is asked for and not installed, or "ivf" without it.
        DeviceMemoryError: the smallest block does not fit on the device.
        GroupError: another rank failed or is gone.

    Complexity:
        N^2 D / 2 multiply-adds; O(N k) memory beyond the features, and blocks. A rank of R of N rows does R N D, while
        all rows travel past it twice (where rounding may have hidden neighbours of any, four times), a block at once.
        "ivf" with p of its L = 4 sqrt(N) lists: N L D for choosing them, N^2 D p / L for comparing if lists are equally
        long, and as much as 6400 N D for k-means; its lists hold a copy of all rows in float32 beside the features,
        and k-means one of up to 40 L.

    Reference:
        Sivic & Zisserman, "Video Google: A Text Retrieval Approach to Object Matching in Videos", ICCV 2003, for lists
        of rows by their nearest centre; Hoeffding, "Probability inequalities for sums of bounded random variables",
        JASA 1963, (2.1), for the confidence, which one sample gives for all numbers of lists, since more of them find
        no fewer neighbours.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [3.0]])
        >>> knn_graph(x, 2).indices
        tensor([[1, 2],
                [0, 2],
                [3, 1],
                [2, 1]])
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        check_whole("k", k, least=1)
        check_metric(metric)
        _check_backend(backend, recall, generator, metric, shards)
        by_faiss = backend == "faiss" and metric != "manhattan"
        if by_faiss and not shards.alone:
            raise CapabilityError(f"faiss searches the rows of one process, asked for {shards.world_size} ranks")
        reader = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
        if backend == "ivf" and reader.device.type != "cpu":
            raise CapabilityError(
                f"the ivf backend searches on the CPU, asked for {reader.device}; use backend='torch'"
            )
        meeting.rows(len(reader), reader.n_columns)
        # the ranks send blocks of the same sizes
        meeting.same(
            k=k, metric=metric, backend=backend, dtype=reader.dtype, device=reader.device.type, chunk_rows=chunk_rows
        )
    n_rows = shards.n_rows
    if k >= n_rows:
        raise ConfigError(f"{k} neighbours of each row need at least {k + 1} rows, features has {n_rows}")
    with exact_arithmetic(reader.device):
        seen = survey(reader, metric)
        space = make_space(reader, seen, metric, backend if metric == "manhattan" and backend != "ivf" else "torch")
        kept = min(k + (1 if right_at_once(space) else _SPARE), n_rows - 1)
        size = chunk_rows or math.isqrt(_BLOCKS * values_per_chunk(reader.device))
        if not shards.alone:
            return _of_all_ranks(reader, seen, PoolRows(reader, space), k=k, kept=kept, metric=metric, size=size)
        source = StreamedRows(reader, space)
        if backend == "ivf" and generator is not None:
            most = _most_of_them(reader, seen, source, k=k, metric=metric, size=size, recall=recall, draws=generator)
            if most is not None:
                return most
        if by_faiss:
            candidates = _search_by_faiss(source, kept)
        else:
            candidates = reader.in_chunks.halve(size, lambda size: _search(source, kept, size))
        return _settled(reader, seen, source, candidates, k=k, metric=metric, size=size)


def nearest_among(
    features: Features,
    k: int,
    *,
    among: ArrayLike,
    metric: Metric = "euclidean",
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Neighbors:
    """Find the k nearest of some rows, as of the labeled ones, for each row; exactly.

    Each of those rows is also its own neighbour, with the distance 0. Exactness and ties are those of `knn_graph`.

    Args:
        features: as in `knn_graph`.
        k: neighbours of each row.
        among: the rows that can be neighbours.
        metric: euclidean; cosine, which is 1 - cos; or manhattan.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows compared at once with as many of the others as fit, unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64.
        among: (N,) bool, on the features' device.

    Returns:
        indices, rows of `among`, and distances, (N, k), on the features' device.

    Raises:
        ConfigError: k is not between 1 and the number of rows of `among`; an unknown metric.
        ShapeError: features is no float matrix, or `among` disagrees in shape, dtype or device.
        DataError: no rows; features that are not finite; a row of zeros with cosine distances.
        DeviceMemoryError: the smallest block does not fit on the device.

    Complexity:
        N L D multiply-adds for L rows of `among`, in one pass; O(N k + L D) memory beyond the features, and blocks.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [9.0]])
        >>> nearest_among(x, 2, among=torch.tensor([True, False, True, True])).indices
        tensor([[0, 2],
                [0, 2],
                [2, 0],
                [3, 2]])
    """
    check_whole("k", k, least=1)
    check_metric(metric)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    among = as_mask("among", among, n_rows=len(reader), device=reader.home)
    others = among.to(reader.device).nonzero().squeeze(1)
    if k > len(others):
        raise ConfigError(f"{k} neighbours of each row were asked for among {len(others)} rows")
    with exact_arithmetic(reader.device):
        seen = survey(reader, metric)
        space = make_space(reader, seen, metric, "torch")
        kept = min(k + (1 if right_at_once(space) else _SPARE), len(others))
        source = StreamedRows(reader, space)
        size = chunk_rows or math.isqrt(_BLOCKS * values_per_chunk(reader.device))
        candidates = reader.in_chunks.halve(size, lambda size: _search_among(source, others, kept, size))
        return _settled(reader, seen, source, candidates, k=k, metric=metric, size=size, others=others)


def neighbors_of(
    features: Features,
    k: int,
    *,
    rows: ArrayLike,
    metric: Metric = "euclidean",
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Neighbors:
    """Find the k nearest other rows of each of some rows, as of the labeled ones; exactly.

    These are their rows of `knn_graph`, without the others. Exactness and ties are those of `knn_graph`.

    Args:
        features: as in `knn_graph`.
        k: neighbours of each row.
        rows: whose neighbours are wanted.
        metric: euclidean; cosine, which is 1 - cos; or manhattan.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows compared at once with as many others, unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64.
        rows: (L,) int64, distinct.

    Returns:
        indices and distances, (L, k), in the order of `rows`, on the features' device.

    Raises:
        ConfigError: k is not between 1 and N - 1; an unknown metric.
        ShapeError: features is no float matrix; no rows, or rows that repeat or lie outside of [0, N).
        DataError: no rows; features that are not finite; a row of zeros with cosine distances.
        DeviceMemoryError: the smallest block does not fit on the device.

    Complexity:
        N L D multiply-adds; O(N + L k) memory beyond the features, and blocks.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0], [3.0]])
        >>> neighbors_of(x, 2, rows=torch.tensor([1, 3])).indices
        tensor([[0, 2],
                [2, 1]])
    """
    check_whole("k", k, least=1)
    check_metric(metric)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    rows = as_rows("rows", rows, n_rows=len(reader), device=reader.device)
    if not len(rows):
        raise ShapeError("rows must name at least one row, got none")
    if k >= len(reader):
        raise ConfigError(f"{k} neighbours of each row need at least {k + 1} rows, features has {len(reader)}")
    with exact_arithmetic(reader.device):
        seen = survey(reader, metric)
        space = make_space(reader, seen, metric, "torch")
        kept = min(k + (1 if right_at_once(space) else _SPARE), len(reader) - 1)
        source = StreamedRows(reader, space)
        size = chunk_rows or math.isqrt(_BLOCKS * values_per_chunk(reader.device))
        candidates = reader.in_chunks.halve(size, lambda size: _search_for(source, rows, kept, size))
        return _settled(reader, seen, source, candidates, k=k, metric=metric, size=size, rows=rows)


def _settled(
    reader: FeatureReader,
    seen: Survey,
    source: StreamedRows,
    candidates: Neighbors,
    *,
    k: int,
    metric: Metric,
    size: int,
    rows: Tensor | None = None,
    others: Tensor | None = None,
) -> Neighbors:
    """Return the k nearest of the candidates (R, K) of some rows (R,) and their distances, as measured again.

    All rows unless given. `others` (L,) are the rows that can be neighbours: all but the row itself unless given.
    """
    space, kept = source.space, candidates.indices.shape[1]
    found = _measured_again(source, candidates, k, rows)
    if not right_at_once(space) and kept < (len(reader) - 1 if others is None else len(others)):
        # What was not kept is at least as far as the last one kept, up to the rounding of both.
        error = space.bound * ((source.sq if rows is None else source.sq[rows]) + source.longest_sq)
        doubtful = (found.distances[:, -1] > candidates.distances[:, -1] - error).nonzero().squeeze(1)
        if len(doubtful):
            wanted = doubtful if rows is None else rows[doubtful]
            fine = StreamedRows(reader, make_space(reader, seen._replace(whole=False), metric, dtype=torch.float64))
            again = reader.in_chunks.halve(size, lambda size: _search_for(fine, wanted, kept, size, others))
            again = _measured_again(fine, again, k, rows=wanted)
            found.indices[doubtful] = again.indices
            found.distances[doubtful] = again.distances.to(found.distances.dtype)
    return _at_home(reader, space, found)


def _of_all_ranks(
    reader: FeatureReader, seen: Survey, pool: PoolRows, *, k: int, kept: int, metric: Metric, size: int
) -> Neighbors:
    """Do what `knn_graph` does, after its checks, for this rank's rows among those of all ranks."""
    source, space, shards = pool.source, pool.source.space, reader.shards
    candidates, values = nearest_of_all_ranks(pool, kept, size)
    indices, found = measured_of_all_ranks(pool, candidates, k)
    if not right_at_once(space) and kept < shards.n_rows - 1:  # as in `_settled`
        error = space.bound * (source.sq + source.longest_sq)
        doubtful = (found[:, -1] > values[:, -1] - error).nonzero().squeeze(1)
        if shards.total(len(doubtful)):
            fine = PoolRows(reader, make_space(reader, seen._replace(whole=False), metric, dtype=torch.float64))
            candidates, _ = nearest_of_all_ranks(fine, kept, size, wanted=doubtful)
            indices[doubtful], values = measured_of_all_ranks(fine, candidates, k, wanted=doubtful)
            found[doubtful] = values.to(found.dtype)
    shards.settle()
    return _at_home(reader, space, Neighbors(indices, found))


def _at_home(reader: FeatureReader, space: Space, found: Neighbors) -> Neighbors:
    """Return neighbours with values of a space as what they are called outside: with distances, beside the features."""
    dtype = torch.promote_types(reader.dtype, torch.float32)
    distances = space.distance(found.distances).to(reader.home, dtype)
    return found._replace(indices=found.indices.to(reader.home), distances=distances)


def _check_backend(
    backend: object, recall: object, generator: torch.Generator | None, metric: Metric, shards: Shards
) -> None:
    """Require a backend that is known, and, of lists of rows, what they can do."""
    check_backend(backend, among=GraphBackend)
    check_fraction("recall", recall)
    if backend != "ivf":
        return
    if metric == "manhattan":
        raise CapabilityError(
            "the ivf backend has euclidean and cosine distances, got 'manhattan'; use backend='faiss'"
        )
    if not shards.alone:
        raise CapabilityError(f"the ivf backend searches the rows of one process, asked for {shards.world_size} ranks")
    if generator is None:
        raise ConfigError("the ivf backend draws rows at random and needs a generator, got None")
    faiss_search.load()


def _most_of_them(
    reader: FeatureReader,
    seen: Survey,
    source: StreamedRows,
    *,
    k: int,
    metric: Metric,
    size: int,
    recall: float,
    draws: torch.Generator,
) -> Neighbors | None:
    """Return neighbours of which at least the share `recall` is right, or None where exact search costs no more."""
    space, n_rows, n_sampled = source.space, len(source), sample_size(recall)
    if n_sampled is None or n_sampled >= n_rows:
        return None
    kept = min(k + _SPARE, n_rows - 1)
    lists = InvertedLists(source, draws)
    sample = draw_places(n_sampled, n_rows, draws).to(reader.device).sort().values
    right = reader.in_chunks.halve(size, lambda size: _search_for(source, sample, kept, size))
    right = _settled(reader, seen, source, right, k=k, metric=metric, size=size, rows=sample)

    def measured(n_probes: int, rows: Tensor | None = None) -> Neighbors:
        near = lists.nearest(kept, n_probes, wanted=rows)
        candidates = Neighbors(near, near.new_empty(0))  # which are measured again whatever they were
        return _at_home(reader, space, _measured_again(source, candidates, k, rows))

    n_probes = 1
    while True:
        shown = lowest_mean(_share_found(measured(n_probes, sample), right), n_sampled)
        if shown >= recall:
            return measured(n_probes)._replace(recall=shown)
        n_probes += (n_probes + 1) // 2
        if 2 * n_probes > lists.n_lists:  # as many pairs as the exact search, which compares each for both its sides
            return None


def _share_found(found: Neighbors, right: Neighbors) -> float:
    """Return what share of the right neighbours (R, k) was found; rows as near as the last of them are as good."""
    good = found.distances <= right.distances[:, -1:]
    for column in right.indices.unbind(1):  # where rounding made the same row's distance another
        good |= found.indices == column.unsqueeze(1)
    return float(good.double().mean())


def _search(source: StreamedRows, k: int, size: int) -> Neighbors:
    """Return the k rows that are nearest to each row by rough values: each pair of blocks serves both its sides."""
    n_rows, space = len(source), source.space
    best = Best(n_rows, k, source.sq, step=space.whole_step(n_rows), ordered=right_at_once(space))
    numbers = torch.arange(n_rows, device=source.sq.device)
    for first in range(0, n_rows, size):  # at first within blocks, so that later ones have something to beat
        here = slice(first, min(first + size, n_rows))
        rows = source.part(here.start, here.stop)
        values = space.rough(rows, rows).fill_diagonal_(torch.inf)  # a row is not its own neighbour
        best.merge(here, values, numbers[here])
    for first in range(0, n_rows, size):
        here = slice(first, min(first + size, n_rows))
        rows = _own(source.part(here.start, here.stop))
        for second in range(here.stop, n_rows, size):
            there = slice(second, min(second + size, n_rows))
            values = space.rough(rows, source.part(there.start, there.stop))
            best.merge(here, values, numbers[there])
            best.merge(there, values, numbers[here], turned=True)
    return Neighbors(*best.sorted())


def _search_among(source: StreamedRows, others: Tensor, k: int, size: int) -> Neighbors:
    """Return the k of the others (L,) that are nearest to each row by rough values."""
    n_rows, space = len(source), source.space
    best = Best(n_rows, k, source.sq, step=space.whole_step(len(others)), ordered=right_at_once(space))
    wide = max(4 * k, min(size, _AMONG))
    blocks = [source.select(some) for some in others.split(wide)]
    numbers = torch.arange(len(others), device=others.device).split(wide)

    def compare(start: int, stop: int) -> None:
        rows, here = source.part(start, stop), slice(start, stop)
        best.clear(here)  # a chunk may be started anew
        for number, block in zip(numbers, blocks, strict=True):
            best.merge(here, space.rough(rows, block), number)

    source.in_chunks(n_rows, source.reader.chunk_rows(wide), compare)
    found = Neighbors(*best.sorted())
    return found._replace(indices=others[found.indices])


def _search_for(source: StreamedRows, wanted: Tensor, k: int, size: int, others: Tensor | None = None) -> Neighbors:
    """Return the k rows, or the k of the others (L,), that are nearest to the wanted ones (n,)."""
    n_others = len(source) if others is None else len(others)
    best = Best(len(wanted), k, source.sq, step=source.space.whole_step(n_others), ordered=True)
    numbers = torch.arange(n_others, device=wanted.device)
    for start in range(0, len(wanted), size):
        here = slice(start, min(start + size, len(wanted)))
        rows = source.select(wanted[here])
        for first in range(0, n_others, size):
            stop = min(first + size, n_others)
            if others is not None:
                values = source.space.pairwise(rows, source.select(others[first:stop]))
                best.merge(here, values, numbers[first:stop])
                continue
            values = source.space.pairwise(rows, source.part(first, stop))
            own = (wanted[here] >= first) & (wanted[here] < stop)
            values[own.nonzero().squeeze(1), wanted[here][own] - first] = torch.inf
            best.merge(here, values, numbers[first:stop])
    found = Neighbors(*best.sorted())
    return found if others is None else found._replace(indices=others[found.indices])


def _search_by_faiss(source: StreamedRows, k: int) -> Neighbors:
    """Return the k rows that faiss finds nearest to each row."""
    if source.space.dtype != torch.float32:
        raise CapabilityError(f"the faiss backend computes in float32, these features need {source.space.dtype}")
    rows = source.part(0, len(source))
    values, indices = faiss_search.nearest_rows(rows.x.contiguous(), k + 1)
    values = values.masked_fill(indices == torch.arange(len(source), device=indices.device).unsqueeze(1), torch.inf)
    order = values.sort(1)  # a row is often, but among duplicates not always, found for itself
    return Neighbors(indices.gather(1, order.indices)[:, :k], order.values[:, :k])


def _measured_again(source: StreamedRows, candidates: Neighbors, k: int, rows: Tensor | None = None) -> Neighbors:
    """Return the k nearest of the candidates (R, K) of some rows by sums of differences, as values of the space."""
    n_rows, kept = candidates.indices.shape
    device = source.sq.device
    indices = torch.empty((n_rows, k), dtype=torch.int64, device=device)
    values = torch.empty((n_rows, k), dtype=source.sq.dtype, device=device)

    def measure(start: int, stop: int) -> None:
        others = candidates.indices[start:stop].sort(1).values  # so that ties go to the lowest row
        own = torch.arange(start, stop, device=device) if rows is None else rows[start:stop]
        a = source.select(own).select(torch.arange(len(own), device=device).repeat_interleave(kept))
        value = source.space.between(a, source.select(others.flatten())).view(stop - start, kept)
        near = value.sort(dim=1, stable=True)
        indices[start:stop] = others.gather(1, near.indices)[:, :k]
        values[start:stop] = near.values[:, :k]

    source.in_chunks(n_rows, max(1, values_per_chunk(device) // (kept * source.n_columns)), measure)
    return Neighbors(indices, values)


def _own(rows: Rows) -> Rows:
    """Return rows that are still there after the next read."""
    return Rows(rows.x.clone(), rows.sq)
