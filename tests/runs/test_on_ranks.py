"""A run on several ranks is that of one process. Ranks are threads here, and in tests/experiments processes."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.ranks import run_ranks
from torchal import (
    ActiveLearner,
    CapabilityError,
    ConfigError,
    DataError,
    FileRows,
    LabeledData,
    LogisticRegression,
    Pool,
    RunError,
    Schedule,
    Trainer,
)
from torchal.errors import GroupError
from torchal.pool import file_inputs
from torchal.runs import results
from torchal.runs.loggers import CsvLog
from torchal.samplers import Bait, KCenterGreedy, Margin, Sampler, Uniform

N_ROWS = 500
TRUTH = torch.arange(N_ROWS) % 3


def values():
    rows = torch.randn(N_ROWS, 4, generator=torch.Generator().manual_seed(0))
    return rows + 2 * torch.eye(3, 4)[TRUTH]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return written(tmp_path_factory.mktemp("rows"), values())


def written(folder, rows):
    files = [folder / f"{start}.npy" for start in (0, 170, 340)]
    for file, part in zip(files, rows.half().split(170), strict=True):
        np.save(file, part.numpy())
    return files


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(file_inputs, "_MOST_ROWS", 64)


def trainer(folder, sampler=None, *, model=None, schedule=None, **settings):
    return Trainer(
        model or LogisticRegression(C=1.0),
        sampler or Margin(),
        schedule=schedule or Schedule(batch_size=10, budget=50),
        run_dir=folder,
        **{"progress": False, "loggers": [], "config": {"what": "test"}} | settings,
    )


def fit(trainer, files, *, oracle=None):
    x = values()[:60]
    parts = LabeledData(x[:20], TRUTH[:20]), LabeledData(x[20:], TRUTH[20:60])
    pool = Pool.unlabeled(files if isinstance(files, FileRows) else FileRows(files), n_classes=3)
    answer = oracle or (lambda rows: TRUTH[rows])
    return trainer.fit(pool, answer, validation=parts[0], test=parts[1], start=torch.arange(5))


def records(folder):
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in {"seconds", "peak_mib"}} for line in lines]


WATCHED = ("kappa", "uncertainty", "redundancy", "cover_radius", "batch_uncertainty")


@pytest.mark.parametrize("sampler", [Margin(), KCenterGreedy(), KCenterGreedy(weights="entropy"), Uniform()])
def test_the_record_is_that_of_one_process(sampler, files, tmp_path):
    schedule = Schedule(batch_size=10, budget=50, max_seconds=1000)
    fit(trainer(tmp_path / "alone", sampler, schedule=schedule, watch=WATCHED), files)
    for world_size in (2, 3):
        folder = tmp_path / str(world_size)
        settings = {"schedule": schedule, "watch": WATCHED, "loggers": [CsvLog()]}
        runs = run_ranks(
            world_size, lambda group, to=folder, more=settings: fit(trainer(to, sampler, group=group, **more), files)
        )
        for run in runs:
            assert run.finished, run
            assert [done.seconds for done in run.rounds] == [done.seconds for done in runs[0].rounds]
        assert records(folder) == records(tmp_path / "alone")
        assert len((folder / "metrics.csv").read_text().splitlines()) == 7


def test_nobody_reads_the_rows_of_others(files, tmp_path, monkeypatch):
    read = []
    whole = FileRows.read

    def noted(self, start, stop):
        read.append(stop - start)
        return whole(self, start, stop)

    monkeypatch.setattr(FileRows, "read", noted)
    fit(trainer(tmp_path / "alone"), files)
    assert sum(read) == 5 * N_ROWS  # a pass for each selection
    assert max(read) <= 64
    read.clear()
    run_ranks(2, lambda group: fit(trainer(tmp_path / "two", group=group), files))
    assert 5 * N_ROWS < sum(read) <= 5 * (N_ROWS + 64)  # and once more the block in which the parts meet


@dataclass(frozen=True)
class Stopping(Uniform):
    """Is interrupted when it is to pick for the so-many-th time."""

    at: int = 0

    def select(self, view, n):
        if int(view.total(view.labeled.sum())) == self.at:
            raise RuntimeError("interrupted")
        return super().select(view, n)


@pytest.mark.parametrize(("first", "then"), [(2, 3), (2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks(first, then, files, tmp_path):
    def on(world_size, sampler):
        return run_ranks(
            world_size, lambda group: fit(trainer(tmp_path / "run", sampler, group=group, description="x"), files)
        )

    fit(trainer(tmp_path / "alone", Stopping(at=-1)), files)
    assert all("interrupted" in str(error) for error in on(first, Stopping(at=25)))
    assert len(records(tmp_path / "run")) == 3
    assert all(run.finished for run in on(then, Stopping(at=-1)))
    assert records(tmp_path / "run") == records(tmp_path / "alone")
    assert all(len(run.rounds) == 6 for run in on(2, Stopping(at=-1)))  # and is only read from then on


def fails_on_rank(rank, work):
    def one(group):
        try:
            return work(group, group.rank == rank)
        finally:
            assert not group.failed

    return run_ranks(3, one)


def test_ranks_that_fit_other_models_are_found(files, tmp_path):
    found = fails_on_rank(
        1,
        lambda group, bad: fit(
            trainer(tmp_path / "run", model=LogisticRegression(C=0.01 if bad else 1.0), group=group), files
        ),
    )
    assert isinstance(found[1], GroupError)
    assert "rank 1 came to another record of round 0 than rank 0, " in str(found[1])
    assert "test.log_loss was" in str(found[1])
    assert all("rank 1 failed with GroupError: rank 1 came to another record" in str(found[i]) for i in (0, 2))
    assert not (tmp_path / "run" / "rounds.jsonl").exists()


def test_rows_that_one_rank_cannot_read_end_all(tmp_path):
    bad = values()
    bad[300] = torch.nan
    (tmp_path / "bad").mkdir()
    others = written(tmp_path / "bad", bad)
    found = fails_on_rank(1, lambda group, _: fit(trainer(tmp_path / "run", KCenterGreedy(), group=group), others))
    assert isinstance(found[1], DataError)
    assert "300" in str(found[1])
    assert all(isinstance(found[i], GroupError) and "rank 1 failed with DataError" in str(found[i]) for i in (0, 2))
    assert len(records(tmp_path / "run")) == 1


def test_a_shard_that_one_rank_loses_ends_all(files, tmp_path):
    (tmp_path / "copy").mkdir()
    copies = written(tmp_path / "copy", values())

    def work(group, bad):
        def oracle(rows):
            if bad and len(rows) == 10:
                copies[1].unlink(missing_ok=True)
            return TRUTH[rows]

        return fit(trainer(tmp_path / "run", group=group), copies if bad else files, oracle=oracle)

    found = fails_on_rank(1, work)
    assert isinstance(found[1], DataError)
    assert all("rank 1 failed with DataError" in str(found[i]) and "170.npy" in str(found[i]) for i in (0, 2))
    assert len(records(tmp_path / "run")) == 1
    np.save(copies[1], values()[170:340].half().numpy())

    def goes_on(group, bad):
        rows = FileRows(copies if bad else files)
        if bad:
            copies[1].unlink()
        return fit(trainer(tmp_path / "run", group=group), rows)

    found = fails_on_rank(1, goes_on)
    assert isinstance(found[1], DataError)
    assert all("rank 1 failed with DataError" in str(found[i]) for i in (0, 2))
    assert len(records(tmp_path / "run")) == 1


def test_an_oracle_that_fails_on_one_rank_ends_all(files, tmp_path):
    def work(group, bad):
        def oracle(rows):
            if bad and len(rows) == 10:
                raise OSError("nobody there")
            return TRUTH[rows]

        return fit(trainer(tmp_path / "run", group=group), files, oracle=oracle)

    found = fails_on_rank(1, work)
    assert isinstance(found[1], OSError)
    assert all(str(found[i]) == "rank 1 failed with OSError: nobody there" for i in (0, 2))
    assert all(run.finished for run in run_ranks(2, lambda group: fit(trainer(tmp_path / "run", group=group), files)))


def test_what_one_rank_refuses_ends_all(files, tmp_path):
    def work(group, bad):
        metrics = {"accuracy": len} if bad else None
        return fit(trainer(tmp_path / "run", group=group, metrics=metrics), files)

    found = fails_on_rank(1, work)
    assert isinstance(found[1], ConfigError)
    assert all("rank 1 failed with ConfigError: metrics maps new names" in str(found[i]) for i in (0, 2))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"seed": 1}, "rank 0 for seed=0; rank 1 for seed=1"),
        ({"sampler": Margin(on="probabilities")}, "rank 0 for sampler=\"Margin(on='auto')\"; rank 1 for sampler="),
        ({"schedule": Schedule(batch_size=10, budget=40)}, "rank 0 for schedule.budget=50; rank 1 for schedule.budget"),
        ({"config": {"what": "test", "how": {"much": 2}}}, "rank 0 for nothing; rank 1 for config.how.much=2"),
        ({"watch": ["cover_radius"]}, "rank 0 for watch=[]; rank 1 for watch=['cover_radius']"),
    ],
)
def test_ranks_that_are_on_different_runs_are_refused_before_anything_is_written(settings, told, files, tmp_path):
    def one(group):
        return fit(trainer(tmp_path / "run", group=group, **(settings if group.rank else {})), files)

    for error in run_ranks(2, one):
        assert isinstance(error, ConfigError)
        assert f"the ranks were asked for different things: {told}" in str(error)
    assert not (tmp_path / "run").exists()


def test_ranks_that_have_different_pools_are_refused(files, tmp_path):
    other = values()
    other[499] += 1
    (tmp_path / "other").mkdir()
    others = written(tmp_path / "other", other)
    for pools in (others, files[:2]):
        for error in run_ranks(
            2, lambda group, of=pools: fit(trainer(tmp_path / "run", group=group), of if group.rank else files)
        ):
            assert isinstance(error, ConfigError)
            assert "asked for different things: rank 0 for pool='500 rows " in str(error)
    assert not (tmp_path / "run").exists()


def test_a_state_that_one_rank_cannot_load_ends_all(files, tmp_path, monkeypatch):
    run_ranks(2, lambda group: fit(trainer(tmp_path / "run", Stopping(at=25), group=group), files))
    whole = ActiveLearner.load_state_dict

    def load(self, *state):
        if self.ranks.shards.rank:
            raise RunError("of something else")
        whole(self, *state)

    monkeypatch.setattr(ActiveLearner, "load_state_dict", load)
    first, second = run_ranks(
        2, lambda group: fit(trainer(tmp_path / "run", Stopping(at=-1), group=group, description="x"), files)
    )
    assert str(first) == "rank 1 failed with RunError: of something else"
    assert isinstance(second, RunError)


def test_a_fit_that_fails_on_one_rank_ends_all(files, tmp_path):
    class Failing(LogisticRegression):
        def __sklearn_clone__(self):
            return self

        def fit(self, X, y):
            raise ValueError("no memory, say")

    found = fails_on_rank(
        2, lambda group, bad: fit(trainer(tmp_path / "run", model=Failing() if bad else None, group=group), files)
    )
    assert "no memory, say" in str(found[2])
    assert all("rank 2 failed with FitError" in str(found[i]) for i in (0, 1))


def test_a_full_disk_ends_all_and_the_run_goes_on(files, tmp_path, monkeypatch):
    whole = results.RunFolder.append

    def full(self, result):
        if result.round == 2:
            raise RunError("no space left")
        whole(self, result)

    with monkeypatch.context() as patch:
        patch.setattr(results.RunFolder, "append", full)
        found = run_ranks(2, lambda group: fit(trainer(tmp_path / "run", group=group), files))
    assert isinstance(found[0], RunError)
    assert "rank 0 failed with RunError: no space left" in str(found[1])
    assert all(run.finished for run in run_ranks(2, lambda group: fit(trainer(tmp_path / "run", group=group), files)))
    fit(trainer(tmp_path / "alone"), files)
    assert records(tmp_path / "run") == records(tmp_path / "alone")


def test_a_folder_in_use_or_of_another_run_is_refused_by_all(files, tmp_path):
    with results.RunFolder(tmp_path / "run").locked():
        found = run_ranks(2, lambda group: fit(trainer(tmp_path / "run", group=group), files))
    assert "is in use by another process" in str(found[0])
    assert "rank 0 failed with RunError" in str(found[1])
    fit(trainer(tmp_path / "run"), files)
    found = run_ranks(2, lambda group: fit(trainer(tmp_path / "run", group=group, config={"what": "else"}), files))
    assert isinstance(found[0], ConfigError)
    assert "what was 'test', is 'else'" in str(found[1])


class Own(Sampler):
    """Somebody's own strategy."""

    def select(self, view, n):
        raise AssertionError


@pytest.mark.parametrize("sampler", [Bait(), KCenterGreedy(outliers=0.1), Own()])
def test_a_sampler_of_one_process_is_refused_before_anything_is_written(sampler, files, tmp_path):
    for error in run_ranks(2, lambda group: fit(trainer(tmp_path / "run", sampler, group=group), files)):
        assert isinstance(error, ConfigError)
        settings = " with these settings" if isinstance(sampler, KCenterGreedy) else ""
        assert f"{type(sampler).__name__}{settings} cannot pick from rows on 2 ranks; badge, entropy, " in str(error)
    assert not (tmp_path / "run").exists()
    fit(trainer(tmp_path / "run", KCenterGreedy(outliers=0.1), group=None), files)


def test_a_pool_in_memory_and_what_each_pick_represents_are_for_one_process(files):
    def learner(group, inputs, **settings):
        return ActiveLearner(
            LogisticRegression(), Margin(), Pool.unlabeled(inputs, n_classes=3), group=group, **settings
        )

    for error in run_ranks(2, lambda group: learner(group, values())):
        assert isinstance(error, CapabilityError)
        assert "a run on 2 ranks is of a pool in files" in str(error)
        assert "this one is of Tensor" in str(error)
    for error in run_ranks(2, lambda group: learner(group, FileRows(files), represents=True)):
        assert isinstance(error, ConfigError)
        assert "represents=True is for one process" in str(error)


def test_one_rank_is_one_process(files, tmp_path):
    (run,) = run_ranks(1, lambda group: fit(trainer(tmp_path / "one", Bait(), group=group), files))
    assert run.finished
