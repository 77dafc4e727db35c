"""Nearest-neighbour graphs and graph density, against the Playground's algorithm and faiss as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Row, compare
from benchmarks.k_center import gaussian
from torchal.engine.distances import Backend
from torchal.functional import density_graph, graph_density_greedy, knn_graph

DENSITY = {"small": (600, 8, 50), "medium": (10_000, 64, 500), "large": (10_000, 64, 500)}
GRAPHS = {"small": [(2000, 16)], "medium": [(10_000, 64), (20_000, 512)], "large": [(20_000, 512), (1_000_000, 512)]}


def rows(size: str, device: str) -> Iterator[Row]:
    """Time graph and picks together; then the graph alone, of euclidean distances."""
    n_rows, n_columns, n = DENSITY[size]
    x = gaussian(n_rows, n_columns)(torch.device(device))

    def ours(backend: Backend) -> Tensor:
        return graph_density_greedy(density_graph(x, backend=backend), n).indices

    candidates: dict[str, Callable[[], object]] = {"ours": lambda: ours("auto")}
    if find_spec("faiss") and device == "cpu":
        candidates["ours, torch alone"] = lambda: ours("torch")
    if find_spec("sklearn") and device == "cpu":
        picks: list[list[int]] = []
        candidates["the Playground's algorithm"] = lambda: picks.append(playground(x, n))
    table = list(
        compare(
            f"graph density {n_rows} x {n_columns}, graph and {n} picks",
            candidates,
            repeats=5,
            device=device,
            once=["the Playground's algorithm"],
        )
    )
    if "the Playground's algorithm" in candidates:
        same = sum(a == b for a, b in zip(picks[0], ours("auto").tolist(), strict=True))
        table[0] = replace(table[0], note=f"{same} of {n} picks as the Playground's")
    yield from table
    for n_rows, n_columns in GRAPHS[size]:
        if n_rows * n_rows * n_columns > 10**13 and device == "cpu":
            continue
        yield from _graphs(n_rows, n_columns, device)


def _graphs(n_rows: int, n_columns: int, device: str) -> Iterator[Row]:
    x = gaussian(n_rows, n_columns)(torch.device(device))
    size = min(n_rows, 2048)

    def products() -> None:
        for part in x.split(size):
            for other in x.split(size):
                torch.mm(part, other.T)

    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: knn_graph(x, 10),
        "floor of both halves: all products": products,
    }
    if find_spec("faiss") and device == "cpu":
        import faiss

        candidates["faiss.knn, as it comes"] = lambda: faiss.knn(x.numpy(), x.numpy(), 11)
    yield from compare(f"exact 10-NN graph {n_rows} x {n_columns}", candidates, repeats=3, device=device)


def playground(x: Tensor, n: int) -> list[int]:
    """Pick as google/active-learning's graph_density.py does: one edge after another, then one pick after another."""
    from sklearn.metrics import pairwise_distances
    from sklearn.neighbors import kneighbors_graph

    features = x.numpy()
    graph = kneighbors_graph(features, 10, p=1).tolil()
    for i, j in zip(*graph.nonzero(), strict=True):
        distance = pairwise_distances(features[[i]], features[[j]], metric="manhattan")[0, 0]
        graph[i, j] = graph[j, i] = np.exp(-distance / features.shape[1])
    graph = graph.tocsr()
    values = np.array([graph[[i]].sum() / (graph[[i]] > 0).sum() for i in range(len(features))])
    picked: list[int] = []
    for _ in range(n):
        row = int(values.argmax())
        around = (graph[[row]] > 0).nonzero()[1]
        values[around] -= values[row]
        picked.append(row)
        values[picked] = values.min() - 1
    return picked
