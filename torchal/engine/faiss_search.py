"""What torchal asks of faiss; the only module that imports it."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from torchal._checks import check_installed


def load() -> ModuleType:
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
    library = load()
    distances, _ = library.knn(a.numpy(), b.numpy(), 1, metric=library.METRIC_L1)
    return torch.from_numpy(distances).squeeze(1)


def nearest_rows(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return squared euclidean distances from each row of x (N, D) to the k nearest, itself included, and which."""
    library = load()
    if x.device.type == "cpu":
        distances, rows = library.knn(x.numpy(), x.numpy(), k)
        return torch.from_numpy(distances), torch.from_numpy(rows)
    import faiss.contrib.torch_utils  # noqa: F401 - lets faiss read and write tensors where they are

    distances, rows = library.knn_gpu(library.StandardGpuResources(), x, x, k)
    return distances, rows


def l1_pairwise(a: Tensor, b: Tensor) -> Tensor:
    """Return manhattan distances between the rows of a (A, D) and of b (B, D), (A, B); CPU, float32."""
    library = load()
    distances: Tensor = torch.from_numpy(library.pairwise_distances(a.numpy(), b.numpy(), metric=library.METRIC_L1))
    return distances
