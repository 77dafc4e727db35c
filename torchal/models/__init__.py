"""Torch modules behind the scikit-learn interface. The names are imported when they are asked for."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchal.models.callbacks import Callback as Callback
    from torchal.models.callbacks import Epoch as Epoch
    from torchal.models.callbacks import ProgressBar as ProgressBar
    from torchal.models.callbacks import TensorBoardLog as TensorBoardLog
    from torchal.models.ensemble import TorchEnsemble as TorchEnsemble
    from torchal.models.kernel_least_squares import KernelLeastSquares as KernelLeastSquares
    from torchal.models.kernel_svm import KernelSVM as KernelSVM
    from torchal.models.linear import LogisticRegression as LogisticRegression
    from torchal.models.linear import OneVsRestLogisticRegression as OneVsRestLogisticRegression
    from torchal.models.linear_svm import LinearSVM as LinearSVM
    from torchal.models.nets import MLP as MLP
    from torchal.models.nets import AllConv as AllConv
    from torchal.models.nets import SmallCNN as SmallCNN
    from torchal.models.nets import TorchvisionNet as TorchvisionNet
    from torchal.models.torch_classifier import TorchClassifier as TorchClassifier

_MODULES = {
    "AllConv": "nets",
    "Callback": "callbacks",
    "Epoch": "callbacks",
    "KernelLeastSquares": "kernel_least_squares",
    "KernelSVM": "kernel_svm",
    "LinearSVM": "linear_svm",
    "LogisticRegression": "linear",
    "MLP": "nets",
    "OneVsRestLogisticRegression": "linear",
    "ProgressBar": "callbacks",
    "SmallCNN": "nets",
    "TensorBoardLog": "callbacks",
    "TorchClassifier": "torch_classifier",
    "TorchEnsemble": "ensemble",
    "TorchvisionNet": "nets",
}
__all__ = [
    "MLP",
    "AllConv",
    "Callback",
    "Epoch",
    "KernelLeastSquares",
    "KernelSVM",
    "LinearSVM",
    "LogisticRegression",
    "OneVsRestLogisticRegression",
    "ProgressBar",
    "SmallCNN",
    "TensorBoardLog",
    "TorchClassifier",
    "TorchEnsemble",
    "TorchvisionNet",
]


def __getattr__(name: str) -> object:
    """Import a model when it is asked for: scikit-learn, which most of them need, takes 0.75 s."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
