import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchal import ConfigError
from torchal.data import digits, make_splits, with_label_noise


def flipped(splits):
    return splits.train.targets != splits.true_targets


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.floats(0, 0.99), st.sampled_from(["uniform", "confusion"]), st.integers(0, 3), st.data())
def test_so_many_training_labels_are_another_class_and_nothing_else_changes(n_classes, share, kind, seed, data):
    n_rows = data.draw(st.integers(12 * n_classes, 200))
    inputs = np.random.default_rng(seed).normal(size=(n_rows, 3))
    true = make_splits(inputs, np.arange(n_rows) % n_classes, name="made", seed=seed)
    noisy = with_label_noise(true, share, kind=kind, seed=seed)
    n_train = len(true.train.targets)
    assert int(flipped(noisy).sum()) in {int(share * n_train), int(share * n_train + 1e-6)}
    assert noisy.true_targets.equal(true.train.targets)
    assert noisy.validation.targets.equal(true.validation.targets)
    assert noisy.test.targets.equal(true.test.targets)
    assert noisy.train.inputs is true.train.inputs
    assert 0 <= int(noisy.train.targets.min()) <= int(noisy.train.targets.max()) < n_classes
    again = with_label_noise(true, share, kind=kind, seed=seed)
    assert again.train.targets.equal(noisy.train.targets)


def test_uniform_noise_is_uniform_over_the_other_classes():
    true = make_splits(np.zeros((60_000, 1)), np.arange(60_000) % 4, name="made", fractions=(1, 0, 0))
    noisy = with_label_noise(true, 0.5)
    for label in range(4):
        counts = noisy.train.targets[(true.train.targets == label) & flipped(noisy)].bincount(minlength=4)
        assert counts[label] == 0
        others = counts[torch.arange(4) != label].double()
        assert ((others / others.sum() - 1 / 3).abs() < 0.02).all()


def test_confusion_is_with_the_classes_that_lie_near():
    labels = np.arange(3000) % 3
    inputs = np.array([0.0, 1.0, 100.0])[labels][:, None] + np.random.default_rng(0).normal(size=(3000, 1))
    true = make_splits(inputs, labels, name="made")
    noisy = with_label_noise(true, 0.3, kind="confusion")
    of_first = noisy.train.targets[(true.train.targets == 0) & flipped(noisy)]
    assert (of_first == 1).double().mean() > 0.95
    uniform = with_label_noise(true, 0.3)
    of_first = uniform.train.targets[(true.train.targets == 0) & flipped(uniform)]
    assert 0.4 < (of_first == 1).double().mean() < 0.6


def test_a_matrix_says_how_often_each_class_gets_each_label():
    true = make_splits(np.zeros((30_000, 1)), np.arange(30_000) % 3, name="made", fractions=(1, 0, 0))
    matrix = [[1, 0, 0], [0.2, 0.5, 0.3], [0, 1, 0]]
    noisy = with_label_noise(true, matrix=matrix, seed=4)
    for label in range(3):
        counts = noisy.train.targets[true.train.targets == label].bincount(minlength=3).double()
        assert torch.allclose(counts / counts.sum(), torch.tensor(matrix[label], dtype=torch.float64), atol=0.02)
        assert (counts[torch.tensor(matrix[label]) == 0] == 0).all()


def test_rows_of_no_class_stay_so():
    true = digits(ood=[8, 9])
    noisy = with_label_noise(true, 0.4)
    assert (noisy.train.targets == -1).equal(true.train.targets == -1)
    known = int((true.train.targets != -1).sum())
    assert int(flipped(noisy).sum()) == int(0.4 * known)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 1.0}, r"in \[0, 1\), got 1.0"),
        ({"share": -0.1}, "got -0.1"),
        ({"share": float("nan")}, "got nan"),
        ({"share": True}, "got True"),
        ({"share": "0.1"}, "got '0.1'"),
        ({"share": None}, "one of the share of noise and its matrix"),
        ({"share": 0.1, "matrix": np.eye(10)}, "one of the share of noise and its matrix"),
        ({"share": 0.1, "kind": "pair"}, "uniform, confusion; got 'pair'"),
        ({"share": None, "matrix": np.eye(3)}, r"must be 10 x 10, one row for each class, got \(3, 3\)"),
        ({"share": None, "matrix": 2 * np.eye(10)}, "sum to 1"),
        ({"share": None, "matrix": "much"}, "must be 10 x 10 numbers"),
        ({"share": 0.1, "seed": -1}, "seed must be"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        with_label_noise(digits(), **arguments)
