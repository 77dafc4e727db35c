"""How many labels a run buys, and when it stops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from torchal._checks import check_fraction, check_whole, rows_in
from torchal.errors import ConfigError

_STABLE_ROUNDS = 3


@dataclass(frozen=True)
class Schedule:
    """How many labels to buy, how many at a time, and when to stop. The first rule that applies stops the loop.

    Args:
        batch_size: rows per batch; or
        batch_fraction: rows per batch as a share of all rows of the pool, in (0, 1]; or
        batch_sizes: the rows of each batch, one after another; the run ends with the last.
        batch_growth: each batch is this many times the one before, rounded; with batch_size or batch_fraction, which
            are then the first batch.
        budget: labels to buy in all, the start set counted; or
        budget_fraction: the same as a share of all rows of the pool. With neither, the whole pool.
        max_rounds: batches to buy after the start set.
        max_seconds: stop once the rounds have taken so long: labels, fits, scores and selections.
        target_metric, target_value: stop once this metric of the validation part is at least this value.
        plateau_rounds: stop once the validation accuracy of this many rounds in a row was no better than the best
            before them.
        plateau_delta: by how much it must be better to count; 0 unless given.
        stable_kappa: stop once the predictions of one round and the next agree this well: the mean of Cohen's kappa
            over the last stable_rounds rounds, on up to 2 000 rows of the pool. Needs no label beyond those bought.
        stable_rounds: 3 unless given.
        min_uncertainty: stop once the mean of 1 minus the largest probability is below this value, over the
            candidates among the same rows.

    Raises:
        ConfigError: not exactly one batch setting, or a setting out of its range.

    Reference:
        stable_kappa: Bloodgood & Vijay-Shanker, "A Method for Stopping Active Learning Based on Stabilizing
        Predictions and the Need for User-Adjustable Stopping", CoNLL 2009; there 0.99 over 3 rounds, 2 000 rows.

    Example:
        >>> schedule = Schedule(batch_size=10, batch_growth=2.0, budget=100)
        >>> [schedule.batch(1000, number) for number in range(4)], schedule.n_batches(1000, 10)
        ([10, 20, 40, 80], 4)
    """

    batch_size: int | None = None
    batch_fraction: float | None = None
    batch_sizes: Sequence[int] | None = None
    batch_growth: float | None = None
    budget: int | None = None
    budget_fraction: float | None = None
    max_rounds: int | None = None
    max_seconds: float | None = None
    target_metric: str | None = None
    target_value: float | None = None
    plateau_rounds: int | None = None
    plateau_delta: float | None = None
    stable_kappa: float | None = None
    stable_rounds: int | None = None
    min_uncertainty: float | None = None

    def __post_init__(self) -> None:
        given = (self.batch_size, self.batch_fraction, self.batch_sizes)
        if sum(value is not None for value in given) != 1:
            raise ConfigError(
                "give one of batch_size and batch_fraction, or batch_sizes in their place, got batch_size="
                f"{self.batch_size}, batch_fraction={self.batch_fraction} and batch_sizes={self.batch_sizes}"
            )
        if self.batch_growth is not None and self.batch_sizes is not None:
            raise ConfigError(f"batch_growth={self.batch_growth} cannot go with batch_sizes={list(self.batch_sizes)}")
        if self.budget is not None and self.budget_fraction is not None:
            raise ConfigError(
                f"give at most one of budget and budget_fraction, got {self.budget} and {self.budget_fraction}"
            )
        if (self.target_metric is None) != (self.target_value is None):
            raise ConfigError(
                f"target_metric and target_value go together, got {self.target_metric!r} and {self.target_value}"
            )
        for needs, other in (("plateau_delta", "plateau_rounds"), ("stable_rounds", "stable_kappa")):
            if getattr(self, needs) is not None and getattr(self, other) is None:
                raise ConfigError(f"{needs}={getattr(self, needs)} needs {other}")
        for name, least in (
            ("batch_size", 1),
            ("budget", 1),
            ("max_rounds", 0),
            ("plateau_rounds", 1),
            ("stable_rounds", 1),
        ):
            value = getattr(self, name)
            if value is not None:
                check_whole(name, value, least=least)
                object.__setattr__(self, name, int(value))
        for name in ("batch_fraction", "budget_fraction"):
            value = getattr(self, name)
            if value is not None:
                check_fraction(name, value)
                object.__setattr__(self, name, float(value))
        for name, low, high in (
            ("target_value", -math.inf, math.inf),
            ("batch_growth", 1.0, 1e6),
            ("max_seconds", 0.0, math.inf),
            ("plateau_delta", 0.0, math.inf),
            ("stable_kappa", -1.0, 1.0),
            ("min_uncertainty", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _number(name, value, low, high))
        if self.batch_sizes is not None:
            object.__setattr__(self, "batch_sizes", _sizes(self.batch_sizes))

    def labels_in_all(self, n_rows: int) -> int:
        """Return the budget for a pool of this many rows."""
        if self.budget_fraction is not None:
            return max(1, rows_in(self.budget_fraction, n_rows))
        return n_rows if self.budget is None else min(self.budget, n_rows)

    @property
    def most_rounds(self) -> float:
        """The most batches after the start set."""
        most = math.inf if self.max_rounds is None else self.max_rounds
        return most if self.batch_sizes is None else min(most, len(self.batch_sizes))

    def batch(self, n_rows: int, number: int = 0) -> int:
        """Return the size of a batch, counted from 0, for a pool of this many rows.

        Args:
            n_rows: of the pool.
            number: of the batch, from 0.
        """
        if self.batch_sizes is not None:
            return self.batch_sizes[number]
        first = self.batch_size or max(1, rows_in(self.batch_fraction or 0, n_rows))
        if self.batch_growth is None:
            return first
        growing = math.log(first) + number * math.log(self.batch_growth)  # which may be beyond float64
        return n_rows if growing > math.log(n_rows) else round(first * self.batch_growth**number)

    def n_batches(self, n_rows: int, n_start: int) -> int:
        """Return how many batches follow a start set, if every row can be labeled and no target stops the loop.

        Args:
            n_rows: of the pool.
            n_start: of the start set.
        """
        left, number = self.labels_in_all(n_rows) - n_start, 0
        while left > 0 and number < self.most_rounds:
            left -= self.batch(n_rows, number)
            number += 1
        return number

    @property
    def needs_validation(self) -> str | None:
        """Which setting looks at the validation part, if one does."""
        if self.target_metric is not None:
            return f"the target {self.target_metric!r}"
        return None if self.plateau_rounds is None else "plateau_rounds"

    @property
    def watched(self) -> tuple[str, ...]:
        """What the rounds must record of the pool: see `ActiveLearner`."""
        rules = {"kappa": self.stable_kappa, "uncertainty": self.min_uncertainty}
        return tuple(name for name, value in rules.items() if value is not None)

    @property
    def kappas(self) -> int:
        """Over how many rounds the mean kappa is taken."""
        return self.stable_rounds or _STABLE_ROUNDS


def _number(name: str, value: object, low: float, high: float) -> float:
    """Return a setting as a finite number of a range."""
    good = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not low <= float(value) <= high:  # type: ignore[arg-type]
        ends = f" from {low:g} to {high:g}" if math.isfinite(high) else f" of at least {low:g}"
        raise ConfigError(f"{name} must be a finite number{ends if math.isfinite(low) else ''}, got {value!r}")
    return float(value)  # type: ignore[arg-type]


def _sizes(values: object) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str) or not len(values):
        raise ConfigError(f"batch_sizes must be a list of whole numbers, got {values!r}")
    for value in values:
        check_whole("each of batch_sizes", value, least=1)
    return tuple(int(value) for value in values)
