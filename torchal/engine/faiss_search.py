"""What torchal asks of faiss; the only module that imports it."""

from __future__ import annotations

from types import ModuleType
from typing import Any

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


class ListIndex:
    """An `IndexIVFFlat`: rows in lists, each row in that of the nearest of some centres; squared distances, CPU.

    Args:
        training: rows that the centres are found among, by k-means; at least as many as lists.
        n_lists: how many centres.
        seed: of k-means.

    Shapes:
        training: (R, D) float32.
    """

    def __init__(self, training: Tensor, n_lists: int, seed: int) -> None:
        library = load()
        n_columns = training.shape[1]
        self.n_lists = n_lists
        self._parameters: type = library.SearchParametersIVF
        # the index does not keep what it is made of alive
        self._quantizer: Any = library.IndexFlatL2(n_columns)
        self._index: Any = library.IndexIVFFlat(self._quantizer, n_columns, n_lists, library.METRIC_L2)
        self._index.cp.seed = seed
        self._index.cp.min_points_per_centroid = 1  # or faiss writes to the terminal where rows are few
        self._index.train(training.numpy())

    def add(self, x: Tensor) -> None:
        """Copy rows (R, D) float32 into the lists; they are numbered as they come."""
        self._index.add(x.numpy())

    def nearest(self, x: Tensor, k: int, n_probes: int) -> Tensor:
        """Return the k rows nearest to each row of x (R, D) in so many lists, (R, k), with -1 for none."""
        _, rows = self._index.search(x.numpy(), k, params=self._parameters(nprobe=n_probes))
        return torch.from_numpy(rows)
