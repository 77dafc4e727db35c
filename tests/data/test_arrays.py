"""Arrays in the user's own files, good and bad."""

import gzip
import warnings

import numpy as np
import pytest
import torch

from torchal.data import idx, npy, npz
from torchal.errors import ConfigError, DataError, ShapeError


def in_source_order(data):
    rows = torch.cat([data.train_rows, data.validation_rows, data.test_rows]).argsort()
    inputs = torch.cat([data.train.inputs, data.validation.inputs, data.test.inputs])
    return inputs[rows], torch.cat([data.train.targets, data.validation.targets, data.test.targets])[rows]


def saved(folder, **arrays):
    path = folder / "arrays.npz"
    np.savez(path, **arrays)
    return path


def test_npz_keeps_the_shape_of_its_rows(tmp_path):
    images = np.arange(12 * 3 * 2 * 2, dtype=np.uint8).reshape(12, 3, 2, 2)
    data = npz(saved(tmp_path, x=images, y=np.array(["cat", "dog"] * 6)), inputs="x", targets="y")
    inputs, targets = in_source_order(data)
    assert torch.equal(inputs, torch.from_numpy(images).float())
    assert targets[:2].tolist() == [0, 1]
    assert (data.class_names, data.name) == (("cat", "dog"), "arrays")


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({"inputs": np.zeros((3, 2)), "labels": [0, 1, 1]}, DataError, ["'targets'", "inputs, labels"]),
        ({"inputs": [[0.0, 1], [2, np.nan]], "targets": [0, 1]}, DataError, ["'inputs'", "row 1", "column 1", "nan"]),
        ({"inputs": np.full((2, 2, 2), np.inf), "targets": [0, 1]}, DataError, ["row 0", "column (0, 0)", "inf"]),
        ({"inputs": np.zeros((3, 2)), "targets": [0, 1]}, ShapeError, ["'targets'", "3 rows", "2 labels"]),
        ({"inputs": np.zeros(3), "targets": [0, 1, 1]}, ShapeError, ["'inputs'", "(3,)"]),
        ({"inputs": np.zeros((0, 3)), "targets": []}, DataError, ["'inputs'", "(0, 3)"]),
        ({"inputs": np.zeros((3, 2)), "targets": [1, 1, 1]}, DataError, ["'targets'", "rows 0 to 2", "two classes"]),
        ({"inputs": np.zeros((3, 2)), "targets": [0, 1, 0.5]}, DataError, ["'targets'", "row 2", "regression"]),
        ({"inputs": np.zeros((2, 2)), "targets": np.eye(2)}, ShapeError, ["'targets'", "multi-label"]),
        ({"inputs": np.zeros((2, 2)), "targets": np.array([0, None])}, DataError, ["'targets'", "Python objects"]),
    ],
)
def test_a_bad_archive_is_refused(tmp_path, arrays, error, words):
    path = saved(tmp_path, **arrays)
    with pytest.raises(error) as caught:
        npz(path)
    assert all(word in str(caught.value) for word in [str(path), *words]), caught.value


def test_a_file_that_is_no_archive_is_named(tmp_path):
    cases = {"none.npz": "No such file", "text.npz": "not an NPZ", "empty.npz": "not an NPZ", "one.npy": "one array"}
    (tmp_path / "text.npz").write_text("a,b\n")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "one.npy", np.zeros(3))
    content = saved(tmp_path, inputs=np.zeros((9, 9)), targets=np.arange(9)).read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:-30])
    cases["cut.npz"] = "damaged"
    changed = bytearray(content)
    changed[300] ^= 255
    (tmp_path / "changed.npz").write_bytes(bytes(changed))
    cases["changed.npz"] = "damaged"
    for name, words in cases.items():
        with pytest.raises(DataError, match=words) as caught:
            npz(tmp_path / name)
        assert name in str(caught.value)
    with pytest.raises(ConfigError, match=r"'input'.*inputs, targets, seed"):
        npz(tmp_path / "none.npz", input="x")


class TestNpyPairs:
    def written(self, folder, inputs, targets):
        np.save(folder / "x.npy", inputs)
        np.save(folder / "y.npy", targets)
        return folder / "x.npy", folder / "y.npy"

    def test_keep_the_shape_of_their_rows(self, tmp_path):
        images = np.arange(12 * 3 * 2 * 2, dtype=np.uint8).reshape(12, 3, 2, 2)
        path, targets = self.written(tmp_path, images, np.array(["cat", "dog"] * 6))
        data = npy(path, targets=targets)
        assert torch.equal(in_source_order(data)[0], torch.from_numpy(images).float())
        assert (data.class_names, data.name) == (("cat", "dog"), "x")

    @pytest.mark.parametrize(
        ("inputs", "targets", "error", "words"),
        [
            ([[0.0, 1], [2, np.nan]], [0, 1], DataError, ["x.npy", "row 1", "nan"]),
            (np.zeros((3, 2)), [0, 1], ShapeError, ["y.npy", "3 rows", "2 labels"]),
            (np.zeros((3, 2)), [1, 1, 1], DataError, ["y.npy", "rows 0 to 2", "two classes"]),
            (np.zeros((2, 2)), np.array([0, None]), DataError, ["y.npy", "Python objects"]),
        ],
    )
    def test_that_are_bad_are_refused(self, inputs, targets, error, words, tmp_path):
        path, labels = self.written(tmp_path, inputs, targets)
        with pytest.raises(error) as caught:
            npy(path, targets=labels)
        assert all(word in str(caught.value) for word in words), caught.value

    def test_that_are_not_there_or_no_arrays_are_named(self, tmp_path):
        path, targets = self.written(tmp_path, np.zeros((4, 2)), [0, 1, 0, 1])
        with pytest.raises(DataError, match=r"none.npy cannot be read: No such file"):
            npy(path, targets=tmp_path / "none.npy")
        np.savez(tmp_path / "x.npz", a=np.zeros(3))
        with pytest.raises(DataError, match=r"x.npz is an NPZ archive"):
            npy(tmp_path / "x.npz", targets=targets)
        (tmp_path / "text.npy").write_text("1,2")
        with pytest.raises(DataError, match=r"text.npy is damaged or not a .npy file"):
            npy(tmp_path / "text.npy", targets=targets)


class TestIdxPairs:
    def test_become_images_of_one_colour(self, tmp_path):
        pixels = np.arange(12 * 2 * 3, dtype=np.uint8)
        (tmp_path / "x.gz").write_bytes(gzip.compress(np.array([0x803, 12, 2, 3], ">u4").tobytes() + pixels.tobytes()))
        (tmp_path / "y").write_bytes(np.array([0x801, 12], ">u4").tobytes() + bytes([4, 7, 9] * 4))
        data = idx(tmp_path / "x", targets=tmp_path / "y")
        assert torch.equal(in_source_order(data)[0], torch.from_numpy(pixels.reshape(12, 1, 2, 3)).float())
        assert (data.class_names, data.name) == (("4", "7", "9"), "x")

    def test_of_plain_rows_stay_rows(self, tmp_path):
        (tmp_path / "x").write_bytes(np.array([0x802, 12, 4], ">u4").tobytes() + bytes(48))
        (tmp_path / "y").write_bytes(np.array([0x801, 12], ">u4").tobytes() + bytes([0, 1] * 6))
        assert idx(tmp_path / "x", targets=tmp_path / "y").train.inputs.shape == (8, 4)

    def test_that_say_more_than_there_is_use_no_memory(self, tmp_path):
        (tmp_path / "x").write_bytes(np.array([0x803, 2**31, 2**15, 2**15], ">u4").tobytes() + bytes(48))
        (tmp_path / "y").write_bytes(np.array([0x801, 12], ">u4").tobytes() + bytes([0, 1] * 6))
        with pytest.raises(DataError, match=r"x must have .* after its header, but 48 are there"):
            idx(tmp_path / "x", targets=tmp_path / "y")


class TestDamagedArchives:
    """Any bytes are read, or refused by a DataError."""

    @pytest.mark.parametrize("compressed", [False, True])
    def test_with_some_bytes_changed_or_gone(self, compressed, tmp_path):
        draw = np.random.default_rng(0)
        file = tmp_path / "a.npz"
        save = np.savez_compressed if compressed else np.savez
        save(file, inputs=draw.normal(size=(30, 2)), targets=np.arange(30) % 3)
        whole = file.read_bytes()
        n_refused = 0
        for _ in range(400):
            content = bytearray(whole)
            for place in draw.integers(0, len(content), draw.integers(1, 5)):
                content[place] = draw.integers(0, 256)
            file.write_bytes(content[: draw.integers(1, len(content))] if draw.random() < 0.2 else content)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # values that were changed may be large
                try:
                    npz(file)
                except (DataError, ShapeError):
                    n_refused += 1
        assert n_refused > 100

    def test_of_a_later_version_of_zip(self, tmp_path):
        file = tmp_path / "a.npz"
        np.savez(file, inputs=np.zeros((30, 2)), targets=np.arange(30) % 3)
        content = file.read_bytes()
        at = content.index(b"PK\x01\x02") + 6  # the version that is needed, in the directory at the end
        file.write_bytes(content[:at] + bytes([141]) + content[at + 1 :])
        with pytest.raises(DataError, match="damaged"):
            npz(file)
