"""MaxDist: the rows farthest from all that are labeled, by features or gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from torchal._checks import check_budget, check_flag
from torchal.errors import ConfigError
from torchal.functional.lcmd import max_dist
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities, check_provides
from torchal.samplers.base import Sampler

SelectionSpace = Literal["features", "gradients"]


@dataclass
class MaxDist(Sampler):
    """Picks, again and again, the row farthest from every labeled row and every pick.

    By features and with labeled rows, the picks are those of `KCenterGreedy`.

    Args:
        space: what distances are of: "gradients", those of the last layer that `Badge` draws by, or "features", of the
            model's embedding where it has one.
        bias: of gradients, whether that by the layer's bias counts too.

    Raises:
        ConfigError: an unknown space; a `bias` that is not true or false, or true with features.

    Reference:
        See `torchal.functional.max_dist`.

    Example:
        >>> import torch
        >>> features, labeled = torch.tensor([[0.0], [1.0], [5.0], [9.0]]), torch.arange(4) == 0
        >>> MaxDist(space="features").select(PoolView.from_tensors(features=features, labeled=labeled), 2).indices
        tensor([3, 2])
    """

    space: SelectionSpace = "gradients"
    bias: bool = False
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _pick: ClassVar[Callable[..., Selection]] = staticmethod(max_dist)

    def __post_init__(self) -> None:
        if self.space not in get_args(SelectionSpace):
            raise ConfigError(f"space must be one of {', '.join(get_args(SelectionSpace))}, got {self.space!r}")
        check_flag("bias", self.bias)
        if self.bias and self.space == "features":
            raise ConfigError("bias=True is of space='gradients'; distances of features have no bias")

    def check_model(self, model: object) -> None:
        """Require probabilities for gradients."""
        if self.space == "gradients":
            check_provides(model, HasProbabilities, needed_by=f"{type(self).__name__}(space='gradients')")

    def needs_model(self, n_labeled: int) -> bool:  # noqa: ARG002 - whatever is labeled
        """Tell whether distances are of gradients, which are a model's."""
        return self.space == "gradients"

    def reads(self, capability: type) -> bool:
        """Tell whether gradients, which require probabilities, are read."""
        return capability is HasProbabilities and self.space == "gradients"

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates from the view's features, and from its log-probabilities where gradients are asked for."""
        check_budget(n, int(view.candidates.sum()))
        features = view.features
        self._report = {"features": view.features_from, "n_features": features.shape[1]}
        selection = self._pick(
            features,
            n,
            log_probs=view.log_probs if self.space == "gradients" else None,
            labeled=view.labeled,
            candidates=view.candidates,
            bias=self.bias,
        )
        if not bool(selection.scores.any()):
            warnings.warn(
                f"every candidate lies on a centre: all {n} picks have the distance 0, and are the first rows. Are the "
                f"{self.space} the same for every row?",
                UserWarning,
                stacklevel=3,
            )
        return selection

    def report(self) -> dict[str, Any]:
        """Return what distances were measured on: the model's embedding, the inputs, or what was given."""
        return dict(self._report)
