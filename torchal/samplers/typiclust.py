"""TypiClust: typical rows of clusters without labels."""

from __future__ import annotations

from dataclasses import dataclass

from torchal import functional
from torchal._checks import check_budget, check_whole
from torchal.functional.selection import Selection
from torchal.functional.typiclust import check_typiclust
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler


@dataclass(frozen=True)
class TypiClust(Sampler):
    """Picks the most typical row of each of the largest clusters that have no label yet.

    Meant for budgets of a few labels a class, and for the very first batch: it reads the features alone, of the model's
    embedding where it has one, and no label is needed.

    Args:
        max_clusters: the most clusters there are; else one for each label bought and each pick.
        min_cluster_size: clusters of fewer rows are left out as long as others have candidates.
        n_neighbors: in the row's cluster, the mean distance to which says how typical it is.
        max_iterations: of k-means.

    Raises:
        ConfigError: a setting is no whole number of at least 1.

    Reference:
        See `torchal.functional.typiclust`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> features = torch.tensor([[0.0], [1.0], [1.1], [1.3], [8.0], [8.2], [8.3]])
        >>> TypiClust(min_cluster_size=3, n_neighbors=2).select(PoolView.from_tensors(features=features), 2).indices
        tensor([2, 5])
    """

    reads_model = False
    on_ranks = True

    max_clusters: int = 500
    min_cluster_size: int = 5
    n_neighbors: int = 20
    max_iterations: int = 20

    def __post_init__(self) -> None:
        check_typiclust(self.max_clusters, self.min_cluster_size, self.n_neighbors)
        check_whole("max_iterations", self.max_iterations, least=1)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `typiclust`.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
        """
        check_budget(n, view.n_candidates)
        return functional.typiclust(
            view.features,
            n,
            generator=view.generator,
            labeled=view.labeled,
            candidates=view.candidates,
            max_clusters=self.max_clusters,
            min_cluster_size=self.min_cluster_size,
            n_neighbors=self.n_neighbors,
            max_iterations=self.max_iterations,
            group=view.group,
        )
