"""The radial basis function kernel, and decisions of pairs of classes."""

from __future__ import annotations

import torch
from torch import Tensor


class RbfKernel:
    """The kernel exp(-gamma times the squared distance) of any rows with some that stay, which are prepared once.

    Shapes:
        support: (..., m, D) float.
        gamma: a number, or (..., 1, 1).
    """

    def __init__(self, support: Tensor, gamma: Tensor | float) -> None:
        self._gamma = gamma
        self._center = support.mean(-2, keepdim=True)  # far from zero a product would take the distances' last digits
        y = support - self._center
        squares = y.square().sum(-1, keepdim=True)
        self._right = torch.cat([y, torch.ones_like(squares), -gamma * squares], -1).mT

    def __call__(self, x: Tensor) -> Tensor:
        """Return (..., n, m) of rows (..., n, D)."""
        return self.exponents(x).exp_()

    def exponents(self, x: Tensor) -> Tensor:
        """Return the kernel's logarithm (..., n, m), not above 0, of rows (..., n, D)."""
        x = x - self._center
        squares = x.square().sum(-1, keepdim=True)
        left = torch.cat([2 * self._gamma * x, -self._gamma * squares, torch.ones_like(squares)], -1)
        return torch.matmul(left, self._right).clamp_(max=0)


def rbf_kernel(x: Tensor, y: Tensor, gamma: Tensor | float) -> Tensor:
    """Return exp(-gamma times the squared distance) of all pairs of rows, and exactly 1 on the diagonal of y is x.

    Shapes:
        x: (..., n, D) float.
        y: (..., m, D) float.
        gamma: a number, or (..., 1, 1).

    Returns:
        (..., n, m).

    Complexity:
        O(n m D) multiply-adds in one matrix product; temporaries of O((n + m) D) beside the answer.

    Example:
        >>> rbf_kernel(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0]]), 1.0)
        tensor([[1.0000],
                [0.3679]])
    """
    exponents = RbfKernel(y, gamma).exponents(x)
    if x is y:
        exponents.diagonal(dim1=-2, dim2=-1).zero_()
    return exponents.exp_()


def pair_values(kernel: Tensor, dual: Tensor, codes: Tensor, intercept: Tensor) -> Tensor:
    """Return decision values of each pair of classes, positive for the second of the two.

    A support row of class i has one coefficient for each other class j, in row j of `dual` if j < i, else j - 1: the
    compact form of LIBSVM. Pairs are (0, 1), (0, 2), ..., (1, 2), ...

    Shapes:
        kernel: (n, S), between rows and support rows.
        dual: (..., C - 1, S), signed: negative where the row is of the first class of the pair.
        codes: (S,) int64, classes of the support rows.
        intercept: (..., P), P = C (C - 1) / 2.

    Returns:
        (..., n, P).
    """
    n_classes = dual.shape[-2] + 1
    first, second = torch.triu_indices(n_classes, n_classes, 1, device=kernel.device)
    parts = kernel.new_zeros(*dual.shape[:-2], n_classes, len(kernel), n_classes - 1)
    for code in range(n_classes):  # each class has coefficients of its own pairs only
        rows = (codes == code).nonzero().squeeze(1)
        parts[..., code, :, :] = kernel[:, rows] @ dual[..., rows].mT
    parts = parts.movedim(-3, -1)  # (..., n, C - 1, C)
    return parts[..., second - 1, first] + parts[..., first, second] + intercept.unsqueeze(-2)


def ovr_values(pairs: Tensor, n_classes: int) -> Tensor:
    """Return one value for each class from those of pairs: its votes, and within equal votes its confidence.

    It is scikit-learn's rule of `decision_function_shape="ovr"`: the sum of a class's pair values, squeezed into less
    than a third of a vote.

    Shapes:
        pairs: (n, P), positive for the second class of a pair.

    Returns:
        (n, C).
    """
    votes, confidence = _ballot(pairs, pairs > 0, n_classes)
    return votes + confidence / (3 * (confidence.abs() + 1))


def most_voted(pairs: Tensor, n_classes: int) -> Tensor:
    """Return the class with the most votes, (n,) int64; of equally many the first. A value of 0 votes for the second.

    Shapes:
        pairs: (n, P), positive for the second class of a pair.
    """
    return _ballot(pairs, pairs >= 0, n_classes)[0].argmax(1)


def _ballot(pairs: Tensor, for_second: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return votes and summed values (n, C) of each class."""
    first, second = torch.triu_indices(n_classes, n_classes, 1, device=pairs.device)
    votes = pairs.new_zeros(len(pairs), n_classes)
    votes.index_add_(1, first, (~for_second).to(pairs.dtype)).index_add_(1, second, for_second.to(pairs.dtype))
    confidence = pairs.new_zeros(len(pairs), n_classes)
    confidence.index_add_(1, first, -pairs).index_add_(1, second, pairs)
    return votes, confidence
