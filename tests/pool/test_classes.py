import enum
import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from torchal import DataError, Pool, ShapeError
from torchal.pool.classes import Classes, as_values

WORDS = Classes(("ham", "spam"), 2)
NUMBERS = Classes(None, 3)


class TestColumns:
    @pytest.mark.parametrize(
        "labels",
        [
            ["spam", "ham", None],
            ("spam", "ham", math.nan),
            np.array(["spam", "ham", None], dtype=object),
            pd.Series(["spam", "ham", None], index=[7, 7, 9]),
            pd.Series(["spam", "ham", pd.NA], dtype="string"),
            pd.Categorical(["spam", "ham", None]),
            pd.Series(pd.Categorical(["spam", "ham", None])),
            pd.Index(["spam", "ham", None]),
            pl.Series(["spam", "ham", None]),
            pa.array(["spam", "ham", None]),
            pa.chunked_array([["spam"], ["ham", None]]),
            iter(["spam", "ham", None]),
        ],
        ids=lambda labels: type(labels).__module__.split(".")[0] + "." + type(labels).__name__,
    )
    def test_words_of_any_library(self, labels):
        codes, classes = WORDS.encode(labels, n=3)
        assert codes.tolist() == [1, 0, -1]
        assert codes.dtype == torch.int64
        assert classes == WORDS

    @pytest.mark.parametrize(
        "labels",
        [
            [1, 0, 2],
            [1.0, 0.0, 2.0],
            torch.tensor([1, 0, 2]),
            torch.tensor([1.0, 0.0, 2.0]),
            torch.tensor([1, 0, 2], dtype=torch.uint8),
            np.array([1, 0, 2], dtype=np.uint16),
            np.array([1, 0, 2], dtype=">i4"),
            pd.Series([1, 0, 2], dtype="Int64"),
            pl.Series([1, 0, 2]),
            [np.int64(1), np.float32(0), torch.tensor(2)],
        ],
        ids=str,
    )
    def test_whole_numbers_of_any_kind(self, labels):
        assert NUMBERS.encode(labels, n=3)[0].tolist() == [1, 0, 2]

    @pytest.mark.parametrize("labels", [[True, False], torch.tensor([True, False]), np.array([True, False])])
    @pytest.mark.parametrize("classes", [NUMBERS, Classes.named([False, True]), Classes.named([0, 1])])
    def test_truth_values_are_0_and_1(self, labels, classes):
        assert classes.encode(labels, n=2)[0].tolist() == [1, 0]

    @pytest.mark.parametrize(
        "labels", [[1, 0, -1], range(1, -2, -1), torch.tensor([1, 0, -1]), [1.0, None, -1.0]], ids=str
    )
    def test_what_is_below_0_is_no_blank(self, labels):
        with pytest.raises(DataError, match=r"must lie in \[0, 3\), got -1 to 1"):
            NUMBERS.encode(labels, n=3)

    def test_blanks_among_numbers(self):
        assert NUMBERS.encode(torch.tensor([1.0, math.nan, 0.0]), n=3)[0].tolist() == [1, -1, 0]
        for labels in (
            [1, None, 0],
            [1.0, math.nan, 0.0],
            pd.Series([1, None, 0], dtype="Int64"),
            torch.tensor([1.0, math.nan, 0]),
        ):
            assert NUMBERS.encode(labels, n=3)[0].tolist() == [1, -1, 0]

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            (torch.eye(3), r"got shape \(3, 3\): labels.argmax\(1\)"),
            ([[0, 1], [1, 0]], r"got shape \(2, 2\): labels.argmax\(1\)"),
            (np.zeros((3, 1)), r"got shape \(3, 1\).* labels.ravel\(\)"),
            (torch.tensor(1), r"got shape \(\)"),
            ("spam", "got str"),
            ({"a": 1}, "got dict"),
            (5, "got int"),
            (None, "got NoneType"),
            (pd.DataFrame({"label": ["ham"]}), "got DataFrame"),
        ],
        ids=str,
    )
    def test_what_is_no_column(self, labels, words):
        with pytest.raises(ShapeError, match=words):
            WORDS.encode(labels, n=3)

    def test_as_many_as_rows(self):
        with pytest.raises(ShapeError, match="one label for each of 3 rows, got 2"):
            WORDS.encode(["ham", "spam"], n=3)


class TestNames:
    def test_a_label_that_is_none_of_them(self):
        with pytest.raises(DataError, match=r"2 of 3 labels are none of the 2 classes .*: 'Spam'; 'spam'\?"):
            WORDS.encode(["Spam", "ham", "Spam"], n=3)
        with pytest.raises(DataError, match=r"1 of 1 labels are none of the 2 classes .*: 1$"):
            WORDS.encode([1], n=1)
        with pytest.raises(DataError, match=r"labels must be whole numbers .* got 'ham'; for other labels name them"):
            NUMBERS.encode(["ham"], n=1)

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["ham"], "at least 2, got 1"),
            ([], "at least 2, got 0"),
            (["ham", "ham"], "'ham' is there more than once"),
            ([1, True], "is there more than once"),
            (["ham", 1], "all text or all numbers"),
            (["ham", None], "got NoneType None"),
            ([0.5, math.inf], "got float inf"),
            ([(0, 1), (1, 2)], "one for each row, got shape"),
        ],
        ids=str,
    )
    def test_that_cannot_be(self, names, words):
        with pytest.raises((DataError, ShapeError), match=words):
            Classes.named(names)

    def test_are_learned_in_the_order_in_which_they_come(self):
        codes, classes = Classes.learned().encode(["b", "a", None, "b"], n=4)
        assert (codes.tolist(), classes.names, classes.n) == ([0, 1, -1, 0], ("b", "a"), 2)
        codes, classes = classes.encode(pd.Series(["c", "a"]), n=2)
        assert (codes.tolist(), classes.names, classes.n) == ([2, 1], ("b", "a", "c"), 3)
        with pytest.raises(DataError, match="all text or all numbers, got both: 'b', 'a', 'c', 7"):
            classes.encode([7], n=1)

    @given(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=20))
    def test_come_back_as_they_went_in(self, labels):
        codes, classes = Classes.learned().encode(labels, n=len(labels))
        told = [label for label in labels if label is not None]
        assert classes.decode(codes[codes >= 0]) == told
        assert classes.names == tuple(dict.fromkeys(told))
        again, same = classes.encode(labels, n=len(labels))
        assert again.equal(codes)
        assert same == classes

    def test_of_a_file(self):
        assert [WORDS.read(text) for text in ("ham", " spam ", "", "  ")] == ["ham", "spam", None, None]
        assert [Classes.named([0, 1]).read(text) for text in ("0", "1")] == [0, 1]
        assert [Classes.named([False, True]).read(text) for text in ("False", "True")] == [False, True]
        assert [NUMBERS.read(text) for text in ("2", "1.0", "x")] == [2, 1.0, "x"]
        assert Classes.learned().read("7") == "7"

    @pytest.mark.parametrize("text", ["nan", "NaN", "inf"])
    def test_no_number_in_a_file_is_no_blank(self, text):
        for classes in (NUMBERS, Classes.named([0.5, 1.5])):
            with pytest.raises(DataError, match=f"'{text}'"):
                classes.encode([classes.read(text)], n=1)

    def test_of_a_kind_that_cannot_be_saved(self):
        class Mail(str, enum.Enum):
            HAM = "ham"
            SPAM = "spam"

        with pytest.raises(DataError, match=r"must be text, a number or a truth value, got Mail"):
            Classes.named(Mail)


class TestPool:
    def test_classes_are_named(self):
        pool = Pool.unlabeled(torch.zeros(4, 1), classes=["ham", "spam"])
        told = pool.with_labels([3, 0, 1], ["spam", "ham", None])
        assert told.targets.tolist() == [0, -1, -1, 1]
        assert told.skipped.tolist() == [False, True, False, False]
        assert told.n_classes == 2
        assert told.classes == ("ham", "spam")

    def test_classes_are_learned(self):
        pool = Pool.unlabeled(torch.zeros(4, 1))
        assert (pool.n_classes, pool.classes) == (2, ())
        pool = pool.with_labels([0, 1], ["b", "a"]).with_labels([2], ["c"])
        assert (pool.targets.tolist(), pool.n_classes, pool.classes) == ([0, 1, 2, -1], 3, ("b", "a", "c"))

    def test_another_name_makes_another_pool_and_a_new_class_does_not(self):
        x = torch.zeros(4, 1)
        assert (
            Pool.unlabeled(x, classes=["a", "b"]).fingerprint() != Pool.unlabeled(x, classes=["b", "a"]).fingerprint()
        )
        pool = Pool.unlabeled(x)
        assert pool.with_labels([0], ["b"]).fingerprint() == pool.fingerprint()

    def test_one_of_two(self):
        with pytest.raises(DataError, match="n_classes is 3, and classes names 2; give one"):
            Pool.unlabeled(torch.zeros(4, 1), classes=["a", "b"], n_classes=3)

    def test_other_labels_and_none(self):
        pool = Pool.unlabeled(torch.zeros(4, 1), classes=["a", "b"]).with_labels([0, 1, 2], ["a", "b", None])
        assert pool.relabeled([0], ["b"]).targets.tolist() == [1, 1, -1, -1]
        assert pool.unlabel([1, 2]).candidates.tolist() == [False, True, True, True]
        with pytest.raises(DataError, match="1 of 2 rows have no label yet, the first is row 3"):
            pool.unlabel([1, 3])
        assert pool.targets.tolist() == [0, 1, -1, -1]


def test_values_of_a_column():
    assert as_values("labels", [1, None, math.nan, pd.NaT, pd.NA, "x"]) == [1, None, None, None, None, "x"]
