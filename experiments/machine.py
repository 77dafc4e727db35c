"""How runs share a machine: which device, how many threads, whose turn it is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from filelock import FileLock

from torchal._checks import check_whole
from torchal.errors import ConfigError

SWEEP_RUNS = "TORCHAL_SWEEP_RUNS"
"""Environment variable by which a sweep tells its jobs how many they are."""
SWEEP_PROCESS = "TORCHAL_SWEEP_PROCESS"
"""Environment variable by which a job knows whether it runs in the process of the command, or beside others."""


def is_beside_others() -> bool:
    """Tell whether this process is a worker of a sweep, so that other jobs run at the same time."""
    return SWEEP_RUNS in os.environ and os.environ.get(SWEEP_PROCESS) != str(os.getpid())


def n_ranks() -> int:
    """Return how many processes torchrun started; 1 where it did not."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return which of these this process is; the first speaks and writes for all."""
    return int(os.environ.get("RANK", "0")) if n_ranks() > 1 else 0


def let_first_report(*, failed: bool) -> None:
    """Let a rank that failed end after the first, which may still write reports: torchrun ends all when one has failed.

    The first calls it once it has reported. Nothing is sent by the group: ranks may have failed at different places.

    Args:
        failed: whether this rank ends with an error.
    """
    if n_ranks() == 1 or not dist.is_initialized():
        return
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    key = f"torchal/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/reported"
    with suppress(RuntimeError):  # the first has ended, and the place with it; or has been busy for too long
        store = dist.TCPStore(  # type: ignore[attr-defined]
            *place, is_master=False, timeout=timedelta(seconds=5), wait_for_workers=False
        )
        if rank() == 0:
            store.set(key, "")
        elif failed:
            store.wait([key], timedelta(seconds=60))


def pick_device(name: str, *, job: int = 0) -> torch.device:
    """Return the device of this name; "auto" is CUDA where there is one, else the CPU.

    Jobs that run at the same time get one CUDA device after another by "auto".

    Raises:
        ConfigError: the device is not there.
    """
    if not isinstance(name, str):
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:1, ...; got {name!r}")
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", job % torch.cuda.device_count()) if is_beside_others() else torch.device("cuda")
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # some devices hold no values
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return probe.device


def set_threads(threads: int | str, launcher: Any) -> int:
    """Set the threads of torch for this process, and return how many they are.

    "auto" leaves them as they are, but where the launcher runs several jobs at the same time on this machine: each then
    has its share of the cores. Jobs that each take all cores are 10 to 20 times slower together than one by one.

    Raises:
        ConfigError: threads is neither "auto" nor a whole number of at least 1.
    """
    if threads != "auto":
        check_whole("threads", threads, least=1)
        torch.set_num_threads(int(threads))
    elif is_beside_others():
        torch.set_num_threads(_share_of_cores(launcher))
    return torch.get_num_threads()


def _share_of_cores(launcher: Any) -> int:
    """Return how many of this machine's cores are for a job, by how its launcher deals them out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kind = str(launcher.get("_target_", "")).rpartition(".")[2]
    if kind == "RayLauncher":  # Ray runs as many at once as it has CPUs for
        return max(1, int(((launcher.get("ray") or {}).get("remote") or {}).get("num_cpus") or 1))
    if kind == "SlurmLauncher":
        return max(1, int(launcher.get("cpus_per_task") or cores))
    # submitit on this machine starts all jobs at once, joblib so many
    n_jobs = int(os.environ[SWEEP_RUNS]) if kind == "LocalLauncher" else launcher.get("n_jobs") or 1
    return max(1, cores // (cores if n_jobs < 0 else n_jobs))


@contextmanager
def turn_on(device: torch.device) -> Iterator[None]:
    """Wait until no other job of a sweep on this machine computes on a CUDA device, and hold it; a CPU is shared."""
    if device.type != "cuda" or not is_beside_others():
        yield
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").replace(",", "-").replace("/", "-")
    name = f"torchal-{os.getuid()}-cuda-{visible}-{device.index or 0}.lock"
    with FileLock(Path(tempfile.gettempdir()) / name):
        yield
