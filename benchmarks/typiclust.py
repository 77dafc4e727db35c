"""TypiClust against one distance matrix for each cluster, and what k-means alone takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered
from torchal.functional import kmeans, typical_rows, typiclust

SIZES = {"small": (2000, 32, 20), "medium": (10_000, 512, 100), "large": (1_000_000, 64, 1000)}
MOST = 500


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the whole, then the picks from clusters that are given."""
    n_rows, n_columns, n = SIZES[size]
    x = clustered(n_rows, n_columns)(torch.device(device))
    k = min(n, MOST)
    clusters = kmeans(x, k, generator=_seeded(), max_iterations=20).assignments
    yield from compare(
        f"TypiClust, {n_rows} x {n_columns}, {n} picks",
        {
            "ours": lambda: typiclust(x, n, generator=_seeded()),
            "floor: k-means": lambda: kmeans(x, k, generator=_seeded(), max_iterations=20),
        },
        repeats=1 if size == "large" else 5,
        device=device,
    )
    yield from compare(
        f"typical rows of {k} clusters, {n_rows} x {n_columns}, {n} picks",
        {
            "ours": lambda: typical_rows(x, n, clusters=clusters),
            "plain: a distance matrix a cluster": lambda: plain(x, n, clusters),
        },
        repeats=1 if size == "large" else 5,
        device=device,
        once=["plain: a distance matrix a cluster"] if size == "large" else [],
    )


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def plain(x: Tensor, n: int, clusters: Tensor) -> list[int]:
    """Go round the clusters, the largest first; measure all distances inside the cluster of each pick."""
    order = clusters.bincount().argsort(descending=True).tolist()
    picked: list[int] = []
    taken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for i in range(n):
        members = (clusters == order[i % len(order)]).nonzero().squeeze(1)
        near = torch.cdist(x[members], x[members]).topk(min(21, len(members)), largest=False).values
        means = near.sum(1).masked_fill_(taken[members], torch.inf)
        row = members[means.argmin()]
        taken[row] = True
        picked.append(int(row))
    return picked
