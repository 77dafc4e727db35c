"""A folder that a pass fills shard by shard: what it is made of, who writes to it, and what is still to be done.

Finished, it has the layout of clip-retrieval: `img_emb/img_emb_07.npy`, whose rows have their ids in
`metadata/metadata_07.parquet`, with numbers padded to one length. Beside them are `logits/logits_07.npy`, and
`embed.json`, which says what all is made of. Until the last shard is there, all of them are in the folder `unfinished`,
so that nobody takes a part for the whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torchal._records import differences, write_atomically
from torchal.embedding.npy_stream import Fingerprint, StreamFiles, lock
from torchal.errors import ConfigError, DataError, RunError

MANIFEST = "embed.json"
_LOCK = "embed.lock"
_UNFINISHED = "unfinished"
FEATURES, LOGITS, METADATA = "img_emb", "logits", "metadata"
_PARTS = (METADATA, LOGITS, FEATURES)  # in the order in which they come to their places: the last one says that all are
_ABOUT = "about"  # what each shard is made of, while others are not finished

Settings = dict[str, Any]


@dataclass(frozen=True)
class Ranges:
    """Which rows each shard has: runs of one length, the last one what is left. They hang on no number of processes.

    Args:
        n_rows: how many rows there are.
        shard_rows: rows in a shard.
    """

    n_rows: int
    shard_rows: int

    def __len__(self) -> int:
        return (self.n_rows + self.shard_rows - 1) // self.shard_rows

    def rows(self, shard: int) -> range:
        """Return the numbers of a shard's rows."""
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.n_rows))

    def number(self, shard: int) -> str:
        """Return a shard's number as it stands in the names of files: sorted as text, they are in order."""
        return str(shard).zfill(len(str(len(self))))


def deal(lacking: Sequence[int | None], n_ranks: int) -> list[list[int]]:
    """Return for each rank the unfinished shards that it makes, so that none has much more to do than others.

    The longest ones first, each to the rank that has the least to do; no rank is idle that could have one.

    Args:
        lacking: how many rows each shard lacks; None where it is finished.
        n_ranks: how many ranks there are.

    Returns:
        A list for each rank, in order; it lacks at most a third more rows than the best sharing out would leave it.

    Reference:
        Graham, "Bounds on Multiprocessing Timing Anomalies", SIAM Journal on Applied Mathematics 17, 1969.

    Example:
        >>> deal([4, None, 4, 4, 2, 2], 2)
        [[0, 3], [2, 4, 5]]
    """
    costs = [(-max(1, rows), shard) for shard, rows in enumerate(lacking) if rows is not None]
    dealt: list[list[int]] = [[] for _ in range(n_ranks)]
    loads = [(0, rank) for rank in range(n_ranks)]
    for cost, shard in sorted(costs):
        load, rank = heappop(loads)
        dealt[rank].append(shard)
        heappush(loads, (load - cost, rank))
    return [sorted(mine) for mine in dealt]


class Start(NamedTuple):
    """What a pass into a folder begins with.

    Attributes:
        finished: whether all shards are in their places.
        shard_rows: rows in a shard.
        lacking: how many rows each shard lacks; None where it is finished.
    """

    finished: bool
    shard_rows: int
    lacking: list[int | None]


class ShardFolder:
    """The folder, for one process of those that fill it; `start` and `finish` are for one of them alone.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unfinished = path / _UNFINISHED
        self._manifest = path / MANIFEST
        self._stack = ExitStack()

    def close(self) -> None:
        """Let others write to it."""
        self._stack.close()

    def start(self, settings: Settings, shard_rows: int | None, *, default: int) -> Start:
        """Lock the folder, and find out what is there already.

        Args:
            settings: what all shards are made of, with "n_rows".
            shard_rows: rows in a shard; what the folder was begun with, or else `default`, unless given.
            default: for a folder that is new.

        Returns:
            What is to be done; a folder that is finished is not locked.

        Raises:
            ConfigError: it holds something else.
            RunError: another job writes to it, it is damaged, or cannot be written.
        """
        try:
            if not self._is_finished():
                self._check_vacant()
                self.path.mkdir(parents=True, exist_ok=True)
                file = self._stack.enter_context((self.path / _LOCK).open("a+b"))
                if not lock(file):
                    raise RunError(
                        f"{self.path} is being written by another job; processes that share one need group=, the same"
                    )
            noted = self._noted()
            if noted is None:
                shard_rows = shard_rows or default
                manifest = {"fingerprint": settings, "n_rows": settings["n_rows"], "shard_rows": shard_rows}
                write_atomically(self._manifest, json.dumps(manifest, indent=2).encode() + b"\n")
            else:
                self._check_same(noted, settings, shard_rows)
                shard_rows = int(noted["shard_rows"])
            ranges = Ranges(int(settings["n_rows"]), shard_rows)
            if self._is_finished() or (self.path / METADATA).exists():  # or was killed while it came to its place
                self.finish(ranges)
            lacking = [self._lacks(ranges, shard) for shard in range(len(ranges))]
            return Start(self._is_finished(), shard_rows, lacking)
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error}") from error

    def files(self, ranges: Ranges, shard: int) -> StreamFiles:
        """Return where a shard's rows go."""
        number = ranges.number(shard)
        return StreamFiles(
            self._unfinished / FEATURES / f"{FEATURES}_{number}.npy",
            self._unfinished / LOGITS / f"{LOGITS}_{number}.npy",
            self._unfinished / _ABOUT / f"{_ABOUT}_{number}.json",
        )

    def metadata(self, ranges: Ranges, shard: int) -> Path:
        """Return where a shard's ids go."""
        return self._unfinished / METADATA / f"{METADATA}_{ranges.number(shard)}.parquet"

    def finish(self, ranges: Ranges) -> None:
        """Put all shards in their places, once all are there; `img_emb` comes last.

        Raises:
            RunError: a shard is missing.
            DataError: shards have other widths than the first.
        """
        try:
            if (self._unfinished / METADATA).exists():
                self._check_whole(ranges)
            for part in _PARTS:
                if (self._unfinished / part).exists():
                    (self._unfinished / part).rename(self.path / part)
            if self._unfinished.exists():
                shutil.rmtree(self._unfinished)
            # whoever has it open still, or makes it anew, finds that there is nothing to write
            (self.path / _LOCK).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error}") from error

    def _is_finished(self) -> bool:
        return self._manifest.exists() and (self.path / FEATURES).exists()

    def _check_vacant(self) -> None:
        there = [part for part in (*_PARTS, _UNFINISHED) if (self.path / part).exists()]
        if there and not self._manifest.exists():
            raise ConfigError(
                f"{self.path} holds {' and '.join(there)} already, without {MANIFEST}: choose another out, or delete "
                f"{'it' if len(there) == 1 else 'them'}"
            )

    def _noted(self) -> Settings | None:
        try:
            noted = json.loads(self._manifest.read_bytes())
            _ = noted["fingerprint"].items(), int(noted["n_rows"]), int(noted["shard_rows"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self._manifest} is damaged: {error}") from error
        return dict(noted)

    def _check_same(self, noted: Settings, settings: Settings, shard_rows: int | None) -> None:
        old, new = dict(noted["fingerprint"]), dict(settings)
        if self._is_finished():  # where they were made counts only while more are made
            old.pop("device", None), new.pop("device", None)
        old["shard_rows"] = noted["shard_rows"]
        new["shard_rows"] = shard_rows or noted["shard_rows"]
        different = differences(old, new)
        if different:
            raise ConfigError(
                f"{self.path} is of something else: {different}. Choose another out, or delete the folder"
            )

    def _lacks(self, ranges: Ranges, shard: int) -> int | None:
        files = self.files(ranges, shard)
        if self._is_finished() or files.features.exists():
            return None
        done = 0
        # only to share the work out evenly: what is really there, the stream finds out
        with suppress(OSError, ValueError, LookupError, TypeError):
            journal = files.about.with_name(files.about.name + ".partial").read_bytes()
            done = int(json.loads(journal.split(b"\n")[-2])[0])
        return max(0, len(ranges.rows(shard)) - done)

    def _check_whole(self, ranges: Ranges) -> None:
        widths: dict[str, int] = {}
        for shard in range(len(ranges)):
            files = self.files(ranges, shard)
            for path in (files.features, files.logits, self.metadata(ranges, shard)):
                if not path.exists():
                    raise RunError(f"{path} is not there: do all processes see the same folder?")
            for part, path in ((FEATURES, files.features), (LOGITS, files.logits)):
                shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
                if shape != (len(ranges.rows(shard)), widths.setdefault(part, shape[1])):
                    raise DataError(
                        f"{path} has shape {shape}, expected ({len(ranges.rows(shard))}, {widths[part]}) as the first"
                    )


def shard_settings(settings: Settings, ranges: Ranges, shard: int) -> Fingerprint:
    """Return what one shard is made of."""
    rows = ranges.rows(shard)
    return {**settings, "n_rows": len(rows), "n_batches": None, "shard": shard, "first_row": rows.start}
