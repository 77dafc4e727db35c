from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_iris, load_wine
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

from tests.contracts import WEIGHTS_SEARCHES
from torchal.errors import ConfigError
from torchal.models.classical.search import NEVER, Folds, accuracies_one_by_one, alike, as_grid, best, stratified_folds


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


def test_those_alike_come_together():
    assert alike([3, 2, 3, 3]) == {3: [0, 2, 3], 2: [1]}


def search_one_by_one(grid, codes, predict, *, weights=None, most_folds):
    """Return the chosen candidate, the accuracies (G,) and the number of folds, as an estimator's search does."""
    of_row, n_folds = stratified_folds(codes, most=most_folds)
    accuracies = accuracies_one_by_one(grid, Folds(of_row[None], n_folds), codes, predict, weights=weights)[0]
    return grid[int(best(accuracies))], accuracies.mean(0), n_folds


@pytest.mark.skipif(not WEIGHTS_SEARCHES, reason="GridSearchCV does not weight its scores before scikit-learn 1.7")
def test_weights_count_as_in_grid_search_cv():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, 90)
    x = rng.normal(size=(90, 2)) + codes[:, None]
    weights = rng.uniform(0.2, 3, 90)

    class Neighbors(KNeighborsClassifier):
        def fit(self, X, y, sample_weight=None):
            return super().fit(X, y)

    search = GridSearchCV(Neighbors(), {"n_neighbors": [1, 5, 20]}, cv=3).fit(x, codes, sample_weight=weights)
    found, accuracies, n_folds = search_one_by_one(
        [1, 5, 20],
        torch.tensor(codes),
        lambda k, trained, tested: KNeighborsClassifier(k).fit(x[trained], codes[trained]).predict(x[tested]),
        weights=torch.tensor(weights),
        most_folds=3,
    )
    assert found == search.best_params_["n_neighbors"]
    assert n_folds == 3
    np.testing.assert_allclose(accuracies, search.cv_results_["mean_test_score"])


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (2, [2.0]),
        (0.5, [0.5]),
        (Fraction(1, 4), [0.25]),
        (np.float32(0.5), [0.5]),
        (np.int64(3), [3.0]),
        (np.array(0.5), [0.5]),
        (torch.tensor(0.5), [0.5]),
        ([1.0], [1.0]),
        ([3, 1, 2.0], [1.0, 2.0, 3.0]),
        ((1, 1.0, 0.1, 0.1), [0.1, 1.0]),
        (range(1, 4), [1.0, 2.0, 3.0]),
        ([np.float64(2), np.int32(1)], [1.0, 2.0]),
        (np.array([10.0, 0.1, 10.0]), [0.1, 10.0]),
        (np.array([2, 1]), [1.0, 2.0]),
        (torch.tensor([10.0, 0.5], dtype=torch.float64), [0.5, 10.0]),
        (torch.tensor([2, 1]), [1.0, 2.0]),
        (5e-324, [5e-324]),
    ],
)
def test_numbers_of_any_kind_make_a_grid(value, want):
    got = as_grid("C", value)
    assert got == want
    assert all(type(one) is float for one in got)


@pytest.mark.parametrize(
    "value",
    [
        0,
        -1.0,
        float("inf"),
        float("nan"),
        True,
        "1.0",
        None,
        1j,
        {"C": 1.0},
        [1.0, 0.0],
        [1.0, -2],
        [1.0, float("inf")],
        [1.0, float("nan")],
        [1.0, True],
        ["1.0"],
        [1.0, None],
        [[1.0, 2.0]],
        np.bool_(True),
        np.array([1.0, 0.0]),
        np.array([[1.0]]),
        np.array(["1"]),
        np.array([True]),
        torch.tensor([1.0, -1.0]),
        torch.tensor(True),
        torch.tensor([[1.0]]),
        {1.0},
        b"ab",
        10**400,
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_grid(value):
    with pytest.raises(ConfigError, match=r"^alpha must be above 0 and finite, or a grid of such numbers, got "):
        as_grid("alpha", value)


@pytest.mark.parametrize("value", [[], (), np.empty(0), torch.empty(0)], ids=repr)
def test_an_empty_grid(value):
    with pytest.raises(ConfigError, match=r"^alpha must have at least one number, got an empty grid"):
        as_grid("alpha", value)


def folds_of(codes, most=3):
    folds, n_folds = stratified_folds(torch.tensor(codes), most=most)
    assert folds.shape == (len(codes),)
    assert folds.dtype == torch.int64
    return folds.tolist(), n_folds


def test_folds_by_hand():
    # six rows of class 0 and three of class 1, dealt out in their order
    assert folds_of([0, 0, 1, 0, 0, 1, 0, 1, 0]) == ([0, 0, 0, 1, 1, 1, 2, 2, 2], 3)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 5]), min_size=1, max_size=20), st.integers(2, 4))
def test_folds_of_small_classes(codes, most):
    folds, n_folds = folds_of(codes, most=most)
    counts = {code: codes.count(code) for code in codes}
    many = [count for count in counts.values() if count > 1]
    assert n_folds == (min(most, *many) if many else 0)
    for code, of_row in zip(codes, folds, strict=True):
        assert (of_row == NEVER) == (counts[code] == 1)
    for code, count in counts.items():
        tested = [of_row for one, of_row in zip(codes, folds, strict=True) if one == code]
        if count > 1:  # each fold tests this class, and about as much of it as the others
            sizes = [tested.count(fold) for fold in range(n_folds)]
            assert sum(sizes) == count
            assert min(sizes) >= 1
            assert max(sizes) - min(sizes) <= 1


def test_a_class_of_one_row_is_never_tested():
    folds, n_folds = folds_of([0, 1, 0, 0, 2, 2, 2])
    assert folds == [0, NEVER, 1, 2, 0, 1, 2]
    assert n_folds == 3
    tested = Folds(torch.tensor([folds]), n_folds).tested()
    assert tested.shape == (1, 7, 3)
    assert tested[0].sum(0).tolist() == [2, 2, 2]
    assert not tested[0, 1].any()


def test_folds_say_nothing_of_small_classes():
    # scikit-learn would warn of classes with fewer rows than folds, and a warning is an error here
    assert folds_of([0, 0, 0, 0, 1, 1, 2], most=4)[1] == 2


def test_the_best_of_a_grid():
    accuracies = torch.tensor([[0.5, 0.9, 0.7], [0.5, 0.5, 0.8]], dtype=torch.float64)
    assert int(best(accuracies)) == 2
    assert best(torch.stack([accuracies, accuracies.flip(1)])).tolist() == [2, 0]
    assert int(best(torch.full((3, 4), 0.5, dtype=torch.float64))) == 0
    is_open = torch.tensor([False, False, True])
    assert int(best(accuracies, is_open)) == 1
    assert int(best(accuracies, torch.ones(3, dtype=torch.bool))) == 2
    both = best(torch.stack([accuracies, accuracies.flip(1)]), torch.stack([is_open, is_open]))
    assert both.tolist() == [1, 0]


def test_of_equals_the_first_even_where_the_last_bit_differs():
    # the same three folds in another order: their sums are not equal
    folds = [0.1, 0.2, 0.3]
    accuracies = torch.tensor([folds, folds[1:] + folds[:1], folds[::-1], [0.0, 0.0, 0.0]], dtype=torch.float64).T
    assert len(set(accuracies[:, :3].mean(0).tolist())) > 1
    assert int(best(accuracies)) == 0
    assert int(best(accuracies.flip(1))) == 1
    # one row in a million more is not the last bit
    accuracies[0, 2] += 1e-6
    assert int(best(accuracies)) == 2


def search(model, name, grid, x, y, **settings):
    def predict(candidate, trained, tested):
        return model.set_params(**{name: candidate}).fit(x[trained], y[trained]).predict(x[tested])

    return search_one_by_one(grid, torch.from_numpy(y), predict, most_folds=3, **settings)


@pytest.mark.parametrize("load", [load_iris, load_wine])
@pytest.mark.parametrize(
    ("model", "name", "grid"),
    [
        (SVC(gamma=0.05), "C", [1e-3, 0.1, 1.0, 10.0, 1e3]),
        (KNeighborsClassifier(), "n_neighbors", [1, 2, 5, 9, 20, 40]),
    ],
    ids=["svm", "neighbours"],
)
def test_the_search_is_scikit_learns(load, model, name, grid):
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    theirs = GridSearchCV(model, {name: grid}, cv=StratifiedKFold(3)).fit(x, y)
    chosen, accuracies, n_folds = search(model, name, grid, x, y)
    assert chosen == theirs.best_params_[name]
    np.testing.assert_allclose(accuracies, theirs.cv_results_["mean_test_score"], rtol=1e-12)
    assert n_folds == 3


def test_weights_count_in_the_accuracies_of_a_search():
    y = np.array([0, 0, 0, 1, 1, 1])
    weights = torch.tensor([1.0, 2.0, 3.0, 3.0, 1.0, 1.0])
    said = {1.0: np.zeros(6, int), 2.0: np.ones(6, int)}
    seen = []

    def predict(candidate, trained, tested):
        seen.append((candidate, trained.tolist(), tested.tolist()))
        return said[candidate][tested]

    def run(**settings):
        return search_one_by_one([1.0, 2.0], torch.from_numpy(y), predict, most_folds=3, **settings)

    chosen, accuracies, n_folds = run(weights=weights)
    assert accuracies.tolist() == pytest.approx([(1 / 4 + 2 / 3 + 3 / 4) / 3, (3 / 4 + 1 / 3 + 1 / 4) / 3])
    assert (chosen, n_folds) == (1.0, 3)
    assert seen[0] == (1.0, [1, 2, 4, 5], [0, 3])
    assert len(seen) == 6
    assert run(weights=weights.flip(0))[0] == 2.0
    assert run()[1].tolist() == [0.5, 0.5]
    assert run()[0] == 1.0


def test_the_only_row_of_a_class_is_trained_on_in_all_folds():
    seen = []

    def predict(candidate, trained, tested):
        seen.append((4 in trained, 4 in tested))
        return np.zeros(len(tested), int)

    _, accuracies, n_folds = search_one_by_one([1.0, 2.0], torch.tensor([0, 0, 1, 1, 2]), predict, most_folds=3)
    assert n_folds == 2
    assert seen == [(True, False)] * 4
    assert accuracies.tolist() == [0.5, 0.5]
