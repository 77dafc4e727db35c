"""One pass shared out to processes, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from functools import partial
from typing import NamedTuple

from tqdm import tqdm

from torchal._records import differences
from torchal.distributed import Shards
from torchal.embedding.batches import Batches
from torchal.embedding.id_columns import IdColumns
from torchal.embedding.npy_stream import Fingerprint, NpyStream
from torchal.embedding.passes import Pass, fill
from torchal.embedding.ranks import together
from torchal.embedding.shard_folder import Ranges, ShardFolder, Start, deal, shard_settings
from torchal.errors import ConfigError

# How long ranks work between two words to one another: one that has nothing left to do waits no longer than that in a
# collective, so that no backend's timeout strikes, and an error in one is known to all soon.
_TURN_SECONDS = 10.0
_ROWS = 100_000  # in a shard: 300 MB of 768 numbers each
_SHOWN_SECONDS = 0.1  # between two looks of the progress bar, where there is nobody to talk to


class Prepared(NamedTuple):
    """What one process brings along."""

    batches: Batches
    run: Pass
    ids: IdColumns
    fingerprint: Fingerprint


def fill_folder(
    folder: ShardFolder, prepared: Prepared, ranks: Shards, *, shard_rows: int | None, progress: bool
) -> None:
    """Make the shards that a folder lacks, each rank some of them.

    Args:
        folder: where they go.
        prepared: what they are made of; the same in all ranks.
        ranks: who makes them.
        shard_rows: see `ShardFolder.start`.
        progress: show a progress bar in rank 0.

    Raises:
        ConfigError: ranks embed different things, or the folder holds something else.
        RunError: another job writes to the folder, or it cannot be written.
        GroupError: another rank failed, or is gone.
    """
    batches, settings = prepared.batches, prepared.fingerprint
    assert batches.n_rows is not None
    _check_agreement(together(ranks, lambda: {**settings, "shard_rows": shard_rows}))

    def start() -> Start | None:
        return folder.start(dict(settings), shard_rows, default=_default(batches)) if ranks.rank == 0 else None

    # what rank 0 found: on a shared disk, others may see it later
    started = Start(*together(ranks, start)[0])
    if started.finished:
        return
    ranges, lacking = Ranges(batches.n_rows, started.shard_rows), started.lacking
    work = _shards(folder, ranges, deal(lacking, ranks.world_size)[ranks.rank], prepared)
    seconds = _SHOWN_SECONDS if ranks.alone else _TURN_SECONDS
    try:
        with tqdm(
            desc="embed",
            total=batches.n_rows,
            initial=batches.n_rows - sum(rows or 0 for rows in lacking),
            unit="row",
            disable=not progress or ranks.rank > 0,
        ) as bar:
            going = True
            while going:
                turns = together(ranks, partial(_turn, work, seconds))
                bar.update(sum(n_rows for n_rows, _ in turns))
                going = any(left for _, left in turns)
    finally:
        work.close()
    together(ranks, lambda: folder.finish(ranges) if ranks.rank == 0 else None)


def _default(batches: Batches) -> int:
    """Return a number of rows in a shard that keeps batches as they are without shards."""
    size = batches.batch_size or 1
    return -(-_ROWS // size) * size


def _turn(work: Iterator[int], seconds: float) -> tuple[int, bool]:
    """Go on for some time; return how many rows were made, and whether more are left."""
    n_rows, until = 0, time.monotonic() + seconds
    for made in work:
        n_rows += made
        if time.monotonic() > until:
            return n_rows, True
    return n_rows, False


def _shards(folder: ShardFolder, ranges: Ranges, shards: list[int], prepared: Prepared) -> Generator[int, None, None]:
    """Make shards one after another; yield after each batch how many rows it has."""
    for shard in shards:
        rows = ranges.rows(shard)
        settings = shard_settings(prepared.fingerprint, ranges, shard)
        with NpyStream(folder.files(ranges, shard), settings, prepared.run.answers_in()) as stream:
            if stream.finished:
                continue
            part = prepared.batches.part(rows)
            yield from fill(stream, part, prepared.run, first_row=rows.start, of=f" of shard {shard}")
            prepared.ids.write(folder.metadata(ranges, shard), rows.start, rows.stop)
            stream.finish()


def _check_agreement(fingerprints: list[Fingerprint]) -> None:
    for rank, one in enumerate(fingerprints):
        different = differences(fingerprints[0], one)
        if different:
            raise ConfigError(f"all ranks must embed the same: from rank 0 to rank {rank}, {different}")
