"""PyTorch-native, GPU-accelerated active learning.

`torchal.functional` has the math, tensors in and tensors out; `torchal.samplers` the query strategies; `torchal.models`
and `torchal.data` what they are tried on. The names below are all that most programs need.
"""

from typing import TYPE_CHECKING

from torchal import functional as functional
from torchal import samplers as samplers
from torchal.embedding import embed as embed
from torchal.errors import BudgetError as BudgetError
from torchal.errors import CapabilityError as CapabilityError
from torchal.errors import ConfigError as ConfigError
from torchal.errors import DataError as DataError
from torchal.errors import MissingExtraError as MissingExtraError
from torchal.errors import RunError as RunError
from torchal.errors import ShapeError as ShapeError
from torchal.errors import TorchalError as TorchalError
from torchal.functional import Selection as Selection
from torchal.inputs import DatasetInputs as DatasetInputs
from torchal.inputs import SparseInputs as SparseInputs
from torchal.labels import LabeledData as LabeledData
from torchal.learner import ActiveLearner as ActiveLearner
from torchal.loop import rounds as rounds
from torchal.pool import Pool as Pool
from torchal.protocols import UNLABELED as UNLABELED
from torchal.results import RoundResult as RoundResult
from torchal.results import Run as Run
from torchal.samplers import Sampler as Sampler
from torchal.samplers import ScoreSampler as ScoreSampler
from torchal.schedule import Schedule as Schedule
from torchal.trainer import Trainer as Trainer
from torchal.view import PoolView as PoolView

if TYPE_CHECKING:
    from torchal.models import LogisticRegression as LogisticRegression
    from torchal.models import TorchClassifier as TorchClassifier
    from torchal.models import TorchEnsemble as TorchEnsemble

__version__ = "0.1.0"

_NEED_SKLEARN = ("LogisticRegression", "TorchClassifier", "TorchEnsemble")


def __getattr__(name: str) -> object:
    """Import the models when they are asked for: scikit-learn takes 0.75 s."""
    if name in _NEED_SKLEARN:
        from torchal import models

        return getattr(models, name)
    raise AttributeError(f"module 'torchal' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_NEED_SKLEARN])
