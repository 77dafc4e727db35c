"""Studies: trials together, parallel sweeps, noise and the other things that a study varies."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from experiments import machine, names
from experiments import run as command
from tests import forks
from tests.experiments.test_run import QUICK, ROOT, SMALL, run  # noqa: F401 - a fixture
from torchal import ConfigError
from torchal.runs.results import find_runs


def told(folder):
    """Return what the runs below a folder say, but for their seconds, by their place."""
    runs = {}
    for file in sorted(folder.rglob("rounds.jsonl")):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for record in records:
            del record["seconds"], record["peak_mib"]
        runs[str(file.parent.relative_to(folder))] = (records, (file.parent / "config.yaml").read_text())
    return runs


def full_data(folder):
    return {file.name: json.loads(file.read_text()) for file in folder.rglob("full_data/*.json")}


def start(*arguments):
    """Start the command in a group of processes of its own."""
    return forks.start(run_alone, *arguments)


def run_alone(*arguments):
    """Be the command."""
    os.environ.pop("HYDRA_FULL_ERROR", None)
    sys.argv = ["run.py", *arguments]
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    sys.exit(command.main())


def finish(*arguments):
    """Run the command as a program, and return what it prints."""
    words = [sys.executable, "-m", "experiments.run", *arguments]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kill_soon(process, folder, seconds):
    """Kill all processes of a command some time after it has finished a first round."""
    while not list(folder.rglob("rounds.jsonl")) and process.is_alive():
        time.sleep(0.02)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def kill_after_progress(process, folder, seconds):
    """Kill all processes of a command some time after a round was added to what is there; return whether it ran on."""

    def written():
        return sum(file.stat().st_size for file in folder.rglob("rounds.jsonl"))

    before = written()
    while written() == before and process.is_alive():
        time.sleep(0.01)
    time.sleep(seconds)
    ran_on = process.is_alive()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    return ran_on


class TestTrials:
    @pytest.mark.parametrize("model", ["logistic", "kernel_svm", "mlp"])
    def test_are_the_runs_alone(self, model, run, tmp_path):  # noqa: F811
        words = [*SMALL, f"model={model}", *(["model.epochs=2"] if model == "mlp" else []), "seed=3"]
        code, out, err = run(*words, "trials=3", f"runs={tmp_path}/together")
        assert code == 0, err
        assert re.search(r"^margin +3 ", out, re.MULTILINE)
        words[-1] = "seed=3,4,5"
        assert run(*words, f"runs={tmp_path}/alone", "-m")[0] == 0
        together = told(tmp_path / "together")
        assert len(together) == 3
        assert together == told(tmp_path / "alone")
        assert full_data(tmp_path / "together") == full_data(tmp_path / "alone")

    def test_join_the_table_of_single_runs(self, run):  # noqa: F811
        run(*QUICK, "seed=1")
        _, out, _ = run(*QUICK, "trials=3", "sampler=margin,uniform", "-m")
        assert "1 of 6 runs were finished before and only read" in out
        assert re.search(r"^margin +3 ", out, re.MULTILINE)
        assert "paired over 3 runs" in out

    def test_are_drawn_by_the_seed_of_each(self, run, tmp_path):  # noqa: F811
        run(*QUICK, "trials=3", "noise=0.1")
        runs = find_runs(tmp_path / "runs")
        assert [done.config["seed"] for done in runs] == [0, 1, 2]
        assert [done.config["data"]["seed"] for done in runs] == [0, 1, 2]
        assert len({str(done.rounds[0].source_rows.tolist()) for done in runs}) == 3

    def test_killed_at_any_moment_they_go_on(self, run, tmp_path):  # noqa: F811
        words = ["data=iris", "start.n=9", "schedule.batch_size=5", "progress=false", "trials=3", "metrics=[macro_f1]"]
        assert run(*words, f"runs={tmp_path}/whole")[0] == 0
        draw = random.Random(0)
        for _ in range(2):
            kill_soon(start(*words, f"runs={tmp_path}/killed"), tmp_path / "killed", draw.uniform(0, 1))
        assert run(*words, f"runs={tmp_path}/killed")[0] == 0
        assert told(tmp_path / "killed") == told(tmp_path / "whole")
        assert full_data(tmp_path / "killed") == full_data(tmp_path / "whole")


class TestParallelSweep:
    WORDS = ("data=iris", "start.n=9", "schedule.batch_size=20", "progress=false", "sampler=margin,uniform", "trials=2")
    PARALLEL = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "-m")

    def test_killed_and_begun_again_is_that_of_one_process(self, run, tmp_path):  # noqa: F811
        assert run(*self.WORDS, f"runs={tmp_path}/alone", "-m")[0] == 0
        words = (*self.WORDS, f"runs={tmp_path}/parallel", *self.PARALLEL)
        kill_soon(start(*words), tmp_path / "parallel", 0)
        out = finish(*words)
        assert told(tmp_path / "parallel") == told(tmp_path / "alone")
        assert "paired over 2 runs" in out
        cores = len(os.sched_getaffinity(0))
        threads = set(re.findall(r"s on (\d+) threads", out))
        assert threads <= {str(max(1, cores // 2))}


class TestMachine:
    @pytest.fixture
    def beside_others(self, monkeypatch):
        monkeypatch.setenv(machine.SWEEP_RUNS, "6")
        monkeypatch.setenv(machine.SWEEP_PROCESS, "1")
        before = torch.get_num_threads()
        yield
        torch.set_num_threads(before)

    def test_a_process_by_itself_keeps_its_threads(self, monkeypatch):
        before = torch.get_num_threads()
        assert machine.set_threads("auto", {"n_jobs": 7}) == before
        monkeypatch.setenv(machine.SWEEP_RUNS, "6")
        monkeypatch.setenv(machine.SWEEP_PROCESS, str(os.getpid()))
        assert machine.set_threads("auto", {"n_jobs": 7}) == before

    @pytest.mark.parametrize(("n_jobs", "threads"), [(1, 8), (2, 4), (3, 2), (16, 1), (-1, 1), (None, 8)])
    def test_jobs_share_the_cores(self, n_jobs, threads, beside_others, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
        assert machine.set_threads("auto", {"n_jobs": n_jobs}) == threads

    @pytest.mark.parametrize(
        ("launcher", "threads"),
        [
            ({"_target_": "a.RayLauncher", "ray": {"init": {}, "remote": {}}}, 1),
            ({"_target_": "a.RayLauncher", "ray": {"remote": {"num_cpus": 3}}}, 3),
            ({"_target_": "a.LocalLauncher"}, 2),  # of four jobs
            ({"_target_": "a.SlurmLauncher", "cpus_per_task": 5}, 5),
            ({"_target_": "a.SlurmLauncher", "cpus_per_task": None}, 8),
        ],
    )
    def test_launchers_of_clusters_deal_out_cores_their_way(self, launcher, threads, beside_others, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
        monkeypatch.setenv(machine.SWEEP_RUNS, "4")
        assert machine.set_threads("auto", launcher) == threads

    def test_threads_as_asked(self, beside_others):
        assert machine.set_threads(1, {"n_jobs": 2}) == 1
        with pytest.raises(ConfigError, match="threads must be a whole number of at least 1, got 0"):
            machine.set_threads(0, {})

    def test_jobs_get_one_gpu_after_another(self, beside_others, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert [machine.pick_device("auto", job=job).index for job in range(4)] == [0, 1, 0, 1]

    def test_a_gpu_is_for_one_job_at_a_time(self, beside_others, monkeypatch, tmp_path):
        from filelock import FileLock, Timeout

        monkeypatch.setattr(machine.tempfile, "gettempdir", lambda: str(tmp_path))
        with machine.turn_on(torch.device("cuda", 1)):
            (lock,) = tmp_path.iterdir()
            with pytest.raises(Timeout):
                FileLock(lock, timeout=0).acquire()
            with machine.turn_on(torch.device("cpu")):
                pass
        FileLock(lock, timeout=0).acquire()


class TestStudies:
    def test_noise_is_in_the_labels_bought_and_the_truth_beside_them(self, run, tmp_path):  # noqa: F811
        assert run(*QUICK, "noise=0.3")[0] == 0
        done = find_runs(tmp_path / "runs")[0]
        last = torch.cat([result.labels != result.true_labels for result in done.rounds])
        assert int(last.sum()) == 30
        assert done.config["noise"] == {"share": 0.3, "kind": "uniform", "matrix": None}
        code, out, _ = run(*QUICK, "noise=0.0,0.3", "-m")
        assert code == 0
        assert "noise.share=0.3" in out

    def test_repeated_rows_and_no_fit_on_all_of_them(self, run, tmp_path):  # noqa: F811
        code, out, err = run(*QUICK, "repeat=3", "noise=0.1", "full_data=false", "trials=2")
        assert code == 0, err
        assert "repeat.times=3" in out
        assert "accuracy with all training data: not known" in out
        assert not list((tmp_path / "runs").rglob("full_data"))
        done = find_runs(tmp_path / "runs")[0]
        assert done.config["repeat"] == {"times": 3, "noise": 0.1}
        rows = torch.cat([result.rows for result in done.rounds])
        assert int(rows.max()) >= 100  # among the 300 rows there are now
        assert len(done.rounds[0].true_labels) == len(done.rounds[0].labels)

    def test_shares_of_active_sampling_are_lines_of_one_table(self, run, tmp_path):  # noqa: F811
        code, out, err = run(*QUICK, "active_fraction=0.3,1.0", "schedule.max_rounds=2", "-m")
        assert code == 0, err
        for name in ("margin", "margin-0.3-uniform-0.7"):
            assert re.search(rf"^{name} +1 ", out, re.MULTILINE)
        mixed = next(done for done in find_runs(tmp_path / "runs") if "uniform" in done.folder.parent.name)
        members = mixed.rounds[1].report["members"]
        assert len(members["Margin"]["rows"]) == 6

    def test_a_select_model_has_its_own_seconds_and_name(self, run, tmp_path):  # noqa: F811
        code, out, err = run(*QUICK, "select_model=linear_svm", "select_model.C=1", "sampler=margin")
        assert code == 0, err
        assert "iris-logistic-selected-by-linear_svm" in out
        done = find_runs(tmp_path / "runs")[0]
        assert all({"fit", "fit_select"} <= result.seconds.keys() for result in done.rounds)
        assert done.rounds[0].select_model["C"] == 1
        assert done.config["select_model"]["_target_"].endswith("LinearSVM")

    def test_rows_of_no_class_cost_and_get_no_label(self, run, tmp_path):  # noqa: F811
        code, _, err = run(*QUICK, "data.ood=[setosa]", "cost=2.5")
        assert code == 0, err
        last = find_runs(tmp_path / "runs")[0].rounds[-1]
        assert last.cost > 2.5 * last.n_labeled
        assert last.n_labeled < 70

    def test_costs_of_a_file_are_by_row_of_the_source(self, run, tmp_path):  # noqa: F811
        np.save(tmp_path / "costs.npy", np.arange(150.0))
        assert run(*QUICK, f"cost={tmp_path}/costs.npy")[0] == 0
        done = find_runs(tmp_path / "runs")[0]
        rows = torch.cat([result.source_rows for result in done.rounds])
        assert done.rounds[-1].cost == float(rows.sum())

    def test_imbalance_and_a_list_of_batches_and_a_stop(self, run, tmp_path):  # noqa: F811
        words = ["schedule.batch_size=null", "schedule.batch_sizes=[5,9]", "schedule.stable_kappa=0.999"]
        code, _, err = run("data=iris", "start.n=9", "progress=false", "data.imbalance=4", *words)
        assert code == 0, err
        rounds = find_runs(tmp_path / "runs")[0].rounds
        assert [result.n_labeled for result in rounds] == [9, 14, 23]
        assert all("kappa" in result.pool for result in rounds[1:])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["noise=1.0"], ["share of noise", "[0, 1), got 1.0"]),
        (["noise=-0.1"], ["got -0.1"]),
        (["noise=much"], ["got 'much'"]),
        (["noise=0.1", "noise.kind=pair"], ["uniform, confusion; got 'pair'"]),
        (["noise.matrix=[[1,0],[0,1]]"], ["3 x 3"]),
        (["repeat=0"], ["repeat.times must be a whole number of at least 1, got 0"]),
        (["repeat.noise=much", "repeat=2"], ["repeat.noise must be a number of at least 0, got 'much'"]),
        (["full_data=perhaps"], ["full_data must be true or false"]),
        (["trials=0"], ["trials must be a whole number of at least 1, got 0"]),
        (["trials=2.5"], ["got 2.5"]),
        (["seed=-1"], ["seed"]),
        (["active_fraction=0"], ["active_fraction must be a number in (0, 1], got 0"]),
        (["active_fraction=2"], ["got 2"]),
        (["select_model=logistics"], ["logistics", "kernel_svm", "logistic_ovr"]),
        (["select_model=linear_svm", "sampler=entropy"], ["predict_proba; LinearSVM has none"]),
        (["data.imbalance=100"], ["imbalance=100 leaves no row of class"]),
        (["data.imbalance=0.5"], ["at least 1, got 0.5"]),
        (["data.imbalance_kind=cliff"], ["long_tail, step, last; got 'cliff'"]),
        (["data.ood=[rose]"], ["ood names rose", "setosa, versicolor, virginica"]),
        (["data.ood=[0,1]"], ["at least two classes"]),
        (["cost=-1"], ["not negative, got -1"]),
        (["cost=none.npy"], ["none.npy"]),
        (["threads=many"], ["threads must be a whole number", "'many'"]),
        (["schedule.batch_size=0.5"], ["batch_size must be a whole number of at least 1, got 0.5"]),
        (["start.n=0.1"], ["start.n must be a whole number", "0.1"]),
        (["schedule.batch_sizes=[1]"], ["one of batch_size and batch_fraction, or batch_sizes"]),
        (["schedule.plateau_rounds=2", "data.fractions=[0.7,0,0.3]"], ["plateau_rounds is of the validation part"]),
        (["schedule.min_uncertainty=0.1", "model=linear_svm"], ["predict_proba; LinearSVM has none"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("trials", [1, 2])
def test_bad_input_is_answered_in_one_line_and_nothing_is_written(trials, arguments, parts, run, tmp_path):  # noqa: F811
    more = [] if any(word.startswith("trials=") for word in arguments) else [f"trials={trials}"]
    code, _, err = run("data=iris", "start.n=9", "progress=true", *more, *arguments)
    assert code == 2
    lines = [line for line in err.splitlines() if line and not line.startswith("Error executing job")]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]
    assert not (tmp_path / "runs").exists()


def test_the_aliases_of_settings():
    assert names.with_full_names("noise=0.1,0.2") == ["noise.share=0.1,0.2"]
    assert names.with_full_names("repeat=3") == ["repeat.times=3"]
    assert names.with_full_names("select_model=logistic") == ["model@select_model=logistic"]
    assert names.with_full_names("noise.kind=uniform") == ["noise.kind=uniform"]


# the last bits of a product of matrices are others with two threads
LONG = ("data=digits", "model.C=1.0", "schedule.budget=300", "schedule.batch_size=5", "trials=2", "threads=1")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(*LONG, "sampler=margin,uniform", "progress=false", f"runs={folder}", "-m")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trials", "parallel"])
def test_25_kills_at_random_moments_change_nothing(kind, undisturbed, tmp_path):
    draw, n_kills, chain = random.Random(kind), 0, 0
    more = TestParallelSweep.PARALLEL if kind == "parallel" else ("-m",)
    while n_kills < 25:
        folder = tmp_path / str(chain)
        words = (*LONG, "sampler=margin,uniform", "progress=false", f"runs={folder}", *more)
        while n_kills < 25 and kill_after_progress(start(*words), folder, draw.uniform(0, 1)):
            n_kills += 1
        finish(*words)
        assert told(folder) == told(undisturbed)
        assert full_data(folder) == full_data(undisturbed)
        chain += 1
