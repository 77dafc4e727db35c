"""Trials of one experiment, run together and one after another, in one process and as commands."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.classical import letter
from benchmarks.harness import Row, compare
from torchal import LogisticRegression, Schedule, Trainer
from torchal.data import Splits, digits, make_splits, start_rows
from torchal.runs.trainer import Steps, fit_trials
from torchal.samplers import Margin

GRID = [10.0**i for i in range(-4, 5)]
ROOT = Path(__file__).parents[1]


def rows(size: str, device: str) -> Iterator[Row]:
    """Time margin sampling with a logistic regression whose C is tuned at every fit."""
    n_trials, budget = {"small": (3, 60), "medium": (20, 400), "large": (20, 400)}[size]
    data = [digits(seed=seed, standardize=True).to(device) for seed in range(n_trials)]
    work = f"digits, {n_trials} trials, margin, logistic with its grid, 20 to {budget}"
    yield from _together(work, data, Schedule(batch_size=20, budget=budget), n_start=20, device=device)
    if size != "small":
        yield from _commands(f"{work}, as commands", n_trials, device=device)
    if size == "large":
        source = letter()
        if source is not None:
            splits = [make_splits(*source, name="letter", seed=i, standardize=True).to(device) for i in range(5)]
            work = "letter, 5 trials, margin, logistic with its grid, 2 % batches, whole pool"
            yield from _together(work, splits, Schedule(batch_fraction=0.02), n_start=266, device=device)


def _together(work: str, data: list[Splits], schedule: Schedule, *, n_start: int, device: str) -> Iterator[Row]:
    def steps(folder: str) -> list[Steps]:
        trials = []
        for seed, splits in enumerate(data):
            run_dir = f"{folder}/seed={seed}"
            trainer = Trainer(
                LogisticRegression(C=GRID), Margin(), schedule=schedule, run_dir=run_dir, seed=seed, progress=False
            )
            start = start_rows(splits.train.targets, n_start, generator=torch.Generator().manual_seed(seed))
            trials.append(
                trainer.steps(
                    splits.pool(), splits.oracle(), start=start, validation=splits.validation, test=splits.test
                )
            )
        return trials

    def together() -> None:
        with tempfile.TemporaryDirectory() as folder:
            fit_trials(steps(folder))

    def one_by_one() -> None:
        with tempfile.TemporaryDirectory() as folder:
            for trial in steps(folder):
                fit_trials([trial])

    candidates: dict[str, Callable[[], object]] = {"ours": together, "one after another": one_by_one}
    yield from compare(work, candidates, repeats=1, device=device, once=list(candidates))


def _commands(work: str, n_trials: int, *, device: str) -> Iterator[Row]:
    def run(*words: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for line in words or [f"seed={seed}" for seed in range(n_trials)]:
                command = [sys.executable, "-m", "experiments.run", f"runs={folder}", "progress=false"]
                command += [f"device={device}", *line.split()]
                subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    halves = f"seed=0,{n_trials // 2} trials={n_trials // 2} hydra/launcher=joblib hydra.launcher.n_jobs=2 -m"
    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: run(f"trials={n_trials}"),
        "ours, two jobs of half the trials": lambda: run(halves),
        "one command each": run,
    }
    yield from compare(work, candidates, repeats=1, device=device, once=list(candidates))
