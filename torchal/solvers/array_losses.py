"""The losses of linear classifiers on arrays, for the problems of one trial on a CPU.

Axes: U problems on the same rows; K outputs of a problem; n rows, which lie side by side in memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchal.solvers.linear_losses import Curvature, Loss, OwnCurvature, SoftmaxCurvature

Array = NDArray[Any]


class ArrayCurvature(ABC):
    """Second derivatives of the weighted losses by the logits."""

    @abstractmethod
    def times(self, values: Array) -> Array:
        """Multiply values (U, K, n), which are overwritten."""

    @abstractmethod
    def diagonal(self) -> Array:
        """(U, K, n)."""

    @abstractmethod
    def astype(self, dtype: Any) -> ArrayCurvature:
        """Return the same in another precision."""

    @abstractmethod
    def as_torch(self) -> Curvature:
        """Return the same as of T = 1 trials."""


class _Softmax(ArrayCurvature):
    def __init__(self, probs: Array, weighted: Array) -> None:
        self._probs, self._weighted = probs, weighted

    def times(self, values: Array) -> Array:
        values -= np.einsum("ukn,ukn->un", self._probs, values)[:, None]
        values *= self._weighted
        return values

    def diagonal(self) -> Array:
        diagonal: Array = self._weighted - self._weighted * self._probs
        return diagonal

    def astype(self, dtype: Any) -> ArrayCurvature:
        return _Softmax(self._probs.astype(dtype), self._weighted.astype(dtype))

    def as_torch(self) -> Curvature:
        return SoftmaxCurvature(_as_torch(self._probs), _as_torch(self._weighted))


class _Own(ArrayCurvature):
    def __init__(self, curvature: Array) -> None:
        self._curvature = curvature

    def times(self, values: Array) -> Array:
        values *= self._curvature
        return values

    def diagonal(self) -> Array:
        return self._curvature

    def astype(self, dtype: Any) -> ArrayCurvature:
        return _Own(self._curvature.astype(dtype))

    def as_torch(self) -> Curvature:
        return OwnCurvature(_as_torch(self._curvature))


class ArrayLoss(ABC):
    """A loss of each row, as `torchal.solvers.linear_losses.LossFunction` has it."""

    forcing = 1e-2
    """How much of the residual's square a Newton step far from the optimum may leave: less than on tensors, since
    conjugate gradients cost little beside the rest of a step."""

    @abstractmethod
    def value(self, logits: Array, targets: Array) -> Array:
        """(U, n) of logits and targets (U, K, n)."""

    @abstractmethod
    def derivatives(self, logits: Array, targets: Array, weights: Array) -> tuple[Array, ArrayCurvature]:
        """First (U, K, n) and second derivatives by the logits, times the weights (U, n)."""

    def bends(self, before: Array, after: Array, targets: Array, weights: Array) -> Array:  # noqa: ARG002
        """Tell for each problem (U,) whether the loss has a kink on the way from some logits to others."""
        return np.zeros(len(weights), dtype=bool)


class _SoftmaxLoss(ArrayLoss):
    def value(self, logits: Array, targets: Array) -> Array:
        others = np.where(targets > 0, -np.inf, logits)
        most = others.max(1)
        others -= most[:, None]
        return _softplus(np.log(_exp(others).sum(1)) + most - (logits * targets).sum(1))

    def derivatives(self, logits: Array, targets: Array, weights: Array) -> tuple[Array, ArrayCurvature]:
        probs = _exp(logits - logits.max(1, keepdims=True))
        probs /= probs.sum(1, keepdims=True)
        slope = np.where(targets > 0, 0, probs)
        slope -= targets * slope.sum(1, keepdims=True)
        slope *= weights[:, None]
        return slope, _Softmax(probs, probs * weights[:, None])


class _LogisticLoss(ArrayLoss):
    def value(self, logits: Array, targets: Array) -> Array:
        return _softplus(((1 - 2 * targets) * logits)[:, 0])

    def derivatives(self, logits: Array, targets: Array, weights: Array) -> tuple[Array, ArrayCurvature]:
        signs, weights = 1 - 2 * targets, weights[:, None]
        wrong, right = _sigmoid(signs * logits), _sigmoid(-signs * logits)
        return signs * wrong * weights, _Own(wrong * right * weights)


class _SquaredHingeLoss(ArrayLoss):
    forcing = 1e-4  # a step that is exact between two kinks ends the search, at whatever distance

    def value(self, logits: Array, targets: Array) -> Array:
        squared: Array = np.square(np.maximum(1 - (2 * targets - 1) * logits, 0))[:, 0]
        return squared

    def derivatives(self, logits: Array, targets: Array, weights: Array) -> tuple[Array, ArrayCurvature]:
        signs, doubled = 2 * targets - 1, 2 * weights[:, None]
        missing = np.maximum(1 - signs * logits, 0)
        return -signs * missing * doubled, _Own((missing > 0) * doubled)

    def bends(self, before: Array, after: Array, targets: Array, weights: Array) -> Array:
        signs = 2 * targets - 1
        crossed = ((signs * before < 1) != (signs * after < 1))[:, 0]
        bent: Array = (crossed & (weights > 0)).any(1)
        return bent


ARRAY_LOSSES: dict[Loss, ArrayLoss] = {
    "softmax": _SoftmaxLoss(),
    "logistic": _LogisticLoss(),
    "squared_hinge": _SquaredHingeLoss(),
}


def _exp(values: Array) -> Array:
    """Raise e to values, which are overwritten: torch is several times faster at it than numpy."""
    return torch.from_numpy(values).exp_().numpy()


def _sigmoid(values: Array) -> Array:
    return torch.from_numpy(values).sigmoid_().numpy()


def _softplus(values: Array) -> Array:
    """Return log(1 + exp(values)), each to its last digits."""
    small: Array = np.log1p(np.exp(-np.abs(values)))
    return small + np.maximum(values, 0)


def _as_torch(values: Array) -> torch.Tensor:
    """(1, n, U, K) of (U, K, n)."""
    return torch.from_numpy(values).permute(2, 0, 1).unsqueeze(0)
