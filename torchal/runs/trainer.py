"""The trainer: a whole run of active learning in a folder that can be killed at any moment and gone on with."""

from __future__ import annotations

import copy
import math
import os
import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from torchal._records import as_plain, differences
from torchal.distributed import Group, as_shards
from torchal.errors import ConfigError, RunError
from torchal.pool.labels import LabeledData
from torchal.pool.pool import Pool
from torchal.pool.round_result import RoundResult
from torchal.protocols import Classifier, Oracle
from torchal.runs.learner import ActiveLearner
from torchal.runs.loggers import Logger, check_loggers, open_logs
from torchal.runs.loop import check_start, run_rounds
from torchal.runs.metrics import Metric
from torchal.runs.on_ranks import folder_of, meeting_of
from torchal.runs.results import Run, RunFolder, environment
from torchal.runs.schedule import Schedule
from torchal.runs.tensorboard import TensorBoard
from torchal.runs.together import fit_together
from torchal.samplers.base import Sampler

Steps: TypeAlias = Generator[ActiveLearner, None, Run]
"""A run as it goes: a learner whenever that is about to fit its model, and the finished run as what it returns."""


@dataclass(frozen=True)
class Trainer:
    """Runs `torchal.runs.loop.rounds` into a run folder, with TensorBoard, a progress bar, checkpoints and resume.

    The folder holds `config.yaml`, `environment.json`, `rounds.jsonl` (one line a round), `checkpoint.pt`, and what
    loggers write there: `tb/` unless others are given.
    A run that was killed goes on when `fit` is called again, with the same picks and metrics as one left alone (if the
    model is deterministic: scikit-learn's `random_state=None` is not). Labels are saved before the model is fitted on
    them. A finished run is read, not run again. One process at a time may use a folder.

    Args:
        model: any classifier with `fit` and `predict`.
        sampler: the query strategy. The run works on a copy; what that has learned is `Run.sampler_state`.
        schedule: batch size and stop rules.
        run_dir: the folder; made if it is not there.
        seed: all randomness of the samplers follows from it.
        metrics: further metrics, beside accuracy and log-loss.
        config: what the run is, as plain numbers, text, lists and dicts; a folder refuses a run with another config.
            Made from the settings above unless given, where a function among them is known by its name only. A mapping
            `names` in it (as data, model, sampler) is what charts and TensorBoard's table call them.
        about: what else is to be known of the run, in `environment.json`; it may be another when the run goes on.
            Reports read `data` in it: `class_names`, and `class_counts` of the pool.
        progress: show a progress bar; or a bar of tqdm that several runs share, each of which moves it on by 1 in all.
        loggers: where the numbers of each round go besides: `TensorBoard(...)`, `CsvLog()`, an object with
            `add_scalar(tag, value, global_step)`, as the SummaryWriter of torch and those of other trackers, or one
            of your own (`torchal.runs.loggers.RunLogger`); none with []. A round is saved before they hear of it.
        description: what to call the run in the progress bar; the sampler's name unless given.
        select_model, costs, represents: see `ActiveLearner`.
        watch: what else the rounds record of the pool and of their batches: see `ActiveLearner.watch`.
        group: the ranks of a process group that call `fit` together, on a pool of rows in files: see `ActiveLearner`.
            The first writes the folder, and all read it; the run goes on on any number of ranks, and is the same.

    Example:
        >>> import tempfile, torch
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from torchal.samplers import Margin
        >>> x = torch.linspace(0, 1, 101)[:, None]
        >>> truth = (x[:, 0] > 0.3).long()
        >>> pool = Pool.unlabeled(x, n_classes=2)
        >>> schedule = Schedule(batch_size=5, budget=20)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = Trainer(GaussianNB(), Margin(), schedule=schedule, run_dir=folder, progress=False)
        ...     run = trainer.fit(pool, lambda rows: truth[rows], start=torch.arange(0, 101, 10))
        >>> [result.n_labeled for result in run.rounds], run.finished
        ([11, 16, 20], True)
    """

    model: Classifier
    sampler: Sampler
    schedule: Schedule
    run_dir: str | os.PathLike[str]
    seed: int = 0
    metrics: Mapping[str, Metric] | None = None
    config: Mapping[str, Any] | None = None
    about: Mapping[str, Any] | None = None
    progress: bool | tqdm[Any] = True
    loggers: Sequence[Logger] = (TensorBoard(),)
    description: str | None = None
    select_model: Classifier | None = None
    costs: float | Tensor = 1.0
    represents: bool = False
    watch: Sequence[str] = ()
    group: Group | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "loggers", check_loggers(self.loggers))

    def fit(
        self,
        pool: Pool,
        oracle: Oracle,
        *,
        validation: LabeledData | None = None,
        test: LabeledData | None = None,
        start: int | Tensor | None = None,
        truth: Tensor | None = None,
    ) -> Run:
        """Run to the end of the schedule, from the start or from where the folder's run stopped.

        Args:
            pool: the rows, with the labels that are there already.
            oracle: answers rows (n,) with labels (n,); `UNLABELED` (-1) says that a row cannot be labeled.
            validation: labeled data that samplers and stop rules may look at.
            test: labeled data that only the record looks at.
            start: rows to label first, or how many to draw at random, if the pool has no label yet; 0: see `rounds`.
            truth: see `ActiveLearner`.

        Raises:
            CapabilityError, BudgetError, ConfigError, DataError: see `ActiveLearner` and `rounds`; what can be known
                before the first fit is refused before anything is written.
            ConfigError: the folder's run has another config, schedule or start set; the message names the differences.
            RunError: the folder is in use, damaged or not writable, or its run is of another pool. A logger fails; the
                message says which, and the call goes on from there when it is made again.
        """
        with as_shards(self.group).meeting() as meeting:  # what is wrong on one rank, all of them hear of
            meeting.rows(1, 1)
            steps = self.steps(pool, oracle, validation=validation, test=test, start=start, truth=truth)
        return fit_trials([steps])[0]

    def steps(
        self,
        pool: Pool,
        oracle: Oracle,
        *,
        validation: LabeledData | None = None,
        test: LabeledData | None = None,
        start: int | Tensor | None = None,
        truth: Tensor | None = None,
    ) -> Steps:
        """Return what `fit` does, step by step, for `fit_trials`. What can be checked is checked now.

        It takes what `fit` takes: `pool`, `oracle`, `validation`, `test`, `start` and `truth`.
        """
        config = as_plain(self._config())
        learner = ActiveLearner(
            self.model,
            copy.deepcopy(self.sampler),  # its state belongs to the run
            pool,
            seed=self.seed,
            validation=validation,
            test=test,
            metrics=self.metrics,
            select_model=self.select_model,
            costs=self.costs,
            represents=self.represents,
            truth=truth,
            group=self.group,
        )
        check_start(learner, self.schedule, start)
        learner.watch(*self.watch)
        if start is not None:
            rows = torch.as_tensor(start)
            start = rows if rows.ndim else int(rows)
        return self._steps(learner, oracle, config, start)

    def _steps(
        self, learner: ActiveLearner, oracle: Oracle, config: Mapping[str, Any], start: int | Tensor | None
    ) -> Steps:
        if learner.ranks is not None:
            learner.ranks.require_same(learner.pool, self._settings_of_ranks(start))
        folder = folder_of(self.run_dir, learner.ranks)
        with folder.locked():
            folder.open(config, {**environment(learner.pool.device), **as_plain(self.about or {})})
            checkpoint = folder.read_checkpoint()
            folder.keep_rounds(checkpoint)
            if checkpoint is not None:
                changed = differences(checkpoint["state"].get("settings", {}), self._settings(start))
                if changed:
                    raise ConfigError(f"{folder.path} holds a run with other settings: {changed}")
                history = folder.read_rounds()
                with meeting_of(learner.ranks):
                    learner.load_state_dict(checkpoint["state"], history)
            if not (checkpoint and checkpoint["finished"]):
                # The first checkpoint comes after the start set was answered: it is not asked for again.
                yield from self._run(learner, oracle, folder, start, resumed=checkpoint is not None)
            elif isinstance(self.progress, tqdm):
                self.progress.update(1)
            return folder.read()

    def _run(
        self,
        learner: ActiveLearner,
        oracle: Oracle,
        folder: RunFolder,
        start: int | Tensor | None,
        *,
        resumed: bool,
    ) -> Generator[ActiveLearner, None, None]:
        settings = self._settings(start)

        def checkpoint(*, finished: bool = False) -> None:
            folder.write_checkpoint(learner.state_dict() | {"settings": settings}, finished=finished)

        has_start_set = not isinstance(start, int) or start > 0
        n_start = _n_start(learner.pool, start)
        if learner.history and has_start_set:
            n_start = learner.history[0].n_labeled
        ranks = learner.ranks
        writes = ranks is None or ranks.is_first
        with ExitStack() as stack:
            with meeting_of(ranks):
                logs = stack.enter_context(open_logs(self.loggers if writes else (), folder, learner))
            n_rounds = int(has_start_set) + self.schedule.n_batches(len(learner.pool), n_start)
            bar = stack.enter_context(self._bar(n_rounds, len(learner.history), shown=writes))
            for result in run_rounds(learner, oracle, self.schedule, start, checkpoint, resumed=resumed):
                if result is None:
                    yield learner
                    continue
                if ranks is not None:
                    learner.history[-1] = ranks.agreed(result)
                folder.append(learner.history[-1])
                checkpoint()
                with meeting_of(ranks):
                    logs.add(learner.history[-1])
                bar.add(_headline(result))
            with meeting_of(ranks):
                logs.finish(self._hparams())
            checkpoint(finished=True)

    def _bar(self, n_rounds: int, done: int, *, shown: bool = True) -> _Bar:
        name = self.description or type(self.sampler).__name__
        if isinstance(self.progress, tqdm):
            return _Bar(self.progress, 1 / n_rounds, done, is_shared=True, name=name)
        bar = tqdm(desc=name, total=n_rounds, initial=done, unit="round", disable=not (self.progress and shown))
        return _Bar(bar, 1, done, is_shared=False, name=name)

    def _config(self) -> Mapping[str, Any]:
        if self.config is not None:
            return self.config
        return {
            "model": _without_addresses(self.model),
            "sampler": _without_addresses(self.sampler),
            "schedule": asdict(self.schedule),
            "seed": self.seed,
            "metrics": sorted(self.metrics or {}),
            **({} if self.select_model is None else {"select_model": _without_addresses(self.select_model)}),
            **({"watch": sorted(self.watch)} if self.watch else {}),
        }

    def _settings(self, start: int | Tensor | None) -> dict[str, Any]:
        """Return what a run must go on with, whatever the config says of it."""
        return {"schedule": asdict(self.schedule), "start": start.tolist() if isinstance(start, Tensor) else start}

    def _settings_of_ranks(self, start: int | Tensor | None) -> dict[str, Any]:
        """Return the settings that all ranks must have; not those of the model, of which each may have its device."""
        own = {"seed": self.seed, "sampler": _without_addresses(self.sampler), "metrics": sorted(self.metrics or {})}
        given = {"config": self.config or {}, "watch": sorted(self.watch)}
        return {**as_plain(given | own), **self._settings(start)}

    def _hparams(self) -> dict[str, Any]:
        """Return the settings that tell runs apart in TensorBoard's table: the same names in every run.

        TensorBoard shows the first five columns by name, so there are no more than five.
        """
        names = {"model": type(self.model).__name__, "sampler": type(self.sampler).__name__}
        rules = [f"{name}={value}" for name, value in asdict(self.schedule).items() if value is not None]
        rest = {"schedule": ", ".join(rules), "seed": self.seed}
        given = (self.config or {}).get("names")
        return names | (dict(given) if isinstance(given, Mapping) else {}) | rest


class _Bar:
    """A run's part of a progress bar, all of it or 1 of as many as there are runs."""

    def __init__(self, bar: tqdm[Any], step: float, done: int, *, is_shared: bool, name: str) -> None:
        self._bar, self._step, self._left, self._is_shared, self._name = bar, step, 1.0, is_shared, name
        if is_shared:
            self._advance(done * step)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._is_shared:
            self._bar.close()
        elif kind is None:  # a run that a rule has stopped is over too
            self._advance(self._left)

    def add(self, headline: Mapping[str, str]) -> None:
        shown = {"run": self._name, **headline} if self._is_shared else headline
        self._bar.set_postfix(shown, refresh=False)
        if self._is_shared:
            self._advance(self._step)
        else:
            self._bar.update()

    def _advance(self, part: float) -> None:
        rest = math.inf if self._bar.total is None else self._bar.total - self._bar.n  # sums of parts are rounded
        part = min(part, self._left, rest)
        self._left -= part
        self._bar.update(part)


def fit_trials(trials: Sequence[Steps]) -> list[Run]:
    """Run several runs in step, so that the models of each round are fitted by one call where they can be.

    A run is what it would be by itself, but for its seconds. One that fails does not stop the others; its error is
    raised when they are done.

    Args:
        trials: what `Trainer.steps` returns, of trainers with run folders of their own.

    Example:
        >>> import tempfile, torch
        >>> from torchal import LogisticRegression
        >>> from torchal.samplers import Margin
        >>> x = torch.linspace(-1, 1, 101)[:, None]
        >>> truth = (x[:, 0] > 0.3).long()
        >>> pool, schedule = Pool.unlabeled(x, n_classes=2), Schedule(batch_size=5, budget=20)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trials = []
        ...     for seed in range(3):
        ...         run_dir = f"{folder}/{seed}"
        ...         trainer = Trainer(
        ...             LogisticRegression(), Margin(), schedule=schedule, run_dir=run_dir, seed=seed, progress=False
        ...         )
        ...         trials.append(trainer.steps(pool, lambda rows: truth[rows], start=torch.arange(seed, 101, 10)))
        ...     runs = fit_trials(trials)
        >>> [len(run.rounds) for run in runs]
        [3, 3, 3]
    """
    runs: dict[int, Run] = {}
    errors: list[Exception] = []
    waiting = dict(enumerate(trials))
    try:
        while waiting:
            due = []
            for number, steps in list(waiting.items()):
                try:
                    due.append(next(steps))
                except StopIteration as end:
                    runs[number] = end.value
                    del waiting[number]
                except Exception as error:
                    if len(trials) == 1:
                        raise
                    errors.append(error)
                    del waiting[number]
            _fit_due(due)
    finally:
        for steps in waiting.values():
            steps.close()
    if len(errors) > 1:
        raise RunError(f"{len(errors)} of {len(trials)} runs failed, the first of them: {errors[0]}") from errors[0]
    if errors:
        raise errors[0]
    return [runs[number] for number in range(len(trials))]


def _fit_due(due: Sequence[ActiveLearner]) -> None:
    if len(due) < 2:
        return
    try:
        fit_together(due)
    except Exception:
        # One of them may be at fault and not the others: each is fitted by itself when it goes on, and says it then.
        return


def _without_addresses(thing: object) -> str:
    """Return an object's repr without addresses in memory, which are others in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _n_start(pool: Pool, start: int | Tensor | None) -> int:
    if start is None:
        return pool.n_labeled
    return len(start) if isinstance(start, Tensor) else start


def _headline(result: RoundResult) -> dict[str, str]:
    """Return what the progress bar says: labels, and the accuracy on the test part, else on the validation part."""
    metrics = result.test or result.validation
    shown = {"labels": str(result.n_labeled)}
    return shown | ({"accuracy": f"{metrics['accuracy']:.3f}"} if metrics else {})
