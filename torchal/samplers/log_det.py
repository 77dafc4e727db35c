"""Greedy log-determinant: a determinantal point process's most likely batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torchal import functional
from torchal._checks import check_budget
from torchal.engine.greedy import greedy_bound
from torchal.functional.determinant import DetKernel, check_det
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler


@dataclass
class LogDet(Sampler):
    """Picks rows that are unlike each other and unlike the labeled rows, by the determinant of their kernel matrix.

    It reads the features alone, of the model's embedding where it has one, and no label is needed.

    Args:
        kernel: "cosine"; or "linear", where long rows are wanted too.
        ridge: the variance of noise, beside k(x, x), which is 1 on average.

    Raises:
        ConfigError: an unknown kernel, or a ridge that is not above 0.

    Reference:
        See `torchal.functional.log_det`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
        >>> view = PoolView.from_tensors(features=features, targets=torch.tensor([0, -1, -1]))
        >>> LogDet().select(view, 1).indices
        tensor([2])
    """

    reads_model = False

    kernel: DetKernel = "cosine"
    ridge: float = 1.0
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_det(self.kernel, self.ridge)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `log_det`.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
        """
        check_budget(n, int(view.candidates.sum()))
        selection = functional.log_det(
            view.features,
            n,
            labeled=view.labeled,
            candidates=view.candidates,
            kernel=self.kernel,
            ridge=self.ridge,
        )
        self._report = {"features": view.features_from, "value": float(selection.scores.sum())}
        if self.ridge >= 1:
            self._report["bound"] = greedy_bound(selection.scores)
        return selection

    def report(self) -> dict[str, Any]:
        """Return what was measured, what the batch gains, and, with a ridge of at least 1, what no batch can exceed."""
        return dict(self._report)
