"""Sparse CSR tensors of parts that are known to be right."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def csr_tensor(offsets: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return a CSR tensor of these parts, which are not checked.

    Shapes:
        offsets: (R + 1,) int32 or int64.
        columns: (nnz,), made of the same dtype.
        values: (nnz,).
    """
    with without_notes():
        columns = columns.to(offsets.dtype)
        return torch.sparse_csr_tensor(offsets, columns, values, shape, device=values.device, check_invariants=False)


@contextmanager
def without_notes() -> Iterator[None]:
    """Keep torch from saying of the first CSR tensors that there may be changes, and no checks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled", UserWarning)
        yield
