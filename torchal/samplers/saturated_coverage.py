"""Saturated coverage: rows that are like many others, until these have enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torchal import functional
from torchal._checks import check_fraction
from torchal.engine.features import Features
from torchal.functional.submodular import Covering
from torchal.samplers.facility_location import FacilityLocation


@dataclass
class SaturatedCoverage(FacilityLocation):
    """Picks rows that are like many others, until these have enough of it, in the model's embedding if it has one.

    Where `FacilityLocation` counts a row's most similar pick, this counts all of its picks, up to a limit. It needs no
    label to begin with, and its cost is quadratic in the number of rows.

    Args:
        saturation: how much is enough, as a share of a row's similarities with all rows; in (0, 1].
        similarity, gamma, max_held: as in `FacilityLocation`.

    Raises:
        ConfigError: a setting is out of range.

    Reference:
        See `torchal.functional.saturated_coverage`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.1], [0.0, 1.0]])
        >>> SaturatedCoverage(saturation=0.25).select(PoolView.from_tensors(features=features), 2).indices
        tensor([2, 4])
    """

    saturation: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("saturation", self.saturation)

    def _covering(self, features: Features, n: int, **settings: Any) -> Covering:
        return functional.saturated_coverage(features, n, saturation=self.saturation, **settings)
