"""Which rows a fit trains on and which it is judged by, and how much each class counts."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from torchal.errors import ConfigError, DataError
from torchal.models.base import Array, TrainingData


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
    data: TrainingData, class_weight: Mapping[Any, float] | Literal["balanced"] | None, classes: Array
) -> TrainingData:
    """Return the data with the weights of classes (C,) multiplied into the rows'.

    Raises:
        ConfigError: the weights are of other classes, or not above 0 and finite.
    """
    if class_weight is None:
        return data
    labels = classes[data.codes.cpu().numpy()]
    try:
        of_class = compute_class_weight(class_weight, classes=classes, y=labels)
    except ValueError as error:
        raise ConfigError(f"class_weight cannot be used: {error}") from error
    if not (np.isfinite(of_class).all() and (of_class > 0).all()):
        raise ConfigError(f"class_weight must be above 0 and finite, got {class_weight!r}")
    weights = torch.as_tensor(of_class, device=data.codes.device)[data.codes]
    return data._replace(weights=weights if data.weights is None else weights * data.weights)


def _stratified(codes: Tensor, n_classes: int, fraction: float, seed: int) -> Tensor:
    """Return which rows are held back, (n,) bool on the CPU."""
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed), device="cpu")
    held = torch.zeros(len(codes), dtype=torch.bool, device="cpu")
    for c in range(n_classes):
        rows = order[codes[order] == c]
        held[rows[: min(round(fraction * len(rows)), len(rows) - 1)]] = True
    return held
