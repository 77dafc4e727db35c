"""Selection from rows on many ranks, and what a model of its cost says: `python -m benchmarks.ranks --ranks 1 2 4`.

Each number of ranks is a run of torchrun on this machine, over gloo, with the same threads for each rank. The table
tells the seconds (median), the rounds of communication, what a rank received, and whether the picks are those of one
process. `--model` measures what the terms of the model cost here, predicts the seconds of runs of several sizes from
the counts of the smallest of them, and runs them; `--predict` says what it comes to on other machines.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from torchal.distributed import Shards, join
from torchal.engine.distances import Rows, make_space, survey
from torchal.engine.features import FeatureReader
from torchal.engine.greedy import Pool, farthest_first
from torchal.engine.sharded import ShardedPool
from torchal.engine.sources import HeldRows, StreamedRows
from torchal.functional import k_center_by_parts, k_center_greedy, kmeans_plus_plus, uniform

_BLOCK = 1 << 14  # rows with a seed of their own, so that each rank makes only its own
_CLUSTERS = 200


def rows_of(start: int, stop: int, n_columns: int, kind: str) -> Tensor:
    """Return rows start to stop of a pool of any size: standard normal, or in clusters of different spreads."""
    centers = 3 * torch.randn(_CLUSTERS, n_columns, generator=torch.Generator().manual_seed(1))
    rows = torch.empty(stop - start, n_columns)
    for block in range(start // _BLOCK, -(-stop // _BLOCK)):
        generator = torch.Generator().manual_seed(1000 + block)
        x = torch.randn(_BLOCK, n_columns, generator=generator)
        if kind == "clusters":
            x *= torch.rand(_BLOCK, 1, generator=generator)
            x += centers[torch.randint(0, _CLUSTERS, (_BLOCK,), generator=generator)]
        low, high = max(start, block * _BLOCK), min(stop, (block + 1) * _BLOCK)
        rows[low - start : high - start] = x[low - block * _BLOCK : high - block * _BLOCK]
    return rows


@dataclass
class Counts:
    """What a selection did on a rank; the model's seconds follow from these."""

    n_rows: int
    n_columns: int
    world_size: int
    picks: int
    looks: int = 0
    """Passes over all rows of the rank, after the first three."""
    told: int = 0
    """Picks that these told the rows of."""
    top_pairs: int = 0
    """Distances between picks and the rows that come first."""
    blocks: int = 0
    block_rows: int = 0
    rounds: int = 0
    received_bytes: int = 0


@contextmanager
def _counted(counts: Counts) -> Iterator[None]:
    """Count what `ShardedPool` does inside."""
    look, pick = ShardedPool._look_at_all, ShardedPool._pick_in

    def counting_look(pool: ShardedPool) -> Any:
        counts.looks += bool(pool._untold)
        counts.told += sum(len(rows.x) for rows in pool._untold)
        return look(pool)

    def counting_pick(pool: ShardedPool, block: Any, top: Any, bound: Any, *rest: Any) -> Any:
        picks = pick(pool, block, top, bound, *rest)
        counts.blocks += 1
        counts.block_rows += len(block.rows)
        if len(picks[0]) < rest[0]:
            counts.top_pairs += len(picks[0]) * len(top.index)
        return picks

    with patch.multiple(ShardedPool, _look_at_all=counting_look, _pick_in=counting_pick):
        yield


def work(options: argparse.Namespace, group: Shards | None) -> dict[str, Any]:
    """Run the kernel on this rank's rows; return seconds, counts and picks."""
    rank, world_size = (0, 1) if group is None else (group.rank, group.world_size)
    start, stop = (options.rows * part // world_size for part in (rank, rank + 1))
    x = rows_of(start, stop, options.columns, options.data)
    kernels: dict[str, Callable[[Shards | None], Tensor]] = {
        "k_center": lambda group: k_center_greedy(x, options.picks, group=group).indices,
        "k_center_by_parts": lambda group: k_center_by_parts(x, options.picks, group=group).indices,
        "kmeans_plus_plus": lambda group: (
            kmeans_plus_plus(x, options.picks, generator=torch.Generator().manual_seed(0), group=group).indices
        ),
        "uniform": lambda group: (
            uniform(
                options.picks,
                candidates=torch.ones(len(x), dtype=torch.bool),
                generator=torch.Generator().manual_seed(0),
                group=group,
            ).indices
        ),
    }
    seconds, counts, picks = [], None, None
    for turn in range(options.repeats + 1):
        counts = Counts(options.rows, options.columns, world_size, options.picks)
        before = (0, 0) if group is None else (group.rounds, group.received_bytes)
        if group is not None:
            group.settle()
        with _counted(counts):
            started = time.perf_counter()
            picks = kernels[options.kernel](group)
            if turn or not options.repeats:
                seconds.append(time.perf_counter() - started)
        if group is not None:
            counts.rounds = group.rounds - before[0] - (world_size > 1)
            counts.received_bytes = group.received_bytes - before[1] - 8 * (world_size - 1)
    assert counts is not None
    assert picks is not None
    return {"seconds": statistics.median(seconds), **asdict(counts), "picks_found": picks.tolist()}


def run(options: argparse.Namespace, world_size: int, *, grouped: bool = True) -> dict[str, Any]:
    """Run so many ranks by torchrun; return what the first of them found."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        command = [sys.executable, "-m"]
        if grouped:
            command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(world_size), "-m"]
        command += ["benchmarks.ranks", "--found", str(found), "--kernel", options.kernel, "--data", options.data]
        for name in ("rows", "columns", "picks", "repeats", "threads"):
            command += [f"--{name}", str(getattr(options, name))]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
        result: dict[str, Any] = json.loads(found.read_text())
    return result


# -- the model ---------------------------------------------------------------------------------------------------------


@dataclass
class Machine:
    """What things cost on one rank, in seconds."""

    survey: float
    """A number, in the passes before the first pick: that which surveys, and that which looks for the first."""
    read: float
    """A number of a row, in a pass that lowers values."""
    pair: float
    """A distance between a row and a pick, beyond its multiply-adds."""
    multiply_add: float
    row: float
    """A row, in the choice of those that come first."""
    pick: float
    """A pick among the rows of a block."""
    block_row: float
    """A row of a block: its messages, sorting and first distances."""
    round: float
    """A message."""
    byte: float
    """A byte received."""


def predict(machine: Machine, counts: Counts) -> dict[str, float]:
    """Return the seconds of each part of a k-center selection."""
    local = counts.n_rows / counts.world_size
    numbers = local * counts.n_columns
    pairs = local * (counts.told + 1) + counts.top_pairs
    return {
        "before": numbers * machine.survey,
        "passes": (counts.looks + 1) * (numbers * machine.read + local * machine.row),
        "distances": pairs * (machine.pair + counts.n_columns * machine.multiply_add),
        "blocks": counts.picks * machine.pick + counts.block_rows * machine.block_row,
        "messages": counts.rounds * machine.round + counts.received_bytes * machine.byte,
    }


def _median(action: Callable[[], object], repeats: int = 5) -> float:
    action()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def measure(n_columns: int, group: Shards) -> Machine:
    """Measure what things cost on this rank, all ranks at the same time."""
    n_rows = max(4096, (1 << 24) // n_columns)
    x = rows_of(0, n_rows, n_columns, "clusters")
    reader = FeatureReader(x)
    seen = survey(reader, "euclidean")
    space = make_space(reader, seen, "euclidean")
    source = StreamedRows(reader, space)
    _ = source.sq
    numbers = n_rows * n_columns

    def far() -> None:
        def measure_chunk(start: int, stop: int) -> None:
            x = reader.read(start, stop).double().mul_(n_rows).sub_(seen.total)
            x.square_().sum(1)

        reader.in_chunks(n_rows, reader.chunk_rows(), measure_chunk)

    before = _median(lambda: survey(reader, "euclidean")) + _median(far)

    def passes(n_centers: int) -> float:
        centers = space.prepare(x[:n_centers])
        pool = Pool(source, space, torch.full((n_rows,), torch.inf))
        return _median(lambda: pool.lower_near(centers))

    few, many = passes(1), passes(257)
    product = _median(lambda: torch.mm(x, x[:256].T))
    multiply_add = product / (numbers * 256)
    pair = max(0.0, (many - few - product) / (n_rows * 256))
    values = torch.rand(n_rows)
    row = _median(lambda: (values.topk(n_rows // 8, sorted=False), values + 1, values > 0.5)) / n_rows
    size = 4096
    rows = HeldRows(Rows(*space.prepare(x[:size])), source.longest_sq, reader.in_chunks)

    def picks(n: int) -> float:
        first = space.nearest(rows.rows, rows.rows.select(torch.tensor([0])))
        return _median(lambda: farthest_first(Pool(rows, space, first.clone()), n, finish=False))

    one, more = picks(8), picks(264)
    small, large = torch.zeros(16, dtype=torch.uint8), torch.zeros(1 << 22, dtype=torch.uint8)
    sizes = [[len(part)] * group.world_size for part in (small, large)]
    latency = _median(lambda: group.all_gather(small, sizes[0]), 50)
    byte = (_median(lambda: group.all_gather(large, sizes[1])) - latency) / (len(large) * max(1, group.world_size - 1))
    return Machine(
        survey=before / numbers,
        read=few / numbers,
        pair=pair,
        multiply_add=multiply_add,
        row=row,
        pick=(more - one) / 256,
        block_row=one / size,
        round=latency,
        byte=max(byte, 0.0),
    )


# The sheet of an H100 (SXM), at half of what it says, with float32 products and no tensor cores: 33 of 67 TFLOP/s, 1.7
# of 3.35 TB/s; messages by NVLink and InfiniBand: 50 microseconds, 25 GB/s. A pick takes a kernel some microseconds.
H100 = Machine(
    survey=6 * 2 / 1.7e12,
    read=2 * 2 / 1.7e12,
    pair=8 / 1.7e12,
    multiply_add=2 / 33e12,
    row=40 / 1.7e12,
    pick=5e-6,
    block_row=2e-8,
    round=50e-6,
    byte=1 / 25e9,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--columns", type=int, default=256)
    parser.add_argument("--picks", type=int, default=1000)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--threads", type=int, default=1, help="of each rank")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--kernel", default="k_center", choices=["k_center", "k_center_by_parts", "kmeans_plus_plus", "uniform"]
    )
    parser.add_argument("--data", default="clusters", choices=["clusters", "normal"])
    parser.add_argument("--model", type=int, nargs="*", help="numbers of rows to predict and to run")
    parser.add_argument("--json", type=Path, help="where to write all that was found")
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.found is not None:
        _rank(options)
        return
    found = _model(options) if options.model is not None else _table(options)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def _rank(options: argparse.Namespace) -> None:
    """Be one of the ranks."""
    torch.set_num_threads(options.threads)
    group = join()
    shards = None if group is None else Shards(group)
    result = asdict(measure(options.columns, Shards(group))) if options.measure else work(options, shards)
    if shards is None or shards.rank == 0:
        options.found.write_text(json.dumps(result))
    if group is not None:
        torch.distributed.destroy_process_group()


def _table(options: argparse.Namespace) -> list[dict[str, Any]]:
    print(f"{options.kernel}, {options.rows} x {options.columns} {options.data}, {options.picks} picks")
    print("| ranks | seconds | rounds | MB a rank received | bytes a pick | times one process | picks |")
    print("|---|---|---|---|---|---|---|")
    alone = run(options, 1, grouped=False)
    found = [{"ranks": 0, **alone}]
    for world_size in options.ranks:
        result = run(options, world_size)
        found.append({"ranks": world_size, **result})
        differ = "others" if options.kernel == "k_center_by_parts" else "DIFFERENT"  # its parts are those of the ranks
        same = "the same" if result["picks_found"] == alone["picks_found"] else differ
        print(
            f"| {world_size} | {result['seconds']:.3f} | {result['rounds']} | {result['received_bytes'] / 1e6:.1f} | "
            f"{result['received_bytes'] // options.picks} | {result['seconds'] / alone['seconds']:.2f} | {same} |",
            flush=True,
        )
    print(f"One process without a group: {alone['seconds']:.3f} s.")
    for result in found:
        del result["picks_found"]
    return found


def _model(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Predict and run several sizes; the counts of all are those of the smallest."""
    world_size = options.ranks[-1]
    machine = Machine(**_measured(options, world_size))
    print(", ".join(f"{name} {value:.2e} s" for name, value in asdict(machine).items()))
    print("| rows | predicted | measured | predicted / measured | of it before, passes, distances, blocks, messages |")
    print("|---|---|---|---|---|")
    found = []
    known: Counts | None = None
    for n_rows in sorted(options.model):
        options.rows = n_rows
        result = run(options, world_size)
        counts = Counts(**{name: result[name] for name in Counts.__dataclass_fields__})
        known = known or counts
        share = counts.n_rows / known.n_rows
        scaled = Counts(**{**asdict(known), "n_rows": n_rows, "top_pairs": int(known.top_pairs * share)})
        parts = predict(machine, scaled)
        seconds = sum(parts.values())
        found.append({"predicted": seconds, "measured": result["seconds"], "parts": parts, "counts": asdict(counts)})
        print(
            f"| {n_rows} | {seconds:.3f} | {result['seconds']:.3f} | {seconds / result['seconds']:.2f} | "
            + ", ".join(f"{part:.3f}" for part in parts.values())
            + " |",
            flush=True,
        )
    assert known is not None
    large = Counts(
        n_rows=10**9,
        n_columns=512,
        world_size=64,
        picks=options.picks,
        looks=known.looks,
        told=known.told,
        top_pairs=options.picks * (16 * (1 << 25) // 512),
        blocks=known.blocks,
        block_rows=known.block_rows,
        rounds=known.rounds,
        received_bytes=known.blocks * 64 * (4096 // 64) * 4 * 513,
    )
    parts = predict(H100, large)
    print(
        f"10^9 rows x 512 in bfloat16 on 64 H100, {options.picks} picks: {sum(parts.values()):.2f} s, of it "
        + ", ".join(f"{name} {part:.3f}" for name, part in parts.items())
    )
    return found


def _measured(options: argparse.Namespace, world_size: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world_size)]
        command += ["-m", "benchmarks.ranks", "--measure", "--found", str(out), "--columns", str(options.columns)]
        command += ["--threads", str(options.threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
        result: dict[str, float] = json.loads(out.read_text())
    return result


if __name__ == "__main__":
    main()
