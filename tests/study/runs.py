"""Run folders for tests: as a run leaves them, without a run."""

import json

import numpy as np
import torch

from torchal import RoundResult
from torchal.runs.results import RunFolder


def write_run(
    root,
    *,
    data="digits",
    model="logistic",
    sampler="margin",
    seed=0,
    values=(0.5, 0.7, 0.9),
    labels=(10, 20, 40),
    classes=2,
    finished=True,
    settings=None,
    environment=None,
    metric="accuracy",
    watched=None,
    rows=None,
    **others,
):
    """Write a run whose accuracies (and other metrics) are given, and return its folder."""
    folder = root / f"{data}-{model}{others.pop('suffix', '')}" / sampler / f"seed={seed}"
    config = {
        "data": {"_target_": f"torchal.data.{data}", "seed": seed},
        "model": {"_target_": model, "random_state": seed},
        "sampler": {"_target_": sampler},
        "schedule": {"budget": max(labels, default=0)},
        "start": {"n": min(labels, default=0)},
        "seed": seed,
        "names": {"data": data, "model": model, "sampler": sampler},
        **(settings or {}),
    }
    run = RunFolder(folder)
    with run.locked():
        run.open(config, environment or {})
        random = np.random.default_rng(seed)
        before = 0
        for number, (value, n) in enumerate(zip(values, labels, strict=True)):
            new = n - before
            run.append(
                RoundResult(
                    round=number,
                    n_labeled=n,
                    rows=torch.arange(before, n) if rows is None else torch.as_tensor(rows[before:n]),
                    source_rows=torch.arange(before, n) if rows is None else torch.as_tensor(rows[before:n]),
                    labels=torch.from_numpy(random.integers(classes, size=new)),
                    scores=torch.full((new,), float(number)),
                    picked_by=sampler if number else "start",
                    test={metric: float(value), **{name: float(each[number]) for name, each in others.items()}},
                    pool={name: each[number] for name, each in (watched or {}).items() if each[number] is not None},
                    seconds={"fit": 0.5, "select": 0.25 * number},
                    cost=float(n),
                )
            )
            before = n
            run.write_checkpoint({"n_rounds": number + 1}, finished=False)
        run.write_checkpoint({"n_rounds": len(values)}, finished=finished)
    return folder


def write_full_data(root, *, data="digits", model="logistic", seeds=(0, 1, 2), accuracy=0.95):
    """Write what all training data come to."""
    folder = root / f"{data}-{model}" / "full_data"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"seed={seed}.json").write_text(json.dumps({"config": {}, "accuracy": accuracy}))


def write_sweep(
    root, *, samplers=("margin", "uniform"), data=("digits",), models=("logistic",), seeds=range(3), gap=0.05
):
    """Write a sweep in which the first sampler is ahead of the others, by as much in every pair, up to noise."""
    for d, name in enumerate(data):
        for model in models:
            for s, sampler in enumerate(samplers):
                for seed in seeds:
                    random = np.random.default_rng([d, s, seed])
                    start = 0.5 + 0.01 * np.random.default_rng([d, seed]).standard_normal()
                    ahead = gap * (s == 0) + 0.005 * random.standard_normal(2)
                    values = [start, start + 0.2 + ahead[0], start + 0.3 + ahead[1]]
                    losses = [1 - value for value in values]
                    write_run(root, data=name, model=model, sampler=sampler, seed=seed, values=values, log_loss=losses)
            write_full_data(root, data=name, model=model, seeds=seeds, accuracy=0.8)
