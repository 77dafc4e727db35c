"""PowerBALD: batches drawn by BALD's scores."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torchal._checks import check_whole
from torchal.functional.bald import bald
from torchal.functional.stochastic_batch import check_beta, power_scores
from torchal.pool.view import PoolView
from torchal.protocols import HasPosterior
from torchal.samplers.base import ScoreSampler
from torchal.samplers.posterior import draws_to_compare, score_draws


@dataclass(frozen=True)
class PowerBALD(ScoreSampler):
    """Draws rows at random, with probabilities that grow as a power of their BALD score.

    A batch of the highest scores alone is often much the same row many times over.

    Args:
        k: posterior draws; an ensemble with fewer members gives all of them.
        beta: the larger, the more the batch is that of the highest scores; towards 0, a uniform draw.

    Raises:
        ConfigError: k is not a whole number of at least 2, or beta not a number above 0.

    Reference:
        See `torchal.functional.power_bald`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> draws = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.1, 0.9]]]).log()
        >>> view = PoolView.from_tensors(posterior_log_probs=draws)
        >>> PowerBALD(beta=100).select(view, 1).indices
        tensor([1])
    """

    requires = (HasPosterior,)

    k: int = 20
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_whole("k", self.k, least=2)
        check_beta(self.beta)

    def score(self, view: PoolView) -> Tensor:
        """Return the perturbed score of each candidate, (N,); -inf elsewhere."""
        scores = score_draws(view, draws_to_compare(view, self.k), bald)
        return power_scores(scores, beta=self.beta, generator=view.generator)
