"""What the ranks that share one pass tell one another."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

from torchal.distributed import Group, Shards, as_shards

Answer = TypeVar("Answer")


def ranks_of(group: Group | None, device: torch.device) -> Shards:
    """Return the ranks of a group.

    Args:
        group: the group; None for this process alone.
        device: where this rank computes: through its memory NCCL sends, whichever device is the current one.

    Raises:
        ConfigError: it is none, or this process is not in it.
    """
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        return as_shards(group)


def together(ranks: Shards, work: Callable[[], Any]) -> list[Any]:
    """Do some work on each rank, and return what came out of it on all of them, by rank.

    Args:
        ranks: who does it.
        work: what each does; its answer is what JSON has.

    Raises:
        GroupError: it failed on another rank, or that rank is gone. The one where it failed raises its own error.
    """
    if ranks.alone:
        return [work()]
    nothing = torch.empty(0, dtype=torch.uint8)
    said = ranks.attempt(
        lambda: torch.frombuffer(bytearray(json.dumps(work()).encode()), dtype=torch.uint8), lambda: nothing
    )
    sizes = ranks.all_gather(torch.tensor([len(said)]), [1] * ranks.world_size).tolist()
    return [json.loads(bytes(text.tolist())) for text in ranks.all_gather(said, sizes).split(sizes)]


def each(ranks: Shards, work: Callable[[], Answer]) -> Answer:
    """Do some work on each rank, and return what came out of it on this one.

    Raises:
        GroupError: as in `together`.
    """
    mine: list[Answer] = []
    together(ranks, lambda: mine.append(work()))
    return mine[0]
