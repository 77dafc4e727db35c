"""A multinomial logistic regression with one row added, for many rows and labels at once, without training.

Axes: n added rows; P pairs of an added row and a label; C classes; R coordinates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torchal.engine.logistic_hessian import Hessian, MeanResponse
from torchal.engine.logistic_rows import LabeledRows, finite


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


class AddedRows:
    """Rows to be added, one for each refit, and their labels.

    Args:
        labeled: the old rows.
        hessian: of the old objective.
        rows: the added ones, (n,) int64.
        log_probs: theirs, (n, C).
        row: which of them each pair has, (P,) int64.
        label: which label, (P,) int64.
    """

    def __init__(  # noqa: PLR0917 - what a refit needs
        self, labeled: LabeledRows, hessian: Hessian, rows: Tensor, log_probs: Tensor, row: Tensor, label: Tensor
    ) -> None:
        self._labeled, self._space, self._hessian, self._row = labeled, labeled.space, hessian, row
        inside, scaled = self._space.of(rows, torch.float64)
        self._rest = self._space.rest(inside, scaled)
        rest_sq = inside.new_zeros(len(rows)) if self._rest is None else self._rest.square().sum(1)
        self._response = hessian.respond(inside, rest_sq / self._space.penalty)
        self._inside = inside[row].unsqueeze(2)
        self._rest_sq = rest_sq[row].unsqueeze(1)
        self._logits = finite(log_probs.double())[row]
        self._onehot = torch.zeros_like(self._logits).scatter_(1, label.unsqueeze(1), 1.0)

    def refit(self, n_steps: int) -> Moves:
        """Fit again.

        Each step goes where the objective of the old rows, expanded to second order with the old Hessian, and the loss
        of the added row as it is, are least together; and on the way there only as far as their true sum falls, by one
        step of the secant method. One step is a closed form but for the added row's loss; many end at the optimum.
        """
        if n_steps == 1 and isinstance(self._response, MeanResponse):
            return self._along_the_kernel(self._response)
        weights = torch.zeros(*self._logits.shape, self._space.n_columns, dtype=torch.float64, device=self._row.device)
        rest = torch.zeros_like(self._logits)  # the weights along the rest of the added row
        for k in range(n_steps):
            weights, rest = self._step(weights, rest, is_first=not k)
        return Moves(weights, None if self._rest is None else rest, self._row, None, self._rest)

    def _step(self, weights: Tensor, rest: Tensor, *, is_first: bool) -> tuple[Tensor, Tensor]:
        """Return the weights (P, C, R), and those along the rest of the added row (P, C), after a step."""
        space = self._space
        ahead = weights if is_first else weights - self._hessian.solve(self._labeled.gradient(weights))
        push = self._response.push(self._logits + (ahead @ self._inside).squeeze(2), self._onehot, self._row)
        step = ahead + self._response.weights(push, self._row) - weights
        step_rest = push / space.penalty - rest
        first, last = self._labeled.slopes(None if is_first else weights, lambda old: step @ old.T, len(push))
        squares = (space.penalties * step * step).sum((1, 2))
        squares += space.penalty * (self._rest_sq * step_rest * step_rest).sum(1)
        slope = (space.penalties * step * weights).sum((1, 2))
        slope += space.penalty * (self._rest_sq * step_rest * rest).sum(1)
        before = self._logits + (weights @ self._inside).squeeze(2) + rest * self._rest_sq
        change = (step @ self._inside).squeeze(2) + step_rest * self._rest_sq
        share = self._share(first + slope, last + slope + squares, before, change)
        return torch.addcmul(weights, share.unsqueeze(2), step), torch.addcmul(rest, share, step_rest)

    def _along_the_kernel(self, response: MeanResponse) -> Moves:
        """Return what one step gives where each added row moves the weights of all classes in one direction."""
        space, row = self._space, self._row
        push = response.push(self._logits, self._onehot, row)
        change = push * response.logits[row].unsqueeze(1)

        def along(old: Tensor) -> Tensor:
            return push.unsqueeze(2) * (response.direction @ old.T)[row].unsqueeze(1)

        first, last = self._labeled.slopes(None, along, len(row))
        squares = (response.direction.square() @ space.penalties)[row] + self._rest_sq.squeeze(1) / space.penalty
        share = self._share(first, last + push.square().sum(1) * squares, self._logits, change)
        rest = None if self._rest is None else self._rest / space.penalty
        return Moves(None, push * share, row, response.direction, rest)

    def _share(self, first: Tensor, last: Tensor, before: Tensor, change: Tensor) -> Tensor:
        """Return how far to go on a way, (P, 1) from 0 to 1.

        Args:
            first: how the objective grows where it begins, without the added row, (P,).
            last: likewise where it ends.
            before: the added row's logits where it begins, (P, C).
            change: theirs on the way.
        """
        first = first + ((before.softmax(1) - self._onehot) * change).sum(1)
        last = last + (((before + change).softmax(1) - self._onehot) * change).sum(1)
        rises = (last > 0) & (first < 0)
        return torch.where(rises, first / torch.where(rises, first - last, 1), 1.0).unsqueeze(1)
