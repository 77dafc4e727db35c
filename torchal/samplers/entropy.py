"""Entropy sampling."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torchal import functional
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import ScoreSampler


@dataclass(frozen=True)
class Entropy(ScoreSampler):
    """Picks the rows whose predicted class distribution has the highest entropy.

    Reference:
        See `torchal.functional.entropy`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> view = PoolView.from_tensors(log_probs=torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log())
        >>> Entropy().select(view, 1).indices
        tensor([1])
    """

    requires = (HasProbabilities,)
    on_ranks = True

    def score(self, view: PoolView) -> Tensor:
        """Return the entropy of each row in nats, (N,)."""
        return functional.entropy(view.log_probs)
