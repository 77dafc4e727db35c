"""BALD: Bayesian active learning by disagreement."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torchal._checks import check_whole
from torchal.functional.bald import bald
from torchal.pool.view import PoolView
from torchal.protocols import HasPosterior
from torchal.samplers.base import ScoreSampler
from torchal.samplers.posterior import draws_to_compare, score_draws


@dataclass(frozen=True)
class BALD(ScoreSampler):
    """Picks the rows whose label would tell most about the model: draws of its posterior are sure of it, and differ.

    Args:
        k: posterior draws; an ensemble with fewer members gives all of them.

    Raises:
        ConfigError: k is not a whole number of at least 2.

    Reference:
        See `torchal.functional.bald`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> draws = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.1, 0.9]]]).log()
        >>> view = PoolView.from_tensors(posterior_log_probs=draws)
        >>> BALD().select(view, 1).indices
        tensor([1])
    """

    requires = (HasPosterior,)

    k: int = 20

    def __post_init__(self) -> None:
        check_whole("k", self.k, least=2)

    def score(self, view: PoolView) -> Tensor:
        """Return the mutual information of each candidate's label and the model in nats, (N,); -inf elsewhere."""
        return score_draws(view, draws_to_compare(view, self.k), bald)
