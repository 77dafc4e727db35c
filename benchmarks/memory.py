"""What selections hold in memory beyond the features and the result, and selection from a file larger than that.

Each is a process of its own. Its peak is the largest resident size that Linux saw, mapped file pages included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Row
from torchal import UNLABELED, PoolView, functional, samplers
from torchal.protocols import HasPosterior

ROWS = {"small": 20_000, "medium": 1_000_000, "large": 1_000_000}
GRAPH_ROWS = {"small": 5000, "medium": 100_000, "large": 100_000}
STRATEGY_ROWS = {"small": 5000, "medium": 1_000_000, "large": 1_000_000}
PAIR_ROWS = {"small": 2000, "medium": 50_000, "large": 50_000}
# strategies that compare all pairs of rows
OF_PAIRS = ("graph_density", "prob_cover", "facility_location", "max_herding", "uncertainty_herding")
FILE = {"small": (50_000, 16), "medium": (5_000_000, 128), "large": (5_000_000, 128)}


_PICKS = {"bait": 100, "batch_bald": 100}  # which look at all rows, or all configurations, for each pick


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


WORKS: dict[str, Callable[[torch.Tensor], object]] = {
    "k-center, 1000 picks": lambda x: functional.k_center_greedy(x, 1000),
    "weighted k-center, 1000 picks": lambda x: functional.k_center_greedy(
        x, 1000, weights=torch.rand(len(x), generator=_seeded())
    ),
    "k-center manhattan, 100 picks": lambda x: functional.k_center_greedy(x, 100, metric="manhattan"),
    "product of utility and distance, 1000 picks": lambda x: functional.combined_greedy(
        1000, utilities=[x[:, 0].abs()], strengths=[1.0], features=x
    ),
    "graph cut, 100 picks": lambda x: functional.graph_cut(x, 100),
    "log-determinant, 1000 picks": lambda x: functional.log_det(x, 1000),
    "information density": functional.information_density,
    "neighbours of 1000 rows": lambda x: functional.neighbors_of(x, 10, rows=torch.arange(1000)),
    "k-means++, 1000 draws": lambda x: functional.kmeans_plus_plus(x, 1000, generator=_seeded()),
    "k-means, k=100, 5 iterations": lambda x: functional.kmeans(
        x, 100, generator=_seeded(), max_iterations=5, tolerance=0
    ),
}
GRAPHS: dict[str, Callable[[torch.Tensor], object]] = {
    "10-NN graph": lambda x: functional.knn_graph(x, 10),
    "10-NN graph, manhattan": lambda x: functional.knn_graph(x, 10, metric="manhattan"),
    "graph density, 500 picks": lambda x: functional.graph_density_greedy(functional.density_graph(x), 500),
}


# Refits need a model, and these views have none.
STRATEGIES: dict[str, Callable[[], samplers.Sampler]] = {
    name: partial(samplers.from_name, name) for name in samplers.names() if not name.startswith("simulate_batch")
} | {"margin_cluster_mean, every row inside": lambda: samplers.MarginClusterMean(inside="unit")}


def _view(n_rows: int, *, posterior: bool) -> PoolView:
    """Return a view of rows of 64 columns and ten classes, 100 of them labeled; with 20 posterior draws if asked to."""
    generator = _seeded()
    targets = torch.full((n_rows,), UNLABELED)
    targets[torch.randperm(n_rows, generator=generator)[:100]] = torch.arange(100) % 10
    features = torch.randn(n_rows, 64, generator=generator)
    weight, bias = 0.1 * torch.randn(10, 64, generator=generator), torch.zeros(10)
    scores = features @ weight.T
    draws = None
    if posterior:
        draws = torch.empty(n_rows, 20, 10)
        for start in range(0, n_rows, 50_000):  # without a second copy of all
            some = scores[start : start + 50_000]
            noise = 0.3 * torch.randn(len(some), 20, 10, generator=generator)
            draws[start : start + 50_000] = (some.unsqueeze(1) + noise).log_softmax(2)
    return PoolView.from_tensors(
        features=features,
        scores=scores,
        log_probs=scores.log_softmax(1),
        posterior_log_probs=draws,
        last_layer=(weight, bias),
        targets=targets,
        generator=generator,
    )


def _pick(name: str, view: PoolView) -> object:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* rows are more than max_leaves")
        return STRATEGIES[name]().select(view, min(_PICKS.get(name, 1000), len(view) // 10))


def rows(size: str, device: str) -> Iterator[Row]:
    """Measure each kernel at N rows of 64 columns; then k-center on a file, and on the same rows in memory; strategies.

    The strategies pick 1000 rows (BAIT and BatchBALD 100) with scores of ten classes, and 20 posterior draws where they
    read some, all given.
    """
    if not Path("/proc/self/clear_refs").exists() or device != "cpu":
        return
    for name in [*WORKS, *GRAPHS]:
        n_rows = (ROWS if name in WORKS else GRAPH_ROWS)[size]
        took = _measured({"work": name, "n_rows": n_rows})
        note = f"{took['beyond_mib']:.0f} MiB beyond the features"
        yield Row(f"{name}, {n_rows} x 64", "ours", took["seconds"], 1.0, note)
    n_rows, n_columns = FILE[size]
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        for start in range(0, n_rows, 50_000):
            some = min(50_000, n_rows - start)
            torch.randn(some, n_columns, generator=torch.Generator().manual_seed(start)).numpy().tofile(file)
        file.flush()
        job = {"file": file.name, "n_rows": n_rows, "n_columns": n_columns}
        turns = [(_measured({**job, "mapped": True}), _measured({**job, "mapped": False})) for _ in range(3)]
    mapped, held = (sorted(turn, key=lambda took: took["seconds"])[1] for turn in zip(*turns, strict=True))
    work = f"k-center from a file, {n_rows} x {n_columns}, 500 picks"
    same = "the same picks" if mapped["picks"] == held["picks"] else "OTHER PICKS"
    note = f"peak {mapped['peak_mib']:.0f} MiB in all, {same}"
    yield Row(work, "ours", mapped["seconds"], 1.0, note)
    note = f"peak {held['peak_mib']:.0f} MiB in all"
    yield Row(work, "ours, all in memory", held["seconds"], held["seconds"] / mapped["seconds"], note)
    for name in STRATEGIES:
        n_rows = (PAIR_ROWS if name in OF_PAIRS else STRATEGY_ROWS)[size]
        took = _measured({"strategy": name, "n_rows": n_rows})
        note = f"{took['beyond_mib']:.0f} MiB beyond what is given"
        yield Row(f"{name}, {n_rows} x 64, {_PICKS.get(name, 1000)} picks", "ours", took["seconds"], 1.0, note)


def _measured(job: dict[str, object]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", json.dumps(job)], check=True, capture_output=True, text=True
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Do one job, given as JSON, and print what it took."""
    job = json.loads(sys.argv[1])
    if "file" in job:
        shape = (job["n_rows"], job["n_columns"])
        with Path(job["file"]).open("rb", buffering=0) as file:  # the page cache is warm for both
            room = bytearray(1 << 22)
            while file.readinto(room):
                pass
        features: Any = np.memmap(job["file"], np.float32, "r", shape=shape)
        if not job["mapped"]:
            features = torch.from_numpy(np.fromfile(job["file"], np.float32).reshape(shape))
        labeled = torch.arange(shape[0]) < 100

        def work() -> object:
            return functional.k_center_greedy(features, 500, labeled=labeled)
    elif "strategy" in job:
        name = job["strategy"]
        posterior = STRATEGIES[name]().reads(HasPosterior)
        view = _view(job["n_rows"], posterior=posterior)
        _pick(name, _view(2000, posterior=posterior))  # libraries are loaded and threads started

        def work() -> object:
            return _pick(name, view)
    else:
        features = torch.randn(job["n_rows"], 64, generator=_seeded())
        kernel = (WORKS | GRAPHS)[job["work"]]
        kernel(features[:5000].clone())  # libraries are loaded and threads started

        def work() -> object:
            return kernel(features)

    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    peak = _resident("VmHWM")
    picks = result.indices.tolist() if "file" in job else []  # type: ignore[attr-defined]
    print(json.dumps({"seconds": seconds, "beyond_mib": peak - before, "peak_mib": peak, "picks": picks}))


def _resident(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(what)).split()[1]) / 1024


if __name__ == "__main__":
    main()
