import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

from tests import forks, killed_run
from tests.contracts import NearestMean, make_pool
from torchal import (
    BudgetError,
    CapabilityError,
    ConfigError,
    CsvLog,
    LabeledData,
    Pool,
    RunError,
    Schedule,
    TensorBoard,
    Trainer,
)
from torchal.models import MLP, LogisticRegression, TorchClassifier
from torchal.runs import metrics
from torchal.runs.results import RunFolder
from torchal.samplers import Bandit, Entropy, Hierarchical, KCenterGreedy, Margin, Uniform

ROOT = Path(__file__).parents[2]


def told(run):
    """Return what must not depend on when a run was killed: everything but the seconds and the memory."""
    records = [result.to_json() for result in run.rounds]
    for record in records:
        del record["seconds"], record["peak_mib"]
    return records


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return killed_run.run(tmp_path_factory.mktemp("undisturbed"))


class TestFolder:
    def test_holds_what_the_design_says(self, tmp_path):
        run = killed_run.run(tmp_path / "a" / "run", loggers=[TensorBoard()])
        assert {path.name for path in run.folder.iterdir()} == {
            *("checkpoint.pt", "config.yaml", "environment.json", "lock", "rounds.jsonl", "tb")
        }
        assert json.loads((run.folder / "config.yaml").read_text()) == {"what": "test"}
        environment = json.loads((run.folder / "environment.json").read_text())
        assert environment["packages"]["torch"] == torch.__version__.split("+")[0]
        assert environment["device"] == "cpu"
        assert len((run.folder / "rounds.jsonl").read_text().splitlines()) == 9
        assert run.finished

    def test_checkpoint_loads_without_pickle(self, undisturbed):
        state = torch.load(undisturbed.folder / "checkpoint.pt", weights_only=True)
        assert state["finished"]

    def test_without_a_config_the_settings_are_noted(self, tmp_path):
        run = killed_run.run(tmp_path, config=None)
        assert run.config["seed"] == 0
        assert run.config["sampler"].startswith("Drift(")
        assert run.config["schedule"]["batch_size"] == 6

    def test_a_finished_run_is_read_and_not_run_again(self, undisturbed):
        def oracle(rows):
            raise AssertionError("asked again")

        assert told(killed_run.run(undisturbed.folder, oracle=oracle)) == told(undisturbed)

    def test_another_config_is_refused_and_the_difference_named(self, undisturbed):
        with pytest.raises(ConfigError, match=r"what was 'test', is 'new'; more was None, is {'a': 1}"):
            killed_run.run(undisturbed.folder, config={"what": "new", "more": {"a": 1}})
        assert told(RunFolder(undisturbed.folder).read()) == told(undisturbed)

    def test_another_schedule_or_start_set_is_refused(self, undisturbed):
        with pytest.raises(ConfigError, match=r"schedule.budget was 54, is 58"):
            killed_run.run(undisturbed.folder, schedule=Schedule(batch_size=6, budget=58))
        with pytest.raises(ConfigError, match=r"start was \[0, 1, 2, 3, 4, 5\], is \[0, 1\]"):
            killed_run.run(undisturbed.folder, start=torch.arange(2))

    def test_another_seed_or_pool_is_refused(self, undisturbed, monkeypatch):
        with pytest.raises(RunError, match="another seed"):
            killed_run.run(undisturbed.folder, seed=1)
        monkeypatch.setattr(killed_run, "make_pool", lambda **settings: make_pool(seed=1, **settings))
        with pytest.raises(RunError, match="another pool"):
            killed_run.run(undisturbed.folder)

    def test_one_sampler_object_may_serve_many_runs(self, tmp_path, undisturbed):
        sampler = killed_run.Drift()
        for name in ("a", "b"):
            assert told(killed_run.run(tmp_path / name, sampler=sampler)) == told(undisturbed)
        assert sampler.observed == 0

    def test_a_config_that_cannot_be_written_is_refused_before_anything_is(self, tmp_path):
        with pytest.raises(ConfigError, match="only numbers, text, lists, dicts and arrays can be written"):
            killed_run.run(tmp_path / "run", config={"model": object()})
        assert not (tmp_path / "run").exists()

    def test_the_default_config_has_no_addresses(self, tmp_path):
        class Plain(NearestMean):
            pass

        assert " at 0x" in repr(Plain())
        config = killed_run.run(tmp_path, model=Plain(), config=None).config
        assert " at 0x" not in config["model"]

    @pytest.mark.parametrize("held", [{object}, lambda: 0], ids=["a class", "a function"])
    def test_state_that_cannot_be_read_back_is_refused_at_once(self, held, tmp_path):
        class Odd(killed_run.Drift):
            def state_dict(self):
                return {"observed": held}

        with pytest.raises(RunError, match="state_dict"):
            killed_run.run(tmp_path, sampler=Odd())

    def test_numbers_of_numpy_are_numbers(self, tmp_path, undisturbed):
        schedule = Schedule(
            batch_fraction=np.float64(0.1), budget=np.int64(54), target_metric="accuracy", target_value=np.float32(2)
        )
        assert told(killed_run.run(tmp_path, schedule=schedule, start=np.arange(6))) == told(undisturbed)

    def test_a_second_process_is_refused_while_the_first_runs(self, tmp_path):
        first = forks.start(killed_run.run_slowly, tmp_path)
        try:
            wait_for_rounds(tmp_path, 1)
            with pytest.raises(RunError, match="in use by another process"):
                killed_run.run(tmp_path)
        finally:
            first.kill()
            first.join()

    def test_progress_says_rounds_and_accuracy(self, tmp_path, capsys):
        killed_run.run(tmp_path, progress=True)
        shown = capsys.readouterr().err
        assert "9/9" in shown
        assert "labels=54, accuracy=" in shown


class TestKilled:
    @pytest.mark.parametrize(("moment", "number"), killed_run.PLACES)
    def test_goes_on_as_if_never_killed(self, moment, number, tmp_path, undisturbed):
        killed_run.run_and_be_killed(tmp_path, moment, number)
        self.check_what_there_is(tmp_path, number, undisturbed)

    def test_goes_on_after_a_program_of_its_own(self, tmp_path, undisturbed):
        command = [sys.executable, "-m", "tests.killed_run", str(tmp_path), "line", "3"]
        assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
        self.check_what_there_is(tmp_path, 3, undisturbed)

    def check_what_there_is(self, folder, number, undisturbed):
        before = RunFolder(folder).read()
        assert not before.finished
        assert told(before) == told(undisturbed)[: len(before.rounds)]
        assert len(before.rounds) in (number, number + 1)
        resumed = killed_run.run(folder)
        assert told(resumed) == told(undisturbed)
        assert resumed.finished

    def test_labels_that_were_paid_for_are_not_asked_again(self, tmp_path, undisturbed):
        killed_run.run_and_be_killed(tmp_path, "labeled")
        targets, asked = make_pool(n_labeled=0)[1], []

        def oracle(rows):
            asked.extend(rows.tolist())
            return targets[rows]

        killed_run.run(tmp_path, oracle=oracle)
        bought = torch.cat([result.rows for result in undisturbed.rounds]).tolist()
        assert asked == bought[6 * 4 :]

    def test_goes_on_after_an_exception_with_the_same_trainer(self, tmp_path):
        """No config is given, the sampler has state, and the start set is drawn at random."""
        pool, targets, validation = make_pool(n_labeled=0)
        calls = []

        def oracle(rows):
            calls.append(len(rows))
            if len(calls) in (1, 4):
                raise KeyboardInterrupt
            return targets[rows]

        def fit(folder, answer):
            trainer = killed_run.trainer(folder, config=None)
            for _ in range(3):
                try:
                    return trainer.fit(pool, answer, validation=validation, test=validation, start=6)
                except KeyboardInterrupt:
                    pass
            raise AssertionError("not finished")

        alone = fit(tmp_path / "alone", lambda rows: targets[rows])
        assert told(fit(tmp_path / "interrupted", oracle)) == told(alone)
        assert len(calls) == 9 + 2

    @pytest.mark.parametrize("start", [12, torch.arange(12)], ids=["random", "given"])
    def test_a_start_set_that_nobody_could_label_is_not_asked_for_again(self, start, tmp_path):
        pool, targets, validation = make_pool(n_labeled=0)

        def fit(folder, *, interrupted):
            asked = []

            def oracle(rows):
                asked.append(rows.tolist())
                if interrupted and len(asked) == 2:
                    raise KeyboardInterrupt
                return targets[rows] if len(asked) > 1 else torch.full_like(rows, -1)

            trainer = killed_run.trainer(folder)
            with pytest.raises(KeyboardInterrupt) if interrupted else nullcontext():
                trainer.fit(pool, oracle, validation=validation, start=start)
            return trainer.fit(pool, lambda rows: targets[rows], validation=validation, start=start)

        assert told(fit(tmp_path / "a", interrupted=True)) == told(fit(tmp_path / "b", interrupted=False))

    def test_an_exception_in_the_first_fit_does_not_lose_the_start_set(self, tmp_path, undisturbed):
        class FailsOnce(NearestMean):
            failed = False

            def __sklearn_clone__(self):
                return FailsOnce()

            def fit(self, X, y):
                if not FailsOnce.failed:
                    FailsOnce.failed = True
                    raise MemoryError
                super().fit(X, y)

        with pytest.raises(MemoryError):
            killed_run.run(tmp_path, model=FailsOnce())
        assert told(killed_run.run(tmp_path, model=FailsOnce())) == told(undisturbed)

    def test_at_random_moments_until_it_is_done(self, tmp_path, undisturbed):
        chance = random.Random(0)
        for kill in range(3):
            process = forks.start(killed_run.run_slowly, tmp_path)
            wait_for_rounds(tmp_path, 2 * kill + 1)
            time.sleep(chance.uniform(0, 0.1))
            process.kill()
            process.join()
        assert told(killed_run.run(tmp_path)) == told(undisturbed)


def wait_for_rounds(folder, n):
    file = folder / "rounds.jsonl"
    for _ in range(1200):
        if file.exists() and file.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.05)
    raise AssertionError(f"{folder} did not come to {n} rounds in 60 s")


class TestBadInput:
    @pytest.mark.parametrize(
        ("settings", "start", "error"),
        [
            ({"sampler": Entropy(), "model": object()}, 6, CapabilityError),
            ({}, 61, BudgetError),
            ({"schedule": Schedule(batch_size=5, budget=4)}, 6, BudgetError),
            ({"schedule": Schedule(batch_size=5, target_metric="accuracy", target_value=1.0)}, 6, ConfigError),
        ],
    )
    def test_nothing_is_written(self, settings, start, error, tmp_path):
        pool, targets, _ = make_pool(n_labeled=0)
        settings = {"model": NearestMean(), "sampler": Margin(), "schedule": Schedule(batch_size=5)} | settings
        with pytest.raises(error):
            Trainer(**settings, run_dir=tmp_path / "run").fit(pool, lambda rows: targets[rows], start=start)
        assert not (tmp_path / "run").exists()

    def test_a_folder_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(RunError, match=f"cannot write to {tmp_path}/file/run: .*Not a directory"):
            killed_run.run(tmp_path / "file" / "run")

    @pytest.mark.parametrize("loggers", [[TensorBoard()], [CsvLog()], []])
    def test_a_full_disk_is_reported_and_what_was_saved_stays_loadable(self, loggers, tmp_path, undisturbed):
        said = forks.answer(killed_run.run_on_a_full_disk, tmp_path, loggers)
        assert f"cannot write to {tmp_path}" in said
        assert "4 rounds are saved there and stay loadable" in said
        assert told(RunFolder(tmp_path).read()) == told(undisturbed)[:4]
        assert told(killed_run.run(tmp_path)) == told(undisturbed)

    def test_a_damaged_file_is_named(self, tmp_path):
        killed_run.run(tmp_path)
        whole = RunFolder(tmp_path).read()
        lines = (tmp_path / "rounds.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "rounds.jsonl").write_text("".join(lines[:3]))
        for read in (killed_run.run, lambda path: RunFolder(path).read()):
            with pytest.raises(RunError, match="it has 3 rounds, the checkpoint counts 9"):
                read(tmp_path)
        assert whole.finished
        (tmp_path / "rounds.jsonl").write_text("{}\n" * 9)
        with pytest.raises(RunError, match=r"rounds.jsonl is damaged"):
            killed_run.run(tmp_path)
        (tmp_path / "checkpoint.pt").write_bytes(os.urandom(100))
        with pytest.raises(RunError, match=r"checkpoint.pt is damaged"):
            killed_run.run(tmp_path)
        torch.save({"x": 1}, tmp_path / "checkpoint.pt")
        with pytest.raises(RunError, match=r"it is not a run's checkpoint"):
            killed_run.run(tmp_path)
        (tmp_path / "checkpoint.pt").unlink()
        with pytest.raises(RunError, match=r"it has 9 rounds and no checkpoint.pt"):
            killed_run.run(tmp_path)
        assert (tmp_path / "rounds.jsonl").read_text() == "{}\n" * 9
        (tmp_path / "config.yaml").unlink()
        with pytest.raises(RunError, match=r"no config.yaml"):
            killed_run.run(tmp_path)


def run_on(device, folder, model, sampler, *, fails_at=None):
    """Run on a device; the oracle may fail at one of the rounds."""
    pool, targets, validation = make_pool(n_labeled=0)
    inputs, answers, asked = pool.inputs.double().to(device), targets.to(device), []

    def oracle(rows):
        assert rows.device == inputs.device
        asked.append(rows)
        if len(asked) - 1 == fails_at:
            raise ConnectionError("nobody is there")
        return answers[rows]

    trainer = killed_run.trainer(folder, model=model, sampler=sampler, metrics=metrics.BY_NAME)
    return trainer.fit(
        Pool.unlabeled(inputs, n_classes=3),
        oracle,
        validation=LabeledData(validation.inputs.double().to(device), validation.targets.to(device)),
        test=LabeledData(inputs, answers),
        start=torch.arange(6),
    )


NETWORK = TorchClassifier(partial(MLP, hidden=(16,)), precision="fp64", epochs=3)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("model", "sampler"),
    [
        (NearestMean(), Hierarchical()),
        (NearestMean(), Bandit([Margin(), Uniform()])),
        (LogisticRegression(), Margin()),
        (NETWORK, KCenterGreedy()),
        (clone(NETWORK).set_params(warm_start=True), Entropy()),
    ],
    ids=["hierarchical", "bandit", "logistic", "network", "warm network"],
)
class TestOnAGpu:
    def test_a_run_is_that_on_the_cpu(self, model, sampler, tmp_path):
        runs = []
        for device in ("cpu", "cuda"):
            one = model if isinstance(model, NearestMean) else clone(model).set_params(device=device)
            runs.append(told(run_on(device, tmp_path / device, one, sampler)))
        for here, there in zip(*runs, strict=True):
            assert there["rows"] == here["rows"]
            for part in ("validation", "test"):
                assert there[part].keys() == here[part].keys() > metrics.BY_NAME.keys()
                assert there[part] == pytest.approx(here[part], rel=1e-4, abs=1e-6)

    def test_a_run_that_was_cut_off_goes_on(self, model, sampler, tmp_path):
        whole = told(run_on("cuda", tmp_path / "whole", model, sampler))
        with pytest.raises(ConnectionError):
            run_on("cuda", tmp_path / "cut", model, sampler, fails_at=4)
        assert len(RunFolder(tmp_path / "cut").read().rounds) == 4
        found = told(run_on("cuda", tmp_path / "cut", model, sampler))
        assert [one["rows"] for one in found] == [one["rows"] for one in whole]
        for one, other in zip(found, whole, strict=True):
            assert one["test"] == pytest.approx(other["test"], rel=1e-6, abs=1e-9)
        environment = json.loads((tmp_path / "cut" / "environment.json").read_text())
        assert environment["device"] == "cuda:0"
        assert environment["device_name"] == torch.cuda.get_device_name(0)
