"""How labeled data are cut, filtered and scaled."""

import subprocess
import sys
from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from torchal.data import Splits, make_splits
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.protocols import UNLABELED

PARTS = ("train", "validation", "test")
ROWS = torch.arange(60.0).reshape(30, 2)
LABELS = np.arange(30) % 3


def part_rows(data: Splits) -> list[list[int]]:
    return [getattr(data, f"{part}_rows").tolist() for part in PARTS]


def explicit(train=(0, 1, 2, 3), validation=(4, 5), test=(6, 7, 8)):
    return {"train_rows": train, "validation_rows": validation, "test_rows": test}


def test_every_row_is_in_one_part_with_its_own_inputs_and_label():
    data = make_splits(ROWS, LABELS, name="thirty")
    rows = part_rows(data)
    assert [len(part) for part in rows] == [20, 5, 5]
    assert sorted(chain(*rows)) == list(range(30))
    for part, source in zip(PARTS, rows, strict=True):
        inputs, targets = getattr(data, part)
        assert inputs.dtype == torch.float32
        assert targets.dtype == getattr(data, f"{part}_rows").dtype == torch.int64
        assert_close(inputs, ROWS[source])
        assert targets.tolist() == LABELS[source].tolist()
    assert (data.name, data.class_names, data.n_classes) == ("thirty", ("0", "1", "2"), 3)


def test_the_seed_decides_the_split():
    first, again, other = (part_rows(make_splits(ROWS, LABELS, name="x", seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    assert part_rows(make_splits(ROWS, LABELS, name="x")) == part_rows(make_splits(ROWS, LABELS, name="x", seed=0))


@pytest.mark.parametrize(
    ("n", "fractions", "sizes"),
    [
        (1797, (2 / 3, 1 / 6, 1 / 6), (1198, 299, 300)),
        (150, (2 / 3, 1 / 6, 1 / 6), (100, 25, 25)),
        (100, (0.29, 0.58, 0.13), (29, 58, 13)),  # int(100 * 0.29) is 28, int(100 * 0.58) is 57
        (10, (0.1 + 0.2, 0.6, 0.1), (3, 6, 1)),
        (1000, (0.667, 0.167, 0.167), (667, 167, 166)),
        (99, (0.8, 0.2, 0), (80, 19, 0)),
        (99, (0.5, 0, 0.5), (49, 0, 50)),
        (7, (1, 0, 0), (7, 0, 0)),
    ],
)
def test_sizes_follow_the_fractions(n, fractions, sizes):
    data = make_splits(np.zeros((n, 1)), np.arange(n) % 2, name="x", fractions=fractions)
    assert tuple(len(getattr(data, part).targets) for part in PARTS) == sizes


@settings(deadline=None, max_examples=60)
@given(n=st.integers(6, 400), seed=st.integers(0, 9), max_rows=st.none() | st.integers(6, 500))
def test_sizes_and_cover_hold_for_any_number_of_rows(n, seed, max_rows):
    data = make_splits(np.arange(n)[:, None], np.arange(n) % 2, name="x", seed=seed, max_rows=max_rows)
    used = min(n, max_rows or n)
    rows = part_rows(data)
    train, validation = int(used * Fraction(2, 3)), used // 6
    assert [len(part) for part in rows] == [train, validation, used - train - validation]
    assert len(set(chain(*rows))) == used
    assert data.train.inputs.squeeze(1).tolist() == rows[0]


def test_keep_takes_labels_or_class_names_and_counts_from_zero():
    labels = np.array([4, 9, 7] * 10)
    data = make_splits(ROWS, labels, name="x", keep=[9, 4])
    assert data.class_names == ("4", "9")
    rows = [*chain(*part_rows(data))]
    assert sorted(rows) == np.flatnonzero(labels != 7).tolist()
    targets = torch.cat([data.train.targets, data.validation.targets, data.test.targets])
    assert targets.tolist() == [int(labels[row] == 9) for row in rows]
    named = make_splits(ROWS, labels, name="x", class_names=["four", "seven", "nine"], keep=["four", 9])
    assert named.class_names == ("four", "nine")
    assert part_rows(named) == part_rows(data)


def test_max_rows_takes_a_random_part_of_the_kept_rows():
    data = make_splits(ROWS, LABELS, name="x", max_rows=12, keep=[0, 2])
    rows = [*chain(*part_rows(data))]
    assert len(rows) == 12
    assert set(LABELS[rows]) <= {0, 2}
    assert rows != sorted(rows)
    assert part_rows(make_splits(ROWS, LABELS, name="x", max_rows=99)) == part_rows(make_splits(ROWS, LABELS, name="x"))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "9", "1"], ("1", "9", "10")),
        (["1.0", "1", "-2"], ("-2", "1", "1.0")),
        (["10.0", "9.0", "1.0"], ("1.0", "9.0", "10.0")),
        (["caf\u00e9", "cafe\u0301", "x"], ("caf\u00e9", "x")),
        (["b", "a", "10"], ("10", "a", "b")),
        (["1_0", "10", "2"], ("10", "1_0", "2")),
        ([2.0, 10.0, 9.0], ("2", "9", "10")),
        ([True, False, True], ("False", "True")),
        (np.array(["x", "y", "x"], dtype=object), ("x", "y")),
        (np.array([b"x", b"y", b"x"]), ("x", "y")),
        (torch.tensor([7, 3, 3]), ("3", "7")),
    ],
)
def test_classes_are_the_sorted_labels(labels, names):
    data = make_splits(torch.zeros(12, 1), np.tile(np.asarray(labels), 4), name="x")
    assert data.class_names == names


def test_standardization_is_fitted_on_the_training_part_only():
    generator = np.random.default_rng(0)
    inputs = generator.normal(50, 3, (300, 4))
    inputs[:, 2] = 7.25
    data = make_splits(inputs, np.arange(300) % 2, name="x", standardize=True)
    train = inputs[data.train_rows]
    scale = np.where(train.std(0) > 0, train.std(0), 1)
    for part in PARTS:
        expected = (inputs[getattr(data, f"{part}_rows")] - train.mean(0)) / scale
        assert_close(getattr(data, part).inputs, torch.from_numpy(expected).float())
    assert_close(data.train.inputs.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert_close(data.train.inputs[:, [0, 1, 3]].var(0, correction=0), torch.ones(3))
    assert bool((data.train.inputs[:, 2] == 0).all())
    assert float(data.test.inputs[:, 0].mean().abs()) > 1e-3


def test_normalization_comes_first_and_many_axes_come_back():
    inputs = np.random.default_rng(0).normal(size=(36, 2, 3)) * 10
    data = make_splits(inputs, np.arange(36) % 2, name="x", normalize=True)
    assert data.train.inputs.shape == (24, 2, 3)
    assert_close(data.test.inputs.flatten(1).norm(dim=1), torch.ones(6))
    assert_close(
        data.train.inputs[0] * np.linalg.norm(inputs[data.train_rows[0]]),
        torch.tensor(inputs).float()[data.train_rows[0]],
    )
    both = make_splits(inputs, np.arange(36) % 2, name="x", normalize=True, standardize=True)
    unit = inputs / np.linalg.norm(inputs.reshape(36, -1), axis=1)[:, None, None]
    train = unit[both.train_rows]
    expected = (unit[both.validation_rows] - train.mean(0)) / train.std(0)
    assert_close(both.validation.inputs, torch.from_numpy(expected).float())


def test_scaling_is_computed_in_double_precision():
    inputs = 1e6 + np.arange(30.0)[:, None] / 100  # single precision would see steps of 0.0625
    data = make_splits(inputs, LABELS, name="x", standardize=True)
    assert len(data.train.inputs.unique()) == 20


def test_explicit_rows_keep_their_order_and_count_in_the_source():
    given = explicit(train=[9, 2, 6, 0], validation=np.array([4, 5]), test=torch.tensor([7, 3]))
    data = make_splits(ROWS, LABELS, name="x", **given)
    assert part_rows(data) == [[9, 2, 6, 0], [4, 5], [7, 3]]
    assert_close(data.test.inputs, ROWS[[7, 3]])
    kept = make_splits(ROWS, LABELS, name="x", keep=[0, 1], **given)
    assert part_rows(kept) == [[9, 6, 0], [4], [7, 3]]
    empty = make_splits(ROWS, LABELS, name="x", standardize=True, **explicit(validation=[], test=[]))
    assert part_rows(empty) == [[0, 1, 2, 3], [], []]


def test_oracle_pool_and_device():
    data = make_splits(ROWS, LABELS, name="x")
    pool = data.pool()
    assert (len(pool), pool.n_labeled, pool.n_classes) == (20, 0, 3)
    assert torch.equal(pool.source_rows, data.train_rows)
    rows = torch.tensor([4, 0, 4])
    assert torch.equal(data.oracle()(rows), data.train.targets[rows])
    bought = pool.with_labels(rows[:2], data.oracle()(rows[:2]))
    assert bought.targets[rows[:2]].tolist() == LABELS[bought.source_rows[rows[:2]]].tolist()
    moved = data.to("meta")
    for part in PARTS:
        assert getattr(moved, part).inputs.device.type == getattr(moved, part).targets.device.type == "meta"
        assert getattr(moved, f"{part}_rows").device.type == "meta"
    assert moved.class_names == data.class_names


@pytest.mark.parametrize(
    ("setting", "error", "words"),
    [
        ({"sed": 1}, ConfigError, ["'sed'", "seed", "fractions", "test_rows"]),
        ({"seed": -1}, ConfigError, ["seed", "-1"]),
        ({"seed": 1.5}, ConfigError, ["seed", "1.5"]),
        ({"fractions": (0.5, 0.5)}, ConfigError, ["fractions", "three"]),
        ({"fractions": (0.5, 0.2, 0.2)}, ConfigError, ["fractions", "0.5, 0.2, 0.2"]),
        ({"fractions": (1.5, -0.25, -0.25)}, ConfigError, ["fractions", "-0.25"]),
        ({"fractions": (float("nan"), 0.5, 0.5)}, ConfigError, ["fractions", "nan"]),
        ({"fractions": (0, 0.5, 0.5)}, ConfigError, ["training"]),
        ({"max_rows": 0}, ConfigError, ["max_rows", "0"]),
        ({"max_rows": 5}, DataError, ["5 rows", "validation"]),
        ({"keep": [0, 7]}, ConfigError, ["7", "0, 1, 2"]),
        ({"keep": "01"}, ConfigError, ["keep", "'01'"]),
        ({"keep": [1]}, ConfigError, ["keep", "two classes", "[1]"]),
        ({"class_names": ["a"]}, ConfigError, ["class_names", "3 classes", "1 name"]),
        ({"train_rows": [0, 1]}, ConfigError, ["validation_rows, test_rows"]),
        (explicit(test=[30]), ShapeError, ["test_rows", "[0, 30)", "30"]),
        (explicit(test=[-1]), ShapeError, ["test_rows", "-1"]),
        (explicit(train=[1, 1]), ShapeError, ["train_rows", "distinct"]),
        (explicit(train=[0.5]), ShapeError, ["train_rows", "integers"]),
        (explicit(validation=[9, 2]), ConfigError, ["validation_rows", "train_rows", "disjoint", "row 2"]),
        (explicit(train=[]), DataError, ["train_rows"]),
        ({**explicit(), "max_rows": 3}, ConfigError, ["max_rows=3", "explicit"]),
        ({**explicit(train=[0, 3]), "keep": [1, 2]}, DataError, ["train_rows", "keep=[1, 2]"]),
    ],
)
def test_an_impossible_setting_is_refused(setting, error, words):
    with pytest.raises(error) as caught:
        make_splits(ROWS, LABELS, name="x", **setting)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("inputs", "labels", "error", "words"),
    [
        ([[1.0, 2.0], [3.0, float("nan")]], [0, 1], DataError, ["row 1", "column 1", "nan"]),
        (np.full((2, 3, 4), np.inf), [0, 1], DataError, ["row 0", "column (0, 0)", "inf"]),
        ([["a"], ["b"]], [0, 1], DataError, ["numbers", "U1"]),
        ([1.0, 2.0], [0, 1], ShapeError, ["(2,)"]),
        (np.zeros((0, 3)), [], DataError, ["(0, 3)"]),
        (np.zeros((3, 0)), [0, 1, 0], DataError, ["(3, 0)"]),
        (np.full((12, 1), 1e300), [0, 1] * 6, DataError, ["float32", "column 0", "1e+300"]),
        (np.zeros((2, 1)), [0, 1, 1], ShapeError, ["2 rows", "3 labels"]),
        (np.zeros((2, 1)), [[0, 1], [1, 0]], ShapeError, ["(2, 2)", "multi-label"]),
        (np.zeros((2, 1)), [0.0, 0.5], DataError, ["row 1", "0.5", "regression"]),
        (np.zeros((2, 1)), [0.0, float("nan")], DataError, ["row 1", "nan"]),
        (np.zeros((2, 1)), np.array([1, None]), DataError, ["labels", "object"]),
        (np.zeros((2, 1)), [5, 5], DataError, ["two classes", "2 labels", "'5'"]),
    ],
)
def test_unusable_data_are_refused(inputs, labels, error, words):
    with pytest.raises(error) as caught:
        make_splits(inputs, labels, name="x")
    assert all(word in str(caught.value) for word in words), caught.value


def test_importing_does_not_load_scikit_learn():
    code = "import sys, torchal.data; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "column", [2**24 + np.arange(60), 1.7e9 + np.arange(60.0), (10**15 + np.arange(60)).astype(float)]
)
def test_numbers_that_float32_cannot_tell_apart_are_said(column):
    inputs = np.stack([np.arange(60), column], 1)
    with pytest.warns(UserWarning, match=r"column 1 of the inputs: 40 different .*, became \d+ in float32; stand"):
        make_splits(inputs, np.arange(60) % 2, name="x", fractions=[2 / 3, 0.3333, 0], max_rows=40)
    data = make_splits(inputs, np.arange(60) % 2, name="x", standardize=True)  # without a warning
    assert len(data.train.inputs[:, 1].unique()) == 40


def test_a_column_that_no_scaling_saves_is_said():
    inputs = np.stack([np.arange(60), np.r_[1e15, np.arange(59)]], 1)
    with pytest.warns(UserWarning, match="take off an offset, or split the column"):
        make_splits(inputs, np.arange(60) % 2, name="x", standardize=True)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(DataError, match="bytes that are not UTF-8"):
        make_splits(np.zeros((4, 1)), np.array([b"\xff", b"a", b"a", b"a"]), name="x")


class TestImbalance:
    @pytest.mark.parametrize("kind", ["long_tail", "step", "last"])
    @pytest.mark.parametrize("ratio", [1, 2.5, 10])
    def test_classes_become_rarer_in_the_training_part_alone(self, kind, ratio):
        inputs, labels = np.arange(3000.0)[:, None], np.arange(3000) % 5
        whole = make_splits(inputs, labels, name="made")
        rare = make_splits(inputs, labels, name="made", imbalance=ratio, imbalance_kind=kind)
        before, after = (part.train.targets.bincount() for part in (whole, rare))
        first = {"step": 2, "last": 4}.get(kind)
        shares = [ratio ** -(i / 4) if first is None else 1 / ratio ** (i >= first) for i in range(5)]
        assert after.tolist() == [int(n * share + 1e-9) for n, share in zip(before.tolist(), shares, strict=True)]
        assert rare.test_rows.equal(whole.test_rows)
        assert rare.validation_rows.equal(whole.validation_rows)
        assert set(rare.train_rows.tolist()) <= set(whole.train_rows.tolist())
        assert rare.train.inputs[:, 0].long().equal(rare.train_rows)

    def test_a_class_that_would_be_empty_is_refused(self):
        with pytest.raises(DataError, match=r"leaves no row of class '2' for training, where it has 2\d\d"):
            make_splits(np.zeros((999, 1)), np.arange(999) % 3, name="made", imbalance=1000)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"imbalance": 0.5}, "at least 1, got 0.5"),
            ({"imbalance": "ten"}, "got 'ten'"),
            ({"imbalance": True}, "got True"),
            ({"imbalance": float("inf")}, "got inf"),
            ({"imbalance": 2, "imbalance_kind": "cliff"}, "long_tail, step, last; got 'cliff'"),
        ],
    )
    def test_refuses(self, settings, message):
        with pytest.raises(ConfigError, match=message):
            make_splits(np.zeros((99, 1)), np.arange(99) % 3, name="made", **settings)


class TestRowsOfNoClass:
    def test_are_in_the_pool_where_nobody_can_label_them(self):
        labels = np.arange(600) % 4
        whole = make_splits(np.arange(600.0)[:, None], labels, name="made")
        open_set = make_splits(np.arange(600.0)[:, None], labels, name="made", ood=[1])
        assert open_set.class_names == ("0", "2", "3")
        assert open_set.train_rows.equal(whole.train_rows)
        told = open_set.oracle()(torch.arange(len(open_set.train.targets)))
        expected = torch.tensor([0, UNLABELED, 1, 2])[torch.from_numpy(labels)[open_set.train_rows]]
        assert told.equal(expected)
        for part in ("validation", "test"):
            assert (torch.from_numpy(labels)[getattr(open_set, f"{part}_rows")] != 1).all()
            assert int(getattr(open_set, part).targets.max()) == 2

    def test_go_with_keep_and_with_imbalance(self):
        labels = np.array(["a", "b", "c", "d"])[np.arange(800) % 4]
        data = make_splits(np.zeros((800, 1)), labels, name="made", keep=["a", "b", "d"], ood=["b"], imbalance=2)
        assert data.class_names == ("a", "d")
        whole = make_splits(np.zeros((800, 1)), labels, name="made", keep=["a", "b", "d"])
        a, b, d = whole.train.targets.bincount().tolist()
        assert (data.train.targets + 1).bincount().tolist() == [b, a, d // 2]

    @pytest.mark.parametrize(
        ("ood", "message"),
        [([0, 1], r"ood=\[0, 1\] must leave at least two classes"), ([7], "ood names 7"), ("0", "ood must be a list")],
    )
    def test_refuses(self, ood, message):
        with pytest.raises(ConfigError, match=message):
            make_splits(np.zeros((99, 1)), np.arange(99) % 3, name="made", ood=ood)
