"""Selection from files larger than the memory: `python -m benchmarks.hundred_million --folder SCRATCH --out FOLDER`.

Rows of normally distributed numbers are written to files in a scratch folder (12.8 GB for 100 million rows of 64 in
bfloat16; they are kept, and used again). Each work is then a process of its own that begins with none of them in the
system's cache. Its peak is the largest resident size that Linux saw, importing torch included, 0.7 GB of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torchal import FileRows, functional

_FILES = 4
_WRITTEN = 100_000  # rows made at once
_CLASSES = 10


@dataclass(frozen=True)
class Line:
    """A row of the table."""

    work: str
    n_rows: int
    seconds: float
    cpu_seconds: float
    """Of all threads; where this is less than the seconds, the disk was waited for."""
    passes: float
    """How often each row was read, on average."""
    gb_per_second: float
    """Bytes of rows that were read, by the time that all took."""
    peak_mib: float


def _picked(selection: functional.Selection) -> Tensor:
    return selection.indices


WORKS: dict[str, Callable[[FileRows, FileRows, int], Tensor]] = {
    "k-center": lambda x, _, n: _picked(functional.k_center_greedy(x, n)),
    "k-means++": lambda x, _, n: _picked(functional.kmeans_plus_plus(x, n, generator=_seeded())),
    "uniform": lambda x, _, n: _picked(
        functional.uniform(n, candidates=torch.ones(len(x), dtype=torch.bool), generator=_seeded())
    ),
    "margin": lambda _, p, n: _picked(functional.top_n(functional.margin(p), n)),
}


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def write(folder: Path, name: str, n_rows: int, make: Callable[[int, torch.Generator], Tensor]) -> list[Path]:
    """Return files with so many rows, written unless they are there: what make(n, generator) makes, (n, ...) each."""
    paths, width = [], make(1, _seeded()).nbytes
    for i in range(_FILES):
        begin, end = n_rows * i // _FILES, n_rows * (i + 1) // _FILES
        paths.append(folder / f"{name}-{n_rows}-{i}.bin")
        if paths[-1].exists() and paths[-1].stat().st_size == (end - begin) * width:
            continue
        with paths[-1].open("wb", buffering=0) as file:
            for start in range(begin, end, _WRITTEN):
                some = make(min(_WRITTEN, end - start), torch.Generator().manual_seed(start))
                file.write(some.view(torch.uint8).numpy().data)
            os.fsync(file.fileno())
    return paths


def forget(paths: Sequence[Path]) -> None:
    """Have the system drop what it has of files in its cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def reading(paths: Sequence[Path]) -> tuple[float, float]:
    """Return the seconds, and the GB a second, that it takes to read files once and do nothing else."""
    room = bytearray(1 << 22)
    forget(paths)
    started = time.perf_counter()
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(room):
                pass
    seconds = time.perf_counter() - started
    return seconds, sum(path.stat().st_size for path in paths) / seconds / 1e9


def measure(job: dict[str, Any]) -> Line:
    """Do one work, and return what it took."""
    dtype = getattr(torch, job["dtype"])
    x = FileRows(job["rows"], dtype, n_columns=job["n_columns"])
    log_probs = FileRows(job["log_probs"], torch.float16, n_columns=_CLASSES)
    n_read = n_bytes = 0
    read = FileRows.read_into

    def counted(rows: FileRows, room: Any, start: int) -> Tensor:
        nonlocal n_read, n_bytes
        n_read, n_bytes = n_read + len(room), n_bytes + room.nbytes
        return read(rows, room, start)

    FileRows.read_into = counted  # type: ignore[assignment,method-assign]
    cpu, started = time.process_time(), time.perf_counter()
    WORKS[job["work"]](x, log_probs, job["picks"])
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    work = f"{job['work']}, {job['picks']} picks"
    return Line(work, len(x), seconds, time.process_time() - cpu, n_read / len(x), n_bytes / seconds / 1e9, peak)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hundred_million", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--picks", type=int, default=1000)
    parser.add_argument("--only", choices=list(WORKS), nargs="+", default=list(WORKS))
    parser.add_argument("--folder", type=Path, help="scratch space for the rows")
    parser.add_argument("--out", type=Path, help="also write the table into this folder")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.job:
        print(json.dumps(asdict(measure(json.loads(options.job)))))
        return 0
    if options.folder is None:
        parser.error("--folder is needed: a scratch folder with room for the rows")
    dtype, n_columns = getattr(torch, options.dtype), options.columns
    paths = write(
        options.folder,
        f"{options.dtype}-{n_columns}",
        options.rows,
        lambda n, generator: torch.randn(n, n_columns, generator=generator).to(dtype),
    )
    probs = write(
        options.folder,
        "log_probs",
        options.rows if "margin" in options.only else 1,
        lambda n, generator: torch.randn(n, _CLASSES, generator=generator).log_softmax(1).half(),
    )
    seconds, gb_per_second = reading(paths)
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": f"{options.rows} x {n_columns} {options.dtype} in {_FILES} files",
        "reading them once": f"{seconds:.1f} s, {gb_per_second:.2f} GB/s",
    }
    head = ", ".join(f"{name} {value}" for name, value in about.items())
    lines = [head + "; `python -m benchmarks.hundred_million`", ""]
    lines += ["| work | rows | s | CPU s | passes | GB/s | peak MiB |", "|---|---|---|---|---|---|---|"]
    print(*lines, sep="\n", flush=True)
    table = []
    for work in options.only:
        forget([*paths, *probs])
        job = {"work": work, "dtype": options.dtype, "n_columns": n_columns, "picks": options.picks}
        job |= {"rows": [str(path) for path in paths], "log_probs": [str(path) for path in probs]}
        command = [sys.executable, "-m", "benchmarks.hundred_million", "--job", json.dumps(job)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        table.append(Line(**json.loads(done.stdout)))
        line = table[-1]
        lines.append(
            f"| {line.work} | {line.n_rows} | {line.seconds:.1f} | {line.cpu_seconds:.1f} | {line.passes:.1f} | "
            f"{line.gb_per_second:.2f} | {line.peak_mib:.0f} |"
        )
        print(lines[-1], flush=True)
    if options.out:
        path = options.out / f"hundred_million-{platform.machine()}-{about['date']}.md"
        path.write_text("\n".join(lines) + "\n")
        rows = [asdict(line) for line in table]
        path.with_suffix(".json").write_text(json.dumps({"machine": about, "rows": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
