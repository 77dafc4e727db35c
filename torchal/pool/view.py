"""The view of a pool that a sampler gets in one round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from torchal._checks import as_integers, as_mask, as_rows, check_whole
from torchal.distributed import Group, Shards, as_shards
from torchal.engine.features import Features, device_of
from torchal.errors import CapabilityError, ConfigError, DataError, ShapeError
from torchal.pool import interop
from torchal.pool.classes import Classes
from torchal.pool.given import as_bought, as_last_layer, as_outputs, as_tensor, check_outputs
from torchal.pool.labels import LabeledData, buy, training_data
from torchal.protocols import (
    UNLABELED,
    Classifier,
    HasDecisionFunction,
    HasEmbedding,
    HasLastLayer,
    HasMaxDraws,
    HasPosterior,
    HasProbabilities,
    Inputs,
    LastLayer,
    provides,
)

_KEPT_FEATURES = 2**27  # numbers; an embedding that nobody has asked for yet is kept up to here, for whoever will


@dataclass(frozen=True, eq=False)
class PoolView:
    """What a sampler may see in one round: N rows, one index space, and no label that was not bought.

    Model outputs are computed when first read and shared by every sampler that looks; a network runs once for all of
    them (with more than 2^27 numbers of features, only if those are read first). Made by `Pool.view`, or from tensors
    that are there already by `PoolView.from_tensors`.

    Args:
        model: fitted, and None where the view was made from tensors.
        validation: labeled rows beside the pool; for a score on them.
        generator_state: where `generator` starts.
        given: outputs that are there already, by name.
        trials: the T views of a refit with rows (T, n).

    Shapes:
        labeled: (N,) bool.
        candidates: (N,) bool, unlabeled and askable.
        targets: (N,) int64, `UNLABELED` (-1) where the label is not bought.
        inputs: (N, ...).

    A view made by `refit` with rows (T, n) has a leading axis T on `labeled`, `candidates`, `targets` and all outputs.
    """

    labeled: Tensor
    candidates: Tensor
    targets: Tensor
    inputs: Inputs
    n_classes: int
    generator_state: torch.Generator = field(repr=False)
    model: Classifier | None = field(default=None, repr=False)
    validation: LabeledData | None = field(default=None, repr=False)
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)
    trials: tuple[PoolView, ...] = field(default=(), repr=False)
    is_hypothetical: bool = field(default=False, repr=False)
    """Whether labels are in it that were not bought, by `refit`."""
    outputs: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """What was computed when first read; the forks of this view share it."""
    is_cold: bool = False
    """Whether no model could be fitted yet: there are the inputs, as features, and nothing else."""
    group: Shards | None = field(default=None, repr=False)
    """The ranks that have a part of the pool each, where this view is of one part: see `of_rank`."""

    @classmethod
    def from_tensors(
        cls,
        *,
        features: Features | None = None,
        scores: Features | None = None,
        log_probs: Features | None = None,
        posterior_log_probs: Tensor | None = None,
        last_layer: tuple[Tensor, Tensor] | None = None,
        labeled: Tensor | None = None,
        candidates: Tensor | None = None,
        targets: Tensor | None = None,
        generator: torch.Generator | None = None,
        group: Group | None = None,
    ) -> PoolView:
        """Return a view of outputs that are there already; no model is needed.

        In a loop over such views, `Sampler.tell` the sampler what was labeled after each `select`.

        With `group`, the tensors are of this rank's rows of a pool that lies on several (`torchal.distributed`), and
        all ranks select together, by a sampler that can (`Sampler.on_ranks`) and generators that were seeded alike.

        Shapes:
            features: (N, D) float, or whole numbers; an array is not copied, and a mapped file, as `torchal.embed`
                makes it, is read chunk by chunk.
            scores: (N, C) float decision values, or (N, 1) or (N,) for two classes; a mapped file is read whole, as
                are log_probs.
            log_probs: (N, C) float.
            posterior_log_probs: (N, K, C) float, of K draws from a posterior or K members of a committee.
            last_layer: weight (C, D) and bias (C,) of the layer between features and logits.
            labeled: (N,) bool; where `targets` has a label, unless given; else nowhere.
            candidates: (N,) bool; what is not labeled, unless given.
            targets: (N,) int64, `UNLABELED` (-1) where there is no label.

        Raises:
            ShapeError: nothing is given, no rows, or the tensors disagree in rows, dtype or device.
            DataError: a row that is not labeled has a target.
            ConfigError: the ranks of a group gave different outputs, or of different columns.

        Example:
            >>> view = PoolView.from_tensors(scores=torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
            >>> view.candidates
            tensor([True, True])
        """
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ConfigError(f"generator must be a torch.Generator, got {type(generator).__name__}")
        shards = as_shards(group)
        with shards.meeting() as meeting:  # what is wrong with the tensors of one rank, all of them hear of
            outputs = as_outputs(features=features, scores=scores, log_probs=log_probs, draws=posterior_log_probs)
            labeled, candidates = as_tensor("labeled", labeled), as_tensor("candidates", candidates)
            targets = None if targets is None else as_integers("targets", targets)
            anything = next((t for t in (*outputs.values(), targets, labeled, candidates) if t is not None), None)
            if anything is None:
                raise ShapeError("a view needs at least one tensor, got none")
            n_rows, device = len(anything), device_of(anything)
            if n_rows == 0 and shards.alone:
                raise ShapeError("a view needs at least one row, got none")
            check_outputs(outputs, n_rows=n_rows, device=device)
            given: dict[str, Any] = dict(outputs)
            if last_layer is not None:
                given["last_layer"] = as_last_layer(last_layer, device=device, features=features)
            targets, labeled, candidates = as_bought(targets, labeled, candidates, n_rows=n_rows, device=device)
            columns = [max(2, t.shape[-1]) for name, t in outputs.items() if name != "features"]
            if last_layer is not None:
                columns.append(len(given["last_layer"].bias))
            meeting.rows(n_rows, 1, name="the view")
            meeting.same(**{f"{name} of shape": ["N", *tensor.shape[1:]] for name, tensor in outputs.items()})
        n_classes = torch.tensor([max([*columns, int(targets.max()) + 1 if n_rows else 0])])
        return cls(
            labeled=labeled,
            candidates=candidates,
            targets=targets,
            inputs=anything,
            n_classes=int(shards.all_reduce(n_classes, "max")),
            generator_state=(generator or torch.Generator().manual_seed(0)).clone_state(),
            given=given,
            group=None if shards.alone else shards,
        )

    def of_rank(self, group: Shards, rows: slice, inputs: Inputs) -> PoolView:
        """Return the view of one rank: of its own rows, as the views of all ranks together are of this one.

        Its masks and outputs are of these rows alone, and so is what the model computes. Whoever reads an output does
        so on all ranks: an error on one of them is then told to the others. Rows picked are numbers of the pool.

        Args:
            group: the ranks.
            rows: which rows are this rank's, behind those of the ranks before it.
            inputs: of these rows.
        """
        # the columns of its outputs are the same on all ranks, whichever classes are among their own labels
        known = {} if self.model is None else {"classes": self.classes}
        masks = {name: getattr(self, name)[rows] for name in ("labeled", "candidates", "targets")}
        return replace(self, **masks, inputs=inputs, group=group, outputs=known)

    def of_rows(self, compute: Callable[[], Tensor]) -> Tensor:
        """Return what is computed of each row by itself, (N,).

        An error of one rank is told to the others when they speak next: until then there are zeros.

        Args:
            compute: returns it, of this view's rows.
        """
        if self.group is None:
            return compute()
        return self.group.attempt(compute, lambda: torch.zeros(len(self), device=self.targets.device))

    def total(self, count: int | Tensor) -> int:
        """Return a number of rows, of all ranks where there are several.

        Args:
            count: how many there are among this view's rows.
        """
        return int(count) if self.group is None else self.group.total(int(count))

    def rows_where(self, mask: Tensor) -> Tensor:
        """Return the rows for which a mask is true, ascending; rows of the whole pool, where there are ranks.

        Shapes:
            mask: (N,) bool, of this view's rows.
        """
        if self.group is None:
            return mask.nonzero().squeeze(1)
        with self.group.meeting() as meeting:
            meeting.rows(len(self), 1, name="mask")
        return self.group.numbers_of(mask)

    @property
    def n_candidates(self) -> int:
        """How many rows may be picked, on all ranks together."""
        return self.total(self.candidates.sum())

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def generator(self) -> torch.Generator:
        """The round's randomness: a new copy at each read, so that the same view gives the same answer.

        Read it once in a `select`: two reads give the same numbers.
        """
        return self.generator_state.clone_state()

    def has(self, capability: type) -> bool:
        """Tell whether an output is there: `HasDecisionFunction` for scores, `HasProbabilities` for log_probs, ...

        Args:
            capability: a protocol of `torchal.protocols`.
        """
        return _OUTPUT_OF[capability] in self.given or provides(self.model, capability)

    def fork(self, key: int) -> PoolView:
        """Return this view with randomness of its own, another for each key; both share the model's outputs.

        For a sampler that asks others: two of them that draw from the same generator would draw the same rows.
        """
        generator = self.generator
        base = int(torch.randint(1 << 31, (1,), generator=generator, device=generator.device))
        return replace(self, generator_state=torch.Generator(generator.device).manual_seed(base + key))

    def narrowed(self, candidates: Tensor) -> PoolView:
        """Return this view with fewer candidates; both share the model's outputs, and have the same randomness.

        For a sampler that lets another choose among some of the rows only. What is read of all rows, as `log_probs`, is
        still computed for all rows, once for both.

        Shapes:
            candidates: (N,) bool, some of this view's candidates.

        Raises:
            ShapeError: the mask disagrees in shape, dtype or device, or a row is no candidate of this view.

        Example:
            >>> view = PoolView.from_tensors(features=torch.zeros(3, 1))
            >>> view.narrowed(torch.tensor([True, False, False])).candidates
            tensor([ True, False, False])
        """
        candidates = as_mask("candidates", candidates, n_rows=len(self), device=self.candidates.device)
        n_others = int((candidates & ~self.candidates).sum())
        if n_others:
            raise ShapeError(f"{n_others} of {int(candidates.sum())} rows are no candidates of this view")
        return replace(self, candidates=candidates)

    @property
    def scores(self) -> Tensor:
        """(N, C) decision values; one column where the model has one value for two classes."""
        return self._output("scores", interop.decision_values, one_for_two=True)

    @property
    def log_probs(self) -> Tensor:
        """(N, C) log-probabilities of the classes that the model has seen."""
        return self._output("log_probs", interop.log_probs, one_for_two=False)

    def log_probs_of(self, rows: Tensor) -> Tensor:
        """Return `log_probs` of some rows (n,), (n, C), without computing those of all others."""
        if self.trials and "log_probs" not in self.outputs:
            return torch.stack([trial.log_probs_of(rows) for trial in self.trials])
        if "log_probs" in self.given or self.outputs.keys() & {"log_probs", "logits"}:
            return self.log_probs[..., rows, :]
        model = self._fitted("log_probs")
        some = interop.log_probs_of(model, self.inputs, rows)
        return interop.check_columns(model, some, self.classes, one_for_two=False).to(self.targets.device)

    @property
    def features(self) -> Tensor:
        """(N, D) the model's embedding where it has one, else the flattened inputs; of rows in files, FileRows.

        Of a table with columns that are no numbers, what the model's pipeline makes of them before its last step.

        Raises:
            CapabilityError: the model has none, and the inputs are sparse or no numbers.
        """
        if self.trials:
            return self._shared("features", lambda: torch.stack([trial.features for trial in self.trials]))
        if self.features_from == "inputs":
            return self.flat_inputs
        return self._output("features", interop.preprocessed if self._is_preprocessed else interop.embedding)

    @property
    def flat_inputs(self) -> Tensor:
        """(N, D) the inputs themselves as flat rows, whatever the model; the features of a view made from tensors.

        Raises:
            CapabilityError: the inputs are sparse: nothing makes them dense unasked.
        """
        if self.features_from == "given":
            return self.features
        return self._shared("flat_inputs", lambda: interop.raw_features(self.inputs))

    @property
    def features_from(self) -> Literal["embedding", "inputs", "given"]:
        """What `features` are: the model's embedding, the flattened inputs, or tensors that the view was made from."""
        if self.trials:
            return self.trials[0].features_from
        if self.model is None:
            return "inputs" if self.is_cold else "given"
        return "embedding" if provides(self.model, HasEmbedding) or self._is_preprocessed else "inputs"

    @property
    def _is_preprocessed(self) -> bool:
        return not provides(self.model, HasEmbedding) and interop.preprocesses(self.model, self.inputs)

    def features_at(self, inputs: Inputs) -> Tensor:
        """Return `features` (M, D) of inputs that are no rows of the pool.

        Raises:
            CapabilityError: there is no model.
        """
        if self.trials:
            return torch.stack([trial.features_at(inputs) for trial in self.trials])
        model = self._fitted("features_at")
        if self.features_from == "inputs":
            compute: Callable[..., Tensor] = lambda _, rows: interop.raw_features(rows)  # noqa: E731
        else:
            compute = interop.preprocessed if self._is_preprocessed else interop.embedding
        return compute(model, inputs).to(self.targets.device)

    @property
    def last_layer(self) -> LastLayer:
        """The layer between `features` and logits: weight (C, D), rows in the order of `classes`, and bias (C,).

        Raises:
            CapabilityError: the model has none, or its logits are not linear in its features.
        """
        if self.trials:
            weights, biases = zip(*(trial.last_layer for trial in self.trials), strict=True)
            return LastLayer(torch.stack(weights), torch.stack(biases))
        if "last_layer" in self.given:
            given: LastLayer = self.given["last_layer"]
            return given
        if "last_weight" not in self.outputs:
            model, device = self._fitted("last_layer"), self.targets.device
            weight, bias = interop.last_layer(model, self.inputs)
            if weight.ndim != 2 or len(weight) != len(self.classes) or bias.shape != weight.shape[:1]:
                raise ShapeError(
                    f"{type(model).__name__}.last_layer must answer with (C, D) and (C,) for {len(self.classes)} "
                    f"classes, got {tuple(weight.shape)} and {tuple(bias.shape)}"
                )
            self.outputs["last_weight"], self.outputs["last_bias"] = weight.to(device), bias.to(device)
        return LastLayer(self.outputs["last_weight"], self.outputs["last_bias"])

    def posterior_log_probs(self, k: int) -> Tensor:
        """(N, K, C) log-probabilities under k draws from the model's posterior."""
        return self._draws(k, None)

    def posterior_log_probs_of(self, rows: Tensor, k: int) -> Tensor:
        """Return `posterior_log_probs` of some rows (n,), (n, K, C), without computing those of all others.

        For large pools: all of 10^6 rows, 20 draws and 100 classes would be 8 GB. The draws are the same functions
        whichever rows are asked for, if the model keeps to `torchal.protocols.HasPosterior`.

        Args:
            rows: (n,) int64.
            k: how many draws.
        """
        return self._draws(k, rows)

    @property
    def max_draws(self) -> int | None:
        """How many posterior draws can be had: the members of an ensemble, or those given; None for any number."""
        if self.trials:
            return self.trials[0].max_draws
        if "posterior_log_probs" in self.given:
            return int(self.given["posterior_log_probs"].shape[1])
        return int(self.model.max_draws) if provides(self.model, HasMaxDraws) else None  # type: ignore[union-attr]

    def posterior_log_probs_at(self, inputs: Inputs, k: int) -> Tensor:
        """Return log-probabilities (M, K, C) of inputs that are no rows of the pool, under the same k draws.

        Raises:
            CapabilityError: there is no model.
        """
        check_whole("k", k, least=1)
        if self.trials:
            return torch.stack([trial.posterior_log_probs_at(inputs, k) for trial in self.trials])
        model = self._fitted("posterior_log_probs_at")
        return self._checked_draws(model, interop.posterior_log_probs(model, inputs, k), (len(inputs), k))

    def _draws(self, k: int, rows: Tensor | None) -> Tensor:
        check_whole("k", k, least=1)
        if self.trials:
            return torch.stack([trial._draws(k, rows) for trial in self.trials])
        if "posterior_log_probs" in self.given:
            given: Tensor = self.given["posterior_log_probs"]
            if k > given.shape[1]:
                raise CapabilityError(f"asked for {k} posterior draws, this view was given {given.shape[1]}")
            return (given if rows is None else given[rows])[:, :k]
        model = self._fitted("posterior_log_probs")
        draws = interop.posterior_log_probs(model, self.inputs, k, rows)
        return self._checked_draws(model, draws, (len(self) if rows is None else len(rows), k))

    def _checked_draws(self, model: Classifier, draws: Tensor, shape: tuple[int, int]) -> Tensor:
        wanted = (*shape, len(self.classes))
        if draws.shape != wanted:
            raise ShapeError(
                f"{type(model).__name__}.sample_log_probs must answer with {wanted}, got {tuple(draws.shape)}"
            )
        return draws.to(self.targets.device)

    @property
    def classes(self) -> Tensor:
        """(C,) int64, ascending: the classes that the model has seen; the columns of scores and log_probs."""
        if self.trials:
            return self.trials[0].classes
        if self.model is None:
            return torch.arange(self.n_classes, device=self.targets.device)
        model = self.model
        return self._shared("classes", lambda: interop.seen_classes(model, self.targets[self.labeled]))

    def refit(self, rows: Tensor, labels: Tensor) -> PoolView:
        """Return the view as if these labels had been bought, by a cold fit of a clone; nothing outside changes.

        The T fits are one call of the model's `fit_many` where it has one (`torchal.protocols.HasBatchedFit`).

        Shapes:
            rows: (n,) int64, or (T, n) for T separate sets.
            labels: the same shape as rows, int64.

        Raises:
            CapabilityError: there is no model, or it cannot be cloned.
            DataError: a row is labeled already, or the T fits saw different classes.
        """
        if self.trials:
            raise ShapeError(f"this view is of {len(self.trials)} refits already; refit one of its .trials")
        rows, labels = torch.as_tensor(rows), torch.as_tensor(labels)
        if rows.ndim != 2:
            return self._refits([rows], [labels])[0]
        if rows.shape != labels.shape or not len(rows):
            shapes = f"{tuple(rows.shape)} and {tuple(labels.shape)}"
            raise ShapeError(f"rows and labels must be (T, n) with T at least 1, got {shapes}")
        trials = self._refits(list(rows), list(labels))
        if any(not torch.equal(trial.classes, trials[0].classes) for trial in trials):
            raise DataError("the refits saw different classes, so their outputs have different columns")
        masks = ("labeled", "candidates", "targets")
        stacked = {name: torch.stack([getattr(trial, name) for trial in trials]) for name in masks}
        return replace(self, **stacked, trials=tuple(trials), is_hypothetical=True, outputs={})  # type: ignore[arg-type]

    def without_labels(self, rows: Tensor) -> PoolView:
        """Return the view as if the labels of these rows had not been bought, by a cold fit of a clone.

        For what a model says of rows that it has not learned: they are no candidates, and nothing outside changes.

        Shapes:
            rows: (n,) int64, labeled.

        Raises:
            CapabilityError: there is no model, or it cannot be cloned.
            DataError: a row is not labeled.
        """
        rows = as_rows("rows", rows, n_rows=len(self), device=self.targets.device)
        n_others = int((~self.labeled[rows]).sum())
        if n_others:
            raise DataError(f"{n_others} of {len(rows)} rows are not labeled")
        targets, labeled = self.targets.index_fill(0, rows, UNLABELED), self.labeled.index_fill(0, rows, False)
        return replace(self, targets=targets, labeled=labeled).refit(rows[:0], rows[:0])

    def _refits(self, rows: list[Tensor], labels: list[Tensor]) -> list[PoolView]:
        model = interop.silent_copy(self._fitted("refit"))
        bought = [self._with(r, y) for r, y in zip(rows, labels, strict=True)]
        fitted = interop.fit_many(model, (training_data(self.inputs, *after) for after in bought))
        kept = {name: self.outputs[name] for name in ("flat_inputs",) if name in self.outputs}
        return [
            replace(
                self,
                model=one,
                labeled=labeled,
                targets=targets,
                candidates=self.candidates & ~labeled,
                is_hypothetical=True,
                outputs=dict(kept),
            )
            for one, (targets, labeled) in zip(fitted, bought, strict=True)
        ]

    def _with(self, rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return targets and labeled as if these labels had been bought."""
        rows = as_rows("rows", rows, n_rows=len(self), device=self.targets.device)
        codes, _ = Classes(None, self.n_classes).encode(as_integers("labels", labels), n=len(rows))
        return buy(rows, codes, self.targets, self.labeled)

    def validation_score(self) -> float:
        """Return the accuracy on the validation part; the mean over T where there are T refits.

        Raises:
            CapabilityError: there is no model or no validation part.
        """
        if self.trials:
            return sum(trial.validation_score() for trial in self.trials) / len(self.trials)
        model = self._fitted("validation_score")
        if self.validation is None:
            raise CapabilityError("validation_score needs a validation part; this view has none")
        predicted = interop.predictions(model, self.validation.inputs)
        return int((predicted == self.validation.targets).sum()) / len(predicted)  # the same bits on every device

    def _output(self, name: str, compute: Callable[..., Tensor], *, one_for_two: bool | None = None) -> Tensor:
        if name in self.given:
            given: Tensor = self.given[name]
            return given

        def computed() -> Tensor:
            if self.trials:
                return torch.stack([getattr(trial, name) for trial in self.trials])
            model = self._fitted(name)
            shared = interop.shares_a_pass(model)
            output = self._of_one_pass(name, model) if shared else compute(model, self.inputs)
            if one_for_two is not None:
                interop.check_columns(self.model, output, self.classes, one_for_two=one_for_two)
            return output.to(self.targets.device)

        return self._shared(name, computed)

    def _of_one_pass(self, name: str, model: Classifier) -> Tensor:
        """Return an output of a model that gives all of them in one forward pass, and keep the others."""
        want_features = name == "features"
        if want_features or "logits" not in self.outputs:
            # on ranks none is kept that was not asked for: whether there is room may be another answer on each
            most = None if want_features else _KEPT_FEATURES if self.group is None else 0
            features, logits = interop.outputs(model, self.inputs, most_features=most)
            self.outputs["logits"] = logits.to(self.targets.device)
            if features is not None:
                self.outputs["features"] = features.to(self.targets.device)
        if want_features:
            return self.outputs["features"]
        logits = self.outputs["logits"]
        return interop.scores_of(logits) if name == "scores" else interop.log_probs_of_logits(logits)

    def _shared(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return what was computed under this name, by this view or one that it was forked from or to; else compute."""
        if name not in self.outputs and self.group is not None:
            with self.group.meeting() as meeting:  # a part that cannot be read is told to all
                meeting.rows(len(self), 1, name=name)
                self.outputs[name] = compute()
        elif name not in self.outputs:
            self.outputs[name] = compute()
        return self.outputs[name]

    def _fitted(self, what: str) -> Classifier:
        if self.is_cold:
            raise CapabilityError(f"{what} needs a model; none can be fitted before labels of two classes are there")
        if self.model is None:
            have = ", ".join(self.given) or "no outputs"
            raise CapabilityError(f"{what} needs a model; this view was made from tensors and has {have}")
        return self.model


_OUTPUT_OF: dict[Any, str] = {
    HasDecisionFunction: "scores",
    HasProbabilities: "log_probs",
    HasEmbedding: "features",
    HasPosterior: "posterior_log_probs",
    HasLastLayer: "last_layer",
}
