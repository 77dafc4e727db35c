"""Ranks of a process group as threads of one process, for tests of many cases."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from torchal.distributed import Shards

_REDUCE = {"sum": torch.sum, "max": torch.amax, "min": torch.amin}


class _Line:
    def __init__(self, world_size):
        self.barrier = threading.Barrier(world_size, timeout=120)
        self.said = [None] * world_size


class ThreadShards(Shards):
    """The context of one rank, which speaks with the threads of the others."""

    def __init__(self, line, rank):
        super().__init__(None)
        self._line, self.rank, self.world_size = line, rank, len(line.said)
        self.offsets = [0] * (self.world_size + 1)

    def _say(self, what):
        self.rounds += 1
        self._line.said[self.rank] = what.clone()
        self._line.barrier.wait()
        said = torch.stack(self._line.said)
        self._line.barrier.wait()
        return said

    def _exchange(self, sent):
        self.received_bytes += (self.world_size - 1) * len(sent)
        return self._say(sent)

    def _combine(self, flat, operation):
        self.received_bytes += 2 * flat.numel() * flat.element_size()
        flat.copy_(_REDUCE[operation](self._say(flat), dim=0))


def run_ranks(world_size, work):
    """Return what work(shards) returns or raises on each of so many ranks."""
    line = _Line(world_size)

    def one(rank):
        try:
            return work(ThreadShards(line, rank))
        except threading.BrokenBarrierError as error:
            return RuntimeError(f"rank {rank} was left alone: {error}")
        except Exception as error:
            if not isinstance(error, ValueError | TypeError | RuntimeError | OSError):
                line.barrier.abort()
            return error

    with ThreadPoolExecutor(world_size) as threads:
        return list(threads.map(one, range(world_size)))


def parts_of(rows, cuts):
    """Return rows in parts that begin and end at the cuts (any numbers in [0, N], ascending)."""
    ends = [0, *cuts, len(rows)]
    return [rows[a:b] for a, b in itertools.pairwise(ends)]
