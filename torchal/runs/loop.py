"""The loop of active learning: ask an oracle for labels, fit, score, and again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from numbers import Integral

from torch import Tensor

from torchal._checks import as_integers, as_rows
from torchal._records import differences
from torchal.errors import BudgetError, ConfigError, DataError
from torchal.pool.round_result import RoundResult
from torchal.protocols import UNLABELED, Oracle
from torchal.runs.learner import ActiveLearner
from torchal.runs.on_ranks import meeting_of
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
        oracle: answers rows (n,) with labels (n,); `UNLABELED` (-1) says that a row cannot be labeled. Where classes
            have names it answers with these, and None says so.
        schedule: batch size and stop rules. The last batch may be smaller, and the pool may run dry.
        start: rows to label first, or how many to draw at random, if the pool has no label yet. With 0 the sampler
            picks the first batch too, if it reads no model; else that is drawn at random. A learner that was loaded
            has begun with a start: give the same again, or none.
        on_labels: called after labels came in and before the model is fitted on them, to save what was paid for.

    Raises:
        ConfigError: a start that is missing, given beside labels, or not the one that the learner began with; a target
            without a validation part.
        BudgetError: a start set larger than the pool or the budget.

    Rows that the learner asked for earlier are bought first, whatever the budget. Everything is checked when this is
    called, before the oracle is asked. Until labels of two classes are there,
    batches belong to round 0, and are picked as `ActiveLearner.ask` says.

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
    steps = run_rounds(learner, oracle, schedule, start, on_labels)
    return (result for result in steps if result is not None)


def check_start(learner: ActiveLearner, schedule: Schedule, start: int | Tensor | None) -> None:
    """Require that `rounds` can begin: see its `Raises`."""
    n_rows, pool = len(learner.pool), learner.pool
    if schedule.needs_validation and learner.validation is None:
        raise ConfigError(f"{schedule.needs_validation} is of the validation part, and there is none")
    if schedule.target_metric is not None and schedule.target_metric not in learner.metric_names:
        raise ConfigError(f"no metric is named {schedule.target_metric!r}; there are {', '.join(learner.metric_names)}")
    learner.watch(*schedule.watched)
    began_with = learner.began_with
    if began_with is not None:
        if start is not None and _as_plain(start) != began_with:
            changed = differences({"start": began_with}, {"start": _as_plain(start)})
            raise ConfigError(f"a learner goes on with the start that it began with, or none given: {changed}")
        return
    if learner.history or pool.n_labeled or len(learner.asked):
        if start is not None and not learner.history and pool.n_labeled:
            given = "a start set was" if _as_plain(start) != 0 else "start=0, for the sampler to begin with, was"
            raise ConfigError(
                f"{given} given, and {pool.n_labeled} rows of the pool are labeled already: leave start out"
            )
        return
    if start is None:
        raise ConfigError("no row of the pool is labeled: give start=, the rows to label first or how many")
    n_start = (
        int(start) if isinstance(start, Integral) else len(as_rows("start", start, n_rows=n_rows, device=pool.device))
    )
    available = int(pool.candidates.sum())
    if not isinstance(start, Integral) and not n_start:
        raise BudgetError("the start set is empty; start=0 lets the sampler pick the first batch")
    if not 0 <= n_start <= available:
        raise BudgetError(f"the start set has {n_start} rows, the pool has {available} that can be labeled")
    if n_start > schedule.labels_in_all(n_rows):
        raise BudgetError(f"the start set has {n_start} rows, the budget is {schedule.labels_in_all(n_rows)}")


def run_rounds(
    learner: ActiveLearner,
    oracle: Oracle,
    schedule: Schedule,
    start: int | Tensor | None,
    on_labels: Callable[[], None],
    *,
    resumed: bool = False,
) -> Iterator[RoundResult | None]:
    """Do what `rounds` does, without its checks; a start set is not asked for again where a run was resumed.

    None is yielded wherever a model is about to be fitted: whoever runs several learners may fit theirs together.
    """

    def buy(rows: Tensor, *, begins: bool = False) -> None:
        with meeting_of(learner.ranks):
            tell_answers(rows)
        if begins and start is not None:
            learner.began_with = _as_plain(start)
        on_labels()

    def tell_answers(rows: Tensor) -> None:
        with learner.timed("label"):
            answered = oracle(rows)
        if learner.pool.classes is None:
            labels = as_integers("the oracle's labels", answered).to(rows.device)
            if labels.shape != rows.shape:
                raise DataError(
                    f"the oracle was asked for {len(rows)} labels and answered with shape {tuple(labels.shape)}"
                )
            known = labels != UNLABELED
            learner.cannot_label(rows[~known])
            learner.tell(rows[known], labels[known])
        else:
            learner.tell(rows, answered)

    n_rows = len(learner.pool)
    is_new = not resumed and not learner.history and not learner.pool.n_labeled and learner.began_with is None
    if is_new and start is not None and _as_plain(start) == 0:
        learner.began_with = 0
    # The batches before the next one: as many as rounds, but for the round of a start set.
    n_before = int((learner.began_with if start is None else _as_plain(start)) == 0)
    if len(learner.asked):
        buy(learner.asked, begins=is_new)
    if start is not None and is_new and not learner.pool.n_labeled and not n_before:
        if isinstance(start, Integral):
            buy(learner.ask_at_random(int(start)), begins=True)
        else:
            buy(as_rows("start", start, n_rows=n_rows, device=learner.pool.device), begins=True)
    if learner.has_news and learner.can_fit:
        yield None
        yield learner.finish_round()
    while not _is_done(learner, schedule, n_before):
        if learner.can_fit and not learner.is_fitted:  # it was read from a checkpoint
            yield None
        left = min(schedule.labels_in_all(n_rows) - learner.pool.n_labeled, int(learner.pool.candidates.sum()))
        number = learner.history[-1].round + n_before if learner.history else 0
        buy(learner.ask(min(schedule.batch(n_rows, number), left)))
        if learner.has_news and learner.can_fit:  # not if the oracle could label none of them: then others are asked
            yield None
            yield learner.finish_round()
    if not (learner.history or _is_over_at_once(schedule, n_before)):
        learner.finish_round()  # raises: the budget is spent and there is still one class


def _is_done(learner: ActiveLearner, schedule: Schedule, n_before: int) -> bool:
    pool = learner.pool
    if pool.n_labeled >= schedule.labels_in_all(len(pool)) or not bool(pool.candidates.any()):
        return True
    if not learner.history:
        return _is_over_at_once(schedule, n_before)
    last = learner.history[-1]
    if last.round + n_before >= schedule.most_rounds:
        return True
    if schedule.max_seconds is not None:
        taken = sum(itertools.chain.from_iterable(result.seconds.values() for result in learner.history))
        if taken >= schedule.max_seconds:
            return True
    if schedule.target_metric is not None and schedule.target_value is not None:
        value = last.validation.get(schedule.target_metric)  # None in a round of before there was this part
        if value is not None and value >= schedule.target_value:
            return True
    return _is_flat(learner, schedule) or _is_settled(learner, schedule)


def _is_over_at_once(schedule: Schedule, n_before: int) -> bool:
    """Tell whether not even the sampler's first batch, in the place of a start set, is to be bought."""
    return n_before > 0 and schedule.most_rounds == 0


def _as_plain(start: int | Tensor) -> int | list[int]:
    """Return a start as a state holds it."""
    return int(start) if isinstance(start, Integral) else as_integers("start", start).tolist()


def _is_flat(learner: ActiveLearner, schedule: Schedule) -> bool:
    """Tell whether the validation accuracy has not become better for some rounds."""
    values = [r.validation["accuracy"] for r in learner.history if "accuracy" in r.validation]
    n_rounds = schedule.plateau_rounds
    if n_rounds is None or len(values) <= n_rounds:
        return False
    return max(values[-n_rounds:]) <= max(values[:-n_rounds]) + (schedule.plateau_delta or 0.0)


def _is_settled(learner: ActiveLearner, schedule: Schedule) -> bool:
    """Tell whether what the model says of the pool has become stable or sure."""
    if schedule.stable_kappa is not None:
        kappas = [result.pool["kappa"] for result in learner.history[-schedule.kappas :] if "kappa" in result.pool]
        if len(kappas) == schedule.kappas and sum(kappas) / len(kappas) >= schedule.stable_kappa:
            return True
    uncertainty = learner.history[-1].pool.get("uncertainty")
    least = schedule.min_uncertainty
    return least is not None and uncertainty is not None and uncertainty < least
