"""What a network computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeAlias

import torch

from torchal.errors import ConfigError

Precision: TypeAlias = Literal["fp32", "fp64", "bf16-mixed", "fp16-mixed"]

_DTYPES: dict[str, tuple[torch.dtype, torch.dtype | None]] = {
    "fp32": (torch.float32, None),
    "fp64": (torch.float64, None),
    "bf16-mixed": (torch.float32, torch.bfloat16),
    "fp16-mixed": (torch.float32, torch.float16),
}


def check_precision(precision: object) -> None:
    """Require one of the names."""
    if precision not in _DTYPES:
        raise ConfigError(f"precision must be one of {', '.join(_DTYPES)}; got {precision!r}")


def is_mixed(precision: Precision) -> bool:
    """Tell whether the network runs in another dtype than that of its weights."""
    return _DTYPES[precision][1] is not None


def dtype_of(precision: Precision) -> torch.dtype:
    """Return the dtype of weights and outputs."""
    return _DTYPES[precision][0]


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which the network runs.

    Without the cache of cast weights: inside another autocast it would outlive the step that changes the weights.
    """
    mixed = _DTYPES[precision][1]
    return nullcontext() if mixed is None else torch.autocast(device.type, dtype=mixed, cache_enabled=False)
