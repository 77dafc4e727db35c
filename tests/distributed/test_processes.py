"""Ranks that are real processes, over gloo: what they pick, and what becomes of them when one is killed."""

import os
import signal
import subprocess
import sys
import time

import torch

from tests.distributed.worker import N_ROWS, picks, rows, seeded
from torchal.functional import k_center_greedy

PYTHON = [sys.executable, "-W", "ignore", "-m"]


def environment(**more):
    others = {name: value for name, value in os.environ.items() if name not in {"MASTER_PORT", "RANK", "WORLD_SIZE"}}
    return {**others, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in more.items()}}


def start(case, folder, world_size, **more):
    """Start so many ranks, each on its own."""
    return [
        subprocess.Popen(
            [*PYTHON, "tests.distributed.worker", case, str(folder)],
            env=environment(RANK=rank, WORLD_SIZE=world_size, **more),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]


def end(processes, *, within=90):
    """Return exit codes and what was written to stderr, once all have ended by themselves."""
    try:
        errors = [process.communicate(timeout=within)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], errors


def found(folder, world_size):
    return [torch.load(folder / f"found{rank}.pt") for rank in range(world_size)]


def test_picks_are_those_of_one_process(tmp_path):
    world_size = 3
    codes, errors = end(start("picks", tmp_path, world_size))
    assert codes == [0] * world_size, errors
    alone = picks(rows(), torch.randn(N_ROWS, 3, generator=seeded(2)).log_softmax(1), None)
    for of_rank in found(tmp_path, world_size):
        for name, expected in alone.items():
            torch.testing.assert_close(of_rank[name], expected, msg=name)
        # else the thread that did the last one might free its tensors when the interpreter has ended, and abort
        assert of_rank["held"] == [False, False, True]


def test_when_a_rank_is_killed_the_others_end_with_one_error(tmp_path):
    begin = time.monotonic()
    codes, errors = end(start("dies", tmp_path, 3, TIMEOUT=30))
    assert time.monotonic() - begin < 60
    assert codes[:2] == [1, 1]
    assert codes[2] == -signal.SIGKILL
    for rank, error in enumerate(errors[:2]):
        assert f"torchal.errors.GroupError: rank {rank} of 3 lost the others" in error
    assert not list(tmp_path.glob("found*"))


def test_bad_rows_are_told_to_all_and_the_group_goes_on(tmp_path):
    codes, errors = end(start("bad rows", tmp_path, 2))
    assert codes == [0, 0], errors
    first, second = found(tmp_path, 2)
    assert "rank 1 failed with DataError" in first["error"]
    assert second["error"].startswith("DataError('features")
    assert torch.equal(first["after it"], k_center_greedy(rows(), 10).indices)


def test_an_interrupt_ends_all(tmp_path):
    processes = start("hangs", tmp_path, 2, TIMEOUT=30)
    for _ in range(600):
        if len(list(tmp_path.glob("waits*"))) == 2:
            break
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGINT)
    codes, errors = end(processes)
    assert codes[1] in {-signal.SIGINT, 130, 1}
    assert "KeyboardInterrupt" in errors[1]
    assert codes[0] == 1
    assert "GroupError: rank 0 of 2 lost the others" in errors[0]


def torchrun(case, folder, *options, **more):
    command = [*PYTHON, "torch.distributed.run", *options, "--nproc-per-node", "2", "-m", "tests.distributed.worker"]
    return subprocess.Popen([*command, case, str(folder)], env=environment(**more), stderr=subprocess.PIPE, text=True)


def test_torchrun_starts_all_again_when_one_was_killed(tmp_path):
    codes, errors = end([torchrun("dies once", tmp_path, "--standalone", "--max-restarts", "1")])
    assert codes == [0], errors
    for indices in found(tmp_path, 2):
        assert torch.equal(indices, k_center_greedy(rows(), 60).indices)


def test_a_second_job_on_the_same_rendezvous_ends_and_the_first_does_not(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    port = 20_000 + os.getpid() % 20_000
    options = ["--master-addr", "localhost", "--master-port", str(port)]
    one = torchrun("hangs", first, *options, TIMEOUT=20)
    for _ in range(600):
        if len(list(first.glob("waits*"))) == 2:
            break
        time.sleep(0.1)
    other = torchrun("picks", second, *options, TIMEOUT=5)
    codes, errors = end([other])
    assert codes != [0]
    assert "address already in use" in errors[0].lower() or "EADDRINUSE" in errors[0]
    assert one.poll() is None
    one.send_signal(signal.SIGTERM)
    end([one])
