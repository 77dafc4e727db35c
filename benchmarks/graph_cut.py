"""Graph cut against its loop on normalized rows, and against passes over the rows alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered
from torchal.functional import graph_cut

SIZES = {"small": (2000, 32, 50), "medium": (50_000, 512, 200), "large": (1_000_000, 64, 200)}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the whole; the loop in float32 has gains that are rounded to a part in 10^7 of N."""
    n_rows, n_columns, n = SIZES[size]
    x = clustered(n_rows, n_columns)(torch.device(device))
    yield from compare(
        f"graph cut, {n_rows} x {n_columns}, {n} picks",
        {
            "ours": lambda: graph_cut(x, n),
            "plain loop, float32": lambda: plain(x, n),
            "floor: a pass a pick": lambda: passes(x, n),
        },
        repeats=1 if size == "large" else 3,
        device=device,
    )


def plain(x: Tensor, n: int) -> list[int]:
    """Keep all rows at length 1, and take each pick's similarities off the gains."""
    x = torch.nn.functional.normalize(x)
    gains = (x @ x.sum(0) + len(x)) / 2
    weight = len(x) / n
    picked = []
    for _ in range(n):
        row = int(gains.argmax())
        gains -= weight * (x @ x[row] + 1) / 2
        gains[row] = -torch.inf
        picked.append(row)
    return picked


def passes(x: Tensor, n: int) -> None:
    """Multiply all rows with one, n times."""
    for row in range(n):
        x @ x[row]
