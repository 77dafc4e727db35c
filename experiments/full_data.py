"""An experiment that is ready to begin, and what its model comes to with all labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from torchal import samplers
from torchal._records import write_atomically
from torchal.data import Splits
from torchal.pool import interop
from torchal.protocols import UNLABELED
from torchal.runs.learner import ActiveLearner
from torchal.runs.metrics import evaluate
from torchal.runs.together import fit_together
from torchal.runs.trainer import Steps, Trainer


@dataclass(frozen=True)
class Experiment:
    """One run, made from its config and ready to begin."""

    config: dict[str, Any]
    """What it is, in plain values."""
    trainer: Trainer
    model: Any
    splits: Splits
    start: int | torch.Tensor
    full_data: Path
    """The folder that keeps the accuracies with all training data."""

    def steps(self) -> Steps:
        """Return the run step by step; what can be checked is checked now."""
        splits = self.splits
        validation = splits.validation if len(splits.validation.targets) else None
        truth = splits.true_targets
        return self.trainer.steps(
            splits.pool(), splits.oracle(), validation=validation, test=splits.test, start=self.start, truth=truth
        )


def full_data_accuracies(experiments: Sequence[Experiment]) -> list[float]:
    """Return the test accuracies of the models fitted on all training rows; each is fitted once, and kept in a file.

    The samplers of a sweep share it: it depends on data, split, noise, model and seed only.
    """
    accuracies: dict[int, float] = {}
    missing: list[int] = []
    with ExitStack() as locks:
        for number, one in enumerate(experiments):
            path = _full_data_file(one)
            path.parent.mkdir(parents=True, exist_ok=True)
            locks.enter_context(FileLock(path.with_suffix(".lock")))  # two jobs of a sweep must not both fit it
            saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if saved.get("config") == _full_data_key(one):
                accuracies[number] = float(saved["accuracy"])
            else:
                missing.append(number)
        learners = [_full_learner(experiments[number]) for number in missing]
        fit_together(learners)
        for number, learner in zip(missing, learners, strict=True):
            one, model = experiments[number], learner.model
            seen = interop.seen_classes(model, learner.pool.targets[learner.pool.labeled])
            scored = evaluate(model, one.splits.test, n_classes=one.splits.n_classes, seen=seen, metrics={})
            accuracies[number] = scored["accuracy"]
            content = {"config": _full_data_key(one), "accuracy": accuracies[number]}
            write_atomically(_full_data_file(one), json.dumps(content).encode())
    return [accuracies[number] for number in range(len(experiments))]


def _full_data_key(one: Experiment) -> dict[str, Any]:
    return {name: one.config[name] for name in ("data", "model", "seed", "noise", "repeat")}


def _full_data_file(one: Experiment) -> Path:
    return one.full_data / f"seed={one.config['seed']}.json"


def _full_learner(one: Experiment) -> ActiveLearner:
    targets = one.splits.train.targets
    known = (targets != UNLABELED).nonzero().squeeze(1)
    return ActiveLearner(one.model, samplers.Uniform(), one.splits.pool().with_labels(known, targets[known]))
