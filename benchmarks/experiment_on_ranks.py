"""An experiment on a pool in shards, on ranks: `python -m benchmarks.experiment_on_ranks --folder SCRATCH`.

Rows of clusters are written in float16 to shards in a scratch folder, with their labels, and used again. Each case is
`experiments.run` as torchrun would start it: ranks of one thread each, over gloo. The peak is the largest resident size
of a rank, importing included; seconds are those of a round, its fit and its selection, the fastest of eight in
several runs; CPU seconds are of all a rank does, importing too: what it does to few rows is to be taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_SHARD_ROWS = 100_000
_N_CLASSES = 10
_N_TEST = 2000


def written(folder: Path, n_rows: int, n_columns: int) -> Path:
    """Write the shards of a pool and of others for testing, unless they are there."""
    folder = folder / f"{n_rows}x{n_columns}"
    centers = np.random.default_rng(0).normal(size=(_N_CLASSES, n_columns))
    for seed, (part, n) in enumerate((("pool", n_rows), ("others", _N_TEST)), 1):
        for number, start in enumerate(range(0, n, _SHARD_ROWS)):
            path = folder / part / "img_emb" / f"img_emb_{number:04d}.npy"
            if not path.exists():
                generator = np.random.default_rng([seed, number])
                labels = generator.integers(_N_CLASSES, size=min(_SHARD_ROWS, n - start))
                rows = centers[labels] + 2 * generator.normal(size=(len(labels), n_columns))
                _write(path, rows.astype(np.float16), labels)
    return folder


def _write(path: Path, rows: np.ndarray, labels: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    beside = path.parents[1] / "metadata"
    for one in (path.parent, beside):
        one.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"label": labels}), beside / f"{path.stem.replace('img_emb', 'metadata')}.parquet")
    np.save(path, rows)


def measured(folder: Path, world_size: int, arguments: Sequence[str]) -> tuple[float, float, float]:
    """Return the seconds of the fastest round, and the most CPU seconds and peak MiB of a rank."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as runs:
        command = [sys.executable, "-m", "experiments.run", "data=shards", f"data.path={folder / 'pool'}"]
        command += [f"data.test_path={folder / 'others'}", f"runs={runs}", "progress=false", "report=false", *arguments]
        more = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        ranks = [
            subprocess.Popen(
                command,
                env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), **more},
                stdout=subprocess.DEVNULL,
            )
            for rank in range(world_size)
        ]
        cpu_seconds, peak_mib = 0.0, 0.0
        for rank in ranks:
            _, status, usage = os.wait4(rank.pid, 0)
            rank.returncode = os.waitstatus_to_exitcode(status)
            cpu_seconds = max(cpu_seconds, usage.ru_utime + usage.ru_stime)
            peak_mib = max(peak_mib, usage.ru_maxrss / 1024)
        if any(rank.returncode for rank in ranks):
            raise SystemExit(f"ranks ended with {[rank.returncode for rank in ranks]}")
        (record,) = Path(runs).rglob("rounds.jsonl")
        lines = [json.loads(line) for line in record.read_text().splitlines()]
        return min(sum(line["seconds"].values()) for line in lines[1:]), cpu_seconds, peak_mib


def main() -> None:
    """Print a table of samplers and ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--samplers", default="k_center,margin,badge")
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    folder = written(chosen.folder, chosen.rows, chosen.columns)
    print("| sampler | ranks | seconds a round | CPU seconds of a rank | peak of a rank, MiB |\n|---|---|---|---|---|")
    for sampler in chosen.samplers.split(","):
        for ranks in map(int, chosen.ranks.split(",")):
            arguments = [f"sampler={sampler}", "model.C=1", "start.n=100", "schedule.batch_size=200"]
            runs = [measured(folder, ranks, [*arguments, "schedule.budget=1700"]) for _ in range(chosen.repeats)]
            seconds, cpu_seconds, peak_mib = (min(of_runs) for of_runs in zip(*runs, strict=True))
            print(f"| {sampler} | {ranks} | {seconds:.2f} | {cpu_seconds:.1f} | {peak_mib:.0f} |", flush=True)


if __name__ == "__main__":
    main()
