import csv
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn

import torchal
import torchal.command.shards
from tests.ranks import run_ranks
from torchal.command.main import main
from torchal.errors import DataError, GroupError, RunError
from torchal.functional import k_center_greedy

N = 700


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "embedded"
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.randn(N, 5)
    names = [f"row{i:03}" for i in range(N)]
    torchal.embed(net, x, out=folder, shard_rows=200, ids=names, batch_size=100, progress=False)
    return folder


FULL_DISK = """
import os, resource, sys
from pathlib import Path
from torchal.command.shards import ShardedRequest, query_shards

if os.environ["RANK"] == "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    query_shards(ShardedRequest(Path(sys.argv[1]), 20, Path(sys.argv[2]), "k_center"), None)
except Exception as error:
    print(f"{os.environ['RANK']}: {error}", flush=True)  # and end well, or torchrun ends the other before it can say so
"""


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def query(embedded, out, *more):
    return main(["query", "--shards", str(embedded), "--budget", "20", "--out", str(out), *more])


def on_two_ranks(folder, out, strategy, monkeypatch):
    """Return what the command says, or raises, on each of two ranks."""
    request = torchal.command.shards.ShardedRequest(folder, 20, out, strategy)
    current = threading.local()
    monkeypatch.setattr(torchal.command.shards, "Shards", lambda _: current.group)

    def work(group):
        current.group = group
        return torchal.command.shards.query_shards(request, None)

    return run_ranks(2, work)


@pytest.mark.parametrize("strategy", torchal.command.shards.STRATEGIES)
def test_each_strategy(embedded, tmp_path, strategy, capsys):
    assert query(embedded, tmp_path / "next.csv", "--strategy", strategy) == 0
    rows = rows_of(tmp_path / "next.csv")
    assert len({row["id"] for row in rows}) == 20
    assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, 21)]
    assert {row["picked_by"] for row in rows} == {strategy}
    assert f"{strategy}: 20 of 700 rows, of which 0 are labeled, by 1 process." in capsys.readouterr().out


def test_labeled_rows_are_kept_away_from(embedded, tmp_path):
    assert query(embedded, tmp_path / "1.csv", "--strategy", "k_center") == 0
    first = rows_of(tmp_path / "1.csv")
    (tmp_path / "labels.csv").write_text("id,label\n" + "".join(f"{row['id']},a\n" for row in first))
    more = ("--strategy", "k_center", "--labels", str(tmp_path / "labels.csv"))
    assert query(embedded, tmp_path / "2.csv", *more) == 0
    labeled = torch.zeros(N, dtype=torch.bool)
    labeled[[int(row["id"][3:]) for row in first]] = True
    features = torch.from_numpy(np.concatenate([np.load(embedded / f"img_emb/img_emb_{i}.npy") for i in range(4)]))
    expected = k_center_greedy(features, 20, labeled=labeled).indices.tolist()
    assert [int(row["id"][3:]) for row in rows_of(tmp_path / "2.csv")] == expected


def test_many_processes_write_what_one_does(embedded, tmp_path):
    assert query(embedded, tmp_path / "one.csv", "--strategy", "k_center") == 0
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    command += ["-m", "torchal", "query", "--shards", embedded, "--budget", "20", "--strategy", "k_center"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    settings = {"env": environment, "capture_output": True, "text": True}
    done = subprocess.run([*command, "--out", tmp_path / "three.csv"], check=False, **settings)
    assert done.returncode == 0, done.stderr
    assert "by 3 processes." in done.stdout
    one, three = rows_of(tmp_path / "one.csv"), rows_of(tmp_path / "three.csv")
    assert [row["id"] for row in one] == [row["id"] for row in three]


def test_a_table_that_is_there_is_left_by_all(embedded, tmp_path, monkeypatch):
    (tmp_path / "next.csv").write_text("id,label\nrow001,a\n")
    first, second = on_two_ranks(embedded, tmp_path / "next.csv", "k_center", monkeypatch)
    assert isinstance(first, RunError)
    assert "next.csv is there already" in str(first)
    assert isinstance(second, GroupError)
    assert "rank 0 failed with RunError" in str(second)
    assert (tmp_path / "next.csv").read_text() == "id,label\nrow001,a\n"


@pytest.mark.parametrize("strategy", ["badge", "margin"])
def test_logits_that_cannot_be_read_by_one_rank_are_told_to_all(embedded, tmp_path, strategy, monkeypatch):
    folder = tmp_path / "embedded"
    shutil.copytree(embedded, folder)
    last = sorted((folder / "logits").glob("*.npy"))[-1]
    logits = np.load(last)
    logits[-1] = np.nan
    np.save(last, logits)
    first, second = on_two_ranks(folder, tmp_path / "next.csv", strategy, monkeypatch)
    assert isinstance(first, GroupError)
    assert "rank 1 failed with DataError: " in str(first)
    assert isinstance(second, DataError)
    assert not (tmp_path / "next.csv").exists()


def test_a_full_disk_is_told_to_all_and_leaves_nothing(embedded, tmp_path):
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = tmp_path / "program.py"
    program.write_text(FULL_DISK)
    (tmp_path / "out").mkdir()
    done = subprocess.run(
        [*command, program, embedded, tmp_path / "out" / "next.csv"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0: " in done.stdout
    assert "File too large" in done.stdout
    assert "1: rank 0 failed with " in done.stdout
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--strategy", "bald"], "--strategy is one of badge, entropy"),
        (["--stop"], "--stop is not for --shards"),
        (["--normalize", "none"], "--normalize is not for --shards"),
        (["--budget", "0"], "--budget 0 takes labels in, and of --shards only the table is kept"),
    ],
)
def test_bad_input(embedded, tmp_path, more, error, capsys):
    assert query(embedded, tmp_path / "next.csv", *more) == 2
    assert error in capsys.readouterr().err
    assert not (tmp_path / "next.csv").exists()


def test_a_label_of_no_row(embedded, tmp_path, capsys):
    (tmp_path / "labels.csv").write_text("id,label\nrow003,a\nnobody,b\n")
    assert (
        query(embedded, tmp_path / "next.csv", "--strategy", "uniform", "--labels", str(tmp_path / "labels.csv")) == 2
    )
    assert "labels name 2 rows, of which 1 are not in" in capsys.readouterr().err


def test_without_logits(embedded, tmp_path, capsys):
    np.save(tmp_path / "emb_0.npy", np.ones((30, 2), np.float32))
    assert query(tmp_path, tmp_path / "next.csv", "--strategy", "margin") == 2
    assert "margin needs logits, and there is no folder" in capsys.readouterr().err
    assert query(tmp_path, tmp_path / "next.csv", "--strategy", "uniform") == 0
    assert {int(row["id"]) for row in rows_of(tmp_path / "next.csv")} <= set(range(30))
