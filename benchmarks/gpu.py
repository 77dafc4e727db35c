"""The table of a GPU: `python -m benchmarks.gpu --device cuda --out benchmarks/results`, or `make gpu` with the tests.

Every work has a time limit of its own, and the table is written after each row, so that a run that is cut off leaves
what it has measured. The works run in a process beside this one, which is begun anew where a work outlasts its limit.
It needs torch, numpy, scipy, scikit-learn, tqdm and filelock; where torchvision is missing, its work says so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks import harness
from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered, gaussian, plain_euclidean
from benchmarks.kmeans import plain_draws
from benchmarks.networks import RMSPROP, plain_loop
from benchmarks.run import BENCHMARKS
from torchal.functional import density_graph, graph_density_greedy, k_center_greedy, kmeans_plus_plus, knn_graph
from torchal.models import LogisticRegression, SmallCNN, TorchClassifier, TorchvisionNet

ROOT = Path(__file__).parents[1]
_STRATEGIES = (
    *("badge", "bald", "batch_bald", "epig", "bait", "alfa_mix", "drop_query"),
    *("expected_error", "gradient_length", "contrastive"),
)
GRID = [10.0**i for i in range(-4, 5)]


class Work(NamedTuple):
    """What is measured, and how long it may take, everything included."""

    rows: Callable[[bool, str], Iterator[Row]]
    limit_seconds: float


def _k_center(tiny: bool, device: str, *, make: Any, shape: tuple[int, int], n: int) -> Iterator[Row]:
    n_rows, n_columns, n = (600, 16, 20) if tiny else (*shape, n)
    features = make(n_rows, n_columns)(torch.device(device))
    large = n_rows > 10**6
    n_plain = n if not large else 500
    plain = "plain loop, one pass a pick" + (f", first {n_plain} of them" if n_plain < n else "")
    centers = features[:n]
    ours = k_center_greedy(features, n).indices
    # without labels, ours begins with the row farthest from the mean
    first = torch.zeros(n_rows, dtype=torch.bool, device=device)
    first[ours[0]] = True
    picks = plain_euclidean_from(features, n_plain, int(ours[0]))
    note = f"{int((ours[:n_plain].cpu() == picks.cpu()).sum())} of {n_plain} picks as the plain loop's"
    if not large:
        on_cpu = k_center_greedy(features.cpu(), n).indices
        note += f", {int((ours.cpu() == on_cpu).sum())} of {n} as the CPU's"
    yield from compare(
        f"k-center {make.__name__} {n_rows} x {n_columns}, {n} picks",
        {
            "ours": lambda: k_center_greedy(features, n),
            "one fp32 matrix product of all rows and picks": partial(_in_parts, features, centers),
            plain: partial(plain_euclidean_from, features, n_plain, int(ours[0])),
        },
        repeats=1 if large else 5,
        device=device,
        once=[plain] if large else [],
        notes={"ours": note},
    )


def plain_euclidean_from(x: Tensor, n: int, first: int) -> Tensor:
    """Pick with one matrix-vector product per centre, beginning with a row."""
    return torch.cat([torch.tensor([first]), plain_euclidean(torch.cat([x[first : first + 1], x]), n - 1, 1).cpu() - 1])


def _in_parts(x: Tensor, centers: Tensor) -> None:
    """Multiply in parts of at most 2^28 numbers, as the whole result may not fit."""
    for part in x.split(max(1, (1 << 28) // len(centers))):
        torch.mm(part, centers.T)


def _kmeans_plus_plus(tiny: bool, device: str) -> Iterator[Row]:
    n_rows, n_columns, n = (600, 16, 20) if tiny else (50_000, 512, 1000)
    for make in (gaussian, clustered):
        x = make(n_rows, n_columns)(torch.device(device))
        draws = partial(_draws, x, n)
        same = int((draws().cpu() == _draws(x.cpu(), n)).sum())
        yield from compare(
            f"k-means++ {make.__name__} {n_rows} x {n_columns}, {n} draws",
            {
                "ours": draws,
                "one fp32 matrix product of all rows and draws": partial(torch.mm, x, x[:n].T),
                "plain loop, one pass a draw": partial(plain_draws, x, n),
            },
            repeats=3,
            device=device,
            notes={"ours": f"{same} of {n} draws as the CPU's"},
        )


def _draws(x: Tensor, n: int) -> Tensor:
    """Draw with random numbers of the CPU, so that every device gets the same."""
    return kmeans_plus_plus(x, n, generator=torch.Generator().manual_seed(0)).indices


def _neighbors(tiny: bool, device: str) -> Iterator[Row]:
    n_rows, n_columns = (600, 16) if tiny else (1_000_000, 512)
    x = gaussian(n_rows, n_columns)(torch.device(device))
    few = x[: min(n_rows, 20_000)]
    same = (knn_graph(few, 10, backend="torch").indices.cpu() == knn_graph(few.cpu(), 10, backend="torch").indices).all(
        1
    )
    size = min(n_rows, 16_384)

    def products() -> None:
        for begin in range(0, n_rows, size):
            for other in range(begin, n_rows, size):
                torch.mm(x[begin : begin + size], x[other : other + size].T)

    yield from compare(
        f"exact 10-NN graph {n_rows} x {n_columns}",
        {"ours": lambda: knn_graph(x, 10, backend="torch"), "one fp32 matrix product of all pairs": products},
        repeats=1,
        device=device,
        once=["ours", "one fp32 matrix product of all pairs"],
        notes={"ours": f"of the first {len(few)} rows alone, {int(same.sum())} have the neighbours that the CPU finds"},
    )


def _density(tiny: bool, device: str) -> Iterator[Row]:
    n_rows, n_columns, n = (600, 8, 20) if tiny else (100_000, 64, 1000)
    x = gaussian(n_rows, n_columns)(torch.device(device))
    few, n_few = x[: min(n_rows, 10_000)], min(n, 500)

    def ours(rows: Tensor, n: int) -> Tensor:
        return graph_density_greedy(density_graph(rows, backend="torch"), n).indices

    same = int((ours(few, n_few).cpu() == ours(few.cpu(), n_few)).sum())
    yield from compare(
        f"graph density {n_rows} x {n_columns}, graph and {n} picks",
        {"ours": lambda: ours(x, n), "the graph alone": lambda: density_graph(x, backend="torch")},
        repeats=3,
        device=device,
        notes={"ours": f"of the first {len(few)} rows alone, {same} of {n_few} picks as the CPU's"},
    )


def _logistic(tiny: bool, device: str) -> Iterator[Row]:
    from sklearn.linear_model import LogisticRegression as SklearnLogisticRegression
    from sklearn.model_selection import GridSearchCV

    n_trials, n, grid = (2, 60, GRID[3:6]) if tiny else (10, 1000, GRID)
    warnings.simplefilter("ignore")  # of scikit-learn: classes of few rows, and fits that stop before the optimum
    x, y, source = _letters(n_trials * n)
    inputs = torch.tensor(x.reshape(n_trials, n, -1), device=device)
    targets = torch.tensor(y.reshape(n_trials, n), device=device)

    def fitted(on: str) -> list[LogisticRegression]:
        return LogisticRegression(C=grid, device=on).fit_many(inputs.to(on), targets.to(on))

    def theirs() -> None:
        for rows, labels in zip(x.reshape(n_trials, n, -1), y.reshape(n_trials, n), strict=True):
            GridSearchCV(SklearnLogisticRegression(max_iter=200), {"C": grid}, cv=3).fit(rows, labels)

    pairs = list(zip(fitted(device), fitted("cpu"), strict=True))
    same = sum(float(a.C_) == float(b.C_) for a, b in pairs)
    apart = max(float((a.module_.weight.cpu() - b.module_.weight).abs().max().detach()) for a, b in pairs)
    yield from compare(
        f"logistic regression with its grid of {len(grid)}, {n_trials} x {n} rows of {source}",
        {
            "ours": partial(fitted, device),
            "ours, on the CPU": partial(fitted, "cpu"),
            "GridSearchCV, one by one": theirs,
        },
        repeats=3,
        device=device,
        once=["ours, on the CPU", "GridSearchCV, one by one"],
        notes={"ours": f"C as the CPU's in {same} of {n_trials}, weights within {apart:.1e}"},
    )


def _letters(n: int) -> tuple[Any, Any, str]:
    """Return rows of letter, or of a made problem of its shape where its file is not there."""
    file = Path(os.environ.get("TORCHAL_DATA", ROOT / "../shared/data")) / "letter" / "letter-recognition.data"
    if file.exists():
        table = np.loadtxt(file, delimiter=",", dtype=str, skiprows=1)
        table = table[np.random.RandomState(0).permutation(len(table))[:n]]
        x = table[:, 1:].astype(np.float64)
        return (x - x.mean(0)) / x.std(0), np.unique(table[:, 0], return_inverse=True)[1], "letter"
    from sklearn.datasets import make_classification

    x, y = make_classification(
        n, 16, n_informative=16, n_redundant=0, n_classes=26, n_clusters_per_class=1, random_state=0
    )
    return x, y, "a made problem (16 columns, 26 classes)"


def _small_cnn(tiny: bool, device: str) -> Iterator[Row]:
    x, y = _images(64 if tiny else 10_000, device)
    yield from compare(
        f"small_cnn, 1 epoch, {len(x)} images of noise, batch 32",
        {
            "ours": partial(TorchClassifier(SmallCNN, optimizer=RMSPROP, epochs=1, device=device).fit, x, y),
            "plain loop": partial(plain_loop, partial(SmallCNN, (1, 28, 28), 10), RMSPROP, x, y, epochs=1),
        },
        repeats=3,
        device=device,
    )


def _resnet18(tiny: bool, device: str) -> Iterator[Row]:
    name = "resnet18 (small stem), 1 epoch, batch 256"
    if find_spec("torchvision") is None:
        yield Row(name, "ours", math.nan, math.nan, "not measured: torchvision is not installed")
        return
    x, y = _images(32 if tiny else 10_000, device)
    recipe = partial(TorchvisionNet, (1, 28, 28), 10, name="resnet18", small_images=True)
    optimizer, size = partial(torch.optim.AdamW, fused=True), 16 if tiny else 256
    ours = TorchClassifier(recipe, epochs=1, device=device, deterministic=False, optimizer=optimizer, batch_size=size)
    yield from compare(
        f"{name}, {len(x)} images of noise",
        {
            "ours": partial(ours.fit, x, y),
            "plain loop": partial(plain_loop, recipe, optimizer, x, y, epochs=1, batch_size=size),
        },
        repeats=3,
        device=device,
    )


def _ten_cnns(tiny: bool, device: str) -> Iterator[Row]:
    n_trials, n = (2, 32) if tiny else (10, 1000)
    x, y = _images(n_trials * n, device)
    x, y = x.view(n_trials, n, 1, 28, 28), y.view(n_trials, n)
    model = TorchClassifier(SmallCNN, optimizer=RMSPROP, epochs=1, device=device)

    def one_by_one() -> None:
        for rows, labels in zip(x, y, strict=True):
            model.fit(rows, labels)

    yield from compare(
        f"fit_many, {n_trials} small_cnns, {n} images each",
        {"ours": lambda: model.fit_many(x, y), "one after another": one_by_one},
        repeats=3,
        device=device,
    )


def _of_run(tiny: bool, device: str, *, name: str) -> Iterator[Row]:
    """Measure what `benchmarks.run` measures under this name."""
    yield from BENCHMARKS[name].rows("small" if tiny else "medium", device)


def _images(n: int, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 1, 28, 28, generator=generator).to(device), (torch.arange(n) % 10).to(device)


WORKS = {
    "k_center": Work(partial(_k_center, make=gaussian, shape=(50_000, 512), n=1000), 30),
    "k_center_clustered": Work(partial(_k_center, make=clustered, shape=(50_000, 512), n=1000), 30),
    "k_center_large": Work(partial(_k_center, make=clustered, shape=(1_280_000, 2048), n=12_800), 90),
    "kmeans_plus_plus": Work(_kmeans_plus_plus, 40),
    "density": Work(_density, 60),
    "logistic": Work(_logistic, 60),
    "small_cnn": Work(_small_cnn, 40),
    "ten_cnns": Work(_ten_cnns, 40),
    "resnet18": Work(_resnet18, 40),
    **{name: Work(partial(_of_run, name=name), 40) for name in _STRATEGIES},
    "neighbors": Work(_neighbors, 100),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the table as JSON and markdown. Return 1 where a work failed or outlasted its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, ...; cpu tries the script")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ROOT / "benchmarks" / "results")))
    parser.add_argument("--only", choices=list(WORKS), nargs="+", default=list(WORKS))
    parser.add_argument("--tiny", action="store_true", help="a size for trying the script")
    parser.add_argument("--seconds", type=float, default=300, help="of all works together")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.worker:
        _work(options.only, options.tiny, options.device)
        return 0
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("error: there is no CUDA device; --device cpu --tiny tries the script")
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    table = Table(options.out, machine(options.device))
    table.write()
    ends = time.monotonic() + options.seconds
    left, failed = list(options.only), False
    while left:
        left, well = _supervise(left, options, table, ends)
        failed = failed or not well
    print(f"the table is in {table.path.with_suffix('.md')}")
    return int(failed)


def machine(device: str) -> dict[str, Any]:
    """Return what the figures depend on."""
    cuda = device.startswith("cuda")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "memory_gib": round(torch.cuda.get_device_properties(device).total_memory / 2**30, 1) if cuda else None,
        "cuda": torch.version.cuda,
        "cpu_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


class Table:
    """What was measured so far, on disk after each row."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.path = folder / f"gpu-{about['device'].replace(' ', '-').lower()}-{about['date']}.json"
        self._about = about
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Take one more row."""
        # NaN, of what was not measured, is no JSON
        row = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        self.rows.append(row)
        self.write()
        print(_line(row), flush=True)

    def write(self) -> None:
        """Write both files."""
        self.path.write_text(json.dumps({"machine": self._about, "rows": self.rows}, indent=2) + "\n")
        head = ", ".join(f"{name} {value}" for name, value in self._about.items() if value is not None)
        lines = [
            "| work | who | ms | times ours | peak MiB | note |",
            "|---|---|---|---|---|---|",
            *map(_line, self.rows),
        ]
        self.path.with_suffix(".md").write_text(f"{head}; `make gpu`\n\n" + "\n".join(lines) + "\n")


def _line(row: dict[str, Any]) -> str:
    measured = row["seconds"] is not None
    peak = "" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
    numbers = (f"{row['seconds'] * 1e3:.2f}", f"{row['times_ours']:.2f}") if measured else ("", "")
    return f"| {row['work']} | {row['who']} | {numbers[0]} | {numbers[1]} | {peak} | {row['note']} |"


def _work(names: Sequence[str], tiny: bool, device: str) -> None:
    """Do the works, with one line of JSON on standard output for each row, and one for the end of each work."""
    if tiny:
        harness.PAUSE = 0.0  # nothing is measured
    for name in names:
        note = ""
        try:
            for row in WORKS[name].rows(tiny, device):
                print(json.dumps({"row": asdict(row)}), flush=True)
        except Exception as error:
            note = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            import traceback

            traceback.print_exc()
        print(json.dumps({"done": name, "note": note}), flush=True)
        if device.startswith("cuda"):
            torch.cuda.empty_cache()


def _supervise(names: list[str], options: argparse.Namespace, table: Table, ends: float) -> tuple[list[str], bool]:
    """Have a process do the works; return those left once one outlasted its limit, and whether all went well."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--worker", "--device", options.device, "--only", *names]
    process = subprocess.Popen(
        [*command, "--tiny"] if options.tiny else command, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None

    def read(out: IO[str]) -> None:
        for line in out:
            lines.put(line)
        lines.put("")

    reading = threading.Thread(target=read, args=(process.stdout,))
    reading.start()
    left, well = list(names), True
    try:
        while left:
            limit = min(time.monotonic() + WORKS[left[0]].limit_seconds + 30 * (left == names), ends)
            while True:
                try:
                    line = lines.get(timeout=max(0.0, limit - time.monotonic()))
                except queue.Empty:
                    line = None
                said = json.loads(line) if line else {}
                if "row" in said:
                    table.add(said["row"])
                    continue
                note = said.get("note", "the process ended" if line == "" else "outlasted its time limit")
                if note:
                    well = False
                    table.add(asdict(Row(left[0], "ours", math.nan, math.nan, note)))
                left.pop(0)
                break
            if not said:
                break
            if time.monotonic() > ends and left:
                break
    finally:
        process.kill()
        process.wait()
        reading.join()
        process.stdout.close()
    if left and time.monotonic() >= ends:
        for name in left:
            table.add(asdict(Row(name, "ours", math.nan, math.nan, "not measured: no time was left")))
        return [], False
    return left, well


if __name__ == "__main__":
    sys.exit(main())
