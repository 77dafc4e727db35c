"""Rows that are copied to a device ahead of the work: here on a CPU that plays one, whose streams do all at once."""

import contextlib
import threading

import numpy as np
import pytest
import torch

from torchal.engine import read_ahead
from torchal.engine.features import FeatureReader
from torchal.engine.file_rows import FileRows
from torchal.engine.read_ahead import StagedBlocks
from torchal.errors import DataError
from torchal.functional import k_center_greedy, kmeans_plus_plus

N, D = 103, 3


class PlayedDevice:
    """What torch.cuda has, as far as it is asked for: each call is written down, with the event that it is about."""

    def __init__(self):
        self.log = []
        device = self

        class Event:
            def record(self, stream):
                device.log.append(("record", stream.name, id(self)))

            def synchronize(self):
                device.log.append(("synchronize", threading.current_thread() is threading.main_thread(), id(self)))

        class Stream:
            def __init__(self, *_):
                self.name = "copies"

            def wait_event(self, event):
                device.log.append(("wait", self.name, id(event)))

        self.Event, self.Stream = Event, Stream
        self.work = Stream()
        self.work.name = "work"

    def current_stream(self, _):
        return self.work

    def stream(self, _):
        return contextlib.nullcontext()


class Rows:
    """Rows of a tensor, and where they were put."""

    def __init__(self, x):
        self.x, self.read = x, []

    def read_to(self, out, start):
        self.read.append((start, len(out)))
        out.copy_(self.x[start : start + len(out)])


@pytest.fixture
def played(monkeypatch):
    device = PlayedDevice()
    monkeypatch.setattr(torch, "get_device_module", lambda _: device)
    monkeypatch.setattr(read_ahead, "_pinned", lambda shape, dtype: torch.empty(shape, dtype=dtype))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    return device


def staged(x):
    rows = Rows(x)
    blocks = StagedBlocks(rows, n_rows=len(x), n_columns=x.shape[1], dtype=x.dtype, device=torch.device("cpu"))
    return rows, blocks


def test_each_chunk_is_there_while_the_next_one_comes(played):
    x = torch.randn(N, D)
    rows, blocks = staged(x)
    for _ in range(2):
        for start in range(0, N, 10):
            some = blocks.read(start, min(start + 10, N))
            if blocks._ahead is not None:
                blocks._ahead[2].result()  # the next ones have come
            assert torch.equal(some, x[start : start + 10])
    assert rows.read == 2 * [(start, min(10, N - start)) for start in range(0, N, 10)]
    assert played.log


def test_chunks_in_any_order_and_of_any_size(played):
    x = torch.randn(N, D)
    _, blocks = staged(x)
    draw = np.random.default_rng(0)
    for _ in range(200):
        start = int(draw.integers(0, N))
        stop = int(draw.integers(start + 1, N + 1))
        assert torch.equal(blocks.read(start, stop), x[start:stop])
    assert played.log


def test_no_memory_is_written_to_before_it_is_free(played):
    x = torch.randn(N, D)
    _, blocks = staged(x)
    for start in range(0, N, 10):
        blocks.read(start, min(start + 10, N))
    copied = {id(room.copied) for room in blocks._rooms}
    used = {id(room.used) for room in blocks._rooms}
    waited = recorded = 0
    for what, who, event in played.log:
        if what == "wait" and who == "copies":
            assert event in used  # a copy waits for the work on what was there
            waited += 1
        elif what == "record" and who == "copies":
            assert event in copied
            recorded += 1
        elif what == "wait" and who == "work":
            assert event in copied  # and the work for the copy
    assert waited == recorded == -(-N // 10)
    copies = [(what, who) for what, who, _ in played.log if who != "work" and what != "synchronize"]
    assert copies == [("wait", "copies"), ("record", "copies")] * waited


def test_an_error_of_the_thread_is_the_readers(played, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((N, D), np.float32))
    files = FileRows(tmp_path / "x.npy")
    blocks = StagedBlocks(files, n_rows=N, n_columns=D, dtype=torch.float32, device=torch.device("cpu"))
    blocks.read(0, 10)
    blocks._ahead[2].result()
    (tmp_path / "x.npy").unlink()
    blocks.read(10, 20)
    with pytest.raises(DataError, match=r"x\.npy cannot be read, at row 20 of it"):
        blocks.read(20, 30)
    assert played.log


def test_it_works_in_inference_mode(played):
    x = torch.randn(N, D)
    with torch.inference_mode():
        _, blocks = staged(x)
        parts = [blocks.read(start, min(start + 50, N)).clone() for start in range(0, N, 50)]
    assert torch.equal(torch.cat(parts), x)
    assert played.log


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("in_files", [False, True])
def test_rows_of_the_host_are_worked_on_elsewhere(dtype, in_files, tmp_path):
    x = (torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0)) * 10).clamp(-100, 100)
    x = (x.abs() if dtype == torch.uint8 else x).to(dtype)
    features = x
    if in_files:
        numbers = x.view(torch.uint8).numpy().reshape(len(x), -1)
        numbers[:7000].tofile(tmp_path / "a.bin")
        numbers[7000:].tofile(tmp_path / "b.bin")
        features = FileRows([tmp_path / "a.bin", tmp_path / "b.bin"], dtype, n_columns=16)
    reader = FeatureReader(features, device="cuda", chunk_rows=999)
    whole = x.to(reader.dtype).cuda()
    total = torch.zeros(16, dtype=torch.float64, device="cuda")
    for _ in range(3):
        for start in range(0, len(x), 999):
            some = reader.read(start, min(start + 999, len(x)))
            for _ in range(20):  # long enough for the next ones to come meanwhile
                total += some.double().sum(0)
            assert torch.equal(some.to(whole.dtype), whole[start : start + 999])
    torch.testing.assert_close(total, 60 * whole.double().sum(0))
    for pick in (
        lambda f, **k: k_center_greedy(f, 50, **k),
        lambda f, **k: kmeans_plus_plus(f, 50, generator=torch.Generator().manual_seed(0), **k),
    ):
        got, want = pick(features, device="cuda", chunk_rows=777), pick(x.cuda(), chunk_rows=777)
        assert got.indices.equal(want.indices.cpu())
