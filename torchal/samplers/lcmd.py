"""LCMD: the farthest row of the largest cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torchal.functional.lcmd import lcmd
from torchal.functional.selection import Selection
from torchal.samplers.max_dist import MaxDist


@dataclass
class LCMD(MaxDist):
    """Picks where many rows are far from all labeled ones: of the largest cluster the row farthest from its centre.

    A cluster is the candidates with the same nearest labeled row or pick, and its size the sum of their squared
    distances.

    Args:
        space: as in `MaxDist`.
        bias: as in `MaxDist`.

    Raises:
        ConfigError: an unknown space; a `bias` that is not true or false, or true with features.

    Reference:
        See `torchal.functional.lcmd`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> features = torch.tensor([[0.0], [10.0], [2.0], [2.1], [2.2], [13.0]])
        >>> view = PoolView.from_tensors(features=features, labeled=torch.arange(6) < 2)
        >>> LCMD(space="features").select(view, 1).indices
        tensor([4])
    """

    _pick: ClassVar[Callable[..., Selection]] = staticmethod(lcmd)
