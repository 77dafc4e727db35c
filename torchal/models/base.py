"""The scikit-learn interface of a classifier whose fitted form is an nn.Module.

NumPy in gives NumPy out. A tensor in gives a tensor out, on the device of the fitted module; a tensor on an accelerator
never passes through the host.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data
from torch import Tensor, nn

from torchal._checks import check_finite
from torchal.errors import ConfigError, DataError, ShapeError

if TYPE_CHECKING:
    from typing_extensions import Self

_CHUNK_NUMBERS = 2**20  # input numbers in one chunk of a prediction
_CHUNK_ROWS = (32, 8192)  # and its fewest and most rows

Array = NDArray[Any]


class TrainingData(NamedTuple):
    """What a model is fitted on, all on its device and checked.

    Shapes:
        inputs: (n, ...), of the dtype that came in.
        codes: (n,) int64 in [0, C), positions in `classes_`.
        weights: (n,) float64, all positive; None where all are 1.
    """

    inputs: Tensor
    codes: Tensor
    weights: Tensor | None
    n_classes: int


class TensorClassifier(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of the classifiers here: checks, labels and both kinds of arrays. A child gives `_fit` and `_logits`.

    A child has the parameter `device` and sets `module_`. Rows with weight 0 are dropped before `_fit`.
    """

    takes_tensors = True
    flattens = False
    """Whether rows of more than one axis are made flat."""

    device: str | torch.device
    module_: nn.Module
    classes_: Array
    n_features_in_: int
    input_shape_: tuple[int, ...]

    @abstractmethod
    def _fit(self, data: TrainingData) -> nn.Module:
        """Return a module trained from the start."""

    @abstractmethod
    def _logits(self, rows: Tensor) -> Tensor:
        """Return (n, C) logits of rows on the module's device, or (n, 1) for two classes."""

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
        device = resolve_device(self.device, X)
        if isinstance(X, Tensor):
            inputs = self._check_tensor(X, reset=True).to(device)
            check_finite("X", inputs)
        else:
            array, y = self._check_array(X, y)
            inputs = _to_tensor(array).to(device)
        self.input_shape_ = tuple(inputs.shape[1:])
        self.classes_, codes = _encode(y, device)
        if len(codes) != len(inputs):
            raise ShapeError(f"X has {len(inputs)} rows and y has {len(codes)}")
        data = TrainingData(inputs, codes, None, len(self.classes_))
        if sample_weight is not None:
            data = _with_weights(data, sample_weight)
        if data.n_classes < 2 or len(data.codes.unique()) < 2:
            raise DataError(
                f"{type(self).__name__} needs rows of at least 2 classes, got {data.codes.unique().numel()} class"
            )
        self.module_ = self._fit(data)
        return self

    def decision_function(self, X: Any) -> Any:
        """Return logits, or for two classes the second's minus the first's: positive where `predict` says the second.

        Shapes:
            X: (n, ...).

        Returns:
            (n, C), columns in the order of `classes_`; (n,) for two classes.
        """
        return self._answer(X, lambda rows: _decision(self._logits(rows)))

    def predict_log_proba(self, X: Any) -> Any:
        """Return log-probabilities (n, C), columns in the order of `classes_`."""
        return self._answer(X, lambda rows: _log_probs(self._logits(rows)))

    def predict_proba(self, X: Any) -> Any:
        """Return probabilities (n, C), columns in the order of `classes_`."""
        return self._answer(X, lambda rows: _log_probs(self._logits(rows)).exp())

    def predict(self, X: Any) -> Any:
        """Return the likeliest label of each row, (n,); of equally likely ones the first.

        Raises:
            DataError: X is a tensor and the labels are not numbers.
        """
        codes = self._codes(X)
        if not isinstance(X, Tensor):
            return self.classes_[codes.cpu().numpy()]
        if self.classes_.dtype.kind not in "biuf":
            raise DataError(
                f"labels of dtype {self.classes_.dtype} do not fit in a tensor; predict on an array instead"
            )
        return torch.as_tensor(self.classes_, device=codes.device)[codes]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, weighted where weights are given.

        Shapes:
            X: (n, ...).
            y: (n,).
            sample_weight: (n,).
        """
        if not (isinstance(X, Tensor) and isinstance(y, Tensor)):
            y = y.numpy() if isinstance(y, Tensor) else y
            return float(accuracy_score(y, self.classes_[self._codes(X).cpu().numpy()], sample_weight=sample_weight))
        predicted = self.predict(X)
        if y.shape != predicted.shape:
            raise ShapeError(f"y must have shape {tuple(predicted.shape)}, got {tuple(y.shape)}")
        right = (predicted == _move("y", y, predicted.device)).double()
        if sample_weight is None:
            return float(right.mean())
        weights = _check_weights(sample_weight, len(right), right.device)
        return float(right @ weights / weights.sum())

    def _codes(self, X: Any) -> Tensor:
        return self._by_chunk(X, lambda rows: _decision(self._logits(rows)), _predicted)

    def _answer(self, X: Any, output: Callable[[Tensor], Tensor]) -> Any:
        out = self._by_chunk(X, output)
        return out if isinstance(X, Tensor) else out.cpu().numpy()

    @torch.no_grad()
    def _by_chunk(
        self, X: Any, output: Callable[[Tensor], Tensor], then: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """Return an output of the fitted module for all rows, computed in chunks on its device."""
        check_is_fitted(self, "module_")
        device = next(self.module_.parameters()).device
        if isinstance(X, Tensor):
            inputs = self._check_tensor(X, reset=False)
            _move("X", inputs[:0], device)
        else:
            inputs = _to_tensor(self._check_array(X)[0])
        if tuple(inputs.shape[1:]) != self.input_shape_:
            raise ShapeError(f"X has rows of shape {tuple(inputs.shape[1:])}, fitted were rows of {self.input_shape_}")
        self.module_.eval()
        outputs, finite = [], []
        for rows in inputs.split(_rows_per_chunk(inputs)):
            rows_here = rows.to(device)
            out = output(rows_here)
            outputs.append(out if then is None else then(out))
            if isinstance(X, Tensor):
                finite.append(torch.isfinite(rows_here).all())
        if finite and not bool(torch.stack(finite).all()):  # one look at the end: each look waits for the device
            check_finite("X", inputs)
        return torch.cat(outputs)

    def _check_tensor(self, X: Tensor, *, reset: bool) -> Tensor:
        """Require real numbers in rows, as many as were fitted; return the rows, detached."""
        if X.ndim < 2:
            raise ShapeError(
                f"X must have at least 2 axes, got shape {tuple(X.shape)}; one feature is X.reshape(-1, 1)"
            )
        if X.is_complex():
            raise DataError(f"X must be real, got {X.dtype}")
        if not X.numel():
            raise DataError(f"X must have at least one row and one feature, got shape {tuple(X.shape)}")
        X = X.detach().flatten(1) if self.flattens else X.detach()
        if reset:
            self.n_features_in_ = X.shape[1]
            if hasattr(self, "feature_names_in_"):  # of an earlier fit on a data frame
                del self.feature_names_in_
        elif X.shape[1] != self.n_features_in_:
            raise ShapeError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input"
            )
        return X

    def _check_array(self, X: Any, *y: Any) -> tuple[Array, Any]:
        """Let scikit-learn check what is not a tensor; its complaints about values become a DataError."""
        if self.flattens and isinstance(X, np.ndarray) and X.ndim > 2:
            X = X.reshape(len(X), math.prod(X.shape[1:]))
        settings: dict[str, Any] = {"dtype": (np.float64, np.float32), "allow_nd": True, "reset": bool(y)}
        try:
            if not y:
                return validate_data(self, X, **settings), None
            checked: tuple[Array, Array] = validate_data(self, X, *y, **settings)
        except ValueError as error:
            raise DataError(str(error)) from error
        return checked


def resolve_device(device: str | torch.device, X: object = None) -> torch.device:
    """Return the device that a setting names: for "auto" that of a CUDA tensor X, else CUDA, else the CPU.

    Raises:
        ConfigError: there is no such device.
        ShapeError: X is on another accelerator.
    """
    there = X.device if isinstance(X, Tensor) and X.device.type != "cpu" else None
    if device == "auto":
        return there or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device must be 'auto' or a torch device, got {device!r}") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {str(chosen)!r} asked for, there are {torch.cuda.device_count()} CUDA devices")
    if isinstance(X, Tensor):
        _move("X", X[:0], chosen)
    return chosen


def _move(name: str, tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device; from an accelerator it does not go anywhere else."""
    same = tensor.device.type == device.type and (device.index is None or tensor.device.index == device.index)
    if tensor.device.type != "cpu" and not same:
        raise ShapeError(f"{name} is on {tensor.device} and the model on {device}; move one of them first")
    return tensor.to(device)


def _to_tensor(array: Array) -> Tensor:
    """Return a tensor that shares the array's memory where torch can; it cannot read-only or with negative strides."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _encode(y: Any, device: torch.device) -> tuple[Array, Tensor]:
    """Return the sorted classes (C,) and each label's position among them (n,)."""
    if isinstance(y, Tensor):
        if y.ndim != 1 or y.is_floating_point() or y.is_complex():
            raise ShapeError(f"y must be a tensor of (n,) whole numbers, got {y.dtype} of shape {tuple(y.shape)}")
        classes, codes = _move("y", y.detach(), device).unique(return_inverse=True)
        return classes.cpu().numpy(), codes
    try:
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
    except ValueError as error:
        raise DataError(str(error)) from error
    names, positions = np.unique(labels, return_inverse=True)
    return names, torch.as_tensor(positions, device=device)


def _check_weights(weights: Any, n: int, device: torch.device) -> Tensor:
    """Return weights as (n,) float64 on the device: finite, not negative, not all zero."""
    tensor = weights.detach() if isinstance(weights, Tensor) else torch.tensor(np.asarray(weights, dtype=np.float64))
    if tensor.shape != (n,):
        raise ShapeError(f"sample_weight must have shape ({n},), got {tuple(tensor.shape)}")
    tensor = _move("sample_weight", tensor, device).double()
    check_finite("sample_weight", tensor)
    if bool((tensor < 0).any()):
        raise DataError(f"sample_weight must not be negative: {int((tensor < 0).sum())} of {n} are")
    if not bool(tensor.any()):
        raise DataError(f"sample_weight must have a value above zero: all {n} are zero")
    return tensor


def _with_weights(data: TrainingData, sample_weight: Any) -> TrainingData:
    """Return the data with weights, without the rows of weight 0."""
    weights = _check_weights(sample_weight, len(data.inputs), data.inputs.device)
    rows = weights.nonzero().squeeze(1)
    if len(rows) < len(weights):
        return TrainingData(data.inputs[rows], data.codes[rows], weights[rows], data.n_classes)
    return data._replace(weights=weights)


def _rows_per_chunk(inputs: Tensor) -> int:
    fewest, most = _CHUNK_ROWS
    return min(most, max(fewest, _CHUNK_NUMBERS // math.prod(inputs.shape[1:])))


def _decision(logits: Tensor) -> Tensor:
    if logits.shape[1] > 2:
        return logits
    return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def _predicted(decision: Tensor) -> Tensor:
    return (decision > 0).long() if decision.ndim == 1 else decision.argmax(1)


def _log_probs(logits: Tensor) -> Tensor:
    if logits.shape[1] == 1:
        return nn.functional.logsigmoid(torch.cat([-logits, logits], 1))
    return logits.log_softmax(1)
