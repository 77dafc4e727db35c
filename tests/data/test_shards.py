import numpy as np
import pytest
import torch

from torchal import ConfigError, DataError, ShapeError
from torchal.data import shards
from torchal.pool import FileInputs

pa = pytest.importorskip("pyarrow", reason="ids of shards are Parquet")

import pyarrow.parquet as pq  # noqa: E402


def write(folder, values, labels, *, each=40, column="label"):
    """Write rows as torchal.embed does, with their labels beside them."""
    for part in ("img_emb", "metadata"):
        (folder / part).mkdir(parents=True)
    for i, start in enumerate(range(0, len(values), each)):
        np.save(folder / "img_emb" / f"img_emb_{i}.npy", values[start : start + each])
        pq.write_table(
            pa.table({"path": [f"{row}.jpg" for row in range(start, min(start + each, len(values)))]}).append_column(
                column, pa.array(labels[start : start + each])
            ),
            folder / "metadata" / f"metadata_{i}.parquet",
            row_group_size=11,
        )
    return folder


def numbers(n_rows, n_columns=4, seed=0):
    return np.random.default_rng(seed).normal(size=(n_rows, n_columns)).astype(np.float32)


@pytest.fixture
def folders(tmp_path):
    train = write(tmp_path / "train", numbers(100), ["b", "a", None, "10"] * 25)
    return train, write(tmp_path / "test", numbers(20, seed=1), ["a", "b", "9", None] * 5)


def test_labels_become_classes_in_both_parts(folders):
    data = shards(folders[0], test_path=folders[1])
    assert isinstance(data.train.inputs, FileInputs)
    assert data.class_names == ("10", "9", "a", "b")  # as make_splits orders text
    assert data.train.targets[:5].tolist() == [3, 2, -1, 0, 3]
    assert data.test_rows.tolist() == [row for row in range(20) if row % 4 != 3]
    assert data.test.targets[:3].tolist() == [2, 3, 1]
    assert data.test.inputs.equal(torch.from_numpy(numbers(20, seed=1))[data.test_rows])
    assert data.train.inputs[torch.tensor([57])].equal(torch.from_numpy(numbers(100))[[57]])
    assert (len(data.validation.targets), data.name, data.n_classes) == (0, "train", 4)
    assert data.pool().n_classes == 4
    assert data.oracle()(torch.tensor([2, 3])).tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("labels", "names", "codes"),
    [([10, 9, 2], ("2", "9", "10"), [2, 1, 0]), (["10", "9", "2"], ("2", "9", "10"), [2, 1, 0])],
)
def test_whole_numbers_are_in_the_order_of_numbers(tmp_path, labels, names, codes):
    train, test = (write(tmp_path / part, numbers(6), labels * 2) for part in ("train", "test"))
    data = shards(train, test_path=test)
    assert data.class_names == names
    assert data.train.targets[:3].tolist() == codes


def test_validation_and_test_are_drawn_by_the_seed_and_disjoint(folders):
    def drawn(seed):
        return shards(folders[0], test_path=folders[1], validation_fraction=0.4, test_limit=10, seed=seed)

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert (len(first.validation.targets), len(first.test.targets)) == (4, 6)
    assert not set(first.validation_rows.tolist()) & set(first.test_rows.tolist())
    assert first.test_rows.equal(again.test_rows)
    assert not first.test_rows.equal(other.test_rows)
    values = torch.from_numpy(numbers(20, seed=1))
    assert first.validation.inputs.equal(values[first.validation_rows])


def test_many_small_reads_of_labels_are_one(folders, monkeypatch):
    want = shards(folders[0], test_path=folders[1]).train.targets
    monkeypatch.setitem(shards.__globals__, "_LABELS_AT_ONCE", 7)
    assert shards(folders[0], test_path=folders[1]).train.targets.equal(want)


def test_what_is_refused(folders, tmp_path, monkeypatch):
    train, test = folders
    with pytest.raises(ConfigError, match="no column 'kind' of ids among 'path', 'label'"):
        shards(train, test_path=test, target="kind")
    with pytest.raises(ConfigError, match="validation_fraction must be"):
        shards(train, test_path=test, validation_fraction=1.0)
    with pytest.raises(ConfigError, match="test_limit must be a whole number of at least 1, got 0"):
        shards(train, test_path=test, test_limit=0)
    wide = write(tmp_path / "wide", numbers(20, 5), ["a", "b"] * 10)
    with pytest.raises(ShapeError, match=r"rows of 4 columns, .*wide of 5"):
        shards(train, test_path=wide)
    blank = write(tmp_path / "blank", numbers(20), [None] * 20)
    with pytest.raises(DataError, match=r"none of 20 rows of .*blank has a label"):
        shards(blank, test_path=test)
    with pytest.raises(DataError, match="has 0 rows with a label: none is left for testing"):
        shards(train, test_path=blank)
    with pytest.raises(ConfigError, match=r"are both .*: a model would be tested on what it has learned"):
        shards(train, test_path=f"{train.parent}/./{train.name}")
    same, again = (write(tmp_path / name, numbers(20), ["a"] * 20) for name in ("same", "again"))
    with pytest.raises(DataError, match="two classes are needed, and every label is 'a'"):
        shards(same, test_path=again)
    real = write(tmp_path / "real", numbers(20), [0.5, 1.0] * 10)
    with pytest.raises(DataError, match=r"the column 'label' must be classes, and has 0\.5: regression is not"):
        shards(real, test_path=test)
    gaps = write(tmp_path / "gaps", numbers(20), [1.0, 0.0, float("nan"), 1.0] * 5)
    with pytest.raises(DataError, match=r"has nan: .*a row without a label has null"):
        shards(gaps, test_path=test)
    monkeypatch.setitem(shards.__globals__, "_MOST_CLASSES", 3)
    with pytest.raises(DataError, match="more than 3 different values: they are no labels"):
        shards(train, test_path=test, target="path")
    monkeypatch.setitem(shards.__globals__, "_MOST_TEST_BYTES", 239)
    monkeypatch.setitem(shards.__globals__, "_MOST_CLASSES", 100)
    with pytest.raises(ConfigError, match=r"15 x 4 numbers take 0\.0 GiB, .*test_limit= takes fewer"):
        shards(train, test_path=test)
    assert len(shards(train, test_path=test, test_limit=14).test.targets) == 14


def test_without_metadata_there_are_no_labels(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "0.npy", numbers(20))
    with pytest.raises(DataError, match="has no ids"):
        shards(tmp_path / "train", test_path=tmp_path / "test")
