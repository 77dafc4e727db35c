"""The rows: what they are, which have labels, what a sampler may see of them and learn from a round.

No strategy and no model lives here; `interop` speaks to any model in tensors.
"""

from torchal.pool.dataset_inputs import DatasetInputs as DatasetInputs
from torchal.pool.file_inputs import FileInputs as FileInputs
from torchal.pool.inputs import SparseInputs as SparseInputs
from torchal.pool.labels import LabeledData as LabeledData
from torchal.pool.pool import Pool as Pool
from torchal.pool.round_result import RoundResult as RoundResult
from torchal.pool.tables import TableInputs as TableInputs
from torchal.pool.view import PoolView as PoolView
