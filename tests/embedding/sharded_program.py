"""A pass into shards by several processes, and ways to end in the middle of it. Run under torchrun: FOLDER [KILL]."""

import os
import resource
import signal
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset

from tests import forks
from torchal.embedding import embed, sharded

N, ROWS_PER_BATCH, SHARD_ROWS = 47, 2, 8  # six shards of four batches, the last one of a row less
IDS = [f"row {i}" for i in range(N)]


class Counting(nn.Module):
    """Counts its passes; may fail at one of them."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.fails_at = fails_at
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        self.n_passes = 0

    def forward(self, x):
        if self.n_passes == self.fails_at:
            raise RuntimeError("the pass failed")
        self.n_passes += 1
        return self.net(x)


def make_rows():
    return torch.randn(N, 4, generator=torch.Generator().manual_seed(1))


def run(folder, module=None, data=None, **more):
    settings = {"batch_size": ROWS_PER_BATCH, "shard_rows": SHARD_ROWS, "ids": IDS, "progress": False} | more
    module = Counting() if module is None else module
    return embed(module, make_rows() if data is None else data, out=folder, **settings)


def contents(folder):
    """Return all files."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def die_after(module, n_passes):
    def forward(*_):
        if module.n_passes == n_passes:
            os.kill(os.getpid(), signal.SIGKILL)

    module.register_forward_pre_hook(forward)


def as_rank(rank, size, meeting, answer, work, *arguments):
    """Do some work as one rank of several, and note what came out of it, or the error."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    sharded._TURN_SECONDS = 0.0  # a word to one another after each batch
    try:
        told = str(work(rank, *arguments))
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    answer.write_text(told)
    os._exit(0)


def in_ranks(size, room, work, *arguments):
    """Do some work in several processes, and return what came out of it by rank; None of one that was killed."""
    room.mkdir(exist_ok=True)
    meeting = room / "meeting"
    meeting.unlink(missing_ok=True)
    answers = [room / f"answer {rank}" for rank in range(size)]
    for answer in answers:
        answer.unlink(missing_ok=True)
    processes = [forks.start(as_rank, i, size, meeting, answers[i], work, *arguments) for i in range(size)]
    for process in processes:
        process.join(60)
    hangs = [process for process in processes if process.exitcode is None]
    for process in hangs:
        process.kill()
    assert not hangs
    return [answer.read_text() if answer.exists() else None for answer in answers]


def in_a_group(rank, folder, more):
    module = Counting()
    run(folder, module, group=dist.group.WORLD, **more)
    return module.n_passes


def killed_in_one(rank, folder, who, n_passes):
    module = Counting()
    if rank == who:
        die_after(module, n_passes)
    run(folder, module, group=dist.group.WORLD)


def fill_the_disk():
    """Let no file have more bytes than some."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))


def on_a_full_disk(folder):
    module = Counting()
    module.register_forward_pre_hook(lambda *_: fill_the_disk() if module.n_passes == 6 else None)
    run(folder, module)


def on_a_full_disk_in_one(rank, folder, who):
    module = Counting()
    if rank == who:
        module.register_forward_pre_hook(lambda *_: fill_the_disk() if module.n_passes == 2 else None)
    run(folder, module, group=dist.group.WORLD)


def with_other_weights_in_one(rank, folder, who):
    module = Counting()
    if rank == who:
        module.net[0].weight.data[0, 0] += 1
    run(folder, module, group=dist.group.WORLD)


def unreadable_in_one(rank, folder, who):
    rows = make_rows()
    if rank == who:
        rows[30] = np.nan
    run(folder, data=rows, group=dist.group.WORLD)


def on_a_device(rank, folder):
    run(folder, Counting().cuda(), group=dist.group.WORLD)


def from_a_stream(rank, folder):
    run(folder, data=iter(make_rows().split(2)), group=dist.group.WORLD)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    net = Counting()
    if len(sys.argv) > 2 and dist.get_rank() == 1:
        die_after(net, int(sys.argv[2]))
    run(sys.argv[1], net, data=TensorDataset(make_rows()), group=dist.group.WORLD)
    with Path(sys.argv[1] + f".rank{dist.get_rank()}").open("w") as file:
        file.write(str(net.n_passes))
    dist.destroy_process_group()
