"""Which rows are for training, for validation and for testing.

The split settings are typed once, as `SplitSettings`. A source takes them as `**settings: Unpack[SplitSettings]`, which
is not the open `**kwargs` where a typo disappears: a type checker knows each name, and `check_settings` refuses any
other before data are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import as_rows, check_whole, rows_in
from torchal.data.values import composed, in_order
from torchal.errors import ConfigError, DataError
from torchal.protocols import UNLABELED

if TYPE_CHECKING:
    from typing_extensions import Unpack

Rows: TypeAlias = Sequence[int] | NDArray[Any] | Tensor

PARTS = ("train", "validation", "test")
THIRDS = (2 / 3, 1 / 6, 1 / 6)
SUM_TOLERANCE = 2e-3  # a config file says 0.667, 0.167, 0.167
_IMBALANCES = ("long_tail", "step", "last")


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
            the last; "step", where it is 1 / imbalance for the second half of the classes; or "last", where it is that
            for the last class alone. "long_tail" unless given.
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


class Cut(NamedTuple):
    """Which rows are in which part, and what their classes are."""

    rows: list[NDArray[Any]]
    """Of the source, for each of `PARTS`, in the order in which they stand there."""
    targets: NDArray[Any]
    """(M,) int64: the class of every row of the source; `UNLABELED` where it is none of the task's."""
    class_names: tuple[str, ...]
    """Of the classes 0 to C - 1."""


def cut(labels: NDArray[Any], *, class_names: Sequence[str] | None = None, **settings: Unpack[SplitSettings]) -> Cut:
    """Return which rows are in which part.

    Args:
        labels: of all rows, (M,), as `torchal.data.values.as_classes` returns them.
        class_names: names of the sorted distinct labels; the labels themselves unless given.
        settings: see `SplitSettings`; how values are scaled does not matter here.

    Raises:
        ConfigError: a setting is unknown or impossible.
        DataError: there is one class, or there are too few rows.
        ShapeError: explicit rows repeat or lie outside the source.
    """
    check_settings(settings)
    values, codes = np.unique(labels, return_inverse=True)
    order = in_order(values)
    values, codes = values[order], order.argsort()[codes]
    names = [str(value) for value in values] if class_names is None else list(class_names)
    if len(names) != len(values):
        raise ConfigError(f"class_names must name the {len(values)} classes, got {len(names)} names")
    if len(values) < 2:
        raise DataError(f"two classes are needed, but every one of {len(labels)} labels is {names[0]!r}")
    keep, ood = settings.get("keep"), settings.get("ood")
    kept = _kept_classes("keep", values, names, keep)
    is_ood = np.zeros_like(kept) if ood is None else _kept_classes("ood", values, names, ood) & kept
    if (kept & ~is_ood).sum() < 2:
        raise ConfigError(f"ood={list(ood or ())} must leave at least two classes of {', '.join(names)}")
    seed, max_rows = settings.get("seed", 0), settings.get("max_rows")
    imbalance, kind = settings.get("imbalance"), settings.get("imbalance_kind", "long_tail")
    check_imbalance(imbalance, kind)
    if has_explicit_rows(settings):
        if max_rows is not None:
            raise ConfigError(f"max_rows={max_rows} cannot go with explicit rows: shorten the lists instead")
        parts = [rows[kept[codes[rows]]] for rows in explicit_rows(settings, n_rows=len(labels))]
        if len(parts[0]) == 0:
            raise DataError("train_rows has no row" + ("" if keep is None else f" of the classes in keep={list(keep)}"))
    else:
        fractions = settings.get("fractions", THIRDS)
        parts = _shuffled_rows(np.flatnonzero(kept[codes]), seed=seed, fractions=fractions, max_rows=max_rows)
    is_class = kept & ~is_ood
    parts[1:] = [part[is_class[codes[part]]] for part in parts[1:]]
    targets = np.where(is_class, np.cumsum(is_class) - 1, UNLABELED)[codes].astype(np.int64)
    left = tuple(str(each) for each, is_one in zip(names, is_class, strict=True) if is_one)
    if imbalance is not None:
        parts[0] = _imbalanced(parts[0], targets, left, seed=seed, ratio=float(imbalance), kind=kind)
    return Cut(parts, targets, left)


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
        ConfigError: a setting is impossible, or there are explicit rows, which say already what the test part is.
        DataError: as `make_splits`.
    """
    if has_explicit_rows(settings):
        raise ConfigError("official_test=True cannot go with explicit rows: they say what the test part is")

    def draw(labels: NDArray[Any], fractions: Sequence[float], max_rows: int | None) -> list[NDArray[Any]]:
        # ood and imbalance are of the parts that come out of here
        only: SplitSettings = {**settings, "fractions": fractions, "max_rows": max_rows, "ood": None, "imbalance": None}
        return cut(labels, class_names=None if names is None else names(labels), **only).rows

    train, validation, _ = draw(
        labels[:n_train], _without_test(settings.get("fractions", THIRDS)), settings.get("max_rows")
    )
    test = np.arange(n_train, len(labels))
    if test_limit is not None:
        test = n_train + draw(labels[n_train:], (1, 0, 0), test_limit)[0]
    return {**settings, "max_rows": None, "train_rows": train, "validation_rows": validation, "test_rows": test}


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
    return any(settings.get(f"{part}_rows") is not None for part in PARTS)


def _without_test(fractions: Sequence[float]) -> list[float]:
    """Return the shares with that of test shared out; impossible ones as they are, for make_splits to refuse."""
    shares = list(fractions)
    possible = len(shares) == 3 and all(share >= 0 for share in shares) and abs(sum(shares) - 1) <= SUM_TOLERANCE
    if not possible or shares[0] == 0:
        return shares
    both = shares[0] + shares[1]
    return [shares[0] / both, shares[1] / both, 0]


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
    first = {"step": n_classes // 2, "last": n_classes - 1}.get(kind)
    falling = np.linspace(0, 1, n_classes) if first is None else np.arange(n_classes) >= first
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
        len(shares) != len(PARTS)
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
    empty = [part for part, size, share in zip(PARTS, sizes, shares, strict=True) if share and not size]
    if empty:
        raise DataError(f"{n} rows are too few for fractions {shares}: no row is left for {' and '.join(empty)}")
    return sizes


def explicit_rows(settings: SplitSettings, *, n_rows: int) -> list[NDArray[Any]]:
    """Return the rows of each part that the settings list.

    Raises:
        ConfigError: a part is not given, or two parts share a row.
        ShapeError: rows repeat or lie outside the source.
    """
    given = {part: settings.get(f"{part}_rows") for part in PARTS}
    missing = [f"{part}_rows" for part, rows in given.items() if rows is None]
    if missing:
        raise ConfigError(
            f"train_rows, validation_rows and test_rows go together, but {', '.join(missing)} is not given"
        )
    parts = []
    for part, rows in given.items():
        listed: Any = rows if isinstance(rows, Tensor | np.ndarray) else list(rows)  # type: ignore[call-overload]
        parts.append(as_rows(f"{part}_rows", listed, n_rows=n_rows, device=torch.device("cpu")).numpy())
    owner = np.full(n_rows, -1)
    for i, (part, rows) in enumerate(zip(PARTS, parts, strict=True)):
        shared = rows[owner[rows] >= 0]
        if len(shared):
            other = PARTS[owner[shared[0]]]
            raise ConfigError(
                f"{part}_rows and {other}_rows must be disjoint: {len(shared)} of {len(rows)} rows are in an earlier "
                f"part, the first is row {shared[0]}"
            )
        owner[rows] = i
    return parts
