"""What the two forms of Newton's method for linear classifiers share: limits, and factorised matrices."""

from __future__ import annotations

import torch
from torch import Tensor

CG_STEPS = 250
"""Most steps of conjugate gradients in one Newton step; a direction cut short is still downhill."""
FLOAT32_RATIO = 1e-9
"""What float32 can shrink the square of a residual to."""
ROUNDING = 1e-12
"""Relative gain below which the objective's last digits cannot judge a step."""
OWN_HESSIAN = 128
"""Columns up to which each problem is preconditioned by its own Hessian, not all by their mean."""
GRAM_COLUMNS = 4096
"""Columns from which a factorised matrix of that size costs more than the steps that it saves."""
WHOLE_HESSIANS = 2**26
"""Most numbers of all matrices that couple outputs, 0.5 GB: they serve several steps."""
SURE = 10
"""Times tol: what the distance to the optimum may be at most where it is about tol."""
PAST_KINKS = 1e-12
"""Times tol: a gap so small that no kink on the way matters."""
RAISED = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Part of itself by which a diagonal is raised before it is factorised."""
UNSOLVED = 0.1
"""Part of the residual's square above which a direction does not tell how far the optimum is."""


def whole_hessian_pays(cg_steps: int, n_rows: int, n_problems: int, n_outputs: int, n_columns: int) -> bool:
    """Tell whether the steps since the last whole Hessian have cost as much as another one."""
    size = n_outputs * n_columns
    if (n_outputs == 1 and size <= OWN_HESSIAN) or n_problems * size**2 > WHOLE_HESSIANS:
        return False
    worth = size / (8 if n_outputs > 1 else 2) + size**2 / (4 * n_rows)
    return cg_steps > max(worth, 20)


def factor(matrix: Tensor, penalty: Tensor) -> Tensor:
    """Return Cholesky factors of matrices plus a penalty on the diagonal; not-a-number for those that have none.

    In float32 the inverses instead: coarse, but a product is many times faster than a solve.

    A positive semidefinite matrix whose diagonal is raised by a part of itself has no pivot below that part of the
    diagonal. One far below is what rounding has left of it: then the matrix is singular, even where the factorisation
    happens not to stop.
    """
    corner = matrix.diagonal(dim1=-2, dim2=-1)
    corner.add_(penalty)
    # collinear columns of a large scale leave no positive definite matrix; conjugate gradients mend the rest
    raised = RAISED[matrix.dtype]
    corner.mul_(1 + raised).clamp_(min=1e-30)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    regular = (factor.diagonal(dim1=-2, dim2=-1).square() >= raised / 4 * corner).all(-1)
    failed = torch.where(regular, failed, 1)
    if matrix.dtype == torch.float32:
        if factor.device.type != "cpu" or bool(failed.any()):  # a factor with zeros has no inverse
            some = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
            factor = torch.where(failed[..., None, None] == 0, factor, some)
        factor = torch.cholesky_inverse(factor)
    usable = (failed == 0) & torch.isfinite(factor).all(-1).all(-1)  # infinite ones answer 0, which looks converged
    return torch.where(usable[..., None, None], factor, torch.nan)
