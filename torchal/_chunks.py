"""How large a temporary may be, and how exactly the products in it are computed: what every floor with math shares."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import torch

from torchal.errors import DeviceMemoryError

Result = TypeVar("Result")

SMALLEST_CHUNK = 64  # rows; a chunk that still does not fit with fewer is not worth halving again


def values_per_chunk(device: torch.device) -> int:
    """Return how many numbers a temporary may hold: what stays in a CPU's cache, or keeps a GPU busy."""
    return 1 << 20 if device.type == "cpu" else 1 << 25


class Chunker:
    """Does work chunk by chunk. Once the device ran out of memory, chunks are smaller for good.

    Args:
        smallest: rows; a chunk of so few that does not fit is not halved again.
    """

    def __init__(self, smallest: int = SMALLEST_CHUNK) -> None:
        self._smallest = smallest
        self._most: int | None = None

    def __call__(self, n_rows: int, size: int, work: Callable[[int, int], None]) -> None:
        """Call work(start, stop) on consecutive chunks of at most `size` rows.

        When the device is out of memory, the chunk is halved and done again, with one warning, so `work` must be able
        to start a chunk anew.

        Raises:
            DeviceMemoryError: even the smallest chunk does not fit.
        """
        start = 0
        while start < n_rows:
            stop = min(start + min(size, self._most or size), n_rows)
            if self.fits(partial(work, start, stop), stop - start):
                start = stop

    def halve(self, size: int, work: Callable[[int], Result]) -> Result:
        """Return work(size), or with half the size as long as the device is out of memory, as above."""
        results: list[Result] = []
        while not results:
            size = min(size, self._most or size)

            def collect(now: int = size) -> None:
                results.append(work(now))

            self.fits(collect, size)
        return results[0]

    def fits(self, work: Callable[[], None], size: int) -> bool:
        """Do work of some size; where that is too large for the device, remember to do half of it at once."""
        try:
            work()
        except torch.OutOfMemoryError as error:
            if size <= self._smallest:
                raise DeviceMemoryError(f"a chunk of {size} rows does not fit on the device: {error}") from error
        else:
            return True
        # only here, after the handler, is the memory of the failed call let go
        if self._most is None:
            warnings.warn("out of device memory: going on with smaller chunks", stacklevel=4)
        self._most = max(self._smallest, size // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return False


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute without gradients, autocast, TF32 or bfloat16 products, whatever the caller's settings."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
        if all(hasattr(backend, "fp32_precision") for backend in backends):
            before = [backend.fp32_precision for backend in backends]
            try:
                for backend in backends:
                    backend.fp32_precision = "ieee"
                yield
            finally:
                for backend, precision in zip(backends, before, strict=True):
                    backend.fp32_precision = precision
        else:  # torch before 2.9; newer ones refuse this setting where the one above was ever used
            legacy = torch.get_float32_matmul_precision()
            try:
                torch.set_float32_matmul_precision("highest")
                yield
            finally:
                torch.set_float32_matmul_precision(legacy)
