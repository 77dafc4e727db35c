import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV

from tests.contracts import WEIGHTS_SEARCHES, check_name, scikit_learn_checks
from tests.real_data import DENSE, real_data
from torchal.errors import ConfigError
from torchal.models import KernelLeastSquares

GRID = [10.0**i for i in range(-6, 1)]


CHECKS = [
    *scikit_learn_checks(KernelLeastSquares()),
    *scikit_learn_checks(KernelLeastSquares(C=1e-3, gamma="scale"), without=["dense"]),
    *scikit_learn_checks(KernelLeastSquares(C=[0.01, 0.1]), without=["dense"]),
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=check_name)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


class Ridge(ClassifierMixin, BaseEstimator):
    """scikit-learn's KernelRidge on one-hot targets."""

    def __init__(self, C=0.1, gamma=None):
        self.C = C
        self.gamma = gamma

    def fit(self, X, y, sample_weight=None):
        self.classes_, codes = np.unique(y, return_inverse=True)
        alpha = self.C * (len(y) if sample_weight is None else np.sum(sample_weight))
        self.ridge_ = KernelRidge(alpha=alpha, kernel="rbf", gamma=self.gamma)
        self.ridge_.fit(X, np.eye(len(self.classes_))[codes], sample_weight=sample_weight)
        return self

    def predict(self, X):
        return self.classes_[self.ridge_.predict(X).argmax(1)]


@pytest.mark.parametrize("block_size", [4000, 60])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("source", DENSE)
def test_the_dense_solution_on_real_data(source, weighted, block_size):
    (x, y), (x_test, _) = real_data(source, 150, 500)
    weights = np.random.default_rng(1).uniform(0.2, 3, len(y)) if weighted else None
    for C in (1e-4, 1e-2, 1.0):
        ours = KernelLeastSquares(C=C, tol=1e-10, block_size=block_size).fit(x, y, sample_weight=weights)
        theirs = Ridge(C=C).fit(x, y, sample_weight=weights)
        fitted = theirs.ridge_.predict(x_test)
        expected = fitted[:, 1] - fitted[:, 0] if fitted.shape[1] == 2 else fitted
        np.testing.assert_allclose(ours.decision_function(x_test), expected, atol=1e-6)
        np.testing.assert_allclose(ours.dual_coef_, theirs.ridge_.dual_coef_, atol=1e-6 / C)
        np.testing.assert_array_equal(ours.predict(x_test), theirs.predict(x_test))
        softmax = torch.tensor(fitted).softmax(1).numpy()
        np.testing.assert_allclose(ours.predict_proba(x_test), softmax, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("source", ["letter", "australian", "waveform"])
def test_the_search_is_that_of_grid_search_cv(source, weighted):
    if weighted and not WEIGHTS_SEARCHES:
        pytest.skip("GridSearchCV does not weight its scores before scikit-learn 1.7")
    ((x, y),) = real_data(source, 300, seed=2)
    kept = np.isin(y, [label for label in np.unique(y) if (y == label).sum() >= 3])
    x, y = x[kept], y[kept]
    weights = np.random.default_rng(1).uniform(0.2, 3, len(y)) if weighted else None
    search = GridSearchCV(Ridge(), {"C": GRID}, cv=3).fit(x, y, sample_weight=weights)
    ours = KernelLeastSquares(C=GRID).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(ours.cv_accuracies_, search.cv_results_["mean_test_score"], atol=1e-9)
    scores = search.cv_results_["mean_test_score"]
    assert GRID[int((scores >= scores.max() - 1e-12).argmax())] == ours.C_
    in_blocks = KernelLeastSquares(C=GRID, block_size=100).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(in_blocks.cv_accuracies_, ours.cv_accuracies_, atol=1e-9)


def test_gamma():
    ((x, y),) = real_data("digits", 100)
    x = x[:, :20] * 3
    for gamma, number in (("auto", 1 / 20), ("scale", 1 / (20 * x.var())), (0.3, 0.3)):
        model = KernelLeastSquares(gamma=gamma).fit(x, y)
        assert model.gamma_ == pytest.approx(number)
        np.testing.assert_array_equal(model.predict(x), Ridge(gamma=number).fit(x, y).predict(x))


@pytest.mark.parametrize("C", [0.1, GRID])
def test_many_at_once_as_each_alone(C):
    ((x, y),) = real_data("digits", 240)
    x, y = x.reshape(4, 60, -1), y.reshape(4, 60).copy()
    y[1] %= 2
    y[2][y[2] == 7] = 8
    many = KernelLeastSquares(C=C).fit_many(x, y)
    for model, rows, labels in zip(many, x, y, strict=True):
        alone = KernelLeastSquares(C=C).fit(rows, labels)
        assert (model.C_, model.n_folds_) == (alone.C_, alone.n_folds_)
        np.testing.assert_array_equal(model.classes_, alone.classes_)
        np.testing.assert_allclose(model.decision_function(x[0]), alone.decision_function(x[0]), atol=1e-9)


@pytest.mark.parametrize("C", [0.1, GRID])
def test_many_of_more_rows_than_a_block(C):
    ((x, y),) = real_data("digits", 240)
    x, y = x.reshape(4, 60, -1), y.reshape(4, 60)
    for model, rows, labels in zip(KernelLeastSquares(C=C, block_size=45).fit_many(x, y), x, y, strict=True):
        alone = KernelLeastSquares(C=C, block_size=45).fit(rows, labels)
        assert model.C_ == alone.C_
        np.testing.assert_allclose(model.decision_function(x[0]), alone.decision_function(x[0]), atol=1e-9)


def test_a_ridge_below_rounding_is_said():
    x, y = np.linspace(0, 1, 300)[:, None], np.arange(300) % 2
    with pytest.warns(ConvergenceWarning, match=r"its ridge, 3\.0e-17, is below the rounding of the kernel"):
        alone = KernelLeastSquares(C=1e-19, gamma=1.0).fit(x, y)
    assert np.isfinite(alone.decision_function(x)).all()
    said = r"^3 of the problems by which KernelLeastSquares has chosen C did not converge; their C \(1e-19\) was not"
    with pytest.warns(ConvergenceWarning, match=said):
        model = KernelLeastSquares(C=[1e-19, 0.1], gamma=1.0).fit(x, y)
    assert model.C_ == 0.1


def test_a_ridge_above_rounding_is_solved():
    x, y = np.linspace(0, 1, 300)[:, None], np.arange(300) % 2
    KernelLeastSquares(C=1e-7, gamma=1.0).fit(x, y)  # without a warning


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 25),
    d=st.integers(1, 5),
    n_classes=st.integers(2, 4),
    log_c=st.floats(-6, 1),
    seed=st.integers(0, 2**16),
)
def test_random_problems(n, d, n_classes, log_c, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)).round(1), np.r_[np.arange(n_classes), rng.integers(0, n_classes, n)][:n]
    weights = np.r_[np.ones(n_classes), rng.integers(0, 3, n)][:n].astype(float)
    names = np.array(["d", "b", "c", "a"])
    ours = KernelLeastSquares(C=10**log_c).fit(x, names[y], sample_weight=weights)
    theirs = Ridge(C=10**log_c).fit(x[weights > 0], names[y][weights > 0], sample_weight=weights[weights > 0])
    assert list(ours.classes_) == list(theirs.classes_)
    fitted = theirs.ridge_.predict(x)
    expected = fitted[:, 1] - fitted[:, 0] if fitted.shape[1] == 2 else fitted
    np.testing.assert_allclose(ours.decision_function(x), expected, atol=1e-6)


def test_duplicates_and_a_tiny_ridge():
    x, y = np.repeat([[0.0, 1.0], [1.0, 0.0]], 20, 0), np.arange(40) % 3
    model = KernelLeastSquares(C=1e-9).fit(x, y)
    assert np.isfinite(model.decision_function(x)).all()


def test_warns_when_not_converged():
    ((x, y),) = real_data("digits", 200)
    with pytest.warns(ConvergenceWarning, match="converge: the residual after 1 steps of conjugate gradients is"):
        KernelLeastSquares(C=1e-5, block_size=20, max_iter=1).fit(x, y)


def test_warns_of_a_search_that_does_not_converge():
    x = np.random.default_rng(0).normal(size=(300, 4))
    y = (x[:, 0] * 3).round().clip(-1, 1).astype(int)
    with pytest.warns(ConvergenceWarning) as caught:
        KernelLeastSquares(C=[1e-10, 1e-9, 0.1], block_size=50, max_iter=5).fit(x, y)
    assert str(caught[0].message).startswith(
        "6 of the problems by which KernelLeastSquares has chosen C did not converge"
    )
    assert len(caught) == 1


def test_conjugate_gradients_end_where_they_came_closest():
    x, y = np.linspace(0, 1, 300)[:, None], np.arange(300) % 2
    with pytest.warns(ConvergenceWarning) as caught:
        KernelLeastSquares(C=1e-13, block_size=50, gamma=1.0).fit(x, y)
    residual = float(re.search(r"the residual .* is (\S+) of", str(caught[0].message))[1])
    assert residual <= 1.1  # no coefficients at all leave 1


def test_the_module_works_elsewhere():
    ((x, y),) = real_data("digits", 100)
    model = KernelLeastSquares().fit(x, y)
    rows = torch.tensor(x[:5], requires_grad=True)
    torch.nn.Sequential(model.module_, torch.nn.Linear(10, 2).double())(rows).sum().backward()
    assert rows.grad.abs().sum() > 0
    assert set(model.module_.state_dict()) == {"support", "gamma", "weight"}
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))


@pytest.mark.parametrize("setting", [{"C": 0}, {"gamma": -1.0}, {"gamma": "wide"}, {"block_size": 0}], ids=str)
def test_impossible_settings(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        KernelLeastSquares(**setting).fit([[0.0], [1.0]], [0, 1])


@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu():
    (x, y), (x_test, _) = real_data("digits", 200, 500)
    for block_size in (4000, 50):
        there = KernelLeastSquares(C=GRID[1:], block_size=block_size).fit(
            torch.tensor(x).cuda(), torch.tensor(y).cuda()
        )
        here = KernelLeastSquares(C=GRID[1:], device="cpu").fit(x, y)
        assert there.C_ == here.C_
        assert there.module_.support.is_cuda
        np.testing.assert_allclose(there.decision_function(x_test), here.decision_function(x_test), atol=1e-6)
