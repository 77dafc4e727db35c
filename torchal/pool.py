"""The pool: all rows and the labels bought so far; and the view of it that a sampler gets in one round.

There is one index space. Every mask and every answer counts the N rows of the pool, labeled or not, and nothing is
translated. A label that was not bought is nowhere in here.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from torchal import interop
from torchal._checks import as_integers, as_rows, check_finite, check_mask
from torchal.errors import CapabilityError, DataError, ShapeError
from torchal.protocols import (
    UNLABELED,
    Classifier,
    HasDecisionFunction,
    HasEmbedding,
    HasPosterior,
    HasProbabilities,
    Inputs,
    provides,
)


class LabeledData(NamedTuple):
    """Inputs with all their labels: a validation or a test part.

    Shapes:
        inputs: (M, ...).
        targets: (M,) int64.
    """

    inputs: Inputs
    targets: Tensor


@dataclass(frozen=True, eq=False)
class Pool:
    """All rows, and the labels bought so far. Immutable: buying labels gives a new pool.

    Args:
        inputs: N rows; a tensor, a NumPy array, or anything with a length that is indexed by row numbers.
        targets: labels where they were bought, `UNLABELED` (-1) elsewhere.
        labeled: where labels were bought; where `targets` has one, unless given.
        n_classes: number of classes, at least 2, known before each has a label; unless given, the largest label plus 1.
        skipped: rows that cannot be labeled and are not asked again.
        source_rows: each row's number where the data came from; 0 to N - 1 unless given.

    Shapes:
        inputs: (N, ...).
        targets: (N,) int64.
        labeled, skipped: (N,) bool.
        source_rows: (N,) int64.

    Raises:
        DataError: no rows; inputs that are not finite; fewer than 2 classes; a label outside [0, n_classes); a target
            of an unlabeled row.
        ShapeError: the tensors disagree in rows, dtype or device.

    Example:
        >>> pool = Pool.unlabeled(torch.rand(5, 2), n_classes=2)
        >>> pool.with_labels(torch.tensor([3, 1]), torch.tensor([0, 1])).targets
        tensor([-1,  1, -1,  0, -1])
    """

    inputs: Inputs
    targets: Tensor
    labeled: Tensor = None  # type: ignore[assignment]  # filled in below, as are the others
    n_classes: int = None  # type: ignore[assignment]
    skipped: Tensor = None  # type: ignore[assignment]
    source_rows: Tensor = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        put("inputs", interop.as_inputs(self.inputs))
        if not isinstance(self.targets, Tensor):
            put("targets", as_integers("targets", self.targets))
        n_rows = len(self.inputs)
        if n_rows == 0:
            raise DataError("a pool needs at least one row, got none")
        device = self.inputs.device if isinstance(self.inputs, Tensor) else self.targets.device
        if isinstance(self.inputs, Tensor) and self.inputs.is_floating_point():
            check_finite("inputs", self.inputs)
        if self.targets.shape != (n_rows,) or self.targets.dtype != torch.int64 or self.targets.device != device:
            raise ShapeError(
                f"targets must be ({n_rows},) int64 on {device}, got {tuple(self.targets.shape)} {self.targets.dtype} "
                f"on {self.targets.device}"
            )
        if self.labeled is None:
            put("labeled", self.targets != UNLABELED)
        if self.skipped is None:
            put("skipped", torch.zeros(n_rows, dtype=torch.bool, device=device))
        rows = torch.arange(n_rows) if self.source_rows is None else as_integers("source_rows", self.source_rows)
        put("source_rows", rows.to(device))
        if self.n_classes is None:
            put("n_classes", int(self.targets.max()) + 1)
        if isinstance(self.n_classes, bool) or not isinstance(self.n_classes, Integral) or self.n_classes < 2:
            raise DataError(f"n_classes must be a whole number of at least 2, got {self.n_classes!r}")
        check_mask("labeled", self.labeled, n_rows=n_rows, device=device)
        check_mask("skipped", self.skipped, n_rows=n_rows, device=device)
        if self.source_rows.shape != (n_rows,):
            raise ShapeError(f"source_rows must have shape ({n_rows},), got {tuple(self.source_rows.shape)}")
        extra = int((self.targets[~self.labeled] != UNLABELED).sum())
        if extra:
            raise DataError(
                f"{extra} rows that are not labeled have a target: a pool holds only labels that were bought; "
                "use Pool.unlabeled(inputs, n_classes=...).with_labels(rows, labels)"
            )
        _check_labels(self.targets[self.labeled], self.n_classes)

    @classmethod
    def unlabeled(cls, inputs: Inputs, *, n_classes: int, source_rows: Tensor | None = None) -> Pool:
        """Return a pool with no label bought yet.

        Shapes:
            inputs: (N, ...).
            source_rows: (N,) int64.
        """
        inputs = interop.as_inputs(inputs)
        device = inputs.device if isinstance(inputs, Tensor) else None
        targets = torch.full((len(inputs),), UNLABELED, device=device)
        return cls(inputs, targets, n_classes=n_classes, source_rows=source_rows)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def device(self) -> torch.device:
        """Where the masks and targets are."""
        return self.targets.device

    @cached_property
    def candidates(self) -> Tensor:
        """(N,) bool: rows that may be asked, neither labeled nor skipped."""
        return ~(self.labeled | self.skipped)

    @cached_property
    def n_labeled(self) -> int:
        """Number of labels bought."""
        return int(self.labeled.sum())

    def with_labels(self, rows: Tensor, labels: Tensor) -> Pool:
        """Return the pool with these labels bought.

        Shapes:
            rows: (n,) int64.
            labels: (n,) int64.

        Raises:
            DataError: a row is labeled already, or a label is not in [0, n_classes).
            ShapeError: rows repeat or lie outside the pool, or there are not as many labels as rows.
        """
        targets, labeled = _buy(rows, labels, self.targets, self.labeled, self.n_classes)
        return self._changed(targets=targets, labeled=labeled, skipped=self.skipped & ~labeled)

    def without(self, rows: Tensor) -> Pool:
        """Return the pool with these rows never asked again, as when a person cannot label them.

        Shapes:
            rows: (n,) int64.

        Raises:
            DataError: a row is labeled already.
        """
        rows = as_rows("rows", rows, n_rows=len(self), device=self.device)
        if bool(self.labeled[rows].any()):
            raise DataError(f"{int(self.labeled[rows].sum())} of {len(rows)} rows to skip are labeled already")
        skipped = self.skipped.clone()
        skipped[rows] = True
        return self._changed(skipped=skipped)

    def training_data(self) -> tuple[Inputs, Tensor]:
        """Return the labeled rows, in ascending order, and their labels (L,)."""
        return _training_data(self.inputs, self.targets, self.labeled)

    def _changed(self, **changes: Tensor) -> Pool:
        """Return a copy with other masks, without the checks: they read all inputs, which have not changed."""
        changed = copy.copy(self)
        for derived in ("candidates", "n_labeled"):
            changed.__dict__.pop(derived, None)
        for name, value in changes.items():
            object.__setattr__(changed, name, value)
        return changed

    def view(self, model: Classifier, *, generator: torch.Generator, validation: LabeledData | None = None) -> PoolView:
        """Return what a sampler may see, with a model fitted on the labels bought so far."""
        return PoolView(
            labeled=self.labeled.clone(),
            candidates=self.candidates.clone(),  # what a sampler does to its view must not reach the pool
            targets=self.targets.clone(),
            inputs=self.inputs,
            n_classes=self.n_classes,
            generator_state=generator.clone_state(),
            model=model,
            validation=validation,
        )


@dataclass(frozen=True, eq=False)
class PoolView:
    """What a sampler may see in one round: N rows, one index space, and no label that was not bought.

    Model outputs are computed when first read and shared by every sampler that looks. Made by `Pool.view`, or from
    tensors that are there already by `PoolView.from_tensors`.

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
    given: Mapping[str, Tensor] = field(default_factory=dict, repr=False)
    trials: tuple[PoolView, ...] = field(default=(), repr=False)

    @classmethod
    def from_tensors(
        cls,
        *,
        features: Tensor | None = None,
        scores: Tensor | None = None,
        log_probs: Tensor | None = None,
        labeled: Tensor | None = None,
        candidates: Tensor | None = None,
        targets: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> PoolView:
        """Return a view of outputs that are there already; no model is needed.

        Shapes:
            features: (N, D) float.
            scores: (N, C) float decision values, or (N, 1) or (N,) for two classes.
            log_probs: (N, C) float.
            labeled: (N,) bool; where `targets` has a label, unless given; else nowhere.
            candidates: (N,) bool; what is not labeled, unless given.
            targets: (N,) int64, `UNLABELED` (-1) where there is no label.

        Raises:
            ShapeError: nothing is given, no rows, or the tensors disagree in rows, dtype or device.
            DataError: a row that is not labeled has a target.

        Example:
            >>> view = PoolView.from_tensors(scores=torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
            >>> view.candidates
            tensor([True, True])
        """
        if scores is not None and scores.ndim == 1:
            scores = scores.unsqueeze(1)
        outputs = {"features": features, "scores": scores, "log_probs": log_probs}
        given = {name: tensor for name, tensor in outputs.items() if tensor is not None}
        anything = next((t for t in (*given.values(), targets, labeled, candidates) if t is not None), None)
        if anything is None:
            raise ShapeError("a view needs at least one tensor, got none")
        n_rows, device = len(anything), anything.device
        if n_rows == 0:
            raise ShapeError("a view needs at least one row, got none")
        for name, tensor in given.items():
            if tensor.ndim != 2 or len(tensor) != n_rows or tensor.device != device:
                raise ShapeError(
                    f"{name} must be ({n_rows}, ...) with two axes on {device}, "
                    f"got {tuple(tensor.shape)} on {tensor.device}"
                )
        if targets is None:
            targets = torch.full((n_rows,), UNLABELED, device=device)
        if targets.shape != (n_rows,) or targets.dtype != torch.int64:
            raise ShapeError(f"targets must be ({n_rows},) int64, got {tuple(targets.shape)} {targets.dtype}")
        labeled = targets != UNLABELED if labeled is None else labeled
        candidates = ~labeled if candidates is None else candidates
        check_mask("labeled", labeled, n_rows=n_rows, device=device)
        check_mask("candidates", candidates, n_rows=n_rows, device=device)
        if bool((labeled & candidates).any()):
            raise ShapeError(f"{int((labeled & candidates).sum())} rows are both labeled and candidates")
        extra = int((targets[~labeled] != UNLABELED).sum())
        if extra:
            raise DataError(f"{extra} rows that are not labeled have a target")
        columns = [t.shape[1] for name, t in given.items() if name != "features"]
        columns = [max(2, c) for c in columns]
        return cls(
            labeled=labeled,
            candidates=candidates,
            targets=targets,
            inputs=anything,
            n_classes=max([*columns, int(targets.max()) + 1]),
            generator_state=(generator or torch.Generator().manual_seed(0)).clone_state(),
            given=given,
        )

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def generator(self) -> torch.Generator:
        """The round's randomness: a new copy at each read, so that the same view gives the same answer.

        Read it once in a `select`: two reads give the same numbers.
        """
        return self.generator_state.clone_state()

    def has(self, capability: type) -> bool:
        """Tell whether an output is there: `HasDecisionFunction` for scores, `HasProbabilities` for log_probs, ..."""
        return _OUTPUT_OF[capability] in self.given or provides(self.model, capability)

    @cached_property
    def scores(self) -> Tensor:
        """(N, C) decision values; one column where the model has one value for two classes."""
        return self._output("scores", interop.decision_values, one_for_two=True)

    @cached_property
    def log_probs(self) -> Tensor:
        """(N, C) log-probabilities of the classes that the model has seen."""
        return self._output("log_probs", interop.log_probs, one_for_two=False)

    @cached_property
    def features(self) -> Tensor:
        """(N, D) the model's embedding where it has one, else the flattened inputs."""
        if self.trials:
            return torch.stack([trial.features for trial in self.trials])
        if self.features_from == "inputs":
            return interop.raw_features(self.inputs)
        return self._output("features", interop.embedding)

    @cached_property
    def flat_inputs(self) -> Tensor:
        """(N, D) the inputs themselves as flat rows, whatever the model; the features of a view made from tensors."""
        return self.features if self.model is None else interop.raw_features(self.inputs)

    @property
    def features_from(self) -> Literal["embedding", "inputs", "given"]:
        """What `features` are: the model's embedding, the flattened inputs, or tensors that the view was made from."""
        if self.trials:
            return self.trials[0].features_from
        if self.model is None:
            return "given"
        return "embedding" if provides(self.model, HasEmbedding) else "inputs"

    def posterior_log_probs(self, k: int) -> Tensor:
        """(N, K, C) log-probabilities under k draws from the model's posterior."""
        if self.trials:
            return torch.stack([trial.posterior_log_probs(k) for trial in self.trials])
        return interop.posterior_log_probs(self._fitted("posterior_log_probs"), self.inputs, k)

    @cached_property
    def classes(self) -> Tensor:
        """(C,) int64, ascending: the classes that the model has seen; the columns of scores and log_probs."""
        if self.trials:
            return self.trials[0].classes
        if self.model is None:
            return torch.arange(self.n_classes, device=self.targets.device)
        return interop.seen_classes(self.model, self.targets[self.labeled])

    def refit(self, rows: Tensor, labels: Tensor) -> PoolView:
        """Return the view as if these labels had been bought, by a cold fit of a clone; nothing outside changes.

        Shapes:
            rows: (n,) int64, or (T, n) for T separate sets.
            labels: the same shape as rows, int64.

        Raises:
            CapabilityError: there is no model, or it cannot be cloned.
            DataError: a row is labeled already, or the T fits saw different classes.
        """
        if self.trials:
            raise ShapeError(f"this view is of {len(self.trials)} refits already; refit one of its .trials")
        model = interop.unfitted(self._fitted("refit"))
        rows, labels = torch.as_tensor(rows), torch.as_tensor(labels)
        if rows.ndim == 2:
            if rows.shape != labels.shape or not len(rows):
                shapes = f"{tuple(rows.shape)} and {tuple(labels.shape)}"
                raise ShapeError(f"rows and labels must be (T, n) with T at least 1, got {shapes}")
            trials = tuple(self.refit(r, y) for r, y in zip(rows, labels, strict=True))
            if any(not torch.equal(trial.classes, trials[0].classes) for trial in trials):
                raise DataError("the refits saw different classes, so their outputs have different columns")
            masks = ("labeled", "candidates", "targets")
            stacked = {name: torch.stack([getattr(trial, name) for trial in trials]) for name in masks}
            return replace(self, **stacked, trials=trials)  # type: ignore[arg-type]
        targets, labeled = _buy(rows, labels, self.targets, self.labeled, self.n_classes)
        interop.fit(model, *_training_data(self.inputs, targets, labeled))
        return replace(self, model=model, labeled=labeled, targets=targets, candidates=self.candidates & ~labeled)

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
        return float((predicted == self.validation.targets).double().mean())

    def _output(self, name: str, compute: Any, *, one_for_two: bool | None = None) -> Tensor:
        if self.trials:
            return torch.stack([getattr(trial, name) for trial in self.trials])
        if name in self.given:
            return self.given[name]
        output: Tensor = compute(self._fitted(name), self.inputs)
        if one_for_two is not None:
            interop.check_columns(self.model, output, self.classes, one_for_two=one_for_two)
        return output.to(self.targets.device)

    def _fitted(self, what: str) -> Classifier:
        if self.model is None:
            have = ", ".join(self.given) or "no outputs"
            raise CapabilityError(f"{what} needs a model; this view was made from tensors and has {have}")
        return self.model


_OUTPUT_OF: dict[Any, str] = {
    HasDecisionFunction: "scores",
    HasProbabilities: "log_probs",
    HasEmbedding: "features",
    HasPosterior: "posterior_log_probs",
}


def _buy(rows: object, labels: object, targets: Tensor, labeled: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return copies of targets and labeled with these labels in them."""
    rows = as_rows("rows", rows, n_rows=len(targets), device=targets.device)
    labels = as_labels(labels, n=len(rows), n_classes=n_classes, device=targets.device)
    again = rows[labeled[rows]]
    if len(again):
        raise DataError(f"{len(again)} of {len(rows)} rows are labeled already, the first is row {int(again[0])}")
    targets, labeled = targets.clone(), labeled.clone()
    targets[rows], labeled[rows] = labels, True
    return targets, labeled


def _training_data(inputs: Inputs, targets: Tensor, labeled: Tensor) -> tuple[Any, Tensor]:
    rows = labeled.nonzero().squeeze(1)
    return inputs[rows], targets[rows]


def as_labels(labels: object, *, n: int, n_classes: int, device: torch.device) -> Tensor:
    """Return labels as (n,) int64 on `device`, each in [0, n_classes).

    Raises:
        ShapeError: there are not n labels, or they are not whole numbers.
        DataError: a label is not in [0, n_classes).
    """
    tensor = as_integers("labels", labels).to(device)
    if len(tensor) != n:
        raise ShapeError(f"labels must be ({n},) integers, got shape {tuple(tensor.shape)}")
    _check_labels(tensor, n_classes)
    return tensor


def _check_labels(labels: Tensor, n_classes: int) -> None:
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < n_classes:
        raise DataError(f"labels must lie in [0, {n_classes}), got {int(labels.min())} to {int(labels.max())}")
