"""What a sweep ends with: a table, a chart and TensorBoard aggregates, made from the run folders."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from numpy.typing import NDArray
from omegaconf import DictConfig, open_dict, read_write

from experiments.machine import SWEEP_PROCESS, SWEEP_RUNS
from torchal._records import differences, without
from torchal.errors import ConfigError, TorchalError
from torchal.runs import charts
from torchal.runs.aggregates import address, curves_of, table_lines, write_aggregates
from torchal.runs.curves import LearningCurve, area_under_curve, labels_to_reach, learning_curve, mean_interval
from torchal.runs.results import Run, find_runs

BASELINE = "uniform"
REACH = 0.9
TENSORBOARD = "tensorboard"  # the folder of an experiment's aggregates
_OF_EXPERIMENT = ("data", "model", "select_model", "schedule", "start", "noise", "repeat", "cost")
_SEEDS = {"seed", "random_state"}


@dataclass(frozen=True)
class Row:
    """One line of the table: a sampler over its seeds."""

    sampler: str
    runs: list[Run]
    curve: LearningCurve
    areas: NDArray[Any]
    labels_to_reach: list[int | None]
    """Of each run whose full-data accuracy is known; None where the curve stays below."""

    @property
    def seconds(self) -> float:
        """Mean seconds of a run."""
        return float(np.mean([run.seconds for run in self.runs]))


@dataclass(frozen=True)
class Report:
    """All finished runs of one experiment folder, by sampler."""

    folder: Path
    rows: list[Row]
    full_data: dict[int, float]
    """Test accuracy with all training data, by seed."""
    n_unfinished: int

    @classmethod
    def of(cls, folder: Path) -> Report | None:
        """Read the finished runs of an experiment folder; return None where there is none.

        Raises:
            RunError: a run in it is damaged.
            ConfigError: its runs are of different data sets or models, as an explicit name= can bring about.
        """
        full_data = {
            int(path.stem.removeprefix("seed=")): json.loads(path.read_text(encoding="utf-8"))["accuracy"]
            for path in (folder / "full_data").glob("seed=*.json")
        }
        found = find_runs(folder)
        sources = {(run.config["names"]["data"], run.config["names"]["model"]) for run in found}
        if len(sources) > 1:
            kinds = "; ".join(sorted(", ".join(source) for source in sources))
            raise ConfigError(f"{folder} holds runs of different data or models ({kinds}); give each another name=")
        check_same_settings(folder, found)
        by_sampler: dict[str, list[Run]] = {}
        for run in found:
            if run.finished:
                by_sampler.setdefault(run.config["names"]["sampler"], []).append(run)
        if not by_sampler:
            return None
        rows = []
        for sampler, runs in by_sampler.items():
            curves = [run.curve() for run in runs]
            known = [(curve, full_data.get(run.config["seed"])) for run, curve in zip(runs, curves, strict=True)]
            reached = [labels_to_reach(*curve, REACH * full) for curve, full in known if full is not None]
            areas = np.array([area_under_curve(*curve) for curve in curves])
            rows.append(Row(sampler, runs, learning_curve(runs), areas, reached))
        rows.sort(key=lambda row: -row.areas.mean())
        seeds = {run.config["seed"] for row in rows for run in row.runs}
        shown = {seed: accuracy for seed, accuracy in full_data.items() if seed in seeds}
        return cls(folder, rows, shown, n_unfinished=sum(not run.finished for run in found))

    def lines(self) -> Iterator[str]:
        """Return the table, and how each sampler compares with the baseline on the same seeds."""
        full = f"{np.mean(list(self.full_data.values())):.4f}" if self.full_data else "not known"
        heads = [
            "sampler",
            "seeds",
            "final accuracy",
            "mean area [95 % interval]",
            f"labels to {REACH:.0%} of full",
            "s/run",
        ]
        table = [heads, *([*_cells(row)] for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(heads))]
        yield f"{self.folder.name}   accuracy with all training data: {full}"
        for line in table:
            yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        baseline = next((row for row in self.rows if row.sampler == BASELINE), None)
        for row in self.rows:
            if baseline is not None and row is not baseline:
                yield from _comparison(row, baseline)
        if self.n_unfinished:
            yield f"{self.n_unfinished} more runs are not finished; the command that began them goes on with them"

    def write(self) -> Path:
        """Write the chart and the TensorBoard aggregates into the experiment folder; return the chart's path."""
        curves = {row.sampler: row.curve for row in self.rows}
        full = float(np.mean(list(self.full_data.values()))) if self.full_data else None
        runs = {row.sampler: row.runs for row in self.rows}
        targets = {seed: REACH * accuracy for seed, accuracy in self.full_data.items()}
        write_aggregates(self.folder / TENSORBOARD, curves_of(runs), table=table_lines(runs, targets=targets))
        figure = charts.learning_curves(curves, title=self.folder.name, full_data=full)
        return charts.save(figure, self.folder / "chart.png")


def check_same_settings(folder: Path, runs: Sequence[Run]) -> None:
    """Require runs that differ in seed and sampler only.

    Raises:
        ConfigError: they have other settings too.
    """
    settings = [without({name: run.config.get(name) for name in _OF_EXPERIMENT}, _SEEDS) for run in runs]
    for others in settings[1:]:
        different = differences(settings[0], others)
        if different:
            raise ConfigError(f"{folder} holds runs of different experiments: {different}; give each another name=")


def _cells(row: Row) -> Iterator[str]:
    lower, upper = mean_interval(row.areas)
    reached = [n for n in row.labels_to_reach if n is not None]
    missed = len(row.labels_to_reach) - len(reached)
    yield row.sampler
    yield str(len(row.runs))
    yield f"{row.curve.mean[-1]:.4f}"
    yield f"{row.areas.mean():.4f}" + (f" [{lower:.4f}, {upper:.4f}]" if math.isfinite(lower) else " [one seed]")
    unreached = f" (not in {missed} of {len(row.labels_to_reach)})" if missed else ""
    yield (f"{np.mean(reached):.0f}" if reached else "") + unreached
    yield f"{row.seconds:.2f}"


def _comparison(row: Row, baseline: Row) -> Iterator[str]:
    """Compare areas seed by seed: the same seed has the same split and start set for every sampler."""
    from scipy.stats import ttest_1samp

    other = dict(zip((run.config["seed"] for run in baseline.runs), baseline.areas, strict=True))
    own = dict(zip((run.config["seed"] for run in row.runs), row.areas, strict=True))
    shared = sorted(own.keys() & other.keys())
    if len(shared) > 1:
        gaps = np.array([own[seed] - other[seed] for seed in shared])
        lower, upper = mean_interval(gaps)
        p = ttest_1samp(gaps, 0.0).pvalue
        yield (
            f"{row.sampler} - {baseline.sampler}: area {gaps.mean():+.4f} [{lower:+.4f}, {upper:+.4f}], "
            f"paired over {len(shared)} seeds, p = {p:.2g}"
        )


@dataclass(frozen=True)
class Command:
    """One command line: what it can have run, and what was there before it."""

    runs: Path
    before: dict[Path, tuple[int, int]]

    def report(self) -> bool:
        """Print and draw what the command ran, experiment by experiment; return whether that worked for all."""
        # A run touches its lock; one that was not finished before also writes its checkpoint.
        now = _times(self.runs)
        used = [run for run, times in now.items() if self.before.get(run) != times]
        read = [run for run in used if run in self.before and self.before[run][1] == now[run][1]]
        good = True
        if read:
            print(f"{len(read)} of {len(used)} runs were finished before and only read")
        # <runs>/<name>/<sampler>/seed=<seed>; a run that was put elsewhere by run_dir is compared with nothing
        for folder in sorted({run.parent.parent for run in used if _is_compared(run, self.runs)}):
            try:
                report = Report.of(folder)
                if report is None:
                    continue
                print()
                for line in report.lines():
                    print(line)
                print(f"chart: {report.write()}")
                print(f"TensorBoard: {_tensorboard(folder / TENSORBOARD)}, then {address()}")
            except (TorchalError, OSError) as error:
                print(f"error: no report on {folder}: {error}", file=sys.stderr)
                good = False
        if used:
            print(f"TensorBoard of each run: {_tensorboard(self.runs)}")
        return good


def _tensorboard(folder: Path) -> str:
    """Return the command that shows a folder, with all images of each run and not ten of them drawn at random."""
    options = ["--logdir", str(folder), "--samples_per_plugin", "images=1000"]
    return shlex.join([os.path.relpath(sys.executable), "-m", "tensorboard.main", *options])


def _is_compared(run: Path, runs: Path) -> bool:
    return len(run.relative_to(runs).parts) > 2 and run.name.startswith("seed=")


def _times(runs: Path) -> dict[Path, tuple[int, int]]:
    """Return when the lock and the checkpoint of each run folder were changed. Only such times are compared, with each
    other, so that no clock of another machine comes in.
    """
    folders = [lock.parent for lock in runs.rglob("lock") if (lock.parent / "config.yaml").exists()]
    files = {folder: (folder / "lock", folder / "checkpoint.pt") for folder in folders}
    return {
        folder: (lock.stat().st_mtime_ns, checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0)
        for folder, (lock, checkpoint) in files.items()
    }


class ReportCallback(Callback):
    """Remembers what was there when a command started, and tells the runs of a sweep how many they are."""

    command: ClassVar[Command | None] = None

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Look at the runs that are there."""
        self._start(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Look at the runs that are there, and count the runs that the command makes."""
        self._start(config)
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        params = config.hydra.sweeper.get("params") or {}
        with read_write(config), open_dict(config):  # what the command line says counts, not both
            for override in overrides:
                params.pop(override.key_or_group, None)
        overrides += OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
        sizes = [len(list(o.sweep_string_iterator())) for o in overrides if o.is_sweep_override()]
        os.environ[SWEEP_RUNS] = str(math.prod(sizes))
        os.environ[SWEEP_PROCESS] = str(os.getpid())

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:  # noqa: ARG002 - Hydra's signature
        """Forget the count."""
        os.environ.pop(SWEEP_RUNS, None)

    def _start(self, config: DictConfig) -> None:
        os.environ.pop(SWEEP_RUNS, None)  # of a sweep that failed in this process
        runs = Path(config.runs)
        ReportCallback.command = Command(runs, _times(runs))
