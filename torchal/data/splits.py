"""Cut labeled data into a training, a validation and a test part.

Every source ends here, so that every data set is split, filtered and scaled in one way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import check_flag
from torchal.data.cut import PARTS, Cut, SplitSettings, check_settings, cut, explicit_rows, has_explicit_rows
from torchal.data.values import as_classes, as_inputs, column_of, find_not_finite
from torchal.errors import ConfigError, DataError
from torchal.pool.file_inputs import FileInputs
from torchal.pool.inputs import SparseInputs
from torchal.pool.labels import LabeledData
from torchal.pool.pool import Pool
from torchal.protocols import UNLABELED, Inputs

if TYPE_CHECKING:
    from typing_extensions import Unpack

_COMPARED = 100_000  # rows; of more, many differ by less than float32 has digits by chance alone
_STILL_APART = 0.9  # part of the different values that must remain


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set in three disjoint parts. The labels of the training part are what a simulation hides.

    Args:
        train, validation, test: the parts.
        train_rows, validation_rows, test_rows: each row's number in the source, before any row was left out.
        class_names: names of the labels 0 to C - 1.
        name: what the data set is called.
        true_targets: the training labels as they are, where `train.targets` are not
            (`torchal.data.with_label_noise`).
        unlabeled: rows of the source without a label, where it has any. They are in no part.
        unlabeled_rows: their numbers in the source.
        columns: what became of the columns of a table that are not only numbers (`torchal.data.dataframe`).
        documents: the N training rows as people read them, where they are texts.
        image_shape: (channels, height, width) of a row that is an image, where its own shape does not say it.

    Shapes:
        true_targets: (N,) int64.
        unlabeled: (U, ...) float32.
        unlabeled_rows: (U,) int64.
        train.inputs: (N, ...) float32, and likewise validation and test.
        train.targets: (N,) int64.
        train_rows: (N,) int64.

    Example:
        >>> data = make_splits(torch.rand(12, 2), [3, 7] * 6, name="dice")
        >>> len(data.train.targets), len(data.validation.targets), len(data.test.targets), data.class_names
        (8, 2, 2, ('3', '7'))
    """

    train: LabeledData
    validation: LabeledData
    test: LabeledData
    train_rows: Tensor
    validation_rows: Tensor
    test_rows: Tensor
    class_names: tuple[str, ...]
    name: str
    true_targets: Tensor | None = None
    unlabeled: Inputs | None = None
    unlabeled_rows: Tensor | None = None
    columns: dict[str, Any] | None = None
    documents: Sequence[str] | None = None
    image_shape: tuple[int, int, int] | None = None

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def to(self, device: torch.device | str) -> Splits:
        """Return the splits with every tensor on `device`; inputs that are not one tensor stay where they are."""
        parts: dict[str, Any] = {}
        for part in PARTS:
            inputs, targets = getattr(self, part)
            # rows in files are on the CPU, and so is what samplers compute of them
            where = "cpu" if isinstance(inputs, FileInputs) else device
            parts[part] = LabeledData(inputs.to(device) if isinstance(inputs, Tensor) else inputs, targets.to(where))
            parts[f"{part}_rows"] = getattr(self, f"{part}_rows").to(where)
        for name in ("true_targets", "unlabeled", "unlabeled_rows"):
            value = getattr(self, name)
            parts[name] = value.to(device) if isinstance(value, Tensor) else value
        return replace(self, **parts)

    def pool(self) -> Pool:
        """Return the training part as a pool with no label bought yet."""
        return Pool.unlabeled(self.train.inputs, n_classes=self.n_classes, source_rows=self.train_rows)

    def query_pool(self) -> Pool:
        """Return the training part, labeled, and the rows without a label after it: what a person is to be asked about.

        Raises:
            DataError: every row has a label.

        Example:
            >>> from torchal.data import dataframe
            >>> import pandas as pd
            >>> data = dataframe(pd.DataFrame({"x": range(20), "kind": ["a", "b", None, "a", "b"] * 4}), target="kind")
            >>> pool = data.query_pool()
            >>> len(pool), pool.n_labeled, pool.source_rows[pool.candidates].tolist()
            (14, 10, [2, 7, 12, 17])
        """
        if self.unlabeled is None or self.unlabeled_rows is None:
            raise DataError(f"every row of {self.name} has a label: nothing is left to ask about")
        known: Any = self.train.inputs
        others: Any = self.unlabeled
        if isinstance(known, Tensor):
            joined: Inputs = torch.cat([known, others])
        else:
            from scipy.sparse import vstack

            joined = SparseInputs(vstack([known.matrix, others.matrix]))
        targets = torch.cat([self.train.targets, torch.full_like(self.unlabeled_rows, UNLABELED)])
        rows = torch.cat([self.train_rows, self.unlabeled_rows])
        return Pool(joined, targets, n_classes=self.n_classes, source_rows=rows)

    def oracle(self) -> Callable[[Tensor], Tensor]:
        """Return the simulated oracle: it answers rows (n,) of the pool with their hidden labels (n,).

        Rows of classes that are none of the task's (`ood`) it cannot label: `UNLABELED`.

        Example:
            >>> data = make_splits(torch.rand(12, 2), [3, 7] * 6, name="dice")
            >>> bool((data.oracle()(torch.tensor([5, 0])) == data.train.targets[[5, 0]]).all())
            True
        """
        targets = self.train.targets
        return lambda rows: targets[rows.to(targets.device)]


def make_splits(
    inputs: object,
    labels: object,
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Cut inputs and labels into a training, a validation and a test part, shuffled by a seed.

    The labels may be any whole numbers or text; sorted (as numbers where all of them are), they become the classes 0
    to C - 1. Text that is written in two ways, as "1" and "1.0", is two classes; only how Unicode composes a letter
    does not count. What is left out by `keep` takes no part in that. Scaling is computed in float64; values that
    float32 cannot tell apart after it are warned of.

    Args:
        inputs: rows of numbers; a tensor, an array or nested lists.
        labels: one label per row.
        name: what the data set is called.
        class_names: names of the sorted distinct labels; the labels themselves unless given.
        settings: see `SplitSettings`.

    Shapes:
        inputs: (M, ...) of two or more axes.
        labels: (M,).

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: inputs are not finite, labels are not classes, there is one class, or too few rows for the fractions.
        ShapeError: inputs and labels disagree in rows; explicit rows repeat or lie outside the source.

    Reference:
        The sizes are those of google/active-learning, `utils.get_train_val_test_splits`: int(2/3 M), int(1/6 M) and the
        rest. Deviation: it shuffles three times and until its start set holds each class; here it is shuffled once,
        and a start set is drawn afterwards by `start_rows`.

    Example:
        >>> x = torch.arange(24.0).reshape(12, 2)
        >>> data = make_splits(x, ["no", "yes", "perhaps"] * 4, name="answers", keep=["no", "yes"], standardize=True)
        >>> data.class_names, data.train_rows.tolist()
        (('no', 'yes'), [3, 6, 4, 9, 7])
        >>> data.train.inputs.mean(0).abs() < 1e-6
        tensor([True, True])
    """
    check_settings(settings)
    array = as_inputs("inputs", inputs)
    parts = cut(as_classes("labels", labels, n_rows=len(array)), class_names=class_names, **settings)
    rows = np.concatenate(parts.rows)
    return _gathered(parts, _scaled(array[rows], len(parts.rows[0]), settings), name=name)


def split_fitted(
    labels: NDArray[Any],
    make_inputs: Callable[[NDArray[Any]], Any],
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    has_label: NDArray[np.bool_] | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Cut rows into parts where the inputs depend on which rows are for training.

    Args:
        labels: one per row, as `torchal.data.values.as_classes` returns them.
        make_inputs: told the rows for training, (N,), returns the values of all rows, a finite array or a sparse
            matrix.
        name: what the data set is called.
        class_names: as of `make_splits`.
        has_label: rows with a label, (M,); the others are in no part but in `unlabeled`, and `labels` leaves them out.
        settings: as of `make_splits`; standardizing would make sparse rows dense and is refused there.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError, ShapeError: as `make_splits`.
    """
    if has_label is None or has_label.all():
        parts, others = cut(labels, class_names=class_names, **settings), np.empty(0, dtype=np.int64)
    else:
        known, others = np.flatnonzero(has_label), np.flatnonzero(~has_label)
        if has_explicit_rows(settings):  # they count all rows, and those without a label drop out
            place = np.where(has_label, np.cumsum(has_label) - 1, -1)
            listed = [place[rows] for rows in explicit_rows(settings, n_rows=len(has_label))]
            train, validation, test = (rows[rows >= 0] for rows in listed)
            settings = {**settings, "train_rows": train, "validation_rows": validation, "test_rows": test}
        parts = cut(labels, class_names=class_names, **settings)
        targets = np.full(len(has_label), UNLABELED)
        targets[known] = parts.targets
        parts = Cut([known[rows] for rows in parts.rows], targets, parts.class_names)
    values = make_inputs(parts.rows[0])
    rows = np.concatenate([*parts.rows, others])
    if isinstance(values, np.ndarray):
        return _gathered(parts, _scaled(values[rows], len(parts.rows[0]), settings), name=name, unlabeled=others)
    if settings.get("standardize"):
        raise ConfigError("standardize=true would make sparse rows dense; normalize=true keeps them sparse")
    check_flag("normalize", settings.get("normalize", False))
    matrix = values.tocsr()[rows]
    if settings.get("normalize"):
        from sklearn.preprocessing import normalize

        matrix = normalize(matrix)
    return _gathered(parts, matrix.astype(np.float32), name=name, unlabeled=others)


def _gathered(parts: Cut, values: Any, *, name: str, unlabeled: NDArray[Any] | None = None) -> Splits:
    """Return splits of values that begin with the rows of the parts and end with those without a label."""
    others = np.empty(0, dtype=np.int64) if unlabeled is None else unlabeled
    sizes = [len(part) for part in parts.rows]
    ends = np.cumsum([0, *sizes, len(others)])
    gathered: Any = torch.from_numpy(values) if isinstance(values, np.ndarray) else SparseInputs(values)

    train, validation, test = (
        LabeledData(gathered[start:end], torch.from_numpy(parts.targets[rows]))
        for rows, start, end in zip(parts.rows, ends[:3], ends[1:4], strict=True)
    )
    train_rows, validation_rows, test_rows = (torch.from_numpy(rows) for rows in parts.rows)
    return Splits(
        train,
        validation,
        test,
        train_rows,
        validation_rows,
        test_rows,
        class_names=parts.class_names,
        name=name,
        unlabeled=gathered[ends[3] :] if len(others) else None,
        unlabeled_rows=torch.from_numpy(others) if len(others) else None,
    )


def _warn_of_rounding(inputs: NDArray[Any], rounded: NDArray[Any], *, is_scaled: bool) -> None:
    """Warn of the first column in which many values that differ became one in float32."""
    if inputs.dtype.kind == "b" or inputs.dtype.itemsize < 4 or inputs.dtype == np.float32:
        return
    before, after = (part[:_COMPARED].reshape(min(len(part), _COMPARED), -1) for part in (inputs, rounded))
    for column in range(before.shape[1]):
        x, y = before[:, column], after[:, column]
        if not is_scaled and (y.astype(np.float64) == x).all():
            continue
        n_before, n_after = (len(np.unique(part)) for part in (x, y))
        if n_after < _STILL_APART * n_before:
            remedy = (
                "take off an offset, or split the column" if is_scaled else "standardize=True scales before rounding"
            )
            place = column_of((0, *map(int, np.unravel_index(column, inputs.shape[1:]))))
            warnings.warn(
                f"column {place} of the inputs: {n_before} different values, {x.min()} to {x.max()}, became {n_after} "
                f"in float32; {remedy}",
                UserWarning,
                stacklevel=2,
            )
            return


def _scaled(inputs: NDArray[Any], n_train: int, settings: SplitSettings) -> NDArray[Any]:
    """Return inputs as float32, scaled in float64 by what the first n_train rows say."""
    normalize, standardize = settings.get("normalize", False), settings.get("standardize", False)
    check_flag("normalize", normalize)
    check_flag("standardize", standardize)
    scaled = inputs
    if normalize or standardize:
        from sklearn import preprocessing

        flat = inputs.reshape(len(inputs), -1).astype(np.float64)
        if normalize:
            flat = preprocessing.normalize(flat, copy=False)
        if standardize:
            scaler = preprocessing.StandardScaler(copy=False).fit(flat[:n_train])
            flat = scaler.transform(flat)
        scaled = flat.reshape(inputs.shape)
    with np.errstate(over="ignore"):  # said below, with the value
        result = scaled.astype(np.float32)
    place = find_not_finite(result)
    if place is not None:
        raise DataError(f"inputs must fit float32: column {column_of(place)} has {scaled[place]}; rescale it")
    _warn_of_rounding(inputs, result, is_scaled=normalize or standardize)
    return result
