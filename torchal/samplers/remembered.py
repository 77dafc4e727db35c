"""To know inputs again, so that what was computed from them need not be computed twice."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")

_SAMPLE = 4096


class Remembered:
    """Inputs as they were: a tensor is known again by its contents, anything else by itself.

    It keeps them alive, so that no other tensor can take their place in memory. Writes are noticed where torch counts
    them, and else, as those to an inference tensor or to a NumPy array with the same memory, if they change one of some
    thousand values that are kept.
    """

    def __init__(self, inputs: Any) -> None:
        self._inputs = inputs
        self._version = _version(inputs)
        self._sample = _sample(inputs)

    def is_same(self, inputs: Any) -> bool:
        """Tell whether these are the same inputs, unchanged."""
        old = self._inputs
        if not isinstance(old, Tensor) or not isinstance(inputs, Tensor):
            return inputs is old
        if (inputs.shape, inputs.dtype, inputs.device) != (old.shape, old.dtype, old.device):
            return False
        if _version(old) != self._version or not _sample(old).equal(self._sample):
            return False  # written to, so nobody knows what it was
        if inputs is old:
            return True
        if inputs.data_ptr() == old.data_ptr() and inputs.stride() == old.stride() and inputs.is_neg() == old.is_neg():
            return _version(inputs) == self._version
        return inputs.equal(old)


_shared: dict[tuple[int, Hashable], tuple[int | None, Tensor, Any]] = {}


def shared_by_samplers(inputs: Any, settings: Hashable, compute: Callable[[], Value]) -> Value:
    """Return a value that all samplers of these settings have in common on the very same inputs, computed once.

    So trials on one pool have one graph, one tree, one clustering. It is kept while the inputs are alive, which it does
    not keep alive, and computed anew where they were written to, as `Remembered` notices it.

    Args:
        inputs: of the pool; anything that can be referred to weakly.
        settings: what else the value depends on.
        compute: computes it.
    """
    key = id(inputs), settings
    known = _shared.get(key)
    if known is not None and known[0] == _version(inputs) and known[1].equal(_sample(inputs)):
        value: Value = known[2]
        return value
    value = compute()
    if known is None:
        weakref.finalize(inputs, _shared.pop, key, None)
    _shared[key] = _version(inputs), _sample(inputs), value
    return value


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
"""What torch reads rows of, in place of dtypes of which older versions cannot."""


def _version(inputs: Any) -> int | None:
    """Return how often torch has counted a write to a tensor."""
    return None if not isinstance(inputs, Tensor) or inputs.is_inference() else inputs._version


def _sample(inputs: Any) -> Tensor:
    """Return a copy of some values of a tensor, spread over it."""
    if not isinstance(inputs, Tensor) or not inputs.numel():
        return torch.empty(0)
    index = torch.linspace(0, inputs.numel() - 1, min(inputs.numel(), _SAMPLE), dtype=torch.float64).long()
    places = torch.unravel_index(index.to(inputs.device), inputs.shape)
    return inputs.detach().view(_SIGNED.get(inputs.dtype, inputs.dtype))[places]


class OncePerInputs(Generic[Value]):
    """A value that is computed from inputs and kept until other inputs come. A copy of it is empty."""

    def __init__(self) -> None:
        self._inputs: Remembered | None = None
        self._settings: object = None
        self._value: Value | None = None

    def __reduce__(self) -> tuple[type[OncePerInputs[Value]], tuple[()]]:
        """Return how a copy is made: empty."""
        return OncePerInputs, ()

    def get(self, inputs: Any, settings: object, compute: Callable[[], Value]) -> Value:
        """Return the value for these inputs and settings, computed now if it was not for the same ones before."""
        known = self._inputs is not None and self._inputs.is_same(inputs) and self._settings == settings
        if self._value is None or not known:
            self._value, self._inputs, self._settings = compute(), Remembered(inputs), settings
        return self._value
