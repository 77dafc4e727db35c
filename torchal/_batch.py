"""What goes into a network at once, one tensor or several by name, and the logits that come out of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal._checks import as_torch_takes
from torchal.errors import CapabilityError

LABEL_NAMES = ("label", "labels")
"""Names under which a mapping has its labels; a network is never given these."""


class NamedRows:
    """Some rows of several tensors by name, as of token ids and their mask: a network's keyword arguments.

    Rows are counted, sliced, split and moved as those of one tensor are.

    Args:
        tensors: at least one.

    Shapes:
        tensors: (n, ...) each.

    Example:
        >>> rows = NamedRows({"ids": torch.tensor([[7, 8], [9, 0]]), "mask": torch.tensor([[1, 1], [1, 0]])})
        >>> len(rows), rows[1:].tensors["ids"].tolist()
        (2, [[9, 0]])
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: Any) -> NamedRows:
        """Return some rows, a slice or (k,) int64."""
        return NamedRows({name: tensor[rows] for name, tensor in self.tensors.items()})

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self.tensors.values())).device

    def to(self, device: torch.device, dtype: torch.dtype | None = None, *, non_blocking: bool = False) -> NamedRows:
        """Return them on a device, floating ones of another dtype if one is given; whole numbers stay as they are."""
        return NamedRows(moved(self.tensors, device, dtype, non_blocking=non_blocking))

    def pin_memory(self) -> NamedRows:
        """Return them in pinned memory."""
        return self.each(Tensor.pin_memory)

    def each(self, change: Callable[[Tensor], Tensor]) -> NamedRows:
        """Return what a function makes of each tensor."""
        return NamedRows({name: change(tensor) for name, tensor in self.tensors.items()})

    def tensor_split(self, parts: int) -> Iterator[NamedRows]:
        """Yield parts of even sizes, as `torch.tensor_split` does."""
        for some in torch.arange(len(self), device="cpu").tensor_split(parts):
            yield self[int(some[0]) : int(some[-1]) + 1] if len(some) else self[:0]


Rows: TypeAlias = "Tensor | NamedRows"
"""Rows that go into a network at once."""


def each_tensor(rows: Rows) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the numbers of each tensor; one tensor has the name "X"."""
    if isinstance(rows, Tensor):
        yield "X", rows
        return
    for name, tensor in rows.tensors.items():
        yield f"X[{name!r}]", tensor


def cast(rows: Rows, dtype: torch.dtype | None) -> Rows:
    """Return rows of a dtype, as they are where it is None; whole numbers by name stay what they are."""
    return rows if dtype is None else rows.to(rows.device, dtype)


def channels_last(rows: Rows) -> Rows:
    """Return rows with images, which have four axes, in that memory order."""
    if isinstance(rows, NamedRows):
        return rows.each(_images_last)
    return _images_last(rows)


def _images_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def run(module: Callable[..., Any], rows: Rows) -> Tensor:
    """Return the logits with which a network answers rows.

    Raises:
        CapabilityError: it answers with something else.
    """
    return logits_of(module(**rows.tensors) if isinstance(rows, NamedRows) else module(rows))


def logits_of(answer: Any) -> Tensor:
    """Return the logits in a network's answer: a tensor, `.logits`, ["logits"], or what a tuple begins with.

    Raises:
        CapabilityError: there are none.
    """
    logits = logits_in(answer)
    if logits is None:
        raise CapabilityError(
            "the module must answer with logits: a tensor, an object or a mapping with logits, or a tuple that begins "
            f"with them; got {type(answer).__name__}"
        )
    return logits


def logits_in(answer: Any) -> Tensor | None:
    """Return the logits in a network's answer, if there are some."""
    if isinstance(answer, Tensor):
        return answer
    logits = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if logits is None and isinstance(answer, tuple) and answer:
        logits = answer[0]
    return logits if isinstance(logits, Tensor) else None


def without_labels(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping without its labels, which are not even looked up."""
    return {name: items[name] for name in items if name not in LABEL_NAMES}


def moved(value: Any, device: torch.device, dtype: torch.dtype | None, *, non_blocking: bool = True) -> Any:
    """Return the same structure with its tensors on the device, floating ones in this dtype if one is given."""
    if isinstance(value, np.ndarray) and is_numeric(value):
        value = array_as_tensor(value)
    if isinstance(value, Tensor):
        to = dtype if dtype is not None and value.is_floating_point() else value.dtype
        return value.to(device, to, non_blocking=non_blocking)
    if isinstance(value, Mapping):
        return {key: moved(item, device, dtype, non_blocking=non_blocking) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [moved(item, device, dtype, non_blocking=non_blocking) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def array_as_tensor(array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor; a copy where torch cannot share it: read-only, backwards, foreign byte order."""
    return torch.from_numpy(as_torch_takes(array))


def is_numeric(array: NDArray[Any]) -> bool:
    """Tell whether torch has these numbers."""
    return array.dtype.kind in "biuf" and array.dtype.itemsize <= 8
