"""What the classifiers here require of rows, labels and weights, and how these become tensors on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d
from torch import Tensor

from torchal._checks import as_device, as_torch_takes, check_finite
from torchal.errors import DataError, ShapeError
from torchal.models.sparse import as_csr
from torchal.pool.inputs import is_sparse

Array = NDArray[Any]


def resolve_device(device: str | torch.device, X: object = None) -> torch.device:
    """Return the device that a setting names: for "auto" that of a CUDA tensor X, else CUDA, else the CPU.

    Raises:
        ConfigError: there is no such device.
        ShapeError: X is on another accelerator.
    """
    there = X.device if isinstance(X, Tensor) and X.device.type != "cpu" else None
    if device == "auto":
        return there or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = as_device(device)
    if isinstance(X, Tensor):
        check_place("X", X, chosen)
    return chosen


def on_host(values: Any) -> Any:
    """Return a tensor as an array, and anything else as it is."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def move_to(name: str, tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device; from an accelerator it does not go anywhere else."""
    check_place(name, tensor, device)
    return tensor.to(device)


def check_place(name: str, tensor: Tensor, device: torch.device) -> None:
    """Require a tensor on the CPU or on the device."""
    same = tensor.device.type == device.type and (device.index is None or tensor.device.index == device.index)
    if tensor.device.type != "cpu" and not same:
        raise ShapeError(f"{name} is on {tensor.device} and the model on {device}; move one of them first")


def to_tensor(array: Any) -> Tensor:
    """Return a tensor that shares the array's memory where torch can; it cannot read-only or with negative strides."""
    return as_csr(array) if is_sparse(array) else torch.from_numpy(as_torch_takes(array))


def check_finite_rows(inputs: Tensor) -> None:
    """Require finite values, of a sparse tensor those that it stores."""
    if not inputs.is_floating_point():
        return  # whole numbers are finite, and torch has no minimum of all their kinds
    if not is_sparse(inputs):
        check_finite("X", inputs)
    elif not bool(torch.isfinite(inputs.values()).all()):
        bad = int((~torch.isfinite(inputs.values())).sum())
        raise DataError(f"X must be finite: {bad} of its {len(inputs.values())} stored values are not")


def encode_labels(y: Any, device: torch.device) -> tuple[Array, Tensor]:
    """Return the sorted classes (C,) and each label's position among them (n,)."""
    if isinstance(y, Tensor):
        if is_sparse(y):
            raise DataError(f"y must be dense, got {y.layout}")
        if y.ndim != 1 or y.is_floating_point() or y.is_complex():
            raise ShapeError(f"y must be a tensor of (n,) whole numbers, got {y.dtype} of shape {tuple(y.shape)}")
        classes, codes = move_to("y", y.detach(), device).unique(return_inverse=True)
        return classes.cpu().numpy(), codes
    try:
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
    except ValueError as error:
        raise DataError(str(error)) from error
    names, positions = np.unique(labels, return_inverse=True)
    return names, torch.as_tensor(positions, device=device)


def check_weights(weights: Any, n: int, device: torch.device) -> Tensor:
    """Return weights as (n,) float64 on the device: finite, not negative, not all zero."""
    try:
        if isinstance(weights, Tensor):
            tensor = weights.detach()
        else:
            tensor = torch.tensor(np.asarray(weights, dtype=np.float64), device="cpu")
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"sample_weight must be ({n},) numbers, got {type(weights).__name__}: {error}") from error
    if tensor.is_complex() or is_sparse(tensor):
        raise DataError(f"sample_weight must be dense and real, got {tensor.dtype} of layout {tensor.layout}")
    if tensor.shape != (n,):
        raise ShapeError(f"sample_weight must have shape ({n},), got {tuple(tensor.shape)}")
    tensor = move_to("sample_weight", tensor, device).double()
    check_finite("sample_weight", tensor)
    if bool((tensor < 0).any()):
        raise DataError(f"sample_weight must not be negative: {int((tensor < 0).sum())} of {n} are")
    if not bool(tensor.any()):
        raise DataError(f"sample_weight must have a value above zero: all {n} are zero")
    return tensor
