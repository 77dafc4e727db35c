"""MaxHerding, coverage by a kernel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torchal import functional
from torchal._checks import check_budget, check_flag, check_positive, check_whole
from torchal.engine.coverage import MAX_HELD
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler


@dataclass
class MaxHerding(Sampler):
    """Picks rows such that every row is near a labeled one, by a kernel, in the model's embedding if it has one.

    Meant for few labels, and for the very first batch: it reads the features alone. Its cost is quadratic in the number
    of rows.

    Args:
        bandwidth: the distance at which the kernel is 1/e.
        normalize: whether rows are scaled to length 1.
        max_held: of no more similarities than these, of all rows with each other, all are held: more memory, less time.

    Raises:
        ConfigError: the bandwidth is not above 0, or normalize is neither true nor false.

    Reference:
        See `torchal.functional.max_herding`.

    Example:
        >>> import torch
        >>> view = PoolView.from_tensors(features=torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [0.0, 1.0]]))
        >>> MaxHerding(bandwidth=0.5).select(view, 2).indices
        tensor([0, 3])
    """

    reads_model = False

    bandwidth: float = 1.0
    normalize: bool = True
    max_held: int = MAX_HELD
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positive("bandwidth", self.bandwidth)
        check_flag("normalize", self.normalize)
        check_whole("max_held", self.max_held, least=0)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick the n candidates that `max_herding` picks from the view's features."""
        check_budget(n, int(view.candidates.sum()))
        picks = functional.max_herding(
            view.features,
            n,
            bandwidth=self.bandwidth,
            normalize=self.normalize,
            labeled=view.labeled,
            candidates=view.candidates,
            max_held=self.max_held,
        )
        self._report = {"features": view.features_from, "value": picks.value, "bound": picks.bound}
        return Selection(picks.indices, picks.scores)

    def report(self) -> dict[str, Any]:
        """Return what the distances were measured on, what the labels and the batch cover, and at most could."""
        return dict(self._report)
