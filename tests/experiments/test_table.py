import csv

import numpy as np
import pytest
from scipy.stats import ttest_rel

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from experiments import table
from tests.experiments.test_run import QUICK, run  # noqa: F401 - a fixture
from torchal.runs.curves import area_under_curve
from torchal.runs.results import find_runs


@pytest.fixture
def runs(run, tmp_path):  # noqa: F811
    run(*QUICK, "sampler=margin,uniform", "trials=3", "model.C=1", "schedule.max_rounds=2", "-m")
    run(*QUICK, "data=wine", "sampler=uniform", "trials=2", "model.C=1", "schedule.max_rounds=2", "-m")
    return tmp_path / "runs"


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
    out = capsys.readouterr().out
    assert out.startswith("| data | model | labels | uniform | margin |\n|---|---|---|---|---|\n| iris | logistic |")
    assert out.splitlines()[-2].startswith("| better |")


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
