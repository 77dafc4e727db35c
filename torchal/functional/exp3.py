"""EXP3: which of several arms to pull when rewards may come from an adversary."""

from __future__ import annotations

import math

from torch import Tensor

from torchal._checks import ArrayLike, as_float, check_finite, check_fraction
from torchal.errors import DataError, ShapeError


def exp3_probabilities(log_weights: ArrayLike, *, gamma: float) -> Tensor:
    """Return the probability of each arm: a share gamma of it uniform, the rest in proportion to the weights.

    Shapes:
        log_weights: (A,) float64, the logarithms of the weights, which themselves would overflow in the end.

    Returns:
        (A,) float64.

    Raises:
        ShapeError: log_weights is no float tensor of one axis, or there is no arm.
        DataError: a logarithm is not finite.
        ConfigError: gamma is not in (0, 1].

    Reference:
        Auer, Cesa-Bianchi, Freund & Schapire, "The Nonstochastic Multiarmed Bandit Problem", SIAM Journal on Computing
        2002, algorithm Exp3.

    Example:
        >>> import torch
        >>> exp3_probabilities(torch.tensor([3.0, 1.0], dtype=torch.float64).log(), gamma=0.5)
        tensor([0.6250, 0.3750], dtype=torch.float64)
    """
    log_weights = as_float("log_weights", log_weights, ndim=1)
    if not len(log_weights):
        raise ShapeError("log_weights must have at least one arm, got none")
    check_finite("log_weights", log_weights)
    check_fraction("gamma", gamma)
    return (1 - gamma) * log_weights.double().softmax(0) + gamma / len(log_weights)


def exp3_update(log_weights: Tensor, arm: int, reward: float, *, gamma: float) -> Tensor:
    """Return the logarithms of the weights after an arm was pulled with its `exp3_probabilities` and paid a reward.

    Shapes:
        log_weights: (A,) float64, as they were when the arm was drawn.

    Returns:
        (A,) float64; the largest is 0, since only their differences count.

    Raises:
        ShapeError: there is no such arm.
        DataError: the reward is not in [0, 1].
        See `exp3_probabilities` for the others.

    Reference:
        See `exp3_probabilities`.

    Example:
        >>> import torch
        >>> exp3_update(torch.zeros(2, dtype=torch.float64), 1, 1.0, gamma=0.5)
        tensor([-0.5000,  0.0000], dtype=torch.float64)
    """
    probabilities = exp3_probabilities(log_weights, gamma=gamma)
    if not 0 <= arm < len(log_weights):
        raise ShapeError(f"there are {len(log_weights)} arms, got arm {arm}")
    if not (math.isfinite(reward) and 0 <= reward <= 1):
        raise DataError(f"a reward of EXP3 must be in [0, 1], got {reward!r}")
    raised = log_weights.double().clone()
    raised[arm] += gamma * reward / probabilities[arm] / len(log_weights)
    return raised - raised.max()
