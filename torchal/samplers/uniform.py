"""Uniform sampling: the baseline that every strategy has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from torchal.functional.selection import Selection, uniform
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler


@dataclass(frozen=True)
class Uniform(Sampler):
    """Picks candidates at random, each set of n with the same probability.

    Also called passive learning. Every score is 0: no pick is wanted more than another.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> view = PoolView.from_tensors(features=torch.zeros(4, 1), labeled=torch.tensor([True, False, True, False]))
        >>> Uniform().select(view, 2).indices.sort().values
        tensor([1, 3])
    """

    reads_model = False
    on_ranks = True

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates from the view's generator."""
        return uniform(n, candidates=view.candidates, generator=view.generator, group=view.group)
