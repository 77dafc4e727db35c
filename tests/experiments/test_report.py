import json
import re
from pathlib import Path

import pytest

from experiments import report
from tests.study import recomputed
from tests.study.runs import write_run, write_sweep

FILES = ["comparisons.csv", "curves.csv", "report.html", "report.md", "results.csv", "tables.tex"]


@pytest.fixture
def sweep(tmp_path):
    runs = tmp_path / "runs"
    write_sweep(runs, samplers=("margin", "badge", "uniform"), data=("digits", "iris"), seeds=range(4))
    return runs


class TestReport:
    def test_writes_all_forms(self, sweep, capsys):
        assert report.main([str(sweep)]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0].startswith("On 2 experiments, margin is ahead of uniform by +0.0")
        folder = sweep / "report"
        charts = {
            f"{name}.{form}" for name in ("curves", "seconds", "comparisons", "ranks") for form in ("png", "svg", "pdf")
        }
        assert {file.name for file in folder.iterdir()} == {*FILES, *charts}
        assert out[1] == str(folder / "report.html")
        starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml", ".html": b"<!DOCTYPE html>"}
        for file in folder.iterdir():
            assert file.read_bytes().startswith(starts.get(file.suffix, b"")), file
        assert "python -m experiments.report" in (folder / "report.md").read_text()

    def test_numbers_of_the_page_are_those_of_the_rounds(self, sweep, tmp_path):
        out = tmp_path / "out"
        assert report.main([str(sweep), "--out", str(out), "--forms", "html"]) == 0
        page = (out / "report.html").read_text()
        assert [file.name for file in out.iterdir()] == ["report.html"]
        cells = re.sub(r"<[^>]+>", " ", page.split("<tbody>", 1)[1]).replace("\u2212", "-")
        curves = recomputed.read(sweep)
        for by_sampler in curves.values():
            for by_seed in by_sampler.values():
                for values in (
                    [points[1][-1] for points in by_seed.values()],
                    [*map(recomputed.area, by_seed.values())],
                ):
                    mean, low, high = recomputed.interval(values)
                    assert f"{mean:.4f}" in cells
                    assert re.search(rf"{low:.4f}\D+{high:.4f}", cells)

    def test_filters_and_metrics(self, sweep, tmp_path):
        command = [str(sweep), "--out", str(tmp_path / "out"), "--forms", "csv", "--examples", "0"]
        assert report.main([*command, "--data", "dig*", "--sampler", "margin,uniform", "--metric", "log_loss"]) == 0
        rows = (tmp_path / "out" / "results.csv").read_text().splitlines()
        assert len(rows) == 3
        assert all("log_loss" in row for row in rows[1:])
        assert report.main([*command, "--only", "seed=0,1", "schedule.budget=40"]) == 0
        assert (tmp_path / "out" / "results.csv").read_text().splitlines()[1].split(",")[5] == "2"

    def test_what_cannot_be_read_is_told_and_the_rest_is_reported(self, sweep, capsys):
        damaged = sweep / "digits-logistic" / "margin" / "seed=0"
        rounds = (damaged / "rounds.jsonl").read_text()
        (damaged / "rounds.jsonl").write_text(rounds.replace('"n_labeled": 20', '"n_labeled": 21'))
        write_run(sweep, sampler="margin", seed=9, values=(0.5,), labels=(10,), finished=False,
                  settings={"schedule": {"budget": 40}})  # fmt: skip
        assert report.main([str(sweep), "--forms", "md", "html"]) == 0
        told = capsys.readouterr()
        assert f"could not be read: {damaged}: " in told.err
        assert "lines are not those that the run wrote" in told.err
        text = (sweep / "report" / "report.md").read_text()
        assert "lines are not those that the run wrote" in text
        assert "margin, seed 9: 10 labels so far" in text
        assert "margin has no run of seed 0" in text

    def test_rows_of_digits_are_shown(self, tmp_path):
        settings = {"data": {"_target_": "torchal.data.digits", "seed": 0}}
        write_run(tmp_path, sampler="uniform", settings=settings)
        assert report.main([str(tmp_path), "--forms", "html", "--examples", "3"]) == 0
        page = (tmp_path / "report" / "report.html").read_text()
        assert page.count("data:image/png;base64") == 6

    @pytest.mark.parametrize(
        "data",
        [
            {"_target_": "os.mkdir"},
            {"_target_": "torchal.data.digits", "fractions": [{"_target_": "os.mkdir"}]},
        ],
    )
    def test_a_report_calls_nothing_that_a_run_names(self, tmp_path, data):
        made = tmp_path / "made"
        write_run(tmp_path, sampler="uniform", settings={"data": {**data, "path": str(made)}})
        assert report.main([str(tmp_path), "--forms", "md"]) == 0
        assert not made.exists()
        assert (
            "they come from os.mkdir, and only torchal.data is loaded"
            in (tmp_path / "report" / "report.md").read_text()
        )

    def test_data_that_are_others_by_now(self, tmp_path):
        settings = {"data": {"_target_": "torchal.data.digits", "seed": 0, "max_rows": 30}}
        write_run(tmp_path, sampler="uniform", settings=settings)
        assert report.main([str(tmp_path), "--forms", "md"]) == 0
        text = (tmp_path / "report" / "report.md").read_text()
        assert "the data have 20 rows of 10 classes, and the runs bought row 39 and class 1" in text

    def test_data_that_cannot_be_loaded_any_more(self, tmp_path):
        settings = {"data": {"_target_": "torchal.data.libsvm", "path": "/nowhere"}}
        write_run(tmp_path, sampler="uniform", settings=settings)
        assert report.main([str(tmp_path), "--forms", "md"]) == 0
        text = (tmp_path / "report" / "report.md").read_text()
        assert "digits, logistic: no rows are shown, for the data cannot be loaded: " in text

    @pytest.mark.parametrize(
        "environment",
        [
            {"packages": ["a"], "commit": 5, "data": {"class_counts": "abc"}},
            {"data": {"class_counts": [9], "class_names": ["a"]}},
            {"data": ["x"]},
        ],
    )
    def test_an_environment_that_somebody_edited(self, tmp_path, environment):
        write_run(tmp_path, sampler="uniform", environment=environment)
        assert report.main([str(tmp_path), "--forms", "md", "html", "csv"]) == 0

    def test_errors(self, sweep, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        for arguments, why in (
            ([str(tmp_path / "empty")], "error: there is no run below"),
            ([str(tmp_path / "nowhere")], "error: there is no folder"),
            ([str(sweep), "--data", "x"], "error: there is no run with data=x below"),
            ([str(sweep), "--metric", "auc"], "no run recorded auc on the test part; they have accuracy, log_loss"),
            ([str(sweep), "--metric", "accuracy", "auc"], "no run recorded auc on the test part; they have accuracy"),
            ([str(sweep), "--baseline", "margn"], "no run has the sampler 'margn'; there are badge, margin, uniform"),
            ([str(sweep), "--examples", "-1"], "--examples must be a whole number of at least 0, got -1"),
            ([str(sweep), "--target", "nan"], "--target must be a finite number, got nan"),
            ([str(sweep), "--only", "seed"], "--only is given as SETTING=VALUE, got 'seed'"),
            ([str(sweep), "--only", "colour=red"], "no run has a setting 'colour'"),
        ):
            assert report.main(arguments) == 2
            assert why in capsys.readouterr().err
        assert not Path("report").exists()

    def test_the_same_runs_make_the_same_charts(self, sweep, tmp_path):
        pages = []
        for name in ("a", "b"):
            assert report.main([str(sweep), "--out", str(tmp_path / name), "--forms", "charts"]) == 0
            pages.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
        differing = [name for name in pages[0] if pages[0][name] != pages[1][name]]
        assert not differing


def test_the_summary_can_be_written_as_json(sweep):
    from torchal.study.reading import read_runs
    from torchal.study.summing_up import sum_up

    plain = sum_up(read_runs([sweep])).to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
