"""The models that the command knows by name: classifiers of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torchal.errors import ConfigError
from torchal.protocols import Classifier

_PENALTIES = [10.0**power for power in range(-4, 5)]


def _logistic() -> Any:
    from torchal.models import LogisticRegression

    return LogisticRegression(C=_PENALTIES)


def _mlp() -> Any:
    from torchal.models import TorchClassifier

    return TorchClassifier()


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(random_state=0)


def _boosting() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0)


def _neighbors() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(weights="distance")


def _bayes() -> Any:
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB()


def _svm() -> Any:
    from torchal.models import KernelSVM

    return KernelSVM(C=_PENALTIES, gamma="scale")


MODELS: dict[str, Callable[[], Any]] = {
    "logistic": _logistic,
    "random_forest": _forest,
    "gradient_boosting": _boosting,
    "mlp": _mlp,
    "kernel_svm": _svm,
    "k_neighbors": _neighbors,
    "naive_bayes": _bayes,
}


def make_model(name: str) -> Classifier:
    """Return an unfitted classifier.

    Raises:
        ConfigError: there is none of this name; the message lists those there are.

    Example:
        >>> make_model("naive_bayes")
        GaussianNB()
    """
    if name not in MODELS:
        raise ConfigError(f"no model is named {name!r}; there are {', '.join(MODELS)}")
    model: Classifier = MODELS[name]()
    return model
