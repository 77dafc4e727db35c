"""EPIG sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchal._checks import as_rows, check_whole
from torchal.errors import ConfigError
from torchal.functional.epig import epig, epig_of_targets
from torchal.pool.view import PoolView
from torchal.protocols import HasPosterior, Inputs
from torchal.samplers.base import ScoreSampler
from torchal.samplers.posterior import draws_to_compare, score_draws


@dataclass(frozen=True)
class EPIG(ScoreSampler):
    """Picks the rows whose labels are expected to say the most of the labels of target rows.

    The targets stand for what predictions will be asked for. They are drawn from the candidates, unless rows of the
    pool or inputs from elsewhere are given. A candidate that is drawn as a target is none of its own; of `target_rows`
    it is.

    Args:
        k: draws from the posterior; an ensemble with fewer members gives all of them.
        n_targets: how many targets are drawn from the candidates, anew in each round; all, where there are fewer.
        target_rows: rows of the pool, labeled or not, as the targets.
        target_inputs: inputs as the model reads them, of the same kind as the pool's, as the targets.

    Raises:
        ConfigError: k is not a whole number of at least 2 or n_targets of at least 1; target_rows and target_inputs are
            both given, or one of them is empty.

    Reference:
        See `torchal.functional.epig`; 100 targets is what its authors draw.

    Example:
        >>> from torchal import PoolView
        >>> one = [[[0.9, 0.1], [0.1, 0.9]]]  # two draws that disagree
        >>> noise = [[[0.5, 0.5], [0.5, 0.5]]]
        >>> view = PoolView.from_tensors(posterior_log_probs=torch.tensor(noise + one + one).log())
        >>> EPIG(k=2).select(view, 1).indices
        tensor([1])
    """

    requires = (HasPosterior,)

    k: int = 20
    n_targets: int = 100
    target_rows: Sequence[int] | None = None
    target_inputs: Inputs | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_whole("k", self.k, least=2)
        check_whole("n_targets", self.n_targets, least=1)
        if self.target_rows is not None and self.target_inputs is not None:
            raise ConfigError("the targets are target_rows or target_inputs, not both")
        for name, targets in (("target_rows", self.target_rows), ("target_inputs", self.target_inputs)):
            if targets is not None and not len(targets):
                raise ConfigError(f"{name} must not be empty")

    def score(self, view: PoolView) -> Tensor:
        """Return the expected predictive information gain of each candidate in nats, (N,); -inf for other rows."""
        k = draws_to_compare(view, self.k)
        if self.target_inputs is not None:
            return _against(view, view.posterior_log_probs_at(self.target_inputs, k))
        if self.target_rows is not None:
            rows = as_rows("target_rows", self.target_rows, n_rows=len(view), device=view.candidates.device)
            return _against(view, view.posterior_log_probs_of(rows, k))
        rows, generator = view.candidates.nonzero().squeeze(1), view.generator
        order = torch.randperm(len(rows), generator=generator, device=generator.device)
        rows = rows[order[: self.n_targets].to(rows.device)]
        targets = view.posterior_log_probs_of(rows, k)
        scores = _against(view, targets)
        scores[rows] = epig_of_targets(targets)
        return scores


def _against(view: PoolView, targets: Tensor) -> Tensor:
    return score_draws(view, targets.shape[1], lambda log_probs: epig(log_probs, targets))
