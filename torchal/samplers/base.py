"""What a query strategy is."""

from __future__ import annotations

import functools
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchal._checks import as_integers, as_rows, check_budget, check_flag
from torchal._records import as_plain
from torchal.errors import CapabilityError, DataError, ShapeError
from torchal.functional.selection import Selection, top_n
from torchal.pool.round_result import RoundResult
from torchal.pool.view import PoolView
from torchal.protocols import check_provides


class Sampler(ABC):
    """Chooses the rows of a pool that are worth a label.

    A subclass is a frozen dataclass whose fields are its settings. One with state is a plain dataclass whose state
    fields are `init=False`; it changes them in `observe` only and saves them by `state_dict`.

    `ActiveLearner`, `rounds` and `Trainer` have a sampler observe every round. In a loop of one's own, `tell` does.
    """

    requires: ClassVar[tuple[type, ...]] = ()
    """Capabilities (`torchal.protocols`) that the model must have, each of them; checked before the first fit."""

    reads_model: ClassVar[bool] = True
    """Whether `select` reads a fitted model; where not, the view's features and labels are enough."""

    on_ranks: ClassVar[bool] = False
    """Whether `select` can pick from a view of one rank's part of the pool, together with the other ranks.

    It then counts by `view.n_candidates` and `view.total`, gives `view.group` to the function that picks, and never
    decides by what it sees of its own rows alone: all ranks must speak in the same order. What it computes itself of
    each row, it computes in `view.of_rows`. A sampler that does not say so is given no such view.
    """

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if "select" in vars(cls) and not cls.on_ranks:
            cls.select = _of_all_rows(cls.select)  # type: ignore[assignment, method-assign]

    @property
    def can_be_on_ranks(self) -> bool:
        """Whether it can with its settings."""
        return self.on_ranks

    @property
    def picks_ahead(self) -> bool:
        """Whether it can pick another batch before the labels of the last one came."""
        return True

    def needs_model(self, n_labeled: int) -> bool:  # noqa: ARG002 - a switch has members that do and that do not
        """Tell whether it reads a model once there are so many labels; one that does not can pick the very first rows.

        Whoever asks it then may give it a view without a model, whose features are the pool's inputs.

        Args:
            n_labeled: how many labels there are.
        """
        return self.reads_model

    @property
    def needs_validation(self) -> bool:
        """Whether the sampler looks at the model's score on a validation part; checked before the first fit."""
        return False

    @abstractmethod
    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n of the view's candidates. The same view gives the same answer.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
            CapabilityError: the view is of one rank's rows, and the sampler cannot pick from such (`on_ranks`).
        """

    def check_model(self, model: object) -> None:
        """Require what this sampler reads of a model.

        Raises:
            CapabilityError: the model lacks a capability.
        """
        for capability in self.requires:
            check_provides(model, capability, needed_by=type(self).__name__)

    def reads(self, capability: type) -> bool:
        """Tell whether this sampler, or one that it asks, requires a capability."""
        return capability in self.requires

    def observe(self, result: RoundResult) -> Mapping[str, Any] | None:  # noqa: ARG002 - most samplers have no state
        """Learn from a finished round: the rows that were bought, and the model's validation scores after them.

        Where the sampler reads no model, also from a batch after which none can be fitted yet, without such scores.
        `result.report` is what `report` said when the rows were picked. What this returns, if anything, joins it in the
        run's record, under "learned"; plain numbers, text, lists and dicts only.
        """
        return None

    def tell(
        self,
        picks: Selection | Tensor,
        labels: Tensor,
        *,
        picked: bool = True,
        validation_accuracy: float | None = None,
    ) -> Mapping[str, Any] | None:
        """Tell the sampler which rows have been labeled: in a loop of one's own, after each `select`.

        Samplers that learn, as `GraphDensity`, `Hierarchical` and `Bandit`, and samplers made of them, `observe` it as
        a round; all others take it and do nothing. The labels of a batch may come in parts, each by a call.

        Args:
            picks: what `select` returned last, or some of its rows; nobody has to tell of a start set, and rows told
                before the first `select` are one.
            labels: of these rows.
            picked: False for rows that others chose; a sampler may learn from them too.
            validation_accuracy: of a model fitted with these labels, which a bandit learns from.

        Shapes:
            picks: a selection of n rows, or (n,) int64.
            labels: (n,) int64.

        Returns:
            What was learned, as `observe` returns it.

        Raises:
            ShapeError: rows that repeat, or not as many labels as rows.
            DataError: a label is negative, as one that was not bought is; rows that are not of the last selection, of a
                sampler that says which row is whose, as a bandit; a bandit without a validation accuracy.

        Example:
            >>> from torchal.samplers import GraphDensity
            >>> features, labels = torch.rand(100, 2), torch.arange(100) % 2
            >>> sampler, targets = GraphDensity(), torch.full((100,), -1)
            >>> for _ in range(3):
            ...     view = PoolView.from_tensors(features=features, targets=targets)
            ...     picks = sampler.select(view, 5)
            ...     targets[picks.indices] = labels[picks.indices]
            ...     sampler.tell(picks, targets[picks.indices])
            >>> sampler.report()["n_picks"]
            15
        """
        check_flag("picked", picked)
        rows = as_integers("picks", picks.indices if isinstance(picks, Selection) else picks).cpu()
        rows = as_rows("picks", rows, n_rows=int(rows.max()) + 1 if len(rows) else 0, device=rows.device)
        labels = as_integers("labels", labels).cpu()
        if len(labels) != len(rows):
            raise ShapeError(f"there must be one label for each of {len(rows)} rows, got {len(labels)}")
        if bool((labels < 0).any()):
            raise DataError(f"labels must be at least 0: {int((labels < 0).sum())} of {len(labels)} are not")
        if not len(rows):
            return None
        report = as_plain(self.report()) if picked else {}
        _check_of_last(rows, report, by=type(self).__name__)
        scores = picks.scores.cpu().double() if isinstance(picks, Selection) else torch.zeros(len(rows)).double()
        result = RoundResult(
            round=-1,
            n_labeled=-1,
            rows=rows,
            source_rows=rows,
            labels=labels,
            scores=scores if picked else torch.full_like(scores, math.nan),
            picked_by=type(self).__name__ if picked else "others",
            validation={} if validation_accuracy is None else {"accuracy": float(validation_accuracy)},
            report=report,
        )
        return self.observe(result)

    def revised(self, rows: Tensor, labels: Tensor) -> None:  # noqa: B027 - most samplers have nothing to revise
        """Take notice that labels which were observed are others now, or were taken back.

        A sampler that learns from labels learns again from those that it knows; one that learns from its picks only
        forgets those that were taken back.

        Shapes:
            rows: (n,) int64.
            labels: (n,) int64, -1 where there is no label any more.
        """

    def extended(self, n_rows: int) -> None:  # noqa: B027 - most samplers have no state of the pool
        """Take notice that the pool has n_rows rows from now on: those of before, with others behind them.

        Raises:
            ConfigError: a setting is of the rows of before, and cannot be of more.
        """

    def report(self) -> dict[str, Any]:
        """Return what the run's record should say about the last selection; plain numbers, text, lists and dicts only.

        TensorBoard shows the numbers, those in dicts too, but not those in lists.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state as tensors, numbers, text, lists and dicts; empty where there is none."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            ValueError: the sampler has no state and is given some.
        """
        if state:
            raise ValueError(f"{type(self).__name__} has no state, got {', '.join(map(str, state))}")


def _of_all_rows(select: Callable[[Any, PoolView, int], Selection]) -> Callable[[Any, PoolView, int], Selection]:
    """Return a `select` that refuses a part of the pool, of which it would pick as if that were all of it."""

    @functools.wraps(select)
    def checked(self: Sampler, view: PoolView, n: int) -> Selection:
        if view.group is not None and not self.can_be_on_ranks:
            raise CapabilityError(
                f"{type(self).__name__} cannot pick from rows on {view.group.world_size} ranks "
                "as one of torchal.samplers.names_on_ranks() can"
            )
        return select(self, view, n)

    return checked


def _check_of_last(rows: Tensor, report: Mapping[str, Any], *, by: str) -> None:
    """Require that rows (n,) are of the selection that a report is of, where it says which member named which row."""
    if not report.get("members"):
        return
    named = torch.tensor([row for told in report["members"].values() for row in told.get("rows", [])]).long().unique()
    others = rows[~torch.isin(rows, named)]
    if len(others):
        raise DataError(
            f"{len(others)} of {len(rows)} rows, the first of them row {int(others[0])}, are not among the "
            f"{len(named)} that {by} picked last, and whose they are is known of these only: tell it each batch before "
            "the next select, and of rows that others chose with picked=False"
        )


def check_state(state: Mapping[str, Any], *keys: str, by: str) -> None:
    """Require what a sampler's `state_dict` has.

    Raises:
        DataError: something is missing, as in the state of another sampler.
    """
    missing = [key for key in keys if key not in state]
    if missing:
        raise DataError(f"the state is not of {by}: it has no {', '.join(missing)}")


def checked_selection(selection: Selection, n: int, candidates: Tensor, *, by: str) -> Selection:
    """Return a selection as int64 rows and scores, after checking what every sampler promises.

    Raises:
        ShapeError: it is not n distinct candidates, each with a score.
        DataError: a score is NaN, which says in a record that no sampler picked the row.
    """
    rows, scores = selection
    rows = as_rows(f"the rows that {by} picked", rows, n_rows=len(candidates), device=candidates.device)
    if not isinstance(scores, Tensor) or scores.shape != rows.shape:
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise ShapeError(f"{by} picked {len(rows)} rows with scores of {got}")
    if bool(scores.isnan().any()):
        raise DataError(f"{by} gave {int(scores.isnan().sum())} of {len(rows)} rows the score NaN")
    wrong = int((~candidates[rows]).sum())
    if len(rows) != n or wrong:
        raise ShapeError(f"{by} was asked for {n} rows and picked {len(rows)}, {wrong} of them no candidates")
    return Selection(rows, scores)


class ScoreSampler(Sampler):
    """Scores each row by itself and picks the highest; equal scores go to the lowest row."""

    @abstractmethod
    def score(self, view: PoolView) -> Tensor:
        """Return the value of each row, (N,) float; higher = more wanted."""

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick the n candidates with the highest scores."""
        n_candidates = view.n_candidates
        check_budget(n, n_candidates)
        scores = view.of_rows(lambda: self.score(view))
        if n < n_candidates:
            low, high = _range_of(scores[view.candidates], view)
            if low == high:
                warnings.warn(
                    f"all {n_candidates} candidates have the same {type(self).__name__} score, {low:g}: the picks are "
                    "the first rows, not those most wanted. Does the model answer the same for every row?",
                    UserWarning,
                    stacklevel=3,
                )
        return top_n(scores, n, candidates=view.candidates, group=view.group)


def _range_of(scores: Tensor, view: PoolView) -> tuple[float, float]:
    """Return the least and the largest of the candidates' scores, on all ranks where there are several."""
    if view.group is None:
        low, high = scores.aminmax()
        return float(low), float(high)
    ends = torch.tensor([math.inf, math.inf], dtype=torch.float64, device=scores.device)
    if len(scores):
        low, high = scores.aminmax()
        ends = torch.stack([low, -high]).double()
    low, high = view.group.all_reduce(ends, "min")
    return float(low), -float(high)
