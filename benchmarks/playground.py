"""The Playground's strategies, against our own rewriting of its algorithms with their loops and lists as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.harness import Row, compare
from torchal import PoolView
from torchal.functional import cluster_tree
from torchal.functional.hierarchy import ClusterTree
from torchal.samplers import Hierarchical, InformativeDiverse, MarginClusterMean

TREE = {"small": (400, 8, 40), "medium": (10_000, 64, 500), "large": (10_000, 64, 500)}
MARGIN = {"small": (2000, 8, 50), "medium": (50_000, 64, 1000), "large": (50_000, 64, 1000)}
N_CLASSES = 10
N_LABELED = 100


def problem(n_rows: int, n_columns: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return features of ten classes that overlap, decision values, which rows are labeled, and all true labels."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, N_CLASSES, (n_rows,), generator=generator)
    centers = torch.randn(N_CLASSES, n_columns, generator=generator)
    x = centers[truth] + torch.randn(n_rows, n_columns, generator=generator)
    scores = x @ centers.T / n_columns - 0.5
    labeled = torch.zeros(n_rows, dtype=torch.bool)
    labeled[torch.randperm(n_rows, generator=generator)[:N_LABELED]] = True
    return x.to(device), scores.to(device), labeled.to(device), truth.to(device)


def rows(size: str, device: str) -> Iterator[Row]:
    """Time one round of each strategy."""
    if not find_spec("sklearn"):
        return
    yield from _tree_round(*TREE[size], device)
    yield from _margin_rounds(*MARGIN[size], device)


def _tree_round(n_rows: int, n_columns: int, n: int, device: str) -> Iterator[Row]:
    x, scores, _, truth = problem(n_rows, n_columns, device)
    tree = cluster_tree(x, generator=torch.Generator())
    labeled = torch.arange(n_rows, device=device) % 20 == 0  # what earlier rounds have bought
    targets = torch.where(labeled, truth, -1)
    sampler = Hierarchical(tree=tree)
    theirs = PlaygroundTree(tree)
    known = {row: int(truth[row]) for row in labeled.nonzero().squeeze(1).tolist()}

    def ours() -> Tensor:
        view = PoolView.from_tensors(features=x, scores=scores, targets=targets)
        return sampler.select(view, n).indices

    yield from compare(
        f"hierarchical {n_rows} x {n_columns}, a round of {n} after the tree",
        {"ours": ours, "the Playground's algorithm": lambda: theirs.select(known, n)},
        repeats=5,
        device=device,
        once=["the Playground's algorithm"],
    )


def _margin_rounds(n_rows: int, n_columns: int, n: int, device: str) -> Iterator[Row]:
    x, scores, labeled, _ = problem(n_rows, n_columns, device)
    view = PoolView.from_tensors(features=x, scores=scores, labeled=labeled)
    values, selected = scores.double().cpu().numpy(), labeled.nonzero().squeeze(1).tolist()
    diverse, representative = InformativeDiverse(), MarginClusterMean()
    clusters = diverse.clusters(view).cpu().numpy()
    picks: dict[str, list[Any]] = {"diverse": [], "mean": []}
    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: diverse.select(view, n),
        "the Playground's algorithm": lambda: picks["diverse"].append(
            playground_diverse(values, clusters, selected, n)
        ),
    }
    table = list(
        compare(f"informative_diverse {n_rows} x {n_columns}, {n} picks", candidates, repeats=5, device=device)
    )
    same = len(set(picks["diverse"][0]) & set(diverse.select(view, n).indices.tolist()))
    yield replace(table[0], note=f"{same} of {n} picks as the Playground's; clusters made before, as there")
    yield from table[1:]
    inside = int((representative.rows_inside(view) & view.candidates).sum())
    features = x.cpu().numpy()
    candidates = {
        "ours": lambda: representative.select(view, n),
        "the Playground's algorithm": lambda: picks["mean"].append(playground_mean(values, features, selected, n)),
    }
    table = list(
        compare(f"margin_cluster_mean {n_rows} x {n_columns}, {n} picks", candidates, repeats=3, device=device)
    )
    yield replace(
        table[0],
        note=f"{inside} rows inside; mean squared distance to the nearest pick "
        f"{spread(features, representative.select(view, n).indices.tolist(), values, selected):.2f}",
    )
    theirs = spread(features, picks["mean"][0], values, selected)
    yield replace(table[1], note=f"mean squared distance to the nearest pick {theirs:.2f}")


def spread(features: NDArray[Any], picks: list[int], values: NDArray[Any], selected: list[int]) -> float:
    """Return how far the rows inside the margin are from the nearest pick: the mean of squared distances."""
    reach = np.abs(values[selected]).min(0)
    inside = (np.abs(values) < reach).any(1)
    inside[selected] = False
    return float(
        torch.cdist(torch.from_numpy(features[inside]), torch.from_numpy(features[picks])).amin(1).square().mean()
    )


def by_margin(margins: NDArray[Any], selected: list[int]) -> list[int]:
    """Return rows that are not labeled, the smallest margin first."""
    return [i for i in np.argsort(margins, kind="stable") if i not in selected]


def margins_of(values: NDArray[Any]) -> NDArray[Any]:
    """Return the gap between the two largest values of each row."""
    two = np.sort(values, 1)[:, -2:]
    gaps: NDArray[Any] = two[:, 1] - two[:, 0]
    return gaps


def playground_diverse(values: NDArray[Any], clusters: NDArray[Any], selected: list[int], n: int) -> list[int]:
    """Pick as google/active-learning's informative_diverse.py does, row by row, once it has clusters."""
    ranked = by_margin(margins_of(values), selected)
    shares = np.bincount(clusters) / len(clusters)
    counts = [0] * len(shares)
    batch: list[int] = []
    for i in ranked:
        if len(batch) == n:
            break
        label = clusters[i]
        if counts[label] / n < shares[label]:
            batch.append(i)
            counts[label] += 1
    filler = list(set(ranked) - set(selected) - set(batch))
    return batch + filler[: n - len(batch)]


def playground_mean(values: NDArray[Any], features: NDArray[Any], selected: list[int], n: int) -> list[int]:
    """Pick as google/active-learning's represent_cluster_centers.py does, with scikit-learn's MiniBatchKMeans."""
    from sklearn.cluster import MiniBatchKMeans

    margins = margins_of(values)
    ranked = by_margin(margins, selected)
    sizes = np.abs(values)
    reach = sizes[selected].min(0)
    inside = np.array([i for i in range(len(values)) if i not in selected and any(sizes[i] < reach)])
    if len(inside) < n:
        return ranked[:n]
    far = MiniBatchKMeans(n_clusters=n, n_init=1, random_state=0).fit_transform(features[inside])
    chosen = sorted(inside[list(set(far.argmin(0)))], key=lambda i: margins[i])
    rest = [i for i in ranked if i not in chosen]
    return chosen + rest[: n - len(chosen)]


class PlaygroundTree:
    """google/active-learning's hierarchical_clustering_AL.py: one node after another, each over its leaves."""

    def __init__(self, tree: ClusterTree) -> None:
        n_leaves = tree.n_leaves
        self.n_leaves = n_leaves
        self.children: dict[int, list[int]] = {
            n_leaves + i: pair for i, pair in enumerate(tree.children.cpu().tolist())
        }
        self.parent = {child: node for node, pair in self.children.items() for child in pair}
        self.leaves = {leaf: [leaf] for leaf in range(n_leaves)}
        for node, (left, right) in self.children.items():
            self.leaves[node] = self.leaves[left] + self.leaves[right]
        self.root = 2 * n_leaves - 2

    def select(self, known: dict[int, int], n: int, beta: float = 2.0) -> list[int]:
        """Do one round from the root: scores bottom up, the pruning, and the draws."""
        rng = np.random.default_rng(0)
        classes = np.array(sorted(set(known.values())))
        probs: dict[int, tuple[int, NDArray[Any]]] = {}

        def share(node: int) -> tuple[int, NDArray[Any]]:
            labels = [known[c] for c in self.leaves[node] if c in known]
            if not labels:
                return 0, np.ones(len(classes)) / len(classes)
            unique, counts = np.unique(labels, return_counts=True)
            full = np.array([counts[np.where(unique == c)[0][0]] if c in unique else 0 for c in classes])
            return len(labels), full / len(labels)

        def bounds(node: int) -> tuple[NDArray[Any], NDArray[Any]]:
            count, p = share(node)
            if count == 0:
                return np.zeros(len(p)), np.ones(len(p))
            delta = 1 / count + np.sqrt(p * (1 - p) / count)
            return np.maximum(p - delta, 0), np.minimum(p + delta, 1)

        def admissible(node: int) -> NDArray[Any]:
            lower, upper = bounds(node)
            others = [min(1 - upper[c] for c in range(len(classes)) if c != i) for i in range(len(classes))]
            return 1 - lower < beta * np.array(others)

        score: dict[int, float] = {}
        split: dict[int, bool] = {}
        best: dict[int, int] = {self.root: 0}
        ever: dict[int, bool] = {}
        generation = set(range(self.n_leaves))
        while generation:
            parents = set()
            for node in generation:
                allowed = admissible(node)
                ever[node] = ever.get(node, False) or bool(allowed.any())
                probs[node] = share(node)
                error = np.where(admissible(node), 1 - probs[node][1], 1.0)
                label = int(error.argmin())
                if allowed[label]:
                    best[node] = label
                score[node], split[node] = float(error[label]), False
                if node >= self.n_leaves and allowed.any():
                    ancestors, at = [], node
                    while at != self.root:
                        at = self.parent[at]
                        ancestors.append(ever.get(at, False))
                    if all(ancestors):
                        left, right = self.children[node]
                        sizes = [len(self.leaves[v]) for v in (node, left, right)]
                        divided = sizes[1] / sizes[0] * score[left] + sizes[2] / sizes[0] * score[right]
                        if divided < score[node]:
                            score[node], split[node] = divided, True
                if node in self.parent:
                    parents.add(self.parent[node])
            generation = parents
        pruning, frontier = [], [self.root]
        while frontier:
            node = frontier.pop()
            if split[node]:
                for child in self.children[node]:
                    best.setdefault(child, best[node])
                    frontier.append(child)
            else:
                pruning.append(node)
        weights = np.array([len(self.leaves[v]) * (1 - bounds(v)[0][best[v]]) for v in pruning])
        weights = weights / weights.sum()
        batch: list[int] = []
        while len(batch) < n:
            node = int(rng.choice(pruning, p=weights))
            left_over = [c for c in self.leaves[node] if c not in known and c not in batch]
            if left_over:
                batch.append(int(rng.choice(left_over)))
        return batch
