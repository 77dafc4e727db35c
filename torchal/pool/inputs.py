"""Rows that a model reads: a tensor, a memory-mapped array, a sparse matrix, or a data set that is read row by row."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from torchal._batch import Rows
from torchal._checks import as_torch_takes
from torchal._csr import without_notes
from torchal.engine.file_rows import FileRows
from torchal.errors import CapabilityError, DataError, ShapeError
from torchal.pool.dataset_inputs import DatasetInputs, is_dataset
from torchal.pool.file_inputs import FileInputs
from torchal.pool.tables import TableInputs, is_table
from torchal.protocols import Inputs

_REAL = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64),
)
_SPARSE_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


class SparseInputs:
    """Rows of a sparse matrix, as inputs of a pool: text as counts of words, for instance.

    They stay sparse, on the CPU: a model gets `matrix`, and what would need a dense copy of all rows says so. Values at
    one place are added up, columns are in ascending order within a row, and their numbers are int32 where these
    suffice, since not all of scikit-learn reads others; a SciPy CSR matrix that is so already is shared, not copied.

    Args:
        matrix: a SciPy sparse matrix or array of any format, which becomes CSR, or a sparse torch tensor, which becomes
            a SciPy CSR array on the CPU. Values of less than 32 bits, which SciPy does not have, become float32.

    Shapes:
        matrix: (N, D), at least one row and one column.

    Raises:
        DataError: values that are not real numbers or not finite, or no rows or columns.
        ShapeError: there are not two axes, or a tensor has dense axes.

    Example:
        >>> import scipy.sparse
        >>> inputs = SparseInputs(scipy.sparse.csr_array([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0]]))
        >>> len(inputs), inputs.shape, inputs[torch.tensor([1, 0])].matrix.toarray().tolist()
        (3, (3, 2), [[2.0, 0.0], [0.0, 1.0]])
    """

    def __init__(self, matrix: Any) -> None:
        if not is_sparse(matrix):
            raise DataError(f"sparse inputs must be a SciPy sparse matrix or a sparse tensor, got {_kind(matrix)}")
        if matrix.ndim != 2:
            raise ShapeError(f"sparse inputs must have two axes, got shape {tuple(matrix.shape)}")
        if 0 in matrix.shape:
            raise DataError(f"sparse inputs must have at least one row and one column, got shape {tuple(matrix.shape)}")
        self.matrix = _as_csr(matrix)
        """(N, D) the rows as a SciPy CSR matrix, or array where that came in or a tensor."""
        finite = np.isfinite(self.matrix.data)
        if not finite.all():
            bad = np.unique(np.searchsorted(self.matrix.indptr, np.flatnonzero(~finite), side="right") - 1)
            raise DataError(
                f"inputs must be finite: {len(bad)} of {len(self)} rows are not, the first is row {int(bad[0])}"
            )

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        n_rows, n_columns = self.matrix.shape
        return int(n_rows), int(n_columns)

    def __getitem__(self, rows: Any) -> SparseInputs:
        """Return some rows, (n,) int64 or a slice, in that order."""
        if not isinstance(rows, slice):
            rows = rows.cpu() if isinstance(rows, Tensor) else rows
            if not isinstance(rows, Tensor) or rows.dtype != torch.int64:
                rows = torch.arange(len(self), device="cpu")[rows]
            rows = rows.reshape(-1).numpy()
        chosen = object.__new__(SparseInputs)
        chosen.matrix = self.matrix[rows]
        return chosen

    def joined(self, more: SparseInputs) -> SparseInputs:
        """Return these with other rows behind them.

        Args:
            more: the rows that come behind.
        """
        from scipy.sparse import vstack

        chosen = object.__new__(SparseInputs)
        chosen.matrix = _as_csr(vstack([self.matrix, more.matrix], format="csr"))
        return chosen

    def __array__(self, *_: Any, **__: Any) -> NDArray[Any]:
        # without this, NumPy would look for numbers in rows of rows of rows
        raise CapabilityError("sparse inputs are no array: .matrix is sparse, and .matrix.toarray() makes them dense")


def is_sparse(values: object) -> bool:
    """Tell whether values are a sparse matrix or array of SciPy, or a sparse tensor."""
    if isinstance(values, Tensor):
        return values.layout in _SPARSE_LAYOUTS
    scipy_sparse = sys.modules.get("scipy.sparse")  # whoever has such a matrix has imported it
    return scipy_sparse is not None and bool(scipy_sparse.issparse(values))


def _kind(values: object) -> str:
    return f"a {values.layout} tensor" if isinstance(values, Tensor) else type(values).__name__


def _as_csr(matrix: Any) -> Any:
    """Return a sparse matrix (N, D) as SciPy CSR: values at one place added up, columns in order, int32 if they fit."""
    matrix = _off_torch(matrix) if isinstance(matrix, Tensor) else matrix
    if matrix.dtype.kind not in "biuf":
        raise DataError(f"inputs must be numbers, got a sparse matrix of {matrix.dtype}")
    csr = matrix.tocsr()
    native = csr.dtype.newbyteorder("=")
    narrow = max(csr.nnz, *csr.shape) <= np.iinfo(np.int32).max
    if csr.dtype != native or (narrow and csr.indices.dtype != np.int32):
        parts = (csr.data.astype(native, copy=False), csr.indices, csr.indptr)
        if narrow:
            parts = (parts[0], *(part.astype(np.int32, copy=False) for part in parts[1:]))
        csr = type(csr)(parts, shape=csr.shape)
    if not csr.has_canonical_format:
        csr = csr.copy()  # it is the caller's
        csr.sum_duplicates()
    return csr


def _off_torch(tensor: Tensor) -> Any:
    """Return a sparse tensor (N, D) as a SciPy sparse array."""
    from scipy.sparse import coo_array, csr_array

    if tensor.dense_dim():
        raise ShapeError(
            f"a sparse tensor of inputs must have no dense axes, got {tensor.dense_dim()} in shape "
            f"{tuple(tensor.shape)}"
        )
    tensor = tensor.detach().cpu()
    is_csr = tensor.layout == torch.sparse_csr
    with without_notes():
        tensor = tensor if is_csr else tensor.to_sparse_coo().coalesce()
    values = tensor.values()
    if values.is_floating_point() and values.element_size() < 4:
        values = values.float()
    if is_csr:
        places = tensor.col_indices().numpy(), tensor.crow_indices().numpy()
        return csr_array((values.numpy(), *places), shape=tuple(tensor.shape))
    return coo_array((values.numpy(), tuple(tensor.indices().numpy())), shape=tuple(tensor.shape))


def is_streamed(inputs: object) -> bool:
    """Tell whether inputs are read batch by batch because they are not in memory: a data set or a mapped file."""
    return isinstance(inputs, DatasetInputs | np.memmap) or is_dataset(inputs)


def have_distances(inputs: Inputs) -> bool:
    """Tell whether rows are points between which distances mean something: real values, bytes (an image's) or bits.

    Other integers may be ids, as of the words of a text; and what is no tensor or array, or sparse, is not made one. Of
    rows that are not in memory the first is read, and of a table all columns must be such.
    """
    if isinstance(inputs, SparseInputs):
        return False
    if isinstance(inputs, TableInputs):
        if inputs.other_columns:
            return False
        inputs = inputs[:1].numbers()
    rows: Any = inputs
    if isinstance(inputs, DatasetInputs):
        rows = inputs.read([0])
    elif not isinstance(inputs, Tensor | np.ndarray):
        rows = inputs[torch.tensor([0])]
    if isinstance(rows, np.ndarray):
        return rows.dtype.kind in "bf" or rows.dtype == np.uint8
    return isinstance(rows, Tensor) and (rows.is_floating_point() or rows.dtype in (torch.bool, torch.uint8))


def read_rows(inputs: Any, rows: list[int]) -> Rows:
    """Return rows of any inputs as one tensor (n, ...) on the CPU; those of a data set may be several by name."""
    if isinstance(inputs, DatasetInputs):
        return inputs.read(rows)
    if isinstance(inputs, np.ndarray):
        return torch.from_numpy(as_torch_takes(inputs[rows]))
    tensor: Tensor = inputs[torch.tensor(rows, device=inputs.device)]
    return tensor


def gather(inputs: Inputs, rows: Tensor) -> Any:
    """Return the inputs of rows (n,) int64. NumPy gets an array, since it takes a tensor of one row for a number."""
    return inputs[rows.cpu().numpy()] if isinstance(inputs, np.ndarray) else inputs[rows]


def joined(inputs: Inputs, more: Inputs) -> Inputs:
    """Return inputs with other rows of the same kind behind them.

    Raises:
        ShapeError: the rows differ in shape.
        DataError: they are of different kinds, or of one that does not grow: memory maps, and what torchal does not
            know.
    """
    grows = (Tensor, SparseInputs, TableInputs, DatasetInputs)
    kind = type(inputs)
    if not isinstance(inputs, grows) or not isinstance(more, kind):
        if isinstance(inputs, grows):
            raise DataError(f"a pool of {kind.__name__} cannot take rows of {type(more).__name__}")
        raise DataError(
            f"a pool of {kind.__name__} cannot grow, only one of a tensor, a table, a sparse matrix or a data set can: "
            "save this learner, and load its state in one with a pool of all rows, the new ones behind the old"
        )
    if not isinstance(inputs, DatasetInputs):
        old, new = tuple(inputs.shape)[1:], tuple(more.shape)[1:]  # type: ignore[attr-defined]
        if old != new:
            raise ShapeError(f"rows of the pool have shape {old}, the new ones {new}")
    if isinstance(inputs, Tensor):
        assert isinstance(more, Tensor)
        return torch.cat([inputs, _as_those_of(inputs, more)])
    parts: Any = inputs
    return parts.joined(more)  # type: ignore[no-any-return]


def _as_those_of(inputs: Tensor, more: Tensor) -> Tensor:
    """Return rows in the dtype and on the device of others.

    Raises:
        DataError: some of their values this dtype does not have.
    """
    cast = more.to(inputs)
    if inputs.is_floating_point():
        lost = cast.isinf().flatten(1).any(1)  # what was infinite before was refused
    else:
        lost = (cast.to(more.dtype) != more).flatten(1).any(1)
    if bool(lost.any()):
        first = int(lost.nonzero()[0])
        raise DataError(
            f"rows of the pool are {inputs.dtype}, which cannot hold {int(lost.sum())} of {len(more)} new rows of "
            f"{more.dtype}, the first is new row {first}"
        )
    return cast


def as_inputs(inputs: Any) -> Inputs:
    """Return a list or an array as a tensor, sharing its memory where torch can.

    A data set of torch or Hugging Face becomes DatasetInputs, a sparse matrix of SciPy or torch SparseInputs, a table,
    or texts, TableInputs, and rows in several files (`torchal.FileRows`) FileInputs.

    Raises:
        DataError: they are not numbers; those of a sparse matrix, not finite.
        ShapeError: a sparse matrix has not two axes.
    """
    if is_dataset(inputs):
        return DatasetInputs(inputs)
    if isinstance(inputs, FileRows):
        return FileInputs(inputs)
    if is_sparse(inputs):
        return SparseInputs(inputs)
    if is_table(inputs):
        return TableInputs(inputs)
    if isinstance(inputs, list | tuple):
        inputs = np.asarray(inputs)
    if isinstance(inputs, np.ndarray):
        if inputs.dtype.kind not in "biuf":
            raise DataError(f"inputs must be numbers, got an array of {inputs.dtype}")
        if not isinstance(inputs, np.memmap):
            inputs = torch.from_numpy(as_torch_takes(inputs))
    rows: Inputs = inputs
    return rows


def checked_inputs(name: str, inputs: Any) -> Inputs:
    """Return inputs as `as_inputs` does, after reading the first and the last row as they are read later.

    Whoever labels rows for days must not learn afterwards that no model can read them.

    Raises:
        DataError: rows that are no numbers, or masked, or that cannot be read.
        ShapeError: rows without columns, or of several shapes.
    """
    if isinstance(inputs, DataLoader):
        raise DataError(f"{name} are rows by number, and a DataLoader gives batches; use DatasetInputs(loader.dataset)")
    if isinstance(inputs, np.ma.MaskedArray):
        n_masked = int(np.ma.count_masked(inputs))
        if n_masked:
            raise DataError(f"{name} has {n_masked} masked values; fill them in, as with sklearn.impute.SimpleImputer")
        inputs = np.asarray(inputs)
    if not hasattr(inputs, "__len__") or (isinstance(inputs, Tensor | np.ndarray) and inputs.ndim == 0):
        raise DataError(f"{name} must have a length and rows by number, got {type(inputs).__name__}")
    rows = as_inputs(inputs)
    if isinstance(rows, Tensor | np.ndarray):
        _check_table(name, rows)
    elif len(rows) and not isinstance(rows, SparseInputs | TableInputs):
        _probe(name, rows)
    return rows


def _check_table(name: str, values: Any) -> None:
    if isinstance(values, Tensor) and (values.dtype not in _REAL or values.is_meta):
        raise DataError(f"{name} must be real numbers, got {values.dtype} on {values.device}")
    if values.ndim < 2:
        raise ShapeError(
            f"{name} must have a row axis and at least one more, got shape {tuple(values.shape)}; one feature is "
            "x.reshape(-1, 1)"
        )
    if 0 in tuple(values.shape)[1:]:
        raise ShapeError(f"{name} must have at least one column, got shape {tuple(values.shape)}")


def _probe(name: str, inputs: Any) -> None:
    """Read two rows as a model's rows are read."""
    wanted = torch.tensor(sorted({0, len(inputs) - 1}))
    if isinstance(inputs, DatasetInputs):
        inputs.read(wanted.tolist())
        if inputs.train is not None:
            inputs.read(wanted.tolist(), training=True)
        return
    kind = type(inputs).__name__
    try:
        rows = inputs[wanted]
        n_rows = len(rows)
    except Exception as error:
        raise DataError(
            f"{name} must give rows by an int64 tensor of their numbers, which {kind} does not: "
            f"{type(error).__name__}: {error}"
        ) from error
    if n_rows != len(wanted) or isinstance(rows, str | bytes | dict | set):
        raise DataError(f"{name} must give {len(wanted)} rows for {len(wanted)} numbers, {kind} gave {_shown(rows)}")


def _shown(rows: Any) -> str:
    return f"{type(rows).__name__} of length {len(rows)}"
