"""The rows that a simulation labels before its first query."""

from __future__ import annotations

import torch
from torch import Tensor

from torchal._checks import check_budget, check_whole
from torchal.errors import BudgetError, ConfigError, DataError, ShapeError

_WAYS = ("stratified", "playground")
_PLAYGROUND_ROWS_PER_CLASS = 6
_PLAYGROUND_MIN_PER_CLASS = 4
_MAX_SHUFFLES = 10_000


def start_rows(
    targets: Tensor,
    n: int,
    *,
    generator: torch.Generator,
    min_per_class: int = 2,
    how: str = "stratified",
) -> Tensor:
    """Draw a start set that holds every class. For simulation only: it reads the labels of all rows.

    "stratified" takes `min_per_class` rows of each class and shares out the rest in proportion to the rows that each
    class has left, by largest remainder (equal remainders: the lower class). Rows of a class are drawn at random.

    "playground" is google/active-learning's: shuffle the pool until its first max(n, 6 C) rows hold at least 4 of
    each of the C classes. It may return more than n rows.

    Args:
        targets: the label of every row of the pool; the classes are those that occur.
        n: number of rows.
        generator: the randomness; its device may differ from that of targets.
        min_per_class: the least rows of each class. "stratified" only.
        how: "stratified" or "playground".

    Shapes:
        targets: (N,) int64.

    Returns:
        Rows (n,) int64, distinct, in random order; (max(n, 6 C),) for "playground".

    Raises:
        BudgetError: n is below 1, above the number of rows, or too small for `min_per_class` rows of each class.
        ConfigError: `how` or `min_per_class` is impossible.
        DataError: a row has no label, or a class has too few rows; "playground" found no such shuffle in 10 000.
        ShapeError: targets are not (N,) int64.

    Reference:
        google/active-learning, `run_experiment.generate_one_curve` and `utils.get_train_val_test_splits`. Deviations of
        "playground": it shuffles the training part, not the whole data set; at least once, not three times; to a limit.

    Complexity:
        O(N log N) time and O(N) memory; "playground" O(N) for every shuffle.

    Example:
        >>> targets = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
        >>> rows = start_rows(targets, 8, generator=torch.Generator().manual_seed(0))
        >>> targets[rows].bincount()
        tensor([4, 2, 2])
    """
    if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.dtype != torch.int64:
        got = f"{targets.dtype} {tuple(targets.shape)}" if isinstance(targets, Tensor) else type(targets).__name__
        raise ShapeError(f"targets must be an (N,) int64 tensor, got {got}")
    if how not in _WAYS:
        raise ConfigError(f"how must be {' or '.join(map(repr, _WAYS))}, got {how!r}")
    check_whole("min_per_class", min_per_class, least=0)
    check_budget(n, len(targets))
    if int(targets.min()) < 0:
        raise DataError(
            f"a start set by class needs every label: {int((targets < 0).sum())} of {len(targets)} are missing"
        )
    # everything below is on the generator's device, so that the answer does not depend on where the targets are
    classes, codes, counts = targets.to(generator.device).unique(return_inverse=True, return_counts=True)
    if how == "playground":
        least, n = _PLAYGROUND_MIN_PER_CLASS, max(n, _PLAYGROUND_ROWS_PER_CLASS * len(classes))
        if n > len(targets):
            raise BudgetError(f"a start set for {len(classes)} classes takes {n} rows, the pool has {len(targets)}")
        _check_class_sizes(classes, counts, least)
        rows = _reshuffled(codes, n, len(classes), generator)
    else:
        _check_class_sizes(classes, counts, min_per_class)
        if n < min_per_class * len(classes):
            raise BudgetError(
                f"{n} rows are too few for {min_per_class} of each of {len(classes)} classes: "
                f"at least {min_per_class * len(classes)}"
            )
        rows = _drawn(codes, counts, _quotas(counts, n, min_per_class), generator)
    return rows.to(targets.device)


def _check_class_sizes(classes: Tensor, counts: Tensor, least: int) -> None:
    small = (counts < least).nonzero().squeeze(1)
    if len(small):
        first = int(small[0])
        raise DataError(
            f"the start set needs {least} rows of each class: {len(small)} of {len(classes)} classes have fewer, "
            f"class {int(classes[first])} has {int(counts[first])}"
        )


def _quotas(counts: Tensor, n: int, min_per_class: int) -> Tensor:
    """Return how many rows of each class to take, (C,).

    In whole numbers: a share of what is left of a class never exceeds it, not even when its remainder is rounded up.
    """
    left = counts - min_per_class
    total = max(int(left.sum()), 1)
    shares = left * (n - min_per_class * len(counts))
    quotas = min_per_class + shares // total
    largest = (shares % total).sort(descending=True, stable=True).indices
    quotas[largest[: n - int(quotas.sum())]] += 1
    return quotas


def _drawn(codes: Tensor, counts: Tensor, quotas: Tensor, generator: torch.Generator) -> Tensor:
    """Return the first rows of each class in one shuffle of all rows."""
    shuffled = torch.randperm(len(codes), generator=generator, device=codes.device)
    by_class = codes[shuffled].sort(stable=True)
    place = torch.empty_like(shuffled)  # of a shuffled row among those of its class
    starts = counts.cumsum(0) - counts
    place[by_class.indices] = torch.arange(len(codes), device=codes.device) - starts[by_class.values]
    return shuffled[place < quotas[codes[shuffled]]]


def _reshuffled(codes: Tensor, n: int, n_classes: int, generator: torch.Generator) -> Tensor:
    for _ in range(_MAX_SHUFFLES):
        rows = torch.randperm(len(codes), generator=generator, device=codes.device)[:n]
        if bool((codes[rows].bincount(minlength=n_classes) >= _PLAYGROUND_MIN_PER_CLASS).all()):
            return rows
    raise DataError(
        f"no start set of {n} rows with {_PLAYGROUND_MIN_PER_CLASS} of each of {n_classes} classes in {_MAX_SHUFFLES} "
        "shuffles; ask for more rows, or for how='stratified'"
    )
