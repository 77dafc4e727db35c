"""What a sweep ends with: a table and a report, made from the run folders."""

from __future__ import annotations

import math
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write

from experiments.examples import EXAMPLES, add_examples
from experiments.machine import SWEEP_PROCESS, SWEEP_RUNS
from torchal.errors import TorchalError
from torchal.runs.aggregates import address, curves_of, table_lines, write_aggregates
from torchal.runs.results import Run
from torchal.study.reading import Runs, read_runs
from torchal.study.report import write_report
from torchal.study.summing_up import SHARE_OF_FULL, Wanted, full_data, sum_up
from torchal.study.terminal import lines

TENSORBOARD = "tensorboard"
"""The folder of an experiment's mean curves."""


@dataclass(frozen=True)
class Command:
    """One command line: what it can have run, and what was there before it."""

    runs: Path
    before: dict[Path, tuple[int, int]]
    writes: bool = True
    """Whether reports are written, and not only the tables printed."""

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
            good &= _report(folder, writes=self.writes)
        if used:
            print(f"TensorBoard of each run: {_tensorboard(self.runs)}")
        return good


def _report(folder: Path, *, writes: bool = True) -> bool:
    """Print and write what an experiment's runs came to; return whether all of them could be read."""
    good = True
    try:
        runs = read_runs([folder])
        for problem in runs.problems:
            print(f"error: {problem.why}", file=sys.stderr)
            good = False
        if not any(one.run.finished for one in runs.found):
            return good
        summary = sum_up(
            runs, Wanted(title=folder.name, command=f"python -m experiments.report {shlex.quote(str(folder))}")
        )
        print()
        for line in lines(summary, target=f"{SHARE_OF_FULL:.0%} of full"):
            print(line)
    except (TorchalError, OSError) as error:
        print(f"error: no report on {folder}: {error}", file=sys.stderr)
        return False
    try:  # each by itself: where the one cannot be written, the other is
        if writes:
            summary = add_examples(summary, runs.found, rows=EXAMPLES)
            print(f"report: {write_report(summary, folder / 'report')[0]}")
    except (TorchalError, OSError) as error:
        print(f"error: no report on {folder}: {error}", file=sys.stderr)
        good = False
    try:
        _write_aggregates(folder, runs)
        print(f"TensorBoard: {_tensorboard(folder / TENSORBOARD)}, then {address()}")
    except (TorchalError, OSError) as error:
        print(f"error: no mean curves of {folder} for TensorBoard: {error}", file=sys.stderr)
        good = False
    return good


def _write_aggregates(folder: Path, found: Runs) -> None:
    """Write the mean curves of an experiment's samplers for TensorBoard, and a table of its runs."""
    finished = [one for one in found.found if one.run.finished and one.has("accuracy")]
    kinds = sorted({one.settings for one in finished})
    lines: dict[tuple[str, str], list[Run]] = {}
    for one in finished:  # where a folder holds several experiments, each sampler of each is a line
        lines.setdefault((one.sampler, one.settings), []).append(one.run)
    runs: dict[str, list[Run]] = {}
    for (sampler, settings), own in lines.items():
        name = sampler if len(kinds) == 1 else f"{sampler} ({kinds.index(settings) + 1})"
        name = name.replace("/", "-").replace("\\", "-").lstrip("~.") or "sampler"  # it names a folder
        while name in runs:
            name += "'"
        runs[name] = own
    targets = {seed: SHARE_OF_FULL * accuracy for seed, accuracy in full_data(finished).items()}
    write_aggregates(folder / TENSORBOARD, curves_of(runs), table=table_lines(runs, targets=targets))


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
        ReportCallback.command = Command(runs, _times(runs), writes=config.report is not False)
