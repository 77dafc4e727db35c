"""Speak to any classifier in tensors: torchal's own, a scikit-learn estimator, or an object with fit and predict.

A model with the attribute `takes_tensors = True` gets tensors and answers with tensors. Any other model gets NumPy
arrays, and a scikit-learn estimator gets its rows flattened to two axes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torchal.errors import CapabilityError, ShapeError
from torchal.protocols import (
    Classifier,
    HasDecisionFunction,
    HasEmbedding,
    HasPosterior,
    HasProbabilities,
    Inputs,
    check_provides,
)

_ROWS_PER_CALL = 8192  # rows gathered at once from inputs that are not one tensor


def is_clonable(model: object) -> bool:
    """Tell whether a fresh, unfitted copy of the model can be made."""
    return hasattr(model, "__sklearn_clone__") or hasattr(model, "get_params")


def unfitted(model: Classifier) -> Classifier:
    """Return a fresh, unfitted copy of the model.

    Raises:
        CapabilityError: the model has no `get_params`, so only itself can be fitted again.
    """
    if not is_clonable(model):
        raise CapabilityError(f"{type(model).__name__} cannot be cloned: it has no get_params")
    from sklearn.base import clone

    cloned: Classifier = clone(model)
    return cloned


def fit(model: Classifier, inputs: Any, targets: Tensor) -> None:
    """Fit the model on inputs (n, ...) and targets (n,) int64."""
    model.fit(_as_taken(model, inputs), targets if _takes_tensors(model) else targets.cpu().numpy())


def predictions(model: Classifier, inputs: Inputs) -> Tensor:
    """Return the predicted labels, (N,) int64."""
    return _by_chunk(model, model.predict, inputs).to(torch.int64)


def decision_values(model: Classifier, inputs: Inputs) -> Tensor:
    """Return decision values, (N, C), or (N, 1) where the model has one value for two classes."""
    check_provides(model, HasDecisionFunction, needed_by="decision values")
    values = _by_chunk(model, model.decision_function, inputs)  # type: ignore[attr-defined]
    return values.unsqueeze(1) if values.ndim == 1 else values


def log_probs(model: Classifier, inputs: Inputs) -> Tensor:
    """Return log-probabilities (N, C) of the classes that the model has seen."""
    check_provides(model, HasProbabilities, needed_by="log-probabilities")
    if _takes_tensors(model) and hasattr(model, "predict_log_proba"):
        return _by_chunk(model, model.predict_log_proba, inputs)
    return _by_chunk(model, model.predict_proba, inputs).log()  # type: ignore[attr-defined]


def embedding(model: Classifier, inputs: Inputs) -> Tensor:
    """Return the model's features, (N, D)."""
    check_provides(model, HasEmbedding, needed_by="features")
    return _by_chunk(model, model.transform, inputs).flatten(1)  # type: ignore[attr-defined]


def posterior_log_probs(model: Classifier, inputs: Inputs, k: int) -> Tensor:
    """Return log-probabilities (N, K, C) under k posterior draws."""
    check_provides(model, HasPosterior, needed_by="posterior log-probabilities")
    return _by_chunk(model, lambda x: model.sample_log_probs(x, k), inputs)  # type: ignore[attr-defined]


def seen_classes(model: Classifier, targets: Tensor) -> Tensor:
    """Return the classes of the model's columns, (C,) int64 ascending: its `classes_`, else those it was fitted on."""
    classes = getattr(model, "classes_", None)
    return targets.unique() if classes is None else torch.as_tensor(classes).to(targets.device, torch.int64)


def raw_features(inputs: Inputs) -> Tensor:
    """Return the inputs themselves as flat rows (N, D) float."""
    rows = inputs if isinstance(inputs, Tensor) else torch.as_tensor(inputs[torch.arange(len(inputs))])
    flat = rows.flatten(1)
    return flat if flat.is_floating_point() else flat.to(torch.get_default_dtype())


def _takes_tensors(model: object) -> bool:
    return bool(getattr(model, "takes_tensors", False))


def _as_taken(model: object, rows: Any) -> Any:
    """Return rows in the form that the model takes."""
    if _takes_tensors(model):
        return rows
    if isinstance(rows, Tensor):
        if rows.ndim > 2 and hasattr(model, "__sklearn_tags__"):
            rows = rows.flatten(1)
        return rows.detach().cpu().numpy()
    return rows


def _by_chunk(model: object, method: Callable[[Any], Any], inputs: Inputs) -> Tensor:
    """Call a method on all inputs: at once on a tensor, in chunks of rows on anything else."""
    if isinstance(inputs, Tensor):
        out = _to_tensor(method(_as_taken(model, inputs)))
    else:
        rows = torch.arange(len(inputs)).split(_ROWS_PER_CALL)
        out = torch.cat([_to_tensor(method(_as_taken(model, inputs[chunk]))) for chunk in rows])
    if len(out) != len(inputs):
        raise ShapeError(f"{type(model).__name__} answered {len(inputs)} rows with {len(out)}")
    return out.to(inputs.device) if isinstance(inputs, Tensor) else out


def _to_tensor(values: Any) -> Tensor:
    return values.detach() if isinstance(values, Tensor) else torch.tensor(values)  # a copy: the array may be read-only
