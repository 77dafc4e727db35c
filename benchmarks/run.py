"""Run every benchmark into one table: `python -m benchmarks.run --size medium --device cpu --json table.json`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks import (
    alfa_mix,
    badge,
    bait,
    bald,
    batch_bald,
    classical,
    cluster_margin,
    combine,
    contrastive,
    coverage,
    density,
    determinant,
    drop_query,
    epig,
    expected_error,
    glister,
    gradient_length,
    graph_cut,
    hierarchical_kmeans,
    import_time,
    information_density,
    k_center,
    kmeans,
    lcmd,
    memory,
    networks,
    playground,
    submodular,
    trials,
    typiclust,
    uncertainty,
)

BENCHMARKS = {
    "import": import_time,
    "uncertainty": uncertainty,
    "bald": bald,
    "classical": classical,
    "k_center": k_center,
    "kmeans": kmeans,
    "badge": badge,
    "coverage": coverage,
    "determinant": determinant,
    "graph_cut": graph_cut,
    "submodular": submodular,
    "density": density,
    "combine": combine,
    "information_density": information_density,
    "alfa_mix": alfa_mix,
    "drop_query": drop_query,
    "gradient_length": gradient_length,
    "glister": glister,
    "contrastive": contrastive,
    "typiclust": typiclust,
    "cluster_margin": cluster_margin,
    "lcmd": lcmd,
    "hierarchical_kmeans": hierarchical_kmeans,
    "batch_bald": batch_bald,
    "epig": epig,
    "bait": bait,
    "expected_error": expected_error,
    "playground": playground,
    "memory": memory,
    "networks": networks,
    "trials": trials,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it as JSON where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--size", choices=["small", "medium", "large"], default="medium")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--only", choices=list(BENCHMARKS), nargs="+", default=list(BENCHMARKS))
    parser.add_argument("--json", type=Path, help="also write the table here")
    options = parser.parse_args(arguments)
    cuda = options.device.startswith("cuda")
    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(options.device) if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print("  ".join(f"{name}: {value}" for name, value in machine.items()))
    table = []
    for name in options.only:
        for row in BENCHMARKS[name].rows(options.size, options.device):
            table.append(asdict(row))
            line = f"{row.work:60} {row.who:34} {row.seconds * 1e3:10.2f} ms {row.times_ours:8.2f} x ours  {row.note}"
            print(line.rstrip(), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": table}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
