"""K-means++ by rejection against one pass per draw, and k-means against scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import clustered, gaussian
from torchal.functional import kmeans, kmeans_plus_plus

SIZES = {"small": (2000, 32, 50), "medium": (50_000, 512, 1000), "large": (50_000, 512, 1000)}
CLUSTERS = {"small": (2000, 32, 10), "medium": (200_000, 64, 100), "large": (1_000_000, 64, 100)}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time draws, and Lloyd's iterations from the same start."""
    n_rows, n_columns, n = SIZES[size]
    for name, make in (("gaussian", gaussian), ("clustered ReLU", clustered)):
        x = make(n_rows, n_columns)(torch.device(device))
        yield from compare(
            f"k-means++ {name} {n_rows} x {n_columns}, {n} draws",
            {
                "ours": partial(our_draws, x, n),
                "floor: one mm, all draws": partial(torch.mm, x, x[:n].T),
                "plain loop, one pass a draw": partial(plain_draws, x, n),
            },
            repeats=5,
            device=device,
            once=["plain loop, one pass a draw"] if size != "small" else [],
        )
    n_rows, n_columns, k = CLUSTERS[size]
    x = clustered(n_rows, n_columns)(torch.device(device))
    inertia: dict[str, float] = {}

    def ours() -> None:
        clusters = kmeans(x, k, generator=torch.Generator().manual_seed(0), max_iterations=20, tolerance=0)
        inertia["ours"] = float(clusters.inertia)

    candidates: dict[str, Callable[[], object]] = {"ours": ours}
    if find_spec("sklearn") and device == "cpu":
        from sklearn.cluster import KMeans

        def theirs() -> None:
            start = kmeans_plus_plus(x, k, generator=torch.Generator().manual_seed(0)).indices
            fitted = KMeans(k, init=x[start].numpy(), n_init=1, max_iter=20, tol=0).fit(x.numpy())
            inertia["theirs"] = float(fitted.inertia_)

        candidates["scikit-learn's Lloyd, our start"] = theirs
        candidates["scikit-learn"] = lambda: KMeans(k, n_init=1, max_iter=20, tol=0, random_state=0).fit(x.numpy())
        ours()
        theirs()
    note = ", ".join(f"inertia {name} {value:.6g}" for name, value in inertia.items())
    work = f"k-means {n_rows} x {n_columns}, k={k}, 20 iterations"
    yield from compare(work, candidates, repeats=3, device=device, notes={"ours": note})


def our_draws(x: Tensor, n: int) -> Tensor:
    """Draw in blocks."""
    return kmeans_plus_plus(x, n, generator=torch.Generator().manual_seed(0)).indices


def plain_draws(x: Tensor, n: int) -> list[int]:
    """Draw with one matrix-vector product, and one `torch.multinomial`, per draw."""
    generator = torch.Generator(x.device).manual_seed(0)
    sq = (x * x).sum(1)
    nearest = torch.ones_like(sq)
    picked = []
    for step in range(n):
        pick = int(torch.multinomial(nearest, 1, generator=generator))
        picked.append(pick)
        far = (sq - 2 * (x @ x[pick]) + sq[pick]).clamp_(min=0)
        nearest = far if step == 0 else torch.minimum(nearest, far)
        nearest[pick] = 0
    return picked
