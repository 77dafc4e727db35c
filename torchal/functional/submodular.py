"""Submodular coverage: rows such that every row of the pool is like one of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_row_weights, check_budget, check_fraction, check_whole
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.distributed import Group, Meeting, as_shards
from torchal.engine.affinity import Affinity, Similarity, check_similarity, highest_with, open_affinity, pool_of
from torchal.engine.coverage import MAX_HELD, Coverage
from torchal.engine.distances import Rows
from torchal.engine.features import FeatureReader, Features
from torchal.engine.saturated_coverage import SaturatedCoverage, summed_similarities
from torchal.engine.sources import HeldRows, Source
from torchal.functional.k_center import check_masks


class Covering(NamedTuple):
    """Rows in the order in which they were picked, and how near to the best they are.

    Shapes:
        indices: (n,) int64, rows of the pool.
        scores: (n,) float, what each pick added when it was picked.
    """

    indices: Tensor
    scores: Tensor
    value: float
    """What the picks reach, together with the labeled rows."""
    bound: float
    """What no n picks can reach more than."""


def facility_location(
    features: Features,
    n: int,
    *,
    similarity: Similarity = "cosine",
    gamma: float | None = None,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    max_held: int = MAX_HELD,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> Covering:
    r"""Pick, again and again, the row that adds most to the sum of every row's highest similarity with a pick.

    The sum is over all rows, weighted; a similarity below 0 counts as 0. Labeled rows are picks from the start. The
    picks are those of the plain greedy algorithm, one by one, and reach at least 1 - 1/e of what any n picks could;
    what they reach in fact, and what no picks can reach more than, is said beside them. Gains that differ by less than
    the rounding of their similarities count as equal, and the lowest row is picked. When no row adds anything any more,
    the rest are the lowest rows, with score 0.

    A row of zeros, as a blank image or a document without a known word is, has no direction: its cosine with every row
    is 0, also with itself. So it adds nothing, and nothing covers it.

    The cost is quadratic in the number of rows: a million of them have 10^12 similarities, so draw fewer first
    (`SubPool` does). Up to 8192 rows all similarities are held, of more where `max_held` says so; else no N x N matrix
    is ever made.

    Args:
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        n: how many rows to pick.
        similarity: cosine; rbf, exp(-gamma d^2) of the euclidean distance d; or euclidean, 1 / (1 + d).
        gamma: of rbf; 1 / the sum of the columns' variances unless given, half the mean of d^2 being 1 then.
        labeled: rows that cover others from the start.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        weights: how much each row wants to be covered; 1 unless given.
        max_held: of no more similarities than these, N^2, all are held, 4 bytes each (8 in float64): two to three times
            as fast at 20 000 rows, for which 2**29 is enough.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; what fits unless given.
        group: of ranks that call this together, each with its own rows, on the same kind of device; see
            `torchal.distributed`.

    Shapes:
        features: (N, D) float. Half precision is computed in float32; rbf in float64 where float32 is too coarse.
        labeled, candidates: (N,) bool, on the features' device.
        weights: (N,) float, at least 0, on the features' device.

    Returns:
        indices (n,) in pick order; scores (n,), what each pick added; value, what is reached, and bound, a number that
        no n picks can exceed.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ConfigError: an unknown similarity; gamma is not above 0, or is given for another similarity; max_held is no
            whole number of at least 0.
        ShapeError: features is no float matrix; a mask or the weights disagree in shape, dtype or device.
        DataError: no rows; features that are not finite; weights that are negative or not finite.
        DeviceMemoryError: the smallest chunk does not fit on the device.
        GroupError: another rank failed or is gone.

    Reference:
        Nemhauser, Wolsey & Fisher, "An analysis of approximations for maximizing submodular set functions",
        Mathematical Programming 1978, for greedy picks and their share of the best; Minoux, "Accelerated greedy
        algorithms for maximizing submodular set functions", 1978, for bounds in place of gains; Wei, Iyer & Bilmes,
        "Submodularity in Data Subset Selection and Active Learning", ICML 2015, for the use in active learning. There
        the rows are first filtered by uncertainty, which `candidates` or `weights` can do here.

    Complexity:
        N^2 D / 2 multiply-adds to begin with, and several times that in all; the plain greedy takes
        n N^2 D, or N^2 numbers of memory. O(N) memory beyond a copy of at most 2^27 numbers of features, `max_held`
        similarities, and chunks. Of rows on several ranks, one with R of them does R N D multiply-adds to begin with,
        has O(N) numbers for the pool's candidates, and holds its R N similarities if no rank has more than `max_held`;
        else the pool's rows travel past it, a block at once, whenever all gains are computed anew.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.1], [1.0, -0.1], [-1.0, 0.0]])
        >>> covering = facility_location(x, 2)
        >>> covering.indices, round(covering.value, 2)
        (tensor([0, 3]), 3.99)
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        check_similarity(similarity, gamma)
        reader = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
        labeled, candidates, weights = checked_pool(reader, labeled, candidates, weights, max_held=max_held)
        _say(meeting, reader, candidates, max_held)
        meeting.same(n=n, similarity=similarity, gamma=gamma)
    check_budget(n, meeting.totals[0])
    with exact_arithmetic(reader.device):
        affinity, source = open_affinity(reader, similarity, gamma=gamma)
        return greedy_covering(
            reader,
            affinity,
            source,
            n,
            labeled=labeled,
            candidates=candidates,
            weights=weights,
            max_held=max_held,
        )


def saturated_coverage(
    features: Features,
    n: int,
    *,
    saturation: float = 0.1,
    similarity: Similarity = "cosine",
    gamma: float | None = None,
    labeled: ArrayLike | None = None,
    candidates: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    max_held: int = MAX_HELD,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
    group: Group | None = None,
) -> Covering:
    r"""Pick, again and again, the row that adds most to the similarities of every row with all picks, up to enough.

    A row has enough when its similarities with the picks sum to a share `saturation` of those with all rows; what is
    beyond counts no more. So picks represent the dense regions of the pool until these have enough, and then the
    others. Else as `facility_location`, what is said there of guarantees, ties and costs included; when all rows have
    enough, the rest are the lowest rows, with score 0.

    Args:
        features: as in `facility_location`.
        n: how many rows to pick.
        saturation: how much is enough, in (0, 1]; with 1 nothing ever is, and the picks are those most like all rows.
        similarity: cosine; rbf, exp(-gamma d^2) of the euclidean distance d; or euclidean, 1 / (1 + d).
        gamma: of rbf; 1 / the sum of the columns' variances unless given.
        labeled: rows whose similarities count from the start.
        candidates: the rows that may be picked; those that are not labeled, unless given.
        weights: how much each row wants to be covered; 1 unless given.
        max_held: as in `facility_location`.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once; what fits unless given.
        group: as in `facility_location`.

    Shapes:
        features: (N, D) float, as in `facility_location`.
        labeled, candidates: (N,) bool, on the features' device.
        weights: (N,) float, at least 0, on the features' device.

    Returns:
        As `facility_location`.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ConfigError: saturation is not in (0, 1]; an unknown similarity; gamma is not above 0, or is given for another
            similarity; max_held is no whole number of at least 0.
        ShapeError: features is no float matrix; a mask or the weights disagree in shape, dtype or device.
        DataError: no rows; features that are not finite; weights that are negative or not finite.
        DeviceMemoryError: the smallest chunk does not fit on the device.
        GroupError: another rank failed or is gone.

    Reference:
        Lin & Bilmes, "A Class of Submodular Functions for Document Summarization", ACL 2011, equation 3, the coverage
        without the diversity. Similarities below 0 count as 0.

    Complexity:
        N^2 D multiply-adds to begin with, then as `facility_location`.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.1], [0.0, 1.0]])
        >>> saturated_coverage(x, 2, saturation=0.25).indices
        tensor([2, 4])
    """
    shards = as_shards(group)
    with shards.meeting() as meeting:
        check_fraction("saturation", saturation)
        check_similarity(similarity, gamma)
        reader = FeatureReader(features, device=device, chunk_rows=chunk_rows, shards=shards)
        labeled, candidates, weights = checked_pool(reader, labeled, candidates, weights, max_held=max_held)
        _say(meeting, reader, candidates, max_held)
        meeting.same(n=n, saturation=saturation, similarity=similarity, gamma=gamma)
    check_budget(n, meeting.totals[0])
    with exact_arithmetic(reader.device):
        affinity, source = open_affinity(reader, similarity, gamma=gamma)
        columns = pool_of(reader, affinity, source)
        most = saturation * summed_similarities(affinity, source, columns, shards)[shards.start : shards.stop]
        room = most.clone()
        for centers in _centers(labeled, reader, columns):
            if len(source):
                rows = HeldRows(centers, source.longest_sq, source.in_chunks)
                room -= summed_similarities(affinity, rows, source)
        room.clamp_(min=0)
        weights = _as_weights(weights, reader, affinity)
        coverage = SaturatedCoverage(
            affinity,
            source,
            columns,
            room=room,
            weights=weights,
            allowed=shards.all_gather(candidates.to(reader.device)),
            max_held=max_held,
            shards=shards,
        )
        picked, gains, value, bound = coverage.pick_and_bound(n)
        start = float(shards.all_reduce(weights.double() @ (most - room)))
    scores = gains.to(reader.home, torch.promote_types(reader.dtype, torch.float32))
    return Covering(picked.to(reader.home), scores, start + value, start + bound)


def _say(meeting: Meeting, reader: FeatureReader, candidates: Tensor, max_held: object) -> None:
    """Say what the ranks count together, and what must be the same on all of them."""
    meeting.rows(len(reader), reader.n_columns)
    meeting.count(candidates.sum())
    # the ranks send blocks of the same sizes, and hold all similarities or none of them does
    meeting.same(dtype=reader.dtype, device=reader.device.type, chunk_rows=reader.given_chunk_rows, max_held=max_held)


def checked_pool(
    reader: FeatureReader,
    labeled: ArrayLike | None,
    candidates: ArrayLike | None,
    weights: ArrayLike | None,
    *,
    max_held: object,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return which rows are labeled, which may be picked, and the weights, after the checks of all coverage."""
    check_whole("max_held", max_held, least=0)
    labeled, candidates = check_masks(labeled, candidates, n_rows=len(reader), device=reader.home)
    if weights is not None:
        weights = as_row_weights("weights", weights, n_rows=len(reader), device=reader.home)
    return labeled, candidates, weights


def greedy_covering(
    reader: FeatureReader,
    affinity: Affinity,
    source: Source,
    n: int,
    *,
    labeled: Tensor,
    candidates: Tensor,
    weights: Tensor | None,
    max_held: int,
) -> Covering:
    """Pick n candidates of an opened pool; labeled rows are picks from the start."""
    weights = _as_weights(weights, reader, affinity)
    columns = pool_of(reader, affinity, source)
    values = torch.zeros(len(reader), dtype=affinity.dtype, device=reader.device)
    for centers in _centers(labeled, reader, columns):
        torch.maximum(values, highest_with(source, centers, affinity), out=values)
    coverage = Coverage(
        affinity,
        source,
        columns,
        values=values,
        weights=weights,
        allowed=reader.shards.all_gather(candidates.to(reader.device)),
        max_held=max_held,
        shards=reader.shards,
    )
    picked, gains, value, bound = coverage.pick_and_bound(n)
    scores = gains.to(reader.home, torch.promote_types(reader.dtype, torch.float32))
    return Covering(picked.to(reader.home), scores, value, bound)


def _centers(labeled: Tensor, reader: FeatureReader, pool: Source) -> Iterator[Rows]:
    """Yield the labeled rows of all ranks; those of several ranks a chunk at once."""
    shards = reader.shards
    centers = shards.numbers_of(labeled.to(reader.device))
    size = len(centers) if shards.alone else values_per_chunk(reader.device) // reader.n_columns
    for some in centers.split(max(1, size)) if len(centers) else ():
        yield pool.select(some)


def _as_weights(weights: Tensor | None, reader: FeatureReader, affinity: Affinity) -> Tensor:
    """Return weights as the engine takes them; 1 where none are given."""
    if weights is None:
        return torch.ones(len(reader), dtype=affinity.dtype, device=reader.device)
    return weights.detach().to(reader.device, affinity.dtype)
