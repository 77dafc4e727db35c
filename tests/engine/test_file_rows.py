"""One matrix in several files: every number where it belongs, and a clear word where a file is not what it was."""

import os
import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchal.engine import file_rows
from torchal.engine.features import FeatureReader, as_matrix
from torchal.engine.file_rows import FileRows
from torchal.engine.read_ahead import FileBlocks
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.functional import k_center_greedy, kmeans_plus_plus
from torchal.pool import PoolView

DTYPES = ["<f2", "<f4", "<f8", ">f4", "u1", "i1", "<i2", ">i2", "<u2", "<i4", "<u4", "<i8", "?"]


def saved(folder, x, sizes):
    """Return the paths of .npy files that have so many of the rows each."""
    paths, start = [], 0
    for i, size in enumerate(sizes):
        paths.append(folder / f"{i}.npy")
        np.save(paths[-1], x[start : start + size])
        start += size
    return paths


def numbers(n_rows, n_columns, dtype="<f4", seed=0):
    return np.random.default_rng(seed).integers(0, 2 if dtype == "?" else 100, (n_rows, n_columns)).astype(dtype)


def as_tensor(x):
    return torch.from_numpy(x.astype(x.dtype.newbyteorder("=")))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mapped", [False, True])
def test_rows_of_several_files_are_those_of_one_matrix(dtype, mapped, tmp_path):
    x = numbers(23, 3, dtype)
    files = saved(tmp_path, x, [7, 0, 1, 15])
    rows = FileRows([np.load(file, mmap_mode="r") for file in files if mapped] or files)
    want = as_tensor(x)
    assert (rows.shape, rows.dtype, len(rows), rows.ndim) == ((23, 3), want.dtype, 23, 2)
    assert torch.equal(rows.read(0, 23), want)
    assert torch.equal(rows.read(6, 9), want[6:9])
    assert rows.read(4, 4).shape == (0, 3)
    index = torch.tensor([22, 0, 6, 7, 8, 8, 0, -1])
    assert torch.equal(rows.rows(index), want[index])
    assert torch.equal(rows[index], want[index])
    assert torch.equal(rows[[3, 2]], want[[3, 2]])
    assert rows.rows(index[:0]).shape == (0, 3)
    out = torch.empty(9, 3, dtype=want.dtype)
    rows.read_to(out, 5)
    assert torch.equal(out, want[5:14])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_cut_of_any_files_is_a_slice(data, tmp_path_factory):
    sizes = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any))
    x = numbers(sum(sizes), 2)
    rows = FileRows(saved(tmp_path_factory.mktemp("rows"), x, sizes))
    a, b = (data.draw(st.integers(-len(x) - 2, len(x) + 2)) for _ in range(2))
    cut, want = rows[a:b], as_tensor(x)[a:b]
    assert cut.shape == tuple(want.shape)
    assert torch.equal(cut.read(0, len(cut)), want)
    first = data.draw(st.integers(0, len(want)))
    assert torch.equal(cut[first:].read(0, len(want) - first), want[first:])
    if len(want):
        index = torch.tensor(data.draw(st.lists(st.integers(0, len(want) - 1), max_size=9)), dtype=torch.int64)
        assert torch.equal(cut.rows(index), want[index])
        chunk_rows = data.draw(st.integers(1, 4))
        reader = FeatureReader(cut, chunk_rows=chunk_rows)
        parts = [reader.read(i, min(i + chunk_rows, len(want))).clone() for i in range(0, len(want), chunk_rows)]
        assert torch.equal(torch.cat(parts), want)


class TestBfloat16:
    x = torch.arange(60.0).view(12, 5).to(torch.bfloat16)

    @pytest.mark.parametrize("stored", ["<V2", "<u2", ">u2"])
    def test_is_said_where_the_file_cannot(self, stored, tmp_path):
        numbers = self.x.view(torch.int16).numpy().view("<u2")
        numbers = numbers.astype(stored) if stored == ">u2" else numbers.view(stored)
        files = saved(tmp_path, numbers, [5, 7])
        for rows in (
            FileRows(files, torch.bfloat16),
            FileRows([np.load(f, mmap_mode="r") for f in files], torch.bfloat16),
        ):
            assert rows.dtype == torch.bfloat16
            assert torch.equal(rows.read(3, 12), self.x[3:])
            assert torch.equal(rows.rows(torch.tensor([9, 1])), self.x[[9, 1]])
            assert k_center_greedy(rows, 4).indices.equal(k_center_greedy(self.x.float(), 4).indices)
            assert k_center_greedy(rows, 4).scores.dtype == torch.float32

    def test_is_known_of_maps_that_say_so(self, tmp_path):
        ml_dtypes = pytest.importorskip("ml_dtypes")
        self.x.view(torch.int16).numpy().tofile(tmp_path / "x.bin")
        mapped = np.memmap(tmp_path / "x.bin", ml_dtypes.bfloat16, "r", shape=(12, 5))
        assert torch.equal(FileRows(mapped).read(0, 12), self.x)

    def test_is_not_guessed(self, tmp_path):
        files = saved(tmp_path, self.x.view(torch.int16).numpy().view("V2"), [12])
        with pytest.raises(ShapeError, match=r"0.npy must have numbers .* got \|V2; dtype=torch.bfloat16 may say"):
            FileRows(files)


def test_files_of_nothing_but_numbers(tmp_path):
    x = numbers(10, 4)
    x[:6].tofile(tmp_path / "a.bin")
    x[6:].tofile(tmp_path / "b.bin")
    rows = FileRows([tmp_path / "a.bin", str(tmp_path / "b.bin")], torch.float32, n_columns=4)
    assert torch.equal(rows.read(0, 10), as_tensor(x))
    assert torch.equal(FileRows(tmp_path / "a.bin", torch.float32, n_columns=4)[2:4].read(0, 2), as_tensor(x)[2:4])
    with pytest.raises(DataError, match=r"a.bin ends inside a row; it has 96 bytes, rows of 20"):
        FileRows(tmp_path / "a.bin", torch.float32, n_columns=5)
    with pytest.raises(ConfigError, match="need a dtype, got n_columns=4 and none"):
        FileRows(tmp_path / "a.bin", n_columns=4)


def test_slices_of_maps_begin_where_they_do(tmp_path):
    x = numbers(50, 4)
    mapped = np.memmap(tmp_path / "x.bin", np.float32, "w+", offset=12, shape=(50, 4))
    mapped[:] = x
    mapped.flush()
    read_only = np.memmap(tmp_path / "x.bin", np.float32, "r", offset=12, shape=(50, 4))
    rows = FileRows([read_only[40:], mapped[3:9], read_only[:1]])
    assert torch.equal(rows.read(0, 17), torch.cat([as_tensor(x)[40:], as_tensor(x)[3:9], as_tensor(x)[:1]]))
    for odd in (read_only[::2], read_only[:, 1:], np.memmap(tmp_path / "x.bin", np.float32, "c", shape=(50, 4))):
        with pytest.raises(ShapeError, match="one behind the other in a file"):
            FileRows(odd)


def test_it_is_taken_as_features_everywhere(tmp_path):
    x = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
    rows = FileRows(saved(tmp_path, x.numpy(), [100, 150, 50]))
    rows = pickle.loads(pickle.dumps(rows))
    for call in (
        lambda f: k_center_greedy(f, 20, chunk_rows=33),
        lambda f: kmeans_plus_plus(f, 20, generator=torch.Generator().manual_seed(1)),
    ):
        assert call(rows).indices.equal(call(x).indices)
    assert torch.equal(as_matrix("features", rows), x)
    view = PoolView.from_tensors(features=rows)
    assert len(view) == 300
    assert k_center_greedy(view.features, 5).indices.equal(k_center_greedy(x, 5).indices)


def test_blocks_of_a_pass_are_read_once(tmp_path, monkeypatch):
    x = numbers(1000, 4)
    rows = FileRows(saved(tmp_path, x, [300, 700]))
    monkeypatch.setattr("torchal.engine.read_ahead.BLOCK_BYTES", 16 * 64)
    read, expected = [], []
    whole, told = FileRows.read_into, FileRows.expect
    monkeypatch.setattr(
        FileRows, "read_into", lambda f, room, start: read.append((start, len(room))) or whole(f, room, start)
    )
    monkeypatch.setattr(FileRows, "expect", lambda f, a, b: expected.append((a, min(b, 1000))) or told(f, a, b))
    blocks = FileBlocks(rows)
    for _ in range(2):
        for start in range(0, 1000, 10):
            assert torch.equal(blocks.read(start, start + 10), as_tensor(x)[start : start + 10])
    assert sum(size for _, size in read) < 2 * 1000 * 1.2  # what a block holds beyond whole chunks is read again
    assert all(size == 64 for start, size in read if start + 64 <= 1000)
    assert {row for a, b in expected for row in range(a, b)} == set(range(64, 1000))


class TestFilesThatChange:
    def rows(self, folder):
        return FileRows(saved(folder, numbers(3000, 8), [1000, 2000]))

    @pytest.mark.parametrize(
        "read", [lambda f: f.read(0, 3000), lambda f: f.rows(torch.tensor([1500])), lambda f: k_center_greedy(f, 2)]
    )
    def test_a_missing_one_is_named(self, read, tmp_path):
        rows = self.rows(tmp_path)
        (tmp_path / "1.npy").unlink()
        assert rows.read(0, 1000).shape == (1000, 8)
        with pytest.raises(DataError, match=r"1.npy cannot be read, at row \d+ of it: No such file"):
            read(rows)

    def test_one_cut_short_is_named(self, tmp_path):
        rows = self.rows(tmp_path)
        os.truncate(tmp_path / "1.npy", 9000)
        with pytest.raises(
            DataError, match=r"1.npy was cut short from 64128 to 9000 bytes since it was opened; row 500"
        ):
            rows.rows(torch.tensor([1500]))
        with pytest.raises(DataError, match=r"1.npy ends before row 277 of 2000: it was cut short; it has 9000 bytes"):
            FileRows(tmp_path / "1.npy")

    def test_one_written_anew_is_named(self, tmp_path):
        rows = self.rows(tmp_path)
        np.save(tmp_path / "0.npy", numbers(1000, 8, seed=1))
        os.utime(tmp_path / "0.npy", ns=(1, 1))
        with pytest.raises(DataError, match=r"0.npy was changed since it was opened; row 3 of it"):
            rows[3:].read(0, 5)

    def test_of_a_map_for_writing_only_the_size_counts(self, tmp_path):
        mapped = np.memmap(tmp_path / "x.bin", np.float32, "w+", shape=(100, 2))
        rows = FileRows(mapped)
        mapped[:] = 7
        mapped.flush()
        os.utime(tmp_path / "x.bin", ns=(1, 1))
        assert bool((rows.read(0, 100) == 7).all())
        os.truncate(tmp_path / "x.bin", 80)
        with pytest.raises(DataError, match=r"x.bin ends before row 10: it was cut short since it was opened"):
            rows.read(0, 100)
        with suppress(ValueError):
            mapped.flush()

    def test_an_open_pass_meets_it_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr("torchal.engine.read_ahead.BLOCK_BYTES", 1)
        reader = FeatureReader(self.rows(tmp_path), chunk_rows=1000)
        reader.read(0, 1000)
        np.save(tmp_path / "1.npy", numbers(100, 8))
        for _ in range(2):
            with pytest.raises(DataError, match=r"1.npy was cut short"):
                reader.read(1000, 2000)


class TestErrors:
    def test_of_files(self, tmp_path):
        np.save(tmp_path / "a.npy", numbers(3, 4))
        np.save(tmp_path / "b.npy", numbers(3, 5))
        np.save(tmp_path / "c.npy", numbers(3, 4, "<f8"))
        np.save(tmp_path / "flat.npy", numbers(3, 4)[0])
        np.save(tmp_path / "columns.npy", np.asfortranarray(numbers(3, 4)))
        np.save(tmp_path / "text.npy", np.array([["a"]]))
        (tmp_path / "junk.npy").write_bytes(b"no header")
        for files, error, words in (
            (["a.npy", "b.npy"], ShapeError, r"b.npy has 5 columns of float32, .*a.npy has 4 of float32"),
            (["a.npy", "c.npy"], ShapeError, r"c.npy has 4 columns of float64, .*a.npy has 4 of float32"),
            (["flat.npy"], ShapeError, r"flat.npy must have 2 axes, got shape \(4,\)"),
            (["columns.npy"], ShapeError, "columns.npy has its numbers by columns"),
            (["text.npy"], ShapeError, "text.npy must have numbers of at most 64 bits, got <U1"),
            (["junk.npy"], DataError, "junk.npy is no .npy file: .*; other files need n_columns"),
            (["none.npy"], DataError, "none.npy cannot be read: No such file"),
            ([], ShapeError, "at least one file, got none"),
        ):
            with pytest.raises(error, match=words):
                FileRows([tmp_path / file for file in files])
        with pytest.raises(ShapeError, match="a path or a memory map, got ndarray"):
            FileRows([numbers(3, 4)])
        with pytest.raises(ShapeError, match=r"a.npy has numbers of float32, which are not torch.bfloat16"):
            FileRows(tmp_path / "a.npy", torch.bfloat16)
        with pytest.raises(ConfigError, match="dtype must be one that torch and files have, got 'float32'"):
            FileRows(tmp_path / "a.npy", "float32")
        with pytest.raises(ConfigError, match=r"dtype must be one that torch and files have, got torch.complex64"):
            FileRows(tmp_path / "a.npy", torch.complex64)

    def test_of_rows(self, tmp_path):
        rows = FileRows(saved(tmp_path, numbers(5, 2), [5]))
        with pytest.raises(ShapeError, match=r"lie in \[0, 5\), got 1 to 5"):
            rows.rows(torch.tensor([1, 5]))
        with pytest.raises(ShapeError, match="step 1, got 2"):
            rows[::2]
        with pytest.raises(ShapeError, match=r"rows must be \(n,\) integers"):
            rows[torch.tensor([True, False, True, False, True])]


@pytest.mark.parametrize("gap", [0, 12, 60, 1 << 20])
@pytest.mark.parametrize("span", [1, 100, 1 << 20])
def test_rows_near_each_other_are_read_together(gap, span, tmp_path, monkeypatch):
    monkeypatch.setattr(file_rows, "_RUNS_AHEAD", 2)
    monkeypatch.setattr(file_rows, "_GAP_BYTES", gap)
    monkeypatch.setattr(file_rows, "_SPAN_BYTES", span)
    x = numbers(200, 3)
    rows = FileRows(saved(tmp_path, x, [90, 110]))
    draw = torch.Generator().manual_seed(0)
    for index in (torch.randperm(200, generator=draw)[:77], torch.randint(0, 200, (300,), generator=draw)):
        assert torch.equal(rows.rows(index), as_tensor(x)[index])
    read = []
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda *args: read.append(len(args[1][0])) or preadv(*args))
    rows.rows(torch.arange(0, 90, 3))
    assert (len(read) == 1) == (gap >= 24 and span > 1100)
    assert max(read) <= max(12, span)
