"""Consecutive rows on their way to where the work is done: the next ones come while the last ones are worked on."""

from __future__ import annotations

import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from torchal.engine.file_rows import FileRows

HALF = (torch.float16, torch.bfloat16)
BLOCK_BYTES = 1 << 22  # of one read of a file: larger ones leave the cache before they are used
_AHEAD_BYTES = 1 << 24  # of what a disk is asked for before it is read


class FileBlocks:
    """Rows of files for work on the CPU, read block by block into one buffer.

    The system is told of the blocks that follow and fetches them meanwhile; copying them out of its cache is then all
    that is left to do, and is not worth a thread: its core is one that a matrix product would use. Half precision is
    read as float32, which all that is computed from it is in.
    """

    def __init__(self, rows: FileRows) -> None:
        self._rows = rows
        self._row_bytes = max(1, rows.shape[1] * rows.dtype.itemsize)
        self._room = rows.room(0)
        self._as_float = torch.empty(0, rows.shape[1]) if rows.dtype in HALF else None
        self._begin = self._end = self._told = 0
        self._block = torch.empty(0)

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop, until the next read."""
        if not self._begin <= start <= stop <= self._end:
            self._load(start, min(max(stop, start + BLOCK_BYTES // self._row_bytes), len(self._rows)))
        return self._block[start - self._begin : stop - self._begin]

    def _load(self, start: int, stop: int) -> None:
        ahead = stop + max(_AHEAD_BYTES // self._row_bytes, stop - start)
        begin = max(stop, self._told) if start == self._end else stop
        self._rows.expect(begin, ahead)
        self._told = ahead
        if len(self._room) < stop - start:
            self._room = self._rows.room(stop - start)
        self._begin = self._end = 0  # nothing, should a read fail
        block = self._rows.read_into(self._room[: stop - start], start)
        if self._as_float is not None:
            if len(self._as_float) < len(block):
                self._as_float = torch.empty(block.shape)
            block = self._as_float[: len(block)].copy_(block)
        self._block = block
        self._begin, self._end = start, stop


class HostRows(Protocol):
    """Rows in the host's memory or in files."""

    def read_to(self, out: Tensor, start: int) -> None:
        """Copy the rows from `start` on into a tensor (R, D) on the CPU."""


class _Room(NamedTuple):
    """Memory for one block, on both sides, and what says when it may be written to again."""

    host: Tensor
    """In pages that stay where they are, from which a device copies by itself."""
    there: Tensor
    copied: Any
    """The event behind the copy from the host."""
    used: Any
    """The event behind the work on the block."""


class StagedBlocks:
    """Rows of the host or of files for work on a device with streams, which are copied there ahead of the work.

    A thread reads the next block into memory from which the device copies by itself, on a stream of its own, while the
    device works on the block before. Each of the two blocks is written to only after the work on it that was begun
    before the next one was asked for.
    """

    def __init__(
        self, rows: HostRows, *, n_rows: int, n_columns: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._rows = rows
        self._n_rows, self._n_columns, self._dtype = n_rows, n_columns, dtype
        self._device = device
        self._module = torch.get_device_module(device)
        self._stream = self._module.Stream(device)
        self._rooms: list[_Room] = []
        self._ahead: tuple[int, int, Future[None]] | None = None
        self._thread = ThreadPoolExecutor(1)
        weakref.finalize(self, self._thread.shutdown, wait=False)

    def read(self, start: int, stop: int) -> Tensor:
        """Return rows start to stop on the device, until the next read, and begin to copy as many behind them."""
        ready = False
        if self._ahead is not None:
            (begin, end, copying), self._ahead = self._ahead, None
            copying.result()
            ready = (begin, end) == (start, stop)
        if not self._rooms or len(self._rooms[0].there) < stop - start:
            self._make_rooms(stop - start)
        stream = self._module.current_stream(self._device)
        if not ready:
            self._rooms[1].used.record(stream)
            self._copy(self._rooms[1], start, stop)
        self._rooms.reverse()  # the first is in use now; the work on the second was begun before this call
        now, other = self._rooms
        stream.wait_event(now.copied)
        other.used.record(stream)
        end = min(2 * stop - start, self._n_rows)
        if end > stop:
            self._ahead = stop, end, self._thread.submit(self._copy, other, stop, end)
        return now.there[: stop - start]

    def _make_rooms(self, n_rows: int) -> None:
        shape = (n_rows, self._n_columns)
        self._rooms = []
        rooms = []
        for _ in range(2):
            there = torch.empty(shape, dtype=self._dtype, device=self._device)
            there.record_stream(self._stream)  # so that it is not given away while a copy is on its way
            rooms.append(_Room(_pinned(shape, self._dtype), there, self._module.Event(), self._module.Event()))
        self._rooms = rooms

    def _copy(self, room: _Room, start: int, stop: int) -> None:
        with torch.inference_mode():  # which a thread does not have from the one that began it
            room.copied.synchronize()  # or what is on its way from there would be overwritten
            self._rows.read_to(room.host[: stop - start], start)
            with self._module.stream(self._stream):
                self._stream.wait_event(room.used)
                room.there[: stop - start].copy_(room.host[: stop - start], non_blocking=True)
                room.copied.record(self._stream)


def _pinned(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, pin_memory=True)


def has_streams(device: torch.device) -> bool:
    """Tell whether a device copies beside its work."""
    return device.type != "cpu" and hasattr(torch.get_device_module(device), "Stream")
