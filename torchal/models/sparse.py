"""Sparse rows as a torch CSR matrix: from SciPy, and by row numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torchal._checks import as_torch_takes
from torchal._chunks import values_per_chunk
from torchal._csr import csr_tensor, without_notes
from torchal.pool.inputs import SparseInputs, is_sparse


def as_csr(X: Any) -> Tensor:
    """Return a sparse matrix (n, D) as a CSR tensor of the same numbers, an ordinary one also of an inference tensor.

    A CSR tensor has one value at a place, as torch demands; of other formats values at one place are added up.
    """
    if isinstance(X, Tensor):
        with without_notes(), torch.inference_mode(X.is_inference()):
            csr = X if X.layout == torch.sparse_csr else X.to_sparse_coo().to_sparse_csr()
            if not X.is_inference():
                return csr
            made = csr.crow_indices(), csr.col_indices(), csr.values()
        offsets, columns, values = (part.clone() for part in made)
        return csr_tensor(offsets, columns, values, tuple(csr.shape))
    X = SparseInputs(X).matrix
    offsets, columns, values = (torch.from_numpy(as_torch_takes(part)) for part in (X.indptr, X.indices, X.data))
    return csr_tensor(offsets, columns, values, X.shape)


def dense_where_small(X: Tensor) -> Tensor:
    """Return a sparse matrix of no more numbers than a chunk as a dense one, and anything else as it is."""
    is_small = is_sparse(X) and X.shape[0] * X.shape[1] <= values_per_chunk(X.device)
    return X.to_dense() if is_small else X


def csr_rows(X: Tensor, rows: Tensor | slice) -> Tensor:
    """Return rows (k,) int64, or a run of rows, of a CSR tensor, in that order."""
    offsets, columns, values = X.crow_indices().long(), X.col_indices(), X.values()
    if isinstance(rows, slice):
        start, stop, _ = rows.indices(len(X))
        offsets = offsets[start : stop + 1]
        kept = slice(int(offsets[0]), int(offsets[-1]))
        return csr_tensor(offsets - offsets[0], columns[kept], values[kept], (stop - start, X.shape[1]))
    counts = offsets.diff()[rows]
    ends = counts.cumsum(0)
    begins = (offsets[rows] - ends + counts).repeat_interleave(counts)
    places = begins + torch.arange(len(begins), device=begins.device)
    offsets = torch.cat([ends.new_zeros(1), ends])
    return csr_tensor(offsets, columns[places], values[places], (len(rows), X.shape[1]))
