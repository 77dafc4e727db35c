"""What the kernel classifiers share: the kernel's width, and the module of a fitted one."""

from __future__ import annotations

import math
import sys
import warnings
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from torchal._chunks import values_per_chunk
from torchal.errors import ConfigError, DataError
from torchal.solvers.kernels import RbfKernel, pair_values

_LOOKED_AT = 64  # rows
_ZERO = 36.0  # an exponent: exp(-36) is about a rounding of 1
_ONE = 1e-10  # an exponent


def check_gamma(gamma: Any) -> None:
    """Require "scale", "auto" or a number above 0."""
    number = isinstance(gamma, Real) and not isinstance(gamma, bool) and 0 < gamma <= sys.float_info.max  # type: ignore[operator]
    if not number and not (isinstance(gamma, str) and gamma in ("scale", "auto")):
        raise ConfigError(f"gamma must be 'scale', 'auto' or a number above 0, got {gamma!r}")


def width_of(gamma: Any, x: Tensor) -> float:
    """Return gamma for rows (n, D): "auto" is 1 / D, "scale" 1 / (D times the variance of all their values).

    Raises:
        DataError: gamma times a squared distance is beyond the numbers.
    """
    width = float(gamma) if isinstance(gamma, Real) else 1 / x.shape[1]
    if gamma == "scale":
        width /= float(x.var(correction=0)) or 1.0
    farthest = float((x - x.mean(0)).square().sum(1).amax())
    if not math.isfinite(4 * width * farthest):
        raise DataError(
            f"X is too large for the kernel: gamma {width:.1e} times a squared distance of about {farthest:.1e}; scale "
            "the features"
        )
    return width


def warn_of_degenerate(x: Tensor, width: float) -> None:
    """Warn where the kernel of rows (n, D) is 0 between all that differ, or 1 between most: it then tells nothing.

    Some rows are compared with all.
    """
    some = x[torch.linspace(0, len(x) - 1, min(len(x), _LOOKED_AT), dtype=torch.float64, device=x.device).long()]
    nearest, n_near, n_different = math.inf, 0, 0
    for part in x.split(max(1, values_per_chunk(x.device) // max(len(some), x.shape[1]))):
        exponents = width * torch.cdist(some, part, compute_mode="donot_use_mm_for_euclid_dist").square_()
        different = exponents[exponents > 0]
        if len(different):
            nearest = min(nearest, float(different.min()))
            n_near, n_different = n_near + int((different < _ONE).sum()), n_different + len(different)
    if n_different and nearest > _ZERO:
        warnings.warn(
            f"with gamma {width:.1e} the kernel is below {math.exp(-_ZERO):.0e} between any two rows that differ: each "
            "row knows itself only, and all new ones get the same answer. Scale the features, or use gamma='scale'",
            UserWarning,
            stacklevel=3,
        )
    if 2 * n_near > n_different:
        warnings.warn(
            f"with gamma {width:.1e} the kernel is 1 to {-math.log10(_ONE):.0f} digits between "
            f"{n_near / n_different:.0%} of the rows that differ: it hardly tells them apart. Scale the features "
            "(one value far off spoils gamma='scale'), or use a larger gamma",
            UserWarning,
            stacklevel=3,
        )


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
        size = max(1, values_per_chunk(rows.device) // max(self._values_per_row(), *self.support.shape, 1))
        kernel = RbfKernel(self.support, self.gamma)
        return torch.cat([self._values(kernel(some)) for some in rows.to(self.support.dtype).split(size)])

    def _values_per_row(self) -> int:
        return self.weight.shape[1]

    def _values(self, kernel: Tensor) -> Tensor:
        return kernel @ self.weight


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
        return len(self.weight) * (len(self.weight) + 1)

    def _values(self, kernel: Tensor) -> Tensor:
        return pair_values(kernel, self.weight, self.codes, self.bias)
