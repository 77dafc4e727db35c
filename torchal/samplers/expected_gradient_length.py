"""Expected gradient length."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torchal import functional
from torchal._checks import check_flag
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import ScoreSampler


@dataclass(frozen=True)
class ExpectedGradientLength(ScoreSampler):
    """Picks the rows whose label is expected to move a last layer on the model's features most.

    Args:
        bias: whether that layer has a bias.

    Raises:
        ConfigError: bias is neither true nor false.

    Reference:
        See `torchal.functional.expected_gradient_length`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> log_probs = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.5, 0.5]]).log()
        >>> view = PoolView.from_tensors(log_probs=log_probs, features=torch.tensor([[1.0], [1.0], [2.0]]))
        >>> ExpectedGradientLength().select(view, 2).indices
        tensor([2, 1])
    """

    bias: bool = True

    requires = (HasProbabilities,)

    def __post_init__(self) -> None:
        check_flag("bias", self.bias)

    def score(self, view: PoolView) -> Tensor:
        """Return the expected length of each row's gradient, (N,)."""
        return functional.expected_gradient_length(view.log_probs, view.features, bias=self.bias)
