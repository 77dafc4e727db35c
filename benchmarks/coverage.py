"""Probability coverage against the paper's algorithm on a matrix of all distances, and the products it starts from."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered
from torchal.functional import prob_cover, purity_radius

SIZES = {"small": (1000, 32, 50), "medium": (5000, 512, 100), "large": (20_000, 512, 1000)}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the picks at the radius that purity gives, and the search for that radius."""
    n_rows, n_columns, n = SIZES[size]
    x = clustered(n_rows, n_columns)(torch.device(device))

    def search() -> float:
        return purity_radius(x, n_clusters=10, generator=torch.Generator().manual_seed(0))

    radius = search()
    part = max(64, (1 << 22) // n_rows)

    def products() -> None:
        for start in range(0, n_rows, part):
            torch.mm(x[start : start + part], x[start:].T)  # each pair once

    same = prob_cover(x, n, radius=radius).indices.tolist() == plain(x, n, radius)
    yield from compare(
        f"prob_cover {n_rows} x {n_columns}, {n} picks",
        {
            "ours": lambda: prob_cover(x, n, radius=radius),
            "floor: one product of each pair": products,
            "plain loop, all distances": lambda: plain(x, n, radius),
        },
        repeats=3,
        device=device,
        notes={"ours": "the same picks" if same else "OTHER PICKS"},
    )
    yield from compare(f"purity radius {n_rows} x {n_columns}", {"ours": search}, repeats=3, device=device)


def plain(x: Tensor, n: int, radius: float) -> list[int]:
    """Pick with one count of a matrix N x N per pick."""
    near = torch.cdist(x, x) < radius
    picked = []
    for _ in range(n):
        row = int(near.sum(1).argmax())
        picked.append(row)
        near[:, near[row].clone()] = False
    return picked
