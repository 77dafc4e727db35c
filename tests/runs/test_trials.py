"""Several runs in step: each is what it would be by itself."""

import io
import json

import pytest
import torch
from tqdm import tqdm

from tests.contracts import NearestMean
from torchal import LabeledData, Pool, Schedule, Trainer
from torchal.models import KernelSVM, LinearSVM, LogisticRegression
from torchal.runs.trainer import fit_trials
from torchal.samplers import Margin, Uniform

GRID = [0.01, 0.1, 1.0, 10.0]


def blobs(seed, n_rows=90):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n_rows) % 3
    return torch.randn(n_rows, 4, generator=generator) + 1.5 * torch.eye(3, 4)[targets], targets


def steps(folder, seed, model, *, sampler=None, pool_seed=None, oracle=None, **settings):
    inputs, targets = blobs(seed if pool_seed is None else pool_seed)
    settings = {"progress": False, "loggers": [], "schedule": Schedule(batch_size=7, budget=40)} | settings
    trainer = Trainer(model, sampler or Margin(), run_dir=folder / f"seed={seed}", seed=seed, **settings)
    return trainer.steps(
        Pool.unlabeled(inputs, n_classes=3),
        oracle or (lambda rows: targets[rows]),
        test=LabeledData(*blobs(99)),
        validation=LabeledData(*blobs(98)),
        start=torch.arange(9),
    )


def told(run):
    records = [json.loads(line) for line in (run.folder / "rounds.jsonl").read_text().splitlines()]
    for record in records:
        assert record["peak_mib"].keys() >= record["seconds"].keys()
        assert all(seconds >= 0 for seconds in record.pop("seconds").values())
        assert all(peak > 1 for peak in record.pop("peak_mib").values())
    return records


class CountedFits(LogisticRegression):
    calls: list = []

    def fit_many(self, X, y, *, same_bits=False):
        assert same_bits
        CountedFits.calls.append(X.shape[:2])
        return super().fit_many(X, y, same_bits=True)

    def fit(self, X, y, sample_weight=None):
        CountedFits.calls.append("alone")
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize(
    "model",
    [NearestMean(), LogisticRegression(), LogisticRegression(C=GRID), LinearSVM(C=GRID), KernelSVM(C=GRID)],
    ids=lambda model: f"{type(model).__name__} {getattr(model, 'C', '')}",
)
def test_each_is_the_run_alone(model, tmp_path):
    together = fit_trials([steps(tmp_path / "together", seed, model) for seed in range(4)])
    for seed, run in enumerate(together):
        alone = fit_trials([steps(tmp_path / "alone", seed, model)])[0]
        assert told(run) == told(alone)
        assert run.finished
        assert (run.folder / "config.yaml").read_bytes() == (alone.folder / "config.yaml").read_bytes()


def test_models_alike_are_fitted_by_one_call_a_round(tmp_path, monkeypatch):
    monkeypatch.setattr(CountedFits, "calls", [])
    runs = fit_trials([steps(tmp_path, seed, CountedFits()) for seed in range(3)])
    assert CountedFits.calls == [(3, n) for n in (9, 16, 23, 30, 37, 40)]
    fits = [result.seconds["fit"] for result in runs[0].rounds]
    assert fits == [result.seconds["fit"] for result in runs[1].rounds]


def test_models_of_other_settings_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(CountedFits, "calls", [])
    fit_trials([steps(tmp_path, seed, CountedFits(C=1.0 + seed)) for seed in range(2)])
    assert CountedFits.calls == ["alone"] * 12


def test_runs_of_other_lengths_end_by_themselves(tmp_path):
    schedules = [Schedule(batch_size=7, budget=20), Schedule(batch_size=3, budget=40), Schedule(batch_size=7, budget=9)]
    runs = fit_trials(
        [steps(tmp_path, seed, LogisticRegression(), schedule=schedule) for seed, schedule in enumerate(schedules)]
    )
    assert [run.rounds[-1].n_labeled for run in runs] == [20, 40, 9]
    alone = fit_trials([steps(tmp_path / "alone", 1, LogisticRegression(), schedule=schedules[1])])[0]
    assert told(runs[1]) == told(alone)


def test_one_that_fails_does_not_stop_the_others(tmp_path):
    def silent(rows):
        if len(rows) == 7 and 40 in rows:
            raise RuntimeError("nobody is there")
        return blobs(1)[1][rows]

    trials = [steps(tmp_path, 0, LogisticRegression()), steps(tmp_path, 1, LogisticRegression(), oracle=silent)]
    trials[1] = steps(tmp_path, 1, LogisticRegression(), oracle=lambda rows: [0] if len(rows) == 7 else silent(rows))
    with pytest.raises(ValueError, match="asked for 7 labels"):
        fit_trials(trials)
    whole = steps(tmp_path, 0, LogisticRegression())
    assert fit_trials([whole])[0].rounds[-1].n_labeled == 40
    resumed = fit_trials([steps(tmp_path, 1, LogisticRegression())])[0]
    assert told(resumed) == told(fit_trials([steps(tmp_path / "alone", 1, LogisticRegression())])[0])


def test_a_stop_in_the_middle_lets_go_of_all_folders_and_they_go_on(tmp_path, monkeypatch):
    from torchal.runs.results import RunFolder

    whole, written = RunFolder.append, []

    def stopped(self, result):
        whole(self, result)
        written.append(self.path.name)
        if len(written) == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "append", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit_trials([steps(tmp_path, seed, LogisticRegression()) for seed in range(3)])
    assert written == [f"seed={seed}" for _ in range(3) for seed in range(3)][:8]
    monkeypatch.setattr(RunFolder, "append", whole)
    runs = fit_trials([steps(tmp_path, seed, LogisticRegression()) for seed in range(3)])
    for seed, run in enumerate(runs):
        assert told(run) == told(fit_trials([steps(tmp_path / "alone", seed, LogisticRegression())])[0])


@pytest.mark.parametrize("finished", [0, 2])
def test_one_bar_counts_the_runs(finished, tmp_path):
    fit_trials([steps(tmp_path, seed, NearestMean()) for seed in range(finished)])
    schedules = [Schedule(batch_size=7, budget=40), Schedule(batch_size=7, budget=40, max_seconds=0)]
    with tqdm(total=3, disable=False, file=io.StringIO()) as bar:
        trials = [steps(tmp_path, seed, NearestMean(), progress=bar) for seed in range(2)]
        trials.append(steps(tmp_path, 2, NearestMean(), progress=bar, schedule=schedules[1]))
        fit_trials(trials)
        assert bar.n == pytest.approx(3)
        assert bar.n <= 3


def test_nothing_is_written_before_the_first_step(tmp_path):
    steps(tmp_path, 0, NearestMean(), sampler=Uniform())
    assert not (tmp_path / "seed=0").exists()


def test_stacks_of_rows_are_bounded(tmp_path, monkeypatch):
    from torchal.runs import together

    monkeypatch.setattr(CountedFits, "calls", [])
    monkeypatch.setattr(together, "_STACKED_VALUES", 2 * 9 * 4)
    fit_trials(
        [steps(tmp_path, seed, CountedFits(), schedule=Schedule(batch_size=7, max_rounds=0)) for seed in range(5)]
    )
    assert CountedFits.calls == [(2, 9), (2, 9), "alone"]
