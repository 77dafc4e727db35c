"""Uncertainty weighted by density."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from torchal.errors import ConfigError
from torchal.functional.information_density import (
    Similarity,
    check_beta,
    check_similarity,
    density_weighted,
    information_density,
)
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler, ScoreSampler
from torchal.samplers.composite import WrapperSampler
from torchal.samplers.entropy import Entropy


@dataclass
class DensityWeighted(WrapperSampler, ScoreSampler):
    """Picks the rows that score high by another sampler and are like many unlabeled ones, in the model's embedding.

    The scores are multiplied with the density to the power of beta. Those that are negative, as margins, are shifted
    until the least wanted candidate has 0.

    Args:
        sampler: scores each row by itself.
        beta: how much density counts.
        similarity: cosine, rbf or inverse.
        gamma: of rbf; from the features' variance unless given.

    Raises:
        ConfigError: a setting is out of range, or the sampler does not score each row by itself.

    Reference:
        See `torchal.functional.density_weighted`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> from torchal.samplers import DensityWeighted, Entropy
        >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0]])
        >>> log_probs = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.9, 0.1], [0.5, 0.5]]).log()
        >>> view = PoolView.from_tensors(features=x, log_probs=log_probs)
        >>> int(Entropy().select(view, 1).indices), int(DensityWeighted(Entropy()).select(view, 1).indices)
        (3, 1)
    """

    sampler: Sampler = field(default_factory=Entropy)
    beta: float = 1.0
    similarity: Similarity = "cosine"
    gamma: float | None = None
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_members()
        if not isinstance(self.sampler, ScoreSampler):
            raise ConfigError(
                f"densities weight the scores of single rows; {type(self.sampler).__name__} picks rows together"
            )
        check_beta(self.beta)
        check_similarity(self.similarity, self.gamma)

    def score(self, view: PoolView) -> Tensor:
        """Return the product of score and density of each candidate, (N,); -inf for other rows."""
        assert isinstance(self.sampler, ScoreSampler)
        density = information_density(view.features, among=~view.labeled, similarity=self.similarity, gamma=self.gamma)
        return density_weighted(self.sampler.score(view), density, beta=self.beta, candidates=view.candidates)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick the n candidates with the highest products."""
        selection = super().select(view, n)
        self._report = {"features": view.features_from, "members": self.sampler_report(selection.indices)}
        return selection

    def report(self) -> dict[str, Any]:
        """Return what the densities were measured on, and the sampler's own report."""
        return self._report
