"""MaxDist and LCMD by features and by gradients, against plain loops of one distance row a pick."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered
from torchal.functional import lcmd, max_dist

SIZES = {"small": (2000, 32, 10, 50), "medium": (50_000, 512, 10, 200), "large": (1_000_000, 64, 10, 1000)}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time both rules in both spaces, with 100 labeled rows."""
    n_rows, n_columns, n_classes, n = SIZES[size]
    x = clustered(n_rows, n_columns)(torch.device(device))
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(n_columns, n_classes, generator=generator).to(device) / n_columns**0.5
    log_probs = (x @ weight).log_softmax(1)
    labeled = torch.arange(n_rows, device=device) < 100
    once = ["plain: one pass a pick"] if size == "large" else []
    for name, rule in (("MaxDist", max_dist), ("LCMD", lcmd)):
        yield from compare(
            f"{name}, {n_rows} x {n_columns}, {n} picks",
            {
                "ours": partial(rule, x, n, labeled=labeled),
                "plain: one pass a pick": partial(plain, x, n, labeled, largest=name == "LCMD"),
            },
            repeats=1 if size == "large" else 3,
            device=device,
            once=once,
        )
        yield from compare(
            f"{name} by gradients, {n_rows} x ({n_columns} + {n_classes}), {n} picks",
            {"ours": partial(rule, x, n, log_probs=log_probs, labeled=labeled)},
            repeats=1 if size == "large" else 3,
            device=device,
        )


def plain(x: Tensor, n: int, labeled: Tensor, *, largest: bool) -> list[int]:
    """Measure all distances from each centre; pick the farthest row, or that of the largest cluster."""
    sq = (x * x).sum(1)
    values = torch.where(labeled, -torch.inf, torch.inf)
    cluster = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    picked: list[int] = []
    centers = labeled.nonzero().squeeze(1).tolist()
    for i in range(len(centers) + n):
        if i >= len(centers):
            wanted = values
            if largest:
                sums = cluster.bincount(values.clamp(min=0), minlength=i)
                wanted = torch.where(cluster == sums.argmax(), values, -torch.inf)
            picked.append(int(wanted.argmax()))
        row = centers[i] if i < len(centers) else picked[-1]
        found = (sq + sq[row] - 2 * (x @ x[row])).clamp_(min=0)
        nearer = found < values
        values = torch.where(nearer, found, values)
        values[row] = -torch.inf
        cluster = torch.where(nearer, i, cluster)
    return picked
