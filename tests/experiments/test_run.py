import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from torchal import embed, samplers
from torchal.protocols import HasPosterior
from torchal.runs import metrics
from torchal.runs.results import RunFolder, find_runs
from torchal.runs.trainer import Trainer
from torchal.study import read_runs, sum_up

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from hydra import compose, initialize_config_dir

from experiments import names, table
from experiments import run as command
from experiments.folders import published

ROOT = Path(__file__).parents[2]
OWN_FILES = ("csv", "idx", "image_folder", "libsvm", "npy", "npz", "parquet", "shards", "texts")
NEED_FILES = (*OWN_FILES, *published())  # the published ones are read in test_fetch.py
READ_IMAGES = ("small_cnn", "allconv", "resnet18")
PARTS = ("train", "validation", "test")
SMALL = ["data=iris", "start.n=9", "schedule.batch_size=20", "progress=false", "report=false"]
QUICK = [*SMALL, "model.C=1"]  # no search for C, which takes longer than the rest


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    def call(*arguments):
        n_options = 2 if arguments[0].startswith("--") else 0  # an option with its value comes first
        argv = ["run.py", *arguments[:n_options], f"runs={tmp_path / 'runs'}", *arguments[n_options:]]
        monkeypatch.setattr(sys, "argv", argv)
        code = command.main()
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def options(group):
    return sorted(path.stem for path in (ROOT / "experiments" / "conf" / group).glob("*.yaml"))


class TestSweep:
    def test_makes_runs_table_report_and_mean_curves(self, run, tmp_path):
        code, out, _ = run(*QUICK, "sampler=margin,entropy,uniform", "seed=0,1", "report=true", "-m")
        assert code == 0
        experiment = next((tmp_path / "runs").glob("iris-*"))
        runs = find_runs(experiment)
        assert len(runs) == 6
        assert all(done.finished and done.rounds[-1].n_labeled == 100 for done in runs)
        page = (experiment / "report" / "report.html").read_text()
        for sampler in ("margin", "entropy", "uniform"):
            assert re.search(rf"^{sampler} +2 +0\.\d{{4}} +0\.\d{{4}} \[.+\] +\d+", out, re.MULTILINE)
            assert list((experiment / "tensorboard" / sampler).glob("events.*"))
            assert f">{sampler}<" in page
        assert re.search(r"^margin - uniform: area [+-]0\.\d{4} \[.+\], paired over 2 runs, p = ", out, re.MULTILINE)
        assert "setosa" in page  # its class names, and how many of each were bought
        assert (experiment / "report" / "curves.png").read_bytes().startswith(b"\x89PNG")
        assert f"tensorboard.main --logdir {experiment / 'tensorboard'} " in out
        assert "http://localhost:6006/?smoothing=0&runFilter=" in out
        assert f"tensorboard.main --logdir {tmp_path / 'runs'} " in out
        assert len(list((experiment / "tensorboard" / "~runs").iterdir())) == 6
        assert not list(experiment.glob("*/*/tb/projector*"))  # of a sweep it would be the same pool, six times
        assert len(list((experiment / "full_data").glob("seed=*.json"))) == 2

    def test_seeds_pair_the_samplers(self, run, tmp_path):
        run(*QUICK, "sampler=margin,uniform", "seed=0,1", "-m")
        by_seed = {}
        for done in find_runs(tmp_path / "runs"):
            by_seed.setdefault(done.config["seed"], []).append(done.rounds[0])
        for margin, uniform in by_seed.values():
            assert margin.source_rows.equal(uniform.source_rows)
            assert margin.test == uniform.test
        assert not by_seed[0][0].source_rows.equal(by_seed[1][0].source_rows)

    def test_more_seeds_join_the_same_table_and_nothing_is_run_twice(self, run, monkeypatch):
        run(*QUICK, "sampler=margin,uniform", "seed=0,1", "-m")
        fitted = []
        whole = Trainer._run

        def noted(self, *arguments, **settings):
            fitted.append(self.seed)
            yield from whole(self, *arguments, **settings)

        monkeypatch.setattr(Trainer, "_run", noted)
        _, out, _ = run(*QUICK, "sampler=margin,uniform", "seed=1,2", "-m")
        assert fitted == [2, 2]
        assert re.search(r"^margin +3 ", out, re.MULTILINE)
        assert "2 of 4 runs were finished before and only read" in out
        assert "paired over 3 runs" in out

    def test_a_seed_whose_full_data_accuracy_is_unknown_does_not_count_as_never_reached(self, run, tmp_path):
        run(*QUICK, "seed=0,1", "-m")
        folder = next((tmp_path / "runs").glob("iris-*"))
        known = json.loads((folder / "full_data" / "seed=1.json").read_text())["accuracy"]
        whole = sum_up(read_runs([folder])).experiments[0]
        (folder / "full_data" / "seed=0.json").unlink()
        rest = sum_up(read_runs([folder])).experiments[0]
        assert whole.entries["margin"].reached.runs == 2
        assert (rest.entries["margin"].reached.runs, rest.entries["margin"].reached.reached) == (1, 1)
        assert rest.full_data == known

    def test_the_report_covers_what_the_command_used_only(self, run):
        run(*QUICK, "data=wine")
        _, out, _ = run(*QUICK)
        assert "iris-logistic" in out
        assert "wine" not in out

    def test_an_experiment_can_be_a_sweep_and_the_command_line_can_change_it(self, run, tmp_path):
        code, out, _ = run(*QUICK, "experiment=compare", "seed=0,7", "sampler=margin,uniform", "-m")
        assert code == 0
        assert "paired over 2 runs" in out
        runs = find_runs(tmp_path / "runs")
        assert len(runs) == 4
        assert {done.folder.parents[1].name for done in runs} == {
            "iris-logistic,experiment=compare,model.C=1,schedule.batch_size=20,start.n=9"
        }

    def test_a_run_that_fails_does_not_lose_the_table_of_the_others(self, run):
        code, out, err = run(*SMALL, "model=linear_svm", "sampler=margin,entropy,uniform", "seed=0", "-m")
        assert code == 2
        assert re.search(r"^margin +1 ", out, re.MULTILINE)
        assert re.search(r"^uniform +1 ", out, re.MULTILINE)
        assert err.splitlines()[-1].startswith("error: Entropy needs a model with predict_proba; LinearSVM has none")

    def test_what_a_library_refuses_is_one_line_too(self, run):
        theirs = ("model=linear_svm", "model._target_=sklearn.svm.LinearSVC", "~model.device")
        code, out, err = run(*SMALL, *theirs, "model.C=1,-1", "-m")
        assert code == 2
        assert re.search(r"^margin +1 ", out, re.MULTILINE)
        assert "error: LinearSVC refused to be fitted on 9 labels" in err.splitlines()[-1]
        assert "The 'C' parameter of LinearSVC must be" in err.splitlines()[-1]
        assert "HYDRA_FULL_ERROR=1 shows where" in err.splitlines()[-1]

    def test_a_damaged_run_does_not_lose_the_table_of_other_experiments(self, run, tmp_path):
        run(*QUICK, "data=iris,wine", "seed=0", "-m")
        damaged = next((tmp_path / "runs").glob("iris*/*/*/checkpoint.pt"))
        damaged.write_bytes(b"PK")
        code, out, err = run(*QUICK, "data=iris,wine", "seed=1", "-m")
        assert code == 2
        assert "wine-logistic" in out
        assert f"error: {damaged} is damaged" in err
        assert re.search(r"^margin +1 ", out[out.index("iris") :], re.MULTILINE)  # the rest of it is reported

    def test_stopping_says_so_and_the_same_command_goes_on(self, run, monkeypatch):
        whole, written = RunFolder.append, []

        def stopped(self, result):
            whole(self, result)
            written.append(result.round)
            if len(written) == 8:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "append", stopped)
        code, out, err = run(*QUICK, "seed=0,1,2", "-m")
        assert code == 130
        assert "the same command goes on" in err
        assert re.search(r"^margin +1 ", out, re.MULTILINE)
        assert "1 more run did not finish" in out
        code, out, _ = run(*QUICK, "seed=0,1,2", "-m")
        assert code == 0
        assert re.search(r"^margin +3 ", out, re.MULTILINE)
        assert "not finished" not in out
        assert written == [*range(6), 0, 1, *range(1, 6), *range(6)]


class TestSingleRun:
    def test_folder_and_record(self, run, tmp_path):
        code, out, _ = run(*QUICK, "sampler=uniform", "seed=3")
        assert code == 0
        folder = tmp_path / "runs" / "iris-logistic,model.C=1,schedule.batch_size=20,start.n=9" / "uniform" / "seed=3"
        assert f"run: {folder}" in out
        config = json.loads((folder / "config.yaml").read_text())
        assert config["names"] == {"data": "iris", "model": "logistic", "sampler": "uniform"}
        assert config["start"]["how"] == "stratified"
        assert config["data"]["seed"] == config["seed"] == 3

    @pytest.mark.parametrize(("name", "called"), [("my set", "my set"), ("iris", "iris-npz")])
    def test_the_folder_of_a_file_is_called_by_its_name(self, name, called, run, tmp_path):
        np.savez(tmp_path / f"{name}.npz", inputs=np.random.default_rng(0).random((60, 2)), targets=np.arange(60) % 2)
        source = ["data=npz", f"data.path='{tmp_path}/{name}.npz'", "start.n=4", "progress=false"]
        assert run(*source)[0] == 0
        assert (tmp_path / "runs" / f"{called}-logistic,start.n=4" / "margin" / "seed=0" / "rounds.jsonl").exists()

    def test_long_settings_are_cut_in_the_folders_name_and_whole_in_the_record(self, run, tmp_path):
        rows = [f"data.{part}_rows={list(range(i, 150, 3))}".replace(" ", "") for i, part in enumerate(PARTS)]
        for number in (9, 8):
            assert run("data=iris", f"start.n={number}", *rows, "progress=false", "schedule.max_rounds=1")[0] == 0
        runs = find_runs(tmp_path / "runs")
        assert len({done.folder.parents[1].name for done in runs}) == 2
        assert all(done.config["data"]["test_rows"] == list(range(2, 150, 3)) for done in runs)

    @pytest.mark.parametrize(
        "where", ["name=my/sub", "name=mine", "run_dir={}/elsewhere", "run_dir={}/runs/a", "run_dir={}/runs/a/b"]
    )
    def test_nothing_is_written_outside_its_folders(self, where, run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, out, _ = run(*QUICK, where.format(tmp_path), "report=true")
        assert code == 0
        assert {path.name for path in tmp_path.iterdir()} <= {"runs", "elsewhere"}
        assert ("report: " in out) == ("run_dir" not in where)

    def test_without_a_validation_part(self, run, tmp_path):
        assert run(*QUICK, "data.fractions=[0.8,0,0.2]")[0] == 0
        assert find_runs(tmp_path / "runs")[0].rounds[-1].validation == {}

    def test_different_data_under_one_name_are_not_averaged(self, run):
        run(*QUICK, "name=mine")
        code, out, _ = run(*QUICK, "name=mine", "data=wine", "sampler=uniform")
        assert code == 0
        iris, wine = out.index("iris, logistic   accuracy"), out.index("wine, logistic   accuracy")
        assert iris < out.index("\nmargin ") < wine < out.index("\nuniform ")
        assert "margin - uniform" not in out

    def test_different_settings_under_one_name_are_not_averaged(self, run, tmp_path, capsys):
        run(*QUICK, "name=mine", "sampler=uniform")
        code, out, _ = run(*QUICK, "name=mine", "schedule.max_rounds=1")
        assert code == 0
        assert "iris, logistic, schedule.max_rounds=None   accuracy" in out
        assert "iris, logistic, schedule.max_rounds=1   accuracy" in out
        assert "margin - uniform" not in out
        assert table.main([str(tmp_path / "runs")]) == 2
        assert "different experiments: schedule.max_rounds was 1, is None" in capsys.readouterr().err

    def test_metrics_by_name(self, run, tmp_path):
        assert run(*QUICK, "metrics=[auc,macro_f1,brier_score,expected_calibration_error]")[0] == 0
        last = find_runs(tmp_path / "runs")[0].rounds[-1].test
        assert last.keys() == {"accuracy", "log_loss", *metrics.BY_NAME} - {"balanced_accuracy"}
        assert 0.5 < last["auc"] <= 1

    def test_what_is_watched_is_in_the_record_and_the_config_only_where_it_is_asked_for(self, run, tmp_path):
        assert run(*QUICK)[0] == 0
        assert run(*QUICK, "watch=[redundancy,cover_radius,batch_uncertainty]")[0] == 0
        runs = {"watch" in found.config: found for found in find_runs(tmp_path / "runs")}
        assert runs[True].config["watch"] == ["redundancy", "cover_radius", "batch_uncertainty"]
        assert runs[True].rounds[-1].pool.keys() == set(runs[True].config["watch"])
        assert runs[False].rounds[-1].pool == {}
        assert runs[True].rounds[-1].rows.equal(runs[False].rounds[-1].rows)

    def test_the_start_set_of_the_playground(self, run, tmp_path):
        assert run("data=digits", "schedule=playground", "schedule.max_rounds=1", "progress=false")[0] == 0
        first, second = find_runs(tmp_path / "runs")[0].rounds
        assert first.n_labeled == 60  # 6 a class
        assert first.labels.bincount().min() >= 4
        assert second.n_labeled == 60 + int(0.02 * int(1797 * 2 / 3))

    def test_a_random_start_set(self, run, tmp_path):
        assert run(*QUICK, "start.how=random")[0] == 0
        assert find_runs(tmp_path / "runs")[0].rounds[0].n_labeled >= 9

    def test_csv(self, run, tmp_path):
        table = np.random.default_rng(0).random((60, 3))
        lines = [f"{'ab'[int(row[0] > 0.5)]},{row[0]},{row[1]}" for row in table]
        (tmp_path / "my data.csv").write_text("label,x,y\n" + "\n".join(lines))
        source = ["data=csv", f"data.path='{tmp_path}/my data.csv'", "data.target=label", "progress=false"]
        assert run(*source, "start.n=4")[0] == 0
        (tmp_path / "my data.csv").write_text("label,x,y\n" + "\n".join(lines[:20]) + "\na,1,oops\n")
        code, _, err = run(*source, "seed=1")
        assert code == 2
        assert all(part in err for part in ("my data.csv", "row 22", "column 'y'", "oops"))


class TestTablesAsPeopleHaveThem:
    @pytest.fixture
    def messy(self, tmp_path):
        draw = np.random.default_rng(0)
        lines = []
        for i in range(90):
            age = "" if i % 9 == 0 else f"{draw.normal(40 + 20 * (i % 2), 5):.1f}".replace(".", ",")
            kind = "" if i % 6 == 0 else "yn"[i % 2]
            lines.append(f'{i};{age};"{["Rome", "Oslo", "København"][i % 3]}";{kind}')
        path = tmp_path / "messy.csv"
        path.write_bytes("\r\n".join([";age;city;answer", *lines, ""]).encode("latin-1"))
        return ["data=csv", f"data.path={path}", "data.target=answer", "data.encoding=latin-1", "start.n=4",
                "schedule.batch_size=5", "schedule.max_rounds=2", "model.C=1.0", "progress=false"]  # fmt: skip

    def test_what_became_of_the_columns_is_in_the_record(self, messy, run, tmp_path):
        code, _, err = run(*messy)
        assert code == 0, err
        columns = find_runs(tmp_path / "runs")[0].config["columns"]
        assert columns["one_hot"] == {"city": ["København", "Oslo", "Rome"]}
        assert columns["imputed"]["age"]["missing"] == 10
        assert columns["left_out"] == {"": "an index"}
        assert run(*messy)[0] == 0  # the record of the run that is there is the same

    def test_rows_without_a_label_are_said_once(self, messy, run, tmp_path):
        _, _, err = run(*messy, "sampler=margin,uniform", "-m")
        assert err.count("messy: 15 rows have no label; 75 rows with one are in this simulation") == 1
        assert "query_pool()" in err
        assert find_runs(tmp_path / "runs")[0].rounds[-1].n_labeled == 14

    def test_strict_refuses_it(self, messy, run, tmp_path):
        code, _, err = run(*messy, "data.strict=true")
        assert code == 2
        assert "row 2, column 'age': a cell is blank" in err
        assert not (tmp_path / "runs").exists()


def write_own_file(folder, kind):
    """Write a small data set in a file of some kind, and return the settings that it needs."""
    inputs, targets = np.random.default_rng(0).random((60, 4)), np.arange(60) % 2
    path = folder / f"a.{kind}"
    if kind == "csv":
        lines = [",".join(map(str, row)) for row in inputs.tolist()]
        path.write_text("\n".join(f"{'xy'[t]},{line}" for t, line in zip(targets, lines, strict=True)))
        return []
    if kind == "parquet":
        pd = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        pd.DataFrame(inputs, columns=list("abcd")).assign(kind=targets).to_parquet(path)
        return ["data.target=kind"]
    if kind == "npz":
        np.savez(path, inputs=inputs, targets=targets)
        return []
    if kind == "npy":
        np.save(path, inputs)
        np.save(folder / "labels.npy", targets)
        return [f"data.targets={folder}/labels.npy"]
    if kind == "idx":
        path.write_bytes(np.array([0x802, 60, 4], ">u4").tobytes() + (inputs * 255).astype(np.uint8).tobytes())
        (folder / "labels").write_bytes(np.array([0x801, 60], ">u4").tobytes() + targets.astype(np.uint8).tobytes())
        return [f"data.targets={folder}/labels"]
    if kind == "libsvm":
        lines = [" ".join(f"{i + 1}:{value}" for i, value in enumerate(row)) for row in inputs.tolist()]
        path.write_text("\n".join(f"{t} {line}" for t, line in zip(targets, lines, strict=True)))
        return []
    if kind == "texts":
        path.write_text(
            "label,text\n" + "\n".join(f'{"xy"[t]},"one, word{i % 7} {"xy"[t]}{t}"' for i, t in enumerate(targets))
        )
        return ["data.target=label"]
    if kind == "shards":
        pytest.importorskip("pyarrow", reason="the labels of shards are Parquet")
        labels = {"kind": [f"kind {t}" for t in targets]}
        rows, net = torch.from_numpy(inputs).float(), torch.nn.Linear(4, 2)
        for folder in (path, path.with_name("tested.shards")):
            embed(net, rows, out=folder, shard_rows=25, ids=labels, progress=False)
        return [
            f"data.test_path={path.with_name('tested.shards')}",
            "data.target=kind",
            "data.validation_fraction=0.2",
            "data.test_limit=40",
        ]
    from PIL import Image

    for row, (values, target) in enumerate(zip(inputs, targets, strict=True)):
        (path / str(target)).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9), tuple(int(255 * value) for value in values[:3])).save(path / f"{target}/{row}.png")
    return ["data.size=4"]


class TestOptions:
    @pytest.mark.parametrize("data", [d for d in options("data") if d not in NEED_FILES])
    def test_every_data_set(self, data, run):
        assert run(f"data={data}", "schedule.batch_size=30", "schedule.budget=80", "progress=false")[0] == 0

    @pytest.mark.parametrize("data", OWN_FILES)
    def test_files_of_ones_own(self, data, run, tmp_path):
        settings = [f"data.path={tmp_path}/a.{data}", *write_own_file(tmp_path, data)]
        model = ["model.C=1.0", "schedule.max_rounds=2"]
        code, _, err = run(f"data={data}", *settings, "start.n=4", "schedule.batch_size=3", "progress=false", *model)
        assert code == 0, err
        assert Path(find_runs(tmp_path / "runs")[0].folder).parents[1].name.startswith("a-logistic")

    @pytest.mark.parametrize("model", options("model"))
    def test_every_model(self, model, run, tmp_path):
        images = []
        if model in READ_IMAGES:
            pixels = np.random.default_rng(0).random((60, 3, 33, 33), dtype=np.float32)
            np.savez(tmp_path / "images.npz", inputs=pixels, targets=np.arange(60) % 2)
            images = ["data=npz", f"data.path={tmp_path}/images.npz", "model.epochs=1", "start.n=8"]
        code, _, err = run(*SMALL, *images, f"model={model}", "schedule.max_rounds=1")
        assert code == 0, err

    @pytest.mark.parametrize("model", READ_IMAGES)
    def test_networks_of_images_refuse_other_rows(self, model, run):
        code, _, err = run(*SMALL, f"model={model}")
        assert code == 2
        assert "got rows of shape (4,)" in err

    def test_the_epochs_of_all_fits_in_tensorboard(self, run, tmp_path):
        code, _, err = run(*SMALL, "model=mlp", "model.epochs=3", "log_fits=true", "schedule.max_rounds=1")
        assert code == 0, err
        folder = next((tmp_path / "runs").glob("iris-*/margin/seed=0/tb/fits"))
        assert sorted(path.name for path in folder.iterdir()) == ["round=000", "round=001"]
        events = EventAccumulator(str(folder / "round=001")).Reload()
        assert [event.step for event in events.Scalars("fit/loss")] == [1, 2, 3]
        code, _, err = run(*SMALL, "model=mlp", "model.epochs=3", "schedule.max_rounds=1")
        assert code == 0, err  # the same run
        code, _, err = run(*QUICK, "log_fits=true")
        assert code == 2
        assert "log_fits=true is for networks" in err

    def test_a_sampler_by_another_name(self, run, tmp_path):
        code, out, err = run(*QUICK, "sampler=kcenter,margin", "schedule.max_rounds=1", "-m")
        assert code == 0, err
        assert re.search(r"^k_center +1 ", out, re.MULTILINE)

    @pytest.mark.parametrize("sampler", options("sampler"))
    def test_every_sampler(self, sampler, run):
        draws = samplers.from_name(sampler).reads(HasPosterior)
        words = ["model.posterior=laplace"] if draws else []
        assert run(*QUICK, f"sampler={sampler}", "schedule.max_rounds=1", *words)[0] == 0

    def test_a_sampler_that_draws_from_a_model_without_a_posterior(self, run, tmp_path):
        code, _, err = run(*QUICK, "sampler=bald")
        assert code == 2
        assert "BALD needs a model with sample_log_probs; LogisticRegression has none" in err
        assert "posterior='laplace'" in err
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        "words",
        [
            ["sampler=mixture", "sampler.spec=margin-0.5-uniform-0.5,kcenter-1"],
            ["sampler=mixture_of_samplers-margin-0.5-uniform-0.5,mixture_of_samplers-kcenter-1.0"],
            ["sampler=margin-0.50-uniform-0.50,kcenter-1"],
        ],
        ids=["spec", "Playground", "no prefix"],
    )
    def test_mixtures_by_their_patterns_join_one_table(self, words, run, tmp_path):
        assert run(*QUICK, "sampler=uniform", "schedule.max_rounds=1", "-m")[0] == 0
        code, out, err = run(*QUICK, *words, "schedule.max_rounds=1", "-m")
        assert code == 0, err
        for name in ("mixture-margin-0.5-uniform-0.5", "mixture-k_center-1", "uniform"):
            assert re.search(rf"^{name} +1 ", out, re.MULTILINE)
            assert list((tmp_path / "runs").glob(f"iris-logistic*/{name}/seed=0/rounds.jsonl"))

    def test_all_forms_of_a_pattern_are_the_same_run(self, run, tmp_path):
        for words in (
            ["sampler=mixture", "sampler.spec=kcenter-.50-uniform-0.5"],
            ["sampler=mixture_of_samplers-k_center-0.5-uniform-0.50"],
            ["sampler=mixture-k_center-0.5-uniform-0.5"],
        ):
            code, _, err = run(*QUICK, *words, "schedule.max_rounds=1")
            assert code == 0, err
        assert [done.folder.parent.name for done in find_runs(tmp_path / "runs")] == [
            "mixture-k_center-0.5-uniform-0.5"
        ]

    def test_a_yaml_of_ones_own_in_a_folder_of_ones_own(self, run, tmp_path):
        page = (ROOT / "docs" / "guides" / "experiments.md").read_text()
        text = re.search(r"^```yaml my_conf/sampler/half.yaml\n(.*?)^```", page, re.M | re.S)[1]
        (tmp_path / "my_conf" / "sampler").mkdir(parents=True)
        (tmp_path / "my_conf" / "sampler" / "half.yaml").write_text(text)
        words = [
            "--config-dir",
            str(tmp_path / "my_conf"),
            *QUICK,
            "sampler=half,margin",
            "schedule.max_rounds=1",
            "-m",
        ]
        code, out, err = run(*words)
        assert code == 0, err
        assert re.search(r"^half +1 ", out, re.MULTILINE)

    def test_a_yaml_of_ones_own_beats_an_alias_and_a_pattern(self, run, tmp_path):
        folder = tmp_path / "my_conf" / "sampler"
        folder.mkdir(parents=True)
        for name in ("kcenter", "margin-1.0", "mixture"):
            (folder / f"{name}.yaml").write_text("_target_: torchal.samplers.Uniform\n")
        words = ["--config-dir", str(folder.parent), *QUICK, "schedule.max_rounds=1"]
        for name in ("kcenter", "margin-1.0"):
            assert run(*words, f"sampler={name}")[0] == 0
        runs = {done.config["names"]["sampler"]: done for done in find_runs(tmp_path / "runs")}
        assert set(runs) == {"kcenter", "margin-1.0"}
        assert all(done.config["sampler"]["_target_"] == "torchal.samplers.Uniform" for done in runs.values())
        for option in (["--config-dir", "a"], ["--config-dir=a"], ["-cd", "a"]):
            assert names.config_folders([*option, "seed=0"])[0] == Path("a")

    def test_a_name_with_a_hyphen_is_no_mixture(self):
        assert names.with_full_names("sampler=my-strategy") == ["sampler=my-strategy"]
        assert names.strategy_name("other", "anything") == "other"

    def test_what_a_bandit_did_is_in_the_record_and_in_tensorboard(self, run, tmp_path):
        assert run(*QUICK, "sampler=bandit_discrete", "schedule.max_rounds=3")[0] == 0
        done = find_runs(tmp_path / "runs")[0]
        events = EventAccumulator(str(done.folder / "tb"), size_guidance={"scalars": 0})
        events.Reload()
        for tag, path in {
            "sampler/probabilities/Margin-1": ("probabilities", "Margin-1"),
            "sampler/probabilities/Uniform-1": ("probabilities", "Uniform-1"),
            "sampler/arm": ("arm",),
            "sampler/learned/reward": ("learned", "reward"),
            "sampler/members/Margin/n_rows": ("members", "Margin", "n_rows"),
        }.items():
            expected = []
            for result in done.rounds[1:]:
                value = result.report
                for name in path:
                    value = value[name]
                expected.append((result.n_labeled, pytest.approx(value)))
            assert [(event.step, event.value) for event in events.Scalars(tag)] == expected
            assert len(expected) == 3
        layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
        assert layout.category[0].chart[0].multiline.tag == ["sampler/probabilities/.*"]
        rewards = [result.report["learned"]["reward"] for result in done.rounds[1:]]
        assert rewards == [result.validation["accuracy"] for result in done.rounds[1:]]

    @pytest.mark.parametrize("experiment", options("experiment"))
    def test_every_experiment_is_of_settings_that_there_are(self, experiment):
        with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base="1.3"):
            words = [f"experiment={experiment}", "data=sms_spam" if experiment == "texts" else "data=mnist"]
            config = compose("config", words, return_hydra_config=True)
            swept = [f"{name}={str(values).split(',')[0]}" for name, values in config.hydra.sweeper.params.items()]
            compose("config", words + [word for word in swept if not word.startswith("sampler=")])

    def test_an_experiment_may_change_what_stands_in_the_config_itself(self):
        words = ["experiment=texts", "data=sms_spam"]
        with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base="1.3"):
            assert compose("config", words).metrics == ["balanced_accuracy"]
            assert compose("config", [*words, "metrics=[auc]"]).metrics == ["auc"]

    @pytest.mark.parametrize("schedule", options("schedule"))
    def test_every_schedule(self, schedule, run):
        assert run("data=breast_cancer", f"schedule={schedule}", "schedule.max_rounds=1", "progress=false")[0] == 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["sampler=margn"], ["margn", "entropy", "least_confidence", "margin", "uniform"]),
            (["model=logisti"], ["logisti", "kernel_svm", "linear_svm", "logistic", "mlp"]),
            (["data=digit"], ["digit", "breast_cancer", "checkerboard", "csv", "digits", "iris", "npz", "wine"]),
            (["schedule.batchsize=3"], ["schedule.batchsize", "batch_size", "batch_fraction", "budget"]),
            (["model.D=3"], ["model.D", "C"]),
            (["sede=3"], ["sede", "seed"]),
            (["sampler.on=logits"], ["auto, scores, probabilities; got 'logits'"]),
            (["sampler=margin-0.5-uniform"], ["Could not find 'sampler/margin-0.5-uniform'", "hierarchical"]),
            (["sampler=mixture", "sampler.spec=margin"], ["NAME-WEIGHT-NAME-WEIGHT", "'margin'"]),
            (["sampler=margin-0.5-uniform-0.6"], ["sum to 1", "1.1"]),
            (["sampler=uniform,margin-1", "-m"], ["margin-1 cannot stand in a list with other samplers"]),
            (["sampler=bandit_mixture", "sampler.arms=[]"], ["at least one arm"]),
            (["sampler=bandit_mixture", "data.fractions=[0.7,0,0.3]"], ["validation part"]),
            (["sampler=simulate_batch_best_sim", "model=linear_svm"], ["predict_proba; LinearSVM has none"]),
            (["schedule.batch_size=0"], ["at least 1, got 0"]),
            (["schedule.batch_size=-5"], ["at least 1, got -5"]),
            (["start.n=101"], ["101", "100"]),
            (["start.n=null"], ["one of start.n and start.fraction"]),
            (["start.how=first"], ["stratified, playground, random; got 'first'"]),
            (["start.min_per_class=40", "start.n=100"], ["40"]),
            (["data.keep=[0]"], ["at least two classes, got [0]"]),
            (["sampler=entropy", "model=linear_svm"], ["predict_proba", "LinearSVM"]),
            (["data=csv"], ["data.path"]),
            (["data=csv", "data.path=none.csv"], ["none.csv"]),
            (["metrics=auc"], ["metrics must be a list"]),
            (["start=null"], ["start must not be null"]),
            (["name=null"], ["name must not be null"]),
            (["metrics=[acu]"], ["'acu'; there are auc, balanced_accuracy, brier_score, exp"]),
            (["watch=redundancy"], ["watch must be a list of kappa"]),
            (["watch=[colour]"], ["'colour'; there are kappa, uncertainty, redundancy"]),
            (["data.standardize=no"], ["standardize must be true or false, got 'no'"]),
            (["progress=maybe"], ["progress must be true or false"]),
            (["schedule.batch_size=null", "schedule.batch_fraction=abc"], ["batch_fraction", "'abc'"]),
            (["schedule.target_metric=accuracy", "schedule.target_value=high"], ["target_value", "'high'"]),
            (["schedule.target_metric=acc", "schedule.target_value=1"], ["'acc'; there are accuracy, log_loss"]),
            (["start.how=random", "start.n=2.5"], ["start.n must be a whole number", "2.5"]),
            (["start.n=null", "start.fraction=abc"], ["start.fraction", "'abc'"]),
            (["data.fractions=[0.8,0.2,0]"], ["needs a test part"]),
            (["device=null"], ["device must be", "None"]),
            (["device=warp"], ["'warp'"]),
            (["device=meta"], ["'meta'"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )
    def test_is_answered_in_one_line_and_nothing_is_written(self, arguments, parts, run, tmp_path):
        code, _, err = run("data=iris", "progress=false", *arguments)
        assert code == 2
        lines = [line for line in err.splitlines() if line and not line.startswith("Error executing job")]
        assert len(lines) == 1, err
        assert lines[0].startswith("error: ")
        for part in parts:
            assert part in lines[0]
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize("model", ["logistic", "committee"])
    def test_the_device_is_no_part_of_what_a_run_is(self, model, run, tmp_path):
        words = [*SMALL, f"model={model}", "schedule.max_rounds=1", "sampler=uniform", "full_data=false"]
        assert run(*words, "device=cpu")[0] == 0
        code, out, err = run(*words, "device=auto", "-m")
        assert code == 0, err
        assert "finished before and only read" in out

    def test_another_config_in_the_same_folder(self, run, tmp_path):
        where = f"run_dir={tmp_path}/one"
        assert run(*SMALL, where)[0] == 0
        code, _, err = run(*SMALL, where, "model.C=2")
        assert code == 2
        assert "model.C was [0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, ...], is 2" in err


def test_a_folder_that_cannot_be_written_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    for extra in ([], ["-m"]):
        code, _, err = run(*QUICK, f"runs={tmp_path}/file", *extra)
        assert code == 2
        assert err.splitlines()[-1].startswith("error: ")
        assert f"{tmp_path}/file" in err.splitlines()[-1]


def test_a_machine_without_cuda_gets_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.pick_device("auto") == torch.device("cpu")


@pytest.mark.gpu
def test_a_machine_with_cuda_gets_it():
    assert command.pick_device("auto").type == "cuda"


def test_the_command_line_itself_has_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", "sampler=none_such", f"runs={tmp_path}/runs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
