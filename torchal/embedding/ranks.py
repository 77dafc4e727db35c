"""The processes that share one pass: what they tell one another, so that all go on or all stop with an error."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from torchal.errors import ConfigError, RunError, TorchalError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Answer = TypeVar("Answer")


class Ranks:
    """A process group, or this process alone.

    Args:
        group: the processes; None for this one alone.
        device: where this one computes: through its memory NCCL sends, whichever device is the current one.

    Attributes:
        rank: the number of this process among them.
        size: how many they are.

    Raises:
        ConfigError: group is none, or this process is not in it.
    """

    def __init__(self, group: ProcessGroup | None, device: torch.device) -> None:
        self._group, self._device = group, device
        self.rank, self.size = 0, 1
        if group is None:
            return
        import torch.distributed as dist

        if not isinstance(group, dist.ProcessGroup):
            raise ConfigError(f"group must be a torch.distributed.ProcessGroup, got {type(group).__name__}")
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ConfigError(f"process {dist.get_rank()} is not in the group of {group.size()} processes")

    def together(self, work: Callable[[], Answer]) -> list[Answer]:
        """Do some work in each process, and return what came out of it in all of them, by rank.

        Where it fails in one, it fails in all: with its own error there, and elsewhere with a RunError that repeats it.

        Args:
            work: what each does; its answer is to be plain numbers and text.

        Raises:
            RunError: another process failed, or ended without a word.
        """
        if self.size == 1:
            return [work()]
        answer, error = None, None
        try:
            answer = work()
        except Exception as caught:
            error = caught
        told = self._gather((answer, None if error is None else _in_words(error)), error)
        if error is not None:
            raise error
        for rank, (_, words) in enumerate(told):
            if words is not None:
                raise RunError(f"rank {rank} of {self.size} failed, and so all of them stop: {words}")
        return [found for found, _ in told]

    def each(self, work: Callable[[], Answer]) -> Answer:
        """Do some work in each process, as `together` does, and return what came out of it in this one."""
        mine: list[Answer] = []
        self.together(lambda: mine.append(work()))
        return mine[0]

    def _gather(self, value: Any, error: Exception | None) -> list[Any]:
        import torch.distributed as dist

        told: list[Any] = [None] * self.size
        try:
            with torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext():
                dist.all_gather_object(told, value, group=self._group)
        except RuntimeError as lost:  # whatever the backend: a connection that was closed, or a timeout
            if error is not None:
                raise error from lost
            first = str(lost).strip().splitlines()[0] if str(lost).strip() else type(lost).__name__
            raise RunError(f"another of the {self.size} processes ended without a word: {first}") from lost
        return told


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, TorchalError) else f"{type(error).__name__}: {error}"
