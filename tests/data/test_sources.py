"""The sources that need no file."""

import numpy as np
import pytest
import torch
from sklearn import datasets

from torchal import data as sources
from torchal.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "shape", "names"),
    [
        ("digits", (1797, 64), tuple("0123456789")),
        ("iris", (150, 4), ("setosa", "versicolor", "virginica")),
        ("wine", (178, 13), ("class_0", "class_1", "class_2")),
        ("breast_cancer", (569, 30), ("malignant", "benign")),
    ],
)
def test_a_scikit_learn_source_holds_its_rows(name, shape, names):
    data = getattr(sources, name)()
    inputs, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    rows = torch.cat([data.train_rows, data.validation_rows, data.test_rows])
    assert rows.sort().values.tolist() == list(range(shape[0]))
    loaded = torch.cat([data.train.inputs, data.validation.inputs, data.test.inputs])
    assert loaded.shape == shape
    assert torch.equal(loaded, torch.from_numpy(inputs[rows]).float())
    labels = torch.cat([data.train.targets, data.validation.targets, data.test.targets])
    assert labels.tolist() == targets[rows].tolist()
    assert (data.name, data.class_names) == (name, names)


def test_keep_takes_the_number_or_the_name_of_a_class():
    assert sources.iris(keep=["setosa", 2]).class_names == ("setosa", "virginica")
    assert sources.digits(keep=[4, 9], max_rows=100).train.targets.unique().tolist() == [0, 1]


@pytest.mark.parametrize(("grid_size", "positive_fraction"), [(4, 0.8), (2, 0.5), (3, 0.25), (5, 0.9)])
def test_a_checkerboard_has_its_class_on_its_colour(grid_size, positive_fraction):
    data = sources.checkerboard(n_rows=1001, grid_size=grid_size, positive_fraction=positive_fraction, seed=5)
    inputs = torch.cat([data.train.inputs, data.validation.inputs, data.test.inputs])
    targets = torch.cat([data.train.targets, data.validation.targets, data.test.targets])
    assert inputs.shape == (1001, 2)
    assert int(targets.sum()) == round(1001 * positive_fraction)
    squares = inputs.floor().long()
    assert torch.equal(targets, (squares.sum(1) % 2 == 0).long())
    counts = (squares[:, 0] * grid_size + squares[:, 1]).bincount(minlength=grid_size**2)
    colour = torch.arange(grid_size)[:, None].add(torch.arange(grid_size)).flatten() % 2
    for each in (0, 1):
        assert int(counts[colour == each].max() - counts[colour == each].min()) <= 1


def test_a_checkerboard_comes_from_its_seed():
    first, again, other = (sources.checkerboard(n_rows=300, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.train_rows, again.train_rows)
    assert not set(first.train.inputs[:, 0].tolist()) & set(other.train.inputs[:, 0].tolist())


def test_the_default_checkerboard_is_the_playgrounds():
    data = sources.checkerboard()
    targets = torch.cat([data.train.targets, data.validation.targets, data.test.targets])
    assert targets.bincount().tolist() == [2000, 8000]
    assert np.isclose(float(data.train.inputs.max()), 4, atol=0.01)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"n_rows": 1}, ["n_rows", "at least 2", "1"]),
        ({"grid_size": 1}, ["grid_size", "at least 2", "1"]),
        ({"grid_size": 2.5}, ["grid_size", "2.5"]),
        ({"positive_fraction": 0.0}, ["positive_fraction", "0.0"]),
        ({"positive_fraction": 1.0}, ["positive_fraction", "1.0"]),
        ({"positive_fraction": float("nan")}, ["positive_fraction", "nan"]),
        ({"positive_fraction": 0.01, "n_rows": 20}, ["positive_fraction", "20 rows"]),
        ({"seed": -3}, ["seed", "-3"]),
        ({"split": [0.2, 0.8]}, ["'split'", "positive_fraction", "fractions"]),
    ],
)
def test_an_impossible_checkerboard_is_refused(setting, words):
    with pytest.raises(ConfigError) as caught:
        sources.checkerboard(**setting)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer"])
def test_an_unknown_setting_is_named_beside_the_valid_ones(name):
    with pytest.raises(ConfigError, match=r"'standardise'.*seed.*standardize"):
        getattr(sources, name)(standardise=True)
