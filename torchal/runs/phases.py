"""What the phases of a round take: seconds, and memory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchal.runs.memory import peak_mib, start_counting


class Phases:
    """What the phases of the round that is going on have taken.

    Args:
        device: where the work is done.

    Attributes:
        seconds: by phase.
        peak_mib: by phase, as `torchal.runs.memory.peak_mib` names them.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}
        self.peak_mib: dict[str, float] = {}

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count what is done inside towards a phase."""
        with self.shared(phase, [self]):
            yield

    @staticmethod
    @contextmanager
    def shared(phase: str, several: list[Phases]) -> Iterator[None]:
        """Count what is done inside towards a phase of several rounds: the seconds in equal parts, the memory whole."""
        device = several[0]._device
        started = time.perf_counter()
        start_counting(device)
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # or the next phase would be charged for this one's work
        each = (time.perf_counter() - started) / len(several)
        peaks = peak_mib(phase, device)
        for one in several:
            one.seconds[phase] = one.seconds.get(phase, 0.0) + each
            for name, peak in peaks.items():
                one.peak_mib[name] = max(peak, one.peak_mib.get(name, 0.0))

    def load(self, seconds: dict[str, float], peaks: dict[str, float]) -> None:
        """Go on from what was saved; from nothing when a round begins."""
        self.seconds, self.peak_mib = dict(seconds), dict(peaks)
