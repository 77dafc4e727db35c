import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier

from torchal.errors import ConfigError
from torchal.models.search import NEVER, Folds, alike, as_grid, best, search_one_by_one, stratified_folds


@pytest.mark.parametrize(
    ("value", "grid"),
    [
        (2, [2.0]),
        (np.float32(0.5), [0.5]),
        ([10.0, 0.1, 1, 0.1], [0.1, 1.0, 10.0]),
        ((1e-4,), [1e-4]),
        (np.logspace(1, -1, 3), [0.1, 1.0, 10.0]),
        (torch.tensor([3.0, 2.0]), [2.0, 3.0]),
        (torch.tensor(3.0), [3.0]),
    ],
    ids=str,
)
def test_grids_are_ascending_numbers(value, grid):
    assert as_grid("C", value) == pytest.approx(grid)


@pytest.mark.parametrize(
    "value", [0, -1.0, math.inf, math.nan, True, "1", None, [], [1.0, 0.0], [1.0, "2"], {1.0}], ids=str
)
def test_what_is_no_grid(value):
    with pytest.raises(ConfigError, match="C must"):
        as_grid("C", value)


@given(st.lists(st.integers(0, 3), min_size=3, max_size=40), st.integers(2, 4))
def test_folds_are_scikit_learns(labels, n_folds):
    counts = np.bincount(labels)
    labels = [label for label in labels if counts[label] >= n_folds]
    if not labels:
        return
    codes = np.unique(labels, return_inverse=True)[1]
    folds, found = stratified_folds(torch.tensor(codes), most=n_folds)
    assert found == n_folds
    for fold, (_, tested) in enumerate(StratifiedKFold(n_folds).split(codes, codes)):
        assert (folds == fold).nonzero().squeeze(1).tolist() == tested.tolist()


def test_a_class_of_few_rows():
    folds, n_folds = stratified_folds(torch.tensor([0, 0, 0, 0, 1, 1]), most=3)
    assert n_folds == 2
    assert sorted(folds[4:].tolist()) == [0, 1]
    folds, n_folds = stratified_folds(torch.tensor([0, 0, 0, 0, 1]), most=3)
    assert n_folds == 3
    assert folds[4] == NEVER
    assert set(folds[:4].tolist()) == {0, 1, 2}
    folds, n_folds = stratified_folds(torch.tensor([0, 1, 2]), most=3)
    assert n_folds == 0
    assert (folds == NEVER).all()


def test_which_rows_a_fold_tests():
    folds = Folds(torch.tensor([[0, 1, NEVER]]), 2)
    assert folds.tested().tolist() == [[[True, False], [False, True], [False, False]]]


def test_of_equally_good_ones_the_first():
    thirds = torch.tensor([[0.1, 0.3, 0.2, 0.0], [0.2, 0.1, 0.3, 0.0], [0.3, 0.2, 0.1, 0.0]], dtype=torch.float64)
    assert (thirds.sum(0)[0] != thirds.sum(0)[1:3]).any()  # in their last bits
    assert best(thirds).item() == 0
    assert best(torch.stack([thirds, thirds.flip(1)])).tolist() == [0, 1]


def test_those_alike_come_together_and_not_too_many():
    assert list(alike([3, 2, 3, 3], most=2)) == [(3, [0, 2]), (3, [3]), (2, [1])]


@pytest.mark.parametrize("weighted", [False, True])
def test_one_by_one_as_grid_search_cv(weighted):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 90)
    x = rng.normal(size=(90, 2)) + codes[:, None]
    weights = rng.uniform(0.2, 3, 90) if weighted else None

    class Neighbors(KNeighborsClassifier):
        def fit(self, X, y, sample_weight=None):
            return super().fit(X, y)

    search = GridSearchCV(Neighbors(), {"n_neighbors": [1, 5, 20]}, cv=3).fit(x, codes, sample_weight=weights)
    found, accuracies, n_folds = search_one_by_one(
        [1, 5, 20],
        torch.tensor(codes),
        lambda k, trained, tested: KNeighborsClassifier(k).fit(x[trained], codes[trained]).predict(x[tested]),
        weights=None if weights is None else torch.tensor(weights),
        most_folds=3,
    )
    assert found == search.best_params_["n_neighbors"]
    assert n_folds == 3
    np.testing.assert_allclose(accuracies, search.cv_results_["mean_test_score"])


def test_one_candidate_is_not_tried():
    found, accuracies, n_folds = search_one_by_one([7.0], torch.tensor([0, 1]), None, most_folds=3)
    assert (found, len(accuracies), n_folds) == (7.0, 0, 0)
