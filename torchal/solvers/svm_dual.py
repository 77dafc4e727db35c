"""The dual of support vector machines with bias, for many problems at once.

Axes: B problems; m rows of a problem.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchal._checks import check_finite, check_float, check_whole
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.solvers.interior_point import dual_gradient, extremes, solve


class SvmDual(NamedTuple):
    """What `svm_dual` found.

    Shapes:
        alpha: (B, m) float64, exactly 0 or exactly `upper` where a row is at its bound, and 0 where there is no row.
        bias: (B,) float64.
        violation: (B,) float64, how far the pair of rows that violates the conditions of the optimum most does so.
        n_iter: (B,) int64, steps taken.
    """

    alpha: Tensor
    bias: Tensor
    violation: Tensor
    n_iter: Tensor


@torch.no_grad()
def svm_dual(kernel: Tensor, signs: Tensor, upper: Tensor, *, tol: float, max_iter: int = 100) -> SvmDual:
    r"""Fit support vector machines with bias, given the kernels of their rows.

    Each problem is to minimise 1/2 sum_ij s_i s_j K_ij a_i a_j - sum_i a_i subject to 0 <= a <= upper and s'a = 0.
    The decision value of x is sum_i s_i a_i k(x_i, x) + bias, positive for rows of sign 1.

    A problem is converged if its `violation` is at most `tol`. One whose numbers do not allow that, as coefficients of
    1e7 with a tolerance of 1e-9, ends where rounding stops it, with the violation that it has there. Where the kernel
    leaves a choice between coefficients, as for equal rows of the same sign, any of them may come out.

    LIBSVM itself rounds kernels to single precision, and so its coefficients differ in the seventh digit or earlier.

    A problem with rows of one sign only has no support vectors, and this sign for its bias; without rows it is 0.

    Args:
        kernel: of each problem's rows; symmetric, and without negative eigenvalues beyond rounding.
        signs: the class of each row, or 0 for padding: such a row takes no part, whatever is finite in its kernel.
        upper: the bound of each row's coefficient, the cost C times the row's weight; for padding whatever is finite.
        tol: the violation to reach, in units of the decision value, as in LIBSVM.
        max_iter: most steps.

    Shapes:
        kernel: (B, m, m) float64.
        signs: (B, m) float64, each -1, 0 or 1.
        upper: (B, m) float64, positive.

    Returns:
        `SvmDual`. The bias is LIBSVM's: what puts the rows between their bounds onto the margin, on average; where
        there are none, the middle of what the others allow. The violation is LIBSVM's too, the m(a) - M(a) that it
        compares with its tolerance, or 0 where that is negative.

    Raises:
        ShapeError: the tensors disagree in shape, dtype or device.
        DataError: values that are not finite, signs that are none, bounds that are not positive.
        ConfigError: `tol` or `max_iter` is not positive.

    Reference:
        Mehrotra, "On the Implementation of a Primal-Dual Interior Point Method", SIAM J. Optim. 2(4), 1992, with the
        corrections of Gondzio, "Multiple Centrality Corrections in a Primal-Dual Method for Linear Programming",
        Comput. Optim. Appl. 6, 1996, for a quadratic programme as in Gertz & Wright, "Object-Oriented Software for
        Quadratic Programming", ACM TOMS 29(1), 2003. The second-order term is weighted by the predictor's squared
        length, as in Colombo & Gondzio, "Further Development of Multiple Centrality Correctors for Interior Point
        Methods", Comput. Optim. Appl. 41, 2008.
        Violation and bias: Chang & Lin, "LIBSVM: A Library for Support Vector Machines", ACM TIST 2(3), 2011, sections
        4.1.2 and 4.1.5. Different here: bounds that the equality constraint makes useless are brought closer; and each
        step ends with rows put onto their bounds, and the rest, once few digits are missing, solved for.

    Complexity:
        About 10 steps, up to 40 where bounds are far larger than any coefficient, of B m^3 / 6 multiply-adds each. With
        the kernels given, 3 B m^2 numbers of 8 bytes: callers bound B.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [4.0]], dtype=torch.float64)
        >>> signs = torch.tensor([[-1.0, -1.0, 1.0, 1.0]], dtype=torch.float64)
        >>> found = svm_dual((x @ x.T)[None], signs, torch.full((1, 4), 10.0, dtype=torch.float64), tol=1e-9)
        >>> found.alpha, found.bias.abs() < 1e-9
        (tensor([[0.0000, 0.5000, 0.5000, 0.0000]], dtype=torch.float64), tensor([True]))
    """
    _check(kernel, signs, upper, tol, max_iter)
    alpha, violation = torch.zeros_like(signs), torch.zeros_like(signs[:, 0])
    n_iter = torch.zeros_like(violation, dtype=torch.int64)
    two = ((signs > 0).any(1) & (signs < 0).any(1)).nonzero().squeeze(1)
    if len(two):
        alpha[two], violation[two], n_iter[two] = solve(kernel, signs, upper, two, tol=tol, max_iter=max_iter)
    live = (signs != 0).double()
    value = -signs * dual_gradient(kernel, signs, live, alpha)
    highest, lowest = extremes(value, signs, upper, alpha)
    free = ((alpha > 0) & (alpha < upper)).double()
    n_free = free.sum(1)
    ends = torch.stack([highest, lowest])
    known = torch.isfinite(ends)
    middle = torch.where(known, ends, 0.0).sum(0) / known.sum(0).clamp(min=1)
    bias = torch.where(n_free > 0, (value * free).sum(1) / n_free.clamp(min=1), middle)
    return SvmDual(alpha, bias, violation, n_iter)


@torch.no_grad()
def svm_violation(values: Tensor, signs: Tensor, upper: Tensor, alpha: Tensor) -> Tensor:
    """Return by how much coefficients violate the conditions of the optimum, (B,), as `svm_dual` measures it.

    Shapes:
        values: (B, m) float64, the rows' decision values without the bias: the kernel times signs * alpha.
        signs, upper: (B, m) float64, as of `svm_dual`.
        alpha: (B, m) float64, in [0, upper] and balanced.
    """
    highest, lowest = extremes(signs - values, signs, upper, alpha)
    return (highest - lowest).clamp(min=0)


def _check(kernel: Tensor, signs: Tensor, upper: Tensor, tol: float, max_iter: int) -> None:
    for name, tensor, ndim in (("kernel", kernel, 3), ("signs", signs, 2), ("upper", upper, 2)):
        check_float(name, tensor, ndim=ndim)
        if tensor.dtype != torch.float64:
            raise ShapeError(f"{name} must be torch.float64, got {tensor.dtype}")
        if tensor.device != kernel.device:
            raise ShapeError(f"{name} must be on {kernel.device}, got {tensor.device}")
    if not signs.shape[1]:
        raise ShapeError(f"signs must have at least one column, got shape {tuple(signs.shape)}")
    if upper.shape != signs.shape:
        raise ShapeError(f"upper must have shape {tuple(signs.shape)}, got {tuple(upper.shape)}")
    if kernel.shape != (*signs.shape, signs.shape[1]):
        raise ShapeError(f"kernel must have shape {(*signs.shape, signs.shape[1])}, got {tuple(kernel.shape)}")
    check_finite("kernel", kernel)
    check_finite("upper", upper)
    wrong = int((signs != signs.sign()).sum())
    if wrong:
        raise DataError(f"signs must be -1, 0 or 1: {wrong} of {signs.numel()} are not")
    wrong = int(((upper <= 0) & (signs != 0)).sum())
    if wrong:
        raise DataError(f"upper must be positive: {wrong} of {upper.numel()} are not")
    if not tol > 0:
        raise ConfigError(f"tol must be positive, got {tol!r}")
    check_whole("max_iter", max_iter, least=1)
