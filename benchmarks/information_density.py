"""Information density: cosines by the mean of the rows, and widths over all pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.harness import Row, compare
from benchmarks.k_center import gaussian
from torchal.functional import information_density

SIZES = {"small": (5000, 32, 2000), "medium": (1_000_000, 64, 20_000), "large": (1_000_000, 64, 50_000)}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time cosines against one read of the rows, and the Gaussian of all pairs against the products it cannot avoid."""
    n_rows, n_columns, n_pairs = SIZES[size]
    x = gaussian(n_rows, n_columns)(torch.device(device))
    yield from compare(
        f"information density, cosine, {n_rows} x {n_columns}",
        {"ours": lambda: information_density(x), "floor: one product with a vector": lambda: x @ x[0]},
        repeats=3,
        device=device,
    )
    some = x[:n_pairs]

    def plain() -> None:
        for part in some.split(2048):
            (-torch.cdist(part, some).square() / n_columns).exp().mean(1)

    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: information_density(some, similarity="rbf"),
        "floor: half the products": lambda: [torch.mm(part, some[: n_pairs // 2].T) for part in some.split(2048)],
        "plain, cdist by chunks": plain,
    }
    yield from compare(f"information density, rbf, {n_pairs} x {n_columns}", candidates, repeats=1, device=device)
