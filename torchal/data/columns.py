"""Columns of a table as numbers. What is learned from values is learned from the training part alone."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchal.data.csv_text import BREAK, Names, as_number
from torchal.data.values import as_classes
from torchal.errors import ConfigError, DataError

_INDEX_NAMES = ("", "unnamed: 0", "index", "id", "row", "rownames", "row_names", "__index_level_0__")
_MOSTLY = 0.5  # share of numbers from which a text in their column is taken for a mistake
_MOST_VALUES = 2**30
_MISSING_CATEGORY = "(missing)"


class Column(NamedTuple):
    """A column of features."""

    kind: Literal["number", "text"]
    values: NDArray[Any]
    """(M,) float64 with NaN where missing; or objects, texts and None."""


def read_column(
    series: Any, column: int, names: Names, missing: frozenset[str], *, is_text: bool = False, is_tried: bool = False
) -> Column:
    """Return a column of pandas as numbers, or as texts.

    Args:
        series: the column.
        column: its number.
        names: what messages call it.
        missing: texts that mark a missing cell.
        is_text: its numbers are names of categories.
        is_tried: a text among numbers makes it texts, and is no mistake.

    Raises:
        DataError: a text stands among numbers; a number is infinite; or a cell is neither number, text nor date.
    """
    import pandas as pd

    if series.dtype.kind == "M":
        seconds = series.to_numpy(dtype="datetime64[us]").astype(np.float64) / 1e6
        return Column("number", np.where(series.isna(), np.nan, seconds))
    if series.dtype.kind in "biuf" and not is_text and not isinstance(series.dtype, pd.CategoricalDtype):
        return Column("number", _finite(series.to_numpy(dtype=np.float64, na_value=np.nan), column, names))
    texts = _texts(series, column, names, "a cell must be a number, a text or a date")
    codes, distinct = pd.factorize(texts)
    distinct = [None if not text or text in missing else text for text in distinct] + [None]  # the last for code -1
    values = np.array(distinct, dtype=object)[codes]
    if is_text:
        return Column("text", values)
    known = [None if text is None else as_number(text, names.decimal) for text in distinct]
    is_number = np.array([number is not None for number in known])[codes]
    n_there, n_numbers = sum(text is not None for text in values), int(is_number.sum())
    if n_numbers == n_there:
        numbers = np.array([np.nan if number is None else number for number in known], dtype=np.float64)[codes]
        return Column("number", _finite(numbers, column, names))
    if n_numbers >= _MOSTLY * n_there and not is_tried:
        row = next(row for row, text in enumerate(values) if text is not None and not is_number[row])
        raise DataError(
            f"{_not_a_number(values[row], row, column, names)}; {n_numbers} of {n_there} cells of the column are "
            "numbers. If it marks a missing value, say so by `missing`; if they are categories, by `categorical`"
        )
    return Column("text", values)


def index_column(series: Any, names: Names, missing: frozenset[str]) -> dict[int, str]:
    """Return the first column where it only numbers or names the rows, and why it is taken for that."""
    if names.names is None or names.names[0].lower() not in _INDEX_NAMES:
        return {}
    read = read_column(series, 0, names, missing, is_tried=True)
    if read.kind == "text":  # as R writes names of rows: the column has none, and no value twice
        is_index = not names.names[0] and len({*read.values}) == len(read.values)
    else:
        is_index = len(read.values) > 1 and bool((np.diff(read.values) == 1).all())
    return {0: "an index"} if is_index else {}


def refuse_what_is_no_number(series: Any, read: Column, column: int, names: Names) -> None:
    """Require a column of numbers without a missing one."""
    if read.kind == "text":
        row = next((row for row, text in enumerate(read.values) if text is not None), 0)
        raise DataError(_not_a_number(str(read.values[row]), row, column, names))
    is_missing = np.isnan(read.values)
    if is_missing.any():
        row = int(is_missing.argmax())
        cell = str(series.iloc[row]).strip() if series.dtype == object or series.dtype.kind not in "biuf" else ""
        found = f"a feature must be finite, got {cell}" if cell else "a cell is blank"
        raise DataError(f"{names.place(row, column)}: {found}")


def read_labels(
    series: Any, column: int, names: Names, missing: frozenset[str], *, strict: bool
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the labels that are there, and which rows have one, (M,).

    Raises:
        DataError: a label is missing, where strict; none is there; one is not a class; all are the same.
    """
    texts = _texts(series, column, names, "a label must be a text or a whole number")
    has_label = np.array([bool(text) and text not in missing for text in texts])
    if strict and not has_label.all():
        row = int(has_label.argmin())
        raise DataError(f"{names.place(row, column)}: a label is missing, got {texts[row]!r}")
    if not has_label.any():
        raise DataError(f"{names.where}: no row has a label in {names.column_name(column)}")
    rows = np.flatnonzero(has_label)
    labels = texts[rows]
    numbers = {label: as_number(label) for label in {*labels}}
    for label, number in numbers.items():
        if number is not None and not isfinite(number):
            row = int(rows[(labels == label).argmax()])
            raise DataError(f"{names.place(row, column)}: a label is missing, got {label!r}")
    fractional = [label for label, number in numbers.items() if number is not None and not number.is_integer()]
    if fractional and None not in numbers.values():  # beside text, a number is text
        row = int(rows[np.isin(labels.astype(str), fractional).argmax()])
        raise DataError(
            f"{names.place(row, column)}: a label must be a class, got {texts[row]}; regression is not supported. "
            f"If the labels are in another column, say target=; {names.known_columns()}"
        )
    if len(numbers) == 1:
        last = names.number_of(int(rows[-1]))
        raise DataError(
            f"{names.file}, rows {names.number_of(int(rows[0]))} to {last}, {names.column_name(column)}: every label "
            f"is {str(labels[0])!r}; two classes are needed"
        )
    what = f"{names.file}, {names.column_name(column)}"
    return as_classes(what, labels.astype(str), n_rows=len(labels)), has_label


def _texts(series: Any, column: int, names: Names, wanted: str) -> NDArray[Any]:
    """Return the cells as texts without blanks around them, None where pandas has a missing value."""
    cells, is_missing = series.to_numpy(dtype=object), series.isna().to_numpy()
    texts = np.empty(len(cells), dtype=object)
    for row, cell in enumerate(cells):
        if is_missing[row]:
            continue
        if isinstance(cell, str):
            texts[row] = cell.strip().replace(BREAK, "\n")
        elif isinstance(cell, float | np.floating) and float(cell).is_integer():
            texts[row] = str(int(cell))
        elif isinstance(cell, bool | int | float | np.generic | Decimal):
            texts[row] = str(cell)
        else:
            raise DataError(f"{names.place(row, column)}: {wanted}, got {type(cell).__name__}")
    return texts


def _not_a_number(text: str, row: int, column: int, names: Names) -> str:
    other = text.replace(",", ".") if text.count(",") == 1 and names.decimal == "." else ""
    hint = f"; a decimal comma is written as a point, {other}, or said by decimal=" if as_number(other) else ""
    return f"{names.place(row, column)}: a feature must be a number, got {text!r}{hint}"


def _finite(values: NDArray[np.float64], column: int, names: Names) -> NDArray[np.float64]:
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(f"{names.place(row, column)}: a feature must be finite, got {values[row]}")
    return values


class Encoder:
    """Makes numbers of columns as the training rows say, and notes what became of each.

    Args:
        names: what messages call the columns.
        columns: the features, by column.
        min_frequency, max_categories: see `torchal.data.tables.TableSettings`.
    """

    def __init__(self, names: Names, columns: dict[int, Column], *, min_frequency: int, max_categories: int) -> None:
        self._names, self._columns = names, columns
        self._min_frequency, self._max_categories = min_frequency, max_categories
        self._imputed: dict[str, dict[str, float | int]] = {}
        self._one_hot: dict[str, list[str]] = {}
        self._left_out: dict[str, str] = {}

    def about(self, left_out: dict[str, str]) -> dict[str, Any] | None:
        """Return what became of the columns; None where all are numbers and nothing was done.

        Args:
            left_out: columns that were left out before, and why.
        """
        left_out = left_out | self._left_out
        if not (self._imputed or self._one_hot or left_out):
            return None
        gone = left_out.keys() | self._imputed.keys() | self._one_hot.keys()
        numbers = [name for name in map(self._names.name_of, self._columns) if name not in gone]
        return {"numbers": numbers, "imputed": self._imputed, "one_hot": self._one_hot, "left_out": left_out}

    def __call__(self, train_rows: NDArray[Any]) -> NDArray[Any]:
        """Return the numbers of all rows, (M, D), told those for training, (N,)."""
        import pandas as pd
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder

        whole, holed, texts = self._sorted(train_rows)
        if not (holed or texts):
            return np.stack([self._columns[i].values for i in whole], axis=1)
        n_rows = len(next(iter(self._columns.values())).values)
        n_columns = len(whole) + 2 * len(holed) + self._max_categories * len(texts)
        if n_rows * n_columns > _MOST_VALUES:
            raise ConfigError(
                f"{self._names.where}: {n_rows} rows would have up to {n_columns} columns; leave some out "
                f"by drop=, or lower max_categories={self._max_categories}"
            )
        named = {str(i): self._columns[i].values for i in (*whole, *holed, *texts)}  # a number would be a place
        for i in texts:
            is_missing = np.equal(named[str(i)], None)  # type: ignore[call-overload]
            named[str(i)] = np.where(is_missing, _MISSING_CATEGORY, named[str(i)])
        frame = pd.DataFrame(named)
        encode = OneHotEncoder(
            handle_unknown="infrequent_if_exist",
            min_frequency=self._min_frequency,
            max_categories=self._max_categories,
            sparse_output=False,
        )
        impute = SimpleImputer(strategy="median", add_indicator=True)
        plan = ("whole", "passthrough", whole), ("holed", impute, holed), ("texts", encode, texts)
        transformer = ColumnTransformer(
            [(name, how, list(map(str, columns))) for name, how, columns in plan], sparse_threshold=0
        ).fit(frame.iloc[train_rows])
        fitted = transformer.named_transformers_
        for i, median in zip(holed, fitted["holed"].statistics_ if holed else (), strict=True):
            n_missing = int(np.isnan(self._columns[i].values).sum())
            self._imputed[self._names.name_of(i)] = {"median": float(median), "missing": n_missing}
        for at, i in enumerate(texts):
            rare = fitted["texts"].infrequent_categories_[at]
            hidden = set() if rare is None else {*rare}
            kept = [str(each) for each in fitted["texts"].categories_[at] if each not in hidden]
            self._one_hot[self._names.name_of(i)] = kept + [f"{len(hidden)} rare ones"] * bool(hidden)
        return np.asarray(transformer.transform(frame), dtype=np.float64)

    def _sorted(self, train_rows: NDArray[Any]) -> tuple[list[int], list[int], list[int]]:
        """Return the columns of numbers, of numbers of which some are missing, and of texts."""
        import pandas as pd

        whole: list[int] = []
        holed: list[int] = []
        texts: list[int] = []
        for i, (kind, values) in self._columns.items():
            if kind == "text":
                counts = pd.Series(values[train_rows]).value_counts(dropna=False)
                if int(counts.iloc[0]) >= self._min_frequency:
                    texts.append(i)
                else:
                    self._left_out[self._names.name_of(i)] = f"no value occurs {self._min_frequency} times"
            elif np.isnan(values[train_rows]).all():
                self._left_out[self._names.name_of(i)] = "no values"
            else:
                (holed if np.isnan(values).any() else whole).append(i)
        if not (whole or holed or texts):
            reasons = "; ".join(f"{name}: {why}" for name, why in self._left_out.items())
            raise DataError(f"{self._names.where}: no column of features is left. {reasons}")
        return whole, holed, texts
