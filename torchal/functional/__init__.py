"""The math: tensors in, tensors out. Nothing here knows a pool, a model or a config."""

from torchal.functional.selection import Selection as Selection
from torchal.functional.selection import top_n as top_n
from torchal.functional.uncertainty import entropy as entropy
from torchal.functional.uncertainty import least_confidence as least_confidence
from torchal.functional.uncertainty import margin as margin
