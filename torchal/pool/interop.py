"""Speak to any classifier in tensors: torchal's own, a scikit-learn estimator, or an object with fit and predict.

A model with the attribute `takes_tensors = True` gets tensors and answers with tensors; with `takes_inputs = True` it
also gets data sets and mapped files as they are, and reads them batch by batch itself. Any other model gets NumPy
arrays, and a scikit-learn estimator gets its rows flattened to two axes. Sparse rows reach any model as a SciPy CSR
matrix; one that takes tensors must say `takes_sparse = True`, or it gets none. Rows of a table reach it as a table, and
one that takes tensors as the numbers of its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from torchal._checks import check_finite
from torchal.errors import CapabilityError, DataError, ShapeError
from torchal.pool.classes import Classes
from torchal.pool.dataset_inputs import DatasetInputs
from torchal.pool.file_inputs import FileInputs
from torchal.pool.inputs import SparseInputs, gather, is_sparse
from torchal.pool.relabeled import Relabeled
from torchal.pool.tables import TableInputs
from torchal.protocols import (
    Classifier,
    HasBatchedFit,
    HasDecisionFunction,
    HasEmbedding,
    HasFitReport,
    HasLastLayer,
    HasPosterior,
    HasProbabilities,
    Inputs,
    LastLayer,
    Outputs,
    check_provides,
    provides,
)

_MADE_OF_LOGITS = ("predict", "predict_proba", "predict_log_proba", "decision_function")
_ROWS_PER_CALL = 8192  # rows gathered at once from inputs that are not one tensor
_ROWS_LOOKED_AT = 16  # by a model that is asked for its last layer


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


def silent_copy(model: Classifier) -> Classifier:
    """Return a fresh copy without the callbacks that only look on: a fit that nobody is to hear of."""
    copied: Any = unfitted(model)
    settings = dict(copied.get_params()) if hasattr(copied, "set_params") else {}
    for name, callbacks in settings.items():
        if name.split("__")[-1] != "callbacks" or not isinstance(callbacks, list | tuple):
            continue
        rest = [callback for callback in callbacks if not getattr(callback, "watches_only", False)]
        progress = f"{name.removesuffix('callbacks')}progress"
        quiet = {progress: False} if settings.get(progress) is True else {}
        copied.set_params(**{name: rest}, **quiet)
    return copied  # type: ignore[no-any-return]


def fit(model: Classifier, inputs: Any, targets: Tensor) -> Classifier:
    """Fit the model on inputs (n, ...) and targets (n,) int64; return it.

    One that takes no tensors is fitted on 0 to C - 1 where some classes have no row, since not every library takes
    others; what is returned then predicts the classes themselves.
    """
    classes, codes = targets.unique(return_inverse=True)
    has_gaps = len(classes) > 0 and int(classes[-1]) != len(classes) - 1
    if _takes_tensors(model) or not has_gaps:
        model.fit(_as_taken(model, inputs), targets if _takes_tensors(model) else targets.cpu().numpy())
        return model
    model.fit(_as_taken(model, inputs), codes.cpu().numpy())
    return Relabeled(model, range(len(classes)), classes)


def fit_many(model: Classifier, data: Iterable[tuple[Any, Tensor]], *, same_bits: bool = False) -> list[Classifier]:
    """Return copies of the model, each fitted on one of several pairs of inputs (n, ...) and targets (n,) int64.

    All at once where the model can do that and the pairs are tensors of one shape, else one after another; with
    `same_bits` all at once only where the model then gives each to the same bits as `fit` (`fits_as_alone`).

    Raises:
        CapabilityError: the model cannot be cloned.
        ShapeError: its `fit_many` answers with another number of models.
    """
    if provides(model, HasBatchedFit) and (not same_bits or fits_as_alone(model)):
        data = list(data)
        shapes = {inputs.shape if isinstance(inputs, Tensor) else None for inputs, _ in data}
        if len(shapes) == 1 and None not in shapes:
            inputs, targets = (torch.stack(part) for part in zip(*data, strict=True))
            return _fit_stacked(model, inputs, targets, {"same_bits": True} if same_bits else {})
    fitted = []
    for inputs, targets in data:  # which may be made one by one
        fitted.append(fit(unfitted(model), inputs, targets))
    return fitted


def fits_as_alone(model: object) -> bool:
    """Tell whether a model's `fit_many` can give each fit the bits that it has alone."""
    return bool(getattr(model, "fits_as_alone", False))


def _fit_stacked(model: Classifier, inputs: Tensor, targets: Tensor, settings: dict[str, bool]) -> list[Classifier]:
    stacked: tuple[Any, Any] = inputs, targets
    if not _takes_tensors(model):
        flat = inputs.flatten(2) if inputs.ndim > 3 and hasattr(model, "__sklearn_tags__") else inputs
        stacked = flat.detach().cpu().numpy(), targets.cpu().numpy()
    fitted = list(model.fit_many(*stacked, **settings))  # type: ignore[attr-defined]
    if len(fitted) != len(targets):
        raise ShapeError(f"{type(model).__name__}.fit_many answered {len(targets)} data sets with {len(fitted)} models")
    return fitted


def is_frozen(model: object) -> bool:
    """Tell whether a model is fitted already, and fits no more, as scikit-learn's FrozenEstimator."""
    return type(model).__name__ == "FrozenEstimator" and type(model).__module__.startswith("sklearn.")


def as_trained(model: Any, classes: Classes) -> tuple[Classifier, Classes]:
    """Return a model that is fitted already, with the numbers of classes in the place of its labels, and the classes.

    Where these are yet to be learned, they are the model's.

    Raises:
        CapabilityError: it is not fitted, or does not say on which classes.
        DataError: its classes are none of these, or in another order.
    """
    labels = getattr(model, "classes_", None)
    if labels is None:
        raise CapabilityError(f"{type(model).__name__} is to be used as it is, and has no classes_: it is not fitted")
    codes, classes = classes.encode(labels, n=len(labels))
    if bool((codes.diff() <= 0).any()):
        raise DataError(
            f"the model's classes are in the order {', '.join(map(str, labels))}, those of the pool are not: give the "
            "pool classes= in this order"
        )
    if classes.names is None and codes.tolist() == list(labels):
        return model, classes
    return Relabeled(model, labels, codes), classes


def fit_report(model: Classifier) -> dict[str, Any]:
    """Return what the model says of its fit; nothing where it does not."""
    return dict(model.fit_report()) if provides(model, HasFitReport) else {}  # type: ignore[attr-defined]


def check_classifier(model: object) -> None:
    """Require a classifier that learns one label per row.

    Raises:
        CapabilityError: it has no fit or predict, or is a class, a regressor, or a classifier of several labels.
    """
    name = model.__name__ if isinstance(model, type) else type(model).__name__
    if isinstance(model, type):
        raise CapabilityError(f"a model is an object, got the class {name}; call it: {name}()")
    if hasattr(model, "__sklearn_tags__"):  # asked first: a meta-estimator may have predict only once it is fitted
        tags = model.__sklearn_tags__()
        if tags.estimator_type != "classifier":
            kind = (
                f"a {tags.estimator_type}"
                if tags.estimator_type
                else "no classifier by its tags (ClassifierMixin stands before BaseEstimator)"
            )
            raise CapabilityError(f"a model must be a classifier; {name} is {kind}")
        if not tags.target_tags.single_output:
            raise CapabilityError(f"{name} learns several labels per row; torchal learns one")
        return
    for needed in ("fit", "predict"):
        if not hasattr(model, needed):
            raise CapabilityError(f"a model needs fit and predict; {name} has no {needed}")


def check_reads(model: object, inputs: object, *, name: str = "inputs") -> None:
    """Require a model that reads inputs of this kind, as far as its attributes say so.

    Raises:
        CapabilityError: the inputs are sparse, or a table with columns that are no numbers, and the model takes tensors
            that are not; or rows are mappings, and the model does not read data sets by itself, as `TorchClassifier`.
        DataError: values are missing (NaN), and the model does not fill them in.
    """
    takes_tensors = _takes_tensors(model)
    names = inputs.names() if isinstance(inputs, DatasetInputs) and not _takes_inputs(model) else []
    if names:
        raise CapabilityError(
            f"{type(model).__name__} cannot read rows that are mappings ({', '.join(names)}); use a network in "
            "torchal.TorchClassifier, or DatasetInputs(..., to_row=), which makes one tensor of each"
        )
    if isinstance(inputs, SparseInputs) and takes_tensors and not getattr(model, "takes_sparse", False):
        raise CapabilityError(
            f"{type(model).__name__} cannot read sparse rows; make them dense with .toarray(), or use a model that "
            "reads them: torchal.LogisticRegression, or one of scikit-learn's"
        )
    if isinstance(inputs, TableInputs) and takes_tensors:
        inputs[:1].numbers()
        inputs = inputs.numbers()
    if isinstance(inputs, Tensor) and inputs.is_floating_point() and not _may_read_missing(model):
        check_finite(name, inputs)


def _may_read_missing(model: object) -> bool:
    """Tell whether a model may read NaN: it says so, or is made of others, which only a fit can tell, or unknown."""
    if _takes_tensors(model):
        return False
    if not hasattr(model, "__sklearn_tags__") or hasattr(model, "steps") or hasattr(model, "estimator"):
        return True
    return bool(model.__sklearn_tags__().input_tags.allow_nan)


def predictions(model: Classifier, inputs: Inputs) -> Tensor:
    """Return the predicted labels, (N,) int64.

    Raises:
        ShapeError: the model answers with something else than one whole number per row.
    """
    labels = _by_chunk(model, model.predict, inputs)
    labels = labels.squeeze(1) if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim != 1 or (labels.is_floating_point() and not bool((labels == labels.trunc()).all())):
        raise ShapeError(
            f"{type(model).__name__}.predict must answer with one whole number per row, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    return labels.to(torch.int64)


def decision_values(model: Classifier, inputs: Inputs) -> Tensor:
    """Return decision values, (N, C), or (N, 1) where the model has one value for two classes.

    Raises:
        ShapeError: the values are of pairs of classes (scikit-learn's SVC with decision_function_shape="ovo").
    """
    check_provides(model, HasDecisionFunction, needed_by="decision values")
    values = _by_chunk(model, model.decision_function, inputs)  # type: ignore[attr-defined]
    settings = model.get_params() if hasattr(model, "get_params") else vars(model)
    of_pairs = any(name.split("__")[-1] == "decision_function_shape" and v == "ovo" for name, v in settings.items())
    if values.ndim == 2 and of_pairs:
        raise ShapeError(
            f"{type(model).__name__} has decision values of pairs of classes; set decision_function_shape='ovr'"
        )
    return values.unsqueeze(1) if values.ndim == 1 else values


def log_probs(model: Classifier, inputs: Inputs) -> Tensor:
    """Return log-probabilities (N, C) of the classes that the model has seen."""
    return _by_chunk(model, _log_probs_method(model), inputs)


def log_probs_of(model: Classifier, inputs: Inputs, rows: Tensor) -> Tensor:
    """Return log-probabilities (n, C) of a few rows (n,) int64, in one call of the model."""
    return _of_rows(model, _log_probs_method(model), inputs, rows)


def _log_probs_method(model: Classifier) -> Callable[[Any], Any]:
    check_provides(model, HasProbabilities, needed_by="log-probabilities")
    logarithms: Callable[[Any], Any] | None = getattr(model, "predict_log_proba", None)
    is_older = _age(model, "predict_log_proba") > _age(model, "predict_proba")  # than what a child says in its place
    if logarithms is not None and _takes_tensors(model) and not is_older:
        return logarithms
    return lambda x: _to_tensor(model.predict_proba(x)).log()  # type: ignore[attr-defined]


def shares_a_pass(model: object) -> bool:
    """Tell whether a model gives embedding and logits in one forward pass (`HasOutputs`), of any inputs.

    One does not whose class has an answer of its own, as `predict_log_proba`, beside the `outputs` that it inherits.
    """
    # other libraries' networks have an attribute of this name too, which is no method
    if not (callable(getattr(model, "outputs", None)) and _takes_inputs(model)):
        return False
    return all(_age(model, "outputs") <= _age(model, name) for name in _MADE_OF_LOGITS)


def _age(model: object, method: str) -> int:
    """Return how many classes lie between a model's own and the ancestor that has a method; of none all."""
    ancestors = type(model).__mro__
    return next((i for i, ancestor in enumerate(ancestors) if method in vars(ancestor)), len(ancestors))


def outputs(model: Classifier, inputs: Inputs, *, most_features: int | None) -> Outputs:
    """Return features (N, D), None if they would be more numbers than `most_features`, and logits (N, C)."""
    if isinstance(inputs, FileInputs):
        return _outputs_in_blocks(model, inputs, most_features)
    given = model.outputs(_as_taken(model, inputs), most_features=most_features)  # type: ignore[attr-defined]
    features, logits = (None if values is None else _to_tensor(values) for values in given)
    for values in (features, logits):
        if values is not None and len(values) != len(inputs):
            raise ShapeError(f"{type(model).__name__} answered {len(inputs)} rows with {len(values)}")
    return Outputs(None if features is None else features.flatten(1), logits)


def _outputs_in_blocks(model: Any, inputs: FileInputs, most_features: int | None) -> Outputs:
    """Return what `outputs` does of rows that are read block by block."""
    wanted = most_features is None
    if most_features:
        one = outputs(model, inputs[torch.tensor([0])], most_features=None)
        assert one.features is not None
        wanted = len(inputs) * one.features.shape[1] <= most_features

    def compute(rows: Tensor) -> tuple[Tensor, ...]:
        of_block = outputs(model, rows, most_features=None if wanted else 0)
        return (of_block.logits,) if of_block.features is None else (of_block.logits, of_block.features)

    logits, *features = inputs.in_blocks(compute)
    return Outputs(features[0] if features else None, logits)


def predictions_and_log_probs(model: Classifier, inputs: Inputs, classes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return predicted labels (N,) int64, and log-probabilities (N, C) of these classes (C,), in one pass if possible.

    Those are None where the model has none.
    """
    if shares_a_pass(model):
        _, logits = outputs(model, inputs, most_features=0)
        check_columns(model, logits, classes, one_for_two=False)
        return classes.to(logits.device)[logits.argmax(1)], log_probs_of_logits(logits)
    if not provides(model, HasProbabilities):
        return predictions(model, inputs), None
    narrow = check_columns(model, log_probs(model, inputs), classes, one_for_two=False)
    return predictions(model, inputs), narrow


def scores_of(logits: Tensor) -> Tensor:
    """Return decision values of logits (N, C): themselves, or for two classes their difference (N, 1)."""
    return logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits


def log_probs_of_logits(logits: Tensor) -> Tensor:
    """Return log-probabilities (N, C) of logits (N, C)."""
    return logits.log_softmax(1)


def announce_round(model: object, round: int) -> None:  # noqa: A002 - the loop's word
    """Tell the callbacks of a model, or of the models inside it, which round it is about to be fitted for."""
    settings = dict(model.get_params()) if hasattr(model, "get_params") else {}
    settings.setdefault("callbacks", getattr(model, "callbacks", None))
    for name, callbacks in settings.items():
        for callback in (callbacks or ()) if name.split("__")[-1] == "callbacks" else ():
            if hasattr(callback, "on_round"):
                callback.on_round(round)


def embedding(model: Classifier, inputs: Inputs) -> Tensor:
    """Return the model's features, (N, D)."""
    check_provides(model, HasEmbedding, needed_by="features")
    return _by_chunk(model, model.transform, inputs).flatten(1)  # type: ignore[attr-defined]


def posterior_log_probs(model: Classifier, inputs: Inputs, k: int, rows: Tensor | None = None) -> Tensor:
    """Return log-probabilities (N, K, C) under k posterior draws; of a few rows (n,) int64 in one call."""
    check_provides(model, HasPosterior, needed_by="posterior log-probabilities")

    def draw(x: Any) -> Any:
        return model.sample_log_probs(x, k)  # type: ignore[attr-defined]

    return _by_chunk(model, draw, inputs) if rows is None else _of_rows(model, draw, inputs, rows)


def check_draws(model: object, inputs: Inputs, n_classes: int) -> None:
    """Let a model that knows before its fit whether there is something to draw say so, by its `check_draws`.

    Raises:
        CapabilityError: there is not.
    """
    check = getattr(model, "check_draws", None)
    if callable(check):
        check(_as_taken(model, gather(inputs, torch.arange(min(len(inputs), 2), device="cpu"))), n_classes)


def last_layer(model: Classifier, inputs: Inputs) -> LastLayer:
    """Return the linear layer between the model's features and its logits."""
    check_provides(model, HasLastLayer, needed_by="the last layer")
    rows = torch.arange(min(len(inputs), _ROWS_LOOKED_AT), device="cpu")
    weight, bias = model.last_layer(_as_taken(model, gather(inputs, rows)))  # type: ignore[attr-defined]
    return LastLayer(_to_tensor(weight), _to_tensor(bias))


def seen_classes(model: Classifier, targets: Tensor) -> Tensor:
    """Return the classes of the model's columns, (C,) int64 ascending: its `classes_`, else those it was fitted on."""
    classes = getattr(model, "classes_", None)
    return targets.unique() if classes is None else torch.as_tensor(classes).to(targets.device, torch.int64)


def check_columns(model: object, output: Tensor, classes: Tensor, *, one_for_two: bool) -> Tensor:
    """Return an output (N, C) of a model that has one column per seen class, or one for two where that is allowed.

    Raises:
        ShapeError: the number of columns is another.
    """
    if output.ndim != 2:
        raise ShapeError(f"{type(model).__name__} must answer with (N, C), got shape {tuple(output.shape)}")
    n_columns, n_classes = output.shape[1], len(classes)
    if n_columns != n_classes and not (one_for_two and n_columns == 1 and n_classes == 2):
        raise ShapeError(
            f"{type(model).__name__} has {n_columns} columns for the {n_classes} classes it has seen; a model whose "
            "columns are other classes than those it was fitted on must say so in classes_"
        )
    return output


def raw_features(inputs: Inputs) -> Tensor:
    """Return the inputs themselves as flat rows (N, D) float.

    Raises:
        CapabilityError: they are sparse, and are not to become dense unasked.
    """
    if isinstance(inputs, SparseInputs):
        (n_rows, n_columns), dtype = inputs.shape, inputs.matrix.dtype
        itemsize = dtype.itemsize if dtype.kind == "f" else torch.get_default_dtype().itemsize
        raise CapabilityError(
            f"features of sparse inputs would be a dense {n_rows} x {n_columns} matrix of "
            f"{n_rows * n_columns * itemsize / 2**30:.3g} GiB; reduce them first, as "
            "sklearn.decomposition.TruncatedSVD does (n_components of a data set of documents), and give the pool the "
            "result, or use a sampler that looks at the model's scores, such as Margin or Entropy"
        )
    if isinstance(inputs, TableInputs):
        inputs = inputs.numbers()
    if isinstance(inputs, FileInputs):
        return inputs.features  # type: ignore[return-value]  # whoever takes features reads them chunk by chunk
    rows = _loaded(inputs if isinstance(inputs, Tensor) else gather(inputs, torch.arange(len(inputs), device="cpu")))
    flat = rows.flatten(1)
    return flat if flat.is_floating_point() else flat.to(torch.get_default_dtype())


def preprocesses(model: object, inputs: Inputs) -> bool:
    """Tell whether rows are a table that is no numbers, of which a model's own pipeline makes some."""
    return isinstance(inputs, TableInputs) and bool(inputs.other_columns) and hasattr(_best_of(model), "steps")


def preprocessed(model: Classifier, inputs: Inputs) -> Tensor:
    """Return what a fitted pipeline makes of rows before its last step, (N, D) float.

    Raises:
        CapabilityError: it makes sparse rows, which are not to become dense unasked.
    """
    first_steps = _best_of(model)[:-1]

    def transform(rows: Any) -> Any:
        made = first_steps.transform(rows)
        if is_sparse(made):
            raise CapabilityError(
                f"the pipeline makes sparse rows of shape {tuple(made.shape)}, which have no distances here; add a "
                "step that makes dense ones, as sklearn.decomposition.TruncatedSVD does, or use a sampler that looks "
                "at the model's scores, such as Margin or Entropy"
            )
        return made.to_numpy() if hasattr(made, "to_numpy") else made

    return raw_features(_by_chunk(model, transform, inputs))


def _best_of(model: object) -> Any:
    """Return the estimator that a search has chosen; any other model itself."""
    return getattr(model, "best_estimator_", model)


def _loaded(rows: Any) -> Tensor:
    return rows.load() if isinstance(rows, DatasetInputs) else torch.as_tensor(rows)


def _takes_inputs(model: object) -> bool:
    return bool(getattr(model, "takes_inputs", False))


def _takes_tensors(model: object) -> bool:
    return bool(getattr(model, "takes_tensors", False))


def _as_taken(model: object, rows: Any) -> Any:
    """Return rows in the form that the model takes."""
    if isinstance(rows, SparseInputs):
        check_reads(model, rows)
        return rows.matrix
    if isinstance(rows, TableInputs):
        return rows.numbers() if _takes_tensors(model) else rows.table
    if _takes_inputs(model):
        return rows
    rows = rows.load() if isinstance(rows, DatasetInputs) else rows
    if _takes_tensors(model):
        return rows
    if isinstance(rows, Tensor):
        if rows.ndim > 2 and hasattr(model, "__sklearn_tags__") and not getattr(model, "keeps_shape", False):
            rows = rows.flatten(1)
        rows = rows.float() if rows.dtype == torch.bfloat16 else rows  # which NumPy does not have
        return rows.detach().cpu().numpy()
    return rows


def _by_chunk(model: object, method: Callable[[Any], Any], inputs: Inputs) -> Tensor:
    """Call a method on all inputs: at once on a tensor or where the model reads for itself, else chunk by chunk."""
    if isinstance(inputs, FileInputs):
        return inputs.in_blocks(lambda rows: (_by_chunk(model, method, rows),))[0]
    if isinstance(inputs, Tensor) or _takes_inputs(model):
        out = _to_tensor(method(_as_taken(model, inputs)))
    else:
        rows = torch.arange(len(inputs), device="cpu").split(_ROWS_PER_CALL)
        out = torch.cat([_to_tensor(method(_as_taken(model, gather(inputs, chunk)))) for chunk in rows])
    if len(out) != len(inputs):
        raise ShapeError(f"{type(model).__name__} answered {len(inputs)} rows with {len(out)}")
    return out.to(inputs.device) if isinstance(inputs, Tensor) else out


def _of_rows(model: object, method: Callable[[Any], Any], inputs: Inputs, rows: Tensor) -> Tensor:
    """Call a method on a few rows (n,) int64, all at once."""
    out = _to_tensor(method(_as_taken(model, gather(inputs, rows))))
    if len(out) != len(rows):
        raise ShapeError(f"{type(model).__name__} answered {len(rows)} rows with {len(out)}")
    return out


def _to_tensor(values: Any) -> Tensor:
    if is_sparse(values):
        raise CapabilityError(
            f"a model answered with a sparse matrix of shape {tuple(values.shape)}, which is not made dense unasked"
        )
    return values.detach() if isinstance(values, Tensor) else torch.tensor(values)  # a copy: the array may be read-only
