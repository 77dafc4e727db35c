"""Cut labeled data into a training, a validation and a test part.

Every source ends here, so that every data set is split, filtered and scaled in one way. The split settings are typed
once, as `SplitSettings`. A source takes them as `**settings: Unpack[SplitSettings]`, which is not the open `**kwargs`
where a typo disappears: a type checker knows each name, and `check_settings` refuses any other before data are read.
"""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import as_rows, check_flag, check_whole, rows_in
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.pool.inputs import SparseInputs
from torchal.pool.labels import LabeledData
from torchal.pool.pool import Pool
from torchal.protocols import UNLABELED

if TYPE_CHECKING:
    from typing_extensions import Unpack

Rows: TypeAlias = Sequence[int] | NDArray[Any] | Tensor

THIRDS = (2 / 3, 1 / 6, 1 / 6)
_PARTS = ("train", "validation", "test")
_IMBALANCES = ("long_tail", "step")
_EXACT_INTEGERS = 2.0**53  # float64 holds every whole number up to here
_COMPARED = 100_000  # rows; of more, many differ by less than float32 has digits by chance alone
_STILL_APART = 0.9  # part of the different values that must remain
SUM_TOLERANCE = 2e-3  # a config file says 0.667, 0.167, 0.167


class SplitSettings(TypedDict, total=False):
    """How to choose, split and scale rows: what every source takes beside its own settings.

    Keys:
        seed: seeds the shuffle; 0 unless given.
        fractions: shares of training, validation and test, which sum to 1 (within 0.002). Training and validation are
            rounded down and test is the rest, or training where the share of test is 0. 2/3, 1/6, 1/6 unless given.
        max_rows: use at most this many rows, drawn at random after `keep`.
        keep: use only these classes, by label or by class name.
        normalize: scale every row to unit L2 norm, before `standardize`.
        standardize: scale every column to mean 0 and variance 1 over the training part; a column that is constant
            there is only centred.
        train_rows, validation_rows, test_rows: source rows of each part, all three together, in place of `fractions`
            and `max_rows`. Rows outside `keep` are dropped from them.
        ood: classes that are none of the task's, by label or by class name. Their rows stay in the training part, where
            the oracle cannot label them (`UNLABELED`); validation and test lose them.
        imbalance: how many times rarer the rarest class of the training part becomes than it is, by rows left out at
            random; at least 1. Validation and test stay as they are.
        imbalance_kind: "long_tail", where the share that is kept falls evenly in its logarithm from the first class to
            the last, or "step", where it is 1 / imbalance for the second half of the classes. "long_tail" unless given.
    """

    seed: int
    fractions: Sequence[float]
    max_rows: int | None
    keep: Sequence[int | str] | None
    normalize: bool
    standardize: bool
    train_rows: Rows | None
    validation_rows: Rows | None
    test_rows: Rows | None
    ood: Sequence[int | str] | None
    imbalance: float | None
    imbalance_kind: str


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

    Shapes:
        true_targets: (N,) int64.
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

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def to(self, device: torch.device | str) -> Splits:
        """Return the splits with every tensor on `device`; inputs that are not one tensor stay where they are."""
        parts: dict[str, Any] = {}
        for part in _PARTS:
            inputs, targets = getattr(self, part)
            parts[part] = LabeledData(inputs.to(device) if isinstance(inputs, Tensor) else inputs, targets.to(device))
            parts[f"{part}_rows"] = getattr(self, f"{part}_rows").to(device)
        parts["true_targets"] = None if self.true_targets is None else self.true_targets.to(device)
        return replace(self, **parts)

    def pool(self) -> Pool:
        """Return the training part as a pool with no label bought yet."""
        return Pool.unlabeled(self.train.inputs, n_classes=self.n_classes, source_rows=self.train_rows)

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
    return _split(array, as_classes("labels", labels, n_rows=len(array)), name=name, names=class_names, **settings)


def check_settings(settings: Iterable[str], *own: str) -> None:
    """Require that every setting is one of `SplitSettings`; `own` are the further ones of a source, for the message.

    Raises:
        ConfigError: one is not; the message names those there are.
    """
    valid = [*own, *SplitSettings.__annotations__]
    unknown = [key for key in settings if key not in valid]
    if unknown:
        raise ConfigError(f"unknown setting {', '.join(map(repr, unknown))}; the settings are {', '.join(valid)}")


def has_explicit_rows(settings: SplitSettings) -> bool:
    """Tell whether the rows of the parts are listed."""
    return any(settings.get(f"{part}_rows") is not None for part in _PARTS)


def with_official_test(
    labels: NDArray[Any],
    n_train: int,
    *,
    test_limit: int | None,
    settings: SplitSettings,
    names: Callable[[NDArray[Any]], Sequence[str]] | None = None,
) -> SplitSettings:
    """Return settings by which the rows from n_train on are the test part, and fractions and max_rows of the others.

    Args:
        labels: of all rows.
        n_train: how many rows are officially for training.
        test_limit: use at most this many of the others, drawn by the seed after `keep`.
        settings: without explicit rows.
        names: returns the names of the sorted distinct labels among some; the labels themselves unless given.

    Raises:
        ConfigError, DataError: as `make_splits`.
    """

    def draw(labels: NDArray[Any], fractions: Sequence[float], max_rows: int | None) -> Splits:
        only: SplitSettings = {
            **settings,
            "fractions": fractions,
            "max_rows": max_rows,
            "normalize": False,
            "standardize": False,
            "ood": None,  # these two are of the parts that come out of here
            "imbalance": None,
        }
        class_names = None if names is None else names(labels)
        return make_splits(np.zeros((len(labels), 1), np.uint8), labels, name="rows", class_names=class_names, **only)

    train = draw(labels[:n_train], _without_test(settings.get("fractions", THIRDS)), settings.get("max_rows"))
    test_rows = torch.arange(n_train, len(labels))
    if test_limit is not None:
        test_rows = n_train + draw(labels[n_train:], (1, 0, 0), test_limit).train_rows
    return {
        **settings,
        "max_rows": None,
        "train_rows": train.train_rows,
        "validation_rows": train.validation_rows,
        "test_rows": test_rows,
    }


def _without_test(fractions: Sequence[float]) -> list[float]:
    """Return the shares with that of test shared out; impossible ones as they are, for make_splits to refuse."""
    shares = list(fractions)
    possible = len(shares) == 3 and all(share >= 0 for share in shares) and abs(sum(shares) - 1) <= SUM_TOLERANCE
    if not possible or shares[0] == 0:
        return shares
    both = shares[0] + shares[1]
    return [shares[0] / both, shares[1] / both, 0]


def split_sparse(
    labels: object,
    make_inputs: Callable[[NDArray[Any]], Any],
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    **settings: Unpack[SplitSettings],
) -> Splits:
    """Cut rows that stay sparse into parts, where what the inputs are may depend on which rows are for training.

    Args:
        labels: one label per row, (M,).
        make_inputs: returns the sparse matrix (M, D) of all rows, told the rows of the training part (N,).
        name: what the data set is called.
        class_names: as of `make_splits`.
        settings: as of `make_splits`; standardizing would make the rows dense and is refused.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError, ShapeError: as `make_splits`.
    """
    if settings.get("standardize"):
        raise ConfigError("standardize=true would make sparse rows dense; normalize=true keeps them sparse")
    normalize = settings.pop("normalize", False)
    check_flag("normalize", normalize)
    labels = np.asarray(labels)
    numbers = np.arange(len(labels))[:, None]
    cut = make_splits(numbers, labels, name=name, class_names=class_names, **settings)
    matrix = make_inputs(cut.train_rows.numpy()).tocsr()
    if normalize:
        from sklearn.preprocessing import normalize as normalized

        matrix = normalized(matrix)
    parts: dict[str, Any] = {
        part: LabeledData(
            SparseInputs(matrix[getattr(cut, f"{part}_rows").numpy()].astype(np.float32)), getattr(cut, part).targets
        )
        for part in _PARTS
    }
    return replace(cut, **parts)


def as_inputs(what: str, inputs: object) -> NDArray[Any]:
    """Return inputs as an array (M, ...) of finite numbers.

    Raises:
        DataError: they are not numbers or not finite, or there are no rows or columns.
        ShapeError: there are fewer than two axes.
    """
    if isinstance(inputs, Tensor):
        inputs = inputs.detach().cpu()
        inputs = (inputs.float() if inputs.dtype == torch.bfloat16 else inputs).numpy()
    array = np.asarray(inputs)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{what} must be real numbers, got {array.dtype}")
    if array.ndim < 2:
        raise ShapeError(f"{what} must have a row axis and at least one more, got shape {array.shape}")
    if array.size == 0:
        raise DataError(f"{what} must have at least one row and one column, got shape {array.shape}")
    place = find_not_finite(array)
    if place is not None:
        raise DataError(f"{what} must be finite: row {place[0]}, column {_column(place)} is {array[place]}")
    return array


def as_classes(what: str, labels: object, *, n_rows: int) -> NDArray[Any]:
    """Return labels as an array (M,) of whole numbers where every label is one, else of text.

    Text is of whole numbers where each is written as a whole number is: two texts are never one class.

    Raises:
        DataError: a label is neither a whole number nor text.
        ShapeError: there is not one label per row.
    """
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1:
        raise ShapeError(f"{what} must have one axis, got shape {array.shape}: one label per row, not multi-label")
    if len(array) != n_rows:
        raise ShapeError(f"{what} must be one per row: {n_rows} rows of inputs, {len(array)} labels")
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array):
        array = array.astype(str)
    if array.dtype.kind not in "biufSU":
        raise DataError(f"{what} must be whole numbers or text, got {array.dtype}")
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{what} must be whole numbers or text, got bytes that are not UTF-8: {error}") from error
    values, codes = np.unique(array, return_inverse=True)
    if values.dtype.kind == "U":
        values = _as_whole_numbers(np.array([composed(value) for value in values]))
    if values.dtype.kind == "f":
        # comparisons with NaN are false, so this refuses NaN and infinity too
        fractional = ~((values == np.floor(values)) & (np.abs(values) <= _EXACT_INTEGERS))
        if fractional.any():
            row = int(fractional[codes].argmax())
            raise DataError(f"{what} must be classes, but row {row} has {array[row]}: regression is not supported")
        values = values.astype(np.int64)
    return np.asarray(values[codes])


def find_not_finite(array: NDArray[Any]) -> tuple[int, ...] | None:
    """Return the place (row, column, ...) of the first value that is NaN or infinite, or None."""
    if array.dtype.kind != "f":
        return None
    finite = np.isfinite(array)
    if finite.all():
        return None
    return tuple(int(i) for i in np.unravel_index(finite.argmin(), array.shape))


def _column(place: tuple[int, ...]) -> int | tuple[int, ...]:
    return place[1] if len(place) == 2 else place[1:]


def composed(text: str) -> str:
    """Return text with its letters composed (Unicode's NFC), so that what looks the same is the same."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _as_whole_numbers(values: NDArray[Any]) -> NDArray[Any]:
    """Return text as whole numbers where all of it is just that, in the one way to write each."""
    with suppress(ValueError, OverflowError):
        numbers = values.astype(np.int64)
        if (numbers.astype(str) == values).all():
            return np.asarray(numbers)
    return values


def _in_order(values: NDArray[Any]) -> NDArray[Any]:
    """Return the order of distinct labels, (C,) int64: as numbers where all of them are, else as they are."""
    if values.dtype.kind != "U" or any("_" in value for value in values):  # Python reads "1_0" as 10
        return np.arange(len(values))
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return np.arange(len(values))
    return np.asarray(sorted(range(len(values)), key=lambda i: (numbers[i], str(values[i]))))


def _split(
    inputs: NDArray[Any],
    labels: NDArray[Any],
    *,
    name: str,
    names: Sequence[str] | None,
    seed: int = 0,
    fractions: Sequence[float] = THIRDS,
    max_rows: int | None = None,
    keep: Sequence[int | str] | None = None,
    normalize: bool = False,
    standardize: bool = False,
    train_rows: Rows | None = None,
    validation_rows: Rows | None = None,
    test_rows: Rows | None = None,
    ood: Sequence[int | str] | None = None,
    imbalance: float | None = None,
    imbalance_kind: str = "long_tail",
) -> Splits:
    values, codes = np.unique(labels, return_inverse=True)
    order = _in_order(values)
    values, codes = values[order], order.argsort()[codes]
    names = [str(value) for value in values] if names is None else list(names)
    if len(names) != len(values):
        raise ConfigError(f"class_names must name the {len(values)} classes, got {len(names)} names")
    if len(values) < 2:
        raise DataError(f"two classes are needed, but every one of {len(labels)} labels is {names[0]!r}")
    check_flag("normalize", normalize)
    check_flag("standardize", standardize)
    kept = _kept_classes("keep", values, names, keep)
    is_ood = np.zeros_like(kept) if ood is None else _kept_classes("ood", values, names, ood) & kept
    if (kept & ~is_ood).sum() < 2:
        raise ConfigError(f"ood={list(ood or ())} must leave at least two classes of {', '.join(names)}")
    check_imbalance(imbalance, imbalance_kind)
    given = dict(zip(_PARTS, (train_rows, validation_rows, test_rows), strict=True))
    if all(rows is None for rows in given.values()):
        parts = _shuffled_rows(np.flatnonzero(kept[codes]), seed=seed, fractions=fractions, max_rows=max_rows)
    else:
        if max_rows is not None:
            raise ConfigError(f"max_rows={max_rows} cannot go with explicit rows: shorten the lists instead")
        parts = [rows[kept[codes[rows]]] for rows in _explicit_rows(given, n_rows=len(inputs))]
        if len(parts[0]) == 0:
            raise DataError("train_rows has no row" + ("" if keep is None else f" of the classes in keep={list(keep)}"))
    is_class = kept & ~is_ood
    parts[1:] = [part[is_class[codes[part]]] for part in parts[1:]]
    targets = np.where(is_class, np.cumsum(is_class) - 1, UNLABELED)[codes]
    class_names = tuple(str(each) for each, is_one in zip(names, is_class, strict=True) if is_one)
    if imbalance is not None:
        parts[0] = _imbalanced(parts[0], targets, class_names, seed=seed, ratio=float(imbalance), kind=imbalance_kind)
    rows = np.concatenate(parts)
    scaled = _scaled(inputs[rows], n_train=len(parts[0]), normalize=normalize, standardize=standardize)
    _warn_of_rounding(inputs[rows], scaled, is_scaled=standardize or normalize)
    targets = targets[rows]
    sizes = [len(part) for part in parts]
    all_inputs = torch.from_numpy(scaled).split(sizes)
    all_targets = torch.from_numpy(targets.astype(np.int64)).split(sizes)
    train, validation, test = (LabeledData(x, y) for x, y in zip(all_inputs, all_targets, strict=True))
    source_rows = torch.from_numpy(rows).split(sizes)
    return Splits(train, validation, test, source_rows[0], source_rows[1], source_rows[2], class_names, name)


def check_imbalance(ratio: object, kind: object) -> None:
    """Require an imbalance that is possible."""
    if kind not in _IMBALANCES:
        raise ConfigError(f"imbalance_kind must be one of {', '.join(_IMBALANCES)}; got {kind!r}")
    if ratio is not None and (
        isinstance(ratio, bool) or not isinstance(ratio, Real) or not 1 <= float(ratio) < math.inf
    ):
        raise ConfigError(f"imbalance must be a number of at least 1, got {ratio!r}")


def _imbalanced(
    rows: NDArray[Any], targets: NDArray[Any], names: Sequence[str], *, seed: int, ratio: float, kind: str
) -> NDArray[Any]:
    """Return the training rows, in their order, without those that are left out of the rarer classes."""
    n_classes = len(names)
    falling = np.linspace(0, 1, n_classes) if kind == "long_tail" else np.arange(n_classes) >= n_classes // 2
    shares = ratio ** -falling.astype(np.float64)
    generator = np.random.default_rng([seed, 2])  # another stream than the split, which is drawn from the seed alone
    keeps = np.ones(len(rows), dtype=bool)
    for label in range(n_classes):
        places = np.flatnonzero(targets[rows] == label)
        n_kept = rows_in(float(shares[label]), len(places)) if shares[label] < 1 else len(places)
        if not n_kept:
            raise DataError(
                f"imbalance={ratio:g} leaves no row of class {names[label]!r} for training, where it has {len(places)}"
            )
        keeps[generator.permutation(places)[n_kept:]] = False
    return rows[keeps]


def _kept_classes(
    what: str, values: NDArray[Any], names: Sequence[str], keep: Sequence[int | str] | None
) -> NDArray[Any]:
    """Return which classes are kept, (C,) bool."""
    if keep is None:
        return np.ones(len(values), dtype=bool)
    if isinstance(keep, str) or not isinstance(keep, Sequence):
        raise ConfigError(f"{what} must be a list of labels, got {keep!r}")
    wanted = [composed(str(label)) for label in keep]
    known = {*map(str, values), *names}
    unknown = [label for label in wanted if label not in known]
    if unknown:
        raise ConfigError(f"{what} names {', '.join(unknown)}, which is not among the classes {', '.join(names)}")
    kept = np.array([str(value) in wanted or each in wanted for value, each in zip(values, names, strict=True)])
    if what == "keep" and kept.sum() < 2:
        raise ConfigError(f"keep must leave at least two classes, got {list(keep)}")
    return kept


def _shuffled_rows(
    rows: NDArray[Any], *, seed: int, fractions: Sequence[float], max_rows: int | None
) -> list[NDArray[Any]]:
    check_whole("seed", seed, least=0)
    if max_rows is not None:
        check_whole("max_rows", max_rows, least=1)
    rows = np.random.default_rng(seed).permutation(rows)[:max_rows]
    return np.split(rows, np.cumsum(_part_sizes(len(rows), fractions))[:2])


def _part_sizes(n: int, fractions: Sequence[float]) -> tuple[int, int, int]:
    """Return the sizes of the three parts of n rows."""
    shares = list(fractions)
    if (
        len(shares) != len(_PARTS)
        or not all(share >= 0 for share in shares)
        or not abs(sum(shares) - 1) <= SUM_TOLERANCE
    ):
        raise ConfigError(f"fractions must be three numbers of at least 0 that sum to 1, got {shares}")
    if shares[0] == 0:
        raise ConfigError(f"fractions must leave some rows for training, got {shares}")
    train, validation = (rows_in(share, n) for share in shares[:2])
    train = min(train, n)
    validation = min(validation, n - train)
    if shares[2] == 0:
        train = n - validation
    sizes = (train, validation, n - train - validation)
    empty = [part for part, size, share in zip(_PARTS, sizes, shares, strict=True) if share and not size]
    if empty:
        raise DataError(f"{n} rows are too few for fractions {shares}: no row is left for {' and '.join(empty)}")
    return sizes


def _explicit_rows(given: dict[str, Any], *, n_rows: int) -> list[NDArray[Any]]:
    missing = [f"{part}_rows" for part, rows in given.items() if rows is None]
    if missing:
        raise ConfigError(
            f"train_rows, validation_rows and test_rows go together, but {', '.join(missing)} is not given"
        )
    parts = []
    for part, rows in given.items():
        listed = rows if isinstance(rows, Tensor | np.ndarray) else list(rows)
        parts.append(as_rows(f"{part}_rows", listed, n_rows=n_rows, device=torch.device("cpu")).numpy())
    owner = np.full(n_rows, -1)
    for i, (part, rows) in enumerate(zip(_PARTS, parts, strict=True)):
        shared = rows[owner[rows] >= 0]
        if len(shared):
            other = _PARTS[owner[shared[0]]]
            raise ConfigError(
                f"{part}_rows and {other}_rows must be disjoint: {len(shared)} of {len(rows)} rows are in an earlier "
                f"part, the first is row {shared[0]}"
            )
        owner[rows] = i
    return parts


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
            place = _column((0, *map(int, np.unravel_index(column, inputs.shape[1:]))))
            warnings.warn(
                f"column {place} of the inputs: {n_before} different values, {x.min()} to {x.max()}, became {n_after} "
                f"in float32; {remedy}",
                UserWarning,
                stacklevel=2,
            )
            return


def _scaled(inputs: NDArray[Any], *, n_train: int, normalize: bool, standardize: bool) -> NDArray[Any]:
    """Return inputs as float32, scaled in float64 by what the first n_train rows say."""
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
        raise DataError(f"inputs must fit float32: column {_column(place)} has {scaled[place]}; rescale it")
    return result
