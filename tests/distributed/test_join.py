"""Which backend ranks meet by. What they say to each other then is in test_processes."""

import importlib

import pytest
import torch
import torch.distributed as dist

from torchal.distributed import join


@pytest.mark.parametrize(
    ("n_devices", "n_ranks_here", "backend"), [(0, 2, "gloo"), (1, 1, "nccl"), (1, 2, "gloo"), (2, 2, "nccl")]
)
def test_nccl_is_for_ranks_that_have_a_gpu_each(n_devices, n_ranks_here, backend, monkeypatch):
    taken, devices = [], []
    local_rank = n_ranks_here - 1
    for name, value in {"RANK": 3, "WORLD_SIZE": 4, "LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": n_ranks_here}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
    monkeypatch.setattr(torch.cuda, "set_device", devices.append)
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    monkeypatch.setattr(dist, "init_process_group", lambda name, **_: taken.append(name))
    meeting_place = importlib.import_module("torch.distributed.rendezvous")  # torch has a function of this name too
    monkeypatch.setattr(meeting_place, "rendezvous", lambda *_, **__: iter([(dist.HashStore(), 3, 4)]))
    join()
    assert taken == [backend]
    assert devices == ([local_rank % n_devices] if n_devices else [])
