"""One decision for many scored parts: boxes of an image, frames of a video, sentences of a document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from torchal._checks import check_budget, check_whole
from torchal.errors import ConfigError, DataError
from torchal.functional.segments import How, Ids, Segments, as_segments, check_how, top_of_groups
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler, ScoreSampler, check_state
from torchal.samplers.composite import WrapperSampler
from torchal.samplers.entropy import Entropy


@dataclass
class ByGroup(WrapperSampler):
    """Scores rows by another sampler, and picks them group by group, the group with the highest score first.

    The rows of the pool are the parts, as the boxes of all images, and n counts rows: of each group all candidates are
    picked, best first, and of the last one so many as are missing. With `per_group`, no group gives more than so many
    while others have not given theirs. A group without candidates is left out.

    Args:
        sampler: scores each row by itself; `Entropy` unless given.
        groups: the id of each row's group, (N,) whole numbers or text; each row is a group of its own unless given.
        how: what scores a group: the "max", "mean" or "sum" of its candidates' scores, or "top_k", the mean of the k
            highest.
        k: how many count with "top_k".
        per_group: the most rows of a group in a batch, as long as there are other groups; all of them unless given.

    Raises:
        ConfigError: the sampler does not score each row by itself; an unknown `how`; a number out of range.
        ShapeError: ids that are neither whole numbers nor text; in `select`, not one for each row of the pool.

    Reference:
        See `torchal.functional.top_of_groups`.

    Example:
        >>> from torchal.samplers import Margin
        >>> view = PoolView.from_tensors(scores=torch.tensor([0.9, 3.0, 0.1, 2.0]))
        >>> ByGroup(Margin(), groups=["a.jpg", "a.jpg", "b.jpg", "b.jpg"]).select(view, 3).indices
        tensor([2, 3, 0])
    """

    sampler: Sampler = field(default_factory=Entropy)
    groups: Ids | Segments | None = field(default=None, repr=False, compare=False)  # tensors have no one truth
    how: How = "max"
    k: int | None = None
    per_group: int | None = None
    groups_digest: str | None = field(default=None, init=False)
    """In the place of the groups, where samplers are compared."""
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_members()
        if not isinstance(self.sampler, ScoreSampler):
            raise ConfigError(
                f"groups are ranked by the scores of single rows; {type(self.sampler).__name__} picks rows together"
            )
        check_how(self.how, self.k)
        if self.per_group is not None:
            check_whole("per_group", self.per_group, least=1)
        if self.groups is not None:
            n_rows = len(self.groups.groups if isinstance(self.groups, Segments) else self.groups)
            self.groups = as_segments(self.groups, n_rows=n_rows)
            self.groups_digest = self.groups.digest

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `top_of_groups`."""
        assert isinstance(self.sampler, ScoreSampler)
        check_budget(n, int(view.candidates.sum()))
        groups = torch.arange(len(view)) if self.groups is None else self.groups
        segments = as_segments(groups, n_rows=len(view), device=view.candidates.device)
        selection = top_of_groups(
            self.sampler.score(view),
            segments,
            n,
            how=self.how,
            k=self.k,
            per_group=self.per_group,
            candidates=view.candidates,
        )
        picked = as_segments(segments.groups[selection.indices], n_rows=n)
        self._report = {
            "n_groups": len(picked.ids),
            "groups": [segments.ids[number] for number in picked.ids],
            "rows_per_group": picked.groups.bincount().tolist(),
            "members": self.sampler_report(selection.indices),
        }
        return selection

    def report(self) -> dict[str, Any]:
        """Return the groups of the last batch in their order, how many rows each gave, and the sampler's own report."""
        return self._report

    def extended(self, n_rows: int) -> None:
        """Let the sampler take notice that the pool has more rows.

        Raises:
            ConfigError: nobody said which groups these are of.
        """
        if self.groups is not None:
            raise ConfigError(
                f"the groups are those of {len(self.groups.groups)} rows, and the pool is to have {n_rows}: begin "  # type: ignore[union-attr]
                "a new learner with the groups of all rows, and tell it the labels so far"
            )
        super().extended(n_rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the sampler's state, and of which groups it is."""
        return super().state_dict() | {"groups": self.groups_digest}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            DataError: the state is of other groups, or of another sampler.
        """
        check_state(state, "groups", by=type(self).__name__)
        if state["groups"] != self.groups_digest:
            raise DataError(f"the state is of the groups {state['groups']}; this sampler has {self.groups_digest}")
        super().load_state_dict(state)
