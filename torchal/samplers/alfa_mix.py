"""ALFA-Mix, active learning by feature mixing."""

from __future__ import annotations

from dataclasses import dataclass

from torchal import functional
from torchal._checks import check_budget, check_whole
from torchal.functional.alfa_mix import check_mix
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasLastLayer
from torchal.samplers.base import Sampler


@dataclass(frozen=True)
class AlfaMix(Sampler):
    """Picks representatives of the rows whose predicted label flips when they are mixed a little with labeled ones.

    What is mixed are the features that the model's last layer reads, with the mean of the labeled rows of each class.

    Args:
        eps: how much is mixed at first, and by how much more where fewer than n candidates flip.
        max_eps: no more than that; eps for one mix, as in the paper.
        max_iterations: of k-means.

    Raises:
        ConfigError: eps is not positive, max_eps is below it, or max_iterations is not a whole number of at least 1.

    Reference:
        See `torchal.functional.alfa_mix`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> features, targets = torch.tensor([[-2.0], [2.0], [-1.0], [0.1]]), torch.tensor([0, 1, -1, -1])
        >>> last_layer = torch.tensor([[-1.0], [1.0]]), torch.zeros(2)
        >>> view = PoolView.from_tensors(features=features, last_layer=last_layer, targets=targets)
        >>> AlfaMix().select(view, 1).indices
        tensor([3])
    """

    eps: float = 0.2
    max_eps: float = 1.0
    max_iterations: int = 20

    requires = (HasLastLayer,)

    def __post_init__(self) -> None:
        check_mix(self.eps, self.max_eps)
        check_whole("max_iterations", self.max_iterations, least=1)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `alfa_mix`.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
            DataError: no row is labeled.
        """
        check_budget(n, int(view.candidates.sum()))
        layer, features = view.last_layer, view.features
        return functional.alfa_mix(
            features,
            n,
            weight=layer.weight,
            bias=layer.bias,
            anchors=functional.class_means(features, view.targets),
            generator=view.generator,
            eps=self.eps,
            max_eps=self.max_eps,
            candidates=view.candidates,
            max_iterations=self.max_iterations,
        )
