"""Rows of a table of pandas, Polars or Arrow, of objects, or texts: for models that read these as they are."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchal.errors import CapabilityError, DataError, ShapeError

_SHOWN = 5  # columns that an error names


class TableInputs:
    """Rows of a table or a column, as inputs of a pool; a model gets tables with the same columns.

    Rows are told by their place, whatever index the table has. Models that read numbers get those of the columns, if
    all columns are numbers; for other columns take a Pipeline whose first step reads them (`ColumnTransformer`,
    `CountVectorizer`), which may also have a say in what distances are: see `PoolView.features`.

    Args:
        table: a DataFrame or Series of pandas or Polars; an Arrow table or array, which becomes pandas'; a list or an
            array of texts; an array (N, D) of objects.

    Raises:
        DataError: it has no rows or no columns, or is of another kind.
        ShapeError: an array of texts or objects with more than two axes.

    Example:
        >>> texts = TableInputs(["free prize", "see you at noon", "call now"])
        >>> len(texts), texts[torch.tensor([2, 0])].table.tolist()
        (3, ['call now', 'free prize'])
    """

    def __init__(self, table: Any) -> None:
        if not is_table(table):
            raise DataError(f"a table is of pandas, Polars or Arrow, or texts in a list, got {type(table).__name__}")
        if _is_arrow(table):
            table = table.to_pandas()
        if isinstance(table, list | tuple | np.ndarray):
            table = _as_objects(table)
        if _is_of(table, "pandas") and not hasattr(table, "iloc"):  # an index, or an array of pandas' own
            import pandas as pd

            table = pd.Series(table)
        self.table = table
        """The rows, as a model gets them: of pandas or Polars, or an array of objects."""
        if len(table.shape) == 1 and _is_number(table.dtype):
            raise ShapeError(
                f"inputs must have a row axis and at least one more, got a column of {table.dtype} of shape "
                f"{tuple(table.shape)}; one feature is x.to_frame(), or x.to_numpy().reshape(-1, 1)"
            )
        if len(table.shape) > 1 and not table.shape[1]:
            raise DataError(f"a table needs at least one column, got shape {tuple(table.shape)}")

    def __len__(self) -> int:
        return len(self.table)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D), or (N,) of a column."""
        return tuple(self.table.shape)

    def __getitem__(self, rows: Any) -> TableInputs:
        """Return some rows, (n,) int64 or a slice, in that order."""
        if not isinstance(rows, slice):
            rows = rows.cpu() if isinstance(rows, Tensor) else rows
            rows = torch.arange(len(self), device="cpu")[rows].reshape(-1).numpy()
        chosen = object.__new__(TableInputs)
        chosen.table = self.table.iloc[rows] if hasattr(self.table, "iloc") else self.table[rows]
        return chosen

    def __array__(self, *_: Any, **__: Any) -> Any:
        # without this, NumPy would look for numbers in rows of rows of rows
        raise CapabilityError("a table is no array: .table is what was given, and .numbers() are its numbers")

    @property
    def other_columns(self) -> list[str]:
        """The columns that are no numbers: text, dates, categories, objects."""
        return [name for name, dtype in self._columns() if not _is_number(dtype)]

    def numbers(self) -> Tensor:
        """Return the columns as numbers, (N, D): a copy.

        Raises:
            CapabilityError: some columns are none, or it is a column of texts.
        """
        others = self.other_columns
        if others:
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            raise CapabilityError(
                f"{len(others)} of {len(self._columns())} columns are no numbers: {', '.join(others[:_SHOWN])}{more}; "
                "take a Pipeline whose first step makes numbers of them (ColumnTransformer, TfidfVectorizer) as model, "
                "or give the pool numbers"
            )
        if hasattr(self.table, "iloc"):
            values = self.table.to_numpy()
            if values.dtype == object:  # pandas' own columns with blanks, whose NA no array of numbers has
                values = self.table.to_numpy(dtype="float64", na_value=float("nan"))
        else:
            values = _of_polars(self.table) if hasattr(self.table, "to_numpy") else self.table
        if values.dtype == np.longdouble and values.dtype != np.float64:
            values = values.astype(np.float64)  # torch has no wider one
        values = values.reshape(len(values), -1)
        # a list of numbers is not one of texts: the array is a copy, so that torch may share it
        return torch.from_numpy(np.array(values, dtype=values.dtype.newbyteorder("="), order="C"))

    def check_columns(self, name: str, others: Any) -> None:
        """Require of other rows, if they are a table too, the same columns in the same order.

        Args:
            name: what the rows are called in the message.
            others: the rows.

        Raises:
            DataError: they have others.
        """
        is_both = isinstance(others, TableInputs) and len(self.shape) == len(others.shape) == 2
        if not is_both or isinstance(self.table, np.ndarray) or isinstance(others.table, np.ndarray):
            return
        mine, theirs = ([column for column, _ in part._columns()] for part in (self, others))
        if mine != theirs:
            at = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
            what = (
                f"column {at} is {mine[at]!r} there and {theirs[at]!r} here"
                if at is not None
                else "the first are alike"
            )
            raise DataError(
                f"{name} must have the {len(mine)} columns of the pool in their order, got {len(theirs)}: {what}"
            )

    def joined(self, more: TableInputs) -> TableInputs:
        """Return these with other rows behind them.

        Args:
            more: the rows that come behind.

        Raises:
            DataError: they have other columns, numbers where these have none or the other way round, or are of another
                library.
        """
        mine, theirs = self._columns(), more._columns()
        names, others = ([name for name, _ in columns] for columns in (mine, theirs))
        if names != others or type(self.table) is not type(more.table):
            raise DataError(
                f"rows of the pool are a {type(self.table).__name__} with the columns {', '.join(names)}, the new ones "
                f"a {type(more.table).__name__} with {', '.join(others)}"
            )
        differ = [
            f"{name} is {old} in the pool and {new} in the new rows"
            for (name, old), (_, new) in zip(mine, theirs, strict=True)
            if _is_number(old) != _is_number(new) and "Null" not in (str(old), str(new))
        ]
        if differ:
            more_of = f" and {len(differ) - _SHOWN} more" if len(differ) > _SHOWN else ""
            raise DataError(f"{len(differ)} columns differ in kind: {'; '.join(differ[:_SHOWN])}{more_of}")
        chosen = object.__new__(TableInputs)
        try:
            chosen.table = _stacked(self.table, more.table)
        except Exception as error:
            raise DataError(f"rows of the pool and the new ones cannot be one table: {error}") from error
        return chosen

    def fingerprint(self) -> str:
        """Return a digest of all cells, as they are written."""
        rows = self.table.to_numpy() if hasattr(self.table, "to_numpy") else self.table
        return hashlib.sha256(repr([*map(str, self._columns()), rows.tolist()]).encode()).hexdigest()[:16]

    def _columns(self) -> list[tuple[str, Any]]:
        """Return the name and the kind of each column."""
        table = self.table
        if len(table.shape) == 1:
            return [(str(getattr(table, "name", None) or "the texts"), table.dtype)]
        if isinstance(table, np.ndarray):
            return [(f"column {number}", table.dtype) for number in range(table.shape[1])]
        return list(zip(map(str, table.columns), table.dtypes, strict=True))


def is_table(values: object) -> bool:
    """Tell whether values are of a kind that TableInputs takes."""
    if isinstance(values, list | tuple):
        return bool(values) and isinstance(values[0], str)
    if isinstance(values, np.ndarray):
        return values.dtype.kind in "OUT"
    return _is_arrow(values) or _is_of(values, "pandas") or _is_of(values, "polars")


def _is_arrow(values: object) -> bool:
    return _is_of(values, "pyarrow")


def _is_of(values: object, package: str) -> bool:
    """Tell whether values are of a class of a package, or of one that is derived from it, as GeoPandas' tables are."""
    return any(ancestor.__module__.split(".")[0] == package for ancestor in type(values).__mro__)


def _is_number(dtype: Any) -> bool:
    """Tell whether a column is of numbers, in the words of NumPy and pandas, or of Polars."""
    if hasattr(dtype, "is_numeric"):  # Polars
        return bool(dtype.is_numeric()) or str(dtype) == "Boolean"
    return str(getattr(dtype, "kind", "O")) in "biuf"


def _as_objects(texts: Any) -> Any:
    """Return texts or rows of objects as an array of objects, (N,) or (N, D)."""
    array = np.array(texts, dtype=object)
    if array.ndim > 2:
        raise ShapeError(f"an array of texts or objects must be (N,) or (N, D), got shape {array.shape}")
    others = [number for number, text in enumerate(array) if not isinstance(text, str)] if array.ndim == 1 else []
    if others:
        kind = type(array[others[0]]).__name__
        raise DataError(
            f"inputs must be texts: {len(others)} of {len(array)} are not, the first is row {others[0]}, of type {kind}"
        )
    return array


def _stacked(table: Any, more: Any) -> Any:
    if isinstance(table, np.ndarray):
        return np.concatenate([table, more])
    if hasattr(table, "iloc"):
        import pandas as pd

        return pd.concat(_of_the_same_categories(table, more), ignore_index=True)
    import polars as pl

    # Series.append would write to the caller's
    return pl.concat([table, more], how="vertical_relaxed" if len(table.shape) > 1 else "vertical")


def _of_the_same_categories(table: Any, more: Any) -> list[Any]:
    """Return tables of pandas whose categorical columns have the categories of both, or they would become text."""
    import pandas as pd
    from pandas.api.types import union_categoricals

    if len(table.shape) == 1:
        frames = _of_the_same_categories(table.to_frame(), more.to_frame())
        return [frame.iloc[:, 0] for frame in frames]
    both = [
        number
        for number, (old, new) in enumerate(zip(table.dtypes, more.dtypes, strict=True))
        if old != new and isinstance(old, pd.CategoricalDtype) and isinstance(new, pd.CategoricalDtype)
    ]
    if not both:
        return [table, more]
    parts = [table.copy(deep=False), more.copy(deep=False)]
    for number in both:
        columns = [part.iloc[:, number] for part in parts]
        dtype = union_categoricals(columns).dtype
        for part, column in zip(parts, columns, strict=True):
            part.isetitem(number, column.astype(dtype))
    return parts


def _of_polars(table: Any) -> Any:
    """Return columns of numbers as one array: truth values and decimals, which may be blank, as numbers too."""
    import polars as pl
    import polars.selectors as cs

    frame = table.to_frame() if len(table.shape) == 1 else table
    wide = [name for name, dtype in frame.schema.items() if str(dtype) in ("Int128", "UInt128")]
    # torch has no such numbers, and NumPy no blanks among truth values
    values = frame.with_columns(cs.decimal().cast(pl.Float64), pl.col(wide).cast(pl.Float64))
    blank = [name for name, dtype in values.schema.items() if dtype == pl.Boolean and values[name].null_count()]
    return values.with_columns(pl.col(blank).cast(pl.Float64)).to_numpy()
