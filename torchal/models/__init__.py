"""Torch modules behind the scikit-learn interface. The names are imported when they are asked for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchal.models.linear import LogisticRegression as LogisticRegression
    from torchal.models.nets import MLP as MLP
    from torchal.models.torch_classifier import TorchClassifier as TorchClassifier

__all__ = ["MLP", "LogisticRegression", "TorchClassifier"]

_MODULES = {"LogisticRegression": "linear", "MLP": "nets", "TorchClassifier": "torch_classifier"}


def __getattr__(name: str) -> object:
    """Import a model when it is asked for: scikit-learn, which most of them need, takes 0.75 s."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
