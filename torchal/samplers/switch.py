"""One sampler at first, another from then on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torchal._checks import check_whole
from torchal.errors import ConfigError
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler
from torchal.samplers.composite import CompositeSampler
from torchal.samplers.margin import Margin
from torchal.samplers.typiclust import TypiClust


@dataclass
class Switch(CompositeSampler):
    """Asks its first sampler until there are enough labels, and its second from then on.

    Uncertainty means little while labels are few, and diversity little once they are many. Labels of the start set
    count. A batch that begins before the switch is the first sampler's as a whole. A switch in a switch has three
    phases.

    Args:
        samplers: the two. Both observe all rounds, so the second knows what was bought before its time.
        after: the number of labels from which on the second is asked.

    Raises:
        ConfigError: there are not two samplers, or `after` is not a whole number of at least 0.

    Reference:
        Doucet, Estermann, Aczel & Wattenhofer, "Bridging Diversity and Uncertainty in Active Learning with
        Self-Supervised Pre-Training", 2024: TypiClust, then margin sampling (TCM).

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> from torchal.samplers import KCenterGreedy, Margin, Switch
        >>> x = torch.tensor([[0.0], [0.1], [5.0], [9.0]])
        >>> view = PoolView.from_tensors(features=x, scores=x, labeled=torch.tensor([True, False, False, False]))
        >>> [int(Switch([KCenterGreedy(), Margin()], after=k).select(view, 1).indices) for k in (2, 1)]
        [3, 1]
    """

    samplers: Sequence[Sampler]
    after: int = 50
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_members()
        check_whole("after", self.after, least=0)
        if len(self.samplers) != 2:
            raise ConfigError(f"a switch is between 2 samplers, got {len(self.samplers)}")

    def needs_model(self, n_labeled: int) -> bool:
        """Tell whether the sampler whose turn it is with so many labels reads a model."""
        return self.members[self._turn(n_labeled)].needs_model(n_labeled)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by the sampler whose turn it is."""
        turn = self._turn(int(view.labeled.sum()))
        mixed = self.mix(view, n, [1.0 - turn, float(turn)])
        members = self.members_report(mixed.indices, mixed.proposals)
        self._report = {"turn": self.names[turn], "members": members}
        return mixed.selection

    def _turn(self, n_labeled: int) -> int:
        return int(n_labeled >= self.after)

    def report(self) -> dict[str, Any]:
        """Return whose turn it was, and its own report."""
        return self._report


def typiclust_then_margin() -> Switch:
    """Return a switch from typical rows of clusters to margin sampling after 50 labels."""
    return Switch((TypiClust(), Margin()))
