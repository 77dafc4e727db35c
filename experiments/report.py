"""What a sweep ends with: a table, a chart and TensorBoard aggregates, made from the run folders."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from torchal import charts
from torchal.curves import LearningCurve, area_under_curve, labels_to_reach, learning_curve, mean_interval
from torchal.errors import DataError
from torchal.results import Run, find_runs
from torchal.tensorboard import write_aggregate

SWEEP_RUNS = "TORCHAL_SWEEP_RUNS"
"""Environment variable by which a sweep tells its runs how many they are."""

BASELINE = "uniform"
REACH = 0.9


@dataclass(frozen=True)
class Row:
    """One line of the table: a sampler over its seeds."""

    sampler: str
    runs: list[Run]
    curve: LearningCurve
    areas: np.ndarray
    labels_to_reach: list[int | None]

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

    @classmethod
    def of(cls, folder: Path) -> Report:
        """Read the finished runs of an experiment folder.

        Raises:
            DataError: no run in it is finished.
        """
        full_data = {
            int(path.stem.removeprefix("seed=")): json.loads(path.read_text())["accuracy"]
            for path in (folder / "full_data").glob("seed=*.json")
        }
        by_sampler: dict[str, list[Run]] = {}
        for run in find_runs(folder):
            if run.finished:
                by_sampler.setdefault(run.config["names"]["sampler"], []).append(run)
        if not by_sampler:
            raise DataError(f"no run below {folder} is finished")
        rows = []
        for sampler, runs in by_sampler.items():
            curves = [run.curve() for run in runs]
            reached = [
                labels_to_reach(*curve, REACH * full_data.get(run.config["seed"], math.inf))
                for run, curve in zip(runs, curves, strict=True)
            ]
            areas = np.array([area_under_curve(*curve) for curve in curves])
            rows.append(Row(sampler, runs, learning_curve(runs), areas, reached))
        rows.sort(key=lambda row: -row.areas.mean())
        return cls(folder, rows, full_data)

    def lines(self) -> Iterator[str]:
        """Return the table, and how each sampler compares with the baseline on the same seeds."""
        full = float(np.mean(list(self.full_data.values()))) if self.full_data else math.nan
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
        yield f"{self.folder.name}   accuracy with all training data: {full:.4f}"
        for line in table:
            yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        baseline = next((row for row in self.rows if row.sampler == BASELINE), None)
        for row in self.rows:
            if baseline is not None and row is not baseline:
                yield from _comparison(row, baseline)

    def write(self) -> Path:
        """Write the chart and the TensorBoard aggregates into the experiment folder; return the chart's path."""
        curves = {row.sampler: row.curve for row in self.rows}
        full = float(np.mean(list(self.full_data.values()))) if self.full_data else None
        for sampler, curve in curves.items():
            write_aggregate(self.folder / "aggregate" / sampler, curve, name="accuracy")
        figure = charts.learning_curves(curves, title=self.folder.name, full_data=full)
        return charts.save(figure, self.folder / "chart.png")


def _cells(row: Row) -> Iterator[str]:
    lower, upper = mean_interval(row.areas)
    reached = [n for n in row.labels_to_reach if n is not None]
    missed = len(row.labels_to_reach) - len(reached)
    yield row.sampler
    yield str(len(row.runs))
    yield f"{row.curve.mean[-1]:.4f}"
    yield f"{row.areas.mean():.4f}" + (f" [{lower:.4f}, {upper:.4f}]" if math.isfinite(lower) else " [one seed]")
    yield (f"{np.mean(reached):.0f}" if reached else "") + (f" (not in {missed} of {len(row.runs)})" if missed else "")
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


def _uses(config: DictConfig, file: str) -> dict[Path, int]:
    """Return when this file of each run folder was last changed."""
    return {path.parent: path.stat().st_mtime_ns for path in Path(config.runs).glob(f"*/*/*/{file}")}


def _changed(before: dict[Path, int], after: dict[Path, int]) -> list[Path]:
    """Return the folders whose times differ. No clock is read, so none of another machine comes in."""
    return sorted(folder for folder, when in after.items() if before.get(folder) != when)


class ReportCallback(Callback):
    """Tells the runs of a sweep how many they are, and reports on every experiment folder that a command used."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Note when the command started."""
        self._start(config)

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        """Report after a single run."""
        self._report(config)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note when the command started, and count the runs that its overrides make."""
        self._start(config)
        overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
        params = config.hydra.sweeper.get("params") or {}
        overrides += OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
        sizes = [len(list(o.sweep_string_iterator())) for o in overrides if o.is_sweep_override()]
        os.environ[SWEEP_RUNS] = str(math.prod(sizes))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Report after a sweep."""
        os.environ.pop(SWEEP_RUNS, None)
        self._report(config)

    def _start(self, config: DictConfig) -> None:
        self._before = {file: _uses(config, file) for file in ("lock", "checkpoint.pt")}

    def _report(self, config: DictConfig) -> None:
        # A run touches its lock; a run that was not finished before also writes its checkpoint.
        used, ran = (_changed(self._before[file], _uses(config, file)) for file in ("lock", "checkpoint.pt"))
        if len(ran) < len(used):
            print(f"{len(used) - len(ran)} of {len(used)} runs were finished before and only read")
        for folder in sorted({run.parent.parent for run in used}):
            report = Report.of(folder)
            print()
            for line in report.lines():
                print(line)
            print(f"chart: {report.write()}")
        if used:
            command = [os.path.relpath(sys.executable), "-m", "tensorboard.main", "--logdir", str(config.runs)]
            print(f"TensorBoard: {shlex.join(command)}")
