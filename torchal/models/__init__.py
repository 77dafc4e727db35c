"""Classifiers with scikit-learn's interface: `classical` ones are solved, `networks` are trained.

What both share (checks, classes, sparse rows) lives here; strategies do not. The names are imported when asked for.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchal.models.classical.kernel_least_squares import KernelLeastSquares as KernelLeastSquares
    from torchal.models.classical.kernel_svm import KernelSVM as KernelSVM
    from torchal.models.classical.linear import LogisticRegression as LogisticRegression
    from torchal.models.classical.linear import OneVsRestLogisticRegression as OneVsRestLogisticRegression
    from torchal.models.classical.linear_svm import LinearSVM as LinearSVM
    from torchal.models.committee import Committee as Committee
    from torchal.models.networks.callbacks import Callback as Callback
    from torchal.models.networks.callbacks import Epoch as Epoch
    from torchal.models.networks.callbacks import ProgressBar as ProgressBar
    from torchal.models.networks.callbacks import TensorBoardLog as TensorBoardLog
    from torchal.models.networks.ensemble import TorchEnsemble as TorchEnsemble
    from torchal.models.networks.nets import MLP as MLP
    from torchal.models.networks.nets import AllConv as AllConv
    from torchal.models.networks.nets import SmallCNN as SmallCNN
    from torchal.models.networks.nets import TorchvisionNet as TorchvisionNet
    from torchal.models.networks.torch_classifier import TorchClassifier as TorchClassifier

_MODULES = {
    "AllConv": "networks.nets",
    "Callback": "networks.callbacks",
    "Committee": "committee",
    "Epoch": "networks.callbacks",
    "KernelLeastSquares": "classical.kernel_least_squares",
    "KernelSVM": "classical.kernel_svm",
    "LinearSVM": "classical.linear_svm",
    "LogisticRegression": "classical.linear",
    "MLP": "networks.nets",
    "OneVsRestLogisticRegression": "classical.linear",
    "ProgressBar": "networks.callbacks",
    "SmallCNN": "networks.nets",
    "TensorBoardLog": "networks.callbacks",
    "TorchClassifier": "networks.torch_classifier",
    "TorchEnsemble": "networks.ensemble",
    "TorchvisionNet": "networks.nets",
}
__all__ = [
    "MLP",
    "AllConv",
    "Callback",
    "Committee",
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
