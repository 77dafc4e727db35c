"""Contrastive active learning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torchal import functional
from torchal.engine.distances import Metric, check_metric
from torchal.functional.contrastive import check_contrast
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import ScoreSampler


@dataclass(frozen=True)
class Contrastive(ScoreSampler):
    """Picks the rows that the model predicts otherwise than the labeled rows beside them.

    Args:
        k: labeled neighbours of each row, in the model's embedding where it has one; all where fewer are labeled.
        metric: euclidean, cosine or manhattan.
        eps: smaller probabilities count as eps.

    Raises:
        ConfigError: a setting is out of range.

    Reference:
        See `torchal.functional.contrastive`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> log_probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.7]]).log()
        >>> labeled = torch.tensor([True, False, False])
        >>> view = PoolView.from_tensors(log_probs=log_probs, features=torch.zeros(3, 1), labeled=labeled)
        >>> Contrastive().select(view, 1).indices
        tensor([2])
    """

    k: int = 10
    metric: Metric = "euclidean"
    eps: float = 1e-7

    requires = (HasProbabilities,)

    def __post_init__(self) -> None:
        check_contrast(self.k, self.eps)
        check_metric(self.metric)

    def score(self, view: PoolView) -> Tensor:
        """Return the mean divergence of each row from its labeled neighbours, (N,).

        Raises:
            DataError: no row is labeled.
        """
        return functional.contrastive(
            view.log_probs, view.features, labeled=view.labeled, k=self.k, metric=self.metric, eps=self.eps
        )
