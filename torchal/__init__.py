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
from torchal.errors import FitError as FitError
from torchal.errors import MissingExtraError as MissingExtraError
from torchal.errors import RunError as RunError
from torchal.errors import ShapeError as ShapeError
from torchal.errors import TorchalError as TorchalError
from torchal.functional import FileRows as FileRows
from torchal.functional import Selection as Selection
from torchal.pool import DatasetInputs as DatasetInputs
from torchal.pool import LabeledData as LabeledData
from torchal.pool import Pool as Pool
from torchal.pool import PoolView as PoolView
from torchal.pool import RoundResult as RoundResult
from torchal.pool import SparseInputs as SparseInputs
from torchal.pool import TableInputs as TableInputs
from torchal.protocols import UNLABELED as UNLABELED
from torchal.runs import ActiveLearner as ActiveLearner
from torchal.runs import CsvLog as CsvLog
from torchal.runs import Run as Run
from torchal.runs import Schedule as Schedule
from torchal.runs import TensorBoard as TensorBoard
from torchal.runs import Trainer as Trainer
from torchal.runs import metrics as metrics
from torchal.runs import results as results
from torchal.runs import rounds as rounds
from torchal.samplers import Sampler as Sampler
from torchal.samplers import ScoreSampler as ScoreSampler

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
