"""Fisher matrices of a classifier's last layer, row by row, without forming them: what greedy designs need of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

_LEAST_PIVOT = 2.0**-50
_ELIMINATED = 32  # up to this rank, elimination on many rows at once is faster than a solver called for each


class FisherRows(ABC):
    """How the Fisher matrix of a row is written as V V^T: B diagonal blocks of one size, V (B, size, rank).

    Rows differ in their features h (c, D) and some weights (c, W), c rows in a chunk. No V is formed but that of a
    pick. What can be kept of a row are its forms V^T P V, in a shape of the kind's own, (c, ...).
    """

    n_blocks: int
    size: int
    rank: int
    n_weights: int
    form_shape: tuple[int, ...]
    """The shape of the forms V^T P V of one row."""

    @abstractmethod
    def add_prior(self, precision: float, out: Tensor) -> None:
        """Add what a prior of this precision on all weights is in these coordinates to out (B, size, size)."""

    @abstractmethod
    def weights(self, probs: Tensor) -> Tensor:
        """Return the weights (c, W) of rows with probabilities (c, C)."""

    @abstractmethod
    def add_fisher(self, h: Tensor, probs: Tensor, out: Tensor) -> None:
        """Add the Fisher matrices of rows to out (B, size, size)."""

    @abstractmethod
    def factor(self, h: Tensor, weights: Tensor) -> Tensor:
        """Return V (B, size, rank) of one row, h (1, D)."""

    @abstractmethod
    def forms(self, h: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
        """Return V^T P V of rows, with P (B, size, size) symmetric."""

    @abstractmethod
    def lower(
        self, inner: Tensor, outer: Tensor, h: Tensor, weights: Tensor, change: tuple[Tensor, Tensor, int]
    ) -> None:
        """Bring V^T P V (inner) and V^T R V (outer) up to date, in place.

        With change = U, Z, sign, where U and Z are (B, size, rank): P is now P - sign U U^T, and R is now
        R - sign (U Z^T + Z U^T).
        """

    @abstractmethod
    def gains(self, inner: Tensor, outer: Tensor, weights: Tensor, sign: int) -> Tensor:
        """Return tr(V^T R V (I + sign V^T P V)^-1) of each row, (c,)."""

    @abstractmethod
    def blocks(self, forms: Tensor, weights: Tensor) -> Tensor:
        """Return the forms of one row as (B, rank, rank)."""


class RankOneFisher(FisherRows):
    """In each block the same h with a weight of its own: V = sqrt(w) h. Forms are (c, B), those of h alone.

    Args:
        n_blocks: as many as there are weights.
        n_columns: D.
        weigh: gives the weights (c, B) of probabilities (c, C).
        unit: what a precision of 1 is here.
    """

    rank = 1

    def __init__(self, n_blocks: int, n_columns: int, weigh: Callable[[Tensor], Tensor], *, unit: float = 1.0) -> None:
        self.n_blocks, self.size = n_blocks, n_columns
        self.n_weights, self.form_shape = n_blocks, (n_blocks,)
        self._weigh, self._unit = weigh, unit

    def add_prior(self, precision: float, out: Tensor) -> None:
        """Add to the diagonals."""
        out.diagonal(dim1=1, dim2=2).add_(precision * self._unit)

    def weights(self, probs: Tensor) -> Tensor:
        """Return the weights."""
        return self._weigh(probs)

    def add_fisher(self, h: Tensor, probs: Tensor, out: Tensor) -> None:
        """Add sum of w h h^T to each block."""
        for block, w in zip(out, self.weights(probs).unbind(1), strict=True):
            block.addmm_((h * w.unsqueeze(1)).T, h)

    def factor(self, h: Tensor, weights: Tensor) -> Tensor:
        """Return sqrt(w) h for each block."""
        return (weights.T.sqrt() * h).unsqueeze(2)

    def forms(self, h: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:  # noqa: ARG002 - not weighted yet
        """Return h^T P h for each block."""
        return torch.stack([(h @ block).mul_(h).sum(1) for block in matrix], 1)

    def lower(
        self,
        inner: Tensor,
        outer: Tensor,
        h: Tensor,
        weights: Tensor,  # noqa: ARG002 - not weighted yet
        change: tuple[Tensor, Tensor, int],
    ) -> None:
        """Take (h^T u)^2, and 2 h^T u h^T z, off."""
        u, z, sign = change
        x, y = h @ u.squeeze(2).T, h @ z.squeeze(2).T
        inner.addcmul_(x, x, value=-sign)
        outer.addcmul_(x, y, value=-2 * sign)

    def gains(self, inner: Tensor, outer: Tensor, weights: Tensor, sign: int) -> Tensor:
        """Return the sum over blocks of w outer / (1 + sign w inner)."""
        pivots = (weights * inner).mul_(sign).add_(1).clamp_(min=_LEAST_PIVOT)
        return (weights * outer).div_(pivots).sum(1)

    def blocks(self, forms: Tensor, weights: Tensor) -> Tensor:
        """Return w h^T P h for each block."""
        return (weights * forms).reshape(-1, 1, 1)


class WholeFisher(FisherRows):
    r"""All of diag(p) - p p^T, in one block: V = A (x) h, with r = C - 1 rows and columns in A. Forms are (c, r, r).

    The Fisher matrix is blind to what all classes' logits have in common, so the coordinates are those of the classes
    but the first, against the first. The prior of precision 1 on all C weights is I - 1 1^T / C there; the block of
    diag(p) - p p^T that is left has the square root A, A^T y = sqrt(p) (y - p^T y / (1 + sqrt(p_0))), so that what
    would take r^2 multiplications a column takes r.

    Args:
        n_classes: C, at least 2.
        n_columns: D.
    """

    n_blocks = 1

    def __init__(self, n_classes: int, n_columns: int) -> None:
        self.rank = n_classes - 1
        self.size = self.rank * n_columns
        self.n_weights, self.form_shape = n_classes, (self.rank, self.rank)
        self._n_columns = n_columns

    def add_prior(self, precision: float, out: Tensor) -> None:
        """Add a multiple of (I - 1 1^T / C) (x) I."""
        between = torch.eye(self.rank, dtype=out.dtype, device=out.device) - 1 / (self.rank + 1)
        whole = out.view(self.rank, self._n_columns, self.rank, self._n_columns)
        whole.diagonal(dim1=1, dim2=3).add_(precision * between.unsqueeze(2))

    def weights(self, probs: Tensor) -> Tensor:
        """Return the probabilities but the first, and 1 / (1 + sqrt(p_0))."""
        return torch.cat([probs[:, 1:], 1 / (1 + probs[:, :1].sqrt())], 1)

    def add_fisher(self, h: Tensor, probs: Tensor, out: Tensor) -> None:
        """Add the sum of (diag(p) - p p^T) (x) h h^T."""
        # by pairs of classes, and 1 - p without a difference: what is 0 or nearly so must not be rounding
        rest = (1 - probs).scatter_(1, *_all_but_best(probs))[:, 1:]
        probs = probs[:, 1:]
        whole = out.view(self.rank, self._n_columns, self.rank, self._n_columns)
        for c in range(self.rank):
            among = probs[:, c:].neg()
            among[:, 0] = rest[:, c]
            among *= probs[:, c : c + 1]
            here = h.T @ (among.unsqueeze(2) * h.unsqueeze(1)).flatten(1)
            here = here.view(self._n_columns, self.rank - c, self._n_columns)
            whole[c, :, c:] += here
            whole[c + 1 :, :, c] += here[:, 1:].permute(1, 2, 0)

    def factor(self, h: Tensor, weights: Tensor) -> Tensor:
        """Return A (x) h."""
        root = self._root(torch.eye(self.rank, dtype=h.dtype, device=h.device).unsqueeze(0), weights).mT
        return (root.unsqueeze(2) * h.view(1, 1, -1, 1)).reshape(1, self.size, self.rank)

    def forms(self, h: Tensor, weights: Tensor, matrix: Tensor) -> Tensor:
        """Return A^T (I (x) h)^T P (I (x) h) A."""
        shape = (self.rank, self._n_columns, self.rank, self._n_columns)
        whole = matrix.view(shape)
        between = h.new_empty(len(h), self.rank, self.rank)
        for c in range(self.rank):
            products = (h @ whole[c, :, c:].flatten(1)).view(len(h), self.rank - c, self._n_columns)
            between[:, c, c:] = between[:, c:, c] = torch.bmm(products, h.unsqueeze(2)).squeeze(2)
        return self._root(self._root(between, weights).mT.contiguous(), weights)

    def lower(
        self, inner: Tensor, outer: Tensor, h: Tensor, weights: Tensor, change: tuple[Tensor, Tensor, int]
    ) -> None:
        """Take X X^T, and X Y^T + Y X^T, off, with X = V^T U and Y = V^T Z."""
        u, z, sign = change
        both = torch.cat([u, z], 2).view(self.rank, self._n_columns, 2 * self.rank).transpose(0, 1).flatten(1)
        x_y = self._root((h @ both).view(len(h), self.rank, 2 * self.rank), weights)
        x, y = x_y.split(self.rank, 2)
        inner.baddbmm_(x, x.mT, alpha=-sign)
        outer.baddbmm_(x, y.mT, alpha=-sign).baddbmm_(y, x.mT, alpha=-sign)

    def gains(self, inner: Tensor, outer: Tensor, weights: Tensor, sign: int) -> Tensor:  # noqa: ARG002 - they are in
        """Return tr(outer (I + sign inner)^-1)."""
        if self.rank > _ELIMINATED and sign > 0:
            pivots = inner + torch.eye(self.rank, dtype=inner.dtype, device=inner.device)
            traces: Tensor = torch.linalg.solve(pivots, outer).diagonal(dim1=1, dim2=2).sum(1)
            return traces
        inner, outer = (forms.permute(1, 2, 0).clone(memory_format=torch.contiguous_format) for forms in (inner, outer))
        return _traces(inner.mul_(sign), outer)

    def blocks(self, forms: Tensor, weights: Tensor) -> Tensor:  # noqa: ARG002 - they are in
        """Return the forms as they are, (1, r, r)."""
        return forms

    @staticmethod
    def _root(y: Tensor, weights: Tensor) -> Tensor:
        """Return A^T y of rows, y (c, r, k), in its place: new memory for it takes longer than what is computed."""
        p = weights[:, :-1]
        common = torch.bmm(p.unsqueeze(1), y).mul_(weights[:, -1, None, None])
        return y.sub_(common).mul_(p.sqrt().unsqueeze(2))


def one_against_all(probs: Tensor) -> Tensor:
    """Return p (1 - p) of each class, (c, C)."""
    return probs * (1 - probs).scatter_(1, *_all_but_best(probs))


def best_against_all(probs: Tensor) -> Tensor:
    """Return p (1 - p) of each row's most probable class, (c, 1)."""
    return probs.amax(1, keepdim=True) * _all_but_best(probs)[1]


def of_two(probs: Tensor) -> Tensor:
    """Return the product of two classes' probabilities, (c, 1); 0 for one class."""
    return probs.prod(1, keepdim=True) if probs.shape[1] == 2 else probs.new_zeros(len(probs), 1)


def _all_but_best(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the most probable class of each row and 1 minus its probability, both (c, 1), without that difference."""
    best = probs.argmax(1, keepdim=True)
    return best, probs.scatter(1, best, 0).sum(1, keepdim=True)


def _traces(inner: Tensor, outer: Tensor) -> Tensor:
    """Return tr(outer (I + inner)^-1) of symmetric matrices (r, r, c), which are destroyed.

    One congruence that makes I + inner diagonal goes over both, one column of all matrices at a time: a Cholesky
    factorisation has as many operations, but a call of it for each small matrix takes five times as long.
    """
    traces = inner.new_zeros(inner.shape[2])
    for k in range(len(inner)):
        pivot = inner[k, k].add(1).clamp_(min=_LEAST_PIVOT)
        traces += outer[k, k] / pivot
        if k + 1 == len(inner):
            break
        column = inner[k + 1 :, k]
        factor = column / pivot
        change = outer[k + 1 :, k] - factor * (outer[k, k] / 2)
        inner[k + 1 :, k + 1 :].addcmul_(factor.unsqueeze(1), column, value=-1)
        outer[k + 1 :, k + 1 :].addcmul_(factor.unsqueeze(1), change, value=-1)
        outer[k + 1 :, k + 1 :].addcmul_(change.unsqueeze(1), factor, value=-1)
    return traces
