import gzip

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file

from tests.real_data import FOLDER
from torchal import ConfigError, DataError, SparseInputs
from torchal.data import libsvm
from torchal.data import libsvm as _libsvm

TEXT = "+1 1:3 2:4.5\n-1 1:7 2:21 3:1\n" * 9


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "pets.txt"
    path.write_text(TEXT)
    return path


def test_reads_labels_and_values(file):
    data = libsvm(file)
    assert data.name == "pets"
    assert data.class_names == ("-1", "1")
    assert data.train.inputs.shape == (12, 3)
    rows = {1: [3.0, 4.5, 0.0], 0: [7.0, 21.0, 1.0]}
    for x, y in zip(data.train.inputs.tolist(), data.train.targets.tolist(), strict=True):
        assert x == rows[y]


@settings(max_examples=25, deadline=None)
@given(st.integers(12, 40), st.integers(1, 6), st.integers(2, 4), st.integers(0, 5))
def test_what_scikit_learn_writes_is_read_back(n_rows, n_columns, n_classes, seed):
    import tempfile
    from pathlib import Path

    draw = np.random.default_rng(seed)
    inputs = draw.normal(size=(n_rows, n_columns)) * (draw.random((n_rows, n_columns)) > 0.3)
    inputs[0] = 1.0
    labels = np.arange(n_rows) % n_classes
    with tempfile.TemporaryDirectory() as folder:
        dump_svmlight_file(inputs, labels, str(Path(folder) / "a"), zero_based=False)
        data = libsvm(Path(folder) / "a")
    assert torch.allclose(data.train.inputs, torch.from_numpy(inputs)[data.train_rows].float())
    assert data.train.targets.equal(torch.from_numpy(labels)[data.train_rows])


def test_gz_by_its_name_and_without(file):
    zipped = file.with_name("pets.txt.gz")
    zipped.write_bytes(gzip.compress(TEXT.encode()))
    file.unlink()
    assert libsvm(zipped).train.inputs.equal(libsvm(file).train.inputs)


def test_the_official_test_part_is_the_second_file(file, tmp_path):
    (tmp_path / "test").write_text("+1 1:100\n-1 5:1\n")
    data = libsvm(file, test_path=tmp_path / "test", official_test=True, fractions=(0.5, 0.25, 0.25))
    assert data.test_rows.tolist() == [18, 19]
    assert data.test.inputs.tolist() == [[100.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]]
    assert (len(data.train.targets), len(data.validation.targets)) == (12, 6)
    alike = libsvm(file, test_path=tmp_path / "test")
    assert len(alike.train.targets) == 13


def test_a_large_table_stays_sparse(file, monkeypatch):
    import importlib

    dense = libsvm(file, normalize=True)
    monkeypatch.setattr(importlib.import_module("torchal.data.libsvm"), "_DENSE_VALUES", 9)
    data = libsvm(file, normalize=True)
    assert isinstance(data.train.inputs, SparseInputs)
    assert np.allclose(data.train.inputs.matrix.toarray(), dense.train.inputs.numpy())
    assert data.train_rows.equal(dense.train_rows)
    assert libsvm(file, standardize=True).train.inputs.shape == (12, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no rows"),
        (b"# nothing\n", "has no rows"),
        (b"1 2\n", "not in LIBSVM's format"),
        (b"1 1:a\n", "not in LIBSVM's format"),
        (b"one 1:1\n", "not in LIBSVM's format"),
        (b"1,2 1:1\n2 1:1\n", "not in LIBSVM's format"),
        (b"1 2:1 1:1\n", "not in LIBSVM's format"),
        (b"1 -3:1\n", "LIBSVM's format|columns"),
        (b"1 1:nan\n0 1:1\n" * 9, "row 0: a feature must be finite"),
        (b"1 1:1\n0 1:inf\n" * 9, "row 1: a feature must be finite"),
        (b"1 1:1e999\n0 1:1\n" * 9, "row 0: a feature must be finite"),
        (b"1 1:1\n" * 9, "two classes are needed"),
        (b"1.5 1:1\n2 1:1\n" * 9, "regression"),
        (b"nan 1:1\n2 1:1\n" * 9, "regression"),
        (b"1\n0\n" * 9, "no value in any column"),
        (bytes(range(256)), "LIBSVM's format"),
    ],
)
def test_refuses_what_is_no_data_set(content, message, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(DataError, match=message):
        libsvm(tmp_path / "a")


def test_columns_without_end_are_not_made_dense(tmp_path):
    (tmp_path / "a").write_text("1 2000000000:1\n0 1:1\n" * 9)
    assert isinstance(libsvm(tmp_path / "a").train.inputs, SparseInputs)
    with pytest.raises(ConfigError, match="standardize=false keeps them sparse"):
        libsvm(tmp_path / "a", standardize=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"official_test": True}, ConfigError, "needs a test_path"),
        ({"official_test": "yes"}, ConfigError, "official_test must be true or false"),
        ({"n_features": 2}, DataError, "has 3 columns, n_features is 2"),
        ({"n_features": 0}, ConfigError, "n_features must be"),
        ({"test_path": "none"}, DataError, "none cannot be read"),
        ({"planet": 1}, ConfigError, "unknown setting 'planet'; the settings are test_path, official_test, n_features"),
    ],
)
def test_refuses_settings(arguments, error, message, file):
    with pytest.raises(error, match=message):
        libsvm(file, **arguments)


def test_a_truncated_gz(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(TEXT.encode())[:-9])
    with pytest.raises(DataError, match=r"a\.gz"):
        libsvm(tmp_path / "a.gz")


@pytest.mark.parametrize("name", ["binary-svm", "multiclass-svm"])
def test_every_file_at_hand(name):
    files = sorted((FOLDER / name).glob("*.txt.gz"))
    if not files:
        pytest.skip(f"{name} is not in {FOLDER}: set TORCHAL_DATA to the folder with the data sets")
    for path in files:
        data = _libsvm(path, standardize=True)
        assert len(data.class_names) >= 2
        assert len(data.train.targets) > len(data.test.targets) > 10
