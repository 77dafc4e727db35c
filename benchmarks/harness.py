"""Times alternatives side by side and prints one table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch

PAUSE = 0.2  # seconds before each call: threads of the last one may spin on, and slow what runs beside them


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    work: str
    who: str
    seconds: float
    """Median."""
    times_ours: float
    """How many times ours this takes."""
    note: str = ""
    peak_mib: float | None = None
    """Device memory at its highest, beyond what was there before the call; None on the CPU."""


def compare(
    work: str,
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    device: str,
    once: Collection[str] = (),
    notes: Mapping[str, str] | None = None,
) -> Iterator[Row]:
    """Time the candidates in turn, A B A B ..., after one warm-up each, so that a drift of the machine hits all alike.

    A pause before each call lets the threads of the one before come to rest.

    Args:
        work: what is done.
        candidates: by name; one is called "ours".
        repeats: timed calls of each; the median counts.
        device: where they run; CUDA is waited for before and after.
        once: those that take so long that one call must do, without a warm-up.
        notes: what else there is to say, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    peaks: dict[str, float] = {}
    for turn in range(repeats + 1):
        for name, candidate in candidates.items():
            if name in once and turn != 1:
                continue
            _wait(device)
            time.sleep(PAUSE)
            before = _allocated(device)
            started = time.perf_counter()
            candidate()
            _wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - started)
            if before is not None:
                peaks[name] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        yield Row(work, name, median, median / medians["ours"], (notes or {}).get(name, ""), peaks.get(name))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _allocated(device: str) -> int | None:
    """Return how much memory a CUDA device has given out, and count its peak from here."""
    if not device.startswith("cuda"):
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
