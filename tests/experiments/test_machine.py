"""How ranks end together. Devices and threads are tested by the sweeps that share them."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as dist

pytest.importorskip("hydra", reason="the commands need hydra, which is not installed")

from experiments import machine


@pytest.fixture
def meeting_place(monkeypatch):
    """Return the store by which two ranks have met, as torchrun keeps it."""
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    for name, value in {"MASTER_ADDR": "localhost", "MASTER_PORT": store.port, "WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    return store


def test_a_rank_that_failed_ends_after_the_first_has_reported(meeting_place, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    machine.let_first_report(failed=False)  # waits for nobody
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(machine.let_first_report, failed=True)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.5)
        meeting_place.set("torchal/0/reported", "")
        waiting.result(timeout=30)


def test_the_first_rank_says_that_it_has_reported(meeting_place, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    assert not meeting_place.check(["torchal/0/reported"])
    machine.let_first_report(failed=True)
    assert meeting_place.check(["torchal/0/reported"])
