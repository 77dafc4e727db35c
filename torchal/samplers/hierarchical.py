"""Hierarchical sampling: labels where the clusters of a tree are not yet known to be pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal._checks import check_budget, check_flag, check_whole
from torchal.engine.distances import Metric
from torchal.errors import ConfigError, DataError
from torchal.functional import hierarchy
from torchal.functional.cluster_tree import Linkage, check_linkage, cluster_tree
from torchal.functional.hierarchy import ClusterTree, LabelCounts, Pruning
from torchal.functional.selection import Selection
from torchal.pool.round_result import RoundResult
from torchal.pool.view import PoolView
from torchal.protocols import UNLABELED
from torchal.samplers.base import Sampler, check_state
from torchal.samplers.remembered import Remembered, shared_by_samplers
from torchal.samplers.told import Told


@dataclass
class Hierarchical(Sampler):
    """Cuts a cluster tree into nodes that the labels show to be pure, and asks where they are least so.

    The tree is that of the inputs, whatever the model, and made once; above `max_leaves` rows it is built on `n_coarse`
    k-means clusters. All labels count, also those that others chose. The model is not looked at. In a loop of your own,
    `tell` it the labels: the pruning goes on from batch to batch.

    Args:
        linkage: ward, average, complete or single.
        metric: euclidean, cosine or manhattan; euclidean only with ward.
        max_features: cluster on this many principal components.
        beta: how much smaller the error of a label's alternatives may be; larger admits more labels.
        finite_correction: tighten the bounds as sampling without replacement allows.
        max_leaves: cluster the rows themselves up to this many; 16 bytes for each pair of them.
        n_coarse: clusters above that.
        seed: of k-means.
        tree: a tree over the pool's rows, in the place of all of the above but beta and finite_correction.

    Raises:
        ConfigError: a setting that is unknown or out of range.

    Reference:
        Dasgupta & Hsu, "Hierarchical Sampling for Active Learning", ICML 2008, Algorithm 1. As in
        google/active-learning, labels that are there at the start count. Until the root has an admissible label, its
        label is the most frequent of the first ones, where the paper takes any.

    Example:
        >>> from torchal import PoolView
        >>> features = torch.tensor([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]])
        >>> targets = torch.tensor([0, 0, -1, 1, 1, -1])
        >>> sampler = Hierarchical()
        >>> sampler.select(PoolView.from_tensors(features=features, targets=targets), 2).indices.sort().values
        tensor([2, 5])
    """

    reads_model = False

    linkage: Linkage = "ward"
    metric: Metric = "euclidean"
    max_features: int | None = None
    beta: float = 2.0
    finite_correction: bool = False
    max_leaves: int = 10_000
    n_coarse: int = 1000
    seed: int = 0
    tree: ClusterTree | None = None
    _tree: ClusterTree | None = field(default=None, init=False, repr=False, compare=False)
    _inputs: Remembered | None = field(default=None, init=False, repr=False, compare=False)
    _pruning: Pruning | None = field(default=None, init=False, repr=False, compare=False)
    _known: Tensor | None = field(default=None, init=False, repr=False, compare=False)  # labels in the pruning
    _news: list[tuple[Tensor, Tensor]] = field(default_factory=list, init=False, repr=False, compare=False)
    _n_classes: int = field(default=0, init=False, repr=False, compare=False)
    _told: Told = field(default_factory=Told, init=False, repr=False, compare=False)
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_linkage(self.linkage, self.metric)
        hierarchy.check_beta(self.beta)
        check_flag("finite_correction", self.finite_correction)
        for name in ("max_leaves", "n_coarse"):
            check_whole(name, getattr(self, name), least=1)
        if self.max_features is not None:
            check_whole("max_features", self.max_features, least=1)
        check_whole("seed", self.seed, least=0)
        if self.tree is not None and not isinstance(self.tree, ClusterTree):
            raise ConfigError(f"tree must be a ClusterTree, got {type(self.tree).__name__}")

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes over: the tree, but not the inputs it was made of."""
        return self.__dict__ | {"_inputs": None}

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `draw_from_nodes`, from the pruning that all labels of the view lead to."""
        check_budget(n, int(view.candidates.sum()))
        unknown = int((view.labeled & (view.targets < 0)).sum())
        if unknown:
            raise DataError(f"hierarchical sampling reads the labels: the view has {unknown} labeled rows without one")
        tree = self._tree_of(view)
        self._told.warn_of_others(view, by=type(self).__name__)
        self._n_classes = max(1, self._n_classes, view.n_classes)
        self._catch_up()
        # Labels that were never observed, as those of a view made from tensors or of a simulation, count for this once.
        unseen = view.labeled if self._known is None else view.labeled & (self._known < 0)
        rows = unseen.nonzero().squeeze(1)
        pruning, known = self._with_labels(self._pruning, self._known, rows, view.targets[rows])
        counts = LabelCounts(tree, known, self._n_classes)
        weights = hierarchy.node_weights(tree, pruning, counts, finite_correction=self.finite_correction)
        self._report = {"n_nodes": len(pruning.nodes), "error_bound": float(weights.sum()) / len(tree)}
        return hierarchy.draw_from_nodes(
            tree, pruning, weights, n, candidates=view.candidates, generator=view.generator
        )

    def observe(self, result: RoundResult) -> None:
        """Remember the labels that were bought, whoever chose the rows."""
        self._news.append((result.rows, result.labels))
        self._told.add(result.rows)

    def revised(self, rows: Tensor, labels: Tensor) -> None:
        """Prune the tree anew, by all labels as they are now, at once."""
        known = dict(self._observed())
        known |= zip(rows.tolist(), labels.tolist(), strict=True)
        self._start_over({row: label for row, label in known.items() if label != UNLABELED})

    def extended(self, n_rows: int) -> None:
        """Make the tree anew with the rows that came, and prune it by all labels at once.

        Raises:
            ConfigError: the tree was given.
        """
        if self.tree is not None:
            raise ConfigError(f"the tree given is of {len(self.tree)} rows, and the pool is to have {n_rows}")
        self._start_over(dict(self._observed()))
        self._tree = self._inputs = None

    def _observed(self) -> list[tuple[int, int]]:
        """Return all rows observed with their labels, the latest last."""
        parts = list(self._news)
        if self._known is not None:
            rows = (self._known >= 0).nonzero().squeeze(1)
            parts.insert(0, (rows, self._known[rows]))
        return [pair for rows, labels in parts for pair in zip(rows.tolist(), labels.tolist(), strict=True)]

    def _start_over(self, known: dict[int, int]) -> None:
        self._pruning = self._known = None
        self._news = [(torch.tensor(list(known), dtype=torch.int64), torch.tensor(list(known.values())).long())]

    def report(self) -> dict[str, Any]:
        """Return how many nodes the pruning has, and the upper bound on the error of the labels it gives all rows."""
        return dict(self._report)

    @property
    def pruning(self) -> Pruning:
        """The nodes of the tree that the labels observed so far lead to.

        Raises:
            DataError: no label was observed yet, or nothing was selected yet, so that there is no tree.
        """
        self._catch_up()
        if self._pruning is None:
            raise DataError("there is no pruning before a first selection and a first label observed")
        return self._pruning

    def propagated_labels(self) -> Tensor:
        """Return the label of each row by the labels observed so far, (N,) int64: that of its node, asked or not.

        Labels are observed when a round is finished: `ActiveLearner.finish_round` counts in those told last.

        Raises:
            DataError: see `pruning`.

        Example:
            >>> from sklearn.naive_bayes import GaussianNB
            >>> from torchal import ActiveLearner, Pool
            >>> truth = torch.arange(100) // 50
            >>> inputs = (torch.linspace(0, 1, 100) + 20 * truth).unsqueeze(1)
            >>> sampler = Hierarchical()
            >>> learner = ActiveLearner(GaussianNB(), sampler, Pool.unlabeled(inputs, n_classes=2))
            >>> for _ in range(4):
            ...     rows = learner.ask(10)
            ...     learner.tell(rows, truth[rows])
            >>> result = learner.finish_round()
            >>> bool((sampler.propagated_labels() == truth).all())
            True
        """
        pruning = self.pruning
        assert self._tree is not None
        return hierarchy.propagate_labels(self._tree, pruning)

    def state_dict(self) -> dict[str, Any]:
        """Return the tree, its pruning, and the labels observed so far."""
        state: dict[str, Any] = {"news": [[rows.cpu(), labels.cpu()] for rows, labels in self._news]}
        state |= {"n_classes": self._n_classes, "settings": self._tree_settings()}
        if self._tree is not None:
            state["children"] = self._tree.children.cpu()
            state["leaf_of"] = None if self._tree.has_single_rows else self._tree.leaf_of.cpu()
        if self._pruning is not None and self._known is not None:
            rows = (self._known >= 0).nonzero().squeeze(1)
            state |= {"nodes": self._pruning.nodes.cpu(), "node_labels": self._pruning.labels.cpu()}
            state |= {"rows": rows.cpu(), "labels": self._known[rows].cpu()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned.

        Raises:
            DataError: the state's tree was made with other settings.
        """
        check_state(state, "settings", "news", "n_classes", by=type(self).__name__)
        if state["settings"] != self._tree_settings():
            raise DataError(
                f"the state's tree was made with {state['settings']}, this sampler has {self._tree_settings()}"
            )
        self._news = [(rows, labels) for rows, labels in state["news"]]
        self._n_classes = state["n_classes"]
        self._tree = ClusterTree(state["children"], state["leaf_of"]) if "children" in state else None
        self._pruning = self._known = self._inputs = None
        self._told = Told()
        if "nodes" in state and self._tree is not None:
            self._pruning = Pruning(state["nodes"], state["node_labels"])
            self._known = torch.full((len(self._tree),), UNLABELED)
            self._known[state["rows"]] = state["labels"]

    def _tree_settings(self) -> dict[str, Any]:
        """Return what decides on the tree, as far as it can be told."""
        if self.tree is not None:
            return {"tree": self.tree.digest}
        names = ("linkage", "metric", "max_features", "max_leaves", "n_coarse", "seed")
        return {name: getattr(self, name) for name in names}

    def _tree_of(self, view: PoolView) -> ClusterTree:
        """Return the tree of the pool.

        Raises:
            DataError: the labels observed so far are of another pool, or the tree given is.
        """
        n_rows, device = len(view), view.candidates.device
        if self.tree is not None and len(self.tree) != n_rows:
            raise DataError(f"the tree given is of {len(self.tree)} rows, the pool has {n_rows}")
        same = self._tree is not None and len(self._tree) == n_rows
        if self.tree is None and self._inputs is not None:
            same = same and self._inputs.is_same(view.inputs)
        if self._tree is not None and not same and (self._pruning is not None or self._news):
            raise DataError(
                f"this sampler has observed labels of a pool of {len(self._tree)} rows; this pool has {n_rows}, or its "
                "inputs are others. Use a new sampler for each pool"
            )
        if self._tree is None or not same:
            self._tree = self.tree if self.tree is not None else self._made(view)
        if self._inputs is None or not same:
            self._inputs = Remembered(view.inputs)
        if self._tree.device != device:
            self._tree = self._tree.to(device)
            if self._pruning is not None and self._known is not None:
                self._pruning = Pruning(*(part.to(device) for part in self._pruning))
                self._known = self._known.to(device)
        return self._tree

    def _made(self, view: PoolView) -> ClusterTree:
        if view.features_from == "given":  # its features are not those of its inputs
            return self._clustered(view)
        settings = ("cluster_tree", *self._tree_settings().items())
        return shared_by_samplers(view.inputs, settings, lambda: self._clustered(view))

    def _clustered(self, view: PoolView) -> ClusterTree:
        return cluster_tree(
            view.flat_inputs,
            linkage=self.linkage,
            metric=self.metric,
            max_features=self.max_features,
            max_leaves=self.max_leaves,
            n_coarse=self.n_coarse,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _catch_up(self) -> None:
        """Bring the pruning to the labels observed, batch by batch; what it comes to was decided when they came."""
        if self._tree is None:
            return
        device = self._tree.device
        for rows, labels in self._news:
            if len(labels):
                self._n_classes = max(self._n_classes, int(labels.max()) + 1)
            self._pruning, self._known = self._with_labels(
                self._pruning, self._known, rows.to(device), labels.to(device)
            )
        self._news = []

    def _with_labels(
        self, pruning: Pruning | None, known: Tensor | None, rows: Tensor, labels: Tensor
    ) -> tuple[Pruning, Tensor]:
        """Return the pruning and the labels known after some more labels."""
        tree = self._tree
        assert tree is not None
        known = torch.full((len(tree),), UNLABELED, device=tree.device) if known is None else known.clone()
        known[rows] = labels
        if pruning is None:
            pruning = hierarchy.root_pruning(tree, int(labels.bincount().argmax()) if len(labels) else 0)
        if not len(rows):
            return pruning, known
        counts = LabelCounts(tree, known, self._n_classes)
        return hierarchy.refine_pruning(
            tree, pruning, counts, rows, beta=self.beta, finite_correction=self.finite_correction
        ), known
