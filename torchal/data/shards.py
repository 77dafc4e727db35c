"""A pool in shards, as `torchal.embed` writes them: its rows stay in their files, and only its labels are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torchal._checks import check_share, check_whole, rows_in
from torchal.data.splits import Splits
from torchal.data.values import as_classes, in_order
from torchal.embedding.shards import ShardedFeatures, open_shards
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.pool.file_inputs import FileInputs
from torchal.pool.labels import LabeledData
from torchal.protocols import UNLABELED

_LABELS_AT_ONCE = 1 << 16
_MOST_CLASSES = 1 << 16
_MOST_TEST_BYTES = 1 << 32


def shards(
    path: str | os.PathLike[str],
    *,
    test_path: str | os.PathLike[str],
    target: str = "label",
    validation_fraction: float = 0.0,
    test_limit: int | None = None,
    seed: int = 0,
) -> Splits:
    """Open a folder of shards as the training part, which may be larger than memory, and read another one for testing.

    Rows of the training part are read from their files whenever they are wanted (`torchal.pool.FileInputs`), on several
    ranks each its own. What is in memory of each are its number and its label, which is a column of the Parquet files
    beside the shards: `torchal.embed(..., ids={"image_path": ..., "label": ...})` writes one. Features are what they
    are: nothing is scaled.

    Args:
        path: the folder, or a pattern, of the training rows; see `torchal.embedding.open_shards`.
        test_path: that of the others, of which the labeled ones are read into memory.
        target: the column with the labels: whole numbers or text. A row without one (null) the oracle cannot label.
        validation_fraction: the share of these rows that are for validation and not for testing, drawn at random.
        test_limit: use at most this many of these rows, drawn at random.
        seed: of what is drawn.

    Raises:
        ConfigError: a setting is impossible; the two folders are one; there is no such column; the test part
            would take more than 4 GiB.
        DataError: a folder has no shards or no metadata, or cannot be read; fewer than two classes, or a training part
            without labels; labels that are no classes; rows for testing that are not finite.
        ShapeError: the two have different columns.
        MissingExtraError: Parquet needs pyarrow, which is not installed.

    Complexity:
        One pass over the column of labels, and over the rows for testing.

    Example:
        >>> import tempfile, torchal
        >>> from torch.utils.data import TensorDataset
        >>> folder = Path(tempfile.mkdtemp())
        >>> for part, n in (("train", 30), ("test", 10)):
        ...     rows = TensorDataset(torch.rand(n, 3))
        ...     ids = {"label": ["cat", "dog"] * (n // 2)}
        ...     _ = torchal.embed(
        ...         torch.nn.Linear(3, 4), rows, out=folder / part, shard_rows=20, ids=ids, progress=False
        ...     )
        >>> data = shards(folder / "train", test_path=folder / "test", validation_fraction=0.3)
        >>> data.train.inputs, data.class_names, len(data.validation.targets), data.test.inputs.shape
        (FileInputs(FileRows(30 x 3 of torch.float32 in 2 files)), ('cat', 'dog'), 3, torch.Size([7, 3]))
    """
    check_share("validation_fraction", validation_fraction)
    check_whole("seed", seed, least=0)
    if test_limit is not None:
        check_whole("test_limit", test_limit, least=1)
    if os.path.realpath(path) == os.path.realpath(test_path):
        raise ConfigError(f"path and test_path are both {path}: a model would be tested on what it has learned")
    train, test = open_shards(path), open_shards(test_path)
    if train.n_columns != test.n_columns:
        raise ShapeError(f"{path} has rows of {train.n_columns} columns, {test_path} of {test.n_columns}")
    known: dict[Any, int] = {}
    seen, of_test = (_codes(found, target, known) for found in (train, test))
    names, place = _classes(list(known), target, path)
    seen, of_test = place[seen], place[of_test]
    if not bool((seen != UNLABELED).any()):
        raise DataError(f"none of {len(train)} rows of {path} has a {target}")
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(of_test != UNLABELED))[:test_limit]
    n_validation = rows_in(validation_fraction, len(rows))
    if n_validation == len(rows):
        raise DataError(f"{test_path} has {len(rows)} rows with a {target}: none is left for testing")
    n_bytes = 4 * len(rows) * test.n_columns
    if n_bytes > _MOST_TEST_BYTES:
        raise ConfigError(
            f"rows for testing are read into memory, and {len(rows)} x {test.n_columns} numbers take "
            f"{n_bytes / 2**30:.1f} GiB, of at most {_MOST_TEST_BYTES / 2**30:.0f}: test_limit= takes fewer, at random"
        )
    inputs = FileInputs(test.features())
    parts = [torch.from_numpy(np.sort(part)) for part in (rows[:n_validation], rows[n_validation:])]
    labels = torch.from_numpy(of_test)
    validation, testing = (LabeledData(inputs[part], labels[part]) for part in parts)
    return Splits(
        LabeledData(FileInputs(train.features()), torch.from_numpy(seen)),
        validation,
        testing,
        torch.arange(len(train)),
        parts[0],
        parts[1],
        class_names=names,
        name=Path(path).name,
    )


def _codes(found: ShardedFeatures, column: str, known: dict[Any, int]) -> NDArray[np.int64]:
    """Return the number of each row's label in the order in which labels were first seen, UNLABELED where it has none.

    Args:
        found: the shards.
        column: of the labels.
        known: the labels seen so far with their numbers; those that are new are put there.
    """
    codes = np.empty(len(found), dtype=np.int64)
    for start in range(0, len(found), _LABELS_AT_ONCE):
        stop = min(start + _LABELS_AT_ONCE, len(found))
        labels = found.ids(np.arange(start, stop), column)
        numbers = (UNLABELED if label is None else known.setdefault(label, len(known)) for label in labels)
        codes[start:stop] = np.fromiter(numbers, np.int64, stop - start)
        if len(known) > _MOST_CLASSES:
            raise DataError(f"the column {column!r} has more than {_MOST_CLASSES} different values: they are no labels")
    return codes


def _classes(labels: list[Any], target: str, path: str | os.PathLike[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return names of the classes in their order, and the class of each label, with UNLABELED behind them."""
    if len(labels) < 2:
        which = f"every label is {str(labels[0])!r}" if labels else "there are no labels"
        raise DataError(f"{path}: two classes are needed, and {which} in the column {target!r}")
    real = next((label for label in labels if isinstance(label, float) and not label.is_integer()), None)
    if real is not None:
        raise DataError(
            f"{path}: the column {target!r} must be classes, and has {real}: regression is not supported, and a row "
            "without a label has null"
        )
    distinct = as_classes(f"the column {target!r}", np.asarray(labels), n_rows=len(labels))
    values, codes = np.unique(distinct, return_inverse=True)
    order = in_order(values)
    place = np.append(order.argsort()[codes], UNLABELED).astype(np.int64)  # what has the number -1 is the last
    return tuple(str(value) for value in values[order]), place
