"""Query by committee."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from torchal import functional
from torchal._checks import check_whole
from torchal.errors import ConfigError
from torchal.pool.view import PoolView
from torchal.protocols import HasPosterior
from torchal.samplers.base import ScoreSampler
from torchal.samplers.posterior import draws_to_compare, score_draws

Disagreement = Literal["vote_entropy", "consensus_kl", "variation_ratio"]

_MEASURES = {
    "vote_entropy": functional.vote_entropy,
    "consensus_kl": functional.consensus_kl,
    "variation_ratio": functional.variation_ratio,
}


@dataclass(frozen=True)
class QueryByCommittee(ScoreSampler):
    """Picks the rows on which the members of a committee disagree most: an ensemble, or draws of a posterior.

    Votes take few values, so that most rows have equals, and equal scores go to the lowest row. Where the order of the
    pool means something, as rows sorted by class, `consensus_kl` is the better choice.

    Args:
        disagreement: "vote_entropy", the entropy of the members' votes; "consensus_kl", the mean divergence of their
            predictions from the mean, the scores of `BALD`; "variation_ratio", the share of votes that are not for the
            class with most of them.
        k: members; an ensemble with fewer gives all of them.

    Raises:
        ConfigError: an unknown disagreement, or k is not a whole number of at least 2.

    Reference:
        Seung, Opper & Sompolinsky, "Query by Committee", COLT 1992; the measures are those of `torchal.functional`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> members = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.9, 0.1], [0.1, 0.9]]]).log()
        >>> view = PoolView.from_tensors(posterior_log_probs=members)
        >>> QueryByCommittee().select(view, 1).indices
        tensor([1])
    """

    requires = (HasPosterior,)

    disagreement: Disagreement = "vote_entropy"
    k: int = 20

    def __post_init__(self) -> None:
        if self.disagreement not in get_args(Disagreement):
            known = ", ".join(get_args(Disagreement))
            raise ConfigError(f"disagreement must be one of {known}; got {self.disagreement!r}")
        check_whole("k", self.k, least=2)

    def score(self, view: PoolView) -> Tensor:
        """Return the disagreement on each candidate, (N,); -inf elsewhere."""
        return score_draws(view, draws_to_compare(view, self.k), _MEASURES[self.disagreement])
