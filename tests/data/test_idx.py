"""IDX files, good and damaged."""

import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torchal.data.idx import read_idx
from torchal.errors import DataError

HEADER = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3])
VALUES = bytes(range(12))


def written(folder, content, name="x-idx3-ubyte"):
    path = folder / name
    path.write_bytes(content)
    return path


def message(path, n_axes=3):
    with pytest.raises(DataError) as caught:
        read_idx(path, n_axes=n_axes)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["x-idx3-ubyte", "x-idx3-ubyte.gz"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_values_come_row_by_row_whatever_the_name_says(tmp_path, name, compress):
    array = read_idx(written(tmp_path, compress(HEADER + VALUES), name), n_axes=3)
    assert array.dtype == np.uint8
    assert array.tolist() == [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["within its header", "0 bytes", "16"]),
        (HEADER[:3], ["within its header", "3 bytes", "16"]),
        (HEADER[:15], ["within its header", "15 bytes", "16"]),
        (HEADER, ["2 x 2 x 3 = 12 bytes", "0 are there"]),
        (HEADER + VALUES[:-1], ["2 x 2 x 3 = 12 bytes", "11 are there"]),
        (HEADER + VALUES + b"!", ["2 x 2 x 3 = 12 bytes", "13 are there"]),
        (bytes([0, 0, 8, 1]) + HEADER[4:] + VALUES, ["0x00000803", "3 axes", "0x00000801"]),
        (bytes([0, 0, 13, 3]) + HEADER[4:] + VALUES, ["0x00000803", "0x00000d03"]),
        (b"<!DOCTYPE html>", ["0x00000803", "0x3c21444f"]),
        (HEADER[:4] + b"\xff" * 12, ["4294967295 x 4294967295 x 4294967295", "0 are there"]),
        (HEADER[:4] + bytes(12), ["empty", "0 x 0 x 0"]),
    ],
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_file_that_is_not_as_its_header_says_is_refused(tmp_path, content, words, compress):
    text = message(written(tmp_path, compress(content)))
    assert all(word in text for word in words), text


def test_labels_have_one_axis(tmp_path):
    assert "1 axis," in message(written(tmp_path, HEADER + VALUES), n_axes=1)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert "No such file" in message(tmp_path / "none")
    assert "cannot be read" in message(tmp_path)


def test_a_damaged_archive_is_named_with_its_size(tmp_path):
    content = gzip.compress(HEADER + VALUES)
    for n in (2, 12, len(content) - 1):
        text = message(written(tmp_path, content[:n]))
        assert f"its {n} bytes cannot be decompressed" in text


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_archive_is_refused_or_read_as_if_it_were_whole(tmp_path, data):
    content = bytearray(gzip.compress(HEADER + VALUES, mtime=0))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = written(tmp_path, content)
    try:
        array = read_idx(path, n_axes=3)
    except DataError as error:
        text = str(error)
    else:
        text = str(path) if array.tobytes() == VALUES else ""  # the damage was to a note, as the time
    assert str(path) in text
