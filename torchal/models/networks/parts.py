"""Which rows a fit trains on and which it is judged by, and how much each class counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from torchal.errors import ConfigError, DataError
from torchal.models.base import TrainingData
from torchal.models.checks import Array


def hold_out(data: TrainingData, fraction: float, seed: int) -> tuple[TrainingData, TrainingData]:
    """Return the rows to train on and those held back: a share of each class, rounded, and never its last row.

    Raises:
        ConfigError: the share is not between 0 and 1.
        DataError: there are too few rows to hold one back.
    """
    if not isinstance(fraction, Real) or not 0 < float(fraction) < 1:
        raise ConfigError(f"validation_fraction must lie between 0 and 1, got {fraction!r}")
    held = _stratified(data.codes.cpu(), data.n_classes, float(fraction), seed).to(data.codes.device)
    if not bool(held.any()):
        raise DataError(f"validation_fraction={fraction} of {len(held)} rows holds back no row")
    return data.rows((~held).nonzero().squeeze(1)), data.rows(held.nonzero().squeeze(1))


def weighted_by_class(
    data: TrainingData,
    class_weight: Mapping[Any, float] | Literal["balanced"] | None,
    classes: Array,
    *,
    balance: Tensor | None = None,
) -> TrainingData:
    """Return the data with the weights of classes (C,) multiplied into the rows'.

    Classes without a weight have 1. A weight of a class that has no row yet is left aside.

    Args:
        data: the rows.
        class_weight: as of `TorchClassifier`.
        classes: the labels of the codes.
        balance: codes whose counts "balanced" is of; the data's own unless given.

    Raises:
        ConfigError: the weights are of no class that is here, or not above 0 and finite.
    """
    if class_weight is None:
        return data
    codes = data.codes if balance is None else balance
    if isinstance(class_weight, Mapping):
        labels = classes.tolist()
        if not any(label in class_weight for label in labels):
            raise ConfigError(f"class_weight is of {list(class_weight)}, and the classes are {labels}")
        of_class = np.array([class_weight.get(label, 1.0) for label in labels], dtype=np.float64)
    elif class_weight == "balanced":
        counts = torch.bincount(codes, minlength=data.n_classes).double().cpu().numpy()
        of_class = len(codes) / (data.n_classes * counts.clip(1))
    else:
        raise ConfigError(f"class_weight must be a mapping of labels, 'balanced' or None, got {class_weight!r}")
    if not (np.isfinite(of_class).all() and (of_class > 0).all()):
        raise ConfigError(f"class_weight must be above 0 and finite, got {class_weight!r}")
    weights = torch.as_tensor(of_class, device=data.codes.device)[data.codes]
    return data._replace(weights=weights if data.weights is None else weights * data.weights)


def _stratified(codes: Tensor, n_classes: int, fraction: float, seed: int) -> Tensor:
    """Return which rows are held back, (n,) bool on the CPU: at least one, of the largest class, if it has two."""
    words = np.random.SeedSequence([seed, 1]).generate_state(1)  # other numbers than those of the first weights
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(int(words[0])), device="cpu")
    counts = torch.bincount(codes, minlength=n_classes)
    shares = [min(math.floor(fraction * count + 0.5), count - 1) for count in counts.tolist()]
    if not any(share > 0 for share in shares):
        shares[int(counts.argmax())] = min(1, int(counts.max()) - 1)
    held = torch.zeros(len(codes), dtype=torch.bool, device="cpu")
    for c, share in enumerate(shares):
        held[order[codes[order] == c][: max(0, share)]] = True
    return held
