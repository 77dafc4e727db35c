"""How many labels a run buys, and when it stops."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

from torchal._checks import check_fraction, check_whole, rows_in
from torchal.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """How many labels to buy, how many at a time, and when to stop. The first rule that applies stops the loop.

    Args:
        batch_size: rows per batch; or
        batch_fraction: rows per batch as a share of all rows of the pool, in (0, 1].
        budget: labels to buy in all, the start set counted; or
        budget_fraction: the same as a share of all rows of the pool. With neither, the whole pool.
        max_rounds: batches to buy after the start set.
        target_metric, target_value: stop once this metric of the validation part is at least this value.

    Raises:
        ConfigError: not exactly one batch setting, or a setting out of its range.
    """

    batch_size: int | None = None
    batch_fraction: float | None = None
    budget: int | None = None
    budget_fraction: float | None = None
    max_rounds: int | None = None
    target_metric: str | None = None
    target_value: float | None = None

    def __post_init__(self) -> None:
        if (self.batch_size is None) == (self.batch_fraction is None):
            raise ConfigError(
                "give one of batch_size and batch_fraction, "
                f"got batch_size={self.batch_size} and batch_fraction={self.batch_fraction}"
            )
        if self.budget is not None and self.budget_fraction is not None:
            raise ConfigError(
                f"give at most one of budget and budget_fraction, got {self.budget} and {self.budget_fraction}"
            )
        if (self.target_metric is None) != (self.target_value is None):
            raise ConfigError(
                f"target_metric and target_value go together, got {self.target_metric!r} and {self.target_value}"
            )
        for name, least in (("batch_size", 1), ("budget", 1), ("max_rounds", 0)):
            value = getattr(self, name)
            if value is not None:
                check_whole(name, value, least=least)
                object.__setattr__(self, name, int(value))
        target = self.target_value
        if target is not None and not (isinstance(target, Real) and math.isfinite(target)):
            raise ConfigError(f"target_value must be a finite number, got {target!r}")
        if target is not None:
            object.__setattr__(self, "target_value", float(target))
        for name in ("batch_fraction", "budget_fraction"):
            value = getattr(self, name)
            if value is not None:
                check_fraction(name, value)
                object.__setattr__(self, name, float(value))

    def labels_in_all(self, n_rows: int) -> int:
        """Return the budget for a pool of this many rows."""
        if self.budget_fraction is not None:
            return max(1, rows_in(self.budget_fraction, n_rows))
        return n_rows if self.budget is None else min(self.budget, n_rows)

    def batch(self, n_rows: int) -> int:
        """Return the batch size for a pool of this many rows."""
        return self.batch_size or max(1, rows_in(self.batch_fraction or 0, n_rows))

    def n_batches(self, n_rows: int, n_start: int) -> int:
        """Return how many batches follow a start set, if every row can be labeled and no target stops the loop."""
        batches = math.ceil(max(0, self.labels_in_all(n_rows) - n_start) / self.batch(n_rows))
        return batches if self.max_rounds is None else min(batches, self.max_rounds)
