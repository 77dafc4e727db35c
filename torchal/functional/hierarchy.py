"""Hierarchical sampling: a cluster tree as flat arrays, its bounds on the classes of each node, and its prunings.

A tree has K leaves, 0 to K - 1, and node K + i joins the two nodes `children[i]`; the last node is the root. A leaf is
one row of the pool, or several where the tree was built on a coarsening. The leaves below a node are a run of *places*,
so what lies below it is a difference of two prefix sums.
"""

from __future__ import annotations

import hashlib
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from torchal._checks import ArrayLike, as_integers, as_mask, as_row_labels, as_rows, check_budget, check_whole
from torchal._chunks import values_per_chunk
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional.selection import Selection, top_n


class ClusterTree:
    """A binary tree over the rows of a pool.

    Args:
        children: the two nodes that each inner node joins, as `children_` of scikit-learn's AgglomerativeClustering, or
            the first two columns of a scipy linkage.
        leaf_of: the leaf of each row, if a leaf may hold several; row i is leaf i unless given.

    Shapes:
        children: (K - 1, 2) int64; node K + i may join any nodes below K + i, each of them once.
        leaf_of: (N,) int64, each in [0, K).

    Raises:
        ShapeError: children is no such tree, or leaf_of has other leaves.

    Example:
        >>> ClusterTree(torch.tensor([[0, 1], [2, 3]])).sizes
        tensor([1, 1, 1, 2, 3])
    """

    children: Tensor
    """(K - 1, 2) int64."""
    leaf_of: Tensor
    """(N,) int64."""
    starts: Tensor
    """(2 K - 1,) int64, the first place below each node."""
    stops: Tensor
    """(2 K - 1,) int64, the place behind the last one."""
    sizes: Tensor
    """(2 K - 1,) int64, the rows below each node."""
    place_of: Tensor
    """(N,) int64, the place of each row's leaf."""

    def __init__(self, children: Tensor, leaf_of: Tensor | None = None) -> None:
        children = torch.as_tensor(children)
        if children.ndim != 2 or children.shape[1] != 2 or children.is_floating_point() or children.is_complex():
            raise ShapeError(f"children must be (K - 1, 2) integers, got {children.dtype} of {tuple(children.shape)}")
        self.children = children.to(torch.int64)
        device, n_leaves = children.device, len(children) + 1
        joined = self.children.flatten().sort().values
        behind = self.children.amax(1) >= n_leaves + torch.arange(n_leaves - 1, device=device)
        if not joined.equal(torch.arange(2 * n_leaves - 2, device=device)) or bool(behind.any()):
            raise ShapeError(
                f"children must name each of the nodes 0 to {2 * n_leaves - 3} once, and each before it is joined"
            )
        if leaf_of is None:
            leaf_of = torch.arange(n_leaves, device=device)
        self.leaf_of = as_integers("leaf_of", leaf_of).to(device)
        if not len(self.leaf_of):
            raise ShapeError(f"leaf_of must name the leaf of each row, got none for {n_leaves} leaves")
        rows_in = self.leaf_of.bincount(minlength=n_leaves) if int(self.leaf_of.min()) >= 0 else self.leaf_of[:0]
        if len(rows_in) != n_leaves:
            raise ShapeError(f"leaf_of must lie in [0, {n_leaves}), got {self.leaf_of.min()} to {self.leaf_of.max()}")
        counts, starts, sizes, heights = _walk(self.children.tolist(), rows_in.tolist())
        self.starts = torch.tensor(starts, device=device)
        self.stops = self.starts + torch.tensor(counts, device=device)
        self.sizes = torch.tensor(sizes, device=device)
        self.place_of = self.starts[self.leaf_of]
        self._heights = heights

    def __len__(self) -> int:
        """Return N, the number of rows."""
        return len(self.leaf_of)

    def __repr__(self) -> str:
        return f"ClusterTree(of {len(self)} rows in {self.n_leaves} leaves, {self.digest})"

    @cached_property
    def digest(self) -> str:
        """A few letters that tell different trees apart."""
        parts = (self.children, self.leaf_of)
        return hashlib.sha256(b"".join(part.cpu().numpy().tobytes() for part in parts)).hexdigest()[:8]

    @property
    def n_leaves(self) -> int:
        """K."""
        return len(self.children) + 1

    @property
    def n_nodes(self) -> int:
        """2 K - 1; the last one is the root."""
        return 2 * self.n_leaves - 1

    @property
    def has_single_rows(self) -> bool:
        """Whether row i is leaf i."""
        return self.leaf_of.equal(torch.arange(self.n_leaves, device=self.device))

    @property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return self.children.device

    @cached_property
    def levels(self) -> list[Tensor]:
        """The inner nodes, those first that join leaves: no node before both that it joins."""
        order = np.argsort(self._heights, kind="stable")
        bounds = np.flatnonzero(np.diff(np.asarray(self._heights)[order])) + 1
        return [torch.from_numpy(nodes).to(self.device) for nodes in np.split(order, bounds)[1:]]

    def joined_by(self, nodes: Tensor) -> Tensor:
        """Return the two nodes below each of some inner nodes (n,), (n, 2)."""
        return self.children[nodes - self.n_leaves]

    def to(self, device: torch.device) -> ClusterTree:
        """Return the tree on a device."""
        return self if device == self.device else ClusterTree(self.children.to(device), self.leaf_of)


def _walk(children: list[list[int]], rows_in: list[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return each node's number of leaves, first place, number of rows, and height; from leaves to root and back."""
    n_leaves = len(rows_in)
    counts, sizes, heights = [1] * n_leaves, list(rows_in), [0] * n_leaves
    for left, right in children:
        counts.append(counts[left] + counts[right])
        sizes.append(sizes[left] + sizes[right])
        heights.append(1 + max(heights[left], heights[right]))
    starts = [0] * len(counts)
    for i in range(len(children) - 1, -1, -1):
        left, right = children[i]
        starts[left] = starts[n_leaves + i]
        starts[right] = starts[left] + counts[left]
    return counts, starts, sizes, heights


class Pruning(NamedTuple):
    """Nodes that hold each row once, and what is known of the classes of all nodes.

    Shapes:
        nodes: (P,) int64, ascending.
        labels: (2 K - 1,) int64, the best label that was ever admissible for each node, or what it inherited; -1 where
            there is none yet.
    """

    nodes: Tensor
    labels: Tensor


class LabelCounts:
    """How many labels of each class lie below each node, as prefix sums over the places.

    Args:
        tree: the tree.
        targets: the label of each row, -1 where it is not known.
        n_classes: C.

    Shapes:
        targets: (N,) int64.

    Raises:
        ShapeError: targets disagree with the tree in rows, dtype or device.
        DataError: a target of at least n_classes.

    Complexity:
        K C numbers for K leaves.
    """

    def __init__(self, tree: ClusterTree, targets: ArrayLike, n_classes: int) -> None:
        targets = as_row_labels("targets", targets, n_rows=len(tree), device=tree.device)
        check_whole("n_classes", n_classes, least=1)
        if int(targets.max()) >= n_classes:
            raise DataError(f"targets must be below n_classes={n_classes}, got {int(targets.max())}")
        rows = (targets >= 0).nonzero().squeeze(1)
        at = (tree.place_of[rows] + 1) * n_classes + targets[rows]
        counts = at.bincount(minlength=(tree.n_leaves + 1) * n_classes)
        self.n_classes = n_classes
        self._before = counts.view(-1, n_classes).cumsum(0)
        self._totals = self._before.sum(1)
        self._tree = tree

    def total(self, nodes: Tensor | slice = slice(None)) -> Tensor:
        """Return the counts of labels of all classes, (n,), below some nodes or all."""
        return self._totals[self._tree.stops[nodes]] - self._totals[self._tree.starts[nodes]]

    def by_class(self, nodes: Tensor) -> Tensor:
        """Return the counts of each class, (n, C), below some nodes."""
        return self._before[self._tree.stops[nodes]] - self._before[self._tree.starts[nodes]]

    def of_class(self, nodes: Tensor, labels: Tensor) -> Tensor:
        """Return the counts of one class for each node, (n,)."""
        return self._before[self._tree.stops[nodes], labels] - self._before[self._tree.starts[nodes], labels]


def class_bounds(counts: Tensor, totals: Tensor, sizes: Tensor, *, finite_correction: bool) -> tuple[Tensor, Tensor]:
    """Return the lower and upper bounds on the shares of classes below nodes: p -+ (1/n + sqrt(p (1 - p) / n)).

    Shapes:
        counts: (n, C) or (n,) int64, labels of each class, or of one.
        totals: (n,) int64, labels of all classes.
        sizes: (n,) int64, rows below each node.

    Returns:
        Two tensors like counts, float64, cut to [0, 1]; 0 and 1 where there is no label.

    Reference:
        Dasgupta & Hsu, "Hierarchical Sampling for Active Learning", ICML 2008, section 3. With finite_correction both
        terms in 1 / n are multiplied by 1 - n / size, as sampling without replacement allows.
    """
    n = totals.double().clamp(min=1)
    per_label = (1 - n / sizes) / n if finite_correction else 1 / n
    if counts.ndim == 2:
        n, per_label, totals = n.unsqueeze(1), per_label.unsqueeze(1), totals.unsqueeze(1)
    p = counts / n
    reach = per_label + (p * (1 - p) * per_label).sqrt() if finite_correction else per_label + (p * (1 - p) / n).sqrt()
    known = totals > 0
    lower = torch.where(known, (p - reach).clamp(min=0), 0)
    upper = torch.where(known, (p + reach).clamp(max=1), 1)
    return lower, upper


class _Judgement(NamedTuple):
    """What the labels say of each node: the error of its best admissible label, the label, and whether there is one."""

    errors: Tensor
    labels: Tensor
    sure: Tensor


def _judge(tree: ClusterTree, counts: LabelCounts, beta: float, *, finite_correction: bool) -> _Judgement:
    errors = torch.ones(tree.n_nodes, dtype=torch.float64, device=tree.device)
    labels = torch.full((tree.n_nodes,), -1, dtype=torch.int64, device=tree.device)
    # a node without labels has no admissible one
    for nodes in (
        (counts.total() > 0).nonzero().squeeze(1).split(max(1, values_per_chunk(tree.device) // counts.n_classes))
    ):
        counted, n = counts.by_class(nodes), counts.total(nodes)
        lower, upper = class_bounds(counted, n, tree.sizes[nodes], finite_correction=finite_correction)
        admissible = 1 - lower < beta * _least_other(1 - upper)
        error = torch.where(admissible, 1 - counted / n.unsqueeze(1).double(), 1)
        best = error.argmin(1, keepdim=True)  # of equal errors the lowest class
        errors[nodes] = error.gather(1, best).squeeze(1)
        labels[nodes] = torch.where(admissible.gather(1, best), best, -1).squeeze(1)
    return _Judgement(errors, labels, labels >= 0)


def _least_other(values: Tensor) -> Tensor:
    """Return for each column the smallest value of the other columns, (n, C); infinite where there is no other."""
    if values.shape[1] == 1:
        return torch.full_like(values, torch.inf)
    least = values.topk(2, dim=1, largest=False)
    is_first = torch.arange(values.shape[1], device=values.device) == least.indices[:, :1]
    return torch.where(is_first, least.values[:, 1:], least.values[:, :1])


def root_pruning(tree: ClusterTree, label: int) -> Pruning:
    """Return the pruning to begin with: the root alone, with any label.

    Example:
        >>> root_pruning(ClusterTree(torch.tensor([[0, 1]])), 1)
        Pruning(nodes=tensor([2]), labels=tensor([-1, -1,  1]))
    """
    labels = torch.full((tree.n_nodes,), -1, dtype=torch.int64, device=tree.device)
    labels[-1] = label
    return Pruning(torch.tensor([tree.n_nodes - 1], device=tree.device), labels)


def refine_pruning(
    tree: ClusterTree,
    pruning: Pruning,
    counts: LabelCounts,
    new: Tensor,
    *,
    beta: float = 2.0,
    finite_correction: bool = False,
) -> Pruning:
    """Replace the nodes below which new labels lie by the pruning of their subtree with the least estimated error.

    Label l is admissible for a node when 1 - lower_l < beta min over l' != l of (1 - upper_l'). A node's error is 1 - p
    of its best admissible label, and 1 where it has none. It is split where it has one and where the errors of the two
    nodes below, weighted by their rows and after the best splits below them, are strictly smaller. So a split node's
    ancestors all had an admissible label, and prunings only get finer.

    Args:
        tree: the tree.
        pruning: as it was before the new labels.
        counts: of all labels, the new ones among them.
        new: the rows whose labels are new.
        beta: how much smaller the error of a label's alternatives may be; larger admits more labels.
        finite_correction: see `class_bounds`.

    Shapes:
        new: (n,) int64.

    Raises:
        ShapeError: rows that repeat or lie outside the tree.

    Reference:
        Dasgupta & Hsu, "Hierarchical Sampling for Active Learning", ICML 2008, Algorithm 1.

    Complexity:
        O(K C) for counts and bounds, and one step for each level of the tree.
    """
    rows = as_rows("new", new, n_rows=len(tree), device=tree.device)
    judged = _judge(tree, counts, beta, finite_correction=finite_correction)
    labels = torch.where(judged.sure, judged.labels, pruning.labels)
    scores, split = judged.errors, torch.zeros(tree.n_nodes, dtype=torch.bool, device=tree.device)
    sizes = tree.sizes.double()
    for nodes in tree.levels:
        left, right = tree.joined_by(nodes).unbind(1)
        divided = sizes[left] / sizes[nodes] * scores[left] + sizes[right] / sizes[nodes] * scores[right]
        better = judged.sure[nodes] & (divided < scores[nodes])
        scores[nodes] = torch.where(better, divided, scores[nodes])
        split[nodes] = better
    touched = torch.zeros(len(pruning.nodes), dtype=torch.bool, device=tree.device)
    touched[_index_in(tree, pruning, rows)] = True
    done, frontier = [pruning.nodes[~touched]], pruning.nodes[touched]
    while len(frontier):
        divided_nodes = frontier[split[frontier]]
        done.append(frontier[~split[frontier]])
        below = tree.joined_by(divided_nodes)
        labels[below] = torch.where(labels[below] < 0, labels[divided_nodes].unsqueeze(1), labels[below])
        frontier = below.flatten()
    return Pruning(torch.cat(done).sort().values, labels)


def _index_in(tree: ClusterTree, pruning: Pruning, rows: Tensor) -> Tensor:
    """Return which entry of the pruning each row lies below, (n,)."""
    starts = tree.starts[pruning.nodes].sort()
    return starts.indices[torch.searchsorted(starts.values, tree.place_of[rows], right=True) - 1]


def node_weights(
    tree: ClusterTree, pruning: Pruning, counts: LabelCounts, *, finite_correction: bool = False
) -> Tensor:
    """Return what a label is worth at each node of a pruning: its rows times 1 - the lower bound of its label, (P,)."""
    nodes, sizes = pruning.nodes, tree.sizes[pruning.nodes]
    counted = counts.of_class(nodes, pruning.labels[nodes])
    lower, _ = class_bounds(counted, counts.total(nodes), sizes, finite_correction=finite_correction)
    return sizes * (1 - lower)


def draw_from_nodes(
    tree: ClusterTree,
    pruning: Pruning,
    weights: Tensor,
    n: int,
    *,
    candidates: ArrayLike,
    generator: torch.Generator,
) -> Selection:
    """Draw nodes of a pruning in proportion to their weights, and each time one of the node's candidates, uniformly.

    A node without a candidate left is not drawn again. Drawing one after another has the same distribution as letting
    each node send its candidates at random times, at a rate that is its weight, and taking those that come first; so
    the first picks do not depend on n.

    Shapes:
        weights: (P,) float64, positive.
        candidates: (N,) bool.

    Returns:
        indices (n,) in the order of the draws; scores (n,), the weights of their nodes.

    Raises:
        BudgetError: n is not between 1 and the number of candidates.
        ShapeError: candidates disagree in rows or device.

    Complexity:
        One sort of the candidates, and one draw for each; O(N) memory.
    """
    candidates = as_mask("candidates", candidates, n_rows=len(tree), device=tree.device)
    rows = candidates.nonzero().squeeze(1)
    check_budget(n, len(rows))
    home = generator.device
    waits = torch.empty(len(rows), dtype=torch.float64, device=home).exponential_(generator=generator).to(rows.device)
    rows = rows[torch.randperm(len(rows), generator=generator, device=home).to(rows.device)]
    node = _index_in(tree, pruning, rows)
    node, order = node.sort(stable=True)  # together, in random order within each node
    rows, sizes = rows[order], node.bincount(minlength=len(weights))
    elapsed = waits.cumsum(0)
    begins = sizes.cumsum(0) - sizes
    before = torch.where(begins > 0, elapsed[begins.clamp(min=1) - 1], 0)
    times = (elapsed - before[node]) / weights[node]
    first = top_n(-times, n).indices
    return Selection(rows[first], weights[node[first]])


def propagate_labels(tree: ClusterTree, pruning: Pruning) -> Tensor:
    """Return the label of each row's node in a pruning, (N,) int64.

    Reference:
        Dasgupta & Hsu, "Hierarchical Sampling for Active Learning", ICML 2008, the end of Algorithm 1.

    Example:
        >>> tree = ClusterTree(torch.tensor([[0, 1], [2, 3]]))
        >>> propagate_labels(tree, Pruning(torch.tensor([2, 3]), torch.tensor([-1, -1, 0, 1, 0])))
        tensor([1, 1, 0])
    """
    rows = torch.arange(len(tree), device=tree.device)
    return pruning.labels[pruning.nodes[_index_in(tree, pruning, rows)]]


def check_beta(beta: object) -> None:
    """Require a finite number above 0."""
    if isinstance(beta, bool) or not isinstance(beta, int | float) or not (math.isfinite(beta) and beta > 0):
        raise ConfigError(f"beta must be a positive number, got {beta!r}")
