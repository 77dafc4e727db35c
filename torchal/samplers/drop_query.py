"""DropQuery: disagreement under dropout, made diverse."""

from __future__ import annotations

from dataclasses import dataclass

from torchal import functional
from torchal._checks import check_budget, check_whole
from torchal.functional.drop_query import check_dropout
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasLastLayer
from torchal.samplers.base import Sampler


@dataclass(frozen=True)
class DropQuery(Sampler):
    """Picks representatives of the rows whose predicted label changes when most of their features are dropped.

    The features are those that the model's last layer reads; its network needs no dropout of its own.

    Args:
        n_masks: dropout masks of each row.
        rate: chance that a feature is dropped, at least 0 and below 1.
        max_iterations: of k-means.

    Raises:
        ConfigError: a setting is out of range.

    Reference:
        See `torchal.functional.drop_query`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> last_layer = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([0.0, 0.1])
        >>> view = PoolView.from_tensors(features=torch.tensor([[-9.0, -9.0], [9.0, 0.0]]), last_layer=last_layer)
        >>> DropQuery(n_masks=99).select(view, 1).indices
        tensor([1])
    """

    n_masks: int = 3
    rate: float = 0.75
    max_iterations: int = 20

    requires = (HasLastLayer,)

    def __post_init__(self) -> None:
        check_dropout(self.n_masks, self.rate)
        check_whole("max_iterations", self.max_iterations, least=1)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `drop_query`.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
        """
        check_budget(n, int(view.candidates.sum()))
        layer = view.last_layer
        return functional.drop_query(
            view.features,
            n,
            weight=layer.weight,
            bias=layer.bias,
            generator=view.generator,
            n_masks=self.n_masks,
            rate=self.rate,
            candidates=view.candidates,
            max_iterations=self.max_iterations,
        )
