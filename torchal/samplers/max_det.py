"""MaxDet: the largest determinant of gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torchal import functional
from torchal._checks import check_budget, check_flag
from torchal.functional.determinant import check_det
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import Sampler


@dataclass(frozen=True)
class MaxDet(Sampler):
    """Picks rows whose last layer's gradients are large and not combinations of those of other picks.

    The gradients are those of `Badge`; on features themselves it is `LogDet(kernel="linear")`.

    Args:
        ridge: what is added to a gradient's squared length, which is 1 on average.
        bias: whether the gradient by the layer's bias counts too.
        condition: whether the labeled rows count as picks. Each takes as long as one, and n of them n^2 numbers.

    Raises:
        ConfigError: a ridge that is not above 0, or a bias or condition that is not true or false.

    Reference:
        See `torchal.functional.max_det`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> log_probs = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.9, 0.1]]).log()
        >>> view = PoolView.from_tensors(features=torch.ones(3, 2), log_probs=log_probs)
        >>> MaxDet().select(view, 1).indices
        tensor([1])
    """

    requires = (HasProbabilities,)

    ridge: float = 0.01
    bias: bool = False
    condition: bool = True

    def __post_init__(self) -> None:
        check_det("linear", self.ridge)
        check_flag("bias", self.bias)
        check_flag("condition", self.condition)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `max_det`.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
        """
        check_budget(n, int(view.candidates.sum()))
        return functional.max_det(
            view.log_probs,
            view.features,
            n,
            labeled=view.labeled if self.condition else None,
            candidates=view.candidates,
            ridge=self.ridge,
            bias=self.bias,
        )
