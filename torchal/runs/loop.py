"""The loop of active learning: ask an oracle for labels, fit, score, and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from numbers import Integral

from torch import Tensor

from torchal._checks import as_integers, as_rows
from torchal.errors import BudgetError, ConfigError, DataError
from torchal.pool.round_result import RoundResult
from torchal.protocols import UNLABELED, Oracle
from torchal.runs.learner import ActiveLearner
from torchal.runs.schedule import Schedule


def rounds(
    learner: ActiveLearner,
    oracle: Oracle,
    schedule: Schedule,
    *,
    start: int | Tensor | None = None,
    on_labels: Callable[[], None] = lambda: None,
) -> Iterator[RoundResult]:
    """Buy labels until the schedule says stop; yield after the start set and after every batch, the last one included.

    Args:
        learner: where to start; one that was loaded goes on where it was saved.
        oracle: answers rows (n,) with labels (n,); `UNLABELED` (-1) says that a row cannot be labeled.
        schedule: batch size and stop rules. The last batch may be smaller, and the pool may run dry.
        start: rows to label first, or how many to draw at random, if the pool has no label yet.
        on_labels: called after labels came in and before the model is fitted on them, to save what was paid for.

    Raises:
        ConfigError: a start set that is missing, or given beside labels; a target without a validation part.
        BudgetError: a start set larger than the pool or the budget.

    Rows that the learner asked for earlier are bought first, whatever the budget. Everything is checked when this is
    called, before the oracle is asked. Until labels of two classes are there,
    batches are drawn at random and belong to round 0.

    Example:
        >>> import torch
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from torchal import Pool
        >>> from torchal.samplers import Margin
        >>> x = torch.linspace(0, 1, 101)[:, None]
        >>> truth = (x[:, 0] > 0.3).long()
        >>> learner = ActiveLearner(GaussianNB(), Margin(), Pool.unlabeled(x, n_classes=2))
        >>> schedule = Schedule(batch_size=5, budget=20)
        >>> steps = rounds(learner, lambda rows: truth[rows], schedule, start=torch.arange(0, 101, 10))
        >>> [result.n_labeled for result in steps]
        [11, 16, 20]
    """
    check_start(learner, schedule, start)
    return run_rounds(learner, oracle, schedule, start, on_labels)


def check_start(learner: ActiveLearner, schedule: Schedule, start: int | Tensor | None) -> None:
    """Require that `rounds` can begin: see its `Raises`."""
    n_rows, pool = len(learner.pool), learner.pool
    if schedule.target_metric is not None:
        if learner.validation is None:
            raise ConfigError(f"the target {schedule.target_metric!r} is of the validation part, and there is none")
        if schedule.target_metric not in learner.metric_names:
            raise ConfigError(
                f"no metric is named {schedule.target_metric!r}; there are {', '.join(learner.metric_names)}"
            )
    if learner.history or pool.n_labeled or len(learner.asked):
        if start is not None and not learner.history and pool.n_labeled:
            raise ConfigError(f"a start set was given, and {pool.n_labeled} rows of the pool are labeled already")
        return
    if start is None:
        raise ConfigError("no row of the pool is labeled: give start=, the rows to label first or how many")
    n_start = (
        int(start) if isinstance(start, Integral) else len(as_rows("start", start, n_rows=n_rows, device=pool.device))
    )
    available = int(pool.candidates.sum())
    if not 1 <= n_start <= available:
        raise BudgetError(f"the start set has {n_start} rows, the pool has {available} that can be labeled")
    if n_start > schedule.labels_in_all(n_rows):
        raise BudgetError(f"the start set has {n_start} rows, the budget is {schedule.labels_in_all(n_rows)}")


def run_rounds(
    learner: ActiveLearner,
    oracle: Oracle,
    schedule: Schedule,
    start: int | Tensor | None,
    on_labels: Callable[[], None],
) -> Iterator[RoundResult]:
    """Do what `rounds` does, without its checks; no start means that it was asked for already."""

    def buy(rows: Tensor) -> None:
        with learner.timed("label"):
            labels = as_integers("the oracle's labels", oracle(rows)).to(rows.device)
        if labels.shape != rows.shape:
            raise DataError(
                f"the oracle was asked for {len(rows)} labels and answered with shape {tuple(labels.shape)}"
            )
        known = labels != UNLABELED
        learner.cannot_label(rows[~known])
        learner.tell(rows[known], labels[known])
        on_labels()

    n_rows = len(learner.pool)
    if len(learner.asked):
        buy(learner.asked)
    if start is not None and not learner.history and not learner.pool.n_labeled:
        if isinstance(start, Integral):
            buy(learner.ask(int(start)))
        else:
            buy(as_rows("start", start, n_rows=n_rows, device=learner.pool.device))
    if learner.has_news and learner.can_fit:
        yield learner.finish_round()
    while not _is_done(learner, schedule):
        left = min(schedule.labels_in_all(n_rows) - learner.pool.n_labeled, int(learner.pool.candidates.sum()))
        buy(learner.ask(min(schedule.batch(n_rows), left)))
        if learner.has_news and learner.can_fit:  # not if the oracle could label none of them: then others are asked
            yield learner.finish_round()
    if not learner.history:
        learner.finish_round()  # raises: the budget is spent and there is still one class


def _is_done(learner: ActiveLearner, schedule: Schedule) -> bool:
    pool = learner.pool
    if pool.n_labeled >= schedule.labels_in_all(len(pool)) or not bool(pool.candidates.any()):
        return True
    if not learner.history:
        return False
    last = learner.history[-1]
    if schedule.max_rounds is not None and last.round >= schedule.max_rounds:
        return True
    if schedule.target_metric is None or schedule.target_value is None:
        return False
    value = last.validation.get(schedule.target_metric)  # None in a round of before there was this part
    return value is not None and value >= schedule.target_value
