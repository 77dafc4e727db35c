"""Second derivatives of a multinomial logistic regression at its optimum, and how it answers to a row added to it.

Axes: n added rows; P pairs of an added row and a label; C classes; R coordinates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from torchal.engine.logistic_rows import LabeledRows

_LEAST_CURVATURE = 1e-10  # of an intercept, and of the shift of all of them, which changes nothing
_LEAST_SHARE = 1e-12  # of the largest curvature: with less, float64 may not factor the Hessian
_PUSH_STEPS = 10
_HALVINGS = 16


class Response(ABC):
    """How weights and logits answer to a push at the logits of each of n added rows."""

    @abstractmethod
    def push(self, logits: Tensor, label: Tensor, row: Tensor) -> Tensor:
        """Return the push (P, C) that the added row gives: its label less the probabilities that follow from the push.

        Args:
            logits: of the added rows before the push, (P, C).
            label: one-hot, (P, C).
            row: which of the n rows, (P,) int64.
        """

    @abstractmethod
    def weights(self, push: Tensor, row: Tensor) -> Tensor:
        """Return the change of the weights (P, C, R)."""


class Hessian(ABC):
    """The second derivatives of the old objective."""

    @abstractmethod
    def solve(self, gradient: Tensor) -> Tensor:
        """Return the change of weights that has this gradient, (P, C, R) both."""

    @abstractmethod
    def respond(self, inside: Tensor, rest_sq: Tensor) -> Response:
        """Return the response to added rows: coordinates (n, R), and the rest's squared length by the penalty (n,)."""


class WholeHessian(Hessian):
    """All second derivatives, a matrix of C R columns."""

    def __init__(self, labeled: LabeledRows) -> None:
        n_classes, n_columns = labeled.n_classes, labeled.space.n_columns
        total = torch.zeros(
            n_classes, n_columns, n_classes, n_columns, dtype=torch.float64, device=labeled.space.penalties.device
        )
        for inside, log_probs in labeled.chunks(n_classes * n_columns):
            probs = log_probs.exp()
            for c in range(n_classes):
                curvature = probs[:, c : c + 1] * -probs
                curvature[:, c] += probs[:, c]
                total[c] += (inside.T @ (curvature.unsqueeze(2) * inside.unsqueeze(1)).flatten(1)).view_as(total[c])
        size = n_classes * n_columns
        self._inverse = _inverse(total.view(size, size), labeled.space.penalties.repeat(n_classes)).view_as(total)

    @override
    def solve(self, gradient: Tensor) -> Tensor:
        size = gradient.shape[1] * gradient.shape[2]
        return (gradient.flatten(1) @ self._inverse.view(size, size)).view_as(gradient)

    @override
    def respond(self, inside: Tensor, rest_sq: Tensor) -> Response:
        return _WholeResponse(torch.einsum("crdq,nq->ncrd", self._inverse, inside), inside, rest_sq)


class _WholeResponse(Response):
    def __init__(self, weights: Tensor, inside: Tensor, rest_sq: Tensor) -> None:
        self._weights = weights  # (n, C, R, C)
        self._logits = torch.einsum("ncrd,nr->ncd", weights, inside)
        self._logits.diagonal(dim1=1, dim2=2).add_(rest_sq.unsqueeze(1))

    @override
    def push(self, logits: Tensor, label: Tensor, row: Tensor) -> Tensor:
        response = self._logits[row]
        push, change = torch.zeros_like(label), torch.zeros_like(label)  # and that of the logits which follows from it
        unit = torch.eye(label.shape[1], dtype=label.dtype, device=label.device)
        for _ in range(_PUSH_STEPS):
            probs = (logits + change).softmax(1)
            bent = probs.unsqueeze(2) * response
            system = unit + bent - probs.unsqueeze(2) * bent.sum(1, keepdim=True)
            step = torch.linalg.solve(system, (label - probs - push).unsqueeze(2))
            ahead, step = (response @ step).squeeze(2), step.squeeze(2)
            share = _best_share(push, step, logits + change, ahead, label)
            push, change = torch.addcmul(push, share, step), torch.addcmul(change, share, ahead)
        return push

    @override
    def weights(self, push: Tensor, row: Tensor) -> Tensor:
        flat = self._weights.flatten(1, 2)[row]  # (P, C R, C)
        return (flat @ push.unsqueeze(2)).view(len(push), -1, self._weights.shape[2])


class MeanHessian(Hessian):
    """That of rows which curve the same in all directions of the logits, by the mean of what they do: R columns."""

    def __init__(self, labeled: LabeledRows) -> None:
        n_columns = labeled.space.n_columns
        total = torch.zeros(n_columns, n_columns, dtype=torch.float64, device=labeled.space.penalties.device)
        for inside, log_probs in labeled.chunks(n_columns):
            curvature = (1 - log_probs.exp().square().sum(1)) / (labeled.n_classes - 1)
            total += inside.T @ (inside * curvature.unsqueeze(1))
        self._inverse = _inverse(total, labeled.space.penalties)

    @override
    def solve(self, gradient: Tensor) -> Tensor:
        return gradient @ self._inverse

    @override
    def respond(self, inside: Tensor, rest_sq: Tensor) -> MeanResponse:
        weights = inside @ self._inverse
        return MeanResponse(weights, (weights * inside).sum(1) + rest_sq)


class MeanResponse(Response):
    """Of all logits alike: `direction` (n, R) and `logits` (n,), both times the push."""

    def __init__(self, direction: Tensor, logits: Tensor) -> None:
        self.direction = direction
        self.logits = logits

    @override
    def push(self, logits: Tensor, label: Tensor, row: Tensor) -> Tensor:
        response = self.logits[row].unsqueeze(1)
        push = torch.zeros_like(label)
        for _ in range(_PUSH_STEPS):
            moved = logits + response * push
            probs = moved.softmax(1)
            # a diagonal and a matrix of rank one: solved by the formula of Sherman and Morrison
            scale = 1 / (1 + response * probs)
            step = scale * (label - probs - push)
            shared = response * (probs * step).sum(1, keepdim=True) / (probs * scale).sum(1, keepdim=True)
            step += scale * probs * shared
            push = torch.addcmul(push, _best_share(push, step, moved, response * step, label), step)
        return push

    @override
    def weights(self, push: Tensor, row: Tensor) -> Tensor:
        return push.unsqueeze(2) * self.direction[row].unsqueeze(1)


def _best_share(push: Tensor, step: Tensor, logits: Tensor, ahead: Tensor, label: Tensor) -> Tensor:
    """Return how much of a Newton step to take, (P, 1): the best of 1, 1/2, 1/4, ... for the objective.

    Args:
        push: where the step begins, (P, C).
        step: where it goes.
        logits: of the added row at its begin, (P, C).
        ahead: how it changes them: the response to the step.
        label: one-hot, (P, C).
    """
    shares = 0.5 ** torch.arange(_HALVINGS, dtype=push.dtype, device=push.device)
    linear = ((push - label) * ahead).sum(1, keepdim=True)
    bent = (step * ahead).sum(1, keepdim=True) / 2
    log_sums = torch.addcmul(logits.unsqueeze(1), shares.unsqueeze(1), ahead.unsqueeze(1)).logsumexp(2)
    values = (bent * shares).add_(linear).mul_(shares).add_(log_sums)
    return shares[values.argmin(1)].unsqueeze(1)


def _inverse(hessian: Tensor, penalties: Tensor) -> Tensor:
    """Return the inverse of a Hessian and penalties; a direction that nothing holds is given a little of both."""
    least = (hessian.diagonal().amax() * _LEAST_SHARE).clamp(min=_LEAST_CURVATURE)
    hessian.diagonal().add_(torch.maximum(penalties, least))
    return torch.cholesky_inverse(torch.linalg.cholesky(hessian))
