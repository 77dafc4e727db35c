"""Any bytes are read, or refused by an error of ours: no other exception, no hang, no memory beyond reason."""

import gzip
import resource
import time
import warnings

import numpy as np
import pytest

from torchal.data import csv, idx, image_folder, libsvm, npy, npz, parquet, reuters_r8, sms_spam, texts, waveform
from torchal.errors import TorchalError

SOME, MANY = 60, 7_000  # of each reader, and of each kind of seed
MEMORY_MIB = 1024
HANG_SECONDS = 20.0


def seeds(folder):
    """Return small good files: what reads them, and their bytes."""
    draw = np.random.default_rng(0)
    inputs, targets = draw.normal(size=(30, 3)).round(3), np.arange(30) % 3
    rows = [",".join(map(str, row)) for row in inputs.tolist()]
    table = "a,b,c,kind\n" + "".join(f"{row},{'xyz'[t]}\n" for row, t in zip(rows, targets, strict=True))
    cells = [(i, "" if i % 7 == 0 else f"{i},5", "x" * (i % 3), "" if i % 5 == 0 else "ab"[i % 2]) for i in range(30)]
    messy = ";age;city;kind\r\n" + "".join(f'{i};{age};"Rome, {x}\r\nold";{kind}\r\n' for i, age, x, kind in cells)
    rows = [" ".join(f"{i + 1}:{value}" for i, value in enumerate(row)) for row in inputs.tolist()]
    sparse = "".join(f"{t} {row}\n" for t, row in zip(targets, rows, strict=True))
    said = "".join(f"{'ham' if i % 2 else 'spam'}\tword{i % 5} and {'free' * (i % 2)}\n" for i in range(30))
    news = "".join(f"{'train' if i % 3 else 'test'}\t{'ab'[i % 2]}\tword{i % 5} {'xy'[i % 2]}\n" for i in range(30))
    np.savez(folder / "a.npz", inputs=inputs, targets=targets)
    np.savez_compressed(folder / "b.npz", inputs=inputs, targets=targets.astype(str))
    np.save(folder / "x.npy", inputs)
    np.save(folder / "y.npy", targets)
    pixels = np.array([0x803, 30, 2, 2], ">u4").tobytes() + bytes(range(120))
    (folder / "labels").write_bytes(np.array([0x801, 30], ">u4").tobytes() + targets.astype(np.uint8).tobytes())
    waves = "".join(",".join(map(str, [*draw.normal(size=21).round(2), i % 3])) + "\n" for i in range(30))
    found = {
        "csv": (lambda path: csv(path, target=-1), table.encode()),
        "csv of texts": (lambda path: csv(path, target="kind"), messy.encode()),
        "csv in gzip": (lambda path: csv(path, target="kind"), gzip.compress(table.encode(), mtime=0)),
        "texts": (lambda path: texts(path, header=False), said.encode()),
        "sms_spam": (sms_spam, said.encode()),
        "reuters_r8": (lambda path: reuters_r8(path.parent), news.encode()),
        "libsvm": (libsvm, sparse.encode()),
        "libsvm in gzip": (libsvm, gzip.compress(sparse.encode(), mtime=0)),
        "waveform": (waveform, waves.encode()),
        "npz": (npz, (folder / "a.npz").read_bytes()),
        "npz, compressed": (npz, (folder / "b.npz").read_bytes()),
        "npy": (lambda path: npy(path, targets=folder / "y.npy"), (folder / "x.npy").read_bytes()),
        "npy of labels": (lambda path: npy(folder / "x.npy", targets=path), (folder / "y.npy").read_bytes()),
        "idx": (lambda path: idx(path, targets=folder / "labels"), pixels),
        "idx in gzip": (lambda path: idx(path, targets=folder / "labels"), gzip.compress(pixels, mtime=0)),
    }
    try:
        import pandas as pd
        import pyarrow  # noqa: F401
    except ImportError:
        return found
    pd.DataFrame(inputs, columns=list("abc")).assign(kind=targets, t=list("uvw") * 10).to_parquet(folder / "a.parquet")
    found["parquet"] = (lambda path: parquet(path, target="kind"), (folder / "a.parquet").read_bytes())
    return found


READERS = (
    *("csv", "csv of texts", "csv in gzip", "texts", "sms_spam", "reuters_r8", "libsvm", "libsvm in gzip", "waveform"),
    *("npz", "npz, compressed", "npy", "npy of labels", "idx", "idx in gzip", "parquet"),
)
NAMES = {"reuters_r8": "r8.tsv", "csv in gzip": "a.csv.gz", "libsvm in gzip": "a.txt.gz"}


def damaged(good, draw):
    """Return bytes made of good ones: some changed, gone, doubled or foreign; or nothing but random ones."""
    kind = draw.integers(0, 8)
    if kind == 0:
        return draw.integers(0, 256, draw.integers(0, 300)).astype(np.uint8).tobytes()
    content = bytearray(good)
    for _ in range(draw.integers(1, 8)):
        start = int(draw.integers(0, len(content) + 1))
        length = int(draw.integers(0, 40))
        if kind == 1:
            del content[start:]
        elif kind == 2:
            del content[start : start + length]
        elif kind == 3:
            content[start:start] = content[start : start + length]
        elif kind == 4:
            words = (
                b'"',
                b"\n",
                b"\r",
                b"\0",
                b",",
                b"\t",
                b":",
                b"1e999",
                b"-1",
                b"nan",
                b"99999999999999999999",
                b"\xff",
            )
            content[start:start] = words[draw.integers(len(words))]
        elif content:
            content[min(start, len(content) - 1)] = draw.integers(0, 256)
    return bytes(content)


def fuzz(reader, n, folder):
    """Read n damaged files, and return how many were refused."""
    (folder / "in").mkdir()
    read, good = seeds(folder)[reader]
    path = folder / "in" / NAMES.get(reader, "a.bin")
    draw = np.random.default_rng([READERS.index(reader), n])
    n_refused = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(n):
        content = damaged(good, draw)
        path.write_bytes(content)
        start = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values beyond float32, of scikit-learn
            try:
                read(path)
            except TorchalError:
                n_refused += 1
            except Exception as error:
                (folder / "culprit").write_bytes(content)
                raise AssertionError(f"input {number} of {reader}: {content[:200]!r}...") from error
        assert time.monotonic() - start < HANG_SECONDS, content
        assert {file.name for file in path.parent.iterdir()} == {path.name}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (peak - before) / 1024 < MEMORY_MIB
    return n_refused


@pytest.mark.parametrize("reader", READERS)
def test_every_good_file_is_read(reader, tmp_path):
    if reader == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    (tmp_path / "in").mkdir()
    read, good = seeds(tmp_path)[reader]
    path = tmp_path / "in" / NAMES.get(reader, "a.bin")
    path.write_bytes(good)
    assert len(read(path).train.targets) > 5


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused(reader, tmp_path):
    if reader == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    assert fuzz(reader, SOME, tmp_path) > SOME // 20


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_many_damaged_files_are_read_or_refused(reader, tmp_path):
    assert fuzz(reader, MANY, tmp_path) > MANY // 20


def test_damaged_images_are_refused(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="images need Pillow")
    draw = np.random.default_rng(0)
    for row in range(6):
        file = tmp_path / "ab"[row % 2] / f"{row}.png"
        file.parent.mkdir(exist_ok=True)
        image.fromarray(draw.integers(0, 256, (9, 7, 3)).astype(np.uint8)).save(file)
    good, n_refused = file.read_bytes(), 0
    for _ in range(SOME):
        file.write_bytes(damaged(good, draw))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                image_folder(tmp_path, size=4)
            except TorchalError:
                n_refused += 1
    assert n_refused > SOME // 4
