"""The rows that a multinomial logistic regression was fitted on, and what follows from them for a change of it.

The model is taken to be at its optimum. How much worse a change of its weights fits the rows then follows from its
probabilities there: they act as the rows' labels, and no label and no weight need be known.

Axes: L labeled rows; P changes of the weights; C classes; R coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from torchal._chunks import values_per_chunk
from torchal.engine.features import FeatureReader

_LEAST_PENALTY = 1e-10  # in units of the largest feature's square: with less, float64 may not solve for the weights


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
        widest = max(
            width, self.n_classes, self.space.n_columns, 1 if self._kept is not None else self.space.n_features
        )
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


def finite(log_probs: Tensor) -> Tensor:
    """Return log-probabilities with a number for -inf: exp is 0 there all the same, and 0 times it is 0."""
    return log_probs.clamp(min=torch.finfo(log_probs.dtype).min / 8)
