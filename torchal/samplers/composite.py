"""What samplers made of other samplers have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchal._checks import check_budget
from torchal._records import as_plain
from torchal.errors import ConfigError, DataError
from torchal.functional.selection import Selection
from torchal.pool.round_result import RoundResult
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler, check_state, checked_selection

_SUM_TOLERANCE = 1e-6


class Mixed(NamedTuple):
    """A batch that several samplers have a part in.

    Shapes:
        indices: (n,) int64, in the order in which they came into the batch.
        scores: (n,) float64, each as the sampler that brought the row gave it: they have no common scale.
        proposals: for each sampler (m,) int64, all rows that it named, whoever brought them into the batch.
    """

    indices: Tensor
    scores: Tensor
    proposals: tuple[Tensor, ...]

    @property
    def selection(self) -> Selection:
        """The batch alone."""
        return Selection(self.indices, self.scores)


class CompositeSampler(Sampler):
    """A sampler made of others, its members.

    A subclass is a dataclass with a field `samplers` that calls `check_members` first of all; its `select` asks
    members, by `mix` or one by one, and puts `members_report` into its report under "members", from which `observe`
    tells each member which of the rows bought it has named. That report is in its field `_report`, which is part of the
    state. An `observe` of its own calls this one too. One member alone is wrapped by a `WrapperSampler`.
    """

    samplers: Sequence[Sampler]
    _report: dict[str, Any]

    @property
    def members(self) -> tuple[Sampler, ...]:
        """The samplers that this one is made of."""
        return tuple(self.samplers)

    def check_members(self, *, may_be_none: bool = False) -> None:
        """Make `samplers` a tuple, and require at least one of them unless told otherwise, each an object of its own.

        Args:
            may_be_none: whether there may be no sampler at all.

        Raises:
            ConfigError: no samplers, something else among them, or the same object twice: it would observe twice.
        """
        is_list = isinstance(self.samplers, Sequence) and not isinstance(self.samplers, str)
        if not is_list or not (self.samplers or may_be_none):
            raise ConfigError(f"samplers must be a list of at least one sampler, got {self.samplers!r}")
        for sampler in self.samplers:
            if isinstance(sampler, type):
                raise ConfigError(f"samplers must be objects, got the class {sampler.__name__}: {sampler.__name__}()")
            if not isinstance(sampler, Sampler):
                raise ConfigError(f"samplers must be Sampler objects, got {sampler!r}; by name: from_name({sampler!r})")
        object.__setattr__(self, "samplers", tuple(self.samplers))
        times = Counter(map(id, _all_members(self)))
        repeated = next((sampler for sampler in _all_members(self) if times[id(sampler)] > 1), None)
        if repeated is not None:
            raise ConfigError(f"one object is a member {times[id(repeated)]} times: {repeated!r}; make one for each")

    @property
    def names(self) -> list[str]:
        """What the members are called in reports: their classes, numbered where one comes again."""
        classes = [type(sampler).__name__ for sampler in self.members]
        seen: Counter[str] = Counter()
        names = []
        for name in classes:
            seen[name] += 1
            names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
        return names

    @property
    def needs_validation(self) -> bool:
        """Whether a member needs a validation part."""
        return any(sampler.needs_validation for sampler in self.members)

    def needs_model(self, n_labeled: int) -> bool:
        """Tell whether a member reads a model once there are so many labels."""
        return any(sampler.needs_model(n_labeled) for sampler in self.members)

    def check_model(self, model: object) -> None:
        """Require what the members read of a model."""
        super().check_model(model)
        for sampler in self.members:
            sampler.check_model(model)

    def reads(self, capability: type) -> bool:
        """Tell whether a member requires a capability."""
        return super().reads(capability) or any(sampler.reads(capability) for sampler in self.members)

    def mix(self, view: PoolView, n: int, weights: Sequence[float]) -> Mixed:
        """Pick n candidates, of which each member with a positive weight brings its part.

        Each pass adds what is missing to a running size, and asks every member, in order, for max(1, weight x size)
        rows, rounded down, at most n. Rows that are not in the batch yet are taken until it is full, so rows that
        several members want are made up for in the next pass. A member draws from a fork of the view.

        Args:
            view: of the round.
            n: how many.
            weights: of the members, in their order.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
            ConfigError: see `checked_weights`.
            ShapeError: a member does not answer with as many distinct candidates as it was asked for.
        """
        check_budget(n, int(view.candidates.sum()))
        weights = checked_weights(weights, n_members=len(self.members))
        views = [view.fork(i) for i in range(len(self.members))]
        answers: list[dict[int, Selection]] = [{} for _ in self.members]
        left = torch.ones_like(view.candidates)
        parts: list[Selection] = []
        size = missing = n
        while missing:
            for name, member, sampler, own, weight in zip(
                self.names, answers, self.members, views, weights, strict=True
            ):
                if not missing or not weight > 0:
                    continue
                wanted = min(max(int(weight * size), 1), n)
                if wanted not in member:
                    answer = sampler.select(own, wanted)
                    member[wanted] = checked_selection(answer, wanted, view.candidates, by=name)
                rows, scores = member[wanted]
                new = left[rows].nonzero().squeeze(1)[:missing]
                parts.append(Selection(rows[new], scores[new].double()))
                left[rows[new]] = False
                missing -= len(new)
            size += missing
        indices, scores = (torch.cat(values) for values in zip(*parts, strict=True))
        named = (torch.cat([indices[:0], *(answer.indices for answer in some.values())]).unique() for some in answers)
        return Mixed(indices, scores, tuple(named))

    def members_report(self, rows: Tensor, proposals: Sequence[Tensor], *, with_reports: bool = True) -> dict[str, Any]:
        """Return, by name, which rows of a batch (n,) each member has named, how many, and its own report.

        A member's report is of its last selection: leave it out where the batch comes from others.

        Args:
            rows: of the batch.
            proposals: the rows that each member named, in the order of the members.
            with_reports: whether the members' own reports are in it.
        """
        report: dict[str, Any] = {}
        for name, sampler, proposed in zip(self.names, self.members, proposals, strict=True):
            own = rows[torch.isin(rows, proposed)].tolist()
            report[name] = {"rows": own, "n_rows": len(own)}
            if with_reports and own and (more := sampler.report()):
                report[name]["report"] = more
        return report

    def observe(self, result: RoundResult) -> Mapping[str, Any] | None:
        """Let each member learn from the round: all rows and labels, with its report if it named one of them.

        Rows that it did not name have no score; those that it did have the score of the member that brought them.
        """
        told = result.report.get("members", {})
        learned = {}
        for name, sampler in zip(self.names, self.members, strict=True):
            own = told.get(name, {})
            named = torch.isin(result.rows, torch.tensor(own.get("rows", []), dtype=torch.int64))
            report = own.get("report", {}) if bool(named.any()) else {}
            part = replace(result, scores=torch.where(named, result.scores, math.nan), report=report)
            more = sampler.observe(part)
            if more:
                learned[name] = more
        return {"members": learned} if learned else None

    @property
    def picks_ahead(self) -> bool:
        """Whether all members can pick another batch before the labels of the last one came."""
        return all(sampler.picks_ahead for sampler in self.members)

    def revised(self, rows: Tensor, labels: Tensor) -> None:
        """Let the members take notice that labels are others now."""
        for sampler in self.members:
            sampler.revised(rows, labels)

    def extended(self, n_rows: int) -> None:
        """Let the members take notice that the pool has more rows."""
        for sampler in self.members:
            sampler.extended(n_rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the members' states, and the report of the last selection: its rows may be told later."""
        members = [sampler.state_dict() for sampler in self.members]
        return {"names": self.names, "members": members, "report": as_plain(self.report())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            DataError: the state is of other members.
        """
        check_state(state, "names", "members", by=type(self).__name__)
        if state["names"] != self.names:
            raise DataError(f"the state is of {', '.join(state['names'])}; the members are {', '.join(self.names)}")
        for sampler, own in zip(self.members, state["members"], strict=True):
            sampler.load_state_dict(own)
        object.__setattr__(self, "_report", state.get("report", {}))  # there is none in a state of earlier versions


class WrapperSampler(CompositeSampler):
    """A sampler made of one other, which it shows another view, or whose answer it works on.

    A subclass is a dataclass with a field `sampler` that calls `check_members` first of all. Its `select` gives
    `sampler_report` to its report under "members"; all else is as in a composite of one.
    """

    sampler: Sampler

    @property
    def members(self) -> tuple[Sampler, ...]:
        """The sampler, alone."""
        return (self.sampler,)

    def check_members(self, *, may_be_none: bool = False) -> None:  # noqa: ARG002 - there is one
        """Require that `sampler` is one.

        Raises:
            ConfigError: it is something else.
        """
        if isinstance(self.sampler, type) or not isinstance(self.sampler, Sampler):
            raise ConfigError(
                f"sampler must be a Sampler object, got {self.sampler!r}; by name: samplers.from_name(...)"
            )

    def ask(self, view: PoolView, n: int) -> Selection:
        """Return n candidates of a view that the sampler picks, after checking that they are.

        Raises:
            ShapeError: see `checked_selection`.
        """
        return checked_selection(self.sampler.select(view, n), n, view.candidates, by=self.names[0])

    def sampler_report(self, rows: Tensor, *, with_report: bool = True) -> dict[str, Any]:
        """Return that the sampler has named these rows (n,), all of a batch, and its own report of its last selection.

        Leave that out where it was asked more than once for the batch.

        Args:
            rows: of the batch.
            with_report: whether its own report is in it.
        """
        return self.members_report(rows, [rows], with_reports=with_report)


def _all_members(sampler: CompositeSampler) -> Iterator[Sampler]:
    for member in sampler.members:
        yield member
        if isinstance(member, CompositeSampler):
            yield from _all_members(member)


def checked_weights(weights: object, *, n_members: int) -> tuple[float, ...]:
    """Return one weight for each member.

    Raises:
        ConfigError: not one for each, or one that is negative or not finite, or their sum is not 1 (within 1e-6).
    """
    weights = _as_list(weights)
    if isinstance(weights, str) or not isinstance(weights, Sequence) or len(weights) != n_members:
        raise ConfigError(f"there must be one weight for each of {n_members} samplers, got {weights!r}")
    for weight in weights:
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        if not (number and math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"weights must be finite numbers of at least 0, got {weight!r} in {list(weights)!r}")
    total = math.fsum(weights)
    if abs(total - 1) > _SUM_TOLERANCE:
        raise ConfigError(f"weights must sum to 1, got {list(weights)!r} with the sum {total:g}")
    return tuple(float(weight) for weight in weights)


def checked_arms(arms: object, *, n_members: int) -> tuple[tuple[float, ...], ...]:
    """Return arms, each of them weights of the members; each member alone where none are given.

    Raises:
        ConfigError: an empty list of arms, or see `checked_weights`.
    """
    if arms is None:
        return tuple(tuple(float(i == j) for j in range(n_members)) for i in range(n_members))
    arms = _as_list(arms)
    if isinstance(arms, str) or not isinstance(arms, Sequence) or not arms:
        raise ConfigError(f"arms must be a list of at least one arm, got {arms!r}")
    return tuple(checked_weights(arm, n_members=n_members) for arm in arms)


def _as_list(values: object) -> object:
    """Return a tensor or an array as a list, anything else as it is."""
    return values.tolist() if hasattr(values, "tolist") else values


def arm_names(names: Sequence[str], arms: Sequence[Sequence[float]]) -> list[str]:
    """Return what arms are called in reports.

    Example:
        >>> arm_names(["Margin", "Uniform"], [(1.0, 0.0), (0.25, 0.75)])
        ['Margin-1', 'Margin-0.25-Uniform-0.75']
    """
    found = ["-".join(f"{name}-{w:g}" for name, w in zip(names, arm, strict=True) if w > 0) for arm in arms]
    return [name if found.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(found)]
