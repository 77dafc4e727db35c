"""A model, a sampler and a pool, one step at a time: ask for rows, tell their labels, and again."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchal._checks import as_integers, as_rows, check_budget, check_flag
from torchal._records import as_plain, as_safe_bytes, write_atomically
from torchal.errors import CapabilityError, ConfigError, DataError, RunError
from torchal.functional.represents import represents
from torchal.pool import interop
from torchal.pool.inputs import SparseInputs, gather, have_distances
from torchal.pool.labels import LabeledData, checked_part
from torchal.pool.pool import Pool
from torchal.pool.round_result import RoundResult
from torchal.pool.view import PoolView
from torchal.protocols import (
    Classifier,
    HasEmbedding,
    HasPosterior,
    HasProbabilities,
    HasState,
    check_provides,
    provides,
)
from torchal.runs.metrics import STANDARD, Metric, cohens_kappa, evaluate
from torchal.samplers.base import Sampler, checked_selection

_WATCHED = ("kappa", "uncertainty")
_STOP_SET = 2000  # rows of the pool that are watched, Bloodgood & Vijay-Shanker's number
_MAY_BE_MISSING = {"model", "is_fitted", "last_predictions", "batches", "began_with"}  # in a saved state
START = "start"
"""`picked_by` of rows that no sampler picked: a start set that was given or drawn at random."""


class ActiveLearner:
    """A model, a sampler and a pool, one step at a time: `ask` for rows, `tell` their labels.

    Labels may come in any order, in part, and on another day (`save` and `load`). The model is fitted again from the
    start, on all labels, when the next rows are asked for, or when `finish_round` is called. Until labels of two
    classes are there, nothing can be fitted: a sampler that reads no model, as `TypiClust`, then picks from the inputs,
    and for any other rows are drawn at random. All these batches are one round. If the sampler picked more than one of
    them, its report is a list under "batches": of each its rows and its report.

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

    Raises:
        CapabilityError: the model is no classifier, lacks something that the sampler needs, or reads no sparse rows
            where there are some.
        ConfigError: something that is no sampler or no metric, a metric with the name of a standard one, or no
            validation part where the sampler looks at one.
        DataError: a validation or test part that is empty, not finite or has labels outside [0, n_classes).

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
    ) -> None:
        interop.check_classifier(model)
        if select_model is not None:
            interop.check_classifier(select_model)
            if getattr(select_model, "warm_start", False):
                raise ConfigError(
                    f"a select model starts cold at every fit; set warm_start=False in {type(select_model).__name__}"
                )
        if not isinstance(sampler, Sampler):
            raise ConfigError(f"sampler must be a Sampler, got {sampler!r}; by name: torchal.samplers.from_name")
        looked_at = model if select_model is None else select_model
        sampler.check_model(looked_at)
        if getattr(model, "warm_start", False) and not provides(model, HasState):
            raise CapabilityError(
                f"{type(model).__name__} with warm_start would go on from round to round, but has no state_dict to "
                "save in between; set warm_start=False"
            )
        if sampler.needs_validation and validation is None:
            raise ConfigError(f"{type(sampler).__name__} looks at the score on a validation part, and there is none")
        self.sampler = sampler
        self.pool = pool
        self.seed = int(seed)
        self.validation = checked_part("validation", validation, pool.n_classes)
        self.test = checked_part("test", test, pool.n_classes)
        for part in (pool, self.validation, self.test):
            if part is not None:
                interop.check_reads(model, part.inputs)
                if select_model is not None:
                    interop.check_reads(select_model, part.inputs)
        if sampler.reads(HasPosterior):
            interop.check_draws(looked_at, pool.inputs, pool.n_classes)
        self.costs = _checked_costs(costs, pool)
        self.truth = None if truth is None else as_integers("truth", truth).cpu()
        if self.truth is not None and self.truth.shape != (len(pool),):
            raise DataError(f"truth must have one label for each of {len(pool)} rows, got {len(self.truth)}")
        check_flag("represents", represents)
        if represents and isinstance(pool.inputs, SparseInputs) and not provides(looked_at, HasEmbedding):
            raise CapabilityError(
                f"represents=True measures distances, and {type(looked_at).__name__} has no embedding of sparse rows"
            )
        self.represents = represents
        self.metrics = dict(metrics or {})
        for name, metric in self.metrics.items():
            if name in STANDARD or not callable(metric):
                raise ConfigError(f"metrics maps new names to callables on an Outcome, got {name!r}: {metric!r}")
        self.history: list[RoundResult] = []
        """The finished rounds."""
        self.asked = torch.empty(0, dtype=torch.int64, device=pool.device)
        """(n,) int64, rows that were asked for and are not answered yet."""
        self.began_with: int | list[int] | None = None
        """The start that `rounds` began with, how many rows or which; None where there was none."""
        self._recipe = model
        self._select_recipe = select_model
        self._select_model: Classifier | None = None
        self._watched: tuple[str, ...] = ()
        self._last_predictions: Tensor | None = None  # of the stop set, in the last finished round
        self._model: Classifier | None = None
        self._last_model: Classifier | None = None  # where a model with warm_start goes on from
        self._scores: dict[int, float] = {}  # of rows that the sampler picked and no finished round has
        self._bought: list[int] = pool.labeled.nonzero().squeeze(1).tolist()
        self._batches: list[dict[str, Any]] = []  # of these rows, in their order, what the sampler has observed already
        self._seconds: dict[str, float] = {}
        self._report: dict[str, Any] = {}

    @property
    def model(self) -> Classifier:
        """The model fitted on all labels bought so far; fitted now if it is not yet."""
        if self._model is None:
            with self.timed("fit"):
                model = self._unfitted()
                interop.announce_round(model, len(self.history))
                interop.fit(model, *self.pool.training_data())
                self._model = checked_fit(model)
        return self._model

    @property
    def select_model(self) -> Classifier:
        """The model that the sampler looks at, fitted on all labels bought so far; `model` unless another was given."""
        if self._select_recipe is None:
            return self.model
        if self._select_model is None:
            with self.timed("fit_select"):
                recipe = self._select_recipe
                model = interop.unfitted(recipe) if interop.is_clonable(recipe) else recipe
                interop.announce_round(model, len(self.history))
                interop.fit(model, *self.pool.training_data())
                self._select_model = checked_fit(model)
        return self._select_model

    @property
    def is_fitted(self) -> bool:
        """Whether the models are fitted on all labels bought so far."""
        return self._model is not None and (self._select_recipe is None or self._select_model is not None)

    @property
    def spent(self) -> float:
        """What all labels so far have cost, with the rows that nobody could label."""
        return float(self.costs[(self.pool.labeled | self.pool.skipped).cpu()].sum())

    def watch(self, *names: str) -> None:
        """Have each round record what the model says of the pool, on up to 2 000 rows drawn by the seed.

        "kappa" is Cohen's kappa between its predictions and those of the round before, "uncertainty" the mean of 1
        minus the largest probability over the rows that may still be asked.

        Raises:
            ConfigError: a name is none of these.
            CapabilityError: uncertainty is wanted of a model without probabilities.
        """
        unknown = [name for name in names if name not in _WATCHED]
        if unknown:
            raise ConfigError(f"what can be watched is {', '.join(_WATCHED)}; got {', '.join(map(repr, unknown))}")
        if "uncertainty" in names:
            check_provides(self._recipe, HasProbabilities, needed_by="the uncertainty of the pool")
        self._watched = names

    @property
    def has_news(self) -> bool:
        """Whether labels came in since the last finished round, or no round was finished yet."""
        return bool(self._bought) or not self.history

    @property
    def metric_names(self) -> list[str]:
        """The metrics that each round records."""
        standard = STANDARD if provides(self._recipe, HasProbabilities) else STANDARD[:1]
        return [*standard, *self.metrics]

    @property
    def can_fit(self) -> bool:
        """Whether labels of at least two classes are there."""
        return len(self.pool.targets[self.pool.labeled].unique()) > 1

    def ask(self, n: int) -> Tensor:
        """Return n rows whose labels are wanted most, in pick order; (n,) int64.

        If labels came in since the last finished round, that round is finished first. Before there are labels of two
        classes, it cannot be; a sampler that reads no model then learns from these labels without a score, and picks
        from the inputs. Rows are drawn at random if it reads one, or if the inputs are no points with distances: sparse
        rows, integers but bytes, which may be ids of words, and rows that are no tensors.

        Raises:
            BudgetError: n is not between 1 and the number of rows that can be asked.
            RunError: rows that were asked for earlier are not answered; tell their labels, or withdraw them.
        """
        self._check_can_ask(n)
        if not self.can_fit:
            if self.sampler.needs_model(self.pool.n_labeled) or not have_distances(self.pool.inputs):
                return self.ask_at_random(n)
            self._observe_batch()
        elif self.has_news:
            self.finish_round()
        model = self.select_model if self.can_fit else None
        view = self.pool.view(model, generator=self._generator(), validation=self.validation)
        with self.timed("select"):
            selection = self.sampler.select(view, n)
            by = type(self.sampler).__name__
            rows, scores = checked_selection(selection, n, self.pool.candidates, by=by)
        self._report = as_plain(self.sampler.report())
        if self.represents:
            with self.timed("represents"):
                self._report = self._report | {"represents": _represented(view, rows)}
        self._scores |= zip(rows.tolist(), scores.tolist(), strict=True)
        self.asked = rows
        return self.asked.clone()

    def ask_at_random(self, n: int) -> Tensor:
        """Return n rows drawn at random, as a start set is, whatever the sampler; (n,) int64.

        Raises:
            BudgetError, RunError: see `ask`.
        """
        self._check_can_ask(n)
        candidates = self.pool.candidates.nonzero().squeeze(1)
        order = torch.randperm(len(candidates), generator=self._generator(), device="cpu")[:n]
        self.asked = candidates[order.to(self.pool.device)]
        return self.asked.clone()

    def _check_can_ask(self, n: int) -> None:
        if len(self.asked):
            raise RunError(
                f"{len(self.asked)} rows asked for earlier are not answered yet (see .asked): "
                "tell their labels, call cannot_label, or withdraw"
            )
        check_budget(n, int(self.pool.candidates.sum()))

    def tell(self, rows: Any, labels: Any) -> None:
        """Take labels of rows, asked for or not, in any order and in part.

        Shapes:
            rows: (n,) int64.
            labels: (n,) int64, each in [0, n_classes).

        Raises:
            DataError: a row is labeled already, or a label is not in [0, n_classes); nothing is taken then.
            ShapeError: rows repeat or lie outside the pool, or there are not as many labels as rows.
        """
        rows = as_rows("rows", rows, n_rows=len(self.pool), device=self.pool.device)
        pool = self.pool.with_labels(rows, labels)
        if not len(rows):
            return  # and keep the fitted model
        self.pool = pool
        self._bought += rows.tolist()
        if self._model is not None:
            self._last_model, self._model = self._model, None
        self._select_model = None
        self.asked = self.asked[~torch.isin(self.asked, rows)]

    def cannot_label(self, rows: Any) -> None:
        """Take rows out of the candidates for good, as when nobody can tell what they are.

        Raises:
            DataError: a row is labeled already.
        """
        rows = as_rows("rows", rows, n_rows=len(self.pool), device=self.pool.device)
        self.pool = self.pool.without(rows)
        self._drop(rows)

    def withdraw(self) -> None:
        """Take back what was asked and not answered; these rows may be asked for again."""
        self._drop(self.asked)

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
        model = self.model
        with self.timed("score"):
            seen = interop.seen_classes(model, self.pool.targets[self.pool.labeled])
            scored = {
                name: evaluate(model, part, n_classes=self.pool.n_classes, seen=seen, metrics=self.metrics)
                if part is not None
                else {}
                for name, part in (("test", self.test), ("validation", self.validation))
            }
        watched = self._watched_now()
        outcome: dict[str, Any] = {
            "validation": scored["validation"],
            "seconds": self._seconds,
            "model": as_plain(interop.fit_report(model)),
            "select_model": as_plain({} if self._select_recipe is None else interop.fit_report(self.select_model)),
            "pool": watched,
        }
        # The sampler must not see the test part; everything else in the result it may.
        report = self._observed(replace(self._result_of(self._unobserved), **outcome))
        if self._batches:
            report = {"batches": [*self._batches, {"rows": self._unobserved, "report": report}]}
        result = replace(self._result_of(self._bought), **outcome, test=scored["test"], report=report)
        if self.truth is not None:
            result = replace(result, true_labels=self.truth[result.rows])
        self.history.append(result)
        for row in self._bought:
            self._scores.pop(row, None)
        self._bought, self._batches, self._seconds = [], [], {}
        if not len(self.asked):  # rows that are still asked for keep their scores and the report
            self._scores, self._report = {}, {}
        return result

    @property
    def _unobserved(self) -> list[int]:
        """The rows bought since the last finished round that the sampler has not learned from yet."""
        return self._bought[sum(len(batch["rows"]) for batch in self._batches) :]

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
            report=self._report if picked else {},
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
            self._batches.append({"rows": rows, "report": self._observed(self._result_of(rows))})
            self._report = {}

    def state_dict(self) -> dict[str, Any]:
        """Return all that happened, in numbers, text and tensors; a cold model is fitted again from it."""
        return self._warm_state() | {
            "pool": self.pool.fingerprint(),
            "seed": self.seed,
            "sampler": type(self.sampler).__name__,
            "sampler_state": self.sampler.state_dict(),
            "labeled": self.pool.labeled.nonzero().squeeze(1).cpu(),
            "labels": self.pool.targets[self.pool.labeled].cpu(),
            "skipped": self.pool.skipped.nonzero().squeeze(1).cpu(),
            "n_rounds": len(self.history),
            "asked": self.asked.cpu(),
            "scores": dict(self._scores),
            "bought": list(self._bought),
            "batches": list(self._batches),
            "began_with": self.began_with,
            "seconds": dict(self._seconds),
            "report": dict(self._report),
            "last_predictions": self._last_predictions,
        }

    def load_state_dict(self, state: Mapping[str, Any], history: list[RoundResult]) -> None:
        """Go on where `state_dict` was taken, with the rounds finished until then.

        Raises:
            RunError: the state is of another pool, seed or sampler, or damaged.
        """
        missing = self.state_dict().keys() - state.keys() - _MAY_BE_MISSING
        if missing:
            raise RunError(f"the saved state is damaged: it has no {', '.join(sorted(missing))}")
        own = {"pool": self.pool.fingerprint(), "seed": self.seed, "sampler": type(self.sampler).__name__}
        for name, value in own.items():
            if state[name] != value:
                raise RunError(f"the saved state is of another {name}: it was {state[name]!r}, is {value!r}")
        pool = Pool.unlabeled(self.pool.inputs, n_classes=self.pool.n_classes, source_rows=self.pool.source_rows)
        pool = pool.with_labels(state["labeled"], state["labels"]).without(state["skipped"])
        model: Any = None
        if "model" in state and self._is_warm:
            model = interop.unfitted(self._recipe)
            try:
                model.load_state_dict(state["model"])
            except DataError as error:
                raise RunError(f"the saved model cannot be loaded: {error}") from error
        self._last_predictions = state.get("last_predictions")
        self._last_model, self._select_model = model, None
        self._model = model if model is not None and state["is_fitted"] else None
        self.pool = pool
        self.history = list(history)
        self.asked = state["asked"].to(self.pool.device)
        self._scores = dict(state["scores"])
        self._bought, self._batches = list(state["bought"]), list(state.get("batches", []))
        self.began_with = state.get("began_with")
        self._seconds = dict(state["seconds"])
        self._report = dict(state["report"])
        self.sampler.load_state_dict(state["sampler_state"])

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

    def export_asked(self, path: str | os.PathLike[str]) -> None:
        """Write the rows that wait for a label as CSV: row, source_row, score, and an empty column label."""
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "source_row", "score", "label"])
            for row, source in zip(self.asked.tolist(), self.pool.source_rows[self.asked].tolist(), strict=True):
                writer.writerow([row, source, self._scores.get(row, ""), ""])

    @property
    def _is_warm(self) -> bool:
        return bool(getattr(self._recipe, "warm_start", False))

    def _warm_state(self) -> dict[str, Any]:
        """Return the weights that a model with warm_start goes on from, and whether they are of all labels so far."""
        model = self._last_model if self._model is None else self._model
        if not self._is_warm or model is None:
            return {}
        return {"model": model.state_dict(), "is_fitted": self._model is not None}  # type: ignore[attr-defined]

    def _unfitted(self) -> Classifier:
        """Return a model to fit: a fresh copy, or with warm_start a copy of the last one."""
        if self._is_warm and self._last_model is not None:
            model: Any = interop.unfitted(self._recipe)  # and not a copy, so that it is as after loading a saved state
            model.load_state_dict(self._last_model.state_dict())  # type: ignore[attr-defined]
            return model  # type: ignore[no-any-return]
        return interop.unfitted(self._recipe) if interop.is_clonable(self._recipe) else self._recipe

    def _watched_now(self) -> dict[str, float]:
        """Return what is to be watched, by the fitted model."""
        if not self._watched:
            return {}
        with self.timed("watch"):
            words = hashlib.sha256(f"{self.seed} stop set".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(words[:7], "little"))
            rows = torch.randperm(len(self.pool), generator=generator)[:_STOP_SET].sort().values
            some, found = gather(self.pool.inputs, rows), {}
            if "kappa" in self._watched:
                predicted = interop.predictions(self.model, some).cpu()
                if self._last_predictions is not None:
                    found["kappa"] = cohens_kappa(self._last_predictions, predicted)
                self._last_predictions = predicted
            left = self.pool.candidates[rows.to(self.pool.device)]
            if "uncertainty" in self._watched and bool(left.any()):
                least_sure = 1 - interop.log_probs(self.model, some).double().amax(1).exp()
                found["uncertainty"] = float(least_sure[left.to(least_sure.device)].mean())
        return found

    def _generator(self) -> torch.Generator:
        """Return this round's randomness: a function of the seed and the round, so there is none to save."""
        words = hashlib.sha256(f"{self.seed} {len(self.history)} {self.pool.n_labeled}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(words[:7], "little"))

    def _drop(self, rows: Tensor) -> None:
        """Forget that rows were asked for, and what the sampler thought of them."""
        for row in rows.tolist():
            self._scores.pop(row, None)
        self.asked = self.asked[~torch.isin(self.asked, rows)]

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the seconds of a phase towards the round that is going on."""
        started = time.perf_counter()
        yield
        if self.pool.device.type == "cuda":
            torch.cuda.synchronize(self.pool.device)  # or the next phase would be charged for this one's work
        self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - started


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


def checked_fit(model: Classifier) -> Classifier:
    """Require that a model can predict."""
    if not hasattr(model, "predict"):
        raise CapabilityError(f"{type(model).__name__} has no predict once it is fitted")
    return model


def _checked_costs(costs: object, pool: Pool) -> Tensor:
    """Return what each row's label costs, (N,) float64."""
    try:
        values = torch.as_tensor(costs, dtype=torch.float64).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"costs must be a number or one for each row, got {costs!r}") from error
    if values.ndim > 1 or (values.ndim == 1 and len(values) != len(pool)):
        raise ConfigError(
            f"costs must be a number or one for each of {len(pool)} rows, got shape {tuple(values.shape)}"
        )
    if not bool(torch.isfinite(values).all()) or bool((values < 0).any()):
        raise ConfigError(f"costs must be finite and not negative, got {float(values.min())} to {float(values.max())}")
    return values.expand(len(pool))
