import io
import pickle
import warnings

import joblib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import linear_model
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch.nn import functional as F

from torchal.errors import ConfigError, DataError, ShapeError
from torchal.models import LogisticRegression


def check_name(value):
    function = getattr(value, "func", value)
    return getattr(function, "__name__", type(value).__name__)


CHECKS = [
    *estimator_checks_generator(LogisticRegression()),
    *estimator_checks_generator(LogisticRegression(C=10.0, fit_intercept=False)),
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=check_name)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def objective(coef, intercept, x, y, *, C, weights=None):
    """scikit-learn's objective, row by row."""
    weights = np.ones(len(x)) if weights is None else weights
    logits = torch.as_tensor(x @ coef.T + intercept)
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], 1)
    losses = F.cross_entropy(logits, torch.as_tensor(y), reduction="none").numpy()
    return C * weights @ losses + 0.5 * (coef**2).sum()


def data(name):
    loaders = {
        "digits": load_digits,
        "iris": load_iris,
        "wine": load_wine,
        "breast_cancer": load_breast_cancer,
    }
    x, y = loaders[name](return_X_y=True)
    if name == "digits":
        return x[:500] / 16, y[:500], x[500:] / 16, y[500:]
    order = np.random.default_rng(0).permutation(len(x))
    x = StandardScaler().fit_transform(x)[order]
    return x[: len(x) * 2 // 3], y[order][: len(x) * 2 // 3], x[len(x) * 2 // 3 :], y[order][len(x) * 2 // 3 :]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("name", ["digits", "iris", "wine", "breast_cancer"])
def test_parity_with_scikit_learn(name, C, weighted):
    x, y, x_test, _ = data(name)
    weights = np.random.default_rng(1).uniform(0.1, 3, len(x)) if weighted else None
    ours = LogisticRegression(C=C).fit(x, y, sample_weight=weights)
    theirs = linear_model.LogisticRegression(C=C, tol=1e-8, max_iter=10000).fit(x, y, sample_weight=weights)
    assert ours.coef_.shape == theirs.coef_.shape
    assert ours.intercept_.shape == theirs.intercept_.shape
    assert ours.n_iter_.shape == theirs.n_iter_.shape
    reached, best = (objective(m.coef_, m.intercept_, x, y, C=C, weights=weights) for m in (ours, theirs))
    assert reached <= best * (1 + 1e-9)
    assert (ours.predict(x_test) == theirs.predict(x_test)).mean() >= 0.995
    np.testing.assert_allclose(ours.predict_proba(x_test), theirs.predict_proba(x_test), atol=2e-3)
    assert ours.decision_function(x_test).shape == theirs.decision_function(x_test).shape


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_agrees_with_newton_cholesky_on_two_classes(fit_intercept):
    x, y, x_test, _ = data("breast_cancer")
    settings = {"C": 10.0, "fit_intercept": fit_intercept, "tol": 1e-10}
    ours = LogisticRegression(**settings).fit(x, y)
    theirs = linear_model.LogisticRegression(solver="newton-cholesky", **settings).fit(x, y)
    np.testing.assert_allclose(ours.decision_function(x_test), theirs.decision_function(x_test), rtol=1e-3, atol=1e-3)


HARD = {
    "separable": (np.array([[-1.0], [-0.5], [0.5], [1.0]]), np.array([0, 0, 1, 1])),
    "separable in three": (np.arange(9.0).reshape(-1, 1), np.arange(9) // 3),
    "scales": (np.random.default_rng(0).normal(size=(90, 8)) * 10.0 ** np.arange(-4, 4), np.arange(90) % 3),
    "duplicate rows": (np.repeat([[0.0, 1.0], [1.0, 0.0]], 20, 0), np.arange(40) % 3),
    "one feature": (np.random.default_rng(0).normal(size=(50, 1)), np.arange(50) % 4),
    "wide": (np.random.default_rng(0).normal(size=(12, 300)), np.arange(12) % 3),
    "constant feature": (np.c_[np.full(30, 1e6), np.random.default_rng(0).normal(size=30)], np.arange(30) % 2),
    "only constants": (np.ones((9, 2)), np.arange(9) % 3),
    "equal columns": (np.repeat(np.random.default_rng(0).normal(size=(40, 1)) * 1e6, 5, 1), np.arange(40) % 3),
    "far off": (np.random.default_rng(0).normal(size=(60, 3)) + 1e5, np.arange(60) % 3),
    "two rows": (np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 1])),
}


@pytest.mark.parametrize("C", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("case", HARD)
def test_hard_problems_converge(case, C):
    x, y = HARD[case]
    fitted = LogisticRegression(C=C).fit(x, y)  # a ConvergenceWarning would be an error
    probs = torch.as_tensor(fitted.predict_proba(x))
    onehot = F.one_hot(torch.as_tensor(y)).numpy()
    residual = C * (probs.numpy() - onehot)[:, -len(fitted.coef_) :]
    gradient = residual.T @ x + fitted.coef_
    size = C * np.abs(x).sum(0) + np.abs(fitted.coef_) + 1
    assert (np.abs(gradient) <= 1e-4 * size).all()
    assert (np.abs(residual.sum(0)) <= 1e-4 * C * len(x)).all()


def test_warns_when_not_converged():
    x, y, _, _ = data("digits")
    with pytest.warns(ConvergenceWarning, match="did not converge in 2 of at most 2"):
        fitted = LogisticRegression(max_iter=2).fit(x, y)
    assert fitted.n_iter_ == [2]


def test_numbers_beyond_float64_warn():
    x = np.array([[1e200], [-1e200], [2e200], [3e200]])
    with pytest.warns(ConvergenceWarning):
        LogisticRegression().fit(x, [0, 1, 0, 1])


def test_two_classes_of_a_softmax_at_half_c():
    # the softmax over two classes penalises two vectors, each half of ours
    x, y, _, _ = data("breast_cancer")
    coef = LogisticRegression(C=2.0).fit(x, y)
    halves = np.concatenate([-coef.coef_, coef.coef_]) / 2
    shift = np.concatenate([-coef.intercept_, coef.intercept_]) / 2
    best = objective(halves, shift, x, y, C=1.0)
    for factor in (0.999, 1.001):
        assert objective(halves * factor, shift, x, y, C=1.0) > best


@pytest.mark.parametrize("name", ["iris", "breast_cancer"])
def test_weights_are_repeated_rows(name):
    x, y, x_test, _ = data(name)
    weights = np.random.default_rng(0).integers(0, 4, len(x))
    weighted = LogisticRegression().fit(x, y, sample_weight=weights)
    repeated = LogisticRegression().fit(np.repeat(x, weights, 0), np.repeat(y, weights))
    np.testing.assert_allclose(
        weighted.decision_function(x_test), repeated.decision_function(x_test), rtol=1e-4, atol=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 25),
    d=st.integers(1, 30),
    n_classes=st.integers(2, 4),
    log_c=st.floats(-3, 3),
    seed=st.integers(0, 2**16),
)
def test_never_above_scikit_learn(n, d, n_classes, log_c, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)).round(2), np.r_[np.arange(n_classes), rng.integers(0, n_classes, n)][:n]
    weights = np.r_[np.ones(n_classes), rng.integers(0, 3, n)][:n].astype(float)
    names = np.array(["d", "b", "c", "a"])
    C = 10**log_c
    ours = LogisticRegression(C=C).fit(x, names[y], sample_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = linear_model.LogisticRegression(C=C, tol=1e-8, max_iter=10000)
        theirs.fit(x, names[y], sample_weight=weights)
    assert list(ours.classes_) == list(theirs.classes_)
    codes = np.searchsorted(ours.classes_, names[y])
    reached, best = (objective(m.coef_, m.intercept_, x, codes, C=C, weights=weights) for m in (ours, theirs))
    assert reached <= best * (1 + 1e-8)


@pytest.mark.parametrize("name", ["iris", "breast_cancer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensor_in_tensor_out(name, dtype):
    x, y, x_test, y_test = data(name)
    model = LogisticRegression(device="cpu").fit(torch.tensor(x, dtype=dtype), torch.tensor(y))
    other = LogisticRegression(device="cpu").fit(x.astype(str(dtype).removeprefix("torch.")), y)
    x_test = torch.tensor(x_test, dtype=dtype)
    for method in ("predict", "predict_proba", "predict_log_proba", "decision_function"):
        ours, arrays = getattr(model, method)(x_test), getattr(other, method)(x_test.numpy())
        assert isinstance(ours, torch.Tensor)
        assert not ours.requires_grad
        assert isinstance(arrays, np.ndarray)
        assert ours.dtype == (torch.int64 if method == "predict" else torch.float64)
        np.testing.assert_array_equal(ours.numpy(), arrays)
    assert model.score(x_test, torch.tensor(y_test)) == pytest.approx(other.score(x_test.numpy(), y_test))


def test_rows_of_several_axes_are_flattened():
    x, y, _, _ = data("digits")
    flat = LogisticRegression().fit(torch.tensor(x), torch.tensor(y))
    images = torch.tensor(x).reshape(-1, 8, 8)
    square = LogisticRegression().fit(images, torch.tensor(y))
    assert square.n_features_in_ == 64
    assert square.coef_.shape == (10, 64)
    np.testing.assert_array_equal(square.coef_, flat.coef_)
    assert torch.equal(square.predict(images), flat.predict(torch.tensor(x)))
    np.testing.assert_array_equal(LogisticRegression().fit(images.numpy(), y).coef_, flat.coef_)


def test_module_is_a_linear_layer():
    x, y, x_test, _ = data("iris")
    model = LogisticRegression(device="cpu").fit(x, y)
    assert isinstance(model.module_, torch.nn.Linear)
    np.testing.assert_array_equal(model.module_(torch.tensor(x_test)).detach(), model.decision_function(x_test))
    assert set(model.module_.state_dict()) == {"weight", "bias"}
    bare = LogisticRegression(fit_intercept=False).fit(x, y)
    assert set(bare.module_.state_dict()) == {"weight"}
    assert (bare.intercept_ == 0).all()


def test_no_transform():
    assert not hasattr(LogisticRegression(), "transform")


def test_global_generators_stay():
    x, y, _, _ = data("iris")
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    LogisticRegression().fit(x, y).predict(x)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_inside_scikit_learn():
    x, y, _, _ = data("wine")
    search = GridSearchCV(LogisticRegression(), {"C": [1e-4, 1.0]}, cv=3).fit(x, y)
    assert search.best_params_ == {"C": 1.0}
    theirs = cross_val_score(make_pipeline(StandardScaler(), linear_model.LogisticRegression(tol=1e-8)), x, y)
    np.testing.assert_allclose(cross_val_score(make_pipeline(StandardScaler(), LogisticRegression()), x, y), theirs)
    model = clone(LogisticRegression(C=3.0)).fit(x, y)
    assert model.get_params()["C"] == 3.0
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    buffer.seek(0)
    for copy in (pickle.loads(pickle.dumps(model)), joblib.load(buffer)):
        np.testing.assert_array_equal(copy.predict_proba(x), model.predict_proba(x))


@pytest.mark.parametrize("setting", [{"C": 0}, {"C": float("inf")}, {"C": -1.0}, {"tol": -1.0}, {"max_iter": 0}])
def test_impossible_settings(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        LogisticRegression(**setting).fit([[0.0], [1.0]], [0, 1])


def test_a_class_without_weight_gets_no_probability():
    x, y, _, _ = data("iris")
    model = LogisticRegression().fit(x, y, sample_weight=(y != 1).astype(float))
    assert list(model.classes_) == [0, 1, 2]
    assert model.predict_proba(x)[:, 1].max() < 1e-6
    without = LogisticRegression(C=0.5).fit(x[y != 1], y[y != 1])
    assert (model.predict(x[y != 1]) == without.predict(x[y != 1])).all()


def test_bad_weights():
    x, y, _, _ = data("iris")
    with pytest.raises(DataError, match="at least 2 classes, got 1 class"):
        LogisticRegression().fit(x, y, sample_weight=(y == 1).astype(float))
    with pytest.raises(ShapeError, match="sample_weight"):
        LogisticRegression().fit(x, y, sample_weight=np.ones(3))


@pytest.mark.gpu
def test_stays_on_the_gpu():
    x, y, x_test, _ = data("digits")
    model = LogisticRegression().fit(torch.tensor(x).cuda(), torch.tensor(y).cuda())
    assert model.module_.weight.is_cuda
    probs = model.predict_proba(torch.tensor(x_test).cuda())
    assert probs.is_cuda
    on_cpu = LogisticRegression(device="cpu").fit(x, y)
    np.testing.assert_allclose(probs.cpu(), on_cpu.predict_proba(x_test), atol=1e-4)
