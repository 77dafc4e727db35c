"""A model, a sampler and a pool, one step at a time: ask for rows, tell their labels, and again."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from torchal._checks import check_budget, check_flag
from torchal._records import as_plain, as_safe_bytes, write_atomically
from torchal.distributed import Group
from torchal.errors import CapabilityError, ConfigError, DataError, FitError, RunError
from torchal.functional.represents import represents
from torchal.pool import interop
from torchal.pool.classes import Classes
from torchal.pool.inputs import SparseInputs, checked_inputs, have_distances
from torchal.pool.labels import LabeledData, checked_part
from torchal.pool.pool import Pool
from torchal.pool.round_result import RoundResult
from torchal.pool.tables import TableInputs
from torchal.pool.view import PoolView
from torchal.protocols import (
    UNLABELED,
    Classifier,
    HasEmbedding,
    HasPosterior,
    HasProbabilities,
    Inputs,
    check_provides,
    provides,
)
from torchal.runs.calibration import reliability
from torchal.runs.fits import PHASES, Fits, Kind, has_two_classes
from torchal.runs.label_book import LabelBook
from torchal.runs.metrics import STANDARD, Metric, outcome_of, scores
from torchal.runs.on_ranks import meeting_of, ranks_of
from torchal.runs.opinions import Consensus
from torchal.runs.phases import Phases
from torchal.runs.watching import Watched, check_watched, cover_radius, mean_of_asks, of_batch
from torchal.samplers.base import Sampler, checked_selection

_MAY_BE_MISSING = {  # in a saved state: what there is only sometimes, or was not in those of earlier versions
    *("model", "is_fitted", "last_predictions", "batches", "began_with"),
    *("n_rows", "classes", "asks", "corrections", "votes", "peak_mib"),
}
START = "start"
"""`picked_by` of rows that no sampler picked: a start set that was given or drawn at random."""


class ActiveLearner(LabelBook):
    """A model, a sampler and a pool, one step at a time: `ask` for rows, `tell` their labels.

    Labels may come in any order, in part, and on another day (`save` and `load`); they may be corrected (`relabel`,
    `unlabel`), come from several people (`tell(..., by=)`), and rows may be added (`extend`). The model is fitted again
    from the start, on all labels, when the next rows are asked for, or when `finish_round` is called. Until labels of
    two classes are there, nothing can be fitted: a sampler that reads no model, as `TypiClust`, then picks from the
    inputs, and for any other rows are drawn at random. All these batches are one round. If the sampler picked more than
    one batch of a round, its report is a list under "batches": of each its rows and its report.

    Args:
        model: any classifier with `fit` and `predict`; cloned before each fit where it can be. One with `warm_start`
            (`TorchClassifier`) goes on from its weights of the round before, which are then saved too.
        sampler: the query strategy.
        pool: the rows, with the labels that are there already.
        seed: all randomness of the samplers follows from it.
        validation: labeled data that samplers and stop rules may look at.
        test: labeled data that only the record looks at.
        metrics: further metrics, beside accuracy and log-loss.
        select_model: a model of its own for the sampler to look at; `model` is then the one that is scored. Both are
            fitted on the same labels, and their seconds are counted apart (`fit`, `fit_select`).
        costs: what a label costs: a number, or one for each row of the pool; rows that nobody could label cost too.
        truth: (N,) labels as they are, where the oracle of a simulation answers with others; for the record alone, no
            model and no sampler sees them.
        represents: record for each batch how many rows of the pool each of its picks stands for, and how far these are:
            `functional.represents` on the features of the view, among the rows without a label. A pass over the
            features with a product for each pick, and an embedding of the pool where the sampler looks at none; so not
            unless wanted.
        pretrained: whether the model is fitted already. It is then used as it is until labels of two classes are told,
            and fitted anew from then on (a `TorchClassifier` with `warm_start` goes on from its weights).
            scikit-learn's `FrozenEstimator(model)` is used as it is for good, and needs no such flag.
        on_unfit: what `ask` does where the model refuses the labels that there are, as CalibratedClassifierCV(cv=5)
            with two rows of a class: "raise", or "random", to ask for rows as before there are labels of two classes.
        consensus: how the label of a row comes about of which several people said something: "majority", where the
            label stays what it was while as many say one thing as another; or "unanimous", where a row has no label
            while they differ.
        group: the ranks of a process group that a run is on: all make the same calls, on a pool of rows in files
            (`torchal.FileRows`), of which each reads a part when rows are picked.

    Raises:
        CapabilityError: the model is no classifier, lacks something that the sampler needs, or reads no sparse rows
            where there are some.
        ConfigError: something that is no sampler or no metric, a metric with the name of a standard one, no validation
            part where the sampler looks at one, or a sampler that cannot pick on several ranks where there are some.
        DataError: a validation or test part that is empty, not finite or has labels that are none of the pool's; values
            are missing, and the model does not fill them in.

    Example:
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from torchal.samplers import Margin
        >>> x = torch.linspace(0, 1, 101)[:, None]
        >>> pool = Pool.unlabeled(x, n_classes=2).with_labels(torch.tensor([0, 9, 91, 100]), torch.tensor([0, 0, 1, 1]))
        >>> learner = ActiveLearner(GaussianNB(), Margin(), pool)
        >>> learner.ask(1)
        tensor([50])
        >>> learner.tell([50], [1])
        >>> learner.pool.n_labeled
        5
    """

    def __init__(
        self,
        model: Classifier,
        sampler: Sampler,
        pool: Pool,
        *,
        seed: int = 0,
        validation: LabeledData | None = None,
        test: LabeledData | None = None,
        metrics: Mapping[str, Metric] | None = None,
        select_model: Classifier | None = None,
        costs: float | Tensor = 1.0,
        truth: Tensor | None = None,
        represents: bool = False,
        pretrained: bool = False,
        on_unfit: Literal["raise", "random"] = "raise",
        consensus: Consensus = "majority",
        group: Group | None = None,
    ) -> None:
        check_flag("pretrained", pretrained)
        self.fits = Fits(model, select_model, pretrained=pretrained)
        """The models: what they are made of, and as they are fitted now."""
        if not isinstance(sampler, Sampler):
            raise ConfigError(f"sampler must be a Sampler, got {sampler!r}; by name: torchal.samplers.from_name")
        looked_at = self.fits.looked_at
        sampler.check_model(looked_at)
        if sampler.needs_validation and validation is None:
            raise ConfigError(f"{type(sampler).__name__} looks at the score on a validation part, and there is none")
        for name, value, known in (
            ("on_unfit", on_unfit, ("raise", "random")),
            ("consensus", consensus, get_args(Consensus)),
        ):
            if value not in known:
                raise ConfigError(f"{name} must be {' or '.join(map(repr, known))}, got {value!r}")
        self.sampler = sampler
        self.seed = int(seed)
        self.on_unfit = on_unfit
        self.validation, classes = checked_part("validation", validation, self.fits.take_trained(pool.labels))
        self.test, classes = checked_part("test", test, classes)
        super().__init__(pool.with_classes(classes), consensus=consensus)
        parts = {"inputs": pool, "the validation inputs": self.validation, "the test inputs": self.test}
        for name, part in parts.items():
            for reader in self.fits.recipes.values():
                if part is not None:
                    interop.check_reads(reader, part.inputs, name=name)
                    _check_columns(reader, pool.inputs, part.inputs, name=name)
        if sampler.reads(HasPosterior):
            interop.check_draws(looked_at, pool.inputs, pool.n_classes)
        self.costs = _checked_costs(costs, len(pool))
        self.truth = None if truth is None else self._as_truth(truth)
        check_flag("represents", represents)
        if represents and isinstance(pool.inputs, SparseInputs) and not provides(looked_at, HasEmbedding):
            raise CapabilityError(
                f"represents=True measures distances, and {type(looked_at).__name__} has no embedding of sparse rows"
            )
        self.represents = represents
        self.ranks = ranks_of(group, pool, sampler, represents=represents)
        self.metrics = dict(metrics or {})
        for name, metric in self.metrics.items():
            if name in STANDARD or not callable(metric):
                raise ConfigError(f"metrics maps new names to callables on an Outcome, got {name!r}: {metric!r}")
        self.began_with: int | list[int] | None = None
        """The start that `rounds` began with, how many rows or which; None where there was none."""
        self.phases = Phases(pool.device)
        """What the phases of the round that is going on have taken."""
        self._watched = Watched()

    @property
    def model(self) -> Classifier:
        """The model fitted on all labels bought so far; fitted now if it is not yet."""
        return self._fitted("model")

    @property
    def model_before(self) -> Classifier | None:
        """The model as it was before the labels of the last round came in.

        None where there was none, where it was not kept (after `load`), or where it is refitted in place.
        """
        return None if self.fits.last is self.fits.fitted.get("model") else self.fits.last

    @property
    def select_model(self) -> Classifier:
        """The model that the sampler looks at, fitted on all labels bought so far; `model` unless another was given."""
        return self._fitted("select_model" if "select_model" in self.fits.recipes else "model")

    def _fitted(self, kind: Kind) -> Classifier:
        """Return a model as it is fitted on all labels, in the phase of its own.

        Raises:
            FitError: it refuses them.
        """
        if kind not in self.fits.fitted:
            unchanged = self.fits.unchanged(self.pool) if kind == "model" else None
            if unchanged is not None:
                self.fits.fitted[kind] = unchanged
            else:
                with self.timed(PHASES[kind]):
                    self.fits.fit(kind, self.pool, len(self.history))
        return self.fits.fitted[kind]

    @property
    def is_fitted(self) -> bool:
        """Whether the models are fitted on all labels bought so far."""
        return self.fits.are_of_now

    @property
    def spent(self) -> float:
        """What all labels so far have cost, with the rows that nobody could label."""
        return float(self.costs[(self.pool.labeled | self.pool.skipped).cpu()].sum())

    def watch(self, *names: str) -> None:
        """Have each round record more of the pool and of its batch, beside what is watched already.

        Of the pool, on up to 2 000 rows drawn by the seed: "kappa" is Cohen's kappa between the model's predictions and
        those of the round before, "uncertainty" the mean of 1 minus the largest probability over the rows that may
        still be asked. On all rows, once the round's model is fitted: "cover_radius", the largest distance to the
        nearest labeled row; a pass over the features of the view.

        Of the batch that the sampler picked, before its labels are there: "redundancy", the mean distance between its
        rows as a share of that between random candidates, below 1 where the rows are much alike; "batch_uncertainty",
        the mean of 1 minus the largest probability. A start set has neither, nor have rows that are drawn at random
        while there is no model. See `torchal.runs.watching`.

        Args:
            names: of what is to be recorded: those above in quotes.

        Raises:
            ConfigError: a name is none of these.
            CapabilityError: uncertainty is wanted of a model without probabilities, or distances of rows without any.
        """
        fits = self.fits
        check_watched(names, model=fits.recipes["model"], looked_at=fits.looked_at, inputs=self.pool.inputs)
        self._watched.names = tuple(dict.fromkeys((*self._watched.names, *names)))

    @property
    def has_news(self) -> bool:
        """Whether labels came in since the last finished round, or no round was finished yet."""
        return bool(self._bought) or not self.history

    @property
    def metric_names(self) -> list[str]:
        """The metrics that each round records."""
        standard = STANDARD if provides(self.fits.recipes["model"], HasProbabilities) else STANDARD[:1]
        return [*standard, *self.metrics]

    @property
    def can_fit(self) -> bool:
        """Whether there is a model, or labels of at least two classes to fit one on."""
        return self.fits.trained is not None or has_two_classes(self.pool)

    def ask(self, n: int) -> Tensor:
        """Return n rows whose labels are wanted most, in pick order; (n,) int64.

        They wait for an answer, and are not asked again until it came or they are given back (`release`): a second
        person who asks gets others, by the same model.

        If labels came in since the last finished round, that round is finished first. Before there are labels of two
        classes, it cannot be; a sampler that reads no model then learns from these labels without a score, and picks
        from the inputs. Rows are drawn at random if it reads one, or if the inputs are no points with distances: sparse
        rows, integers but bytes, which may be ids of words, tables of other things than numbers, and rows that are no
        tensors.

        Raises:
            BudgetError: n is not between 1 and the number of rows that can be asked.
            FitError: the model refuses the labels that there are, unless `on_unfit` is "random".
            RunError: rows that were asked for earlier are not answered, and the sampler learns from each batch before
                it picks the next, as a bandit does.
        """
        self._check_can_ask(n)
        can_fit = self._get_ready()
        if not can_fit:
            if self.sampler.needs_model(self.pool.n_labeled) or not have_distances(self.pool.inputs):
                return self.ask_at_random(n)
            self._observe_batch()
        model = self.select_model if can_fit else None
        view = self.pool.view(model, generator=self._generator(), validation=self.validation)
        free = self._free
        view = view.narrowed(free.clone()) if len(self.asked) else view
        with self.timed("select"):
            selection = self.sampler.select(view if self.ranks is None else self.ranks.view(view), n)
            by = type(self.sampler).__name__
            rows, scores = checked_selection(selection, n, free, by=by)
        report = as_plain(self.sampler.report())
        if self.represents:
            with self.timed("represents"):
                report = report | {"represents": _represented(view, rows)}
        watched = self._watched_of(view, rows)
        self._scores |= zip(rows.tolist(), scores.tolist(), strict=True)
        self._asks.append({"rows": rows.tolist(), "report": report, "watched": watched})
        return self._reserve(rows)

    def ask_at_random(self, n: int) -> Tensor:
        """Return n rows drawn at random, as a start set is, whatever the sampler; (n,) int64.

        Raises:
            BudgetError, RunError: see `ask`.
        """
        self._check_can_ask(n)
        candidates = self._free.nonzero().squeeze(1)
        order = torch.randperm(len(candidates), generator=self._generator(), device="cpu")[:n]
        return self._reserve(candidates[order.to(self.pool.device)])

    def _get_ready(self) -> bool:
        """Finish the round that is going on, if there can be a model; tell whether there is one."""
        if not self.can_fit:
            return False
        try:
            if self._bought or (not self.history and has_two_classes(self.pool)):
                self.finish_round()
            else:
                with meeting_of(self.ranks):
                    _ = self.select_model
        except FitError:
            if self.on_unfit == "raise":
                raise
            return False
        return True

    def _check_can_ask(self, n: int) -> None:
        if len(self.asked) and not self.sampler.picks_ahead:
            raise RunError(
                f"{len(self.asked)} rows asked for earlier are not answered yet (see .asked), and "
                f"{type(self.sampler).__name__} learns of each batch: tell their labels, call cannot_label, or withdraw"
            )
        check_budget(n, int(self._free.sum()))

    def extend(self, inputs: Any, *, source_rows: Any = None, costs: float | Tensor | None = None) -> Tensor:
        """Add rows to the pool, behind those that there are; return their numbers, (m,) int64.

        Nothing that was asked, told or recorded changes. A sampler with a state of the pool takes it up
        (`Sampler.extended`). A learner that was saved before goes on with a pool that has the new rows behind its old.

        Args:
            inputs: m rows of the same kind.
            source_rows: where they came from; they count on from the largest number so far unless given.
            costs: what their labels cost; as the others, where these all cost the same.

        Shapes:
            inputs: (m, ...).
            source_rows: (m,) int64.

        Raises:
            ShapeError: rows of another shape.
            DataError: rows of another kind, or rows in a memory map, which cannot grow here.
            ConfigError: a sampler that cannot take more rows; costs that are needed, or the truth of a simulation.
        """
        if self.truth is not None:
            raise ConfigError("a simulation knows the truth of the rows that it began with, and of no others")
        pool = self.pool.extended(inputs, source_rows=source_rows)
        for reader in self.fits.recipes.values():
            interop.check_reads(reader, pool.inputs)
        n_old, n_rows = len(self.pool), len(pool)
        if costs is None:
            if bool((self.costs != self.costs[0]).any()):
                raise ConfigError(f"labels cost different amounts; give costs= of the {n_rows - n_old} new rows")
            costs = float(self.costs[0])
        more = _checked_costs(costs, n_rows - n_old)
        before = self.sampler.state_dict()
        try:
            self.sampler.extended(n_rows)
        except BaseException:
            self.sampler.load_state_dict(before)  # of several samplers some may have taken them up
            raise
        self.pool, self.costs = pool, torch.cat([self.costs, more])
        self._watched.last_predictions = None  # they are of a stop set of the old rows
        return torch.arange(n_old, n_rows, device=pool.device)

    def predict(self, inputs: Any = None) -> Any:
        """Return what the model predicts, in the words of the pool: a list, or a tensor where classes are numbers.

        Args:
            inputs: (n, ...); the pool's unless given.
        """
        return self.pool.labels.decode(interop.predictions(self.model, self._read(inputs)).cpu())

    def predict_proba(self, inputs: Any = None) -> Tensor:
        """Return the probability of each class, (n, n_classes); of classes that the model has not seen 0.

        Args:
            inputs: (n, ...); the pool's unless given.

        Raises:
            CapabilityError: the model has no probabilities.
        """
        check_provides(self.model, HasProbabilities, needed_by="predict_proba")
        narrow = interop.log_probs(self.model, self._read(inputs)).exp()
        seen = interop.seen_classes(self.model, self.pool.targets[self.pool.labeled]).to(narrow.device)
        interop.check_columns(self.model, narrow, seen, one_for_two=False)
        return narrow.new_zeros(len(narrow), self.pool.n_classes).index_copy_(1, seen, narrow)

    def _read(self, inputs: Any) -> Any:
        if inputs is None:
            return self.pool.inputs
        rows = checked_inputs("inputs", inputs)
        _check_columns(self.fits.recipes["model"], self.pool.inputs, rows, name="inputs")
        return rows

    def _revised(self, rows: Tensor, codes: Tensor) -> None:
        self.sampler.revised(rows, codes)

    def _reordered(self, before: Classes) -> None:
        try:
            self.pool = self.pool.with_classes(self.fits.take_trained(self.pool.labels))
        except DataError as error:
            raise RunError(f"the saved classes are not those of the trained model: {error}") from error
        self.validation = self._recoded_part(self.validation, before)
        self.test = self._recoded_part(self.test, before)
        self.truth = None if self.truth is None else self._recoded(self.truth, before)

    def _recoded_part(self, part: LabeledData | None, before: Classes) -> LabeledData | None:
        return None if part is None else part._replace(targets=self._recoded(part.targets, before))

    def _recoded(self, codes: Tensor, before: Classes) -> Tensor:
        """Return labels that were numbers of other classes, or of these in another order, as numbers of the pool's."""
        used = codes[codes != UNLABELED].unique()
        numbers, classes = self.pool.labels.encode(before.decode(used), n=len(used))
        self.pool = self.pool.with_classes(classes)
        place = torch.full((before.n + 1,), UNLABELED, device=codes.device)  # the last is that of UNLABELED
        place[used] = numbers.to(codes.device)
        return place[codes]

    def _fit_anew(self) -> None:
        self.fits.outdate()

    def finish_round(self) -> RoundResult:
        """Fit on all labels, score, let the sampler learn from it, and return the record.

        Raises:
            RunError: no label came in since the last finished round.
            DataError: there are not yet labels of two classes.
        """
        if not self.has_news:
            raise RunError("no label came in since the last finished round")
        if not self.can_fit:
            classes = len(self.pool.targets[self.pool.labeled].unique())
            raise DataError(
                f"{self.pool.n_labeled} labels of {classes} classes are there; a classifier needs 2 classes"
            )
        with meeting_of(self.ranks):
            model = self.model
            if self.ranks is not None:
                _ = self.select_model  # now, so that all know whether it could be fitted
        with meeting_of(self.ranks), self.timed("score"):
            seen = interop.seen_classes(model, self.pool.targets[self.pool.labeled])
            outcomes = {
                name: outcome_of(model, part, n_classes=self.pool.n_classes, seen=seen)
                for name, part in (("test", self.test), ("validation", self.validation))
                if part is not None
            }
            scored = {name: scores(found, self.metrics) for name, found in outcomes.items()}
            calibration = reliability(outcomes["test"]) if "test" in outcomes else {}
        watched = self._watched_now()
        outcome: dict[str, Any] = {
            "validation": scored.get("validation", {}),
            "seconds": self.phases.seconds,
            "peak_mib": self.phases.peak_mib,
            "model": as_plain(interop.fit_report(model)),
            "select_model": as_plain(
                interop.fit_report(self.select_model) if "select_model" in self.fits.recipes else {}
            ),
            "pool": watched,
        }
        # The sampler must not see the test part; everything else in the result it may.
        batches: list[dict[str, Any]] = [
            {"rows": rows, "report": self._observed(replace(self._result_of(rows), **outcome))}
            for rows in self._by_ask(self._unobserved)
        ]
        batches = [*self._batches, *batches]
        report = dict(batches[0]["report"]) if len(batches) == 1 else {"batches": batches}
        result = replace(
            self._result_of(self._bought),
            **outcome,
            test=scored.get("test", {}),
            calibration=calibration,
            report=report,
        )
        if self.truth is not None:
            result = replace(result, true_labels=self.truth[result.rows])
        self.history.append(result)
        for row in self._bought:
            self._scores.pop(row, None)
        self._bought, self._batches = [], []
        self.phases.load({}, {})
        self._forget_answered()
        return result

    def _result_of(self, rows: list[int]) -> RoundResult:
        """Return what is known of rows that were bought, whatever the models fitted on them are like."""
        picked = any(row in self._scores for row in rows)
        scores = [self._scores.get(row, math.nan) for row in rows]
        at = torch.tensor(rows, dtype=torch.int64, device=self.pool.device)
        return RoundResult(
            round=len(self.history),
            n_labeled=self.pool.n_labeled,
            rows=at.cpu(),
            source_rows=self.pool.source_rows[at].cpu(),
            labels=self.pool.targets[at].cpu(),
            scores=torch.tensor(scores, dtype=torch.float64),
            picked_by=type(self.sampler).__name__ if picked else START,
            report=self._report_of(rows) if picked else {},
            cost=self.spent,
        )

    def _observed(self, result: RoundResult) -> dict[str, Any]:
        """Let the sampler learn from a result, and return its report with what that was."""
        before = self.sampler.state_dict()
        try:
            learned = self.sampler.observe(result)
            return result.report | ({"learned": as_plain(learned)} if learned else {})
        except BaseException:
            self.sampler.load_state_dict(before)  # it will be tried again, and must not be observed twice
            raise

    def _observe_batch(self) -> None:
        """Let the sampler learn from labels that came in while there is no model, if any did; their round goes on."""
        rows = self._unobserved
        if rows:
            for part in self._by_ask(rows):
                self._batches.append({"rows": part, "report": self._observed(self._result_of(part))})
            self._forget_answered()

    def _by_ask(self, rows: list[int]) -> list[list[int]]:
        """Return rows that were bought, batch by batch; those that nobody asked for are of the first.

        A row that was given back or lost its label, and was asked for again, is of the later batch.
        """
        asked = {row: number for number, ask in enumerate(self._asks) for row in ask["rows"]}
        first = min((asked[row] for row in rows if row in asked), default=0)
        parts: dict[int, list[int]] = {}
        for row in rows:
            parts.setdefault(asked.get(row, first), []).append(row)
        return [parts[number] for number in sorted(parts)] or [rows]

    def _report_of(self, rows: list[int]) -> dict[str, Any]:
        """Return the report of the selection that rows are of."""
        reports = [ask["report"] for ask in self._asks if not set(rows).isdisjoint(ask["rows"])]
        return reports[-1] if reports else {}

    def _forget_answered(self) -> None:
        """Let go of what was said of batches that are wholly answered, and of scores that no record is to have yet."""
        waiting = set(self.asked.tolist())
        self._asks = [ask for ask in self._asks if not waiting.isdisjoint(ask["rows"])]
        wanted = waiting.union(self._bought)
        self._scores = {row: score for row, score in self._scores.items() if row in wanted}

    def state_dict(self) -> dict[str, Any]:
        """Return all that happened, in numbers, text and tensors; a cold model is fitted again from it."""
        return (
            self.fits.state_dict()
            | self._label_state()
            | {
                "pool": self.pool.fingerprint(),
                "seed": self.seed,
                "sampler": type(self.sampler).__name__,
                "sampler_state": self.sampler.state_dict(),
                "n_rounds": len(self.history),
                "began_with": self.began_with,
                "seconds": dict(self.phases.seconds),
                "peak_mib": dict(self.phases.peak_mib),
                "last_predictions": self._watched.last_predictions,
            }
        )

    def load_state_dict(self, state: Mapping[str, Any], history: list[RoundResult]) -> None:
        """Go on where `state_dict` was taken.

        The pool may have more rows now, behind those it had. Its labels are those of the state, whatever others it has.

        Args:
            state: what `state_dict` returned.
            history: the rounds finished until then, the start set among them.

        Raises:
            RunError: the state is of another pool, seed or sampler, or damaged.
        """
        missing = self.state_dict().keys() - state.keys() - _MAY_BE_MISSING
        if missing:
            raise RunError(f"the saved state is damaged: it has no {', '.join(sorted(missing))}")
        n_rows = state.get("n_rows", len(self.pool))
        own = {"pool": self.pool.fingerprint(n_rows), "seed": self.seed, "sampler": type(self.sampler).__name__}
        for name, value in own.items():
            if state[name] != value:
                raise RunError(f"the saved state is of another {name}: it was {state[name]!r}, is {value!r}")
        model = self.fits.loaded(state)
        self._load_label_state(state)
        self._watched.last_predictions = state.get("last_predictions") if n_rows == len(self.pool) else None
        self.fits.go_on(model, self.pool, is_fitted=bool(state.get("is_fitted")))
        self.history = list(history)
        self.began_with = state.get("began_with")
        self.phases.load(state["seconds"], state.get("peak_mib", {}))
        self.sampler.load_state_dict(state["sampler_state"])
        if n_rows < len(self.pool):
            self.sampler.extended(len(self.pool))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything but the inputs to one file, replaced as a whole; of the model, what warm_start needs."""
        history = [result.to_json() for result in self.history]
        write_atomically(Path(path), as_safe_bytes({"state": self.state_dict(), "history": history}))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on where `save` was called, in a learner made with the same pool, model, sampler and seed.

        Raises:
            RunError: the file is of another pool, seed or sampler, or is damaged.
        """
        try:
            saved = torch.load(path, weights_only=True)
            state, history = saved["state"], [RoundResult.from_json(record) for record in saved["history"]]
        except FileNotFoundError:
            raise
        except Exception as error:
            raise RunError(f"{path} is not a saved learner, or is damaged: {error}") from error
        self.load_state_dict(state, history)

    def _as_truth(self, truth: Any) -> Tensor:
        """Return labels as they are, (N,) int64; classes that are learned are theirs too from now on."""
        if len(truth) != len(self.pool):
            raise DataError(f"truth must have one label for each of {len(self.pool)} rows, got {len(truth)}")
        codes, classes = self.pool.labels.encode(truth, n=len(self.pool))
        self.pool = self.pool.with_classes(classes)
        return codes

    def _watched_now(self) -> dict[str, float]:
        """Return what is to be watched, by the fitted model; of the batch, what was found when it was picked."""
        names = self._watched.names
        if not names:
            return {}
        bought = set(self._bought)
        found = mean_of_asks([ask for ask in self._asks if not bought.isdisjoint(ask["rows"])])
        with self.timed("watch"):
            if not {"kappa", "uncertainty"}.isdisjoint(names):
                with meeting_of(self.ranks):
                    found |= self._watched.of_stop_set(self.pool, self.model, _seeded(f"{self.seed} stop set"))
            if "cover_radius" in names:
                view = self.pool.view(self.select_model, generator=self._generator(), validation=self.validation)
                found["cover_radius"] = cover_radius(view if self.ranks is None else self.ranks.view(view))
        return found

    def _watched_of(self, view: PoolView, rows: Tensor) -> dict[str, float]:
        """Return what is to be watched of rows that the sampler has picked from a view."""
        names = self._watched.names
        if not names:
            return {}
        with meeting_of(self.ranks), self.timed("watch"):
            model = None if view.model is None else self.model
            return of_batch(
                names, view, rows, model=model, generator=_seeded(f"{self.seed} {self.pool.n_labeled} watch")
            )

    def _generator(self) -> torch.Generator:
        """Return this round's randomness: a function of the seed and the round, so there is none to save."""
        return _seeded(f"{self.seed} {len(self.history)} {self.pool.n_labeled}")

    def timed(self, phase: str) -> AbstractContextManager[None]:
        """Count the seconds and the memory of a phase towards the round that is going on."""
        return self.phases.timed(phase)


def _seeded(words: str) -> torch.Generator:
    """Return randomness that follows from some words."""
    number = int.from_bytes(hashlib.sha256(words.encode()).digest()[:7], "little")
    return torch.Generator().manual_seed(number)


def _represented(view: PoolView, rows: Tensor) -> dict[str, Any]:
    """Return what the record says of the rows that each pick stands for: lists in pick order, and two numbers."""
    found = represents(view.features, rows.to(view.features.device), among=~view.labeled)
    distances = found.distances[~found.distances.isnan()]
    return {
        "features": view.features_from,
        "counts": found.counts.tolist(),
        "farthest": found.farthest.tolist(),
        "mean_distance": float(distances.mean()),
        "largest_distance": float(distances.max()),
    }


def _check_columns(model: object, inputs: Inputs, others: Inputs, *, name: str) -> None:
    """Require of tables the columns of the pool, for a model that gets their numbers and cannot know their names."""
    if isinstance(inputs, TableInputs) and getattr(model, "takes_tensors", False):
        inputs.check_columns(name, others)


def _checked_costs(costs: object, n_rows: int) -> Tensor:
    """Return what each row's label costs, (N,) float64."""
    try:
        values = torch.as_tensor(costs, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"costs must be a number or one for each row, got {costs!r}") from error
    if values.ndim > 1 or (values.ndim == 1 and len(values) != n_rows):
        raise ConfigError(f"costs must be a number or one for each of {n_rows} rows, got shape {tuple(values.shape)}")
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise ConfigError(f"costs must be finite and not negative, got {float(values.min())} to {float(values.max())}")
    return values.expand(n_rows)
