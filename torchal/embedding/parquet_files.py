"""What is read of Parquet files beside or instead of .npy: ids of a few rows, and embeddings that lie in a column."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_installed
from torchal.embedding.shard_files import MatrixFile, Stamp
from torchal.errors import DataError

EMBEDDING_COLUMNS = ("embedding", "embeddings")  # NeMo Curator's names, of older and newer versions


@dataclass(frozen=True)
class IdFile:
    """A Parquet file with a row of ids for each row of a matrix.

    Args:
        stamp: the file.
        n_rows: rows in it.
        columns: names of those that hold one value a row.
    """

    stamp: Stamp
    n_rows: int
    columns: tuple[str, ...]


def id_file(path: Path) -> IdFile:
    """Read what a Parquet file says of itself.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: pyarrow is not installed.
    """
    with opened(path) as (stamp, file):
        return IdFile(stamp, file.metadata.num_rows, flat_columns(file.schema_arrow))


def embedding_file(path: Path, column: str | None) -> MatrixFile:
    """Read what a Parquet file says of the embeddings in a column of lists.

    Args:
        path: the file.
        column: the column's name; "embedding" or "embeddings", unless given.

    Raises:
        DataError: there is no such column, or it has no lists of numbers.
        MissingExtraError: pyarrow is not installed.
    """
    with opened(path) as (stamp, file):
        import pyarrow as pa

        field = _embedding_field(path, file.schema_arrow, column)
        kind = field.type
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
            raise DataError(f"{path}: the column {field.name!r} must have lists of numbers, it is of {kind}")
        width: int | None = None
        if pa.types.is_fixed_size_list(kind):
            width = kind.list_size
        else:
            for batch in file.iter_batches(1, columns=[field.name]):
                first = batch.column(0)[0].as_py()
                if first is None:
                    raise DataError(f"{path}: row 0 has no embedding")
                width = len(first)
                break
        dtype = np.dtype(kind.value_type.to_pandas_dtype())
        return MatrixFile(stamp, file.metadata.num_rows, width, dtype)


def embedding_column(path: Path, column: str | None) -> str:
    """Return the name of the column with embeddings."""
    with opened(path) as (_, file):
        return str(_embedding_field(path, file.schema_arrow, column).name)


def read_ids(ids: IdFile, rows: NDArray[np.int64], column: str) -> list[Any]:
    """Return the values of a column in some rows of a file; only the row groups that have them are read.

    Raises:
        DataError: the file is missing, was changed, or cannot be read.
    """
    ids.stamp.check()
    with opened(ids.stamp.path) as (_, file):
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        groups = np.searchsorted(starts, rows, side="right") - 1
        values: list[Any] = [None] * len(rows)
        for group in np.unique(groups).tolist():
            wanted = np.flatnonzero(groups == group)
            found = file.read_row_group(group, columns=[column]).column(0).take(rows[wanted] - starts[group])
            for place, value in zip(wanted.tolist(), found.to_pylist(), strict=True):
                values[place] = value
        return values


def read_embeddings(
    source: MatrixFile, column: str, ids: Sequence[str], width: int, chunk_rows: int
) -> Iterator[tuple[NDArray[Any], Any]]:
    """Yield the embeddings of a file and the ids beside them, chunk by chunk: (n, D) and a table.

    Raises:
        DataError: the file is missing, was changed, or cannot be read; a row has no embedding, or one of another width.
    """
    source.stamp.check()
    first_row = 0
    with opened(source.path) as (_, file):
        for batch in file.iter_batches(chunk_rows, columns=[*ids, column]):
            rows = _matrix(batch.column(column), width, source.path, first_row)
            first_row += len(rows)
            yield rows, batch.select(list(ids))


class opened:  # noqa: N801  # reads as a function
    """A Parquet file, with its stamp; what goes wrong in the block is an error that names the file.

    Raises:
        DataError: it cannot be read.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        check_installed("pyarrow", extra="tables")
        self._path = path

    def __enter__(self) -> tuple[Stamp, Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        stamp = Stamp.of(self._path)
        try:
            self._file = pq.ParquetFile(self._path)
        except (pa.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        return stamp, self._file

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import pyarrow as pa

        self._file.close()
        if isinstance(error, pa.ArrowException | OSError):
            raise self._unreadable(error) from error

    def _unreadable(self, error: BaseException) -> DataError:
        return DataError(
            f"{self._path} cannot be read as Parquet: {str(error).splitlines()[0] if str(error) else error!r}"
        )


def flat_columns(schema: Any) -> tuple[str, ...]:
    """Return the columns of a schema that hold one value a row, without the index that pandas may have written."""
    import pyarrow as pa

    return tuple(
        field.name for field in schema if not pa.types.is_nested(field.type) and not field.name.startswith("__index_")
    )


def _embedding_field(path: Path, schema: Any, column: str | None) -> Any:
    names = EMBEDDING_COLUMNS if column is None else (column,)
    for name in names:
        if name in schema.names:
            return schema.field(name)
    raise DataError(
        f"{path} has no column {' or '.join(map(repr, names))}; it has {', '.join(map(repr, schema.names))}"
    )


def _matrix(lists: Any, width: int, path: Path, first_row: int) -> NDArray[Any]:
    """Return a column of lists as (n, D)."""
    import pyarrow as pa

    n_rows = len(lists)
    lengths = np.full(n_rows, width)
    if not pa.types.is_fixed_size_list(lists.type):
        lengths = lists.value_lengths().fill_null(-1).to_numpy(zero_copy_only=False)
    lengths = np.where(lists.is_null().to_numpy(zero_copy_only=False), -1, lengths)
    bad = np.flatnonzero(lengths != width)
    if len(bad):
        row, length = first_row + int(bad[0]), int(lengths[bad[0]])
        raise DataError(
            f"{path}: row {row} has {f'{length} numbers' if length >= 0 else 'no embedding'}, expected {width}"
        )
    values = lists.flatten()
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]) // width
        raise DataError(f"{path}: row {first_row + row} has a number that is missing")
    found: NDArray[Any] = values.to_numpy(zero_copy_only=False).reshape(n_rows, width)
    return found
