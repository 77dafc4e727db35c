import csv
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from experiments import run as command
from experiments import table
from tests.experiments.test_run import QUICK, run  # noqa: F401 - a fixture
from tests.study.runs import write_run, write_sweep
from torchal.runs.results import find_runs
from torchal.statistics.curves import area_under_curve


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for words in (["sampler=margin,uniform", "trials=3"], ["data=wine", "sampler=uniform", "trials=2"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["run.py", *QUICK, *words, "schedule.max_rounds=2", f"runs={folder}", "-m"])
            assert command.main() == 0
    return folder


def test_writes_what_the_runs_came_to(runs, tmp_path, capsys):
    assert table.main([str(runs), "--out", str(tmp_path / "a.csv")]) == 0
    lines = list(csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert [(line["data"], line["sampler"], line["runs"]) for line in lines] == [
        ("iris", "margin", "3"),
        ("iris", "uniform", "3"),
        ("wine", "uniform", "2"),
    ]
    areas = {
        name: [area_under_curve(*one.curve()) for one in find_runs(runs) if (name, "iris") == told(one)]
        for name in ("margin", "uniform")
    }
    expected = ttest_rel(areas["margin"], areas["uniform"])
    assert float(lines[0]["difference"]) == pytest.approx(
        np.mean(areas["margin"]) - np.mean(areas["uniform"]), rel=1e-4
    )
    assert float(lines[0]["p"]) == pytest.approx(expected.pvalue, rel=1e-4)
    interval = expected.confidence_interval()
    assert float(lines[0]["lower"]) == pytest.approx(interval.low, rel=1e-4)
    assert float(lines[0]["upper"]) == pytest.approx(interval.high, rel=1e-4)
    fewest = [
        np.bincount(np.concatenate([r.labels for r in one.rounds]), minlength=3).min()
        for one in find_runs(runs)
        if told(one) == ("margin", "iris")
    ]
    assert float(lines[0]["fewest"]) == pytest.approx(np.mean(fewest), rel=1e-4)
    out = capsys.readouterr().out
    assert out.startswith("| data | model | labels | uniform | margin |\n|---|---|---|---|---|\n| iris | logistic |")
    assert out.splitlines()[-2].startswith("| better |")


@pytest.mark.parametrize(("metric", "verdict"), [("accuracy", "**+"), ("log_loss", "**-")])
def test_better_is_bold_where_less_is_better_too(metric, verdict, tmp_path, capsys):
    write_sweep(tmp_path, samplers=("margin", "uniform"), seeds=range(5))
    assert table.main([str(tmp_path), "--metric", metric]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert f"| {verdict}0.0" in rows[2]
    assert rows[3:] == ["| better | | | | 1 |", "| worse | | | | 0 |"]


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"names": "x"}, "has no names of its data, model and sampler"), ({"seed": "a"}, "the seed 'a'")],
)
def test_a_run_that_cannot_be_placed(settings, why, tmp_path, capsys):
    write_run(tmp_path, sampler="uniform", settings=settings)
    assert table.main([str(tmp_path)]) == 2
    assert why in capsys.readouterr().err


def test_experiments_of_one_data_set_go_by_their_folders(run, tmp_path, capsys):  # noqa: F811
    words = [*QUICK, "sampler=margin,uniform", "trials=2", "schedule.max_rounds=2"]
    run(*words, "name=plain", "-m")
    run(*words, "noise=0.3", "name=noisy", "-m")
    capsys.readouterr()
    assert table.main([str(tmp_path / "runs"), "--out", str(tmp_path / "a.csv")]) == 0
    rows = [row.split(" | ") for row in capsys.readouterr().out.splitlines()[2:4]]
    assert {row[0] for row in rows} == {"| noisy", "| plain"}
    assert rows[0][3:] != rows[1][3:]
    lines = list(csv.DictReader((tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()))
    assert [line["experiment"] for line in lines] == ["noisy", "noisy", "plain", "plain"]
    run(*words, "noise=0.3", "name=plain", f"runs={tmp_path / 'others'}", "-m")
    capsys.readouterr()
    assert table.main([str(tmp_path / "runs"), str(tmp_path / "others")]) == 0
    shown = capsys.readouterr().out
    for name in ("noisy", tmp_path / "runs" / "plain", tmp_path / "others" / "plain"):
        assert f"| {name} | logistic |" in shown


def told(one):
    return one.config["names"]["sampler"], one.config["names"]["data"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "entropy"], "no finished run of entropy; it has margin, uniform"),
        (["--out", "no/a.csv"], "no/a"),
    ],
)
def test_says_what_is_wrong_in_one_line(arguments, message, runs, capsys):
    capsys.readouterr()
    assert table.main([str(runs), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_no_runs(tmp_path, capsys):
    assert table.main([str(tmp_path)]) == 2
    assert "no finished run to compare" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["study", "modern", "low_budget", "rare", "texts", "noise"])
def test_a_table_in_the_documentation_is_its_csv_file(name):
    docs = Path(__file__).parents[2] / "docs" / "results"
    with (docs / f"{name}.csv").open(encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    alike = Counter((line["data"], line["model"]) for line in found if line["sampler"] == "uniform")
    lines = {
        (line["data"] if alike[line["data"], line["model"]] == 1 else line["experiment"], line["sampler"]): line
        for line in found
    }
    assert len(lines) == len(found)
    table = [line.strip("|").split("|") for line in (docs / f"{name}.md").read_text().splitlines() if line[:2] == "| "]
    samplers = [cell.strip() for cell in table[0][4:]]
    counts = {"better": [0] * len(samplers), "worse": [0] * len(samplers)}
    rows = [[cell.strip() for cell in line] for line in table[1:]]
    n_cells = 0
    for data, _, labels, base, *cells in rows[:-2]:
        assert labels == lines[data, "uniform"]["labels"]
        assert float(base) == pytest.approx(float(lines[data, "uniform"]["area"]), abs=5.01e-5)  # half a digit
        for i, (sampler, cell) in enumerate(zip(samplers, cells, strict=True)):
            if not cell:
                assert (data, sampler) not in lines
                continue
            line = lines[data, sampler]
            assert float(cell.strip("*")) == pytest.approx(float(line["difference"]), abs=5.01e-5)  # half a digit
            assert line["runs"] == "10"
            better, worse = float(line["lower"]) > 0, float(line["upper"]) < 0
            assert cell.count("*") == (4 if better else 2 if worse else 0)
            counts["better"][i] += better
            counts["worse"][i] += worse
            n_cells += 1
    assert {row[0]: [int(cell) for cell in row[4:]] for row in rows[-2:]} == counts
    assert len(lines) == n_cells + len(rows) - 2
