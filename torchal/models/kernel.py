"""What the kernel classifiers share: the kernel's width, and the module of a fitted one."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from torchal.errors import ConfigError
from torchal.functional.chunks import values_per_chunk
from torchal.functional.kernels import pair_values, rbf_kernel


def check_gamma(gamma: Any) -> None:
    """Require "scale", "auto" or a number above 0."""
    number = isinstance(gamma, Real) and not isinstance(gamma, bool) and 0 < float(gamma) < float("inf")
    if not number and gamma not in ("scale", "auto"):
        raise ConfigError(f"gamma must be 'scale', 'auto' or a number above 0, got {gamma!r}")


def width_of(gamma: Any, x: Tensor) -> float:
    """Return gamma for rows (n, D): "auto" is 1 / D, "scale" 1 / (D times the variance of all their values)."""
    if gamma not in ("scale", "auto"):
        return float(gamma)
    variance = float(x.var(correction=0)) if gamma == "scale" else 1.0
    return 1 / (x.shape[1] * (variance or 1.0))


class KernelMachine(nn.Module):
    """Weighted sums of the RBF kernel between rows and the rows of support.

    Shapes:
        support: (S, D) float64.
        weight: (S, K) float64.
        forward: (n, D) -> (n, K).
    """

    support: Tensor
    gamma: Tensor

    def __init__(self, support: Tensor, gamma: float, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("support", support)
        self.register_buffer("gamma", support.new_tensor(gamma))
        self.weight = nn.Parameter(weight)

    def forward(self, rows: Tensor) -> Tensor:
        """Return (n, K) for rows (n, D); the kernel is there for a few rows at a time."""
        return torch.cat([self._values(some) for some in self._chunks(rows)])

    def _chunks(self, rows: Tensor) -> tuple[Tensor, ...]:
        size = max(1, values_per_chunk(rows.device) // max(1, self._values_per_row()))
        chunks: tuple[Tensor, ...] = rows.to(self.support.dtype).split(size)
        return chunks

    def _values_per_row(self) -> int:
        return len(self.support)

    def _kernel(self, rows: Tensor) -> Tensor:
        return rbf_kernel(rows, self.support, self.gamma)

    def _values(self, rows: Tensor) -> Tensor:
        return self._kernel(rows) @ self.weight


class PairMachine(KernelMachine):
    """The values of all pairs of classes, positive for the second of a pair, by `pair_values`.

    Shapes:
        support: (S, D) float64.
        codes: (S,) int64, the classes of the support rows.
        weight: (C - 1, S) float64.
        bias: (P,) float64, P = C (C - 1) / 2.
        forward: (n, D) -> (n, P).
    """

    codes: Tensor

    def __init__(self, support: Tensor, gamma: float, weight: Tensor, *, codes: Tensor, bias: Tensor) -> None:
        super().__init__(support, gamma, weight)
        self.register_buffer("codes", codes)
        self.bias = nn.Parameter(bias)

    def _values_per_row(self) -> int:
        return max(len(self.support), len(self.weight) * (len(self.weight) + 1))

    def _values(self, rows: Tensor) -> Tensor:
        return pair_values(self._kernel(rows), self.weight, self.codes, self.bias)
