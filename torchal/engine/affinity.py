"""How alike rows are: similarities of at most 1, as one matrix product and what is done to its numbers in place."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from torchal._checks import check_positive
from torchal._chunks import values_per_chunk
from torchal.engine.distances import CosineSpace, Rows, Space, make_space, survey
from torchal.engine.features import FeatureReader
from torchal.engine.pool_rows import OwnRows, PoolRows
from torchal.engine.sources import HeldRows, Source, StreamedRows
from torchal.errors import ConfigError

Similarity: TypeAlias = Literal["cosine", "rbf", "euclidean"]

_HELD = 1 << 27  # numbers; ready rows up to here are kept, since every pick reads all of them
_TOLD_APART = 1e-4  # kernels whose numbers float32 rounds by more than this are computed in float64


class Affinity:
    """The similarity of rows that a space made ready: the cosine, from -1 to 1; of a row of zeros 0 with every row.

    Args:
        space: makes rows ready.
        error: how far, in machine epsilons, a similarity may be off by rounding.
    """

    def __init__(self, space: Space, error: float = 4.0) -> None:
        self.space = space
        self.dtype = space.dtype
        self.error = error * torch.finfo(space.dtype).eps

    def between(self, a: Rows, b: Rows) -> Tensor:
        """Return the similarity of all pairs, (A, B)."""
        return a.x @ b.x.T


class RbfAffinity(Affinity):
    """exp(-gamma d^2)."""

    def __init__(self, space: Space, gamma: float, longest_sq: float) -> None:
        # Beyond these limits a kernel is 1 between equal rows only, or between all.
        self._rate = min(gamma / space.scale / space.scale, 1e100 / max(longest_sq, 1e-200))
        super().__init__(space, 4 * max(1.0, self._rate * longest_sq))
        self._sharp = space.dtype == torch.float64 and self.error >= _TOLD_APART
        if self._sharp:
            self.error = _TOLD_APART

    def between(self, a: Rows, b: Rows) -> Tensor:
        """Return the similarity of all pairs, (A, B)."""
        rate = self._rate
        if self._sharp:  # where equal rows must have the distance 0
            return self.space.pairwise(a, b).clamp_(min=0).mul_(-rate).exp_()
        values = torch.addmm(b.sq * -rate, a.x, b.x.T, alpha=2 * rate).sub_((rate * a.sq).unsqueeze(1))
        return values.clamp_(max=0).exp_()


class EuclideanAffinity(Affinity):
    """1 / (1 + d)."""

    def between(self, a: Rows, b: Rows) -> Tensor:
        """Return the similarity of all pairs, (A, B)."""
        values = self.space.pairwise(a, b).clamp_(min=0).sqrt_()
        return values.mul_(1 / self.space.scale).add_(1).reciprocal_()


def open_affinity(
    reader: FeatureReader, similarity: Similarity, *, gamma: float | None = None, unit: bool = False
) -> tuple[Affinity, Source]:
    """Return the affinity of all rows, and where they are, ready: of several ranks' rows, this rank's own.

    Args:
        reader: the rows.
        similarity: cosine; rbf, which is exp(-gamma d^2); or euclidean, which is 1 / (1 + d).
        gamma: of rbf; 1 / the sum of the columns' variances unless given.
        unit: whether rows are scaled to length 1 before their distance is taken; a row of zeros stays.

    Raises:
        DataError: features that are not finite.
    """
    unit = unit or similarity == "cosine"
    seen = survey(reader, "euclidean")
    dtype = torch.promote_types(reader.dtype, torch.float32)
    for computed in (dtype, torch.float64):
        space = (
            CosineSpace(n_columns=reader.n_columns, dtype=computed)
            if unit
            else make_space(reader, seen, "euclidean", dtype=computed)
        )
        source = StreamedRows(reader, space)
        affinity = _affinity(similarity, space, source, gamma)
        if affinity.error < _TOLD_APART:
            break
    if not reader.shards.alone:
        _ = source.longest_sq  # asked for by all ranks, whether or not they hold their rows
    if len(reader) * reader.n_columns <= _HELD:
        return affinity, _held(reader, affinity.space, source)
    return affinity, source if reader.shards.alone else OwnRows(source)


def pool_of(reader: FeatureReader, affinity: Affinity, source: Source) -> Source:
    """Return the rows of all ranks; those of `open_affinity` themselves where there is one rank."""
    return source if reader.shards.alone else PoolRows(reader, affinity.space)


def _affinity(similarity: Similarity, space: Space, source: StreamedRows, gamma: float | None) -> Affinity:
    if similarity == "cosine":
        return Affinity(space)
    if similarity == "euclidean":
        return EuclideanAffinity(space)
    return RbfAffinity(space, _inverse_variance(space, source) if gamma is None else gamma, float(source.longest_sq))


def _inverse_variance(space: Space, source: StreamedRows) -> float:
    """Return 1 / the sum of the columns' variances; 0 where all rows are equal, which any number would do for."""
    total = torch.zeros(source.n_columns, dtype=torch.float64, device=source.longest_sq.device)
    squares = torch.zeros_like(total[0])

    def add(_: slice, rows: Rows) -> None:
        total.add_(rows.x.sum(0, dtype=torch.float64))
        squares.add_(rows.sq.sum(dtype=torch.float64))

    source.each(add, width=1)
    n_rows = source.shards.n_rows
    total, squares = source.shards.all_reduce(torch.cat([total, squares.unsqueeze(0)])).split([len(total), 1])
    variance = float(squares / n_rows - (total / n_rows).square().sum())
    return space.scale * space.scale / variance if variance > 0 else 0.0


def _held(reader: FeatureReader, space: Space, source: Source) -> HeldRows:
    """Return all rows, ready, in the memory of the device."""
    x = torch.empty(len(reader), reader.n_columns, dtype=space.dtype, device=reader.device)
    sq = torch.empty(len(reader), dtype=space.dtype, device=reader.device)

    def keep(where: slice, rows: Rows) -> None:
        x[where], sq[where] = rows

    source.each(keep, width=1)
    return HeldRows(Rows(x, sq), source.longest_sq, source.in_chunks)


def check_similarity(similarity: object, gamma: object) -> None:
    """Require a similarity that is known, and a gamma that it has a use for.

    Raises:
        ConfigError: an unknown similarity; gamma is not above 0, or is given for another similarity than rbf.
    """
    if similarity not in get_args(Similarity):
        raise ConfigError(f"similarity must be one of {', '.join(get_args(Similarity))}, got {similarity!r}")
    if gamma is not None:
        check_positive("gamma", gamma)
        if similarity != "rbf":
            raise ConfigError(f"gamma is of 'rbf', the similarity is {similarity!r}")


def part(source: Source, start: int, stop: int, device: torch.device) -> Rows:
    """Return rows start to stop, ready."""
    if isinstance(source, HeldRows):
        return Rows(source.rows.x[start:stop], source.rows.sq[start:stop])
    return source.select(torch.arange(start, stop, device=device))


def highest_with(source: Source, rows: Rows, affinity: Affinity) -> Tensor:
    """Return the highest similarity of each row of a source with any of these rows (A, D), (N,)."""
    highest = torch.full((len(source),), -torch.inf, dtype=affinity.dtype, device=rows.x.device)
    size = max(1, values_per_chunk(rows.x.device) // 1024)

    def look(where: slice, some: Rows) -> None:
        for start in range(0, len(rows.x), size):
            others = Rows(rows.x[start : start + size], rows.sq[start : start + size])
            torch.maximum(highest[where], affinity.between(some, others).amax(1), out=highest[where])

    source.each(look, width=min(len(rows.x), size))
    return highest
