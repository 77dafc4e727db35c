"""Coverage that a row has enough of: the sum of its similarities with all picks, up to some room."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal.distributed import Shards
from torchal.engine.affinity import Affinity
from torchal.engine.coverage import MAX_HELD, Coverage
from torchal.engine.sources import Source


class SaturatedCoverage(Coverage):
    """Rows whose similarities with all picks are summed, until they have enough.

    A row's value is minus the room that is left to it, and not below minus the highest similarity there can be: while
    there is room for any similarity, gains stay what they are.

    Args:
        affinity: what similarity is.
        rows: what is to be covered.
        columns: what can be picked, as in `Coverage`.
        room: (N,) float64, at least 0: how much each row can still take.
        weights: (N,) at least 0.
        allowed: (N,) bool, the rows that may be picked.
        max_held: of no more similarities than these, all are held.
        shards: whose ranks have other rows.
    """

    def __init__(
        self,
        affinity: Affinity,
        rows: Source,
        columns: Source,
        *,
        room: Tensor,
        weights: Tensor,
        allowed: Tensor,
        max_held: int = MAX_HELD,
        shards: Shards | None = None,
    ) -> None:
        self._room = room.clone()
        self._at_first = room
        self._top = 1 + affinity.error
        values = -room.clamp(max=self._top)
        super().__init__(
            affinity, rows, columns, values=values, weights=weights, allowed=allowed, max_held=max_held, shards=shards
        )

    def total(self) -> float:
        """Return the weighted sum of what the rows have taken."""
        return float(self._shards.all_reduce(self._weights.double() @ (self._at_first - self._room)))

    def _rise(self, tile: Tensor, values: Tensor) -> Tensor:
        return torch.minimum(tile.clamp_(min=0), -values, out=tile)

    def _loss(self, tile: Tensor, low: Tensor, high: Tensor) -> Tensor:
        # min(s, -low) - min(s, -high)
        return torch.minimum(tile.add_(high).clamp_(min=0), high - low, out=tile)

    def _raise(self, rows: slice, tile: Tensor) -> None:
        self._room[rows] = (self._room[rows] - tile[0].clamp(min=0)).clamp_(min=0)
        self._values[rows] = -self._room[rows].clamp(max=self._top).to(self._values.dtype)


def summed_similarities(affinity: Affinity, rows: Source, columns: Source, shards: Shards | None = None) -> Tensor:
    """Return the sum of each column's similarities with all rows, those below 0 left out, (M,) float64.

    Rows and columns are as in `Coverage`.
    """
    device = rows.longest_sq.device
    none, ones = torch.zeros(len(rows), device=device), torch.ones(len(rows), device=device)
    allowed = torch.ones(len(columns), dtype=torch.bool, device=device)
    return Coverage(
        affinity, rows, columns, values=none, weights=ones, allowed=allowed, max_held=0, shards=shards
    ).gains
