"""Information density: rows that are unsure, and like many others that are learned of with them."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_float, as_mask, check_at_least, check_finite, check_positive
from torchal._chunks import exact_arithmetic, values_per_chunk
from torchal.engine.distances import Rows, Space, make_space, survey, unit_rows
from torchal.engine.features import FeatureReader, Features
from torchal.engine.sources import StreamedRows
from torchal.errors import ConfigError, DataError, ShapeError

Similarity: TypeAlias = Literal["cosine", "rbf", "inverse"]

_BLOCKS = 4  # a block may be this many times as large as a chunk
_LARGEST = 1e300  # of a width: infinity times a distance of 0 would be no number


def information_density(
    features: Features,
    *,
    among: ArrayLike | None = None,
    similarity: Similarity = "cosine",
    gamma: float | None = None,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> Tensor:
    r"""Return how similar each row is to the rows of a pool, on average.

    A row of the pool is among those that it is compared with. The mean cosine is the product with the mean of the rows
    scaled to length 1; other similarities take all pairs, in blocks. A row of zeros, as a document without a known word
    is, has no direction: its cosine with every row is 0, also with itself.

    Args:
        features: a tensor on any device, an array, or a mapped file; they may be larger than the device's memory.
        among: the rows that all are compared with, as the unlabeled ones; all unless given.
        similarity: "cosine", in [-1, 1]; "rbf", exp(-gamma d^2) of the euclidean distance d; "inverse", 1 / (1 + d).
        gamma: of "rbf"; 1 / the sum of the columns' variances unless given, half the mean of d^2 being 1 then.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows read at once, and compared with as many others; what fits unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32; cosines and sums in float64.
        among: (N,) bool, on the features' device.

    Returns:
        (N,) at least float32, on the features' device.

    Raises:
        ShapeError: features is no float matrix, or `among` disagrees in shape, dtype or device.
        DataError: no rows, or none of them in `among`; features that are not finite.
        ConfigError: an unknown similarity; gamma is not above 0, or is given for another similarity.
        DeviceMemoryError: the smallest block does not fit on the device.

    Reference:
        Settles & Craven, "An Analysis of Active Learning Strategies for Sequence Labeling Tasks", EMNLP 2008, Section
        3.4, the density of equation 13 without its exponent; "inverse" is the similarity of the modAL package.

    Complexity:
        O(N D) for cosines, in two passes, else N^2 D / 2 multiply-adds; O(N) memory beyond the features, and blocks.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
        >>> information_density(x)
        tensor([0.6667, 0.6667, 0.3333])
        >>> information_density(x, similarity="inverse", among=torch.tensor([True, True, False]))
        tensor([0.7500, 0.7500, 0.2287])
    """
    check_similarity(similarity, gamma)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    n_rows = len(reader)
    if among is None:
        among = torch.ones(n_rows, dtype=torch.bool, device=reader.home)
    among = as_mask("among", among, n_rows=n_rows, device=reader.home)
    if not bool(among.any()):
        raise DataError(f"none of {n_rows} rows is in `among`: there is nothing to compare with")
    weights = among.to(reader.device)
    with exact_arithmetic(reader.device):
        if similarity == "cosine":
            sums = _cosines(reader, weights)
        else:
            space = make_space(reader, survey(reader, "euclidean"), "euclidean")
            source = StreamedRows(reader, space)
            width = _width(source, weights, gamma) if similarity == "rbf" else None
            size = chunk_rows or math.isqrt(_BLOCKS * values_per_chunk(reader.device))
            sums = reader.in_chunks.halve(size, lambda size: _similarities(source, weights, width, size))
    density = sums / weights.sum()
    return density.to(reader.home, torch.promote_types(reader.dtype, torch.float32))


def density_weighted(
    uncertainty: ArrayLike, density: ArrayLike, *, beta: float = 1.0, candidates: ArrayLike | None = None
) -> Tensor:
    """Return uncertainty x density^beta, by which a row far from all others is worth less than it is unsure.

    A product needs factors that are not negative. Where a candidate's uncertainty is, as in margins, the least one of
    the candidates is taken off all; a density below 0, as a mean cosine may be, counts as 0.

    Args:
        uncertainty: higher = less sure.
        density: see `information_density`.
        beta: how much density counts; 0 for not at all.
        candidates: the rows that are to be compared; all unless given.

    Shapes:
        uncertainty, density: (N,) float.
        candidates: (N,) bool.

    Returns:
        (N,) at least float32; -inf for rows that are no candidates.

    Raises:
        ShapeError: the tensors disagree in shape, dtype or device.
        DataError: an uncertainty of a candidate, or a density, is not finite.
        ConfigError: beta is not a finite number of at least 0.

    Reference:
        Settles & Craven, "An Analysis of Active Learning Strategies for Sequence Labeling Tasks", EMNLP 2008, equation
        13. There, uncertainties are entropies of sequences, and no factor is negative.

    Example:
        >>> density_weighted(torch.tensor([1.0, 0.8, 0.2]), torch.tensor([0.25, 0.5, 0.75]))
        tensor([0.2500, 0.4000, 0.1500])
    """
    check_beta(beta)
    density = as_float("density", density, ndim=1)
    check_finite("density", density)
    candidates = torch.ones_like(density, dtype=torch.bool) if candidates is None else candidates
    candidates = as_mask("candidates", candidates, n_rows=len(density), device=density.device)
    weights = density.clamp(min=0).to(torch.promote_types(density.dtype, torch.float32)).pow(beta)
    return non_negative(uncertainty, candidates=candidates) * weights.masked_fill_(~candidates, 1)


def non_negative(scores: ArrayLike, *, candidates: Tensor) -> Tensor:
    """Return scores, less that of the candidate wanted least if it is negative: for products with other factors.

    Shapes:
        scores: (N,) float.
        candidates: (N,) bool.

    Returns:
        (N,) at least float32; -inf for rows that are no candidates.

    Raises:
        ShapeError: scores are no float vector, or of another length or device than the candidates.
        DataError: a candidate's score is not finite.
    """
    scores = as_float("scores", scores, ndim=1, device=candidates.device)
    if scores.shape != candidates.shape or scores.device != candidates.device:
        raise ShapeError(
            f"scores must be ({len(candidates)},) on {candidates.device}, got {tuple(scores.shape)} on {scores.device}"
        )
    n_wrong = int((~scores.isfinite() & candidates).sum())
    if n_wrong:
        raise DataError(
            f"scores must be finite to be multiplied: {n_wrong} of {int(candidates.sum())} candidates' are not"
        )
    scores = scores.detach().to(torch.promote_types(scores.dtype, torch.float32))
    least = torch.where(candidates, scores, torch.inf).min().clamp(max=0)
    return torch.where(candidates, scores - least, -torch.inf)


def check_similarity(similarity: object, gamma: object) -> None:
    """Require a similarity that is known, and a gamma that it has a use for.

    Raises:
        ConfigError: an unknown similarity; gamma is not above 0, or is given for another similarity than "rbf".
    """
    if similarity not in get_args(Similarity):
        raise ConfigError(f"similarity must be one of {', '.join(get_args(Similarity))}; got {similarity!r}")
    if gamma is not None:
        check_positive("gamma", gamma)
        if similarity != "rbf":
            raise ConfigError(f"gamma is of 'rbf', the similarity is {similarity!r}")


def check_beta(beta: object) -> None:
    """Require a finite exponent of at least 0.

    Raises:
        ConfigError: it is something else.
    """
    check_at_least("beta", beta, least=0)


def _cosines(reader: FeatureReader, weights: Tensor) -> Tensor:
    """Return the sums of the cosines of each row with the rows of weight 1, (N,) float64."""
    survey(reader, "euclidean")  # the checks
    total = torch.zeros(reader.n_columns, dtype=torch.float64, device=reader.device)
    sums = torch.empty(len(reader), dtype=torch.float64, device=reader.device)

    def add(start: int, stop: int) -> None:
        units = unit_rows(reader.read(start, stop).double())
        total.add_(weights[start:stop].double() @ units)

    def measure(start: int, stop: int) -> None:
        # not by a product with a vector: equal rows must have equal bits, wherever in a chunk they are
        sums[start:stop] = unit_rows(reader.read(start, stop).double()).mul_(total).sum(1)

    for work in (add, measure):
        reader.in_chunks(len(reader), reader.chunk_rows(), work)
    return sums


def _width(source: StreamedRows, weights: Tensor, gamma: float | None) -> float:
    """Return what the values of a space are multiplied with: gamma, or 1 / the sum of the columns' variances."""
    scale = source.space.scale
    if gamma is not None:
        return min(float(gamma) / scale / scale, _LARGEST)
    total = torch.zeros(source.n_columns, dtype=torch.float64, device=weights.device)
    squares = torch.zeros((), dtype=torch.float64, device=weights.device)

    def add(where: slice, rows: Rows) -> None:
        weight = weights[where].double()
        total.add_(weight @ rows.x.double())
        squares.add_(weight @ rows.sq.double())

    source.each(add, width=2)
    n_rows = int(weights.sum())
    variance = float(squares) / n_rows - float((total / n_rows).square().sum())
    return min(1 / variance, _LARGEST) if variance > 0 else 1.0  # with no variance all distances are 0


def _similarities(source: StreamedRows, weights: Tensor, width: float | None, size: int) -> Tensor:
    """Return the sums of each row's similarities with the rows of weight 1, (N,): each pair of blocks serves both."""
    n_rows, space = len(source), source.space
    weights = weights.to(space.dtype)
    sums = torch.zeros(n_rows, dtype=torch.float64, device=weights.device)
    for first in range(0, n_rows, size):
        here = slice(first, min(first + size, n_rows))
        part = source.part(here.start, here.stop)
        rows = Rows(part.x.clone(), part.sq.clone())  # still there after the next read
        for second in range(first, n_rows, size):
            there = slice(second, min(second + size, n_rows))
            others = rows if second == first else source.part(there.start, there.stop)
            values = _as_similarities(space.pairwise(rows, others), space, width)
            sums[here] += values @ weights[there]
            if second != first:
                sums[there] += values.T @ weights[here]
    return sums


def _as_similarities(values: Tensor, space: Space, width: float | None) -> Tensor:
    if width is not None:
        return values.mul_(-width).exp_()
    return values.clamp_(min=0).sqrt_().div_(space.scale).add_(1).reciprocal_()
