"""Contrastive examples against scikit-learn's neighbours and the divergences one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor

from benchmarks.alfa_mix import last_layer
from benchmarks.harness import Row, compare
from benchmarks.k_center import gaussian
from torchal.functional import contrastive, nearest_among

SIZES = {"small": (5000, 32, 100), "medium": (1_000_000, 64, 1000), "large": (1_000_000, 64, 10_000)}
PLAIN_SHARE = 20  # the plain way is timed on so small a part of the rows


def rows(size: str, device: str) -> Iterator[Row]:
    """Time the scores, the neighbours alone, and the product that finding them cannot do without."""
    n_rows, n_columns, n_labeled = SIZES[size]
    x = gaussian(n_rows, n_columns)(torch.device(device))
    weight, bias = last_layer(n_columns, device)
    log_probs = torch.nn.functional.linear(x, weight, bias).log_softmax(1)
    labeled = torch.arange(n_rows, device=device) < n_labeled

    def products() -> None:
        for part in x.split(max(64, (1 << 22) // n_labeled)):
            torch.mm(part, x[:n_labeled].T)

    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: contrastive(log_probs, x, labeled=labeled),
        "ours, neighbours alone": lambda: nearest_among(x, 10, among=labeled),
        "floor: the products": products,
    }
    if find_spec("sklearn") and device == "cpu":
        some = n_rows // PLAIN_SHARE
        candidates[f"plain, scikit-learn, 1/{PLAIN_SHARE} of the rows"] = lambda: plain(
            log_probs[:some], x[:some], labeled[:some]
        )
    yield from compare(
        f"contrastive, {n_rows} x {n_columns}, {n_labeled} labeled", candidates, repeats=3, device=device
    )


def plain(log_probs: Tensor, x: Tensor, labeled: Tensor) -> Tensor:
    """Return the scores with all R k C terms in memory."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=10).fit(x[labeled].numpy()).kneighbors(x.numpy(), return_distance=False)
    beside = log_probs[labeled][torch.from_numpy(near)]
    return (beside.exp() * (beside - log_probs.unsqueeze(1))).sum(2).mean(1)
