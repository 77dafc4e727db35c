"""Margin sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from torchal import functional
from torchal.errors import ConfigError
from torchal.pool.view import PoolView
from torchal.protocols import HasDecisionFunction, HasProbabilities, check_provides
from torchal.samplers.base import ScoreSampler

MarginOf = Literal["auto", "scores", "probabilities"]


@dataclass(frozen=True)
class Margin(ScoreSampler):
    """Picks the rows where the model's two best classes are closest.

    Args:
        on: "scores" takes the gap of decision values, "probabilities" that of probabilities, "auto" decision values
            where the model has them, else probabilities. With more than two classes the two orders differ.

    Raises:
        ConfigError: `on` is none of these.

    Reference:
        See `torchal.functional.margin`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> view = PoolView.from_tensors(scores=torch.tensor([[3.0, 0.0, 0.0], [1.0, 0.9, 0.0], [2.0, 0.0, 1.0]]))
        >>> Margin().select(view, 2).indices
        tensor([1, 2])
    """

    on_ranks = True

    on: MarginOf = "auto"

    def __post_init__(self) -> None:
        if self.on not in get_args(MarginOf):
            raise ConfigError(f"on must be one of {', '.join(get_args(MarginOf))}; got {self.on!r}")

    def check_model(self, model: object) -> None:
        """Require what `on` names; either of the two for "auto"."""
        needed = {
            "auto": (HasDecisionFunction, HasProbabilities),
            "scores": (HasDecisionFunction,),
            "probabilities": (HasProbabilities,),
        }
        check_provides(model, *needed[self.on], needed_by=f"Margin(on={self.on!r})")

    def score(self, view: PoolView) -> Tensor:
        """Return minus the gap of the two largest values of each row, (N,)."""
        if self.on == "scores" or (self.on == "auto" and view.has(HasDecisionFunction)):
            return functional.margin(view.scores)
        return functional.margin(view.log_probs.exp())
