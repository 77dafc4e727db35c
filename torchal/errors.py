"""The errors torchal raises. Each is also the builtin error that a caller would catch."""

from typing import Any


class TorchalError(Exception):
    """Base of every error that torchal raises on purpose."""


class ShapeError(TorchalError, ValueError):
    """Tensors disagree in shape, dtype or device."""


class BudgetError(TorchalError, ValueError):
    """More rows were asked for than there are candidates, or fewer than one."""


class CapabilityError(TorchalError, TypeError):
    """A sampler needs something that the model does not have."""


class DataError(TorchalError, ValueError):
    """The data cannot be used: not finite, empty, one class, ragged, or contradicting itself."""


class FitError(DataError):
    """A model refused the labels that there are, as one that wants more of each class. What was told is kept."""


class DivergenceError(DataError, ArithmeticError):
    """A network's loss or weights are no longer finite. `curves` are those of the epochs before."""

    curves: Any = None


class ConfigError(TorchalError, ValueError):
    """A setting is unknown, impossible, or differs from the one that a run folder was made with."""


class MissingExtraError(TorchalError, ImportError):
    """A package that torchal does not always need is not installed; the message says which extra brings it."""


class RunError(TorchalError, RuntimeError):
    """A run folder is in use, damaged or not writable."""


class GroupError(TorchalError, RuntimeError):
    """Another rank of a process group failed or is gone; what it met is in the message, where it could still say so."""


class DeviceMemoryError(TorchalError, MemoryError):
    """The device is out of memory even for the smallest chunk of work."""
