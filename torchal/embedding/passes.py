"""One pass over batches: arguments, a forward pass, answers that are checked and put where they belong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchal._batch import logits_of, moved
from torchal._checks import warn_of_probabilities
from torchal.embedding.batches import Arguments, Batches, arguments_of
from torchal.embedding.npy_stream import NpyStream
from torchal.errors import DataError, ShapeError
from torchal.protocols import Outputs


class InMemory:
    """Rows gathered where they are computed."""

    finished = False

    def __init__(self, n_total: int | None) -> None:
        self._n_total = n_total
        self._parts: list[Outputs] = []  # one with room for all rows, where their number is known
        self.n_batches = self.n_rows = 0
        self.widths: tuple[int, int] | None = None

    def write(self, features: Tensor, logits: Tensor) -> None:
        """Append one batch, (n, D) and (n, C)."""
        start, self.n_rows = self.n_rows, self.n_rows + len(features)
        self.n_batches += 1
        self.widths = features.shape[1], logits.shape[1]
        if self._n_total is None:
            self._parts.append(Outputs(features, logits))
            return
        if not self._parts:
            room = (values.new_empty(self._n_total, values.shape[1]) for values in (features, logits))
            self._parts = [Outputs(*room)]
        for whole, values in zip(self._parts[0], (features, logits), strict=True):
            whole[start : self.n_rows] = values

    def finish(self) -> None:
        """Do nothing: there is no file to close."""

    def read(self) -> Outputs:
        """Return all rows."""
        return self._parts[0] if len(self._parts) == 1 else Outputs(*map(torch.cat, zip(*self._parts, strict=True)))


class Pass:
    """What is done to a batch: arguments made of it and moved, one forward pass, its answer in memory of its own."""

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        context: AbstractContextManager[Any],
        batch_to_inputs: Callable[[Any], Any] | None,
        embedding: Callable[[], Tensor],
    ) -> None:
        self.dtype = next(
            (one.dtype for one in tensors_of(module) if one.is_floating_point()), torch.get_default_dtype()
        )
        self.answer_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self._module = module
        self._device = device
        self._context = context
        self._batch_to_inputs = batch_to_inputs
        self._embedding = embedding

    def answers_in(self) -> np.dtype[Any]:
        """Return the dtype of the answers in NumPy."""
        return np.dtype(str(self.answer_dtype).removeprefix("torch."))

    def arguments(self, batch: Any) -> Arguments:
        """Return what the module is called with for a batch."""
        positional, named = moved(arguments_of(batch, self._batch_to_inputs), self._device, self.dtype)
        return positional, named

    def __call__(self, arguments: Arguments) -> Tensor:
        """Run one batch; return the logits, as they come."""
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False), self._context:
            return logits_of(self._module(*arguments[0], **arguments[1]))

    def features(self) -> Tensor:
        """Return the embedding of the batch that ran."""
        return self._embedding()

    def kept(self, values: Tensor) -> Tensor:
        """Return a copy: what the module gives may share memory with the batch or with a buffer of its next pass."""
        return values.detach().to(self._device, self.answer_dtype, copy=True)


def fill(rows: InMemory | NpyStream, batches: Batches, run: Pass, *, first_row: int = 0, of: str = "") -> Iterator[int]:
    """Run all batches that are not there yet; yield after each how many rows it has.

    Args:
        rows: where they go.
        batches: all of them.
        run: what is done to each.
        first_row: the number of their first row in the data, for errors.
        of: what they are a part of, for errors.
    """
    remaining = iter(batches.since(rows.n_batches))
    while True:
        where = f"batch {rows.n_batches}{of}"
        with _told(f"while reading {where}"):
            arguments = next((run.arguments(batch) for batch in remaining), None)
        if arguments is None:
            break
        with _told(f"in the forward pass of {where}"):
            logits = run(arguments)
            _check_rows("logits", logits, where, n=batches.n_in(rows.n_rows), width=rows.widths and rows.widths[1])
            features = run.features()
        _check_rows("features", features, where, n=len(logits), width=rows.widths and rows.widths[0])
        if rows.n_batches == 0 and first_row == 0:
            warn_of_probabilities(logits, by="the module")
        answer = Outputs(run.kept(features), run.kept(logits))
        _check_finite(answer, where, first_row + rows.n_rows)
        rows.write(*answer)
        yield len(answer.logits)
    counted = batches.n_rows is not None
    if not rows.n_rows or (counted and rows.n_rows != batches.n_rows):
        expected = f", expected {batches.n_rows}" if counted else ""
        raise DataError(f"the data{of} has {rows.n_rows} rows in {rows.n_batches} batches{expected}")


def _check_rows(name: str, values: Tensor, where: str, *, n: int | None, width: int | None) -> None:
    """Require (n, width), where these are known."""
    if values.ndim != 2:
        raise ShapeError(f"{name} must be (n, C), got shape {tuple(values.shape)} in {where}")
    expected = (len(values) if n is None else n, values.shape[1] if width is None else width)
    if values.shape != expected or not values.shape[1]:
        raise ShapeError(f"{name} must have shape {expected}, got {tuple(values.shape)} in {where}")


def _check_finite(answer: Outputs, where: str, n_before: int) -> None:
    if not len(answer.logits):
        return
    # NaN goes through minimum and maximum; both tensors together, since each look waits for the device
    if bool(torch.isfinite(torch.stack([*answer.features.aminmax(), *answer.logits.aminmax()])).all()):
        return
    for name, values in answer._asdict().items():
        bad = (~torch.isfinite(values)).any(1)
        if bool(bad.any()):
            which = f"{int(bad.sum())} of {len(bad)} rows of {where} are not"
            raise DataError(f"{name} must be finite: {which}, the first is row {n_before + int(bad.nonzero()[0])}")


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Let errors through with a note that says where."""
    try:
        yield
    except Exception as error:
        vars(error)["__notes__"] = [*getattr(error, "__notes__", ()), where]  # what `add_note` does, since Python 3.11
        raise


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Return all weights and buffers."""
    yield from module.parameters()
    yield from module.buffers()
