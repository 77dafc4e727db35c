"""Several reasons to want a row, multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal._checks import as_rows, check_budget
from torchal.engine.distances import Metric, check_metric
from torchal.errors import ConfigError
from torchal.functional.combine import check_strengths, combined_greedy, query_similarity
from torchal.functional.information_density import density_weighted, information_density, non_negative
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities, check_provides
from torchal.samplers.base import Sampler, ScoreSampler
from torchal.samplers.composite import CompositeSampler
from torchal.samplers.margin import Margin


@dataclass
class Combine(CompositeSampler):
    """Picks one row after another by the product of scores, diversity, density, similarity and class balance.

    Each factor has a strength, its exponent; 0 leaves it out. Scores that are negative, as margins, are shifted until
    the least wanted candidate has 0. Features are the model's embedding where it has one.

    Args:
        samplers: score each row by itself; there may be none where something else counts, and then no model is needed
            but for the balance.
        strengths: of their scores, one for each; 1 unless given.
        diversity: of the distance to the nearest labeled row or pick.
        density: of the mean cosine with the unlabeled rows, how typical a row is.
        query_rows: rows of the pool that more are wanted like.
        similarity: of the similarity to the nearest of these.
        balance: of how wanted the predicted classes are, given the labels so far and the picks.
        target: the shares of the classes that are wanted, one for each class of the pool; equal ones unless given.
        metric: euclidean, cosine or manhattan, of the diversity.

    Raises:
        ConfigError: nothing counts; a sampler that does not score each row by itself; a strength that is not a finite
            number of at least 0; an unknown metric.

    Reference:
        See `torchal.functional.combined_greedy`.

    Example:
        >>> from torchal import PoolView
        >>> from torchal.samplers import Combine, Margin
        >>> x = torch.tensor([[0.0], [5.0], [5.1], [-9.0]])
        >>> view = PoolView.from_tensors(features=x, scores=torch.tensor([9.0, 0.1, 0.0, 1.0]))
        >>> Margin().select(view, 2).indices, Combine([Margin()]).select(view, 2).indices
        (tensor([2, 1]), tensor([3, 2]))
    """

    samplers: Sequence[Sampler] = ()
    strengths: Sequence[float] | None = None
    diversity: float = 1.0
    density: float = 0.0
    query_rows: Sequence[int] | None = None
    similarity: float = 1.0
    balance: float = 0.0
    target: Sequence[float] | None = None
    metric: Metric = "euclidean"
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_members(may_be_none=True)
        for sampler in self.samplers:
            if not isinstance(sampler, ScoreSampler):
                raise ConfigError(f"scores of single rows are multiplied; {type(sampler).__name__} picks rows together")
        strengths = [1.0] * len(self.samplers) if self.strengths is None else self.strengths
        check_strengths(strengths, n_utilities=len(self.samplers))
        self.strengths = tuple(float(strength) for strength in strengths)
        check_strengths((self.diversity, self.density, self.similarity, self.balance))
        check_metric(self.metric)
        similarity = self.similarity if self.query_rows is not None else 0.0
        if not (self._counting or self.diversity or self.density or similarity or self.balance):
            raise ConfigError("there is nothing to choose by: give samplers, or a diversity or density above 0")

    def needs_model(self, n_labeled: int) -> bool:
        """Tell whether a member that counts, or the balance, reads a model."""
        return self.balance > 0 or any(self.members[i].needs_model(n_labeled) for i in self._counting)

    def check_model(self, model: object) -> None:
        """Require what the members read, and probabilities to balance classes by."""
        super().check_model(model)
        if self.balance:
            check_provides(model, HasProbabilities, needed_by=f"{type(self).__name__}(balance={self.balance:g})")

    def reads(self, capability: type) -> bool:
        """Tell whether a member, or the balance, requires a capability."""
        return super().reads(capability) or (capability is HasProbabilities and self.balance > 0)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `combined_greedy`.

        Raises:
            ConfigError: target has not a number for each class.
        """
        check_budget(n, int(view.candidates.sum()))
        utilities, strengths = self._utilities(view)
        selection = combined_greedy(
            n,
            utilities=utilities,
            strengths=strengths,
            features=view.features if self.diversity else None,
            diversity=self.diversity,
            labeled=view.labeled,
            candidates=view.candidates,
            metric=self.metric,
            **(self._balance(view) if self.balance else {}),
        )
        named = [selection.indices if i in self._counting else selection.indices[:0] for i in range(len(self.samplers))]
        members = self.members_report(selection.indices, named, with_reports=False)
        self._report = {"members": members}
        return selection

    @property
    def _counting(self) -> list[int]:
        """The numbers of the members with a strength above 0."""
        assert self.strengths is not None
        return [i for i, strength in enumerate(self.strengths) if strength > 0]

    def report(self) -> dict[str, Any]:
        """Return which rows each member has scored: all of the batch, if it counts."""
        return self._report

    def _utilities(self, view: PoolView) -> tuple[list[Tensor], list[float]]:
        """Return what each row is worth by itself, and the strengths of that."""
        assert self.strengths is not None
        utilities, strengths = [], [self.strengths[i] for i in self._counting]
        for i in self._counting:
            sampler = self.samplers[i]
            assert isinstance(sampler, ScoreSampler)
            utilities.append(non_negative(sampler.score(view.fork(i)), candidates=view.candidates))
        if self.density:
            density = information_density(view.features, among=~view.labeled)
            utilities.append(density_weighted(torch.ones_like(density), density, candidates=view.candidates))
            strengths.append(self.density)
        if self.query_rows is not None and self.similarity:
            rows = as_rows("query_rows", self.query_rows, n_rows=len(view), device=view.candidates.device)
            utilities.append(query_similarity(view.features, rows))
            strengths.append(self.similarity)
        return utilities, strengths

    def _balance(self, view: PoolView) -> dict[str, Any]:
        """Return what the classes that the model has seen are balanced by."""
        target = [1.0] * view.n_classes if self.target is None else self.target
        if len(target) != view.n_classes:
            raise ConfigError(f"target has {len(target)} numbers, the pool has {view.n_classes} classes")
        classes = view.classes.to(view.candidates.device)
        counts = view.targets[view.labeled].bincount(minlength=view.n_classes)
        return {
            "log_probs": view.log_probs,
            "balance": self.balance,
            "target": torch.tensor(target, dtype=torch.float64, device=classes.device)[classes],
            "counts": counts[classes],
        }


def combine_margin() -> Combine:
    """Return margins times distances, which are uncertain rows apart from each other."""
    return Combine((Margin(),))
