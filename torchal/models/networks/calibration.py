"""One temperature for all logits, so that a network is as sure as it is right."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchal._checks import check_finite, check_float
from torchal.errors import ShapeError

TEMPERATURES = (0.05, 100.0)
"""The lowest and the highest: the likelihood of a few rows that are all right has its maximum at 0."""
_HALVINGS = 60  # of the interval in log(temperature): more than float64 can tell apart


@torch.no_grad()
def fit_temperature(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return the temperature T at which rows that were not trained on are likeliest, with logits / T.

    The log-likelihood is concave in 1 / T, so that its derivative tells on which side of a temperature the best one
    lies; the interval of `TEMPERATURES` is halved by that.

    Shapes:
        logits: (n, C) float.
        targets: (n,) int64 in [0, C).
        weights: (n,), not negative; 1 each unless given.

    Raises:
        ShapeError: they disagree in rows.
        DataError: logits are not finite.

    Reference:
        Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, section 4.2, which does
        not bound the temperature.

    Example:
        >>> logits = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0], [3.0, 0.0]])
        >>> round(3 / fit_temperature(logits, torch.tensor([0, 0, 0, 1])), 4)  # log(3), as three of four are right
        1.0986
    """
    check_float("logits", logits, ndim=2)
    check_finite("logits", logits)
    if targets.shape != logits.shape[:1]:
        raise ShapeError(f"targets must be ({len(logits)},), got {tuple(targets.shape)}")
    z = logits.double()
    z = z - z.gather(1, targets.unsqueeze(1))  # above that of the true class
    w = torch.ones_like(z[:, 0]) if weights is None else weights.to(z)
    low, high = (z.new_tensor(math.log(bound)) for bound in TEMPERATURES)
    for _ in range(_HALVINGS):  # without a look at the numbers: each would wait for the device
        middle = (low + high) / 2
        slope = w @ ((z / middle.exp()).softmax(1) * z).sum(1)  # of the loss in 1 / T: positive where T is too low
        is_low = slope > 0
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return float(((low + high) / 2).exp())
