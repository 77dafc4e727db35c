"""Another sampler on the neighbours of what is labeled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchal._checks import check_budget, check_whole
from torchal.engine.distances import Metric, check_metric
from torchal.engine.features import Features
from torchal.functional.neighbors import neighbors_of
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.samplers.base import Sampler
from torchal.samplers.composite import WrapperSampler
from torchal.samplers.margin import Margin
from torchal.samplers.remembered import Remembered


@dataclass
class Seals(WrapperSampler):
    """Lets another sampler choose among the nearest neighbours of the labeled rows only.

    For classes so rare that hardly any row of the pool matters: they are found beside what is known of them, and a
    sampler that looks at candidates alone looks at few rows. The neighbours are those in the model's embedding where it
    has one, among all rows, labeled or not. While the features are the pool's inputs themselves, and not changed, only
    rows that were labeled since are searched for; an embedding is another one in every round. Either way the
    candidates are those of a start from nothing.

    Without any label, all candidates are the sampler's. Where fewer than n are near, k is doubled until n are.

    Args:
        sampler: chooses among the neighbours.
        k: neighbours of each labeled row; all other rows, where there are fewer.
        metric: euclidean, cosine or manhattan.

    Raises:
        ConfigError: k is not a whole number of at least 1, an unknown metric, or sampler is none.

    Reference:
        Coleman, Chou, Katz-Samuels, Culatana, Bailis, Berg, Nowak, Sumbaly, Zaharia & Yalniz, "Similarity Search for
        Efficient Active Learning and Search of Rare Concepts", AAAI 2022, Algorithm 2. There, neighbours come from an
        approximate index of fixed features, and too few of them are not provided for.

    Complexity:
        N L D multiply-adds for L newly labeled rows.

    Example:
        >>> from torchal import PoolView
        >>> from torchal.samplers import Margin, Seals
        >>> x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
        >>> labeled = torch.tensor([True, False, False, False])
        >>> view = PoolView.from_tensors(features=x, scores=torch.tensor([1.0, 0.9, 0.8, 0.1]), labeled=labeled)
        >>> Seals(Margin(), k=2).select(view, 1).indices
        tensor([2])
    """

    sampler: Sampler = field(default_factory=Margin)
    k: int = 100
    metric: Metric = "euclidean"
    _near: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _searched: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _features: Remembered | None = field(default=None, init=False, repr=False, compare=False)
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.check_members()
        check_whole("k", self.k, least=1)
        check_metric(self.metric)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes over: not the neighbours, which it finds again."""
        return self.__dict__ | {"_near": None, "_searched": None, "_features": None}

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n of the neighbours of what is labeled."""
        check_budget(n, int(view.candidates.sum()))
        k = min(self.k, len(view) - 1)
        near = view.candidates
        if bool(view.labeled.any()):
            near = self._near_labeled(view) & view.candidates
            while int(near.sum()) < n:
                k = min(2 * k, len(view) - 1)
                near = self._found(view.features, k, view.labeled) & view.candidates
        selection = self.ask(view.narrowed(near), n)
        self._report = {"n_near": int(near.sum()), "k": k, "members": self.sampler_report(selection.indices)}
        return selection

    def report(self) -> dict[str, Any]:
        """Return how many candidates were near, the k that it took, and the sampler's own report."""
        return self._report

    def _near_labeled(self, view: PoolView) -> Tensor:
        """Return which rows are among the k nearest of a labeled row, (N,) bool; only what is new is searched for."""
        features, k = view.features, min(self.k, len(view) - 1)
        near, searched = self._near, self._searched
        known = self._features is not None and self._features.is_same(features)
        if near is None or searched is None or not known or bool((searched & ~view.labeled).any()):
            near, searched = torch.zeros_like(view.labeled), torch.zeros_like(view.labeled)
            # An embedding is not kept: it will be another one in the next round, and this one takes memory.
            self._features = Remembered(features) if _is_of_inputs(features, view) else None
        near = near | self._found(features, k, view.labeled & ~searched)
        self._near, self._searched = near, view.labeled
        return near

    def _found(self, features: Features, k: int, rows: Tensor) -> Tensor:
        """Return which rows are among the k nearest of some rows, both (N,) bool."""
        if not bool(rows.any()):
            return torch.zeros_like(rows)
        found = neighbors_of(features, k, rows=rows.nonzero().squeeze(1), metric=self.metric).indices
        return torch.zeros_like(rows).index_fill_(0, found.flatten(), True)


def _is_of_inputs(features: Features, view: PoolView) -> bool:
    """Tell whether features are the pool's inputs, in the same memory."""
    if not isinstance(features, Tensor) or not isinstance(view.inputs, Tensor):
        return features is view.inputs
    return features.data_ptr() == view.inputs.data_ptr()
