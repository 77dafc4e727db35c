"""Data sets as LIBSVM's text, which many tables are published in."""

from __future__ import annotations

import os
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from torchal._checks import check_flag, check_whole
from torchal.data.cut import SplitSettings, check_settings, with_official_test
from torchal.data.splits import Splits, make_splits, split_fitted
from torchal.data.values import as_classes
from torchal.errors import ConfigError, DataError

if TYPE_CHECKING:
    from typing_extensions import Unpack

_DENSE_VALUES = 2**26  # up to here a table is made dense: 0.5 GB while it is scaled
_MOST_COLUMNS = 2**31 - 1


def libsvm(
    path: str | os.PathLike[str],
    *,
    test_path: str | os.PathLike[str] | None = None,
    official_test: bool = False,
    n_features: int | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Load a file of LIBSVM's text, plain or .gz: a label, and `column:value` for each value that is not 0.

    Columns count from 1, or from 0 where a file has a column 0. A table of up to 2^26 values, or one that is to be
    standardized, becomes dense; a larger one stays sparse.

    Args:
        path: the file; or the same name with .gz, where only that is there.
        test_path: a second file, whose rows come after those of the first.
        official_test: take the rows of the second file as the test part. `fractions` and `max_rows` are then about the
            first file, whose shares of training and validation are rescaled to sum to 1. Otherwise all rows are split
            alike.
        n_features: number of columns; the largest that occurs unless given.
        settings: how to choose, split and scale the rows; see `SplitSettings`. Source rows count from 0.

    Returns:
        Splits with inputs (N, D) float32, or `SparseInputs`, named after the file.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: a file cannot be read, is damaged, or has no rows; a value is not finite; a row has no label or
            several; there is one class.

    Reference:
        Chang & Lin, "LIBSVM: A Library for Support Vector Machines", ACM TIST 2011: the format; read by
        `sklearn.datasets.load_svmlight_file`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "pets.txt"
        ...     _ = file.write_text("+1 1:3 2:4.5\\n-1 1:7 2:21\\n" * 6)
        ...     data = libsvm(file)
        >>> data.train.inputs.shape, data.class_names
        (torch.Size([8, 2]), ('-1', '1'))
    """
    check_settings(settings, "test_path", "official_test", "n_features")
    check_flag("official_test", official_test)
    if n_features is not None:
        check_whole("n_features", n_features, least=1)
    if official_test and test_path is None:
        raise ConfigError("official_test=True needs a test_path")
    files = [found_file(path)] + ([] if test_path is None else [found_file(test_path)])
    matrix, labels, n_train = _read(files, n_features)
    what = " and ".join(map(str, files))
    labels = as_classes(f"{what}: labels", labels, n_rows=len(labels))
    if official_test:
        settings = with_official_test(labels, n_train, test_limit=None, settings=settings)
    name = Path(Path(path).name.removesuffix(".gz")).stem
    if matrix.shape[0] * matrix.shape[1] > _DENSE_VALUES and not settings.get("standardize"):
        return split_fitted(labels, lambda _: matrix, name=name, **settings)
    if matrix.shape[0] * matrix.shape[1] > 8 * _DENSE_VALUES:
        raise ConfigError(
            f"{what}: standardized, its {matrix.shape[0]} x {matrix.shape[1]} values would be dense; standardize=false "
            "keeps them sparse"
        )
    return make_splits(matrix.toarray(), labels, name=name, **settings)


def found_file(path: str | os.PathLike[str]) -> Path:
    """Return a file of this name, or of the same with .gz where only that is there."""
    plain = Path(path).expanduser()
    zipped = plain.with_name(plain.name + ".gz")
    return zipped if not plain.exists() and zipped.exists() else plain


def _read(files: list[Path], n_features: int | None) -> tuple[Any, NDArray[np.float64], int]:
    """Return the rows of all files as one sparse matrix, their labels, and how many rows the first one has."""
    from scipy.sparse import vstack
    from sklearn.datasets import load_svmlight_file

    matrices, labels = [], []
    for file in files:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # overflow of a number that is refused below
                matrix, some = load_svmlight_file(str(file), zero_based=True)
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror or error}") from error
        except (ValueError, EOFError, zlib.error, OverflowError, IndexError, MemoryError, TypeError) as error:
            raise DataError(f"{file} is not in LIBSVM's format, or damaged: {' '.join(str(error).split())}") from error
        if not matrix.shape[0]:
            raise DataError(f"{file} has no rows")
        if matrix.nnz and not 0 <= int(matrix.indices.min()) <= matrix.shape[1] <= _MOST_COLUMNS:
            raise DataError(f"{file} has columns up to {matrix.shape[1]}")
        if not np.isfinite(matrix.data).all():
            row = int(np.searchsorted(matrix.indptr, int((~np.isfinite(matrix.data)).argmax()), side="right")) - 1
            raise DataError(f"{file}, row {row}: a feature must be finite")
        matrices.append(matrix)
        labels.append(some)
    if not any(matrix.nnz for matrix in matrices):
        raise DataError(f"{' and '.join(map(str, files))} has no value in any column")
    if min(int(matrix.indices.min()) for matrix in matrices if matrix.nnz):  # columns count from 1 in all files
        for matrix in matrices:
            matrix.indices -= 1
            matrix.resize(matrix.shape[0], max(1, matrix.shape[1] - 1))
    widest = max(matrix.shape[1] for matrix in matrices)
    if n_features is not None and widest > n_features:
        raise DataError(f"{' and '.join(map(str, files))} has {widest} columns, n_features is {n_features}")
    for matrix in matrices:
        matrix.resize(matrix.shape[0], n_features or widest)
    return vstack(matrices, format="csr"), np.concatenate(labels), len(labels[0])
