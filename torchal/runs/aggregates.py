"""A sweep in TensorBoard: the mean of each sampler's runs with its band, all samplers in one chart, and a table.

TensorBoard draws one line for each run, in the run's colour and by its name; so each sampler is a run. More than 40
runs it shows without selecting any, on the Scalars and Custom Scalars pages, unless the page's address narrows them
(`address`); and the table of hyperparameters takes a run for each line.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from torchal.errors import ConfigError
from torchal.runs.curves import LearningCurve, learning_curve
from torchal.runs.results import Run
from torchal.runs.tensorboard import write_hparams
from torchal.statistics.curves import area_under_curve, labels_to_reach

LINES = "~runs"
"""Below this folder are the runs that make the lines of the table; its name sorts after those of samplers."""


_INTERVAL = "~interval"  # after all metrics too: pages open with the first two groups unfolded


class TableLine(NamedTuple):
    """A line of the table of hyperparameters; metrics that are not known are None."""

    settings: Mapping[str, Any]
    metrics: Mapping[str, float | None]


def write_aggregates(
    folder: Path,
    curves: Mapping[str, Mapping[str, LearningCurve]],
    *,
    table: Mapping[str, TableLine] | None = None,
) -> None:
    """Write mean curves for TensorBoard into a folder of their own; what an earlier call wrote there is replaced.

    Each sampler is a run, named after it, with scalars `<metric>`, the mean, and `~interval/<metric>_lower` and
    `~interval/<metric>_upper`. On the page of custom scalars each metric is one chart, of all samplers with their
    bands. A curve of a single run has a band without width.

    Args:
        folder: for these events and no others.
        curves: by metric, then by sampler, in the order of their charts.
        table: lines of the table of hyperparameters, by name; see `table_lines`.

    Raises:
        ConfigError: no curve; or a sampler or a line that cannot be the name of a folder.
    """
    from torch.utils.tensorboard import SummaryWriter

    samplers = list(dict.fromkeys(sampler for by_sampler in curves.values() for sampler in by_sampler))
    if not samplers:
        raise ConfigError("there is no curve to write")
    _check_names([*samplers, *(table or {})])
    remove_runs(folder)
    layout = {
        "Mean over seeds and 95 % interval": {
            metric: ["Margin", [metric, f"{_INTERVAL}/{metric}_lower", f"{_INTERVAL}/{metric}_upper"]]
            for metric in reversed(list(curves))  # the page shows the last chart first
        }
    }
    for sampler in samplers:
        with SummaryWriter(str(folder / sampler)) as writer:
            writer.add_custom_scalars(layout)  # each run has it, so that any of them may be deleted
            for metric, by_sampler in curves.items():
                if sampler in by_sampler:
                    _write_curve(writer, metric, by_sampler[sampler])
    for name, (settings, metrics) in (table or {}).items():
        known = {metric: value for metric, value in metrics.items() if value is not None and math.isfinite(value)}
        with SummaryWriter(str(folder / LINES / name)) as writer:
            write_hparams(writer, settings, known)
            for metric, value in known.items():
                writer.add_scalar(metric, value, global_step=0)


def _write_curve(writer: Any, metric: str, curve: LearningCurve) -> None:
    ends = {f"{_INTERVAL}/{metric}_lower": curve.lower, f"{_INTERVAL}/{metric}_upper": curve.upper}
    for tag, values in {metric: curve.mean, **ends}.items():
        drawn = np.where(np.isfinite(values), values, curve.mean)  # a single run has no interval
        for n_labeled, value in zip(curve.n_labeled.tolist(), drawn.tolist(), strict=True):
            writer.add_scalar(tag, value, global_step=n_labeled)


def curves_of(runs: Mapping[str, Sequence[Run]]) -> dict[str, dict[str, LearningCurve]]:
    """Return the mean curves of each sampler's runs, by each metric of the test part that all rounds of all runs have.

    Raises:
        DataError: runs of a sampler have no number of labels in common.
    """
    rounds = [result.test for own in runs.values() for run in own for result in run.rounds]
    metrics = [name for name in (rounds[0] if rounds else ()) if all(name in test for test in rounds)]
    return {
        metric: {sampler: learning_curve(own, metric=metric) for sampler, own in runs.items()} for metric in metrics
    }


def table_lines(
    runs: Mapping[str, Sequence[Run]],
    *,
    metric: str = "accuracy",
    targets: Mapping[int, float] | None = None,
) -> dict[str, TableLine]:
    """Return a line of the table for each run: its sampler and seed, its last value, its area, and labels to a target.

    Args:
        runs: by sampler.
        metric: of the test part.
        targets: by seed, the value of the metric that is to be reached.

    Raises:
        ConfigError: a run did not record the metric.
    """
    lines = {}
    for sampler, own in runs.items():
        for run in own:
            n_labeled, values = run.curve(metric)
            seed = run.config.get("seed", run.folder.name)
            found: dict[str, float | None] = {
                f"summary/final_{metric}": values[-1],
                f"summary/area_{metric}": area_under_curve(n_labeled, values),
            }
            if targets is not None and seed in targets:
                found["summary/labels_to_target"] = labels_to_reach(n_labeled, values, targets[seed])
            lines[f"{sampler} seed={seed}"] = TableLine({"sampler": sampler, "seed": seed}, found)
    return lines


def address(page: str = "custom_scalars", *, port: int = 6006) -> str:
    """Return the address of a page of TensorBoard that shows an aggregate: its samplers selected, nothing smoothed.

    That stays so on the other pages, when these are chosen there.

    Args:
        page: custom_scalars, scalars, timeseries or hparams.
        port: of TensorBoard on this machine.

    Example:
        >>> address("scalars")
        'http://localhost:6006/?smoothing=0&runFilter=%5E%5B%5E~%5D#scalars&_smoothingWeight=0&regexInput=%5E%5B%5E~%5D'
    """
    samplers = quote(f"^[^{LINES[0]}]")
    # The page of time series reads what is before the #, the two pages of scalars what is behind it
    shown = f"?smoothing=0&runFilter={samplers}#{page}&_smoothingWeight=0&regexInput={samplers}"
    return f"http://localhost:{port}/{shown}"


def remove_runs(folder: Path) -> None:
    """Delete the event files in a folder and below it, and the folders that are empty without them."""
    if not folder.is_dir():
        return
    for file in folder.rglob("events.out.tfevents.*"):
        file.unlink()
    for below in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(below.iterdir()):
            shutil.rmtree(below)


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if name in ("", "..") or Path(name).name != name or name.startswith(LINES[0]):
            raise ConfigError(f"{name!r} cannot be the name of a run: it is a folder's, and begins not with {LINES[0]}")
