"""GLISTER-ACTIVE: rows whose predicted labels would lower the validation loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchal import functional
from torchal._checks import check_budget, check_positive
from torchal.engine.features import FeatureReader
from torchal.errors import DataError
from torchal.functional.selection import Selection
from torchal.pool.view import PoolView
from torchal.protocols import HasLastLayer
from torchal.samplers.base import Sampler


@dataclass(frozen=True)
class Glister(Sampler):
    """Picks rows that would lower the loss on the validation part the most, were their predicted classes their labels.

    Without a validation part the labeled rows stand in for it. Rows of classes that the model has not seen are left
    out of either.

    Args:
        learning_rate: how far one row moves the last layer; that of the training, say the authors.

    Raises:
        ConfigError: a learning rate that is not above 0.

    Reference:
        See `torchal.functional.glister`. Where there is no validation part, the authors' library takes the labeled rows
        and all others by their predicted labels.

    Example:
        >>> import torch
        >>> from torchal import PoolView
        >>> features, targets = torch.tensor([[-1.0], [0.5], [-0.5]]), torch.tensor([0, -1, -1])
        >>> layer = torch.tensor([[-1.0], [1.0]]), torch.zeros(2)
        >>> Glister().select(PoolView.from_tensors(features=features, last_layer=layer, targets=targets), 1).indices
        tensor([2])
    """

    learning_rate: float = 0.01

    requires = (HasLastLayer,)

    def __post_init__(self) -> None:
        check_positive("learning_rate", self.learning_rate)

    def select(self, view: PoolView, n: int) -> Selection:
        """Pick n candidates by `glister`.

        Raises:
            BudgetError: n is not between 1 and the number of candidates.
            DataError: there is neither a validation row nor a labeled one of a class that the model has seen.
        """
        check_budget(n, int(view.candidates.sum()))
        features, targets = _validation(view)
        return functional.glister(
            view.features,
            n,
            weight=view.last_layer.weight,
            bias=view.last_layer.bias,
            validation_features=features,
            validation_targets=targets,
            learning_rate=self.learning_rate,
            candidates=view.candidates,
        )


def _validation(view: PoolView) -> tuple[Tensor, Tensor]:
    """Return features (M, D) and labels (M,) by which the loss is measured, as columns of the last layer."""
    if view.validation is not None:
        features = view.features_at(view.validation.inputs)
        targets = view.validation.targets.to(features.device)
    else:
        rows = view.labeled.nonzero().squeeze(1)
        features, targets = FeatureReader(view.features).rows(rows), view.targets[rows]
    seen = torch.isin(targets, view.classes)
    if not bool(seen.any()):
        what = f"{len(view)} rows is labeled" if view.validation is None else f"{len(targets)} validation rows is"
        raise DataError(f"the loss is that of rows with labels that the model has seen, and none of {what} such a row")
    return features[seen], torch.searchsorted(view.classes, targets[seen])
