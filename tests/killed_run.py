"""A small run with state, and ways to die in the middle of it. Run as a program: FOLDER MOMENT ROUND."""

import os
import resource
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tests import forks
from tests.contracts import NearestMean, make_pool
from torchal import LabeledData, RunError, Schedule, Trainer
from torchal.runs import results
from torchal.samplers import Sampler, Uniform

MOMENTS = ("label", "half a checkpoint", "labeled", "fit", "half a line", "line", "checkpoint")
PLACES = [(moment, number) for number in (0, 3) for moment in MOMENTS] + [("select", 3), ("end", 8)]


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Drift(Sampler):
    """Picks at random, shifted by what it has observed: any observation lost or doubled changes the picks."""

    observed: int = field(default=0, init=False)

    def select(self, view, n):
        rows = view.candidates.nonzero().squeeze(1)
        order = Uniform().select(view, n)
        shift = torch.searchsorted(rows, order.indices) + self.observed
        return order._replace(indices=rows[shift % len(rows)])

    def observe(self, result):
        self.observed += int(result.rows.sum()) + round(1000 * result.validation["accuracy"])

    def state_dict(self):
        return {"observed": self.observed}

    def load_state_dict(self, state):
        self.observed = state["observed"]


def trainer(folder, *, model=None, sampler=None, **settings):
    schedule = Schedule(batch_size=6, budget=54)
    settings = {"progress": False, "loggers": [], "config": {"what": "test"}, "schedule": schedule} | settings
    return Trainer(model or NearestMean(), sampler or Drift(), run_dir=folder, **settings)


def run(folder, *, oracle=None, start=None, **settings):
    pool, targets, validation = make_pool(n_labeled=0)
    test = LabeledData(pool.inputs, targets)
    answer = oracle or (lambda rows: targets[rows])
    return trainer(folder, **settings).fit(
        pool, answer, validation=validation, test=test, start=torch.arange(6) if start is None else start
    )


def run_until(folder, moment, number, loggers=()):
    """Run, and die at this moment of this round."""
    count = {"fit": -1, "select": 0, "label": -1}  # round 0 has no selection

    def at(phase):
        count[phase] += 1
        return moment == phase and count[phase] == number

    class Model(NearestMean):
        def __sklearn_clone__(self):
            return Model()

        def fit(self, X, y):
            if at("fit"):
                die()
            super().fit(X, y)

    class Sampling(Drift):
        def select(self, view, n):
            if at("select"):
                die()
            return super().select(view, n)

    Sampling.__name__ = "Drift"
    targets = make_pool(n_labeled=0)[1]

    def oracle(rows):
        if at("label"):
            die()
        return targets[rows]

    whole_append, whole_checkpoint = results.RunFolder.append, results.RunFolder.write_checkpoint

    def append(self, result):
        if result.round == number and moment == "half a line":
            with (self.path / "rounds.jsonl").open("a") as file:
                file.write(str(result.to_json())[:40])
            die()
        whole_append(self, result)
        if result.round == number and moment == "line":
            die()

    def write_checkpoint(self, state, *, finished):
        if moment == "end" and finished:
            die()
        labeled = state["bought"] and state["n_rounds"] == number
        if moment == "half a checkpoint" and labeled:
            results.write_atomically = half_write
        whole_checkpoint(self, state, finished=finished)
        if (moment == "labeled" and labeled) or (moment == "checkpoint" and state["n_rounds"] == number + 1):
            die()

    def half_write(path, content):
        with path.with_name(path.name + ".tmp").open("wb") as file:
            file.write(content[: len(content) // 2])
        die()

    results.RunFolder.append = append
    results.RunFolder.write_checkpoint = write_checkpoint
    run(folder, model=Model(), sampler=Sampling(), oracle=oracle, loggers=loggers)


def run_and_be_killed(folder, moment, number=3, loggers=()):
    """Run in another process, which dies at this moment of this round."""
    assert forks.exit_code(run_until, folder, moment, number, loggers) == -signal.SIGKILL


def run_slowly(folder):
    """Run with pauses, to be killed from outside at any time."""
    targets = make_pool(n_labeled=0)[1]

    def oracle(rows):
        time.sleep(0.02)
        return targets[rows]

    run(folder, oracle=oracle)


def run_on_a_full_disk(folder, loggers):
    """Run, with no room for a file of more than four rounds from the fifth batch on; return what the error says."""
    targets = make_pool(n_labeled=0)[1]
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    asked = []

    def oracle(rows):
        asked.append(rows)
        if len(asked) == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        return targets[rows]

    try:
        run(folder, oracle=oracle, loggers=loggers)
    except RunError as error:
        return str(error)
    return "no error"


if __name__ == "__main__":
    where, when = Path(sys.argv[1]), sys.argv[2]
    run_slowly(where) if when == "slowly" else run_until(where, when, int(sys.argv[3]))
