"""BAIT."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torchal import functional
from torchal._checks import check_budget
from torchal.functional.fisher import Form, check_settings, form_for
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasProbabilities
from torchal.samplers.base import Sampler


@dataclass
class Bait(Sampler):
    """Picks rows whose labels would leave the least error over the whole pool, by the last layer's Fisher information.

    What the last layer reads is the model's embedding where it has one, else its flattened inputs, as they are for a
    linear model.

    Args:
        regularization: the precision of the prior, beside features as large as they are; the authors take 1, and 0.01
            on CIFAR-10.
        oversampling: how many times the batch is picked before all but the batch is removed again; 1 for no removal.
        form: "exact", "block_diagonal", "binary", or "auto", the first of these that is small enough.

    Raises:
        ConfigError: a setting is out of range.

    Reference:
        See `torchal.functional.bait`.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> log_probs = torch.tensor([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]]).log()
        >>> view = PoolView.from_tensors(log_probs=log_probs, features=torch.tensor([[1.0], [2.0], [9.0]]))
        >>> Bait().select(view, 1).indices
        tensor([1])
    """

    requires = (HasProbabilities,)

    regularization: float = 1.0
    oversampling: int = 2
    form: Form = "auto"
    _report: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_settings(self.regularization, self.oversampling, self.form)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `bait`."""
        n_candidates = int(view.candidates.sum())
        check_budget(n, n_candidates)
        log_probs, features = view.log_probs, view.features
        n_forward = min(self.oversampling * n, n_candidates)
        auto = form_for(n_candidates, log_probs.shape[1], features.shape[1], n_forward)
        form = auto if self.form == "auto" else self.form
        self._report = {"features": view.features_from, "n_features": features.shape[1], "form": form}
        return functional.bait(
            log_probs,
            features,
            n,
            labeled=view.labeled,
            candidates=view.candidates,
            regularization=self.regularization,
            oversampling=self.oversampling,
            form=form,
        )

    def report(self) -> dict[str, Any]:
        """Return what was taken for the features of the last layer, and in which form its Fisher matrix was."""
        return dict(self._report)
