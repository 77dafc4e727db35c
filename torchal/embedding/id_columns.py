"""Ids of rows, in columns, and the Parquet files in which they lie beside shards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import check_installed
from torchal.embedding.batches import digest
from torchal.errors import ConfigError, DataError, RunError, ShapeError

Ids: TypeAlias = "Sequence[Any] | NDArray[Any] | Tensor"
"""An id for each row, (N,): text or numbers in anything with a length and slices."""

ROWS_PER_GROUP = 1 << 14  # whoever asks for the id of one row reads and unpacks a group of so many


class IdColumns:
    """Columns of ids by name.

    Args:
        ids: those of the rows, or several columns by their names; the rows' numbers unless given.
        n_rows: how many rows there are.

    Raises:
        ConfigError: there are no columns, or a name is no text.
        ShapeError: a column is of another length, or not of one axis.
        DataError: a column's values are of no one kind that Parquet has.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, ids: Ids | Mapping[str, Ids] | None, n_rows: int) -> None:
        check_installed("pyarrow", extra="tables")
        named = ids if isinstance(ids, Mapping) else {"id": range(n_rows) if ids is None else ids}
        if not named or not all(isinstance(name, str) and name for name in named):
            raise ConfigError(f"ids must be a column, or columns by their names, got the names {list(named)}")
        self._columns = {name: _as_column(name, values, n_rows) for name, values in named.items()}
        self._n_rows = n_rows
        self._schema: Any = None
        self._schema = self._table(0, min(n_rows, ROWS_PER_GROUP)).schema

    def fingerprint(self, n_rows: int) -> str:
        """Return a digest of the names and of the first rows."""
        return digest([str(self._schema), self._table(0, min(n_rows, self._n_rows)).to_pylist()])

    def write(self, path: Path, start: int, stop: int) -> None:
        """Write those of rows start to stop, in the place of a file, whole or not at all.

        Raises:
            DataError: a value is of another kind than the first ones of its column.
            RunError: the file cannot be written.
        """
        import pyarrow.parquet as pq

        partial = path.with_name(path.name + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                with pq.ParquetWriter(file, self._schema) as writer:
                    for begin in range(start, stop, ROWS_PER_GROUP):
                        writer.write_table(self._table(begin, min(begin + ROWS_PER_GROUP, stop)))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error}") from error

    def _table(self, start: int, stop: int) -> Any:
        import pyarrow as pa

        fields = {name: None if self._schema is None else self._schema.field(name).type for name in self._columns}
        arrays = {}
        for name, values in self._columns.items():
            part = values[start:stop]
            if isinstance(part, range):
                part = np.arange(part.start, part.stop)
            try:
                array = pa.array(part, fields[name])
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                what = f"the values of rows {start} to {stop - 1} are of no one kind that Parquet has"
                raise DataError(f"ids, column {name!r}: {what}: {str(error).splitlines()[0]}") from error
            arrays[name] = array.cast("string") if pa.types.is_null(array.type) else array
        return pa.table(arrays)


def _as_column(name: str, values: Any, n_rows: int) -> Any:
    """Return a column that gives a list, an array or a range for a slice."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    elif hasattr(values, "to_numpy"):  # of pandas, whose slices would go by labels
        values = values.to_numpy()
    if isinstance(values, str | bytes) or not (hasattr(values, "__len__") and hasattr(values, "__getitem__")):
        raise ShapeError(f"ids, column {name!r}: must be a list or an array of {n_rows}, got {type(values).__name__}")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ShapeError(f"ids, column {name!r}: must have shape ({n_rows},), got {values.shape}")
    if len(values) != n_rows:
        raise ShapeError(f"ids, column {name!r}: must be {n_rows} for {n_rows} rows, got {len(values)}")
    return values
