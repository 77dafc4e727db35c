"""SoftrankBALD: batches drawn by BALD's scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchal.functional.stochastic_batch import softrank_scores
from torchal.samplers.stochastic_bald import StochasticBALD


@dataclass(frozen=True)
class SoftrankBALD(StochasticBALD):
    """Draws rows at random, with probabilities that fall as a power of their rank among the candidates by BALD score.

    Args:
        k: posterior draws; an ensemble with fewer members gives all of them.
        beta: the larger, the more the batch is that of the highest scores; towards 0, a uniform draw.

    Raises:
        ConfigError: k is not a whole number of at least 2, or beta not a number above 0.

    Reference:
        See `torchal.functional.softrank_bald`.

    Example:
        >>> from torchal import PoolView
        >>> draws = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.1, 0.9]]]).log()
        >>> view = PoolView.from_tensors(posterior_log_probs=draws)
        >>> SoftrankBALD(beta=100).select(view, 1).indices
        tensor([1])
    """

    def perturbed(self, scores: Tensor, generator: torch.Generator) -> Tensor:
        """Return scores (N,) whose largest are the batch."""
        return softrank_scores(scores, beta=self.beta, generator=generator)
