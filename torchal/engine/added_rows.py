"""A multinomial logistic regression with one row added, for many rows and labels at once, without training.

The old model is taken to be at its optimum. How much worse a change of its weights fits the old rows then follows from
its probabilities there: they act as the rows' labels, and no label and no weight need be known.

Axes: L labeled rows; n added ones; P pairs of an added row and a label; C classes; R coordinates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from torchal._chunks import values_per_chunk
from torchal.engine.features import FeatureReader

_LEAST_PENALTY = 1e-10  # in units of the largest feature's square
_LEAST_CURVATURE = 1e-12  # likewise of the Hessian's largest: less, and float64 may not factor it
_OWN_STEPS = 8


class Coordinates:
    """Rows in R coordinates: of their part among the labeled rows, if these are fewer than columns, and an intercept.

    Outside the space of the labeled rows there is no curvature but the penalty's, so there only inner products count.

    Args:
        reader: the features.
        labeled: rows (L,) int64.
        penalty: the factor of half the squared weights.
        largest: the largest absolute value in the rows that will be asked for.
        fit_intercept: whether there is a last column of ones, without a penalty.
        dtype: the least precise in which rows are asked for.
    """

    def __init__(
        self,
        reader: FeatureReader,
        labeled: Tensor,
        *,
        penalty: float,
        largest: float,
        fit_intercept: bool,
        dtype: torch.dtype,
    ) -> None:
        self._reader = reader
        self._fit_intercept = fit_intercept
        # by a power of two, which rounds nothing: no square overflows, and none vanishes
        most = 120 if dtype == torch.float32 else 1000
        self._scale = 2.0 ** max(-most, min(most, -math.frexp(largest)[1]))
        self._shift: Tensor | None = None
        self._basis: Tensor | None = None
        if fit_intercept:  # it takes up any shift, and shorter rows are rounded less
            total = torch.zeros(reader.n_columns, dtype=torch.float64, device=reader.device)
            for some in labeled.split(reader.chunk_rows()):
                total += self._scaled(some, torch.float64).sum(0)
            self._shift = total / len(labeled)
        if len(labeled) < reader.n_columns:
            self._basis = torch.linalg.qr(self._scaled(labeled, torch.float64).T).Q
        self.penalty = max(penalty * self._scale * self._scale, _LEAST_PENALTY)
        self.n_columns = min(len(labeled), reader.n_columns) + fit_intercept
        """R."""
        self.n_features = reader.n_columns
        """D."""
        self.penalties = torch.full((self.n_columns,), self.penalty, dtype=torch.float64, device=reader.device)
        if fit_intercept:
            self.penalties[-1] = 0

    def of(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return coordinates (n, R) of rows (n,) int64, and the rows themselves (n, D), scaled and shifted."""
        scaled = self._scaled(rows, dtype)
        inside = scaled if self._basis is None else scaled @ self._basis.to(dtype)
        if self._fit_intercept:
            inside = torch.cat([inside, inside.new_ones(len(inside), 1)], 1)
        return inside, scaled

    def rest(self, inside: Tensor, scaled: Tensor) -> Tensor | None:
        """Return what coordinates (n, R) leave of rows (n, D); None where that is nothing."""
        if self._basis is None:
            return None
        return scaled - inside[:, : self._basis.shape[1]] @ self._basis.T

    def _scaled(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        scaled = self._reader.rows(rows).to(dtype) * self._scale
        return scaled if self._shift is None else scaled.sub_(self._shift.to(dtype))


class LabeledRows:
    """The rows that the old model was fitted on, and how a change of its logits there changes its objective."""

    def __init__(self, space: Coordinates, rows: Tensor, log_probs: Tensor) -> None:
        self.space = space
        self.n_classes = log_probs.shape[1]
        self._rows = rows
        self._log_probs = log_probs
        # read and turned into coordinates once, where they are no more than a chunk
        small = len(rows) * max(space.n_columns, space.n_features) <= values_per_chunk(rows.device)
        self._kept = space.of(rows, torch.float64)[0] if small else None

    def __len__(self) -> int:
        return len(self._rows)

    def chunks(self, width: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield coordinates (l, R) and log-probabilities (l, C), where each row makes `width` further values."""
        widest = max(width, self.n_classes, self.space.n_columns, 1 if self._kept is not None else self.space.n_features)
        size = max(1, values_per_chunk(self._rows.device) // widest)
        for start in range(0, len(self), size):
            some = self._rows[start : start + size]
            inside = self.space.of(some, torch.float64)[0] if self._kept is None else self._kept[start : start + size]
            # their sums are 1 to the last digit again: the curvature in the direction of all classes must be 0
            yield inside, finite(self._log_probs[some].double()).log_softmax(1)

    def gradient(self, weights: Tensor) -> Tensor:
        """Return the gradient of the old objective, (P, C, R), at a change of the weights (P, C, R)."""
        out = weights * self.space.penalties
        for inside, log_probs in self.chunks(weights.shape[0] * self.n_classes):
            moved = (log_probs.T + weights @ inside.T).softmax(1).sub_(log_probs.T.exp())
            out += moved @ inside
        return out

    def slopes(self, start: Tensor | None, along: Callable[[Tensor], Tensor], n_pairs: int) -> tuple[Tensor, Tensor]:
        """Return how the loss of these rows, without the penalty, grows at both ends of a way, (P,) each.

        Args:
            start: a change of the weights (P, C, R) where the way begins; None for none.
            along: of rows (l, R), the change of the logits (P, C, l) from the start to the end.
            n_pairs: P.
        """
        first = torch.zeros(n_pairs, dtype=torch.float64, device=self._rows.device)
        last = torch.zeros_like(first)
        for inside, log_probs in self.chunks(n_pairs * self.n_classes):
            change, logits, probs = along(inside), log_probs.T, log_probs.T.exp()
            if start is not None:
                logits = logits + start @ inside.T
                first += (logits.softmax(1).sub_(probs).mul_(change)).sum((1, 2))
            last += ((logits + change).softmax(1).sub_(probs).mul_(change)).sum((1, 2))
        return first, last


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
        push = torch.zeros_like(label)
        unit = torch.eye(label.shape[1], dtype=label.dtype, device=label.device)
        for _ in range(_OWN_STEPS):
            probs = (logits + (response @ push.unsqueeze(2)).squeeze(2)).softmax(1)
            bent = probs.unsqueeze(2) * response
            system = unit + bent - probs.unsqueeze(2) * bent.sum(1, keepdim=True)
            step = torch.linalg.solve(system, (label - probs - push).unsqueeze(2))
            push = push + step.squeeze(2) * _damping((response @ step).squeeze(2))
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
        for _ in range(_OWN_STEPS):
            probs = (logits + response * push).softmax(1)
            # a diagonal and a matrix of rank one: solved by the formula of Sherman and Morrison
            scale = 1 / (1 + response * probs)
            step = scale * (label - probs - push)
            shared = response * (probs * step).sum(1, keepdim=True) / (probs * scale).sum(1, keepdim=True)
            step += scale * probs * shared
            push = push + step * _damping(response * step)
        return push

    @override
    def weights(self, push: Tensor, row: Tensor) -> Tensor:
        return push.unsqueeze(2) * self.direction[row].unsqueeze(1)


class Moves(NamedTuple):
    """The changes of the logits of any row by P refits: `weights` times its coordinates, and `push` times a kernel.

    Shapes:
        weights: (P, C, R) float64; None where the kernel says all.
        push: (P, C) float64; None where the coordinates say all.
        row: (P,) int64, which of the n added rows.
        inside: (n, R), and
        rest: (n, D), whose inner products with a row are the kernel; each may be None for none.
    """

    weights: Tensor | None
    push: Tensor | None
    row: Tensor
    inside: Tensor | None
    rest: Tensor | None

    def of(self, inside: Tensor, scaled: Tensor) -> Callable[[slice, Tensor], Tensor]:
        """Return a function that adds the changes of M rows to logits (C, M), for some of the P pairs: (P', C, M).

        Args:
            inside: their coordinates (M, R).
            scaled: themselves (M, D).
        """
        kernel = None if self.push is None else inside.new_zeros(1)
        for ours, theirs in ((self.inside, inside), (self.rest, scaled)):
            if kernel is not None and ours is not None:
                kernel = kernel + ours.to(theirs.dtype) @ theirs.T

        def add(pairs: slice, logits: Tensor) -> Tensor:
            if self.weights is not None:
                change = self.weights[pairs].to(inside.dtype).flatten(0, 1) @ inside.T
                logits = change.view(-1, *logits.shape).add_(logits)
            if kernel is not None and self.push is not None:
                push = self.push[pairs].to(inside.dtype).unsqueeze(2)
                logits = torch.addcmul(logits, push, kernel[self.row[pairs]].unsqueeze(1))
            return logits

        return add


def refit_with(
    labeled: LabeledRows, hessian: Hessian, rows: Tensor, log_probs: Tensor, pairs: tuple[Tensor, Tensor], n_steps: int
) -> Moves:
    """Fit again with one row added, for pairs of a row and a label.

    Each step goes where the objective of the old rows, expanded to second order with the old Hessian, and the loss of
    the added row as it is, are least together; and on the way there only as far as their true sum falls, by one step of
    the secant method. One step is what the closed form gives; many end at the optimum.

    Args:
        labeled: the old rows.
        hessian: of the old objective.
        rows: the added ones, (n,) int64.
        log_probs: theirs, (n, C).
        pairs: which of the n rows, and which label, (P,) int64 each.
        n_steps: how many.
    """
    row, label = pairs
    space = labeled.space
    inside, scaled = space.of(rows, torch.float64)
    rest = space.rest(inside, scaled)
    rest_sq = inside.new_zeros(len(rows)) if rest is None else rest.square().sum(1)
    response = hessian.respond(inside, rest_sq / space.penalty)
    logits = finite(log_probs.double())[row]
    onehot = torch.zeros_like(logits).scatter_(1, label.unsqueeze(1), 1.0)
    if n_steps == 1 and isinstance(response, MeanResponse):
        push = response.push(logits, onehot, row)
        kernel = response.direction, None if rest is None else rest / space.penalty
        norm = (response.direction.square() * space.penalties).sum(1) + rest_sq / space.penalty
        own = push * response.logits[row].unsqueeze(1)

        def along(old: Tensor) -> Tensor:
            return push.unsqueeze(2) * (response.direction @ old.T)[row].unsqueeze(1)

        first, last = labeled.slopes(None, along, len(row))
        last += push.square().sum(1) * norm[row]
        first, last = _with_own(first, last, logits, own, onehot)
        return Moves(None, push * _secant(first, last), row, *kernel)
    outside = torch.zeros_like(logits)  # the weights along the rest of the added row
    weights = logits.new_zeros(*logits.shape, space.n_columns)
    own_inside, own_rest = inside[row].unsqueeze(2), rest_sq[row].unsqueeze(1)
    for k in range(n_steps):
        ahead = weights - hessian.solve(labeled.gradient(weights)) if k else weights
        push = response.push(logits + (ahead @ own_inside).squeeze(2), onehot, row)
        step = ahead + response.weights(push, row) - weights
        step_outside = push / space.penalty - outside
        first, last = labeled.slopes(weights if k else None, lambda old, step=step: step @ old.T, len(row))
        for end, share in ((first, 0), (last, 1)):
            end += (space.penalties * step * (weights + share * step)).sum((1, 2))
            end += space.penalty * (own_rest * step_outside * (outside + share * step_outside)).sum(1)
        before = logits + (weights @ own_inside).squeeze(2) + outside * own_rest
        own = (step @ own_inside).squeeze(2) + step_outside * own_rest
        share = _secant(*_with_own(first, last, before, own, onehot))
        weights = weights + share.unsqueeze(2) * step
        outside = outside + share * step_outside
    return Moves(weights, None if rest is None else outside, row, None, rest)


def finite(log_probs: Tensor) -> Tensor:
    """Return log-probabilities with a number for -inf: exp is 0 there all the same, and 0 times it is 0."""
    return log_probs.clamp(min=torch.finfo(log_probs.dtype).min / 8)


def _with_own(first: Tensor, last: Tensor, before: Tensor, own: Tensor, onehot: Tensor) -> tuple[Tensor, Tensor]:
    """Add the slopes of the added row's loss, whose logits `before` (P, C) change by `own`, to those of the others."""
    first = first + ((before.softmax(1) - onehot) * own).sum(1)
    return first, last + (((before + own).softmax(1) - onehot) * own).sum(1)


def _secant(first: Tensor, last: Tensor) -> Tensor:
    """Return how far to go on a way, (P, 1) from 0 to 1, that begins and ends with these slopes (P,)."""
    rises = (last > 0) & (first < 0)
    return torch.where(rises, first / torch.where(rises, first - last, 1), 1.0).unsqueeze(1)


def _damping(change: Tensor) -> Tensor:
    """Return by how much to shorten a Newton step, (P, 1), that changes logits (P, C) so much, for it never to fail."""
    spread = change.amax(1, keepdim=True) - change.amin(1, keepdim=True)
    return torch.where(spread > 1e-8, spread.log1p() / spread.clamp(min=1e-8), 1.0)


def _inverse(hessian: Tensor, penalties: Tensor) -> Tensor:
    """Return the inverse of a Hessian and penalties; a direction that nothing holds is given a little of both."""
    least = hessian.diagonal().amax() * _LEAST_CURVATURE
    hessian.diagonal().add_(torch.maximum(penalties, least.clamp(min=_LEAST_PENALTY)))
    return torch.cholesky_inverse(torch.linalg.cholesky(hessian))
