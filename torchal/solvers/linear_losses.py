"""Losses of linear classifiers, with their first and second derivatives.

Axes: T trials; n rows; U problems on the same rows; K outputs of a problem.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from typing_extensions import override

from torchal.solvers.linear_rows import DenseRows, triangle_positions

Loss = Literal["softmax", "logistic", "squared_hinge"]
"""Over K > 2 outputs, or of one output."""


class Curvature(ABC):
    """Second derivatives of the weighted losses by the logits."""

    @abstractmethod
    def times(self, values: Tensor) -> Tensor:
        """Multiply values (T, n, U, K), which may be overwritten."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """(T, n, U, K)."""

    @abstractmethod
    def hessian(self, rows: DenseRows) -> Tensor:
        """(T, U, K P, K P), each problem's own, without the penalty."""

    @abstractmethod
    def to(self, dtype: torch.dtype) -> Curvature:
        """Return the same in another precision."""


class SoftmaxCurvature(Curvature):
    """Of probabilities, and of these times the weights, (T, n, U, K)."""

    def __init__(self, probs: Tensor, weighted: Tensor) -> None:
        self._probs = probs
        self._weighted = weighted

    @override
    def to(self, dtype: torch.dtype) -> Curvature:
        return SoftmaxCurvature(self._probs.to(dtype), self._weighted.to(dtype))

    @override
    def hessian(self, rows: DenseRows) -> Tensor:
        """(T, U, K P, K P), with a weight on the shift of all outputs, which changes nothing."""
        n_outputs = self._probs.shape[3]
        first, second = torch.tril_indices(n_outputs, n_outputs, device=self._probs.device)

        def pairs(some: slice) -> Tensor:
            weighted, probs = self._weighted[:, some], self._probs[:, some]
            values = weighted[..., first] * probs[..., second]
            values.neg_()
            values[..., first == second] += weighted
            return values.flatten(2)

        sums = rows.pair_sums(pairs, n_values=len(first) * self._probs.shape[2]).unflatten(1, (-1, len(first)))
        n_columns = rows.n_columns
        where = triangle_positions(n_outputs, sums.device), triangle_positions(n_columns, sums.device)
        pairs_of_both = sums.index_select(2, where[0].flatten()).index_select(3, where[1].flatten())
        blocks = pairs_of_both.unflatten(3, (n_columns, n_columns)).unflatten(2, (n_outputs, n_outputs))
        whole: Tensor = blocks.transpose(3, 4).flatten(4, 5).flatten(2, 3)  # (T, U, K, P, K, P) as matrices
        of_last = whole[..., n_columns - 1 :: n_columns, n_columns - 1 :: n_columns]
        of_last += of_last.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
        return whole

    @override
    def times(self, values: Tensor) -> Tensor:
        mean = torch.linalg.vecdot(self._probs, values).unsqueeze(3)
        return values.sub_(mean).mul_(self._weighted)

    @override
    def diagonal(self) -> Tensor:
        return torch.addcmul(self._weighted, self._weighted, self._probs, value=-1)


class OwnCurvature(Curvature):
    """Of each output by itself, (T, n, U, K)."""

    def __init__(self, curvature: Tensor) -> None:
        self._curvature = curvature

    @override
    def to(self, dtype: torch.dtype) -> Curvature:
        return OwnCurvature(self._curvature.to(dtype))

    @override
    def times(self, values: Tensor) -> Tensor:
        return values.mul_(self._curvature)

    @override
    def diagonal(self) -> Tensor:
        return self._curvature

    @override
    def hessian(self, rows: DenseRows) -> Tensor:
        return rows.gram(self._curvature.squeeze(3))


class LossFunction(ABC):
    """A loss of each row, which depends on its K logits."""

    forcing = 0.1
    """How much of the residual's square a Newton step far from the optimum may leave."""

    def bends(self, before: Tensor, after: Tensor, targets: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG002
        """Tell for each problem (T, U) whether the loss has a kink on the way from some logits to others."""
        return torch.zeros_like(weights[:, 0], dtype=torch.bool)

    @abstractmethod
    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        """(T, n, U) of logits and targets (T, n, U, K)."""

    @abstractmethod
    def derivatives(self, logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Curvature]:
        """First (T, n, U, K) and second derivatives by the logits, times the weights (T, n, U)."""


class _Softmax(LossFunction):
    # The loss of a row that is surely right is a tiny part of its logits: it is summed up from what the other outputs
    # have, and not left over when the row's own is taken away.
    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        others = torch.where(targets > 0, -torch.inf, logits).logsumexp(3)
        losses: Tensor = nn.functional.softplus(others - (logits * targets).sum(3), threshold=40)
        return losses

    def derivatives(self, logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Curvature]:
        probs, weights = logits.softmax(3), weights.unsqueeze(3)
        slope = torch.where(targets > 0, 0, probs)
        slope = slope.addcmul_(targets, slope.sum(3, keepdim=True), value=-1).mul_(weights)
        return slope, SoftmaxCurvature(probs, probs * weights)


class _Logistic(LossFunction):
    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        losses: Tensor = nn.functional.softplus((1 - 2 * targets) * logits, threshold=40)
        return losses.squeeze(3)

    def derivatives(self, logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Curvature]:
        signs, weights = 1 - 2 * targets, weights.unsqueeze(3)
        wrong = (signs * logits).sigmoid()
        return signs * wrong * weights, OwnCurvature(wrong * (-signs * logits).sigmoid() * weights)


class _SquaredHinge(LossFunction):
    forcing = 1e-4  # a step that is exact between two kinks ends the search, at whatever distance

    def bends(self, before: Tensor, after: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        signs = 2 * targets - 1
        crossed = ((signs * before < 1) != (signs * after < 1)).squeeze(3)
        return (crossed & (weights > 0)).any(1)

    def value(self, logits: Tensor, targets: Tensor) -> Tensor:
        signs = 2 * targets - 1
        return (1 - signs * logits).clamp(min=0).square().squeeze(3)

    def derivatives(self, logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Curvature]:
        signs = 2 * targets - 1
        missing = (1 - signs * logits).clamp(min=0)
        doubled = 2 * weights.unsqueeze(3)
        return -signs * missing * doubled, OwnCurvature((missing > 0) * doubled)


LOSSES: dict[Loss, LossFunction] = {
    "softmax": _Softmax(),
    "logistic": _Logistic(),
    "squared_hinge": _SquaredHinge(),
}
