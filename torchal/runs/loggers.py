"""Where a run's numbers go round by round: TensorBoard, a CSV file, or whatever takes scalars."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from torchal._records import write_atomically
from torchal.errors import ConfigError, RunError
from torchal.pool.round_result import RoundResult
from torchal.runs.calibration import calibration_error
from torchal.statistics.curves import area_under_curve

if TYPE_CHECKING:
    from torchal.runs.learner import ActiveLearner
    from torchal.runs.results import RunFolder


class RunLog(Protocol):
    """What a logger writes of one run."""

    def add(self, result: RoundResult) -> None:
        """Write a round that has just been finished."""

    def finish(self, hparams: Mapping[str, Any]) -> None:
        """Write what is known at the end of the run: its settings, as numbers or text, and what they came to."""

    def close(self) -> None:
        """Let go of files and connections, however the run ended."""


@runtime_checkable
class RunLogger(Protocol):
    """Settings of a logger, which may serve several runs.

    What it writes into a run's folder is to have each round once: the rounds that a run which was killed had finished
    before are `learner.history`, and may be there already, all of them, in part, or not.

    Example:
        >>> class Printing:
        ...     def open_run(self, folder, learner):
        ...         return self
        ...     def add(self, result):
        ...         print(result.n_labeled, result.test)
        ...     def finish(self, hparams):
        ...         print("the end")
        ...     def close(self):
        ...         pass
        >>> isinstance(Printing(), RunLogger)
        True
    """

    def open_run(self, folder: Path, learner: ActiveLearner) -> RunLog:
        """Begin, or go on with, the log of a run in this folder."""


@runtime_checkable
class ScalarWriter(Protocol):
    """What other libraries have for scalars: `torch.utils.tensorboard.SummaryWriter` and those made after it.

    Its `flush()` is called after each round and `close()` at the end, if it has them.
    """

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Write one value; the step is the number of labels."""


Logger: TypeAlias = RunLogger | ScalarWriter


@dataclass(frozen=True)
class CsvLog:
    """Writes `metrics.csv` into the run's folder: a row for each round, written when the round is done.

    Columns are `round`, `labels`, `cost`, then all that is in TensorBoard as a scalar by the same name, as
    `test/accuracy` and `seconds/fit`. A value that a round does not have is left blank.

    Args:
        name: of the file.

    Example:
        >>> import tempfile, torch
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from torchal import Pool, Schedule, Trainer
        >>> from torchal.samplers import Margin
        >>> x = torch.linspace(0, 1, 101)[:, None]
        >>> truth = (x[:, 0] > 0.3).long()
        >>> pool, schedule = Pool.unlabeled(x, n_classes=2), Schedule(batch_size=5, budget=20)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = Trainer(
        ...         GaussianNB(), Margin(), schedule=schedule, run_dir=folder, progress=False, loggers=[CsvLog()]
        ...     )
        ...     run = trainer.fit(pool, lambda rows: truth[rows], start=torch.arange(0, 101, 10))
        ...     lines = Path(folder, "metrics.csv").read_text().splitlines()
        >>> [line.split(",")[:3] for line in lines]
        [['round', 'labels', 'cost'], ['0', '11', '11.0'], ['1', '16', '16.0'], ['2', '20', '20.0']]
    """

    name: str = "metrics.csv"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name in ("", "..") or Path(self.name).name != self.name:
            raise ConfigError(f"name must be that of a file in the run's folder, got {self.name!r}")

    @property
    def place(self) -> str:
        """What it writes in the run's folder."""
        return self.name

    def open_run(self, folder: Path, learner: ActiveLearner) -> RunLog:
        """Write the rounds that there are, in the place of an earlier file.

        Args:
            folder: of the run.
            learner: whose rounds they are.
        """
        return _CsvRun(folder / self.name, learner.history)


class _CsvRun:
    def __init__(self, path: Path, history: Sequence[RoundResult]) -> None:
        self._path = path
        self._rows = [_csv_row(result) for result in history]
        self._columns: list[str] = []
        for row in self._rows:
            self._take_up(row)
        self._write_all()

    def add(self, result: RoundResult) -> None:
        row = _csv_row(result)
        self._rows.append(row)
        if self._take_up(row):
            self._write_all()
        else:
            with self._path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._lines([row]))

    def finish(self, hparams: Mapping[str, Any]) -> None:
        """Write nothing: all is there."""

    def close(self) -> None:
        """Close nothing: the file is not kept open."""

    def _take_up(self, row: Mapping[str, Any]) -> bool:
        """Add columns that no row before had, as a phase that is new, each beside its like; tell whether any was."""
        new = [column for column in row if column not in self._columns]
        for column in new:
            kind = column.split("/")[0]
            alike = [place for place, other in enumerate(self._columns) if other.split("/")[0] == kind]
            self._columns.insert(alike[-1] + 1 if alike else len(self._columns), column)
        return bool(new)

    def _write_all(self) -> None:
        head = ",".join(_quoted(column) for column in self._columns) + "\n" if self._columns else ""
        write_atomically(self._path, (head + self._lines(self._rows)).encode())

    def _lines(self, rows: Sequence[Mapping[str, Any]]) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        writer.writerows(rows)
        return text.getvalue()


def _csv_row(result: RoundResult) -> dict[str, Any]:
    head = {"round": result.round, "labels": result.n_labeled, "cost": result.cost}
    return {**head, **{tag: value for tag, value in scalars(result) if tag != "pool/cost"}}


def _quoted(text: str) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([text])
    return line.getvalue()


def scalars(result: RoundResult) -> Iterator[tuple[str, float]]:
    """Return the numbers of a round with their tags.

    `test/accuracy`, `validation/log_loss` and so on, `test/calibration_error`, `pool/cost`, `pool/kappa`,
    `seconds/fit`, `peak_mib/fit`; below `sampler/` the numbers of the sampler's report, as
    `sampler/probabilities/Margin-1`, and below `model/` and `select_model/` those of the models', as `model/C`.

    Example:
        >>> import torch
        >>> rows = torch.tensor([3])
        >>> result = RoundResult(0, 1, rows, rows, rows, rows.double(), "Margin", test={"accuracy": 0.5}, cost=2.0)
        >>> dict(scalars(result))
        {'test/accuracy': 0.5, 'pool/cost': 2.0}
    """
    for part in ("test", "validation"):
        for name, value in getattr(result, part).items():
            yield f"{part}/{name}", value
    if result.calibration.get("rows"):
        yield "test/calibration_error", calibration_error(result.calibration)
    yield "pool/cost", result.cost
    for part in ("pool", "seconds", "peak_mib"):
        for name, value in getattr(result, part).items():
            yield f"{part}/{name}", value
    yield from _numbers(result.report, "sampler")
    yield from _numbers(result.model, "model")
    yield from _numbers(result.select_model, "select_model")


def _numbers(report: Mapping[str, Any], at: str) -> Iterator[tuple[str, float]]:
    """Return the numbers of a report with their tags, those in the dicts inside it too; lists are left out."""
    for name, value in report.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{at}/{name}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{at}/{name}", value


def final_scalars(history: Sequence[RoundResult]) -> dict[str, float]:
    """Return what a run came to, by tag: of each metric that all rounds have, the last value and the area.

    Example:
        >>> import torch
        >>> rows = torch.tensor([3])
        >>> two = [RoundResult(i, n, rows, rows, rows, rows.double(), "Margin", test={"accuracy": n / 8})
        ...     for i, n in enumerate((2, 4))]
        >>> final_scalars(two)
        {'summary/final_accuracy': 0.5, 'summary/area_accuracy': 0.375}
    """
    n_labeled = [result.n_labeled for result in history]
    found = {}
    for name in history[-1].test if history else ():
        if all(name in result.test for result in history):  # not one that was added when the run went on
            values = [result.test[name] for result in history]
            found[f"summary/final_{name}"] = values[-1]
            found[f"summary/area_{name}"] = area_under_curve(n_labeled, values)
    return found


class _Forwarded:
    """Tells a writer of another library the rounds that are new; what it had before it keeps by itself."""

    def __init__(self, writer: ScalarWriter, learner: ActiveLearner) -> None:
        self._writer, self._history = writer, learner.history

    def add(self, result: RoundResult) -> None:
        for tag, value in scalars(result):
            self._writer.add_scalar(tag, value, result.n_labeled)
        self._call("flush")

    def finish(self, hparams: Mapping[str, Any]) -> None:  # noqa: ARG002 - it has a form of its own for them
        for tag, value in final_scalars(self._history).items():
            self._writer.add_scalar(tag, value, self._history[-1].n_labeled)
        self._call("flush")

    def close(self) -> None:
        self._call("close")

    def _call(self, name: str) -> None:
        method = getattr(self._writer, name, None)
        if callable(method):
            method()


def check_loggers(loggers: object) -> tuple[Logger, ...]:
    """Return loggers as a tuple.

    Raises:
        ConfigError: they are not several, one of them is no logger, or one is there twice.
    """
    form = "loggers must be a list of TensorBoard(), CsvLog(), or objects with add_scalar(tag, value, global_step)"
    if isinstance(loggers, str) or not isinstance(loggers, Sequence):
        raise ConfigError(f"{form}; got {loggers!r}")
    for place, logger in enumerate(loggers):
        if isinstance(logger, type):
            raise ConfigError(f"{form}; number {place} is the class {logger.__name__}: give {logger.__name__}()")
        if not any(callable(getattr(logger, name, None)) for name in ("open_run", "add_scalar")):
            raise ConfigError(
                f"{form}; number {place} is {logger!r} ({type(logger).__name__}), which has neither that nor open_run"
            )
        if any(other is logger or _same_place(other, logger) for other in loggers[:place]):
            raise ConfigError(f"loggers has {type(logger).__name__} twice, and both would write the same")
    return tuple(loggers)


def _same_place(one: object, other: object) -> bool:
    return getattr(one, "place", None) == getattr(other, "place", ...)


@contextmanager
def open_logs(loggers: Sequence[Logger], folder: RunFolder, learner: ActiveLearner) -> Iterator[OpenLogs]:
    """Open the logs of a run, and close all of them, however it ends.

    Raises:
        RunError: one of them fails; what was saved of the run stays as it is.
    """
    logs = OpenLogs(folder)
    try:
        for logger in loggers:
            logs.open(logger, learner)
        yield logs
    except BaseException:
        logs.close(quietly=True)  # the first error is the one to hear of
        raise
    logs.close()


class OpenLogs:
    """The logs of one run. One that fails keeps none of the others from being told the same."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._logs: list[tuple[str, RunLog]] = []

    def open(self, logger: Logger, learner: ActiveLearner) -> None:
        """Begin with one more logger."""
        name = type(logger).__name__
        with self._reported(name):
            log = _Forwarded(logger, learner) if isinstance(logger, ScalarWriter) else None
            self._logs.append((name, log or logger.open_run(self._folder.path, learner)))  # type: ignore[union-attr]

    def add(self, result: RoundResult) -> None:
        """Tell all of them a round."""
        self._each(lambda log: log.add(result))

    def finish(self, hparams: Mapping[str, Any]) -> None:
        """Tell all of them that the run is done."""
        self._each(lambda log: log.finish(hparams))

    def close(self, *, quietly: bool = False) -> None:
        """Close all of them."""
        try:
            self._each(lambda log: log.close())
        except RunError:
            if not quietly:
                raise

    def _each(self, act: Callable[[RunLog], None]) -> None:
        first: RunError | None = None
        for name, log in self._logs:
            try:
                with self._reported(name):
                    act(log)
            except RunError as error:
                first = first or error
        if first is not None:
            raise first

    @contextmanager
    def _reported(self, name: str) -> Iterator[None]:
        """Turn whatever a logger raises into an error that says which it was, and what is safe."""
        try:
            yield
        except Exception as error:
            raise RunError(
                f"the logger {name} failed: {type(error).__name__}: {error}. {self._folder.count_rounds()} rounds are "
                f"saved in {self._folder.path} and stay loadable; the same call goes on from there, with other loggers "
                "too"
            ) from error
