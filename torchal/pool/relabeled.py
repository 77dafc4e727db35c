"""A fitted model whose labels are not the pool's numbers of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchal.errors import DataError


class Relabeled:
    """A fitted model that predicts other labels than the numbers of a pool's classes, with these in their place.

    Everything else it answers is the model's own; its columns are in the order of `classes_`, as they were.

    Args:
        model: a fitted classifier.
        labels: (C,) what it predicts.
        classes: (C,) int64, the numbers of these classes, ascending.

    Example:
        >>> from sklearn.naive_bayes import GaussianNB
        >>> model = GaussianNB().fit([[0.0], [0.1], [9.0], [9.1]], ["ham", "ham", "spam", "spam"])
        >>> Relabeled(model, model.classes_, torch.tensor([0, 2])).predict([[8.0]]).tolist()
        [2]
    """

    def __init__(self, model: Any, labels: Any, classes: Tensor) -> None:
        self.model = model
        labels = np.asarray(labels)
        self._order = np.argsort(labels)
        self._labels = labels[self._order]
        self.classes_ = classes.cpu().numpy()

    def predict(self, X: Any) -> Any:
        """Return the number of the class of each row, (n,)."""
        predicted = self.model.predict(X)
        as_array = predicted.cpu().numpy() if isinstance(predicted, Tensor) else np.asarray(predicted)
        places = np.searchsorted(self._labels, as_array.ravel()).clip(max=len(self._labels) - 1)
        others = self._labels[places] != as_array.ravel()
        if others.any():
            first = as_array.ravel()[others][0]
            raise DataError(f"{type(self.model).__name__} predicts {first!r}, which is none of its classes_")
        numbers = self.classes_[self._order[places]]
        return torch.from_numpy(numbers).to(predicted.device) if isinstance(predicted, Tensor) else numbers

    def __getattr__(self, name: str) -> Any:
        if name == "model":  # not there yet, as while a copy is made
            raise AttributeError(name)
        return getattr(self.model, name)

    def __repr__(self) -> str:
        return f"Relabeled({self.model!r})"
