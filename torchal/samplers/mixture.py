"""A mixture of samplers in fixed parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler
from torchal.samplers.composite import CompositeSampler, checked_weights


@dataclass
class Mixture(CompositeSampler):
    """Makes each batch of parts that several samplers pick.

    Args:
        samplers: the members, in the order in which they are asked.
        weights: of each, its part of the batch; equal parts unless given. A member with weight 0 is never asked.

    Raises:
        ConfigError: no samplers, or weights that are negative, not finite, not one for each, or do not sum to 1.

    Reference:
        google/active-learning, mixture_of_samplers; there a member with weight 0 is asked for one row.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> from torchal.samplers import Margin, Mixture, Uniform
        >>> mixture = Mixture([Margin(), Uniform()], weights=[0.75, 0.25])
        >>> mixture.select(PoolView.from_tensors(scores=torch.tensor([3.0, -0.5, 1.0, 2.0, 9.0])), 4).indices[:3]
        tensor([1, 2, 3])
    """

    samplers: Sequence[Sampler]
    weights: Sequence[float] | None = None
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_members()
        n_members = len(self.samplers)
        equal = [1 / n_members] * n_members
        self.weights = checked_weights(equal if self.weights is None else self.weights, n_members=n_members)

    def needs_model(self, n_labeled: int) -> bool:
        """Tell whether a member that is asked reads a model once there are so many labels."""
        assert self.weights is not None
        pairs = zip(self.members, self.weights, strict=True)
        return any(weight > 0 and sampler.needs_model(n_labeled) for sampler, weight in pairs)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `CompositeSampler.mix`."""
        assert self.weights is not None
        mixed = self.mix(view, n, self.weights)
        self._report = {"members": self.members_report(mixed.indices, mixed.proposals)}
        return mixed.selection

    def report(self) -> dict[str, Any]:
        """Return which rows of the last batch each member has named, and the members' own reports."""
        return self._report
