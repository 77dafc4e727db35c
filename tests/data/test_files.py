"""The user's own files, good and bad."""

import gzip
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from torchal.data import csv, npz
from torchal.errors import ConfigError, DataError, ShapeError

REAL_DATA = Path(__file__).parents[2] / os.environ.get("TORCHAL_DATA", "../shared/data")
GOOD = ["a,1,2", "b,3,4.5", "c,-5e1, 6 "] * 6


def written(folder, lines, name="table.csv"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def in_source_order(data):
    rows = torch.cat([data.train_rows, data.validation_rows, data.test_rows]).argsort()
    inputs = torch.cat([data.train.inputs, data.validation.inputs, data.test.inputs])
    return inputs[rows], torch.cat([data.train.targets, data.validation.targets, data.test.targets])[rows]


def message(path, error=DataError, **settings):
    with pytest.raises(error) as caught:
        csv(path, **settings)
    text = str(caught.value)
    assert str(path) in text
    return text


def real(name):
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in {REAL_DATA}: set TORCHAL_DATA to the folder with the data sets")
    return path


def test_without_a_header_the_labels_are_in_column_0(tmp_path):
    data = csv(written(tmp_path, GOOD))
    inputs, targets = in_source_order(data)
    assert_close(inputs[:3], torch.tensor([[1.0, 2.0], [3.0, 4.5], [-50.0, 6.0]]))
    assert targets[:3].tolist() == [0, 1, 2]
    assert (data.class_names, data.name) == (("a", "b", "c"), "table")
    assert (len(data.train.targets), len(data.test.targets)) == (12, 3)


@pytest.mark.parametrize("target", [1, -2])
def test_a_target_counts_from_either_end(tmp_path, target):
    path = written(tmp_path, [f"{i},{i % 2},{-i}" for i in range(12)])
    inputs, targets = in_source_order(csv(path, target=target))
    assert inputs[3].tolist() == [3, -3]
    assert targets[:4].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("target", ["kind", 2, -1])
def test_a_header_is_seen_and_the_target_named(tmp_path, target):
    data = csv(written(tmp_path, ["age, weight,kind", *[f"{i},1.5,{'xy'[i % 2]}" for i in range(12)]]), target=target)
    assert data.train.inputs.shape == (8, 2)
    assert data.class_names == ("x", "y")


@pytest.mark.parametrize(
    ("first", "rows"),
    [
        ("Letter,1,2,3", 12),
        ("Letter,0,1,2", 12),
        ("Letter,1,2,4", 13),  # does not count
        ("b,1,2,3", 13),  # a label of other rows too
    ],
)
def test_a_header_that_numbers_the_columns_is_seen(tmp_path, first, rows):
    path = written(tmp_path, [first, *["a,1,1,1", "b,2,2,2"] * 6])
    inputs, _ = in_source_order(csv(path, target=0))
    assert len(inputs) == rows


def test_header_can_be_said(tmp_path):
    path = written(tmp_path, ["1,2,3", *["0,5,6", "1,7,8"] * 6])
    assert len(in_source_order(csv(path))[0]) == 13
    assert len(in_source_order(csv(path, header=True, target="1"))[0]) == 12
    path = written(tmp_path, ["a,b", "c,d"] * 6)
    assert "row 1, column 1: a feature must be a number, got 'b'" in message(path, header=False)


def test_gzip_delimiter_quotes_byte_order_mark_and_line_ends(tmp_path):
    path = tmp_path / "odd.data.gz"
    text = "kind;size\r\n" + '"a; ""b""";1\r\n"c";"2"\r\n' * 6 + "\r\n  \r\n"
    path.write_bytes(gzip.compress(text.encode("utf-8-sig")))
    data = csv(path, target="kind", delimiter=";")
    assert data.class_names == ('a; "b"', "c")
    assert data.name == "odd"
    assert sorted(in_source_order(data)[0].flatten().tolist()) == [1.0] * 6 + [2.0] * 6


def test_numbers_are_sorted_as_numbers(tmp_path):
    data = csv(written(tmp_path, [f"{label},{i}" for i, label in enumerate(["10", "9", "2.0", "2"] * 4)]))
    assert data.class_names == ("2", "2.0", "9", "10")  # labels are text: written in two ways they are two


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("b,3,x", ["row 8", "column 2", "number", "'x'"]),
        ("b,3,1_0", ["row 8", "column 2", "'1_0'"]),
        ("b,nan,4", ["row 8", "column 1", "finite", "nan"]),
        ("b,3,-inf", ["row 8", "column 2", "finite", "-inf"]),
        ("b,,4", ["row 8", "column 1", "blank"]),
        (" ,3,4", ["row 8", "column 0", "label is missing"]),
        ("nan,3,4", ["row 8", "column 0", "label is missing", "'nan'"]),
        ("b,3", ["row 8", "2 cells", "3 cells", "column 1"]),
        ("b,3,4,5", ["row 8", "4 cells", "3 cells", "column 2"]),
        ("", ["row 8", "nothing", "3 cells"]),
        ('"b,3,4', ["row 8", "its quotes cannot be read"]),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column(tmp_path, row, words):
    text = message(written(tmp_path, [*GOOD[:7], row, *GOOD[7:]]))
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1,tall,a", ["row 3", "column 'height'", "'tall'"]),
        ("1,NaN,a", ["row 3", "column 'height'", "nan"]),
        ("1,2,", ["row 3", "column 'kind'", "label is missing"]),
        ("1", ["row 3", "1 cell,", "3 cells", "column 'age'"]),
    ],
)
def test_with_a_header_the_column_goes_by_its_name(tmp_path, row, words):
    text = message(written(tmp_path, ["age,height,kind", "1,2,a", row, "3,4,b"]), target="kind")
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("lines", "settings", "words"),
    [
        (["age,kind", "1,a", "2,b"], {"target": "label"}, ["row 1", "'label'", "age, kind"]),
        (["age,kind", "1,a", "2,b"], {"target": 2}, ["row 1", "column 2", "age, kind"]),
        (["age,kind", "1,a", "2,b"], {}, ["row 1", "header", "target=", "age, kind"]),
        (["age,age", "1,2", "2,3"], {"target": "age"}, ["2 columns", "'age'"]),
        (GOOD, {"target": "kind"}, ["row 1", "no header", "'kind'", "0 to 2"]),
        (GOOD, {"target": -4}, ["row 1", "column -4", "0 to 2"]),
        (["a,1", "a,2", "a,3"], {}, ["rows 1 to 3", "column 0", "'a'", "two classes"]),
        (["1,4", "2.5,5", "3,6"], {}, ["row 2", "column 0", "2.5", "regression", "target="]),
        (["age,kind"], {"target": "kind"}, ["row 2", "no rows", "age, kind"]),
        ([""], {}, ["row 1", "empty"]),
        (["a;1", "b;2"], {}, ["row 1", "one column", "delimiter"]),
    ],
)
def test_a_bad_table_is_refused(tmp_path, lines, settings, words):
    text = message(written(tmp_path, lines), **settings)
    assert all(word in text for word in words), text


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert "No such file" in message(tmp_path / "none.csv")
    assert "cannot be read" in message(tmp_path)
    (tmp_path / "plain.csv.gz").write_text("a,1\n")
    assert "cannot be read" in message(tmp_path / "plain.csv.gz")
    (tmp_path / "short.csv.gz").write_bytes(gzip.compress(b"a,1\nb,2\n" * 1000)[:-20])
    assert "damaged" in message(tmp_path / "short.csv.gz")
    (tmp_path / "latin.csv").write_bytes("é,1\n".encode("latin-1"))
    assert "UTF-8" in message(tmp_path / "latin.csv")


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        ({"delimiter": ", "}, "', '"),
        ({"delimiter": ""}, "''"),
        ({"target": True}, "True"),
        ({"kep": [1]}, "'kep'.*target.*keep"),
    ],
)
def test_an_impossible_setting_is_refused(tmp_path, setting, word):
    with pytest.raises(ConfigError, match=word):
        csv(written(tmp_path, GOOD), **setting)


def test_a_large_table_is_quick(tmp_path):
    inputs = np.random.default_rng(0).normal(size=(20_000, 50)).round(5)
    path = written(tmp_path, [f"{i % 3}," + ",".join(map(str, row)) for i, row in enumerate(inputs.tolist())])
    start = time.perf_counter()
    loaded, _ = in_source_order(csv(path))
    assert time.perf_counter() - start < 5  # 0.2 s on two cores
    assert_close(loaded, torch.from_numpy(inputs).float())


def test_letter():
    data = csv(real("letter/letter-recognition.data"), target=0)
    inputs, targets = in_source_order(data)
    assert inputs.shape == (20_000, 16)
    assert data.class_names == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert inputs[0].tolist() == [2, 8, 3, 5, 1, 8, 13, 0, 6, 6, 10, 8, 0, 8, 0, 8]
    assert data.class_names[targets[0]] == "T"
    named = csv(real("letter/letter-recognition.data"), target="Letter", keep=["A", "B"])
    assert named.class_names == ("A", "B")


def test_waveform(tmp_path):
    broken = real("waveform/waveform.data.gz")
    text = message(broken, target=-1)  # one cell of this copy has a tab inside a number
    assert all(word in text for word in ["row 43", "column 20", r"'0.6\t8'"]), text
    path = tmp_path / "waveform.data.gz"
    path.write_bytes(gzip.compress(gzip.decompress(broken.read_bytes()).replace(b"\t", b"")))
    data = csv(path, target=-1)
    inputs, targets = in_source_order(data)
    assert inputs.shape == (5000, 21)
    assert (data.class_names, data.name) == (("0", "1", "2"), "waveform")
    assert targets[:2].tolist() == [2, 1]
    assert_close(inputs[0, :2], torch.tensor([-1.23, -1.56]))
    assert "regression" in message(path)  # the labels are not in column 0


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


def test_a_quote_that_is_not_closed_is_found(tmp_path):
    lines = [f'{i},{i % 7},"{"ab"[i % 2]}"' for i in range(40)]
    lines[11] = '11,4,"b'
    (tmp_path / "a.csv").write_text("x,y,label\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"a.csv, row 13: its quotes cannot be read"):
        csv(tmp_path / "a.csv", target="label")


def test_a_tab_may_be_spelled(tmp_path):
    (tmp_path / "a.tsv").write_text("label\tx\n" + "a\t1\nb\t2\n" * 9)
    for delimiter in ("\t", "\\t", "tab"):
        assert csv(tmp_path / "a.tsv", target="label", delimiter=delimiter).class_names == ("a", "b")


NUMBERS = [[i % 7, i % 5 + 0.5, i % 3] for i in range(60)]


def table(tmp_path, first, rows, **settings):
    lines = ([first] if first else []) + [",".join(map(str, row)) for row in rows]
    return csv(written(tmp_path, lines), **settings)


@pytest.mark.parametrize("first", ["1990,2000,2010", "100,200,300", "-50,1e6,77", "1990, 2005 ,2010"])
def test_numbers_that_may_be_names_are_asked_about(tmp_path, first):
    with pytest.raises(DataError, match=r"row 1: .*unlike all cells below it.*Say header=true or header=false"):
        table(tmp_path, first, NUMBERS)
    named = table(tmp_path, first, NUMBERS, header=True, target=2)
    assert (named.class_names, len(named.train_rows) * 3 // 2) == (("0", "1", "2"), 60)
    assert len(table(tmp_path, first, NUMBERS, header=False, target=2).class_names) == 4


@pytest.mark.parametrize("first", ["0,1,2,3", "1,2,3,4", "5,10,15,20", "4,3,2,1"])
def test_numbers_that_count_are_asked_about(tmp_path, first):
    rows = [[*row, row[0] % 2] for row in NUMBERS]
    with pytest.raises(DataError, match=r"row 1: .*evenly spaced.*Say header=true or header=false"):
        table(tmp_path, first, [[9 * value for value in row] for row in rows] + [[-9] * 4])


@pytest.mark.parametrize(
    ("first", "rows"),
    [
        ("f1,2010,label", [[1, 2, "a"], [2, 3, "b"]] * 9),  # a text above numbers
        ("1990,2000,3", [[1.2, 3.4, "cat"], [2.2, 1.4, "dog"]] * 9),  # a number above texts
        (",0,1", [[0, 5, 6], [1, 7, 8]] * 9 + [["", 1, 2]]),  # as pandas names an index
    ],
)
def test_a_header_with_numbers_is_seen(tmp_path, first, rows):
    if rows[-1][0] == "":
        rows = rows[:-1]
        first = "index,0,1"
    data = table(tmp_path, first, rows, target=0 if first.startswith("index") else 2)
    assert len(data.class_names) == 2


def test_ordinary_numbers_are_rows(tmp_path):
    assert len(table(tmp_path, "", NUMBERS, target=2).class_names) == 3
    sorted_rows = sorted([i, i * i, i // 30] for i in range(60))  # the first row is the least, and not far away
    assert len(table(tmp_path, "", sorted_rows, target=2).class_names) == 2


def test_blanks_around_quotes_do_not_count(tmp_path):
    lines = ['1, "a"', "2,a", '3,"a" ', "4, b", '5,"b"', "6,b "] * 4
    assert csv(written(tmp_path, lines), target=1).class_names == ("a", "b")


def test_a_name_may_have_a_line_break(tmp_path):
    text = '"size\n(cm)","kind\nof pet"\n' + "1,cat\n2,dog\n" * 6
    (tmp_path / "a.csv").write_text(text)
    for target in ("kind\nof pet", "kind of pet", 1):
        data = csv(tmp_path / "a.csv", target=target)
        assert data.class_names == ("cat", "dog")
    with pytest.raises(DataError, match=r"the columns are size \(cm\), kind of pet"):
        csv(tmp_path / "a.csv", target="none")
    (tmp_path / "a.csv").write_text(text + "3,x\nx,dog\n")
    with pytest.raises(DataError, match="row 17, column 'size"):
        csv(tmp_path / "a.csv", target="kind of pet")


def test_letters_are_the_same_however_composed(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    lines = [f"{apart},{composed}", *(f"{i},{(composed, apart, 'tea')[i % 3]}" for i in range(30))]
    for target in (composed, 1):
        (tmp_path / "a.csv").write_text("\n".join([f"size,{apart}", *lines[1:]]), encoding="utf-8")
        assert csv(tmp_path / "a.csv", target=target, keep=[apart, "tea"]).class_names == (composed, "tea")


@pytest.mark.parametrize("labels", [("1", "1.0"), ("01", "1"), ("1e3", "1000"), ("True", "true"), ("1", "+1")])
def test_labels_written_differently_are_two_classes(tmp_path, labels):
    lines = [f"{i},{labels[i % 2]}" for i in range(20)]
    assert set(csv(written(tmp_path, lines), target=1).class_names) == set(labels)


def test_a_decimal_comma_is_pointed_out(tmp_path):
    lines = ["1.5;a", "2,5;b"] * 6
    with pytest.raises(DataError, match=r"row 2, column 0: .*got '2,5'; a decimal comma is written as a point, 2.5"):
        csv(written(tmp_path, lines), target=1, delimiter=";")


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
