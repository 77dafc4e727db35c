"""What a view is made from, where there is no model: checks of outputs that somebody else has computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchal._checks import as_array, as_mask
from torchal._checks import as_tensor as as_numbers
from torchal._chunks import values_per_chunk
from torchal.engine.features import Features, device_of, in_memory
from torchal.engine.file_rows import FileRows
from torchal.errors import DataError, ShapeError
from torchal.protocols import UNLABELED, LastLayer


def as_outputs(*, features: Any, scores: Any, log_probs: Any, draws: Any) -> dict[str, Tensor]:
    """Return those outputs that are given, as tensors; features may be what only a reader can make tensors of."""
    if features is not None and not isinstance(features, Tensor | FileRows):
        features = np.asarray(features) if isinstance(features, list | tuple) else features
        features = as_array("features", features)
        features = features if isinstance(features, np.memmap) else in_memory(features)
    scores = as_tensor("scores", scores)
    outputs = {
        "features": features,
        "scores": scores.unsqueeze(1) if scores is not None and scores.ndim == 1 else scores,
        "log_probs": as_tensor("log_probs", log_probs),
        "posterior_log_probs": as_tensor("posterior_log_probs", draws),
    }
    return {name: tensor for name, tensor in outputs.items() if tensor is not None}


def check_outputs(outputs: dict[str, Tensor], *, n_rows: int, device: torch.device) -> None:
    """Require outputs of as many rows on one device, and log-probabilities that are ones."""
    for name, tensor in outputs.items():
        n_axes = 3 if name == "posterior_log_probs" else 2
        if tensor.ndim != n_axes or len(tensor) != n_rows or device_of(tensor) != device or 0 in tensor.shape[1:]:
            raise ShapeError(
                f"{name} must be ({n_rows}, ...) with {('two', 'three')[n_axes - 2]} axes on {device}, "
                f"got {tuple(tensor.shape)} on {device_of(tensor)}"
            )
        if name != "features" and not tensor.is_floating_point():
            raise ShapeError(f"{name} must be floating point, got {tensor.dtype}; use {name}.float()")
        if name.endswith("log_probs"):
            _check_log_probs(name, tensor)


def as_bought(
    targets: Tensor | None, labeled: Tensor | None, candidates: Tensor | None, *, n_rows: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Return targets (N,), labeled (N,) and candidates (N,), those that are missing made from the others."""
    none_known = targets is None
    if targets is None:
        targets = torch.full((n_rows,), UNLABELED, device=device)
    if targets.shape != (n_rows,) or targets.dtype != torch.int64:
        raise ShapeError(f"targets must be ({n_rows},) int64, got {tuple(targets.shape)} {targets.dtype}")
    if len(targets) and int(targets.min()) < UNLABELED:
        raise DataError(f"targets must be at least {UNLABELED}, which stands for no label, got {int(targets.min())}")
    labeled = targets != UNLABELED if labeled is None else labeled
    labeled = as_mask("labeled", labeled, n_rows=n_rows, device=device)
    candidates = ~labeled if candidates is None else candidates
    candidates = as_mask("candidates", candidates, n_rows=n_rows, device=device)
    if bool((labeled & candidates).any()):
        raise ShapeError(f"{int((labeled & candidates).sum())} rows are both labeled and candidates")
    extra = 0 if none_known else int(((targets != UNLABELED) & ~labeled).count_nonzero())
    if extra:
        raise DataError(f"{extra} rows that are not labeled have a target")
    return targets, labeled, candidates


def as_tensor(name: str, values: Any) -> Tensor | None:
    """Return numbers in a tensor, an array or a list as a tensor."""
    if values is None:
        return None
    return as_numbers(name, np.array(values) if isinstance(values, np.memmap) else values)


def as_last_layer(layer: tuple[Any, Any], *, device: torch.device, features: Features | None) -> LastLayer:
    """Return weight (C, D) and bias (C,) as tensors, which fit the features if there are some."""
    if not isinstance(layer, tuple | list) or len(layer) != 2:
        raise ShapeError(f"last_layer must be a pair, weight (C, D) and bias (C,), got {type(layer).__name__}")
    weight, bias = as_tensor("last_layer's weight", layer[0]), as_tensor("last_layer's bias", layer[1])
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        shapes = [None if part is None else tuple(part.shape) for part in (weight, bias)]
        raise ShapeError(f"last_layer must be weight (C, D) and bias (C,), got {shapes[0]} and {shapes[1]}")
    if weight.device != device or bias.device != device or not weight.is_floating_point() or weight.dtype != bias.dtype:
        raise ShapeError(
            f"last_layer must be floating point on {device}, got {weight.dtype} on {weight.device} and {bias.dtype} on "
            f"{bias.device}"
        )
    if features is not None and features.shape[1] != weight.shape[1]:
        raise ShapeError(f"last_layer has weights for {weight.shape[1]} features, there are {features.shape[1]}")
    return LastLayer(weight, bias)


def _check_log_probs(name: str, log_probs: Tensor) -> None:
    """Require rows of log-probabilities: their probabilities sum to 1, up to the rounding of their dtype."""
    tolerance = max(1e-3, 8 * torch.finfo(log_probs.dtype).eps)
    size = max(1, values_per_chunk(log_probs.device) // math.prod(log_probs.shape[1:]))
    for i, some in enumerate(log_probs.split(size)):
        off = some.logsumexp(-1).abs()
        bad = (off > tolerance) & ~some.isnan().any(-1)  # what is not finite is said by whoever reads it
        if bool(bad.any()):
            row, *draw = bad.nonzero()[0].tolist()
            wrong = some[(row, *draw)]
            total = float(wrong.double().exp().sum())
            remedy = "logits are scores=" if not 0.99 < float(wrong.sum()) < 1.01 else "use probs.log()"
            raise DataError(
                f"{name} must be log-probabilities: the probabilities of row {i * size + row} sum to {total:.4g}, "
                f"not to 1; {remedy}"
            )
