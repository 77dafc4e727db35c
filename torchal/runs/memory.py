"""How much memory a phase of a round took."""

from __future__ import annotations

import sys

import torch

_MIB = 2**20


def start_counting(device: torch.device) -> None:
    """Count the peak of a CUDA device from here on, where one is in use; a process's own peak cannot be reset."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats(_cuda(device))


def peak_mib(phase: str, device: torch.device) -> dict[str, float]:
    """Return the most memory until the end of a phase, in MiB.

    Under the phase's own name the largest resident size of the process so far. It never falls, so that the phase at
    which it rises is the one that needed more; what one phase took less than an earlier one cannot be seen in it. Where
    CUDA is in use, under `cuda_<phase>` the most that torch had given out since `start_counting`, on this device, or on
    the current one where this is none of CUDA.

    Example:
        >>> peaks = peak_mib("fit", torch.device("cpu"))
        >>> peaks["fit"] > 1
        True
    """
    peaks = {}
    if sys.platform != "win32":
        import resource  # POSIX only

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peaks[phase] = peak / _MIB if sys.platform == "darwin" else peak / 1024  # bytes there, KiB here
    if torch.cuda.is_initialized():
        peaks[f"cuda_{phase}"] = torch.cuda.max_memory_allocated(_cuda(device)) / _MIB
    return peaks


def _cuda(device: torch.device) -> torch.device | None:
    return device if device.type == "cuda" else None
