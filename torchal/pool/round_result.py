"""What one round came to: what a run keeps of it, and what a sampler may learn from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal._records import as_plain


@dataclass(frozen=True, eq=False)
class RoundResult:
    """One round: the rows bought, and how good the model is with them.

    Round 0 is the start set. Every later round is one batch: selected, labeled, then fitted and scored. What a loop of
    one's own tells a sampler (`Sampler.tell`) has -1 as `round` and `n_labeled`, for nobody has counted.

    Args:
        picked_by: the sampler that named the rows; "start" for the start set.
        validation, test: metrics of the model after the round, by name; empty without such a part.
        seconds: of each phase, by name.

    Shapes:
        rows: (n,) int64, rows of the pool in pick order.
        source_rows: (n,) int64, the same rows where the data came from.
        labels: (n,) int64.
        scores: (n,) float64, the value of each pick when it was picked; NaN for rows that no sampler picked.
        true_labels: (n,) int64 where a simulation knows better than its oracle, as one with label noise; else (0,).
    """

    round: int
    n_labeled: int
    rows: Tensor
    source_rows: Tensor
    labels: Tensor
    scores: Tensor
    picked_by: str
    test: dict[str, float] = field(default_factory=dict)
    validation: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    """What the sampler says of its picks."""
    model: dict[str, Any] = field(default_factory=dict)
    """What the model says of its fit (`torchal.protocols.HasFitReport`), as the penalty that it has chosen."""
    select_model: dict[str, Any] = field(default_factory=dict)
    """The same of the model that the sampler looked at, where it is another."""
    pool: dict[str, float] = field(default_factory=dict)
    """What was to be watched of the pool and of the batch, as its kappa and its redundancy: `ActiveLearner.watch`."""
    cost: float = 0.0
    """What all labels so far have cost, with the rows that nobody could label."""
    true_labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    peak_mib: dict[str, float] = field(default_factory=dict)
    """By phase, as in `seconds`, the most memory (`torchal.runs.memory`): of the process until the end of the phase,
    and as `cuda_<phase>` what torch held on the GPU during the phase."""
    calibration: dict[str, list[float]] = field(default_factory=dict)
    """How sure the model is of its answers on the test part, and how often right (`torchal.runs.calibration`)."""

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, text, lists and dicts; a number that is not finite becomes None."""
        return {name: as_plain(value) for name, value in vars(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> RoundResult:
        """Return what `to_json` was made from.

        Raises:
            ValueError: the record has something that is not in one, as those of a newer version may.
            KeyError, TypeError: it lacks something, or has something of another kind.
        """
        unknown = sorted(record.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise ValueError(f"a round has {', '.join(unknown)}, which this version of torchal does not know")
        names = ("rows", "source_rows", "labels", "true_labels")  # the last is not in records of earlier versions
        whole = {name: torch.tensor(record[name], dtype=torch.int64) for name in names if name in record}
        scores = [math.nan if score is None else score for score in record["scores"]]
        parts = {
            part: {name: math.nan if value is None else value for name, value in record[part].items()}
            for part in ("test", "validation")
        }
        return cls(**{**record, **whole, **parts, "scores": torch.tensor(scores, dtype=torch.float64)})
