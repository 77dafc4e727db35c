import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, harness

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return the folder in which the script has left its table, from a run on the CPU at a tiny size."""
    folder = tmp_path_factory.mktemp("gpu")
    options = ["--device", "cpu", "--tiny", "--only", "k_center", "logistic", "ten_cnns", "--out", str(folder)]
    assert gpu.main(options) == 0
    return folder


def test_the_table_has_a_row_for_everyone(done):
    table = json.loads(next(done.glob("*.json")).read_text())
    assert table["machine"]["torch"] == torch.__version__
    assert all(row["seconds"] > 0 for row in table["rows"])
    ours = [row for row in table["rows"] if row["who"] == "ours"]
    assert len(ours) == 3
    assert ours[0]["note"] == "20 of 20 picks as the plain loop's, 20 of 20 as the CPU's"
    lines = next(done.glob("*.md")).read_text().splitlines()
    assert len(lines) == len(table["rows"]) + 4


def test_a_work_that_outlasts_its_limit_leaves_the_others(tmp_path, monkeypatch):
    works = {"k_center": gpu.WORKS["k_center"]._replace(limit_seconds=-30), "density": gpu.WORKS["density"]}
    monkeypatch.setattr(gpu, "WORKS", works)
    assert gpu.main(["--device", "cpu", "--tiny", "--only", "k_center", "density", "--out", str(tmp_path)]) == 1
    rows = json.loads(next(tmp_path.glob("*.json")).read_text())["rows"]
    assert (rows[0]["work"], rows[0]["note"], rows[0]["seconds"]) == ("k_center", "outlasted its time limit", None)
    assert rows[1]["work"].startswith("graph density")
    assert rows[1]["seconds"] > 0


@pytest.mark.parametrize("name", ["badge", "gradient_length"])
def test_strategies_are_measured_as_by_benchmarks_run(name, monkeypatch):
    monkeypatch.setattr(harness, "PAUSE", 0.0)
    measured = list(gpu.WORKS[name].rows(True, "cpu"))
    assert measured[0].who == "ours"
    assert all(row.seconds > 0 for row in measured)


def test_without_time_every_work_is_said_to_be_missing(tmp_path):
    options = ["--device", "cpu", "--tiny", "--seconds", "0", "--only", "density", "neighbors", "--out", str(tmp_path)]
    assert gpu.main(options) == 1
    rows = json.loads(next(tmp_path.glob("*.json")).read_text())["rows"]
    assert [row["work"] for row in rows] == ["density", "neighbors"]
    assert all(row["seconds"] is None and row["note"] for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_script_says_that_there_is_no_device(tmp_path):
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable, "TEST_SECONDS": "1"}
    done = subprocess.run(
        ["bash", "benchmarks/gpu.sh"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "error: there is no CUDA device" in done.stdout
