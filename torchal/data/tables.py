"""Tables as people have them: numbers, texts, missing cells, an index, rows without a label."""

from __future__ import annotations

import codecs
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchal._checks import check_flag, check_installed, check_whole
from torchal.data.columns import (
    Column,
    Encoder,
    index_column,
    read_column,
    read_labels,
    refuse_what_is_no_number,
)
from torchal.data.csv_text import MISSING, Names, one_line, read_csv_text
from torchal.data.cut import SplitSettings, check_settings
from torchal.data.libsvm import found_file
from torchal.data.splits import Splits, split_fitted
from torchal.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pandas as pd
    from typing_extensions import Unpack


class TableSettings(SplitSettings, total=False):
    """What becomes of the columns of a table, beside `SplitSettings`.

    Keys:
        index: a column that only numbers the rows and is left out; "auto" takes a first column without a name, or
            called index, id or row, whose values count by ones. None takes none.
        drop: further columns to leave out, by name or number.
        categorical: columns of numbers that are names of categories, as postal codes.
        missing: texts that mark a cell, or a label, as missing, blanks around them aside.
        strict: refuse texts, missing cells and missing labels, each by its place.
        min_frequency: how often a category occurs in the training part, at least; others are rare.
        max_categories: of a column, at most; the less frequent ones are rare.
    """

    index: str | int | None
    drop: Sequence[str | int]
    categorical: Sequence[str | int]
    missing: Sequence[str]
    strict: bool
    min_frequency: int
    max_categories: int


def csv(
    path: str | os.PathLike[str],
    *,
    target: str | int | None = None,
    header: bool | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
    encoding: str = "utf-8",
    **settings: Unpack[TableSettings],
) -> Splits:
    r"""Load a CSV file, plain or .gz: one column of labels, features in all others.

    Args:
        path: the file; or the same name with .gz, where only that is there.
        target: the column with the labels: its name, or its number from 0, where a negative one counts from the end.
            Column 0 unless given; a file with a header must say.
        header: whether the first line names the columns. Unless given, it does where none of its cells is a number,
            where one is a text above numbers or a number above texts, or where its numbers only count the columns (0,
            1, 2, ... or 1, 2, 3, ...) and its one text is no label. Where it may be either, you are asked to say.
        delimiter: the character between cells; "tab" or "\\t" for a tab, "whitespace" for any blanks and tabs. Unless
            given, the tab, semicolon, bar or comma that cuts the first 1 000 rows alike, else whitespace.
        decimal: "." or ","; unless given, a comma where numbers have one and none has a point.
        encoding: of the text; UTF-16 with its mark is seen.
        settings: what becomes of the columns, see `TableSettings`; how to choose, split and scale the rows, see
            `SplitSettings`. Source rows count data rows from 0.

    Returns:
        Splits with inputs (N, D) float32, named after the file. Labels are text: "1" and "1.0" are two classes. Blanks
        around a cell do not count, nor does the way in which Unicode composes a letter.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: the file cannot be read or has no rows; rows are ragged; a column that is named is not there; a text
            stands among numbers; a number is infinite; a label is not a class; there is one class. Rows count the lines
            of the file from 1.
        MissingExtraError: pandas is not installed.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "pets.csv"
        >>> _ = file.write_text("age,home,kind\n" + "3,house,cat\n7,flat,dog\n,flat,dog\n" * 6)
        >>> data = csv(file, target="kind")
        >>> data.train.inputs.shape, data.class_names, data.name
        (torch.Size([12, 4]), ('cat', 'dog'), 'pets')
        >>> data.columns["one_hot"]
        {'home': ['flat', 'house']}
        >>> csv(file, target="name")
        Traceback (most recent call last):
            ...
        torchal.errors.DataError: ...pets.csv, row 1: no column is named 'name'; the columns are age, home, kind
        >>> folder.cleanup()
    """
    rest, asked = _asked(settings, "header", "delimiter", "decimal", "encoding")
    if header is not None:
        check_flag("header", header)
    if delimiter in ("\\t", "tab"):
        delimiter = "\t"
    single = isinstance(delimiter, str) and len(delimiter) == 1 and delimiter not in '"\r\n'
    if delimiter not in (None, "whitespace") and not single:
        raise ConfigError(f"delimiter must be one character, whitespace or null, got {delimiter!r}")
    if decimal not in (None, ".", ","):
        raise ConfigError(f"decimal must be . or , or null, got {decimal!r}")
    check_encoding(encoding)
    check_installed("pandas", extra="tables")
    text = read_csv_text(found_file(path), header=header, delimiter=delimiter, decimal=decimal, encoding=encoding)
    if text.n_columns == 1:
        raise DataError(
            f"{text.where}: one column, where features and a label need two; is another character the delimiter?"
        )
    if target is None and text.names is not None:
        raise DataError(
            f"{text.where}: the file has a header, so say which column has the labels by target=; "
            f"{text.known_columns()}"
        )
    labels = text.column("target", 0 if target is None else target)
    frame = text.frame([labels, *(text.column("categorical", each) for each in asked.categorical)])
    return _split(frame, labels, text, asked, name=stem(path), settings=rest)


def parquet(path: str | os.PathLike[str], *, target: str | int, **settings: Unpack[TableSettings]) -> Splits:
    """Load a Parquet file: one column of labels, features in all others.

    Args:
        path: the file.
        target: the column with the labels: its name, or its number from 0, where a negative one counts from the end.
        settings: what becomes of the columns, see `TableSettings`; how to choose, split and scale the rows, see
            `SplitSettings`. Source rows count from 0.

    Returns:
        Splits with inputs (N, D) float32, named after the file.

    Raises:
        ConfigError, DataError: as `dataframe`; or the file cannot be read or is damaged.
        MissingExtraError: pandas or pyarrow is not installed.

    Example:
        >>> import tempfile
        >>> import pandas as pd
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = Path(folder.name) / "pets.parquet"
        >>> pd.DataFrame({"age": [3, 7] * 6, "kind": ["cat", "dog"] * 6}).to_parquet(file)
        >>> parquet(file, target="kind").train.inputs.shape
        torch.Size([8, 1])
        >>> folder.cleanup()
    """
    rest, asked = _asked(settings)
    check_installed("pandas", extra="tables")
    check_installed("pyarrow", extra="tables")
    from pyarrow import parquet as arrow_parquet

    path = Path(path).expanduser()
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        try:
            frame = arrow_parquet.read_table(file).to_pandas()
        except Exception as error:  # on damaged bytes pyarrow and pandas raise errors of many kinds
            raise DataError(f"{path} is damaged or not a Parquet file: {' '.join(str(error).split())}") from error
    return _split_frame(frame, target, asked, where=str(path), name=path.stem, settings=rest)


def dataframe(
    frame: pd.DataFrame, *, target: str | int, name: str = "table", **settings: Unpack[TableSettings]
) -> Splits:
    """Cut a pandas DataFrame into parts: one column of labels, features in all others.

    A column of numbers stays one; missing ones become its median, and a further column tells where. Dates become
    seconds since 1970. A column of texts becomes a column for each category (one-hot), with one for those that are
    rare; a missing cell is a category, and one that the training part does not have is rare, or zeros where nothing is.
    A text column in which no value occurs often enough to be a category is left out, as is one without values. Medians
    and categories are those of the training part. What became of the columns is in `Splits.columns`.

    Rows whose label is missing are in no part: they are `Splits.unlabeled`.

    Args:
        frame: the table. Its index is left out.
        target: the column with the labels: its name, or its number from 0, where a negative one counts from the end.
        name: what the data set is called.
        settings: what becomes of the columns, see `TableSettings`; how to choose, split and scale the rows, see
            `SplitSettings`. Source rows count from 0.

    Returns:
        Splits with inputs (N, D) float32.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a column that is named is not there; a text stands in a column where at least half of the cells are
            numbers; a number is infinite; a column has neither numbers nor texts; a label is not a class; there is one
            class.

    Reference:
        scikit-learn's ColumnTransformer, SimpleImputer and OneHotEncoder.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"size": [1.0, None, 3.0, 4.0] * 6, "kind": ["a", "b"] * 12})
        >>> data = dataframe(frame, target="kind")
        >>> data.train.inputs.shape, data.columns["imputed"]["size"]["median"]
        (torch.Size([16, 2]), 3.0)
    """
    rest, asked = _asked(settings, "name")
    if not hasattr(frame, "iloc"):
        raise DataError(f"frame must be a pandas DataFrame, got {type(frame).__name__}")
    return _split_frame(frame, target, asked, where=name, name=name, settings=rest)


def stem(path: str | os.PathLike[str]) -> str:
    """Return what a data set in a file is called."""
    return Path(Path(path).name.removesuffix(".gz")).stem


def check_encoding(encoding: object) -> None:
    """Require an encoding of text that Python knows."""
    try:
        known = bool("a".encode(codecs.lookup(encoding).name))  # type: ignore[arg-type]
    except (LookupError, TypeError, ValueError):
        known = False
    if not known:
        raise ConfigError(f"encoding must be one that Python knows, as utf-8, latin-1 or cp1252; got {encoding!r}")


@dataclass(frozen=True)
class _Asked:
    """`TableSettings` with what they are unless given."""

    index: str | int | None = "auto"
    drop: Sequence[str | int] = ()
    categorical: Sequence[str | int] = ()
    missing: Sequence[str] = MISSING
    strict: bool = False
    min_frequency: int = 2
    max_categories: int = 50

    def __post_init__(self) -> None:
        check_flag("strict", self.strict)
        check_whole("min_frequency", self.min_frequency, least=1)
        check_whole("max_categories", self.max_categories, least=2)
        for what in ("drop", "categorical", "missing"):
            value = getattr(self, what)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ConfigError(f"{what} must be a list, got {value!r}")
        if not all(isinstance(mark, str) for mark in self.missing):
            raise ConfigError(f"missing must be a list of texts, got {list(self.missing)!r}")


_OWN = tuple(key for key in TableSettings.__annotations__ if key not in SplitSettings.__annotations__)


def _asked(settings: TableSettings, *own: str) -> tuple[SplitSettings, _Asked]:
    """Return the settings of the split, and those of the columns, both checked."""
    check_settings(settings, "target", *own, *_OWN)
    rest: Any = {key: value for key, value in settings.items() if key not in _OWN}
    return rest, _Asked(**{key: value for key, value in settings.items() if key in _OWN})  # type: ignore[arg-type]


def _split_frame(  # noqa: PLR0917
    frame: Any, target: str | int, asked: _Asked, where: str, name: str, settings: SplitSettings
) -> Splits:
    if not len(frame):
        raise DataError(f"{where} has no rows")
    names = Names(where, [one_line(str(each)) for each in frame.columns], len(frame.columns))
    return _split(frame, names.column("target", target), names, asked, name=name, settings=settings)


def _split(  # noqa: PLR0917
    frame: Any, target: int, names: Names, asked: _Asked, name: str, settings: SplitSettings
) -> Splits:
    """Cut a table whose columns have been named."""
    missing = frozenset(asked.missing)
    left_out = {names.column("drop", each): "as asked" for each in asked.drop}
    if asked.index == "auto":
        if target != 0:
            left_out |= index_column(frame.iloc[:, 0], names, missing)
    elif asked.index is not None:
        left_out[names.column("index", asked.index)] = "an index"
    if target in left_out:
        raise ConfigError(f"{names.where}: the target {names.name_of(target)!r} cannot be left out")
    categorical = {names.column("categorical", each) for each in asked.categorical}
    features: dict[int, Column] = {}
    for i in range(names.n_columns):
        if i == target or i in left_out:
            continue
        features[i] = read_column(frame.iloc[:, i], i, names, missing, is_text=i in categorical)
        if asked.strict:
            refuse_what_is_no_number(frame.iloc[:, i], features[i], i, names)
    labels, has_label = read_labels(frame.iloc[:, target], target, names, missing, strict=asked.strict)
    encoder = Encoder(names, features, min_frequency=asked.min_frequency, max_categories=asked.max_categories)
    data = split_fitted(labels, encoder, name=name, has_label=has_label, **settings)
    about = encoder.about({names.name_of(i): why for i, why in left_out.items()})
    return replace(data, columns=about)
