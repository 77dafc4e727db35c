"""A small run with state, and ways to die in the middle of it. Run as a program: FOLDER MOMENT."""

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tests.contracts import NearestMean, make_pool
from torchal import LabeledData, Schedule, Trainer, results
from torchal.samplers import Sampler, Uniform

MOMENTS = ("fit", "select", "label", "labeled", "half a line", "line", "half a checkpoint", "checkpoint", "end")
AT_ROUND = 3


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
    settings = {"progress": False, "tensorboard": False, "config": {"what": "test"}, "schedule": schedule} | settings
    return Trainer(model or NearestMean(), sampler or Drift(), run_dir=folder, **settings)


def run(folder, *, oracle=None, start=None, **settings):
    pool, targets, validation = make_pool(n_labeled=0)
    test = LabeledData(pool.inputs, targets)
    answer = oracle or (lambda rows: targets[rows])
    return trainer(folder, **settings).fit(
        pool, answer, validation=validation, test=test, start=torch.arange(6) if start is None else start
    )


def run_until(folder, moment):
    """Run, and die at this moment of round 3."""
    count = {"fit": 0, "select": 0, "label": 0}

    def at(phase, rounds=AT_ROUND):
        count[phase] += 1
        return moment == phase and count[phase] == rounds

    class Model(NearestMean):
        def __sklearn_clone__(self):
            return Model()

        def fit(self, X, y):
            if at("fit", AT_ROUND + 1):
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
        if at("label", AT_ROUND + 1):
            die()
        return targets[rows]

    whole_append, whole_checkpoint, whole_save = (
        results.RunFolder.append,
        results.RunFolder.write_checkpoint,
        torch.save,
    )

    def append(self, result):
        if result.round == AT_ROUND and moment == "half a line":
            line = str(result.to_json())[:40]
            with (self.path / "rounds.jsonl").open("a") as file:
                file.write(line)
            die()
        whole_append(self, result)
        if result.round == AT_ROUND and moment == "line":
            die()

    def write_checkpoint(self, state, *, finished):
        if moment == "labeled" and state["bought"] and state["n_rounds"] == AT_ROUND:
            whole_checkpoint(self, state, finished=finished)
            die()
        if moment == "end" and finished:
            die()
        whole_checkpoint(self, state, finished=finished)
        if moment == "checkpoint" and state["n_rounds"] == AT_ROUND:
            die()

    def save(content, file):
        if moment == "half a checkpoint" and content["state"]["n_rounds"] == AT_ROUND:
            file.write(b"PK" + bytes(500))
            file.flush()
            die()
        whole_save(content, file)

    results.RunFolder.append = append
    results.RunFolder.write_checkpoint = write_checkpoint
    torch.save = save
    run(folder, model=Model(), sampler=Sampling(), oracle=oracle)


def run_slowly(folder):
    """Run with pauses, to be killed from outside at any time."""
    targets = make_pool(n_labeled=0)[1]

    def oracle(rows):
        time.sleep(0.02)
        return targets[rows]

    run(folder, oracle=oracle)


if __name__ == "__main__":
    run_slowly(Path(sys.argv[1])) if sys.argv[2] == "slowly" else run_until(Path(sys.argv[1]), sys.argv[2])
