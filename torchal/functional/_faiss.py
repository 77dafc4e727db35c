"""What torchal asks of faiss; the only module that imports it."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from torchal._checks import check_installed


def faiss() -> ModuleType:
    """Return faiss.

    Raises:
        MissingExtraError: it is not installed.
    """
    check_installed("faiss", extra="faiss")
    import faiss

    module: ModuleType = faiss
    return module


def l1_nearest(a: Tensor, b: Tensor) -> Tensor:
    """Return the manhattan distance from each row of a (A, D) to the nearest row of b (B, D), (A,); CPU, float32."""
    library = faiss()
    distances, _ = library.knn(a.numpy(), b.numpy(), 1, metric=library.METRIC_L1)
    return torch.from_numpy(distances).squeeze(1)


def l1_pairwise(a: Tensor, b: Tensor) -> Tensor:
    """Return manhattan distances between the rows of a (A, D) and of b (B, D), (A, B); CPU, float32."""
    library = faiss()
    distances: Tensor = torch.from_numpy(library.pairwise_distances(a.numpy(), b.numpy(), metric=library.METRIC_L1))
    return distances
