"""What torchal asks of things it did not make: inputs, oracles and models.

A model is anything with `fit` and `predict`. Everything else it can do is a capability: a protocol with one method,
which a sampler names in `requires`. Models follow the scikit-learn interface, so its estimators need no wrapping.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray
from torch import Tensor

from torchal.errors import CapabilityError

UNLABELED = -1
"""The target of a row whose label was not bought."""


class Inputs(Protocol):
    """Rows that a model reads: anything with a length that is indexed by row numbers. A tensor qualifies."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: Tensor, /) -> Any:
        """Gather rows (n,) int64; the answer has n rows."""


Oracle = Callable[[Tensor], Tensor | NDArray[Any] | Sequence[Any]]
"""Answers rows (n,) int64 of the pool with their labels (n,). It may be a simulation or a person."""


class Classifier(Protocol):
    """The least that a model must have. Labels are whole numbers from 0."""

    def fit(self, X: Any, y: Any) -> Any:
        """Train from the start on inputs (n, ...) and labels (n,)."""

    def predict(self, X: Any) -> Any:
        """Return labels (n,)."""


class HasDecisionFunction(Protocol):
    """A model with decision values."""

    def decision_function(self, X: Any) -> Any:
        """Return decision values (n, C), or (n,) for two classes."""


class HasProbabilities(Protocol):
    """A model with class probabilities."""

    def predict_proba(self, X: Any) -> Any:
        """Return probabilities (n, C), columns in the order of `classes_`."""


class HasEmbedding(Protocol):
    """A model with an embedding of its inputs."""

    def transform(self, X: Any) -> Any:
        """Return features (n, D)."""


class Outputs(NamedTuple):
    """What a network makes of each row in one forward pass.

    Shapes:
        features: (n, D), the embedding; None where it was left out.
        logits: (n, C); their log-softmax are the log-probabilities.
    """

    features: Any
    logits: Any


class HasOutputs(Protocol):
    """A model that gives embedding and logits in one forward pass, and predicts the class of the largest logit."""

    def outputs(self, X: Any, *, most_features: int | None = None) -> Outputs:
        """Return both; without the embedding if that has more numbers than `most_features`."""


class LastLayer(NamedTuple):
    """The linear layer between a model's features and its logits: logits = features @ weight.T + bias.

    Log-probabilities are the log-softmax of the logits.

    Shapes:
        weight: (C, D), rows in the order of the model's classes.
        bias: (C,).
    """

    weight: Any
    bias: Any


class HasLastLayer(Protocol):
    """A model whose logits are linear in its features: those of `transform`, or the flat inputs where it has none."""

    def last_layer(self, X: Any) -> LastLayer:
        """Return the layer; X (n, ...) are some rows to look at it with, and one is enough."""


class HasPosterior(Protocol):
    """A model that can be drawn from its posterior, as by dropout or an ensemble."""

    def sample_log_probs(self, X: Any, k: int) -> Any:
        """Return log-probabilities (n, K, C) of k draws.

        Draw i is one function: the same for all rows, for every call, and for every k above i.
        """


class HasMaxDraws(Protocol):
    """A model whose posterior draws are the members of an ensemble or committee: there are no more of them."""

    @property
    def max_draws(self) -> int:
        """The largest k of `sample_log_probs`."""


class HasState(Protocol):
    """A model whose fitted state can be saved in tensors, numbers and text."""

    def state_dict(self) -> Any:
        """Return the fitted state."""

    def load_state_dict(self, state: Any) -> Any:
        """Become as fitted as the model whose state it is."""


class HasFitReport(Protocol):
    """A model that has something to say of its fit, for the record of a round."""

    def fit_report(self) -> dict[str, Any]:
        """Return plain numbers and text, by name."""


class HasBatchedFit(Protocol):
    """A model that fits many data sets of equal size at once faster than one after another."""

    def fit_many(self, X: Any, y: Any) -> Sequence[Any]:
        """Return T fitted copies, each as if cloned and fitted alone, on inputs (T, n, ...) and labels (T, n)."""


_MODELS_WITH: dict[type, str] = {
    HasLastLayer: "torchal.LogisticRegression and torchal.TorchClassifier have one",
    HasPosterior: (
        "torchal.TorchEnsemble and torchal.models.Committee have one, torchal.TorchClassifier where its network has "
        "dropout or with posterior='laplace', and torchal.LogisticRegression with posterior='laplace'"
    ),
}
"""What to say to someone whose model lacks a rare capability."""


def provides(model: object, capability: type) -> bool:
    """Tell whether a model has every method that a capability names.

    `isinstance` is not asked: since Python 3.12 it looks past the conditional methods of scikit-learn's
    meta-estimators, which are there or not depending on the estimator inside.

    Example:
        >>> provides(object(), HasProbabilities)
        False
    """
    return all(hasattr(model, name) for name in vars(capability) if not name.startswith("_"))


def check_provides(model: object, *alternatives: type, needed_by: str) -> None:
    """Require at least one of the capabilities.

    Args:
        model: any object.
        alternatives: the capabilities.
        needed_by: who needs one, for the message.

    Raises:
        CapabilityError: the model has none of them.
    """
    if not any(provides(model, capability) for capability in alternatives):
        names = [name for capability in alternatives for name in vars(capability) if not name.startswith("_")]
        raise CapabilityError(
            f"{needed_by} needs a model with {' or '.join(names)}; {type(model).__name__} has none before it is fitted"
            + "".join(f"; {_MODELS_WITH[capability]}" for capability in alternatives if capability in _MODELS_WITH)
        )
