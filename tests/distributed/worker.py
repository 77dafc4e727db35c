"""One rank of a process group, as a process: python -m tests.distributed.worker CASE FOLDER, with RANK and WORLD_SIZE.

Under torchrun it meets the others where that says, else in a file of the folder. What it finds is saved in the folder.
"""

import os
import signal
import sys
import time
import weakref
from datetime import timedelta
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist

from tests.ranks import parts_of
from torchal.distributed import Shards, join
from torchal.errors import TorchalError
from torchal.functional import (
    badge,
    facility_location,
    hierarchical_kmeans,
    k_center_greedy,
    kmeans,
    kmeans_plus_plus,
    knn_graph,
    top_n,
    typiclust,
    uniform,
)

N_ROWS = 3000


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def rows():
    return torch.randn(N_ROWS, 5, generator=seeded(0)).mul_(3).round_()


def picks(x, log_probs, group):
    """Return what each kernel picks from rows on many ranks, or in one process."""
    everything = torch.ones(len(x), dtype=torch.bool)
    return {
        "k-center": k_center_greedy(x, 60, group=group).indices,
        "weighted": k_center_greedy(x, 60, weights=log_probs.exp().amax(1), group=group).indices,
        "k-means++": kmeans_plus_plus(x, 60, generator=seeded(1), group=group).indices,
        "badge": badge(log_probs, x, 60, generator=seeded(1), group=group).indices,
        "kmeans": kmeans(x, 5, generator=seeded(1), group=group).centers,
        "top": top_n(log_probs[:, 0].contiguous(), 60, group=group).indices,
        "uniform": uniform(60, candidates=everything, generator=seeded(1), group=group).indices,
        "neighbours": Shards(group).all_gather(knn_graph(x, 4, group=group).indices),
        "coverage": facility_location(x, 20, similarity="rbf", max_held=0, group=group).indices,
        "typical": typiclust(x, 40, generator=seeded(1), group=group).indices,
        "levels": hierarchical_kmeans(x, (20, 4), generator=seeded(1), n_resamples=2, group=group).centers[1],
    }


def held(group):
    """Return which of three operations are still held once the third is done."""
    works, gather = [], dist.all_gather

    def watched(*args, **settings):
        work = gather(*args, **settings)
        works.append(weakref.ref(work))
        return work

    with mock.patch.object(dist, "all_gather", watched):
        shards = Shards(group)
        for _ in range(3):
            shards.all_gather(torch.zeros(1), [1] * shards.world_size)
    del shards
    return [work() is not None for work in works]


class Dying(Shards):
    """A rank that dies when it is to speak for the so-many-th time."""

    moment = 4

    def _exchange(self, sent):
        if self.rounds == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._exchange(sent)


def work(case, folder, rank, world_size):
    cuts = [N_ROWS * part // world_size - 3 * part for part in range(1, world_size)]
    x = parts_of(rows(), cuts)[rank]
    log_probs = parts_of(torch.randn(N_ROWS, 3, generator=seeded(2)).log_softmax(1), cuts)[rank]
    group = dist.group.WORLD
    if case == "picks":
        return picks(x, log_probs, group) | {"held": held(group)}
    if case == "dies":
        return k_center_greedy(x, 300, group=Dying(group) if rank == world_size - 1 else group)
    if case == "dies once":
        again = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
        return k_center_greedy(x, 60, group=group if again or rank else Dying(group)).indices
    if case == "bad rows":
        bad = x.clone()
        if rank == 1:
            bad[7] = torch.nan
        try:
            k_center_greedy(bad, 10, group=group)
        except TorchalError as error:
            return {"error": repr(error), "after it": k_center_greedy(x, 10, group=group).indices}
    if case == "hangs":
        (folder / f"waits{rank}").touch()
        if rank:
            time.sleep(60)
        return k_center_greedy(x, 60, group=group)
    raise AssertionError(case)


def main():
    case, folder = sys.argv[1], Path(sys.argv[2])
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    timeout = timedelta(seconds=float(os.environ.get("TIMEOUT", "60")))
    if "MASTER_PORT" in os.environ:
        join(timeout)
    else:
        where = (folder / "meeting").as_uri()
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world_size, timeout=timeout)
    torch.save(work(case, folder, rank, world_size), folder / f"found{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
