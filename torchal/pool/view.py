"""The view of a pool that a sampler gets in one round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torchal._checks import as_integers, check_mask
from torchal._chunks import values_per_chunk
from torchal.engine.features import Features
from torchal.errors import CapabilityError, ConfigError, DataError, ShapeError
from torchal.pool import interop
from torchal.pool.inputs import as_torch_takes
from torchal.pool.labels import LabeledData, buy, training_data
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

_KEPT_FEATURES = 2**27  # numbers; an embedding that nobody has asked for yet is kept up to here, for whoever will


@dataclass(frozen=True, eq=False)
class PoolView:
    """What a sampler may see in one round: N rows, one index space, and no label that was not bought.

    Model outputs are computed when first read and shared by every sampler that looks; a network runs once for all of
    them (with more than 2^27 numbers of features, only if those are read first). Made by `Pool.view`, or from tensors
    that are there already by `PoolView.from_tensors`.

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
    outputs: dict[str, Tensor] = field(default_factory=dict, repr=False)
    """What was computed when first read; the forks of this view share it."""

    @classmethod
    def from_tensors(
        cls,
        *,
        features: Features | None = None,
        scores: Features | None = None,
        log_probs: Features | None = None,
        labeled: Tensor | None = None,
        candidates: Tensor | None = None,
        targets: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> PoolView:
        """Return a view of outputs that are there already; no model is needed.

        Shapes:
            features: (N, D) float; a mapped file, as `torchal.embed` makes it, is read chunk by chunk.
            scores: (N, C) float decision values, or (N, 1) or (N,) for two classes; a mapped file is read whole, as
                are log_probs.
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
        scores, log_probs = _as_tensor("scores", scores), _as_tensor("log_probs", log_probs)
        if features is not None and not isinstance(features, np.memmap):
            features = _as_tensor("features", features)
        labeled, candidates = _as_tensor("labeled", labeled), _as_tensor("candidates", candidates)
        targets = None if targets is None else as_integers("targets", targets)
        if generator is not None and not isinstance(generator, torch.Generator):
            raise ConfigError(f"generator must be a torch.Generator, got {type(generator).__name__}")
        if scores is not None and scores.ndim == 1:
            scores = scores.unsqueeze(1)
        outputs = {"features": features, "scores": scores, "log_probs": log_probs}
        given = {name: tensor for name, tensor in outputs.items() if tensor is not None}
        anything = next((t for t in (*given.values(), targets, labeled, candidates) if t is not None), None)
        if anything is None:
            raise ShapeError("a view needs at least one tensor, got none")
        n_rows, device = len(anything), _device_of(anything)
        if n_rows == 0:
            raise ShapeError("a view needs at least one row, got none")
        for name, tensor in given.items():
            if tensor.ndim != 2 or len(tensor) != n_rows or _device_of(tensor) != device:
                raise ShapeError(
                    f"{name} must be ({n_rows}, ...) with two axes on {device}, "
                    f"got {tuple(tensor.shape)} on {_device_of(tensor)}"
                )
        for name, values in (("scores", scores), ("log_probs", log_probs)):
            if values is not None and not values.is_floating_point():
                raise ShapeError(f"{name} must be floating point, got {values.dtype}; use {name}.float()")
        if log_probs is not None:
            _check_log_probs(log_probs)
        if targets is None:
            targets = torch.full((n_rows,), UNLABELED, device=device)
        if targets.shape != (n_rows,) or targets.dtype != torch.int64:
            raise ShapeError(f"targets must be ({n_rows},) int64, got {tuple(targets.shape)} {targets.dtype}")
        if int(targets.min()) < UNLABELED:
            raise DataError(
                f"targets must be at least {UNLABELED}, which stands for no label, got {int(targets.min())}"
            )
        labeled = targets != UNLABELED if labeled is None else labeled
        check_mask("labeled", labeled, n_rows=n_rows, device=device)
        candidates = ~labeled if candidates is None else candidates
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

    def fork(self, key: int) -> PoolView:
        """Return this view with randomness of its own, another for each key; both share the model's outputs.

        For a sampler that asks others: two of them that draw from the same generator would draw the same rows.
        """
        generator = self.generator
        base = int(torch.randint(1 << 31, (1,), generator=generator, device=generator.device))
        return replace(self, generator_state=torch.Generator(generator.device).manual_seed(base + key))

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
        if "log_probs" in self.given or self.outputs.keys() & {"log_probs", "logits"} or self.trials:
            return self.log_probs[..., rows, :]
        model = self._fitted("log_probs")
        some = interop.log_probs_of(model, self.inputs, rows)
        return interop.check_columns(model, some, self.classes, one_for_two=False).to(self.targets.device)

    @property
    def features(self) -> Tensor:
        """(N, D) the model's embedding where it has one, else the flattened inputs.

        Raises:
            CapabilityError: the model has none, and the inputs are sparse.
        """
        if self.trials:
            return self._shared("features", lambda: torch.stack([trial.features for trial in self.trials]))
        if self.features_from == "inputs":
            return self.flat_inputs
        return self._output("features", interop.embedding)

    @property
    def flat_inputs(self) -> Tensor:
        """(N, D) the inputs themselves as flat rows, whatever the model; the features of a view made from tensors.

        Raises:
            CapabilityError: the inputs are sparse: nothing makes them dense unasked.
        """
        if self.model is None:
            return self.features
        return self._shared("flat_inputs", lambda: interop.raw_features(self.inputs))

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
        return replace(self, **stacked, trials=tuple(trials), outputs={})  # type: ignore[arg-type]

    def _refits(self, rows: list[Tensor], labels: list[Tensor]) -> list[PoolView]:
        model = interop.silent_copy(self._fitted("refit"))
        bought = [buy(r, y, self.targets, self.labeled, self.n_classes) for r, y in zip(rows, labels, strict=True)]
        fitted = interop.fit_many(model, (training_data(self.inputs, *after) for after in bought))
        kept = {name: self.outputs[name] for name in ("flat_inputs",) if name in self.outputs}
        return [
            replace(
                self,
                model=one,
                labeled=labeled,
                targets=targets,
                candidates=self.candidates & ~labeled,
                outputs=dict(kept),
            )
            for one, (targets, labeled) in zip(fitted, bought, strict=True)
        ]

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
            most = None if want_features else _KEPT_FEATURES
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
        if name not in self.outputs:
            self.outputs[name] = compute()
        return self.outputs[name]

    def _fitted(self, what: str) -> Classifier:
        if self.model is None:
            have = ", ".join(self.given) or "no outputs"
            raise CapabilityError(f"{what} needs a model; this view was made from tensors and has {have}")
        return self.model


def _as_tensor(name: str, values: Any) -> Tensor | None:
    """Return numbers in a tensor, an array or a list as a tensor."""
    if values is None or isinstance(values, Tensor):
        return values
    if isinstance(values, np.memmap):
        return torch.tensor(values)
    if isinstance(values, list | tuple):
        values = np.asarray(values)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        got = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ShapeError(f"{name} must be a tensor or an array of numbers, got {got}")
    return torch.from_numpy(as_torch_takes(values))


def _check_log_probs(log_probs: Tensor) -> None:
    """Require rows of log-probabilities: their probabilities sum to 1, up to the rounding of their dtype."""
    tolerance = max(1e-3, 8 * torch.finfo(log_probs.dtype).eps)
    size = max(1, values_per_chunk(log_probs.device) // max(1, log_probs.shape[1]))
    for i, some in enumerate(log_probs.split(size)):
        off = some.logsumexp(1).abs()
        bad = (off > tolerance) & ~some.isnan().any(1)  # what is not finite is said by whoever reads it
        if bool(bad.any()):
            row = int(bad.nonzero()[0])
            total = float(some[row].double().exp().sum())
            remedy = "logits are scores=" if not 0.99 < float(some[row].sum()) < 1.01 else "use probs.log()"
            raise DataError(
                f"log_probs must be log-probabilities: the probabilities of row {i * size + row} sum to {total:.4g}, "
                f"not to 1; {remedy}"
            )


def _device_of(values: Features) -> torch.device:
    return torch.device("cpu") if isinstance(values, np.memmap) else values.device


_OUTPUT_OF: dict[Any, str] = {
    HasDecisionFunction: "scores",
    HasProbabilities: "log_probs",
    HasEmbedding: "features",
    HasPosterior: "posterior_log_probs",
}
