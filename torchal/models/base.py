"""The scikit-learn interface of a classifier whose fitted form is an nn.Module.

NumPy in gives NumPy out. A tensor in gives a tensor out, on the device of the fitted module; a tensor on an accelerator
never passes through the host.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from torchal._batch import each_tensor
from torchal._checks import as_torch_takes, check_finite
from torchal._chunks import Chunker
from torchal.errors import DataError, ShapeError
from torchal.models.checks import (
    Array,
    check_finite_rows,
    check_place,
    check_weights,
    encode_labels,
    move_to,
    on_host,
    resolve_device,
    to_tensor,
)
from torchal.models.rows import RowShape, check_real, have_one_shape, row_shape, rows_per_pass
from torchal.models.sparse import as_csr, csr_rows
from torchal.pool.dataset_inputs import DatasetInputs, as_one_tensor, is_dataset
from torchal.pool.inputs import (
    SparseInputs,
    as_inputs,
    is_sparse,
    is_streamed,
    read_rows,
)

_SPARSE_ROWS = 8192  # in a chunk of a prediction


class TrainingData(NamedTuple):
    """What a model is fitted on, checked; labels and weights are on its device.

    Shapes:
        inputs: (n, ...), of the dtype that came in; on the device, unless the model streams and they do not fit there.
            A CSR tensor where they are sparse.
        codes: (n,) int64 in [0, C), positions in `classes_`.
        weights: (n,) float64, all positive; None where all are 1.
    """

    inputs: Any
    codes: Tensor
    weights: Tensor | None
    n_classes: int

    @property
    def row_weights(self) -> Tensor:
        """(n,) float64, ones where none are given."""
        return torch.ones_like(self.codes, dtype=torch.float64) if self.weights is None else self.weights

    def rows(self, rows: Tensor) -> TrainingData:
        """Return some rows (k,) int64, in that order."""
        weights = None if self.weights is None else self.weights[rows]
        inputs: Any = DatasetInputs(self.inputs) if isinstance(self.inputs, np.memmap) else self.inputs  # still unread
        if isinstance(inputs, Tensor) and is_sparse(inputs):
            picked = csr_rows(inputs, rows)
        else:
            picked = inputs[rows.to(inputs.device) if isinstance(inputs, Tensor) else rows.cpu()]
        return TrainingData(picked, self.codes[rows], weights, self.n_classes)


class TensorClassifier(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Base of the classifiers here: checks, labels and both kinds of arrays. A child gives `fit` and `_logits`.

    A child has the parameter `device` and sets `module_`. Rows with weight 0 are dropped from the training data.
    """

    takes_tensors = True
    takes_inputs = False
    """Whether data sets and mapped files are read batch by batch, and not loaded whole."""
    flattens = False
    """Whether rows of more than one axis are made flat."""
    takes_sparse = False
    """Whether sparse matrices are read, without making them dense."""

    device: str | torch.device
    module_: nn.Module
    classes_: Array
    n_features_in_: int
    input_shape_: RowShape

    @abstractmethod
    def _logits(self, rows: Any) -> Tensor:
        """Return (n, C) logits of rows on the module's device, or (n, 1) for two classes.

        They are a tensor, or `NamedRows` for a child that streams.
        """

    @torch.inference_mode(mode=False)
    def _training_data(self, X: Any, y: Any, sample_weight: Any) -> TrainingData:
        """Check what a fit was given, and learn from it what the attributes say of rows and labels."""
        X = X.matrix if isinstance(X, SparseInputs) else X
        device = resolve_device(self.device, X)
        self.__dict__.pop("module_", None)  # it is of other data: a fit that fails leaves none
        inputs: Any
        if isinstance(X, Tensor):
            inputs = self._check_tensor(X, reset=True)
        elif is_streamed(X):
            inputs = self._check_streamed(X, reset=True)
        else:
            array, y = self._check_array(X, y)
            inputs = to_tensor(array)
        if isinstance(inputs, Tensor) and not (self.takes_inputs and exceeds_memory(inputs, device)):
            inputs = inputs.to(device)
        if isinstance(X, Tensor):
            check_finite_rows(inputs)
            inputs = inputs.clone() if inputs.is_inference() else inputs
        self.classes_, codes = encode_labels(y, device)
        if len(codes) != len(inputs):
            raise ShapeError(f"X has {len(inputs)} rows and y has {len(codes)}")
        data = TrainingData(inputs, codes, None, len(self.classes_))
        if sample_weight is not None:
            data = _with_weights(data, sample_weight)
        if data.n_classes < 2 or len(data.codes.unique()) < 2:
            raise DataError(
                f"{type(self).__name__} needs rows of at least 2 classes, got {data.codes.unique().numel()} class"
            )
        return data

    def take_data_from(self, other: TensorClassifier) -> None:
        """Learn from another estimator what it knows of rows and labels.

        Args:
            other: a fitted one of the same kind.
        """
        for name in ("classes_", "input_shape_", "n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(other, name):
                setattr(self, name, getattr(other, name))

    def decision_function(self, X: Any) -> Any:
        """Return logits, or for two classes the second's minus the first's: positive where `predict` says the second.

        Shapes:
            X: (n, ...).

        Returns:
            (n, C), columns in the order of `classes_`; (n,) for two classes.
        """
        return self._answer(X, self._decision)

    def predict(self, X: Any) -> Any:
        """Return the likeliest label of each row, (n,); of equally likely ones the first.

        Raises:
            DataError: X is a tensor and the labels are not numbers.
        """
        codes = self._codes(X)
        text = self.classes_.dtype.kind not in "biuf"
        if isinstance(X, Tensor) and text:
            raise DataError(
                f"labels of dtype {self.classes_.dtype} do not fit in a tensor; predict on an array instead"
            )
        if text or not _answers_tensors(X):
            return self.classes_[codes.cpu().numpy()]
        return torch.as_tensor(as_torch_takes(self.classes_), device=codes.device)[codes]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy, weighted where weights are given.

        Shapes:
            X: (n, ...).
            y: (n,).
            sample_weight: (n,).
        """
        if not (isinstance(X, Tensor) and isinstance(y, Tensor)):
            predicted = self.classes_[self._codes(X).cpu().numpy()]
            return float(accuracy_score(on_host(y), predicted, sample_weight=on_host(sample_weight)))
        predicted = self.predict(X)
        if y.shape != predicted.shape:
            raise ShapeError(f"y must have shape {tuple(predicted.shape)}, got {tuple(y.shape)}")
        is_right = predicted == move_to("y", y, predicted.device)
        if sample_weight is None:
            return int(is_right.sum()) / len(is_right)  # not a mean on the device, whose last bit depends on it
        right = is_right.double()
        weights = check_weights(sample_weight, len(right), right.device)
        return float(right @ weights / weights.sum())

    def _codes(self, X: Any) -> Tensor:
        return self._by_chunk(X, lambda rows: (self._predicted(self._logits(rows)),))[0]

    def _decision(self, logits: Tensor) -> Tensor:
        """Return decision values (n, C), or (n,) for two classes, of logits."""
        if logits.shape[1] > 2:
            return logits
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]

    def _predicted(self, logits: Tensor) -> Tensor:
        """Return positions in `classes_`, (n,) int64, of logits."""
        return likeliest(logits)

    def _answer(self, X: Any, output: Callable[[Tensor], Tensor]) -> Any:
        """Return an output of the logits (n, C) or (n, 1), as an array where X is one."""
        return as_answer(X, self._by_chunk(X, lambda rows: (output(self._logits(rows)),))[0])

    def _by_chunk(self, X: Any, compute: Callable[[Any], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Return what is computed of all rows, chunk by chunk, on the fitted module's device."""
        check_is_fitted(self, "module_")
        device = next(self.module_.parameters()).device
        X = X.matrix if isinstance(X, SparseInputs) else X
        with as_alone(device), torch.no_grad():
            inputs = self._check_rows(X, device)
            self.module_.eval()
            chunker, collected = Chunker(smallest=1), _Collected(len(inputs))
            finite, start = [], 0
            for rows in self._chunks(inputs, device):
                chunker(len(rows), len(rows), partial(collected.add, compute, rows, start))
                if is_streamed(X):  # its rows are gone with the next chunk
                    for name, tensor in each_tensor(rows):
                        check_finite(name, tensor, first_row=start)
                elif isinstance(X, Tensor) and rows.is_floating_point() and not is_sparse(X):
                    # one look at the end: each look waits for the device
                    finite.append(torch.isfinite(torch.stack(rows.aminmax())).all())
                start += len(rows)
            if (finite and not bool(torch.stack(finite).all())) or is_sparse(X):
                check_finite_rows(inputs)
        return collected.tensors

    def _chunks(self, inputs: Any, device: torch.device) -> Iterator[Any]:
        """Yield all rows in order, in chunks on the device."""
        if is_sparse(inputs):
            for start in range(0, len(inputs), _SPARSE_ROWS):
                yield csr_rows(inputs, slice(start, start + _SPARSE_ROWS)).to(device)
            return
        for rows in inputs.split(rows_per_pass(inputs[:1], device)):
            yield rows.to(device)

    def _check_rows(self, X: Any, device: torch.device) -> Any:
        """Return rows to predict on as a tensor, or as inputs to stream; they have the shape of the fitted ones."""
        if isinstance(self.input_shape_, dict) and not is_streamed(X):
            raise ShapeError(f"X has rows of one array, fitted were rows of {self.input_shape_}")
        if isinstance(X, Tensor):
            inputs = self._check_tensor(X, reset=False)
            check_place("X", inputs, device)
        elif is_streamed(X):
            inputs = self._check_streamed(X, reset=False)
        else:
            inputs = to_tensor(self._check_array(X)[0])
        shape = row_shape(inputs)
        if not have_one_shape(shape, self.input_shape_):
            raise ShapeError(f"X has rows of shape {shape}, fitted were rows of {self.input_shape_}")
        return inputs

    def _check_streamed(self, X: Any, *, reset: bool) -> Any:
        """Require real numbers by the first row; return inputs to stream, or a tensor where the model does not."""
        inputs: Any = as_inputs(X)
        if not len(inputs):
            raise DataError("X must have at least one row, got none")
        if not self.takes_inputs:
            return self._check_tensor(as_one_tensor(read_rows(inputs, list(range(len(inputs))))), reset=reset)
        first = read_rows(inputs, [0])
        if isinstance(first, Tensor):
            self._check_tensor(first, reset=reset)
            return inputs
        for name, tensor in each_tensor(first):
            check_real(name, tensor)
        if reset:
            self.input_shape_ = row_shape(inputs)
            self.n_features_in_ = len(first.tensors)
            self.__dict__.pop("feature_names_in_", None)  # of an earlier fit on a data frame
        return inputs

    def _check_tensor(self, X: Tensor, *, reset: bool) -> Tensor:
        """Require real numbers in rows, as many as were fitted; return the rows, detached."""
        if X.ndim < 2:
            raise ShapeError(
                f"X must have at least 2 axes, got shape {tuple(X.shape)}; one feature is X.reshape(-1, 1)"
            )
        check_real("X", X, on_meta=not reset)
        if is_sparse(X):
            if not self.takes_sparse or X.ndim != 2:
                raise DataError(
                    f"{type(self).__name__} does not read a sparse tensor of {X.ndim} axes; X.to_dense() is dense"
                )
            X = as_csr(X)
        if 0 in X.shape:
            raise DataError(f"X must have at least one row and one feature, got shape {tuple(X.shape)}")
        X = X.flatten(1) if self.flattens and not is_sparse(X) else X
        X = X if X.is_inference() else X.detach()
        if reset:
            self.input_shape_ = tuple(X.shape[1:])
            self.n_features_in_ = X.shape[1]
            if hasattr(self, "feature_names_in_"):  # of an earlier fit on a data frame
                del self.feature_names_in_
        elif X.shape[1] != self.n_features_in_:
            raise ShapeError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} features "
                "as input"
            )
        return X

    def _array_dtypes(self) -> Any:
        """Return what scikit-learn casts an array to if it is of none of these."""
        return np.float64, np.float32

    def _check_array(self, X: Any, *y: Any) -> tuple[Array, Any]:
        """Let scikit-learn check what is not a tensor; its complaints about values become a DataError."""
        if issparse(X) and not self.takes_sparse:
            raise DataError(f"{type(self).__name__} does not read a sparse matrix; X.toarray() is dense")
        if isinstance(X, Mapping) and not issparse(X):  # SciPy's dok_array is one
            raise DataError(f"X must be rows, got a {type(X).__name__} of {len(X)} columns; see torchal.DatasetInputs")
        settings: dict[str, Any] = {"dtype": self._array_dtypes(), "allow_nd": True, "reset": bool(y)}
        settings["accept_sparse"] = "csr" if self.takes_sparse else False
        try:
            if self.flattens and isinstance(X, np.ndarray | list | tuple) and np.ndim(X) > 2:
                X = np.asarray(X)
                X = X.reshape(len(X), math.prod(X.shape[1:]))
            if not y:
                return validate_data(self, X, **settings), None
            checked: tuple[Array, Array] = validate_data(self, X, *map(on_host, y), **settings)
        except ValueError as error:
            raise DataError(str(error)) from error
        self.input_shape_ = checked[0].shape[1:]
        return checked


class ProbabilityMixin:
    """Probabilities of the logits, for classifiers that have them."""

    def predict_log_proba(self: Any, X: Any) -> Any:
        """Return log-probabilities (n, C), columns in the order of `classes_`."""
        return self._answer(X, self._log_probs)

    def predict_proba(self: Any, X: Any) -> Any:
        """Return probabilities (n, C), columns in the order of `classes_`."""
        return self._answer(X, lambda logits: self._log_probs(logits).exp())

    def _log_probs(self, logits: Tensor) -> Tensor:
        """Return log-probabilities (n, C) of logits (n, C), or (n, 1) for two classes."""
        return log_probs(logits)


class _Collected:
    """Outputs of n rows, put together without a second copy of all."""

    def __init__(self, n: int) -> None:
        self._n = n
        self.tensors: tuple[Tensor, ...] = ()

    def add(
        self, compute: Callable[[Tensor], tuple[Tensor, ...]], rows: Tensor, before: int, start: int, stop: int
    ) -> None:
        """Compute rows[start:stop], which have `before` rows before rows[0]."""
        results = compute(csr_rows(rows, slice(start, stop)) if is_sparse(rows) else rows[start:stop])
        if stop - start == self._n:
            self.tensors = results
            return
        if before + start == 0:
            self.tensors = tuple(result.new_empty((self._n, *result.shape[1:])) for result in results)
        for tensor, result in zip(self.tensors, results, strict=True):
            tensor[before + start : before + stop] = result


@contextmanager
def as_alone(device: torch.device) -> Iterator[None]:
    """Compute outside the caller's autocast and inference mode."""
    with torch.inference_mode(mode=False), torch.autocast(device.type, enabled=False):
        yield


def exceeds_memory(inputs: Tensor, device: torch.device) -> bool:
    """Tell whether inputs would take more than half of a CUDA device's free memory, which training needs too."""
    if device.type != "cuda" or inputs.device.type == "cuda":
        return False
    return inputs.nbytes > torch.cuda.mem_get_info(device)[0] // 2


def as_answer(X: Any, output: Tensor) -> Any:
    """Return an output as an array where X is one, else as it is."""
    return output if _answers_tensors(X) else output.cpu().numpy()


def _answers_tensors(X: Any) -> bool:
    return isinstance(X, Tensor | DatasetInputs) or is_dataset(X)


def _with_weights(data: TrainingData, sample_weight: Any) -> TrainingData:
    """Return the data with weights, without the rows of weight 0."""
    weights = check_weights(sample_weight, len(data.codes), data.codes.device)
    data = data._replace(weights=weights)
    rows = weights.nonzero().squeeze(1)
    return data if len(rows) == len(weights) else data.rows(rows)


def likeliest(logits: Tensor) -> Tensor:
    """Return which class is likeliest, (...) int64, of logits (..., C), or (..., 1) for two classes."""
    return (logits[..., 0] > 0).long() if logits.shape[-1] == 1 else logits.argmax(-1)


def log_probs(logits: Tensor) -> Tensor:
    """Return log-probabilities (n, C) of logits (n, C), or (n, 1) for two classes."""
    if logits.shape[1] == 1:
        return nn.functional.logsigmoid(torch.cat([-logits, logits], 1))
    return logits.log_softmax(1)
