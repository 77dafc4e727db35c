"""Where the rows of a pool lie on a map: their first two principal components."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import check_finite, check_whole
from torchal._chunks import exact_arithmetic
from torchal.engine.features import FeatureReader, Features
from torchal.errors import DataError

_SAMPLE_VALUES = 1 << 26  # numbers in a sample: 256 MiB in float32
_LEAST_SAMPLE = 1024
_WIDEST = 512  # columns whose covariance is decomposed whole
_BLOCK = 8  # directions followed at once where there are more columns,
_POWERS = 8  # and how often they are multiplied by the covariance
_ROWS = 1024  # made float64 at once


class MapCoordinates(NamedTuple):
    """The result of `map_coordinates`.

    Shapes:
        xy: (N, 2) float.
        explained: (2,) float64, the share of the variance along each axis.
    """

    xy: Tensor
    explained: Tensor


def map_coordinates(
    features: Features,
    *,
    generator: torch.Generator,
    sample: int = 65_536,
    device: torch.device | str | None = None,
    chunk_rows: int | None = None,
) -> MapCoordinates:
    """Project the rows on their first two principal components.

    Of more rows than `sample`, the components are those of so many drawn at random, of wide features fewer: as many as
    256 MiB hold in float32, but at least 1 024. All rows are projected, in one pass. An axis points where the sum of
    its loadings is positive, so that a map is hardly ever mirrored from one sample to the next; where they cancel out,
    up to a thousandth, the first of the largest is positive. Where the rows do not differ along an axis, up to
    rounding, all lie at 0 on it, and it explains nothing: both axes where all rows are equal or there is but one, the
    second where there is one column.

    Args:
        features: a tensor on any device, or a memory-mapped file; both may be larger than the device's memory.
        generator: draws the sample, and where an iteration begins with more than 512 columns.
        sample: the most rows that the components are computed from.
        device: where to compute; where the features are, unless given.
        chunk_rows: rows projected at once; as many as make a small temporary, unless given.

    Shapes:
        features: (N, D) float. Half precision is computed in float32, float64 in float64.

    Returns:
        xy (N, 2), on the features' device, around the mean of the sample; explained (2,), of the sample's variance.

    Raises:
        ConfigError: sample is not at least 2.
        ShapeError: features is no float matrix.
        DataError: no rows; features that are not finite; numbers whose differences are too large for their dtype.
        DeviceMemoryError: the smallest chunk does not fit on the device.

    Reference:
        Musco & Musco, "Randomized Block Krylov Methods for Stronger and Faster Approximate Singular Value
        Decomposition", NeurIPS 2015, Algorithm 2, for more than 512 columns, with 8 blocks of 8, in the basis of which
        the covariance is decomposed. With fewer columns it is decomposed as it is.

    Complexity:
        O(N D) for the projection. S D^2 multiply-adds for the covariance of S sampled rows with at most 512 columns,
        128 S D with more.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 1.0], [5.0, 1.0]])
        >>> map_coordinates(x, generator=torch.Generator()).xy
        tensor([[-2.,  0.],
                [-1.,  0.],
                [ 3.,  0.]])
    """
    check_whole("sample", sample, least=2)
    reader = FeatureReader(features, device=device, chunk_rows=chunk_rows)
    dtype = torch.promote_types(reader.dtype, torch.float32)
    with exact_arithmetic(reader.device):
        drawn = _draw(reader, sample, generator).to(dtype)
        # The first row is taken off before the mean: what equals it is 0 to the last bit, however large both are.
        origin = drawn[0].clone()
        drawn -= origin
        sums = torch.stack([part.sum(0, dtype=torch.float64) for part in drawn.split(_ROWS)])
        mean = (sums.sum(0) / len(drawn)).to(dtype)
        drawn -= mean
        components, explained = _components(drawn, generator)
        del drawn
        # One product for each chunk: rows times components, less what origin and mean make
        xy = torch.empty(len(reader), 2, dtype=dtype, device=reader.device)

        def project(start: int, stop: int) -> None:
            rows = reader.read(start, stop)
            check_finite("features", rows, first_row=start)
            torch.mm(rows.to(dtype).sub(origin), components, out=xy[start:stop])

        reader.in_chunks(len(reader), reader.chunk_rows(), project)
        xy -= mean @ components
    if not bool(torch.isfinite(xy).all()):
        raise DataError(f"features are too far apart: their differences do not fit {dtype}; scale them first")
    return MapCoordinates(xy.to(reader.home), explained.to(reader.home))


def _draw(reader: FeatureReader, sample: int, generator: torch.Generator) -> Tensor:
    """Return rows at random, all of them where they are few."""
    size = min(sample, max(_LEAST_SAMPLE, _SAMPLE_VALUES // reader.n_columns))
    if len(reader) <= size:
        index = torch.arange(len(reader), device=reader.device)
    else:
        order = torch.randperm(len(reader), generator=generator, device=generator.device)
        index = order[:size].sort().values.to(reader.device)
    rows = reader.rows(index)
    if not bool(torch.isfinite(torch.stack(rows.aminmax())).all()):
        row = int(index[(~torch.isfinite(rows)).any(1)][0])
        raise DataError(f"features must be finite: row {row} is not")
    return rows


def _components(rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the directions (D, 2) of the largest variance of centred rows (S, D), and their shares of it, (2,)."""
    n_columns = rows.shape[1]
    components = rows.new_zeros(n_columns, 2)
    explained = rows.new_zeros(2, dtype=torch.float64)
    largest = torch.stack(rows.aminmax()).abs().max()
    if not bool(largest > 0):
        return components, explained
    if not bool(torch.isfinite(largest)):
        raise DataError(f"features are too far apart: their differences do not fit {rows.dtype}; scale them first")
    rows /= largest  # squares of what is left neither overflow nor vanish
    basis = _krylov_basis(rows, generator) if n_columns > _WIDEST else None
    size = n_columns if basis is None else basis.shape[1]
    # In float64: a column of large numbers would drown the others in float32.
    covariance, total = explained.new_zeros(size, size), explained.new_zeros(())
    for part in rows.split(_ROWS):
        seen = part.double()
        total += seen.square().sum()
        seen = seen if basis is None else seen @ basis.double()
        covariance.addmm_(seen.T, seen)
    variances, directions = torch.linalg.eigh(covariance)
    # What rounding makes of rows on a line is no second direction.
    noise = max(16 * torch.finfo(rows.dtype).eps ** 2, 4 * torch.finfo(torch.float64).eps * max(8, n_columns**0.5))
    for axis in range(min(2, len(variances))):
        variance = variances[-1 - axis]
        if bool(variance > noise * variances[-1]):
            direction = directions[:, -1 - axis].to(rows.dtype)
            direction = direction if basis is None else basis @ direction
            components[:, axis] = _turned(direction)
            explained[axis] = variance / total
    return components, explained.clamp_(max=1)


def _krylov_basis(rows: Tensor, generator: torch.Generator) -> Tensor:
    """Return an orthonormal basis, (D, B), that nearly holds the directions of the largest variance."""
    shape = rows.shape[1], _BLOCK
    block = torch.randn(shape, generator=generator, device=generator.device, dtype=rows.dtype).to(rows.device)
    blocks = []
    for _ in range(_POWERS):
        block = torch.linalg.qr(rows.T @ (rows @ block)).Q
        blocks.append(block)
    basis: Tensor = torch.linalg.qr(torch.cat(blocks, 1)).Q
    return basis


def _turned(direction: Tensor) -> Tensor:
    """Return a direction (D,), of the two that it may have, with loadings whose sum is positive.

    The largest loading would tell them apart too, but another may be the largest in another sample.
    """
    total, size = direction.sum(), direction.abs()
    if bool(total.abs() < 1e-3 * size.sum()):
        total = direction[int((size > 0.999 * size.max()).nonzero()[0])]
    return direction * total.sign()
