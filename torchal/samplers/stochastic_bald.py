"""Batches drawn at random by BALD's scores: what PowerBALD, SoftmaxBALD and SoftrankBALD share."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from torchal._checks import check_positive, check_whole
from torchal.functional.bald import bald
from torchal.pool.view import PoolView
from torchal.protocols import HasPosterior
from torchal.samplers.base import ScoreSampler
from torchal.samplers.posterior import draws_to_compare, score_draws


@dataclass(frozen=True)
class StochasticBALD(ScoreSampler):
    """Draws rows at random by their BALD score; a child says how.

    A batch of the highest scores alone is often much the same row many times over.

    Args:
        k: posterior draws; an ensemble with fewer members gives all of them.
        beta: the larger, the more the batch is that of the highest scores; towards 0, a uniform draw.

    Raises:
        ConfigError: k is not a whole number of at least 2, or beta not a number above 0.
    """

    requires = (HasPosterior,)

    k: int = 20
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_whole("k", self.k, least=2)
        check_positive("beta", self.beta)

    @abstractmethod
    def perturbed(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (N,) whose largest are the batch."""

    def score(self, view: PoolView) -> Tensor:
        """Return the perturbed score of each candidate, (N,); -inf elsewhere."""
        return self.perturbed(score_draws(view, draws_to_compare(view, self.k), bald), view.generator)
