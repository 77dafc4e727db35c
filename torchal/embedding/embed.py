"""Embeddings and logits of a whole data set in one pass, in memory or in files."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from torchal._checks import as_device, check_flag, check_whole
from torchal.distributed import Group
from torchal.embedding.batches import Batches, arguments_of, as_batches, digest
from torchal.embedding.capture import capture, layer_name
from torchal.embedding.id_columns import IdColumns, Ids
from torchal.embedding.npy_stream import Fingerprint, NpyStream, StreamFiles, files_of
from torchal.embedding.passes import InMemory, Pass, fill, tensors_of
from torchal.embedding.precision import Precision, autocast, check_precision, dtype_of, is_mixed
from torchal.embedding.ranks import each, ranks_of
from torchal.embedding.shard_folder import FEATURES, LOGITS, ShardFolder
from torchal.embedding.sharded import Prepared, fill_folder
from torchal.embedding.shards import open_shards
from torchal.errors import CapabilityError, ConfigError
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
    shard_rows: int | None = None,
    ids: Ids | Mapping[str, Ids] | None = None,
    group: Group | None = None,
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

    With a folder as `out`, rows go to numbered shards of `shard_rows` rows, in the layout of clip-retrieval:
    `img_emb/img_emb_07.npy`, the ids of its rows in `metadata/metadata_07.parquet`, and the logits in
    `logits/logits_07.npy`; `open_shards` reads them. Processes of a `group`, under torchrun say, share them out, each
    with the whole data set and the same arguments. Which rows a shard has hangs on no number of processes, so that
    a pass that was killed can go on with another number of them: finished shards are kept, others go on at the batch
    where they stopped, and the bytes in the end are the same. Until all are there, they are in `unfinished` in the
    folder. Each shard begins a batch of its own: with shard_rows a multiple of the batch size, rows are in the same
    batches as without shards. If one process fails, all stop with an error that says why.

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
            have the suffix ".partial"; "features.npy.json" says what they were made of. Or a folder, of any other name.
        shard_rows: rows in a shard; those of the folder if it was begun already, else about 100 000 unless given.
        ids: an id for each row, or several columns by name, as {"image_path": ..., "caption": ...}; written beside
            shards. Rows' numbers, in a column "id", unless given.
        group: the processes that fill a folder together; `torch.distributed.group.WORLD` for all of them. This process
            alone unless given.
        progress: show a progress bar; in a group, rank 0 does.

    Shapes:
        data: (N, ...).

    Returns:
        features (N, D) and logits (N, C): tensors where the module ran, or read-only memory maps of the files, or
        `ShardedFeatures` of a folder.

    Raises:
        ConfigError: a setting is unknown or impossible; there is no such layer or device; the DataLoader's order is not
            that of its data set, or it leaves rows out; `out` holds something else; ranks embed different things.
        CapabilityError: the layer did not run or gave no tensor, or the module answers with something else.
        DataError: there are no rows; data or a batch is of an unknown kind; features or logits are not finite; data
            that is read from its beginning to its end only is to be cut into shards.
        ShapeError: logits are not (n, C); rows or widths disagree; ids are not one for each row.
        RunError: another process writes to `out`, or its files are damaged or cannot be written.
        GroupError: another rank failed, or is gone.
        MissingExtraError: a folder of shards needs pyarrow, which is not installed.

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
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     shards = embed(net, torch.randn(10, 4), out=f"{folder}/shards", shard_rows=4, progress=False).features
        ...     print(shards.shape, [shard.path.name for shard in shards.files], shards.ids([9]))
        (10, 3) ['img_emb_0.npy', 'img_emb_1.npy', 'img_emb_2.npy'] [9]
    """
    if not isinstance(module, nn.Module):
        raise CapabilityError(f"module must be an nn.Module, got {type(module).__name__}")
    if precision is not None:
        check_precision(precision)
    check_whole("batch_size", batch_size, least=1)
    check_whole("num_workers", num_workers, least=0)
    check_flag("progress", progress)
    task = _Task(module, data, layer, batch_size, device, precision, batch_to_inputs, num_workers)
    target = _target(out, shard_rows=shard_rows, ids=ids, group=group)
    with ExitStack() as stack:
        if isinstance(target, ShardFolder):
            ranks = ranks_of(group, _device_of(module, device))
            stack.callback(target.close)
            prepared = each(ranks, lambda: task.prepare_shards(stack, ids))
            fill_folder(target, prepared, ranks, shard_rows=shard_rows, progress=progress)
            parts = (FEATURES, LOGITS)
            return each(ranks, lambda: Outputs(*(open_shards(target.path, subfolder=part) for part in parts)))
        batches, run, where = task.prepare(stack)
        rows: InMemory | NpyStream
        if target is None:
            rows = InMemory(batches.n_rows)
        else:
            rows = stack.enter_context(NpyStream(target, task.fingerprint(batches, run, where), run.answers_in()))
        if not rows.finished:
            _fill(rows, batches, run, progress=progress)
        return Outputs(*rows.read())


def _fill(rows: InMemory | NpyStream, batches: Batches, run: Pass, *, progress: bool) -> None:
    counted = batches.n_rows is not None
    with tqdm(
        desc="embed",
        total=batches.n_rows if counted else batches.n_batches,
        initial=rows.n_rows if counted else rows.n_batches,
        unit="row" if counted else "batch",
        disable=not progress,
    ) as bar:
        for n_rows in fill(rows, batches, run):
            bar.update(n_rows if counted else 1)
    rows.finish()


def _target(
    out: str | os.PathLike[str] | None, *, shard_rows: int | None, **only_for_a_folder: object
) -> StreamFiles | ShardFolder | None:
    """Return where rows go: into memory, into a file, or into a folder of shards."""
    if shard_rows is not None:
        check_whole("shard_rows", shard_rows, least=1)
    path = None if out is None else Path(out).expanduser()
    named = path is not None and path.suffix == ".npy" and not path.is_dir()
    if path is not None and not named:
        if path.suffix and shard_rows is None and not path.is_dir():
            raise ConfigError(
                f"out must be the path of an .npy file or of a folder, got {str(out)!r}; a new folder with a dot in "
                "its name needs shard_rows"
            )
        if path.exists() and not path.is_dir():
            raise ConfigError(f"out must be a folder or end in .npy, {str(out)!r} is a file")
        return ShardFolder(path)
    for name, value in ({"shard_rows": shard_rows} | only_for_a_folder).items():
        if value is not None:
            where = "nothing" if path is None else f"one file, {path.name}"
            raise ConfigError(f"{name} is for a folder of shards; out is {where}: give a folder")
    return None if path is None else files_of(path)


@dataclass(frozen=True)
class _Task:
    """What is to be embedded, and how."""

    module: nn.Module
    data: Any
    layer: str | None
    batch_size: int
    device: str | torch.device | None
    precision: Precision | None
    batch_to_inputs: Callable[[Any], Any] | None
    num_workers: int

    def prepare(self, stack: ExitStack) -> tuple[Batches, Pass, torch.device]:
        """Make the module ready until the stack is closed."""
        precision = self.precision
        runner, where = _placed(
            self.module, self.device, None if precision is None or is_mixed(precision) else dtype_of(precision)
        )
        batches = as_batches(
            self.data, batch_size=self.batch_size, num_workers=self.num_workers, pin_memory=where.type == "cuda"
        )
        context = nullcontext() if precision is None else autocast(precision, where)
        # The answers are to be of use with autograd later, also if the caller is in inference mode.
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(_in_evaluation_mode(runner))
        embedding = stack.enter_context(capture(runner, self.layer))
        return batches, Pass(runner, where, context, self.batch_to_inputs, embedding), where

    def prepare_shards(self, stack: ExitStack, ids: Ids | Mapping[str, Ids] | None) -> Prepared:
        batches, run, where = self.prepare(stack)
        batches.part(range(1))  # what cannot be cut says so before there is a folder
        columns = IdColumns(ids, batches.n_rows or 0)
        fingerprint = self.fingerprint(batches, run, where)
        return Prepared(batches, run, columns, {**fingerprint, "ids": columns.fingerprint(batches.batch_size or 1)})

    def fingerprint(self, batches: Batches, run: Pass, where: torch.device) -> Fingerprint:
        """Return what the rows are made of."""
        mixed = self.precision is not None and is_mixed(self.precision)
        return {
            "module": _digest_of_module(self.module),
            "layer": layer_name(self.module, self.layer),
            "precision": self.precision if mixed else str(run.dtype).removeprefix("torch."),
            "batch_size": batches.batch_size,
            "n_rows": batches.n_rows,
            "n_batches": batches.n_batches,
            "first_batch": digest(arguments_of(batches.first(), self.batch_to_inputs)),
            "device": where.type,
        }


def _placed(
    module: nn.Module, device: str | torch.device | None, dtype: torch.dtype | None
) -> tuple[nn.Module, torch.device]:
    """Return the module, or a copy where it has to be moved or cast, and where its inputs belong."""
    tensors = list(tensors_of(module))
    where = _device_of(module, device)
    if any(nn.parameter.is_lazy(one) for one in tensors):
        raise CapabilityError(f"{type(module).__name__} has weights that its first pass will make: run it once before")
    moved = device is not None and any(one.device != where for one in tensors)
    cast = dtype is not None and any(one.is_floating_point() and one.dtype != dtype for one in tensors)
    if moved or cast:
        module = copy.deepcopy(module)
    if moved:
        module.to(where)
    if cast:
        module.to(dtype)
    return module, where


def _device_of(module: nn.Module, device: str | torch.device | None) -> torch.device:
    """Return where a module is to run: where it is, unless told otherwise."""
    home = next((one.device for one in tensors_of(module)), torch.device("cpu"))
    return home if device is None else as_device(device)


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


def _digest_of_module(module: nn.Module) -> str:
    """Return a digest of the weights and of what the layers say of themselves, strides and slopes for instance."""
    module = getattr(module, "_orig_mod", module)  # compiled or not, it is the same
    return digest([repr(module), module.state_dict(), dict(module.named_buffers())])
