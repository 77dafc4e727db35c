"""What all classifiers share that are fitted to all rows at once."""

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from torchal.errors import ConfigError, DataError, ShapeError
from torchal.models import KernelLeastSquares, KernelSVM, LinearSVM, LogisticRegression, OneVsRestLogisticRegression

LINEAR = [LogisticRegression, OneVsRestLogisticRegression, LinearSVM]
ALL = pytest.mark.parametrize("ours", [*LINEAR, KernelSVM, KernelLeastSquares])


def problem(n=12, d=3, n_classes=2):
    return np.random.default_rng(0).normal(size=(n, d)), np.arange(n) % n_classes


@ALL
def test_data_sets_that_cannot_be_fitted_together(ours):
    x, y = problem()
    with pytest.raises(ShapeError, match=r"one shape, got \(12, 3\) and \(10, 3\)"):
        ours().fit_many([x, x[:10]], [y, y[:10]])
    with pytest.raises(ShapeError, match=r"one shape, got \(12, 3\) and \(12, 2\)"):
        ours().fit_many([x, x[:, :2]], [y, y])
    with pytest.raises(DataError, match=r"sparse|Sparse"):
        ours().fit_many([scipy.sparse.csr_array(x)] * 2, [y, y])
    assert ours().fit_many(np.empty((0, 12, 3)), np.empty((0, 12), int)) == []


@ALL
def test_bad_input_is_told_at_the_door(ours):
    x, y = np.random.default_rng(0).normal(size=(12, 2, 2)), np.arange(12) % 2
    from_lists = ours().fit(x.tolist(), y)
    np.testing.assert_array_equal(from_lists.predict(x.tolist()), ours().fit(x, y).predict(x))
    with pytest.raises(DataError, match="sample_weight must be"):
        ours().fit(x, y, sample_weight=["a"] * 12)
    with pytest.raises(DataError):
        ours().fit([["a", "b"]] * 12, y)
    with pytest.raises(DataError):
        ours().fit([[[1.0], [2.0, 3.0]]] * 12, y)
    for tol in ("a", None, float("inf"), float("nan"), True):
        with pytest.raises(ConfigError, match="tol"):
            ours(tol=tol).fit(x, y)


@ALL
@pytest.mark.parametrize(
    ("settings", "rows", "labels"),
    [
        ({"C": -1.0}, lambda x: x, lambda y: y),
        ({"device": "nowhere"}, lambda x: x, lambda y: y),
        ({}, lambda x: x * np.nan, lambda y: y),
        ({}, lambda x: x[:, :2], lambda y: y * 0),
        ({}, lambda x: x, lambda y: y[:5]),
    ],
    ids=["setting", "device", "not a number", "one class", "lengths"],
)
def test_a_fit_that_fails_leaves_nothing_of_the_one_before(ours, settings, rows, labels):
    x, y = problem()
    model = ours(C=[0.1, 1.0]).fit(x, y).set_params(**settings)
    with pytest.raises((ConfigError, DataError, ShapeError)):
        model.fit(rows(x), labels(y))
    assert set(vars(model)) == set(model.get_params())
    with pytest.raises(NotFittedError):
        model.predict(x)


@ALL
def test_what_it_returns_is_no_view_of_the_model(ours):
    x, y = problem()
    model = ours().fit(x, y)
    before = model.decision_function(x)
    for name in ("coef_", "intercept_", "dual_coef_", "support_vectors_"):
        if hasattr(model, name):
            getattr(model, name)[:] = 0
    np.testing.assert_array_equal(model.decision_function(x), before)


@ALL
def test_impossible_numbers(ours):
    x, y = problem()
    for C in (b"ab", "1", True, [1.0, None], 10**400):
        with pytest.raises(ConfigError, match="C must be"):
            ours(C=C).fit(x, y)
    ours(tol=1e300).fit(x, y)  # asks for nothing


@ALL
def test_odd_labels_and_weights(ours):
    x, y = problem()
    tensor = torch.tensor(x)
    expected = ours().fit(x, y).predict(x)
    for labels in (y.astype(">i8"), torch.tensor(y), y.astype(np.uint8)):
        model = ours().fit(x, labels)
        np.testing.assert_array_equal(model.predict(x), expected)
        np.testing.assert_array_equal(model.predict(tensor).numpy(), expected)
    with pytest.raises(DataError, match="y must be dense"):
        ours().fit(tensor, torch.tensor(y).to_sparse())
    for weights in (torch.ones(12).to_sparse(), torch.ones(12, dtype=torch.complex64)):
        with pytest.raises(DataError, match="sample_weight must be dense and real"):
            ours().fit(x, y, sample_weight=weights)


@ALL
@pytest.mark.parametrize("rows", [lambda x: x.to("meta"), lambda x: x * 1j], ids=["meta", "complex"])
def test_tensors_without_real_numbers(ours, rows):
    x, y = problem()
    with pytest.raises(DataError, match="X must have real numbers"):
        ours().fit(rows(torch.tensor(x)), torch.tensor(y))


@ALL
def test_a_default_device_is_not_that_of_the_model(ours, stay_sparse):
    x, y = problem()
    expected = ours(device="cpu").fit(x, y, sample_weight=np.ones(12)).decision_function(x)
    sparse = scipy.sparse.csr_array(x)
    with torch.device("meta"):
        found = ours(device="cpu").fit(x, y, sample_weight=np.ones(12)).decision_function(x)
        if ours in LINEAR:
            np.testing.assert_allclose(ours(device="cpu").fit(sparse, y).decision_function(sparse), expected, atol=1e-6)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("ours", LINEAR)
@pytest.mark.parametrize("layout", ["to_dense", "to_sparse_coo", "to_sparse_csr", "to_sparse_csc"])
@pytest.mark.filterwarnings("ignore:Sparse")
def test_rows_made_in_inference_mode(ours, layout, stay_sparse):
    x, y = problem()
    expected = ours().fit(x, y).decision_function(x)
    with torch.inference_mode():
        made = torch.tensor(x)
        rows, labels = (made if layout == "to_dense" else getattr(made, layout)()), torch.tensor(y)
    model = ours().fit(rows, labels)
    np.testing.assert_allclose(model.decision_function(rows).numpy(), expected, atol=1e-6)
    assert not model.module_.weight.is_inference()


@pytest.mark.parametrize("ours", LINEAR)
def test_sparse_tensors_must_be_finite(ours, stay_sparse):
    x, y = problem()
    model = ours().fit(scipy.sparse.csr_array(x), y)
    bad = x.copy()
    bad[3, 1] = np.nan
    sparse = scipy.sparse.csr_array(bad)
    with pytest.raises(DataError, match=r"NaN"):
        model.predict(sparse)
    parts = (torch.from_numpy(part) for part in (sparse.indptr, sparse.indices, sparse.data))
    tensor = torch.sparse_csr_tensor(*parts, sparse.shape, check_invariants=True)
    with pytest.raises(DataError, match="X must be finite: 1 of its 36 stored values"):
        model.predict(tensor)


@ALL
@pytest.mark.parametrize("factor", [1e160, 1e200, 1e307])
def test_numbers_beyond_float64_are_said(ours, factor):
    x, y = problem()
    if ours in LINEAR:
        with pytest.warns(ConvergenceWarning, match="did not converge"):
            ours().fit(x * factor, y)
        return
    with pytest.raises(DataError, match="X is too large for the kernel: gamma"):
        ours(gamma=1.0).fit(x * factor, y)


@pytest.mark.parametrize("ours", [KernelSVM, KernelLeastSquares])
def test_impossible_widths(ours):
    x, y = problem()
    for gamma in (np.array([1.0, 2.0]), float("inf"), 10**400, True, -1.0):
        with pytest.raises(ConfigError, match="gamma must be"):
            ours(gamma=gamma).fit(x, y)
    with pytest.raises(DataError, match="X is too large for the kernel"):
        ours(gamma=1e308).fit(x, y)


@ALL
def test_the_report_of_a_fit(ours):
    x, y = problem(90, n_classes=3)
    model = ours(C=[1e-6, 1e6]).fit(x + y[:, None], y)
    assert model.cv_accuracies_[0] != model.cv_accuracies_[1]
    assert model.fit_report() == {"C": model.C_, "n_folds": 3, "cv_accuracy": model.cv_accuracies_.max()}
    assert ours(C=2.0).fit(x, y).fit_report() == {"C": 2.0, "n_folds": 0}


@pytest.mark.parametrize(
    "model", [LogisticRegression(max_iter=1), LinearSVM(max_iter=1), KernelSVM(max_iter=1, solver="torch")], ids=str
)
def test_many_that_do_not_converge(model):
    x, y = problem(60, n_classes=3)
    with pytest.warns(ConvergenceWarning) as caught:
        model.fit_many([x, x + 1], [y, y])
    assert [str(warning.message).split(":")[0] for warning in caught] == [
        f"{type(model).__name__} did not converge"
    ] * 2


@ALL
def test_many_that_choose_their_own_penalties(ours):
    x, y = problem(120, n_classes=3)
    data = [x + strength * y[:, None] for strength in (0.0, 0.3, 0.7, 2.0, 5.0)]
    settings = {"solver": "torch"} if ours is KernelSVM else {}
    model = ours(C=[1e-4, 1e-2, 1.0, 100.0], **settings)
    many = model.fit_many(data, [y] * 5)
    assert len({one.C_ for one in many}) > 1
    for one, rows in zip(many, data, strict=True):
        alone = type(model)(**model.get_params()).fit(rows, y)
        assert one.C_ == alone.C_
        np.testing.assert_allclose(one.decision_function(rows), alone.decision_function(rows), rtol=1e-6, atol=1e-4)


@ALL
def test_many_of_which_some_have_classes_of_one_row(ours):
    x, _ = problem(41)
    few, fewer = np.r_[np.zeros(25, int), np.ones(15, int), 2], np.r_[np.zeros(39, int), 1, 2]
    settings = {"solver": "torch"} if ours is KernelSVM else {}
    many = ours(C=[0.01, 1.0, 100.0], **settings).fit_many([x + few[:, None], x], [few, fewer])
    for one, (rows, labels) in zip(many, ((x + few[:, None], few), (x, fewer)), strict=True):
        alone = ours(C=[0.01, 1.0, 100.0], **settings).fit(rows, labels)
        assert (one.C_, one.n_folds_) == (alone.C_, alone.n_folds_)
        np.testing.assert_allclose(one.cv_accuracies_, alone.cv_accuracies_, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.parametrize("grid", [1.0, [0.01, 1.0, 100.0]], ids=["one", "searched"])
@pytest.mark.parametrize(
    "kind", [LogisticRegression, OneVsRestLogisticRegression, LinearSVM, KernelSVM, KernelLeastSquares]
)
def test_cuda_fits_many_as_the_cpu_does(kind, grid):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (4, 45), generator=generator)
    y[:, :6] = torch.arange(6) % 3
    x = torch.randn(4, 45, 5, generator=generator, dtype=torch.float64) + y[..., None]
    many = kind(C=grid).fit_many(x.cuda(), y.cuda())
    here = kind(C=grid, device="cpu").fit_many(x, y)
    assert len(many) == 4
    for there, want, rows in zip(many, here, x, strict=True):
        found = there.decision_function(rows.cuda())
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), want.decision_function(rows), rtol=1e-3, atol=1e-4)
        assert there.predict(rows.cuda()).cpu().equal(want.predict(rows))
    arrays = kind(C=grid, device="cuda").fit_many(x.numpy(), y.numpy())
    np.testing.assert_allclose(
        arrays[3].decision_function(x[3].numpy()), here[3].decision_function(x[3]), rtol=1e-3, atol=1e-4
    )
