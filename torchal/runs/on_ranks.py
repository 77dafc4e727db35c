"""A run on several ranks: all do the same and come to the same, each looks at its own rows of the pool, one writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from torchal._records import differences
from torchal.distributed import Group, Shards, as_shards
from torchal.errors import CapabilityError, ConfigError, GroupError
from torchal.pool.file_inputs import FileInputs
from torchal.pool.pool import Pool
from torchal.pool.round_result import RoundResult
from torchal.pool.view import PoolView
from torchal.runs.results import Run, RunFolder
from torchal.samplers import names_on_ranks
from torchal.samplers.base import Sampler

_OF_ONE = ("seconds", "peak_mib")  # parts of a record in which ranks differ


class Ranks:
    """The ranks that a run is on.

    Each holds the labels and masks of all rows, and runs the same loop with the same seeds. What a model says of the
    pool it computes of its own rows alone, which are read from files, and rows are picked together.

    Args:
        group: a process group, or its context.
        pool: of all rows.

    Raises:
        CapabilityError: the pool's rows are not in files, where a rank can read its own.
    """

    def __init__(self, group: Group, pool: Pool) -> None:
        self.shards: Shards = as_shards(group)
        if not isinstance(pool.inputs, FileInputs):
            raise CapabilityError(
                f"a run on {self.shards.world_size} ranks is of a pool in files, of which each reads a part "
                f"(torchal.FileRows, data=shards); this one is of {type(pool.inputs).__name__}"
            )
        rank, world_size, n_rows = self.shards.rank, self.shards.world_size, len(pool)
        self._rows = slice(rank * n_rows // world_size, (rank + 1) * n_rows // world_size)
        self._inputs = pool.inputs[self._rows]  # once: samplers know them again in the next round

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what all have found."""
        return self.shards.rank == 0

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Let each rank do something by itself, and all of them know behind it whether each could.

        Raises:
            GroupError: another could not. The rank that could not raises its error as it is.
        """
        with self.shards.meeting() as meeting:
            meeting.rows(len(self._inputs), self._inputs.shape[1])
            yield

    def require_same(self, pool: Pool, settings: Mapping[str, Any]) -> None:
        """Require that all ranks are on the same run.

        Args:
            pool: of all rows.
            settings: by name; those of a mapping one by one.

        Raises:
            ConfigError: they are not; the message says in which settings.
        """
        with self.shards.meeting() as meeting:
            meeting.rows(len(self._inputs), self._inputs.shape[1])
            meeting.same(**_one_by_one(settings), pool=f"{len(pool)} rows {pool.fingerprint()}")

    def view(self, view: PoolView) -> PoolView:
        """Return what this rank's sampler sees of a view of the pool."""
        return view.of_rank(self.shards, self._rows, self._inputs)

    def agreed(self, result: RoundResult) -> RoundResult:
        """Return a round as all ranks record it: that of the first, whose seconds count, once all came to the same.

        Raises:
            GroupError: a rank came to something else; the message says to what.
        """
        own = result.to_json()
        line = torch.tensor(list(json.dumps(own).encode()), dtype=torch.uint8)
        first = json.loads(bytes(self.shards.all_gather(line if self.is_first else line[:0]).tolist()))
        with self.meeting():
            differing = differences(*({k: v for k, v in one.items() if k not in _OF_ONE} for one in (first, own)))
            if differing:
                raise GroupError(
                    f"rank {self.shards.rank} came to another record of round {result.round} than rank 0, "
                    f"{differing}: give all ranks the same files, processor, threads and versions"
                )
        return result if self.is_first else RoundResult.from_json(first)


def _one_by_one(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of mappings by names of their own, as `schedule.budget`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        parts = value if isinstance(value, Mapping) else {}
        found |= _one_by_one({f"{name}.{part}": one for part, one in parts.items()}) or {name: value}
    return found


def ranks_of(group: Group | None, pool: Pool, sampler: Sampler, *, represents: bool) -> Ranks | None:
    """Return the ranks that a learner is on; None where there is one.

    Raises:
        ConfigError: the sampler cannot pick from rows on several, or what is to be recorded is for one process.
        CapabilityError: the pool's rows are not in files.
    """
    shards = as_shards(group)
    if shards.alone:
        return None
    if not sampler.can_be_on_ranks:
        raise ConfigError(
            f"{type(sampler).__name__}{' with these settings' if sampler.on_ranks else ''} cannot pick from rows on "
            f"{shards.world_size} ranks; {', '.join(names_on_ranks())} can"
        )
    if represents:
        raise ConfigError(f"represents=True is for one process, there are {shards.world_size} ranks")
    return Ranks(shards, pool)


@contextmanager
def meeting_of(ranks: Ranks | None) -> Iterator[None]:
    """Let each rank do something by itself, as `Ranks.meeting`; one process just does it."""
    if ranks is None:
        yield
        return
    with ranks.meeting():
        yield


def folder_of(run_dir: Any, ranks: Ranks | None) -> RunFolder:
    """Return the folder of a run on these ranks."""
    return RunFolder(run_dir) if ranks is None else FolderOfRanks(run_dir, ranks)


class FolderOfRanks(RunFolder):
    """The folder of a run on several ranks: the first holds and writes it, and all read it."""

    def __init__(self, path: Any, ranks: Ranks) -> None:
        super().__init__(path)
        self._ranks = ranks

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for all ranks, by the first."""
        with ExitStack() as stack:
            with self._ranks.meeting():
                if self._ranks.is_first:
                    stack.enter_context(super().locked())
            yield

    def open(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Write what the run is, or require that it is the same."""
        with self._ranks.meeting():
            if self._ranks.is_first:
                super().open(config, {**environment, "ranks": self._ranks.shards.world_size})

    def read_checkpoint(self) -> dict[str, Any] | None:
        """Return the checkpoint, on every rank."""
        with self._ranks.meeting():
            return super().read_checkpoint()

    def keep_rounds(self, checkpoint: Mapping[str, Any] | None) -> None:
        """Drop all lines of `rounds.jsonl` but those that a checkpoint counts."""
        with self._ranks.meeting():
            if self._ranks.is_first:
                super().keep_rounds(checkpoint)

    def read_rounds(self) -> list[RoundResult]:
        """Return the rounds, on every rank."""
        with self._ranks.meeting():
            return super().read_rounds()

    def read(self) -> Run:
        """Return the run, on every rank."""
        with self._ranks.meeting():
            return RunFolder(self.path).read()

    def append(self, result: RoundResult) -> None:
        """Write one more round."""
        with self._ranks.meeting():
            if self._ranks.is_first:
                super().append(result)

    def write_checkpoint(self, state: Mapping[str, Any], *, finished: bool) -> None:
        """Replace the checkpoint as a whole."""
        with self._ranks.meeting():
            if self._ranks.is_first:
                super().write_checkpoint(state, finished=finished)
