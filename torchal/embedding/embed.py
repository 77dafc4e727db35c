"""Embeddings and logits of a whole data set in one pass, in memory or in files."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from torchal._batch import logits_of, moved
from torchal._checks import as_device, check_flag, check_whole, warn_of_probabilities
from torchal.embedding.batches import Arguments, Batches, arguments_of, as_batches, digest
from torchal.embedding.capture import capture, layer_name
from torchal.embedding.npy_stream import Fingerprint, NpyStream
from torchal.embedding.precision import Precision, autocast, check_precision, dtype_of, is_mixed
from torchal.errors import CapabilityError, DataError, ShapeError
from torchal.protocols import Inputs, Outputs


def embed(
    module: nn.Module,
    data: Tensor | NDArray[Any] | Dataset[Any] | DataLoader[Any] | Iterable[Any] | Inputs,
    *,
    layer: str | None = None,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    precision: Precision | None = None,
    batch_to_inputs: Callable[[Any], Any] | None = None,
    num_workers: int = 0,
    out: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Outputs:
    """Compute embeddings and logits of a whole data set in one pass.

    The module runs in evaluation mode without gradients, and is as it was afterwards; where it has to be moved or cast,
    a copy of it runs. A batch that is a tensor goes to `module(batch)`, a tuple or list of inputs and perhaps labels to
    `module(batch[0])`, a mapping to `module(**batch)` without "label" and "labels". Tensors are moved to the device,
    and floating ones cast to the module's dtype. The module answers with logits: a tensor, an object with `.logits`, a
    mapping with "logits", or a tuple that begins with them. Batches and rows count from 0.

    With `out`, rows go to `.npy` files as they come, in bounded memory. A pass that was killed goes on at the batch
    where it stopped when `embed` is called again with the same arguments, with the same bytes in the end as one left
    alone (if the module and the data are deterministic). A finished file is read, not made again. Whether the arguments
    are the same is judged by the weights, the layers' own descriptions, the settings, the number of rows or batches
    where it is known, and batch 0: other rows after it, or other code in a `forward`, need another file.

    Args:
        module: any network.
        data: rows in a tensor or an array (a memory-mapped one is read batch by batch); a torch data set or
            DatasetInputs; a DataLoader that does not shuffle; or any iterable of batches.
        layer: whose output is the embedding, see `capture`; what goes into the last nn.Linear unless given.
        batch_size: rows per pass. A DataLoader and an iterable of batches have their own.
        device: where to run; where the module's parameters are unless given.
        precision: "fp32" or "fp64" casts the module; "bf16-mixed" and "fp16-mixed" run it under `torch.autocast`; the
            module's own unless given. Answers are float64 where the module is, else float32.
        batch_to_inputs: makes the module's inputs of a batch of another kind: a tensor, a tuple of positional or a
            mapping of keyword arguments.
        num_workers: processes that read a data set.
        out: the file of the features, as "features.npy"; logits go to "features.logits.npy". While they grow, the files
            have the suffix ".partial"; "features.npy.json" says what they were made of.
        progress: show a progress bar.

    Shapes:
        data: (N, ...).

    Returns:
        features (N, D) and logits (N, C): tensors where the module ran, or read-only memory maps of the files.

    Raises:
        ConfigError: a setting is unknown or impossible; there is no such layer or device; the DataLoader's order is not
            that of its data set, or it leaves rows out; `out` holds something else.
        CapabilityError: the layer did not run or gave no tensor, or the module answers with something else.
        DataError: there are no rows; data or a batch is of an unknown kind; features or logits are not finite.
        ShapeError: logits are not (n, C); rows or widths disagree.
        RunError: another process writes to `out`, or its files are damaged.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> features, logits = embed(net, torch.randn(10, 4), batch_size=4, progress=False)
        >>> features.shape, logits.shape
        (torch.Size([10, 3]), torch.Size([10, 2]))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     on_disk = embed(net, torch.randn(10, 4), out=f"{folder}/features.npy", progress=False)
        >>> type(on_disk.features).__name__, on_disk.features.shape
        ('memmap', (10, 3))
    """
    if not isinstance(module, nn.Module):
        raise CapabilityError(f"module must be an nn.Module, got {type(module).__name__}")
    if precision is not None:
        check_precision(precision)
    check_whole("batch_size", batch_size, least=1)
    check_whole("num_workers", num_workers, least=0)
    check_flag("progress", progress)
    mixed = precision is not None and is_mixed(precision)
    runner, where = _placed(module, device, None if precision is None or mixed else dtype_of(precision))
    batches = as_batches(data, batch_size=batch_size, num_workers=num_workers, pin_memory=where.type == "cuda")
    context = nullcontext() if precision is None else autocast(precision, where)
    with ExitStack() as stack:
        # The answers are to be of use with autograd later, also if the caller is in inference mode.
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(_in_evaluation_mode(runner))
        run = _Pass(runner, where, context, batch_to_inputs, stack.enter_context(capture(runner, layer)))
        if out is None:
            rows = _InMemory(batches.n_rows)
            _fill(rows, batches, run, progress=progress)
            return rows.read()
        fingerprint: Fingerprint = {
            "module": _digest_of_module(module),
            "layer": layer_name(module, layer),
            "precision": precision if mixed else str(run.dtype).removeprefix("torch."),
            "batch_size": batches.batch_size,
            "n_rows": batches.n_rows,
            "n_batches": batches.n_batches,
            "first_batch": digest(arguments_of(batches.first(), batch_to_inputs)),
            "device": where.type,
        }
        answers = np.dtype(str(run.answer_dtype).removeprefix("torch."))
        stream = stack.enter_context(NpyStream(out, fingerprint, answers))
        if not stream.finished:
            _fill(stream, batches, run, progress=progress)
        return Outputs(*stream.read())


class _InMemory:
    """Rows gathered where they are computed."""

    def __init__(self, n_total: int | None) -> None:
        self._n_total = n_total
        self._parts: list[Outputs] = []  # one with room for all rows, where their number is known
        self.n_batches = self.n_rows = 0
        self.widths: tuple[int, int] | None = None

    def write(self, features: Tensor, logits: Tensor) -> None:
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
        return self._parts[0] if len(self._parts) == 1 else Outputs(*map(torch.cat, zip(*self._parts, strict=True)))


class _Pass:
    """What is done to a batch: arguments made of it and moved, one forward pass, its answer in memory of its own."""

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        context: AbstractContextManager[Any],
        batch_to_inputs: Callable[[Any], Any] | None,
        embedding: Callable[[], Tensor],
    ) -> None:
        self.dtype = next((one.dtype for one in _tensors(module) if one.is_floating_point()), torch.get_default_dtype())
        self.answer_dtype = torch.float64 if self.dtype == torch.float64 else torch.float32
        self._module = module
        self._device = device
        self._context = context
        self._batch_to_inputs = batch_to_inputs
        self._embedding = embedding

    def arguments(self, batch: Any) -> Arguments:
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


def _fill(rows: _InMemory | NpyStream, batches: Batches, run: _Pass, *, progress: bool) -> None:
    """Run all batches that are not there yet."""
    counted = batches.n_rows is not None
    remaining = iter(batches.since(rows.n_batches))
    with tqdm(
        desc="embed",
        total=batches.n_rows if counted else batches.n_batches,
        initial=rows.n_rows if counted else rows.n_batches,
        unit="row" if counted else "batch",
        disable=not progress,
    ) as bar:
        while True:
            where = f"batch {rows.n_batches}"
            with _told(f"while reading {where}"):
                arguments = next((run.arguments(batch) for batch in remaining), None)
            if arguments is None:
                break
            with _told(f"in the forward pass of {where}"):
                logits = run(arguments)
                _check_rows("logits", logits, where, n=batches.n_in(rows.n_rows), width=rows.widths and rows.widths[1])
                features = run.features()
            _check_rows("features", features, where, n=len(logits), width=rows.widths and rows.widths[0])
            if rows.n_batches == 0:
                warn_of_probabilities(logits, by="the module")
            answer = Outputs(run.kept(features), run.kept(logits))
            _check_finite(answer, where, rows.n_rows)
            rows.write(*answer)
            bar.update(len(answer.logits) if counted else 1)
    if not rows.n_rows or (counted and rows.n_rows != batches.n_rows):
        expected = f", expected {batches.n_rows}" if counted else ""
        raise DataError(f"the data has {rows.n_rows} rows in {rows.n_batches} batches{expected}")
    rows.finish()


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


def _placed(
    module: nn.Module, device: str | torch.device | None, dtype: torch.dtype | None
) -> tuple[nn.Module, torch.device]:
    """Return the module, or a copy where it has to be moved or cast, and where its inputs belong."""
    tensors = list(_tensors(module))
    if any(nn.parameter.is_lazy(one) for one in tensors):
        raise CapabilityError(f"{type(module).__name__} has weights that its first pass will make: run it once before")
    home = tensors[0].device if tensors else torch.device("cpu")
    where = home if device is None else as_device(device)
    moved = device is not None and any(one.device != where for one in tensors)
    cast = dtype is not None and any(one.is_floating_point() and one.dtype != dtype for one in tensors)
    if moved or cast:
        module = copy.deepcopy(module)
    if moved:
        module.to(where)
    if cast:
        module.to(dtype)
    return module, where


@contextmanager
def _in_evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set the module to evaluation mode, and back.

    Flags are set one by one, since `eval()` and `train()` may be overridden to do more than that: some layers merge
    weights there.
    """
    flags = [(one, one.training) for one in module.modules()]
    try:
        for one, _ in flags:
            one.training = False
        yield
    finally:
        for one, training in flags:
            one.training = training


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _digest_of_module(module: nn.Module) -> str:
    """Return a digest of the weights and of what the layers say of themselves, strides and slopes for instance."""
    module = getattr(module, "_orig_mod", module)  # compiled or not, it is the same
    return digest([repr(module), module.state_dict(), dict(module.named_buffers())])
