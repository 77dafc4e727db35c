"""Hierarchical k-means with resampling against its loop of whole k-means, and what assigning all rows alone takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered
from torchal.functional import balanced_sample, hierarchical_kmeans

SIZES = {"small": (2000, 32, (50, 10), 100), "medium": (50_000, 64, (500, 50), 1000)}
SIZES["large"] = (1_000_000, 64, (1000, 100), 1000)
RESAMPLES = 10


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the levels, with a floor of one product a resampling, then a sample."""
    n_rows, n_columns, sizes, n = SIZES[size]
    x = clustered(n_rows, n_columns)(torch.device(device))
    again = 1 if size == "large" else 3

    def floor() -> None:
        for _ in range(RESAMPLES + 1):
            for part in x.split(10_000):
                part @ x[: sizes[0]].T

    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: hierarchical_kmeans(x, sizes, generator=_seeded()),
        "floor: rows times centres, 11 times": floor,
    }
    if size != "large":
        candidates["plain: all distances, then argmin"] = lambda: plain(x, sizes)
    yield from compare(
        f"hierarchical k-means, {n_rows} x {n_columns}, {sizes} clusters, {RESAMPLES} resamplings",
        candidates,
        repeats=again,
        device=device,
    )
    levels = hierarchical_kmeans(x, sizes, generator=_seeded(), n_resamples=1)
    yield from compare(
        f"balanced sample, {n_rows} rows, {n} picks",
        {"ours": lambda: balanced_sample(levels, n, generator=_seeded())},
        repeats=5,
        device=device,
    )


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def plain(x: Tensor, sizes: tuple[int, ...]) -> list[Tensor]:
    """Run 20 of Lloyd's iterations from random rows, then resample as often and cluster again; level by level."""
    levels = []
    for k in sizes:
        centers = lloyd(x, x[torch.randperm(len(x), generator=_seeded())[:k].to(x.device)])
        near = min(20, len(x) // (2 * k))
        for _ in range(RESAMPLES if near > 1 else 0):
            values, assigned = torch.cdist(x, centers).min(1)
            some = [m[values[m].argsort()[:near]] for m in ((assigned == c).nonzero().squeeze(1) for c in range(k))]
            sampled = x[torch.cat(some)]
            centers = lloyd(sampled, sampled[torch.randperm(len(sampled), generator=_seeded())[:k].to(x.device)])
        levels.append(torch.cdist(x, centers).argmin(1))
        x = centers
    return levels


def lloyd(x: Tensor, centers: Tensor) -> Tensor:
    """Move centres to the means of their rows, 20 times."""
    for _ in range(20):
        assigned = torch.cdist(x, centers).argmin(1)
        counts = assigned.bincount(minlength=len(centers)).unsqueeze(1)
        centers = torch.zeros_like(centers).index_add_(0, assigned, x) / counts.clamp(min=1)
    return centers
