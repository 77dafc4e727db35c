"""Cluster-Margin: clusters of average linkage against scikit-learn's, and the picks against the loop of turns."""

from __future__ import annotations

import random
from collections.abc import Iterator

import torch
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered
from torchal.functional import cluster_margin, hac_clusters

SIZES = {"small": (2000, 32, 100), "medium": (10_000, 64, 1000), "large": (1_000_000, 64, 1000)}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the clusters, which are made once, then the picks of a round."""
    n_rows, n_columns, n = SIZES[size]
    x = clustered(n_rows, n_columns)(torch.device(device))
    clusters = hac_clusters(x, generator=_seeded())
    held = x.cpu().numpy()
    alternatives = {"ours": lambda: hac_clusters(x, generator=_seeded())}
    if size != "large":
        alternatives["scikit-learn"] = lambda: AgglomerativeClustering(n_rows // 10, linkage="average").fit(held)
    work = f"average linkage, {n_rows} x {n_columns}, ten rows a cluster"
    yield from compare(work, alternatives, repeats=1 if size == "large" else 3, device=device)
    scores = torch.rand(n_rows, generator=_seeded()).to(device)
    yield from compare(
        f"Cluster-Margin with clusters, {n_rows} rows, {n} picks",
        {
            "ours": lambda: cluster_margin(scores, clusters, n, generator=_seeded()),
            "plain: a loop of turns": lambda: plain(scores, clusters, n),
        },
        repeats=5,
        device=device,
    )


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def plain(scores: Tensor, clusters: Tensor, n: int) -> list[int]:
    """Go round the clusters of the ten n rows with the highest scores, the smallest first, and take one of each."""
    best = scores.topk(min(10 * n, len(scores))).indices
    members: dict[int, list[int]] = {}
    for row, cluster in zip(best.tolist(), clusters[best].tolist(), strict=True):
        members.setdefault(cluster, []).append(row)
    left = sorted(members.values(), key=len)
    picked: list[int] = []
    rng = random.Random(0)
    while len(picked) < n:
        for rows_left in left:
            picked.append(rows_left.pop(rng.randrange(len(rows_left))))
            if len(picked) == n:
                break
        left = [rows_left for rows_left in left if rows_left]
    return picked
