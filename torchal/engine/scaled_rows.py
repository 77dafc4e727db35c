"""Rows as they are in memory or in a file, with the factor that makes each as long as it is to be.

A pass that takes products of rows need not make scaled copies of them: it scales the products.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchal._checks import check_finite
from torchal.engine.distances import unit_rows
from torchal.engine.features import FeatureReader
from torchal.errors import DataError

_SHORTEST, _LONGEST = 1e-15, 1e15  # between these, no square of a row overflows float32, and none vanishes


class ScaledRows:
    """Rows of features, each to be multiplied with a factor: one that makes its length 1, or the same for all.

    Args:
        reader: of the features.
        unit: whether each row is to have the length 1.

    Raises:
        DataError: features that are not finite; a row of zeros that is to have the length 1.
    """

    def __init__(self, reader: FeatureReader, *, unit: bool) -> None:
        self.reader = reader
        self.unit = unit
        self.dtype = torch.promote_types(reader.dtype, torch.float32)
        self.device = reader.device
        self.n_columns = reader.n_columns
        self._ready: Callable[[Tensor], Tensor] = lambda x: x
        lengths = torch.empty(len(reader), dtype=torch.float64, device=reader.device)
        lowest, highest = math.inf, 0.0

        def measure(start: int, stop: int) -> None:
            nonlocal lowest, highest
            x = reader.read(start, stop).to(self.dtype)
            some: Tensor = torch.linalg.vector_norm(x, dim=1)
            low, high = (float(value) for value in some.aminmax())
            if not _SHORTEST < low <= high < _LONGEST:
                check_finite("features", x, first_row=start)
                some = _long_lengths(x)
                if unit and bool((some == 0).any()):
                    row = start + int((some == 0).nonzero()[0])
                    raise DataError(f"a cosine needs rows with a direction; row {row} is all zeros")
                low, high = (float(value) for value in some.aminmax())
            lowest, highest = min(lowest, low), max(highest, high)
            lengths[start:stop] = some

        reader.in_chunks(len(reader), reader.chunk_rows(), measure)
        self.scale = 1.0
        if (unit and not _SHORTEST < lowest) or not (_SHORTEST < highest < _LONGEST or highest == 0):
            self.dtype = torch.float64
            if not unit:
                self.scale = 2.0 ** -math.frexp(highest)[1] if highest > 1e-300 else 2.0**1000
                lengths.mul_(self.scale)
            scale = self.scale
            self._ready = unit_rows if unit else lambda x: x * scale
            self.factors = torch.ones_like(lengths) if unit else None
        else:
            self.factors = (1 / lengths).to(self.dtype) if unit else None
        self.sq = torch.ones_like(lengths, dtype=self.dtype) if unit else lengths.square_().to(self.dtype)
        """(N,) the squared lengths of the scaled rows."""

    def __len__(self) -> int:
        return len(self.reader)

    def select(self, index: Tensor) -> Tensor:
        """Return a copy of some rows, scaled, (n, D)."""
        x = self._ready(self.reader.rows(index).to(self.dtype))
        return x if self.factors is None else x * self.factors[index].unsqueeze(1)

    def each(self, work: Callable[[slice, Tensor], None], *, width: int) -> None:
        """Call work(where, rows) on all rows, not yet multiplied with `factors`, in chunks that leave room for width."""

        def part(start: int, stop: int) -> None:
            work(slice(start, stop), self._ready(self.reader.read(start, stop).to(self.dtype)))

        self.reader.in_chunks(len(self), self.reader.chunk_rows(width), part)


def _long_lengths(x: Tensor) -> Tensor:
    """Return lengths of rows in float64, of which no square overflows or vanishes."""
    x = x.double()
    peak = x.abs().amax(1)
    lengths: Tensor = torch.linalg.vector_norm(x / peak.masked_fill(peak == 0, 1).unsqueeze(1), dim=1)
    return lengths * peak
