"""How rows come to a network: by row number on its device, or through a DataLoader."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torchal._batch import Rows, channels_last
from torchal.errors import TorchalError
from torchal.pool.dataset_inputs import DatasetInputs
from torchal.pool.inputs import read_rows

_GATHERED_NUMBERS = 2**20  # numbers of the batches that are gathered at once
_ROWS_WORTH_WORKERS = 512
_MOST_WORKERS = 8


class DeviceRows:
    """Rows of one tensor on the device: a batch is a gather, with no work on the host.

    Args:
        inputs: (n, ...).
        dtype: what to cast to, None for nothing; rows that would take more memory in it are cast batch by batch.
        channels_last: keep images in that order in memory.
    """

    def __init__(self, inputs: Tensor, dtype: torch.dtype | None, *, channels_last: bool = False) -> None:
        dtype = self._dtype = dtype or inputs.dtype
        self._format = torch.channels_last if channels_last and inputs.ndim == 4 else torch.contiguous_format
        self._inputs = inputs.to(dtype) if inputs.dtype.itemsize >= dtype.itemsize else inputs

    def batches(self, order: Tensor | None, sizes: Sequence[int], epoch: int) -> Iterator[Tensor]:
        """Yield consecutive batches of rows in an order (n,); all rows as they are where there is none."""
        del epoch  # these rows are the same in each
        if order is None:
            yield self._as_taken(self._inputs)
            return
        row_numbers = max(1, self._inputs[:1].numel())
        at_once = max(1, _GATHERED_NUMBERS // (row_numbers * max(sizes)))
        start = 0
        for i in range(0, len(sizes), at_once):
            some = list(sizes[i : i + at_once])
            rows = self._inputs[order[start : start + sum(some)]]
            start += sum(some)
            for batch in rows.split(some):
                yield self._as_taken(batch)

    def _as_taken(self, batch: Tensor) -> Tensor:
        batch = batch if batch.dtype == self._dtype else batch.to(self._dtype)
        return batch if self._format is torch.contiguous_format else batch.contiguous(memory_format=self._format)


class LoadedRows:
    """Rows read by a DataLoader, with workers and prefetch, and pinned memory where the device is CUDA.

    What is random in reading a row while training (augmentation) follows from the seed, the epoch and the row alone,
    whatever the number of workers.

    Args:
        inputs: DatasetInputs, a mapped array, or a tensor that does not fit on the device.
        device: where the batches go.
        dtype: what to cast to, None for nothing; of rows by name only floating ones.
        num_workers: processes that read; None for half the cores where a data set has rows enough, else none.
        seed: of the augmentation; None when not training.
        channels_last: keep images in that order in memory.
        reused: whether there will be another epoch, for which the workers are kept.
    """

    def __init__(
        self,
        inputs: Any,
        device: torch.device,
        dtype: torch.dtype | None,
        *,
        num_workers: int | None,
        seed: int | None = None,
        channels_last: bool = False,
        reused: bool = False,
    ) -> None:
        self._device, self._dtype = device, dtype
        self._channels_last = channels_last
        self._n = len(inputs)
        self._requests = _Requests()
        self._pins = device.type == "cuda"
        workers = _n_workers(inputs) if num_workers is None else num_workers
        self._loader: DataLoader[Any] = DataLoader(
            _Reader(inputs, seed),
            sampler=self._requests,
            batch_size=None,
            num_workers=workers,
            pin_memory=self._pins and workers > 0,
            persistent_workers=workers > 0 and reused,
            generator=torch.Generator().manual_seed(0),  # or the loader would draw from the global one
        )

    def batches(self, order: Tensor | None, sizes: Sequence[int], epoch: int = 0) -> Iterator[Rows]:
        """Yield consecutive batches of rows in an order (n,); in their own order where there is none.

        Raises:
            DataError: a row cannot be read.
        """
        rows = torch.arange(self._n, device="cpu") if order is None else order.cpu()
        self._requests.of_epoch = [(epoch, batch.tolist()) for batch in rows.split(list(sizes))]
        for batch in self._loader:
            if isinstance(batch, TorchalError):
                try:
                    raise batch
                finally:
                    del batch  # whose traceback holds this frame: workers that a circle keeps end after a timeout only
            # the loader pins behind workers only: it would refuse rows that are on the device already
            pinned = batch.pin_memory() if self._pins and batch.device.type == "cpu" else batch
            moved: Rows = pinned.to(self._device, self._dtype, non_blocking=True)
            yield channels_last(moved) if self._channels_last else moved


class _Requests:
    """The sampler of the DataLoader: the batches of an epoch, as pairs of the epoch and row numbers."""

    def __init__(self) -> None:
        self.of_epoch: list[tuple[int, list[int]]] = []

    def __len__(self) -> int:
        return len(self.of_epoch)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter(self.of_epoch)


class _Reader(Dataset[Any]):
    """Reads whole batches. An error is handed back as a value: raised in a worker, it would lose its own message."""

    def __init__(self, inputs: Any, seed: int | None) -> None:
        self._inputs, self._seed = inputs, seed

    def __getitem__(self, request: tuple[int, list[int]]) -> Rows | TorchalError:
        epoch, rows = request
        try:
            if self._seed is None or not isinstance(self._inputs, DatasetInputs):
                return read_rows(self._inputs, rows)
            return self._inputs.read(rows, training=True, seed=(self._seed, epoch))
        except TorchalError as error:
            return error


def _n_workers(inputs: Any) -> int:
    if not isinstance(inputs, DatasetInputs) or len(inputs) < _ROWS_WORTH_WORKERS:
        return 0
    if multiprocessing.current_process().daemon:  # which must not have children
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_WORKERS, cores // 2)
