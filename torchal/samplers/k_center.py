"""K-center greedy, also called core-set selection."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import Tensor

from torchal import functional
from torchal._checks import check_budget, check_share
from torchal.engine.distances import Metric, check_metric
from torchal.engine.file_rows import FileRows
from torchal.errors import ConfigError
from torchal.functional.k_center import Cover
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities, check_provides
from torchal.samplers.base import Sampler
from torchal.samplers.remembered import Remembered

Weights = Literal["entropy", "least_confidence", "margin"]


@dataclass
class KCenterGreedy(Sampler):
    """Picks the rows that leave no row of the pool far from a labeled one, in the model's embedding where it has one.

    While the features are the pool's inputs themselves, and not changed, what one round has computed is kept for the
    next; an embedding is another one in every round. Either way the picks are those of a start from nothing.

    Args:
        metric: euclidean, cosine or manhattan.
        weights: how unsure the model is of a row, by which its distance is multiplied: "entropy", "least_confidence" or
            "margin" (1 minus the gap of the two largest probabilities); all rows count alike unless given.
        outliers: the share of the candidates that need not be covered, in [0, 1).

    A least distance between picks, as `k_center_greedy` has it, is no setting here: a sampler picks n rows.

    Raises:
        ConfigError: an unknown metric or measure, or a share outside [0, 1).

    Reference:
        See `torchal.functional.k_center_greedy`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> labeled = torch.tensor([True, False, False, False])
        >>> view = PoolView.from_tensors(features=torch.tensor([[0.0], [1.0], [5.0], [9.0]]), labeled=labeled)
        >>> KCenterGreedy().select(view, 2).indices
        tensor([3, 2])
    """

    on_ranks = True

    metric: Metric = "euclidean"
    weights: Weights | None = None
    outliers: float = 0.0
    _cover: Cover | None = field(default=None, init=False, repr=False, compare=False)
    _covered: Remembered | None = field(default=None, init=False, repr=False, compare=False)
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_metric(self.metric)
        if self.weights is not None and self.weights not in get_args(Weights):
            raise ConfigError(f"weights must be one of {', '.join(get_args(Weights))}, or None; got {self.weights!r}")
        check_share("outliers", self.outliers)

    @property
    def can_be_on_ranks(self) -> bool:
        """Whether there are no outliers, which are for one process."""
        return not self.outliers

    def needs_model(self, n_labeled: int) -> bool:  # noqa: ARG002 - whatever is labeled
        """Tell whether there are weights, which are a model's."""
        return self.weights is not None

    def check_model(self, model: object) -> None:
        """Require probabilities where there are weights."""
        super().check_model(model)
        if self.weights is not None:
            check_provides(model, HasProbabilities, needed_by=f"KCenterGreedy(weights={self.weights!r})")

    def reads(self, capability: type) -> bool:
        """Tell whether this sampler requires a capability."""
        return super().reads(capability) or (self.weights is not None and capability is HasProbabilities)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy takes over: not the cover, which it makes again."""
        return self.__dict__ | {"_cover": None, "_covered": None}

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick the n candidates that `k_center_greedy` picks from the view's features."""
        check_budget(n, view.n_candidates)
        features = view.features
        cover = self._cover_of(features, view)
        cover.add(view.rows_where(view.labeled & ~cover.is_center))
        self._report = {"features": view.features_from, "n_features": features.shape[1]}
        weights = self._weights_of(view)
        selection = cover.pick(n, candidates=view.candidates, weights=weights, outliers=self.outliers)
        if weights is not None and not view.total(weights[view.candidates].count_nonzero()):
            warnings.warn(
                f"the model is sure of every candidate: all weights by {self.weights} are 0, and the picks are the "
                "first rows",
                UserWarning,
                stacklevel=2,
            )
        elif not bool(selection.scores.any()):
            warnings.warn(
                f"every candidate lies on a centre: all {n} picks have the distance 0, and are the first rows. Are the "
                f"features ({view.features_from}) the same for every row?",
                UserWarning,
                stacklevel=2,
            )
        return selection

    def report(self) -> dict[str, Any]:
        """Return what the distances were measured on: the model's embedding, the inputs, or what was given."""
        return dict(self._report)

    def _extended(self, features: Tensor, view: PoolView) -> Cover | None:
        """Return the cover of the round before with the rows that came behind its own; None where it is of others."""
        if self._cover is None or self._covered is None or len(features) <= len(self._cover) or view.group is not None:
            return None
        n_old = len(self._cover)
        if bool((self._cover.is_center & ~view.labeled[:n_old]).any()) or not self._covered.is_same(features[:n_old]):
            return None
        return self._cover.extended(features)

    def _weights_of(self, view: PoolView) -> Tensor | None:
        """Return how unsure the model is of each row, (N,), at least 0."""
        if self.weights is None:
            return None
        name = self.weights

        def compute() -> Tensor:
            if name == "margin":
                return (1 + functional.margin(view.log_probs.exp())).clamp(min=0)
            return getattr(functional, name)(view.log_probs)  # type: ignore[no-any-return]

        return view.of_rows(compute)

    def _cover_of(self, features: Tensor, view: PoolView) -> Cover:
        """Return the cover of the round before if it is still right, else a new one."""
        kept = self._cover
        is_right = (
            kept is not None
            and self._covered is not None
            and self._covered.is_same(features)  # and so of as many rows
            and not bool((kept.is_center & ~view.labeled).any())
        )
        if not view.total(int(not is_right)):  # of all ranks: rows may be new on some of them alone
            assert kept is not None
            return kept
        cover = self._extended(features, view)
        self._cover = self._covered = None  # its memory is let go before there is another one
        cover = Cover(features, metric=self.metric, group=view.group) if cover is None else cover
        # An embedding is not kept: it will be another one in the next round, and this one takes memory.
        if isinstance(view.inputs, Tensor):
            keep = features.data_ptr() == view.inputs.data_ptr()
        else:
            keep = isinstance(features, FileRows) and view.features_from == "inputs"  # to change such is an error
        self._cover, self._covered = (cover, Remembered(features)) if keep else (None, None)
        return cover
