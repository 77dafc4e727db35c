"""Uniform sampling: the baseline that every strategy has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torchal._checks import check_budget
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler


@dataclass(frozen=True)
class Uniform(Sampler):
    """Picks candidates at random, each set of n with the same probability.

    Also called passive learning. Every score is 0: no pick is wanted more than another.

    Example:
        >>> from torchal import PoolView
        >>> view = PoolView.from_tensors(features=torch.zeros(4, 1), labeled=torch.tensor([True, False, True, False]))
        >>> Uniform().select(view, 2).indices.sort().values
        tensor([1, 3])
    """

    reads_model = False

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates from the view's generator."""
        candidates = view.candidates.nonzero().squeeze(1)
        check_budget(n, len(candidates))
        generator = view.generator
        order = torch.randperm(len(candidates), generator=generator, device=generator.device)[:n]
        return Selection(candidates[order.to(candidates.device)], torch.zeros(n, device=candidates.device))
