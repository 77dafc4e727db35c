"""Classifiers that are fitted to all rows at once, one data set or many."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from sklearn.base import clone

from torchal.errors import ShapeError
from torchal.models.base import TensorClassifier, TrainingData, as_alone

if TYPE_CHECKING:
    from typing_extensions import Self


class DirectClassifier(TensorClassifier):
    """Base of the classifiers that are fitted to all rows at once. A child gives `_fit_all`."""

    flattens = True

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train from the start, whatever was fitted before.

        `device="auto"` trains where a CUDA tensor is, else on CUDA where there is one, else on the CPU.

        Shapes:
            X: (n, ...), array or tensor.
            y: (n,) labels of any dtype; in a tensor whole numbers.
            sample_weight: (n,), not negative; 1 each unless given. 0 is as good as no row.

        Raises:
            DataError: values or weights that cannot be used, no rows, or one class only.
            ShapeError: lengths disagree, or a tensor is on another accelerator than the model.
            ConfigError: a setting that is not possible.
        """
        self._check_settings()
        data = self._training_data(X, y, sample_weight)
        with as_alone(data.codes.device):
            self._fit_all([self], [data])
        return self

    def fit_many(self, X: Any, y: Any) -> list[Self]:
        """Return T copies, each as if cloned and fitted alone on one of T data sets of equal size, but all at once.

        Shapes:
            X: (T, n, ...), array or tensor.
            y: (T, n).

        Raises:
            ShapeError: the lengths disagree; otherwise as `fit`.
        """
        if len(X) != len(y):
            raise ShapeError(f"X has {len(X)} data sets and y has {len(y)}")
        self._check_settings()
        fitted = [clone(self) for _ in range(len(X))]
        data = [one._training_data(rows, labels, None) for one, rows, labels in zip(fitted, X, y, strict=True)]
        alike: dict[Hashable, list[int]] = defaultdict(list)
        for i, one in enumerate(data):
            alike[one.n_classes].append(i)
        for some in alike.values():
            with as_alone(data[some[0]].codes.device):
                self._fit_all([fitted[i] for i in some], [data[i] for i in some])
        return fitted

    @abstractmethod
    def _check_settings(self) -> None:
        """Require settings that are possible."""

    @abstractmethod
    def _fit_all(self, estimators: Sequence[Self], data: Sequence[TrainingData]) -> None:
        """Train each estimator from the start on its data; all have as many rows and classes. Sets `module_`."""
