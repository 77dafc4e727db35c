import io
import pickle
import re
import warnings
from functools import partial

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import linear_model
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from tests.contracts import WEIGHTS_SEARCHES, check_name, make_view, scikit_learn_checks
from tests.real_data import DENSE, SPARSE, real_data
from torchal import ActiveLearner, Pool, Schedule, SparseInputs, Trainer
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.models import LinearSVM, LogisticRegression, OneVsRestLogisticRegression
from torchal.samplers import Margin

GRID = [10.0**i for i in range(-4, 5)]
SOLVERS = ("auto", "torch")
TIGHT = {"tol": 1e-8, "max_iter": 10_000}


BOTH = ("dense", "sparse")


CHECKS = [
    *scikit_learn_checks(LogisticRegression()),
    *scikit_learn_checks(LogisticRegression(C=10.0, fit_intercept=False)),
    *scikit_learn_checks(LogisticRegression(C=[0.1, 1.0]), without=BOTH),
    *scikit_learn_checks(OneVsRestLogisticRegression()),
    *scikit_learn_checks(OneVsRestLogisticRegression(penalize_intercept=True)),
    *scikit_learn_checks(LinearSVM(), without=["sparse"]),  # LinearSVC is not that exact
    *scikit_learn_checks(LinearSVM(solver="torch")),
    *scikit_learn_checks(LinearSVM(C=[0.1, 1.0]), without=BOTH),
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=check_name)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    ("estimator", "check"), [pair for pair in CHECKS if "sparse" in check_name(pair[1])], ids=check_name
)
def test_scikit_learn_checks_of_what_stays_sparse(estimator, check, stay_sparse):
    check(estimator)


def objective(coef, intercept, x, y, *, C, weights=None):
    """scikit-learn's objective, row by row."""
    weights = np.ones(len(x)) if weights is None else weights
    logits = torch.as_tensor(np.asarray(x @ coef.T) + intercept)
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


def test_warns_when_not_converged():
    x, y, _, _ = data("digits")
    with pytest.warns(ConvergenceWarning, match="did not converge: after 2 Newton steps"):
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


@pytest.mark.parametrize(
    "setting",
    [
        {"C": 0},
        {"C": float("inf")},
        {"C": -1.0},
        {"C": [1.0, 0.0]},
        {"C": []},
        {"C": "1"},
        {"C": None},
        {"tol": -1.0},
        {"max_iter": 0},
        {"n_folds": 1},
        {"fit_intercept": "yes"},
        {"C": 10**400},
    ],
    ids=lambda setting: next(iter(setting)),
)
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


MODELS = {
    "logistic": (LogisticRegression, lambda C: linear_model.LogisticRegression(C=C, **TIGHT)),
    "ovr": (OneVsRestLogisticRegression, lambda C: OneVsRestClassifier(linear_model.LogisticRegression(C=C, **TIGHT))),
    "ovr, liblinear": (
        partial(OneVsRestLogisticRegression, penalize_intercept=True),
        lambda C: OneVsRestClassifier(linear_model.LogisticRegression(C=C, solver="liblinear", **TIGHT)),
    ),
    "svm": (partial(LinearSVM, solver="torch"), lambda C: LinearSVC(C=C, random_state=0, **TIGHT)),
}


def reached(name, model, x, y, *, C, weights):
    """Return the objective that a model is to minimise, row by row."""
    parts = getattr(model, "estimators_", [model])
    coef, intercept = (np.concatenate([getattr(one, part) for one in parts]) for part in ("coef_", "intercept_"))
    codes = np.unique(y, return_inverse=True)[1]
    if name == "logistic":
        return objective(coef, intercept, x, codes, C=C, weights=weights)
    logits = np.asarray(x @ coef.T) + intercept
    signs = 2 * np.eye(codes.max() + 1)[codes][:, -logits.shape[1] :] - 1
    losses = np.maximum(1 - signs * logits, 0) ** 2 if name == "svm" else np.logaddexp(0, -signs * logits)
    penalty = (coef**2).sum() + (0 if name == "ovr" else (intercept**2).sum())
    return C * (weights @ losses).sum() + penalty / 2


def fit_peer(name, C, x, y, weights):
    """Return scikit-learn's model of that name, fitted."""
    peer = MODELS[name][1](C)
    if not hasattr(peer, "estimator"):
        return peer.fit(x, y, sample_weight=weights)
    with sklearn.config_context(enable_metadata_routing=True):
        peer = OneVsRestClassifier(peer.estimator.set_fit_request(sample_weight=True))
        return peer.fit(x, y, sample_weight=weights)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 25),
    d=st.integers(1, 30),
    n_classes=st.integers(2, 4),
    log_c=st.floats(-3, 3),
    seed=st.integers(0, 2**16),
)
@pytest.mark.parametrize("name", MODELS)
def test_never_above_scikit_learn(name, n, d, n_classes, log_c, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)).round(2), np.r_[np.arange(n_classes), rng.integers(0, n_classes, n)][:n]
    weights = np.r_[np.ones(n_classes), rng.integers(0, 3, n)][:n].astype(float)
    y, C = np.array(["d", "b", "c", "a"])[y], 10**log_c
    ours = MODELS[name][0](C=C).fit(x, y, sample_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = fit_peer(name, C, x, y, weights)
    assert list(ours.classes_) == list(theirs.classes_)
    best = reached(name, theirs, x, y, C=C, weights=weights)
    assert reached(name, ours, x, y, C=C, weights=weights) <= best * (1 + 1e-8)


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
@pytest.mark.parametrize("name", MODELS)
def test_hard_problems_converge(name, case, C):
    x, y = HARD[case]
    model = MODELS[name][0](C=C).fit(x, y)  # a ConvergenceWarning would be an error
    logits = torch.tensor(model.decision_function(x).reshape(len(x), -1), requires_grad=True)
    codes = torch.as_tensor(y)
    if name == "logistic":
        both = logits if logits.shape[1] > 1 else torch.cat([torch.zeros_like(logits), logits], 1)
        loss = F.cross_entropy(both, codes, reduction="sum")
    else:
        signs = 2 * F.one_hot(codes)[:, -logits.shape[1] :] - 1
        losses = F.relu(1 - signs * logits).square() if name == "svm" else -F.logsigmoid(signs * logits)
        loss = losses.sum()
    residual = C * torch.autograd.grad(loss, logits)[0].numpy()
    gradient = residual.T @ x + model.coef_
    assert (np.abs(gradient) <= 1e-4 * (C * np.abs(x).sum(0) + np.abs(model.coef_) + 1)).all()
    of_intercept = residual.sum(0) + (0 if name in ("logistic", "ovr") else model.intercept_)
    assert (np.abs(of_intercept) <= 1e-4 * (C * len(x) + np.abs(model.intercept_))).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("source", [*DENSE, *SPARSE])
def test_the_optimum_on_real_data(source, name):
    (x, y), (x_test, _) = real_data(source, 200, 1000)
    for C, weighted in ((0.01, True), (1.0, False), (10.0, True)):
        weights = np.random.default_rng(1).uniform(0.2, 3, len(y)) if weighted else np.ones(len(y))
        model = MODELS[name][0](C=C).fit(x, y, sample_weight=weights if weighted else None)
        peer = fit_peer(name, C, x, y, weights)
        best = reached(name, peer, x, y, C=C, weights=weights)
        assert reached(name, model, x, y, C=C, weights=weights) <= best * (1 + 1e-9)
        assert (model.predict(x_test) == peer.predict(x_test)).mean() >= 0.995
        assert model.decision_function(x_test).shape == peer.decision_function(x_test).shape
        if name != "svm":
            np.testing.assert_allclose(model.predict_proba(x_test), peer.predict_proba(x_test), atol=1e-3)


@pytest.mark.parametrize(
    ("source", "name", "weighted"),
    [
        *((source, name, False) for source in ("australian", "waveform", "sms-spam") for name in MODELS),
        *((source, name, True) for source in ("australian", "waveform") for name in ("logistic", "svm")),
        *(("letter", name, True) for name in ("logistic", "svm")),
    ],
)
def test_the_search_is_that_of_grid_search_cv(source, name, weighted):
    if weighted and not WEIGHTS_SEARCHES:
        pytest.skip("GridSearchCV does not weight its scores before scikit-learn 1.7")
    ((x, y),) = real_data(source, 150, seed=3)
    kept = np.isin(y, [label for label in np.unique(y) if (y == label).sum() >= 3])
    x, y = x[kept], y[kept]
    weights = np.random.default_rng(1).uniform(0.2, 3, len(y)) if weighted else None
    ours, theirs = MODELS[name]
    peer = theirs(1.0)
    grid = GRID[1:-2]
    setting = "estimator__C" if hasattr(peer, "estimator") else "C"
    search = (
        GridSearchCV(peer, {setting: grid}, cv=3).fit(x, y, sample_weight=weights)
        if weights is not None
        else (GridSearchCV(peer, {setting: grid}, cv=3).fit(x, y))
    )
    model = ours(C=grid[::-1]).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(model.cv_accuracies_, search.cv_results_["mean_test_score"], atol=0.01)
    scores = search.cv_results_["mean_test_score"]
    assert grid[int((scores >= scores.max() - 1e-12).argmax())] == model.C_
    assert model.n_folds_ == 3
    alone = ours(C=model.C_).fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(model.decision_function(x), alone.decision_function(x), rtol=1e-5, atol=1e-6)


def test_classes_of_few_rows_make_fewer_folds():
    x, y, x_test, _ = data("wine")
    for n_rows, n_folds in ((3, 3), (2, 2)):
        kept = np.concatenate([(y == 0).nonzero()[0], (y == 1).nonzero()[0], (y == 2).nonzero()[0][:n_rows]])
        model = LogisticRegression(C=GRID).fit(x[kept], y[kept])
        assert model.n_folds_ == n_folds
    kept = np.concatenate([(y == 0).nonzero()[0], (y == 1).nonzero()[0][:1]])
    model = LogisticRegression(C=GRID).fit(x[kept], y[kept])
    assert model.n_folds_ == 3  # of the other class
    assert model.predict_proba(x_test).shape == (len(x_test), 2)
    model = LogisticRegression(C=GRID).fit(x[[0, 1]], [0, 1])
    assert (model.n_folds_, model.C_, len(model.cv_accuracies_)) == (0, GRID[0], 0)


def test_equally_good_penalties_the_smallest():
    x = np.array([[-2.0], [-1.0], [1.0], [2.0]] * 3)
    assert LogisticRegression(C=[10.0, 0.1, 1.0]).fit(x, x[:, 0] > 0).C_ == 0.1


@pytest.mark.parametrize("ours", [LogisticRegression, OneVsRestLogisticRegression, partial(LinearSVM, solver="torch")])
@pytest.mark.parametrize("source", SPARSE)
@pytest.mark.parametrize("stay", ["stay_sparse", None])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_rows_as_dense_ones(source, ours, stay, request):
    if stay:
        request.getfixturevalue(stay)
    (x, y), (x_test, _) = real_data(source, 120, 300)
    parts = (torch.from_numpy(part) for part in (x.indptr, x.indices, x.data))
    tensor = torch.sparse_csr_tensor(*parts, x.shape, check_invariants=False)  # its columns are not sorted
    codes = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    for C in (1.0, [0.1, 10.0]):
        dense = ours(C=C).fit(x.toarray(), y)
        answer = dense.decision_function(x_test.toarray())
        for rows, labels in ((x, y), (x.tocoo(), y), (SparseInputs(x), y), (tensor, codes)):
            sparse = ours(C=C).fit(rows, labels)
            assert sparse.C_ == dense.C_
            np.testing.assert_allclose(sparse.decision_function(x_test), answer, rtol=1e-5, atol=1e-6)
    answer = sparse.decision_function(tensor)
    assert isinstance(answer, torch.Tensor)
    np.testing.assert_allclose(answer.numpy(), sparse.decision_function(x), rtol=1e-12, atol=1e-12)


def test_linear_svc_begins_with_sparse_rows_on_the_cpu(monkeypatch):
    (x, y), (x_test, _) = real_data("sms-spam", 300, 1000)
    ours = LinearSVM(C=GRID[2:-2], solver="torch").fit(x, y)
    calls = []
    whole = LinearSVC.fit
    monkeypatch.setattr(LinearSVC, "fit", lambda self, *args, **kwargs: calls.append(1) or whole(self, *args, **kwargs))
    compiled = LinearSVM(C=GRID[2:-2]).fit(x, y)
    assert len(calls) == 3 * 5 + 1
    assert compiled.C_ == ours.C_
    np.testing.assert_allclose(compiled.cv_accuracies_, ours.cv_accuracies_, atol=0.01)
    np.testing.assert_allclose(compiled.decision_function(x_test), ours.decision_function(x_test), atol=1e-3)
    kept = np.arange(len(y)) % 5 != 0
    weighted = LinearSVM().fit(x, y, sample_weight=kept.astype(float))
    np.testing.assert_allclose(weighted.coef_, LinearSVM().fit(x[kept], y[kept]).coef_, atol=1e-4)
    weights = np.random.default_rng(0).uniform(0.1, 3, len(y))
    one, other = (LinearSVM(C=[0.01, 100.0], solver=solver).fit(x, y, sample_weight=weights) for solver in SOLVERS)
    np.testing.assert_allclose(one.cv_accuracies_, other.cv_accuracies_, atol=1e-12)
    for C in (0.01, 100.0):
        values = [
            reached("svm", LinearSVM(C=C, solver=solver).fit(x, y, sample_weight=weights), x, y, C=C, weights=weights)
            for solver in SOLVERS
        ]
        assert values[0] == pytest.approx(values[1], rel=1e-6)
    with pytest.warns(ConvergenceWarning) as caught:
        LinearSVM(C=[1.0, 1e6], max_iter=1).fit(x, y)
    assert re.match(r"\d+ of the problems by which LinearSVM has chosen C did not converge", str(caught[0].message))


@pytest.mark.parametrize("model", [LogisticRegression, OneVsRestLogisticRegression, LinearSVM])
def test_a_search_ends_with_the_very_fit_of_the_c_that_it_chose(model):
    x, y, _, _ = data("digits")
    searched = model(C=GRID).fit(x, y)
    alone = model(C=searched.C_).fit(x, y)
    np.testing.assert_array_equal(searched.coef_, alone.coef_)
    np.testing.assert_array_equal(searched.intercept_, alone.intercept_)


@pytest.mark.parametrize("model", [LogisticRegression, OneVsRestLogisticRegression, LinearSVM])
@pytest.mark.parametrize("C", [1.0, GRID])
def test_fits_together_can_have_the_bits_of_fits_alone(model, C):
    x, y, _, _ = data("digits")
    order = np.stack([np.random.default_rng(seed).permutation(len(y))[:60] for seed in range(4)])
    together = model(C=C).fit_many(x[order], y[order], same_bits=True)
    for rows, one in zip(order, together, strict=True):
        alone = model(C=C).fit(x[rows], y[rows])
        np.testing.assert_array_equal(one.coef_, alone.coef_)
        np.testing.assert_array_equal(one.intercept_, alone.intercept_)
        assert one.C_ == alone.C_


def words_and_one_more(column):
    """Return rows of few non-zeros that tell three classes, with one more column, and their classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    x = (rng.random((400, 30)) < 0.1).astype(float)
    x[np.arange(400), y] += 1
    return np.c_[x, column(rng)], y


@pytest.mark.parametrize("ours", [LogisticRegression, OneVsRestLogisticRegression, LinearSVM])
@pytest.mark.parametrize(
    ("column", "C"),
    [
        (lambda rng: np.full(400, 1e4), 1.0),
        (lambda rng: np.full(400, 5.0), 1e4),
        (lambda rng: rng.lognormal(11, 1, 400), 1.0),
        (lambda rng: np.arange(400.0) * 1e4, 1.0),
        (lambda rng: 2000 + rng.integers(-10, 11, 400), 1.0),
        (lambda rng: 1.7e9 + rng.integers(0, 1_000_000, 400), 1e4),
    ],
    ids=["constant", "small constant", "skewed", "line numbers", "years", "seconds since 1970"],
)
def test_a_sparse_matrix_with_a_column_of_another_scale(ours, column, C, stay_sparse):
    x, y = words_and_one_more(column)
    dense = ours(C=C).fit(x, y)
    sparse = ours(C=C).fit(scipy.sparse.csr_array(x), y)  # a ConvergenceWarning would be an error
    np.testing.assert_array_equal(sparse.predict(x), dense.predict(x))
    assert abs(sparse.decision_function(x) - dense.decision_function(x)).max() <= 1e-2 * abs(dense.coef_).max()


@pytest.mark.parametrize("ours", [LogisticRegression, OneVsRestLogisticRegression, LinearSVM])
def test_small_sparse_matrices_are_solved_as_dense_ones(ours):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 60)) * 10.0 ** rng.uniform(-3, 3, 60) * (rng.random((20, 60)) < 0.3), np.arange(20) % 3
    dense, sparse = (ours(C=[1e-2, 1e5]).fit(rows, y) for rows in (x, scipy.sparse.csr_array(x)))
    np.testing.assert_array_equal(sparse.coef_, dense.coef_)
    assert sparse.C_ == dense.C_


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("n", "d", "n_classes", "offset"), [(20, 30, 2, 1e6), (20, 10, 3, 1e6), (40, 30, 2, 1e3)])
def test_sparse_rows_far_from_zero_reach_the_optimum(n, d, n_classes, offset, name, stay_sparse):
    for seed in range(2):
        x, y = np.random.default_rng(seed).normal(size=(n, d)) + offset, np.arange(n) % n_classes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it may be sure of less than it has reached
            models = [MODELS[name][0](C=1e5).fit(rows, y) for rows in (x, scipy.sparse.csr_array(x))]
        dense, sparse = (reached(name, model, x, y, C=1e5, weights=np.ones(n)) for model in models)
        assert sparse <= dense * (1 + 1e-6)


def test_weights_take_a_class_out_of_sparse_rows_too(stay_sparse):
    x, y = words_and_one_more(lambda rng: np.zeros(400))
    weights = (y != 1).astype(float)
    model = LinearSVM().fit(scipy.sparse.csr_array(x), y, sample_weight=weights)
    assert model.coef_.shape == (3, 31)
    assert set(model.predict(x[y != 1])) == {0, 2}


def test_the_margin_of_sparse_rows_picks_as_that_of_dense_ones():
    ((x, y),) = real_data("sms-spam", 400)
    targets = torch.from_numpy((y == "spam").astype(int))
    picks = []
    for inputs in (x, torch.from_numpy(x.toarray())):
        learner = ActiveLearner(LogisticRegression(C=10.0), Margin(), Pool.unlabeled(inputs, n_classes=2), seed=1)
        start = torch.cat([(targets == code).nonzero()[:5, 0] for code in (0, 1)])
        learner.tell(start, targets[start])
        for _ in range(5):
            rows = learner.ask(10)
            learner.tell(rows, targets[rows])
        picks.append(learner.pool.labeled.nonzero().squeeze(1).tolist())
    assert picks[0] == picks[1]


@pytest.mark.parametrize("C", [1.0, [0.01, 1.0, 100.0]])
@pytest.mark.parametrize("ours", [LogisticRegression, OneVsRestLogisticRegression, LinearSVM])
def test_many_at_once_as_each_alone(ours, C):
    ((x, y),) = real_data("digits", 480)
    x, y = x.reshape(8, 60, -1), y.reshape(8, 60).copy()
    y[1] %= 2  # two classes
    y[2] %= 5
    y[3][y[3] == 7] = 8  # classes that are not those of the others, and as many
    many = ours(C=C).fit_many(x, y)
    for model, rows, labels in zip(many, x, y, strict=True):
        alone = ours(C=C).fit(rows, labels)
        assert (model.C_, model.n_folds_) == (alone.C_, alone.n_folds_)
        np.testing.assert_array_equal(model.classes_, alone.classes_)
        np.testing.assert_allclose(model.cv_accuracies_, alone.cv_accuracies_, atol=1e-12)
        np.testing.assert_allclose(model.decision_function(x[0]), alone.decision_function(x[0]), rtol=1e-6, atol=1e-7)
    tensors = ours(C=C).fit_many(torch.tensor(x[:2]), torch.tensor(y[:2]))
    np.testing.assert_allclose(
        tensors[1].decision_function(x[0]), many[1].decision_function(x[0]), rtol=1e-6, atol=1e-7
    )
    with pytest.raises(ShapeError, match="8 data sets and y has 7"):
        ours().fit_many(x, y[:7])


def test_the_loop_fits_many_at_once(monkeypatch):
    calls = []
    whole = LogisticRegression.fit_many
    monkeypatch.setattr(LogisticRegression, "fit_many", lambda self, X, y: calls.append(len(X)) or whole(self, X, y))
    pool = Pool.unlabeled(torch.randn(40, 3, generator=torch.Generator().manual_seed(0)), n_classes=2)
    pool = pool.with_labels(torch.arange(10), torch.arange(10) % 2)
    view = make_view(pool, model=LogisticRegression(C=[0.1, 1.0]))
    rows, labels = torch.tensor([[20, 21], [30, 31]]), torch.tensor([[0, 1], [1, 0]])
    scores = view.refit(rows, labels).scores
    assert calls == [2]
    for i in range(2):
        torch.testing.assert_close(scores[i], view.refit(rows[i], labels[i]).scores, rtol=1e-6, atol=1e-8)


def test_warns_of_a_search_that_does_not_converge():
    x, y, _, _ = data("digits")
    with pytest.warns(ConvergenceWarning) as caught:
        LogisticRegression(C=GRID, max_iter=3).fit(x, y)
    found = [str(warning.message) for warning in caught]
    assert re.match(r"\d+ of the problems by which LogisticRegression has chosen C did not converge; their C", found[0])
    assert "LogisticRegression did not converge: after 3 Newton steps the objective is about" in found[1]
    assert all(warning.filename == __file__ for warning in caught)  # where fit was called


def test_the_record_of_a_round_says_what_was_chosen(tmp_path):
    ((x, y),) = real_data("australian", 200)
    targets = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    pool = Pool.unlabeled(torch.from_numpy(x), n_classes=2)
    trainer = Trainer(
        LogisticRegression(C=GRID), Margin(), schedule=Schedule(batch_size=10, max_rounds=3), run_dir=tmp_path
    )
    start = torch.cat([(targets == code).nonzero()[:2, 0] for code in (0, 1)])
    run = trainer.fit(pool, lambda rows: targets[rows], start=start)
    assert [result.model["n_folds"] for result in run.rounds] == [2, 3, 3, 3]
    assert all(result.model["C"] in GRID for result in run.rounds)
    read = EventAccumulator(str(tmp_path / "tb"), size_guidance={"scalars": 0}).Reload()
    assert [round(event.value, 6) for event in read.Scalars("model/cv_accuracy")] == [
        round(result.model["cv_accuracy"], 6) for result in run.rounds
    ]
    assert [event.value for event in read.Scalars("model/n_folds")] == [2, 3, 3, 3]


@pytest.mark.gpu
def test_stays_on_the_gpu():
    x, y, x_test, _ = data("digits")
    model = LogisticRegression().fit(torch.tensor(x).cuda(), torch.tensor(y).cuda())
    assert model.module_.weight.is_cuda
    probs = model.predict_proba(torch.tensor(x_test).cuda())
    assert probs.is_cuda
    on_cpu = LogisticRegression(device="cpu").fit(x, y)
    np.testing.assert_allclose(probs.cpu(), on_cpu.predict_proba(x_test), atol=1e-4)
