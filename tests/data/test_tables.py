"""The user's own files, good and bad."""

import gzip
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from torchal.data import csv, dataframe, parquet
from torchal.errors import ConfigError, DataError

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
    assert "row 1, column 1: a feature must be a number, got 'b'" in message(path, header=False, strict=True)


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
    text = message(written(tmp_path, [*GOOD[:7], row, *GOOD[7:]]), strict=True)
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1,tall,a", ["row 3", "column 'height'", "'tall'"]),
        ("1,NaN,a", ["row 3", "column 'height'", "NaN"]),
        ("1,2,", ["row 3", "column 'kind'", "label is missing"]),
        ("1", ["row 3", "1 cell,", "3 cells", "column 'age'"]),
    ],
)
def test_with_a_header_the_column_goes_by_its_name(tmp_path, row, words):
    text = message(written(tmp_path, ["age,height,kind", "1,2,a", row, "3,4,b"]), target="kind", strict=True)
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
        (["a;1", "b;2"], {"delimiter": ","}, ["row 1", "one column", "delimiter"]),
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


class TestColumnsThatAreNoNumbers:
    """Texts, missing cells, an index: what they become is learned from the training part."""

    ROWS = ("34,Rome,yes", "28,Oslo,no", ",Rome,no", "51,,yes", "47,Rome,no", "39,Oslo,yes")

    def load(self, folder, rows=ROWS * 4, first="age,city,kind", **settings):
        return csv(written(folder, [first, *rows]), **{"target": "kind", **settings})

    def test_become_one_hot_and_medians(self, tmp_path):
        data = self.load(tmp_path, train_rows=range(18), validation_rows=[], test_rows=range(18, 24))
        inputs, targets = in_source_order(data)
        # age with its median 39, whether it was missing, and the categories in order
        assert inputs[:4].tolist() == [[34, 0, 0, 0, 1], [28, 0, 0, 1, 0], [39, 1, 0, 0, 1], [51, 0, 1, 0, 0]]
        assert (data.class_names, targets[:4].tolist()) == (("no", "yes"), [1, 0, 0, 1])
        assert data.columns == {
            "numbers": [],
            "imputed": {"age": {"median": 39.0, "missing": 4}},
            "one_hot": {"city": ["(missing)", "Oslo", "Rome"]},
            "left_out": {},
        }

    def test_are_fitted_on_the_training_part(self, tmp_path):
        rows = ["1,a,x", "2,a,y", "3,b,x", ",b,y", "1000,c,x", "2000,c,y"]
        parts = {"train_rows": range(4), "validation_rows": [], "test_rows": [4, 5]}
        data = self.load(tmp_path, rows, **parts)
        assert data.columns["imputed"]["age"] == {"median": 2.0, "missing": 1}
        assert data.columns["one_hot"]["city"] == ["a", "b"]
        assert data.test.inputs.tolist() == [[1000, 0, 0, 0], [2000, 0, 0, 0]]  # a category that nobody had seen
        # whatever stands in the test part, the training part is the same
        changed = self.load(tmp_path, [*rows[:4], ",q,x", ",a,y"], **parts)
        assert torch.equal(changed.train.inputs, data.train.inputs)

    def test_rare_categories_share_a_column(self, tmp_path):
        rows = [f"{i},{'abcdefgh'[i % 2 if i < 20 else i - 18]},{'xy'[i % 2]}" for i in range(26)]
        parts = {"train_rows": range(24), "validation_rows": [], "test_rows": [24, 25]}
        data = self.load(tmp_path, rows, **parts)
        assert data.columns["one_hot"]["city"] == ["a", "b", "4 rare ones"]
        assert data.test.inputs[:, 1:].tolist() == [[0, 0, 1], [0, 0, 1]]  # those of the test part are rare too
        assert self.load(tmp_path, rows, min_frequency=1, **parts).train.inputs.shape == (24, 7)
        many = self.load(tmp_path, rows, min_frequency=1, max_categories=3, **parts)
        assert many.columns["one_hot"]["city"] == ["a", "b", "4 rare ones"]

    def test_without_any_use_are_left_out_and_said(self, tmp_path):
        rows = [f"{i},{i},name{i},,{'xy'[i % 2]},{i * i}" for i in range(30)]
        data = self.load(tmp_path, rows, ",age,name,nothing,kind,more", drop=["more"])
        assert data.train.inputs.shape == (20, 1)
        assert data.columns["left_out"] == {
            "more": "as asked",
            "": "an index",
            "name": "no value occurs 2 times",
            "nothing": "no values",
        }
        with pytest.raises(DataError, match=r"no column of features is left. name: no value occurs 2 times"):
            self.load(tmp_path, [f"name{i},{'xy'[i % 2]}" for i in range(12)], "name,kind")

    @pytest.mark.parametrize("mark", ["", "?", "NA", "nan", "NULL", " "])
    def test_missing_cells_are_seen_however_written(self, mark, tmp_path):
        rows = [f"{mark},Rome,yes", "30,Oslo,no", f"40,{mark},no"] * 6
        data = self.load(tmp_path, rows, train_rows=range(15), validation_rows=[], test_rows=[15, 16, 17])
        assert data.columns["imputed"]["age"] == {"median": 35.0, "missing": 6}
        assert data.columns["one_hot"]["city"] == ["(missing)", "Oslo", "Rome"]

    def test_a_first_row_with_a_missing_cell_is_no_header(self, tmp_path):
        data = csv(written(tmp_path, ["?,3,a", "2,4,b", "5,?,a"] * 6), target=2)
        assert len(in_source_order(data)[0]) == 18

    def test_marks_can_be_given(self, tmp_path):
        rows = ["-,Rome,yes", "30,Oslo,no", "40,Oslo,yes"] * 6
        with pytest.raises(
            DataError, match=r"row 2, column 'age': .*got '-'; 12 of 18 cells .*`missing`.*`categorical`"
        ):
            self.load(tmp_path, rows)
        assert self.load(tmp_path, rows, missing=["-"]).columns["imputed"]["age"]["missing"] == 6
        assert self.load(tmp_path, rows, categorical=["age"]).columns["one_hot"]["age"] == ["-", "30", "40"]
        zips = [f"{['08001', '28001'][i % 2]},Rome,{'yn'[i % 3 == 0]}" for i in range(24)]
        assert self.load(tmp_path, zips, categorical=[0]).columns["one_hot"]["age"] == ["08001", "28001"]

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            ("34,Rome,yes", ["row 2", "column 'city'", "number", "'Rome'"]),
            (",1,yes", ["row 2", "column 'age'", "blank"]),
            ("34,1,", ["row 2", "column 'kind'", "label is missing"]),
        ],
    )
    def test_strict_refuses_them(self, row, words, tmp_path):
        rows = [row, *["28,2,no", "12,3,yes"] * 6]
        text = message(written(tmp_path, ["age,city,kind", *rows]), target="kind", strict=True)
        assert all(word in text for word in words), text

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"drop": ["age", "none"]}, "no column is named 'none'; the columns are age, city, kind"),
            ({"drop": "age"}, "drop must be a list, got 'age'"),
            ({"drop": ["kind"]}, "the target 'kind' cannot be left out"),
            ({"index": 7}, "there is no column 7"),
            ({"missing": [1]}, "missing must be a list of texts"),
            ({"strict": "no"}, "strict must be true or false, got 'no'"),
            ({"min_frequency": 0}, "min_frequency must be a whole number of at least 1"),
            ({"max_categories": 1}, "max_categories must be a whole number of at least 2"),
            ({"categorical": [True]}, "categorical must be a column's name or number, got True"),
            ({"encoding": "utf-9"}, "encoding must be one that Python knows"),
            ({"encoding": "zlib"}, "encoding must be one that Python knows"),
            ({"decimal": ";"}, "decimal must be . or ,"),
        ],
    )
    def test_impossible_settings_are_refused(self, settings, words, tmp_path):
        with pytest.raises((ConfigError, DataError)) as caught:
            self.load(tmp_path, **settings)
        assert words in str(caught.value)

    def test_numbers_alone_are_what_they_were(self, tmp_path):
        data = csv(written(tmp_path, GOOD))
        assert data.columns is None
        assert data.unlabeled is None


class TestIndexColumns:
    @pytest.mark.parametrize("name", ["", "Unnamed: 0", "id", "Index", '""'])
    @pytest.mark.parametrize("start", [0, 1, 500])
    def test_that_count_the_rows_are_left_out(self, name, start, tmp_path):
        rows = [f"{start + i},{i % 5},{'xy'[i % 2]}" for i in range(20)]
        data = csv(written(tmp_path, [f"{name},size,kind", *rows]), target="kind")
        assert list(data.columns["left_out"].values()) == ["an index"]
        assert csv(written(tmp_path, [f"{name},size,kind", *rows]), target="kind", index=None).columns is None

    @pytest.mark.parametrize(("name", "step"), [("size", 1), ("id", 2), ("", 3)])
    def test_others_are_features(self, name, step, tmp_path):
        rows = [f"{i * step},{i % 5},{'xy'[i % 2]}" for i in range(20)]
        assert csv(written(tmp_path, [f"{name},more,kind", *rows]), target="kind").columns is None

    def test_as_R_writes_names_of_rows(self, tmp_path):
        rows = [f'"car {i}",{i % 5},"{"xy"[i % 2]}"' for i in range(20)]
        for first in ('"size","kind"', '"","size","kind"'):
            data = csv(written(tmp_path, [first, *rows]), target="kind")
            assert data.columns["left_out"] == {"": "an index"}
            assert data.train.inputs.shape == (13, 1)

    def test_can_be_named(self, tmp_path):
        rows = [f"{i * 7},{i % 5},{'xy'[i % 2]}" for i in range(20)]
        data = csv(written(tmp_path, ["key,size,kind", *rows]), target="kind", index="key")
        assert data.columns["left_out"] == {"key": "an index"}


class TestRowsWithoutALabel:
    ROWS = ["1,a", "2,b", "3,", "4,a", "5,b", "6,NA"] * 5

    def test_are_to_be_asked_about(self, tmp_path):
        data = csv(written(tmp_path, ["size,kind", *self.ROWS]), target="kind", standardize=True)
        assert data.unlabeled_rows.tolist() == [2, 5, 8, 11, 14, 17, 20, 23, 26, 29]
        assert data.class_names == ("a", "b")
        used = torch.cat([data.train_rows, data.validation_rows, data.test_rows])
        assert sorted([*used.tolist(), *data.unlabeled_rows.tolist()]) == list(range(30))
        size = torch.tensor([float(row.split(",")[0]) for row in self.ROWS])
        chosen = size[data.train_rows]
        assert_close(data.unlabeled[:, 0], (size[data.unlabeled_rows] - chosen.mean()) / chosen.std(correction=0))
        pool = data.query_pool()
        assert pool.candidates.sum() == 10
        assert pool.n_labeled == len(data.train_rows)
        assert torch.equal(pool.source_rows[pool.candidates], data.unlabeled_rows)

    def test_split_the_others_as_if_they_were_not_there(self, tmp_path):
        partly = csv(written(tmp_path, ["size,kind", *self.ROWS]), target="kind", seed=3)
        known = [row for row in self.ROWS if not row.endswith((",", "NA"))]
        whole = csv(written(tmp_path, ["size,kind", *known], "known.csv"), target="kind", seed=3)
        assert torch.equal(partly.train.inputs, whole.train.inputs)
        assert torch.equal(partly.test.targets, whole.test.targets)

    def test_drop_out_of_explicit_rows(self, tmp_path):
        path = written(tmp_path, ["size,kind", *self.ROWS])
        data = csv(path, target="kind", train_rows=range(15), validation_rows=[16, 17], test_rows=[18, 19, 29])
        assert data.train_rows.tolist() == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13]
        assert (data.validation_rows.tolist(), data.test_rows.tolist()) == ([16], [18, 19])

    def test_of_a_full_table_there_are_none(self, tmp_path):
        data = csv(written(tmp_path, GOOD))
        with pytest.raises(DataError, match=r"every row of table has a label"):
            data.query_pool()
        with pytest.raises(DataError, match=r"no row has a label in column 'kind'"):
            csv(written(tmp_path, ["size,kind", *["1,", "2,?"] * 9]), target="kind")

    def test_a_label_may_be_called_none(self, tmp_path):
        data = csv(written(tmp_path, ["size,kind", *["1,None", "2,none", "3,other"] * 6]), target="kind")
        assert data.class_names == ("None", "none", "other")
        data = csv(written(tmp_path, ["size,kind", *["1,NA", "2,DE"] * 6]), target="kind", missing=[])
        assert data.class_names == ("DE", "NA")


class TestText:
    @pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "  ", " \t "])
    def test_delimiters_are_found(self, delimiter, tmp_path):
        rows = [delimiter.join([str(i), f"{i % 5}.5", "xy"[i % 2]]) for i in range(20)]
        data = csv(written(tmp_path, [delimiter.join(["a", "b", "kind"]), *rows]), target="kind")
        assert data.train.inputs.shape == (13, 2)

    def test_a_semicolon_in_the_texts_is_no_delimiter(self, tmp_path):
        rows = [f"{i},{'see; this' if i % 3 else 'that'},{'xy'[i % 2]}" for i in range(20)]
        assert csv(written(tmp_path, ["size,text,kind", *rows]), target="kind").columns["one_hot"]

    @pytest.mark.parametrize("delimiter", [";", "\t"])
    def test_a_decimal_comma_is_found(self, delimiter, tmp_path):
        rows = [delimiter.join([f"{i},25", f"-{i % 5},5e1", "xy"[i % 2]]) for i in range(20)]
        inputs, _ = in_source_order(csv(written(tmp_path, rows), target=2))  # and no header is seen in the first row
        assert inputs[3].tolist() == [3.25, -35.0]

    def test_a_decimal_comma_in_quotes_is_found(self, tmp_path):
        rows = [f'"{i},25",{"xy"[i % 2]}' for i in range(20)]
        assert in_source_order(csv(written(tmp_path, ["size,kind", *rows]), target="kind"))[0][3].item() == 3.25

    @pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-8-sig", "utf-8"])
    def test_encodings(self, encoding, tmp_path):
        text = "größe\tkind\r\n" + "1\tcafé\r\n2\tthé\r\n" * 6
        (tmp_path / "a.tsv").write_bytes(text.encode(encoding))
        known = {} if encoding.startswith("utf") else {"encoding": encoding}
        data = csv(tmp_path / "a.tsv", target="kind", **known)
        assert data.class_names == ("café", "thé")
        if known:
            with pytest.raises(DataError, match=r"a.tsv is not UTF-8 text: .*; is it latin-1 or cp1252\?"):
                csv(tmp_path / "a.tsv", target="kind")

    def test_line_ends_of_old_and_breaks_in_quotes(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b'size,note,kind\r1,"a\rb",x\r2,"a\rb",y\r' * 1 + b'3,"a\rb",x\r4,c,y\r' * 6)
        data = csv(tmp_path / "a.csv", target="kind")
        assert data.columns["one_hot"]["note"] == ["a\nb", "c"]

    def test_a_binary_file_is_refused(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(b"a,b\n1,\x00\n")
        with pytest.raises(DataError, match="NUL"):
            csv(tmp_path / "a.csv", target="b")


class TestFrames:
    def frame(self):
        pd = pytest.importorskip("pandas")
        n = 24
        return pd.DataFrame(
            {
                "age": [20.0 + i if i % 6 else None for i in range(n)],
                "city": pd.Categorical(["Rome", "Oslo", None] * 8),
                "member": [True, False] * 12,
                "since": pd.date_range("2020-01-01", periods=n),
                "whole": pd.array([1, None, 3] * 8, dtype="Int64"),
                "kind": ["a", "b"] * 12,
            },
            index=["same"] * n,
        )

    def test_of_every_dtype(self):
        data = dataframe(self.frame(), target="kind", train_rows=range(18), validation_rows=[], test_rows=range(18, 24))
        assert data.columns["numbers"] == ["member", "since"]
        assert data.columns["imputed"].keys() == {"age", "whole"}
        assert data.columns["one_hot"] == {"city": ["(missing)", "Oslo", "Rome"]}
        assert data.train.inputs.shape == (18, 2 + 4 + 3)
        assert data.train.inputs[0].tolist()[:2] == [1.0, 1577836800.0]

    def test_parquet_is_the_frame(self, tmp_path):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        self.frame().to_parquet(tmp_path / "a.parquet")
        data, same = parquet(tmp_path / "a.parquet", target="kind"), dataframe(self.frame(), target="kind")
        assert torch.equal(data.train.inputs, same.train.inputs)
        assert (data.columns, data.name) == (same.columns, "a")

    def test_what_is_no_table_is_refused(self, tmp_path):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(DataError, match=r"a.parquet is damaged or not a Parquet file"):
            parquet(tmp_path / "a.parquet", target="kind")
        with pytest.raises(DataError, match=r"none.parquet cannot be read: No such file"):
            parquet(tmp_path / "none.parquet", target="kind")
        frame = self.frame().assign(lists=[[1, 2]] * 24)
        with pytest.raises(DataError, match=r"table, row 0, column 'lists': a cell must be a number.*got list"):
            dataframe(frame, target="kind")
        with pytest.raises(DataError, match=r"table has no rows"):
            dataframe(frame.iloc[:0], target="kind")
        with pytest.raises(DataError, match=r"a label must be a class, got 0.5; regression is not supported"):
            dataframe(frame.assign(age=np.arange(24) + 0.5).drop(columns="lists"), target="age")

    def test_many_columns_of_texts(self):
        pd = pytest.importorskip("pandas")
        frame = pd.DataFrame({f"c{i}": ["x", "y", "x", "z"] * 6 for i in range(150)}).assign(kind=["a", "b"] * 12)
        assert dataframe(frame, target="kind", min_frequency=1).train.inputs.shape == (16, 450)

    def test_something_else_is_refused(self):
        with pytest.raises(DataError, match="frame must be a pandas DataFrame, got list"):
            dataframe([[1, 2]], target=0)

    def test_labels_of_every_dtype(self):
        frame = self.frame()
        for labels in ([0, 1, 2] * 8, [0.0, 1.0, 2.0] * 8, frame.index.map(str).map(lambda _: 0) + np.arange(24) % 3):
            assert dataframe(frame.assign(kind=labels), target="kind").class_names == ("0", "1", "2")
        assert dataframe(frame.assign(kind=[True, False] * 12), target="kind").class_names == ("False", "True")
        assert dataframe(frame.assign(kind=[10, 9] * 12), target=-1).class_names == ("9", "10")
