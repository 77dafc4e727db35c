"""An experiment on a pool in shards, by one process and by several that are real, over gloo."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")
pa = pytest.importorskip("pyarrow", reason="ids of shards are Parquet")

import pyarrow.parquet as pq  # noqa: E402

from experiments import run as command  # noqa: E402

PYTHON = [sys.executable, "-W", "ignore", "-m"]
TORCHRUN = [*PYTHON, "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "experiments.run"]
SAMPLERS = ("badge", "k_center", "margin", "uniform")
QUICK = ["model.C=1", "start.n=20", "progress=false", "report=false"]


def write(folder, rows, labels, *, each):
    for part in ("img_emb", "metadata"):
        (folder / part).mkdir(parents=True)
    for i, start in enumerate(range(0, len(rows), each)):
        some = slice(start, start + each)
        np.save(folder / "img_emb" / f"img_emb_{i}.npy", rows[some])
        pq.write_table(pa.table({"label": labels[some]}), folder / "metadata" / f"metadata_{i}.parquet")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Make shards of 2 000 rows in five files, and others for testing; return the settings that name them."""
    folder, generator = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    for part, n_rows in (("pool", 2000), ("others", 200)):
        labels = generator.integers(4, size=n_rows)
        rows = 2 * np.eye(4, 8)[labels] + generator.normal(size=(n_rows, 8))
        write(folder / part, rows.astype(np.float16), labels, each=450)
    return ["data=shards", f"data.path={folder / 'pool'}", f"data.test_path={folder / 'others'}"]


def environment(**more):
    others = {name: value for name, value in os.environ.items() if name not in {"MASTER_PORT", "RANK", "WORLD_SIZE"}}
    return {**others, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in more.items()}}


def start(world_size, *arguments, each=None):
    """Start so many ranks, each on its own, perhaps with arguments of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    more = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": world_size}
    return [
        subprocess.Popen(
            [*PYTHON, "experiments.run", *arguments, *(each[rank] if each else ())],
            env=environment(RANK=rank, **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]


def end(processes, *, within=120):
    """Return exit codes, and what was written to stdout and stderr, once all have ended by themselves."""
    try:
        said = [process.communicate(timeout=within) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], *zip(*said, strict=True)


def records(runs):
    """Return what was recorded of each run, but for its seconds."""
    found = {}
    for path in sorted(runs.rglob("rounds.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.parent.name] = [
            {name: value for name, value in line.items() if name not in {"seconds", "peak_mib"}} for line in lines
        ]
    return found


@pytest.fixture
def alone(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        code = command.main()
        return code, capsys.readouterr()

    return call


def test_torchrun_makes_the_records_of_one_process(data, alone, tmp_path):
    settings = [*data, *QUICK, "schedule.batch_size=15", "schedule.budget=80", f"sampler={','.join(SAMPLERS)}"]
    assert alone(*settings, "watch=[cover_radius]", f"runs={tmp_path / 'one'}", "-m")[0] == 0
    done = subprocess.run(
        [*TORCHRUN, *settings, "watch=[cover_radius]", f"runs={tmp_path / 'two'}", "-m"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("paired over 1 run") == len(SAMPLERS) - 1  # one table, of the first
    one, two = records(tmp_path / "one"), records(tmp_path / "two")
    assert tuple(one) == SAMPLERS
    assert all(len(rounds) == 5 for rounds in one.values())
    assert one == two
    assert not list((tmp_path / "one").rglob("full_data/*.json"))


def test_a_run_that_fails_leaves_the_report_of_the_others(data, tmp_path):
    settings = [*data, *QUICK[:-1], "schedule.batch_size=15", "schedule.budget=50", "sampler=uniform,bait"]
    done = subprocess.run(
        [*TORCHRUN, *settings, f"runs={tmp_path}", "-m"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    for rank in (0, 1):
        assert f"rank {rank}: error: Bait cannot pick from rows on 2 ranks" in done.stderr
    assert list(records(tmp_path)) == ["uniform"]
    assert len(list(tmp_path.rglob("report.html"))) == 1
    assert done.stdout.count("TensorBoard of each run") == 1


def test_a_rank_is_killed_and_the_run_goes_on_with_fewer(data, alone, tmp_path):
    settings = [*data, *QUICK, "schedule.batch_size=5", "schedule.budget=250", "sampler=k_center"]
    ranks = start(3, *settings, f"runs={tmp_path / 'killed'}")
    try:
        for _ in range(6000):
            lines = [path.read_text().count("\n") for path in (tmp_path / "killed").rglob("rounds.jsonl")]
            if lines and lines[0] >= 3:
                break
            time.sleep(0.01)
        ranks[1].send_signal(signal.SIGKILL)
    finally:
        codes, _, errors = end(ranks)
    assert codes == [2, -signal.SIGKILL, 2], errors
    for rank in (0, 2):
        assert f"rank {rank}: error: rank {rank} of 3 lost the others" in errors[rank]
    left = records(tmp_path / "killed")["k_center"]
    assert 3 <= len(left) < 47
    assert alone(*settings, f"runs={tmp_path / 'killed'}")[0] == 0
    assert alone(*settings, f"runs={tmp_path / 'alone'}")[0] == 0
    again, whole = (records(tmp_path / folder)["k_center"] for folder in ("killed", "alone"))
    # k-center measures by other chunks when it begins anew: the last digits of its distances may be others
    scores = [np.concatenate([line.pop("scores") for line in lines[1:]]) for lines in (again, whole)]
    np.testing.assert_allclose(*scores, rtol=1e-5)
    assert again[1:] == whole[1:]
    assert again[0] == whole[0]


def test_ranks_that_were_asked_for_different_things_are_refused(data, tmp_path):
    settings = [*data, *QUICK, "schedule.batch_size=15", f"runs={tmp_path / 'runs'}"]
    codes, _, errors = end(start(2, *settings, each=[["sampler=margin"], ["sampler=uniform"]]))
    assert codes == [2, 2]
    for rank, error in enumerate(errors):
        assert f"rank {rank}: error: the ranks were asked for different things: rank 0 for " in error
        assert "sampler=margin" in error
        assert "sampler=uniform" in error
    assert not (tmp_path / "runs").exists()


def test_the_epochs_of_a_network_are_written_once(data, tmp_path):
    settings = ["model=mlp", "model.epochs=1", "log_fits=true", "start.n=20", "schedule.batch_size=15"]
    more = ["schedule.budget=35", f"runs={tmp_path / 'runs'}", *QUICK[2:]]
    codes, _, errors = end(start(2, *data, *settings, *more))
    assert codes == [0, 0], errors
    fits = next((tmp_path / "runs").rglob("fits"))
    assert [len(list((fits / name).iterdir())) for name in ("round=000", "round=001")] == [1, 1]


def test_data_in_memory_are_for_one_process(tmp_path):
    codes, _, errors = end(start(2, "data=iris", "start.n=9", *QUICK[2:], f"runs={tmp_path / 'runs'}"))
    assert codes == [2, 2]
    for rank, error in enumerate(errors):
        assert f"rank {rank}: error: a run on 2 ranks is of a pool in files, of which each reads a part" in error
    assert not (tmp_path / "runs").exists()


def peak_mib(*arguments):
    """Return the most memory that a process had which ran an experiment."""
    process = subprocess.Popen([*PYTHON, "experiments.run", *arguments], env=environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


def test_the_pool_is_never_in_memory_as_a_whole(data, tmp_path):
    n_rows, n_columns = 201_000, 384
    some = np.random.default_rng(0).normal(size=(3000, n_columns)).astype(np.float16)
    labels = np.arange(n_rows) % 4
    write(tmp_path / "pool", np.tile(some, (n_rows // len(some), 1)), labels, each=70_000)
    write(tmp_path / "others", some[:200], labels[:200], each=200)
    settings = [*QUICK, "schedule.batch_size=20", "schedule.budget=60", "sampler=badge"]
    where = [f"data.path={tmp_path / 'pool'}", f"data.test_path={tmp_path / 'others'}"]
    small = peak_mib(*data, *settings, f"runs={tmp_path / 'small'}")
    large = peak_mib("data=shards", *where, *settings, f"runs={tmp_path / 'large'}")
    assert large - small < 90  # of 146 MiB in files, which would be 293 as float32; a row has some 100 bytes
