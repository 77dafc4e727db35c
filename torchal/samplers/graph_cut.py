"""Graph cut: rows like the pool, and unlike each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torchal import functional
from torchal._checks import check_budget
from torchal.engine.greedy import greedy_bound
from torchal.functional.graph_cut import Redundancy, Similarity, check_graph_cut
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler


@dataclass
class GraphCut(Sampler):
    """Picks rows that are like all rows of the pool, and unlike the labeled rows and each other.

    It reads the features alone, of the model's embedding where it has one, and no label is needed.

    Args:
        redundancy: lambda of the paper: what likeness to the labeled rows and other picks takes off; or "balanced".
        similarity: "shifted_cosine", (1 + cos) / 2, or "cosine".

    Raises:
        ConfigError: an unknown similarity, or a redundancy that is neither "balanced" nor at least 0.

    Reference:
        See `torchal.functional.graph_cut`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> features = torch.tensor([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [0.0, 1.0]])
        >>> view = PoolView.from_tensors(features=features, targets=torch.tensor([0, -1, -1, -1]))
        >>> GraphCut(redundancy=2.0).select(view, 1).indices
        tensor([3])
    """

    reads_model = False

    redundancy: Redundancy = "balanced"
    similarity: Similarity = "shifted_cosine"
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_graph_cut(self.redundancy, self.similarity)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `graph_cut`.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
        """
        check_budget(n, int(view.candidates.sum()))
        selection = functional.graph_cut(
            view.features,
            n,
            redundancy=self.redundancy,
            similarity=self.similarity,
            labeled=view.labeled,
            candidates=view.candidates,
        )
        self._report = {"features": view.features_from, "value": float(selection.scores.sum())}
        if self.redundancy != "balanced" and self.redundancy <= 0.5 and self.similarity == "shifted_cosine":
            self._report["bound"] = greedy_bound(selection.scores)
        return selection

    def report(self) -> dict[str, Any]:
        """Return what was measured, what the batch gains, and, where it is known, what no batch can exceed."""
        return dict(self._report)
