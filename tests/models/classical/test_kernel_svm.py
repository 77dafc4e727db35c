import pickle
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from tests.contracts import WEIGHTS_SEARCHES, check_name, scikit_learn_checks
from tests.real_data import DENSE, real_data
from torchal import ActiveLearner, Pool
from torchal.errors import CapabilityError, ConfigError
from torchal.models import KernelLeastSquares, KernelSVM
from torchal.models.classical import kernel, svm_pairs
from torchal.samplers import Entropy, Margin

GRID = [10.0**i for i in range(-4, 5)]
BOTH = pytest.mark.parametrize("solver", ["auto", "torch"])


CHECKS = [
    *scikit_learn_checks(KernelSVM(), without=["dense"]),
    *scikit_learn_checks(KernelSVM(gamma=0.1, tol=1e-10)),
    *scikit_learn_checks(KernelSVM(gamma=0.1, tol=1e-10, solver="torch")),
    *scikit_learn_checks(KernelSVM(C=[0.1, 1.0]), without=["dense"]),
]


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=check_name)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def dual_objective(model):
    """Return what a two-class machine minimises, from its coefficients."""
    coef, rows = model.dual_coef_[0], model.support_vectors_
    gamma = getattr(model, "gamma_", None) or model._gamma
    kernel = np.exp(-gamma * ((rows[:, None] - rows[None]) ** 2).sum(2))
    return coef @ kernel @ coef / 2 - np.abs(coef).sum()


@BOTH
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("source", DENSE)
def test_the_optimum_on_real_data(source, weighted, solver):
    (x, y), (x_test, _) = real_data(source, 150, 1000)
    weights = np.random.default_rng(1).uniform(0.2, 3, len(y)) if weighted else None
    for C, gamma in ((1.0, "scale"), (100.0, "auto"), (10.0, 0.1)):
        ours = KernelSVM(C=C, gamma=gamma, tol=1e-8, solver=solver).fit(x, y, sample_weight=weights)
        theirs = SVC(C=C, gamma=gamma, tol=1e-8).fit(x, y, sample_weight=weights)
        assert ours.gamma_ == pytest.approx(theirs._gamma)
        assert ours.intercept_.shape == theirs.intercept_.shape
        if len(ours.classes_) == 2:
            assert dual_objective(ours) == pytest.approx(dual_objective(theirs), rel=1e-5)
        assert (ours.predict(x_test) == theirs.predict(x_test)).mean() >= 0.995
        # a pair whose rows are all at their bounds has no one intercept
        close = np.isclose(ours.decision_function(x_test), theirs.decision_function(x_test), atol=1e-4)
        assert close.mean() >= 0.97


@BOTH
def test_the_search_is_that_of_grid_search_cv(solver):
    for source, n_rows in (("letter", 300), ("australian", 150), ("waveform", 120)):
        ((x, y),) = real_data(source, n_rows, seed=2)
        kept = np.isin(y, [label for label in np.unique(y) if (y == label).sum() >= 3])
        x, y = x[kept], y[kept]
        weights = (
            np.random.default_rng(1).uniform(0.2, 3, len(y)) if source == "waveform" and WEIGHTS_SEARCHES else None
        )
        grid = GRID[2:-2]
        search = GridSearchCV(SVC(), {"C": grid}, cv=3).fit(x, y, sample_weight=weights)
        ours = KernelSVM(C=grid, solver=solver).fit(x, y, sample_weight=weights)
        assert search.best_params_["C"] == ours.C_
        np.testing.assert_allclose(ours.cv_accuracies_, search.cv_results_["mean_test_score"], atol=0.01)


def test_a_solution_that_no_c_limits_is_not_looked_for_again(monkeypatch):
    fits = []
    whole = SVC.fit
    monkeypatch.setattr(SVC, "fit", lambda self, *args, **kwargs: fits.append(self.C) or whole(self, *args, **kwargs))
    x = np.concatenate(
        [np.random.default_rng(0).normal(size=(30, 2)), np.random.default_rng(1).normal(size=(30, 2)) + 5]
    )
    y = np.arange(60) // 30
    model = KernelSVM(C=GRID).fit(x, y)
    assert len(fits) < 3 * len(GRID)
    assert max(fits) < GRID[-1]
    torch_too = KernelSVM(C=GRID, solver="torch").fit(x, y)
    np.testing.assert_allclose(torch_too.cv_accuracies_, model.cv_accuracies_)
    for C in (1e3, 1e4):
        one, other = (KernelSVM(C=C, tol=1e-8, solver=solver).fit(x, y) for solver in ("auto", "torch"))
        np.testing.assert_allclose(one.decision_function(x), other.decision_function(x), atol=1e-6)


@pytest.mark.parametrize(("C", "steps"), [(1e4, None), (1e6, None), (10.0, 5)], ids=str)
def test_what_libsvm_leaves_is_solved_to_tol(C, steps, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 6)) * 10.0 ** np.arange(-3, 3), rng.integers(0, 3, 200)
    if steps:
        monkeypatch.setattr(svm_pairs, "_LIBSVM_STEPS", steps)
    calls = []
    whole = svm_pairs.by_interior_point
    monkeypatch.setattr(
        svm_pairs, "by_interior_point", lambda *args, pairs: calls.append(len(pairs)) or whole(*args, pairs=pairs)
    )
    for weights in (None, rng.uniform(0.2, 3, 200)):
        calls.clear()
        auto = KernelSVM(C=C, gamma=1e-4).fit(x, y, sample_weight=weights)  # a ConvergenceWarning would be an error
        assert sum(calls) > 0
        assert (auto.n_iter_ > (steps or 0)).all()  # of both methods together
        exact = KernelSVM(C=C, gamma=1e-4, solver="torch", tol=1e-6).fit(x, y, sample_weight=weights)
        pairs, others = (model.module_(torch.tensor(x)) for model in (auto, exact))
        for first, second in ((0, 1), (0, 2), (1, 2)):
            best = dual_objective_of(exact, first, second)
            # what tol allows: coefficients sum up to this, and each may gain tol
            assert dual_objective_of(auto, first, second) <= best + 1e-4 * C * 200
            assert dual_objective_of(auto, first, second) == pytest.approx(best, rel=1e-4)
        assert ((pairs > 0) == (others > 0)).double().mean() >= 0.99
    with pytest.warns(ConvergenceWarning, match="the rows of 3 of 3 pairs"):
        KernelSVM(C=C, gamma=1e-4, max_iter=1).fit(x, y)


def dual_objective_of(model, first, second):
    """Return what the machine of a pair of classes minimises."""
    module = model.module_
    kernel = torch.exp(-module.gamma * torch.cdist(module.support, module.support).square())
    coef = torch.where(module.codes == first, module.weight[second - 1], 0)
    coef = coef + torch.where(module.codes == second, module.weight[first], 0)
    return float((coef @ kernel @ coef / 2 - coef.abs().sum()).detach())


@BOTH
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_attributes_are_those_of_svc(n_classes, solver):
    ((x, y),) = real_data("digits", 300)
    x, y = x[y < n_classes], y[y < n_classes]
    ours, theirs = (model(C=0.5, tol=1e-8).fit(x, y) for model in (partial(KernelSVM, solver=solver), SVC))
    order = np.argsort(theirs.support_)  # SVC lists rows by class
    np.testing.assert_array_equal(ours.support_vectors_, x[theirs.support_[order]])
    np.testing.assert_allclose(ours.dual_coef_, theirs.dual_coef_[:, order], atol=1e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)


def test_what_no_penalty_limits_is_judged_by_the_weights_too():
    ((x, y),) = real_data("australian", 60)
    codes = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    task = svm_pairs.Task(torch.from_numpy(x), codes, torch.full((60,), 0.01, dtype=torch.float64), 0.1, 2)
    grid, limits = [1.0, 10.0, 100.0, 1e3, 1e4], svm_pairs.Limits(1e-8, 100)
    many = svm_pairs.by_libsvm(task, grid, limits)
    for i, C in enumerate(grid):
        torch.testing.assert_close(many.weight[i], svm_pairs.by_libsvm(task, [C], limits).weight[0], atol=1e-6, rtol=0)


def test_without_a_shared_kernel(monkeypatch):
    ((x, y),) = real_data("digits", 200)
    shared = KernelSVM(C=[1.0, 10.0], tol=1e-8).fit(x, y)
    monkeypatch.setattr(svm_pairs, "_WHOLE_KERNEL", 100)  # of fewer rows than all, and of more than those of a pair
    own = KernelSVM(C=[1.0, 10.0], tol=1e-8).fit(x, y)
    assert own.C_ == shared.C_
    np.testing.assert_allclose(own.decision_function(x), shared.decision_function(x), atol=1e-6)


def test_pairs_too_large_to_go_on_with_are_said_not_to_converge(monkeypatch):
    ((x, y),) = real_data("digits", 200)
    monkeypatch.setattr(svm_pairs, "_WHOLE_KERNEL", 10)
    with pytest.warns(ConvergenceWarning, match="the rows of [1-9][0-9]* of 45 pairs"):
        model = KernelSVM(tol=1e-12).fit(x, y)
    np.testing.assert_array_equal(model.predict(x), SVC().fit(x, y).predict(x))


@BOTH
def test_votes_and_confidences_are_those_of_svc(solver):
    (x, y), (x_test, _) = real_data("digits", 300, 1000)
    ours = KernelSVM(tol=1e-8, solver=solver).fit(x, y)
    theirs = SVC(tol=1e-8).fit(x, y)
    np.testing.assert_array_equal(ours.predict(x_test), theirs.predict(x_test))
    np.testing.assert_allclose(ours.decision_function(x_test), theirs.decision_function(x_test), atol=1e-5)
    pairs = ours.module_(torch.tensor(x_test)).detach().numpy()
    theirs.decision_function_shape = "ovo"
    np.testing.assert_allclose(pairs, -theirs.decision_function(x_test), atol=1e-5)
    assert not hasattr(ours, "predict_proba")
    assert not hasattr(ours, "predict_log_proba")


def test_the_module_works_elsewhere():
    ((x, y),) = real_data("digits", 100)
    model = KernelSVM().fit(x, y)
    rows = torch.tensor(x[:5], requires_grad=True)
    torch.nn.Sequential(model.module_, torch.nn.Linear(45, 2).double())(rows).sum().backward()
    assert rows.grad.abs().sum() > 0
    assert set(model.module_.state_dict()) == {"support", "gamma", "codes", "weight", "bias"}
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.decision_function(x), model.decision_function(x))


@pytest.mark.parametrize("source", ["australian", "splice"])
def test_the_margin_picks_as_with_svc(source):
    ((x, y),) = real_data(source, 500)
    targets = torch.from_numpy(np.unique(y, return_inverse=True)[1])
    models = [
        SVC(tol=1e-6),
        KernelSVM(tol=1e-6),
        KernelSVM(tol=1e-6, solver="torch"),
    ]
    picks = []
    for model in models:
        learner = ActiveLearner(model, Margin(), Pool.unlabeled(torch.from_numpy(x), n_classes=2), seed=0)
        start = torch.cat([(targets == code).nonzero()[:5, 0] for code in (0, 1)])
        learner.tell(start, targets[start])
        asked = []
        for _ in range(50):
            asked.append(int(learner.ask(1)))
            learner.tell(torch.tensor(asked[-1:]), targets[asked[-1:]])
        picks.append(asked)
    assert picks[1] == picks[0]
    assert picks[2] == picks[0]


def test_entropy_needs_probabilities():
    pool = Pool.unlabeled(torch.rand(9, 2), n_classes=2)
    with pytest.raises(CapabilityError, match="Entropy needs a model with predict_proba; KernelSVM has none"):
        ActiveLearner(KernelSVM(), Entropy(), pool)


@BOTH
@pytest.mark.parametrize("C", [1.0, [0.1, 10.0]])
def test_many_at_once_as_each_alone(C, solver):
    ((x, y),) = real_data("digits", 240)
    x, y = x.reshape(4, 60, -1), y.reshape(4, 60).copy()
    y[1] %= 2
    y[2][y[2] == 7] = 8
    many = KernelSVM(C=C, tol=1e-9, solver=solver).fit_many(x, y)
    for model, rows, labels in zip(many, x, y, strict=True):
        alone = KernelSVM(C=C, tol=1e-9, solver=solver).fit(rows, labels)
        assert (model.C_, model.n_folds_, model.gamma_) == (alone.C_, alone.n_folds_, alone.gamma_)
        np.testing.assert_array_equal(model.classes_, alone.classes_)
        np.testing.assert_allclose(model.decision_function(x[0]), alone.decision_function(x[0]), rtol=1e-6, atol=1e-6)


HARD = {
    "separable": (np.array([[-1.0], [-0.5], [0.5], [1.0]]), np.array([0, 0, 1, 1])),
    "duplicate rows": (np.repeat([[0.0, 1.0], [1.0, 0.0]], 20, 0), np.arange(40) % 3),
    "one feature": (np.random.default_rng(0).normal(size=(50, 1)), np.arange(50) % 4),
    "wide": (np.random.default_rng(0).normal(size=(12, 300)), np.arange(12) % 3),
    "scales": (np.random.default_rng(0).normal(size=(60, 8)) * 10.0 ** np.arange(-4, 4), np.arange(60) % 3),
    "only constants": (np.ones((9, 2)), np.arange(9) % 3),
    "two rows": (np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 1])),
    "far off": (np.random.default_rng(0).normal(size=(60, 3)) + 1e5, np.arange(60) % 3),
    "one of a class": (np.random.default_rng(0).normal(size=(41, 3)), (np.arange(41) == 7).astype(int)),
}


@BOTH
@pytest.mark.parametrize("C", [1e-4, 1.0, 1e4, GRID[::2]], ids=str)
@pytest.mark.parametrize("case", HARD)
def test_hard_problems_converge(case, C, solver):
    x, y = HARD[case]
    model = KernelSVM(C=C, solver=solver).fit(x, y)  # a ConvergenceWarning would be an error
    assert np.isfinite(model.decision_function(x)).all()
    assert model.predict(x).shape == y.shape


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(4, 25),
    d=st.integers(1, 5),
    n_classes=st.integers(2, 4),
    log_c=st.floats(-3, 3),
    seed=st.integers(0, 2**16),
    solver=st.sampled_from(["auto", "torch"]),
)
def test_random_problems(n, d, n_classes, log_c, seed, solver):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)).round(1), np.r_[np.arange(n_classes), rng.integers(0, n_classes, n)][:n]
    weights = np.r_[np.ones(n_classes), rng.integers(0, 3, n)][:n].astype(float)
    names = np.array(["d", "b", "c", "a"])
    C, gamma = 10**log_c, 0.5
    ours = KernelSVM(C=C, gamma=gamma, tol=1e-8, solver=solver).fit(x, names[y], sample_weight=weights)
    kept = weights > 0
    theirs = SVC(C=C, gamma=gamma, tol=1e-8).fit(x[kept], names[y[kept]], sample_weight=weights[kept])
    assert list(ours.classes_) == sorted(set(names[y]))
    codes = np.searchsorted(theirs.classes_, names[y[kept]])
    rows = x[kept]
    for first in range(len(theirs.classes_)):
        for second in range(first + 1, len(theirs.classes_)):
            pair = (codes == first) | (codes == second)
            alone = SVC(C=C, gamma=gamma, tol=1e-8).fit(rows[pair], codes[pair], sample_weight=weights[kept][pair])
            best = dual_objective(alone)
            assert dual_objective_of(ours, first, second) == pytest.approx(best, rel=1e-6, abs=1e-9)


@BOTH
def test_a_class_without_weight_gets_no_votes(solver):
    ((x, y),) = real_data("digits", 200)
    x, y = x[y < 3], y[y < 3]
    for left_out in range(3):
        weights = (y != left_out).astype(float)
        model = KernelSVM(C=[0.1, 1.0], solver=solver).fit(x, y, sample_weight=weights)
        alone = KernelSVM(C=model.C_, solver=solver).fit(x[y != left_out], y[y != left_out])
        assert list(model.classes_) == [0, 1, 2]
        assert (model.predict(x[y != left_out]) == alone.predict(x[y != left_out])).all()
        assert model.cv_accuracies_.max() > 0.9


def test_predictions_for_many_classes_come_in_chunks(monkeypatch):
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = KernelSVM().fit(x, torch.arange(200) % 40)
    expected = model.decision_function(x)
    monkeypatch.setattr(kernel, "values_per_chunk", lambda device: 40 * 39 * 7)
    sizes = []
    whole = kernel.pair_values
    monkeypatch.setattr(kernel, "pair_values", lambda *parts: sizes.append(len(parts[0])) or whole(*parts))
    torch.testing.assert_close(model.decision_function(x), expected)
    assert max(sizes) == 7


def test_global_generators_stay():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    KernelSVM(C=[1.0, 2.0]).fit(np.arange(8.0).reshape(-1, 1), np.arange(8) % 2)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_warns_when_not_converged():
    ((x, y),) = real_data("digits", 100)
    with pytest.warns(ConvergenceWarning, match="KernelSVM did not converge: the rows of 45 of 45 pairs of classes"):
        KernelSVM(solver="torch", max_iter=2).fit(x, y)


@pytest.mark.parametrize(
    "setting", [{"C": -1.0}, {"gamma": 0}, {"gamma": "big"}, {"gamma": None}, {"solver": "smo"}, {"tol": 0}], ids=str
)
def test_impossible_settings(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        KernelSVM(**setting).fit([[0.0], [1.0]], [0, 1])


@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu():
    (x, y), (x_test, _) = real_data("digits", 200, 500)
    there = KernelSVM(C=GRID[3:6], tol=1e-8).fit(torch.tensor(x).cuda(), torch.tensor(y).cuda())
    here = KernelSVM(C=GRID[3:6], tol=1e-8, device="cpu").fit(x, y)
    assert there.C_ == here.C_
    assert there.module_.support.is_cuda
    np.testing.assert_allclose(there.decision_function(x_test), here.decision_function(x_test), atol=1e-5)


@pytest.mark.parametrize("model", [KernelSVM, KernelLeastSquares])
class TestAKernelThatTellsNothing:
    def problem(self):
        x = torch.randn(80, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return x, (x[:, 0] > 0).long()

    def test_rows_that_know_themselves_only_are_warned_of(self, model):
        x, y = self.problem()
        with pytest.warns(UserWarning, match="the kernel is below 2e-16 between any two rows that differ"):
            fitted = model(gamma=1.0).fit(x * 1e3, y)
        fresh = torch.randn(10, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e3
        assert (fitted.decision_function(fresh) == fitted.decision_function(fresh)[0]).all()  # what is warned of

    def test_rows_that_look_all_alike_are_warned_of(self, model):
        x, y = self.problem()
        with pytest.warns(UserWarning, match="the kernel is 1 to 10 digits between 100% of the rows that differ"):
            model(gamma=1e-13).fit(x, y)

    def test_copies_and_ordinary_rows_are_not(self, model):
        x, y = self.problem()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model(gamma="scale").fit(x * 1e3, y)
            model(gamma=1.0).fit(torch.cat([x, x]), torch.cat([y, y]))


def test_one_value_far_off_spoils_the_width_and_is_warned_of():
    x = torch.randn(80, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = (x[:, 0] > 0).long()
    x[0, 1] = 1e9
    with pytest.warns(UserWarning, match="one value far off spoils gamma='scale'"):
        KernelSVM().fit(x, y)
