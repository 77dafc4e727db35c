"""From a sampler and a model to curves: the learner, the loop, the trainer, run folders and what is drawn from them.

Nothing here chooses a row; what a run needs from outside (charts, TensorBoard) is imported when it is asked for.
"""

from torchal.runs.learner import ActiveLearner as ActiveLearner
from torchal.runs.loggers import CsvLog as CsvLog
from torchal.runs.loop import rounds as rounds
from torchal.runs.results import Run as Run
from torchal.runs.results import find_runs as find_runs
from torchal.runs.schedule import Schedule as Schedule
from torchal.runs.tensorboard import TensorBoard as TensorBoard
from torchal.runs.trainer import Trainer as Trainer
