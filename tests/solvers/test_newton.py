from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import linear as reference
from torchal.models.sparse import as_csr
from torchal.solvers import array_newton, linear_rows, newton, preconditioner
from torchal.solvers.newton import LinearSolver

LOSSES = ["softmax", "logistic", "squared_hinge"]
INTERCEPTS = ["none", "free", "penalized"]
KINDS = ["plain", "constant column", "duplicate rows", "separable", "scales", "far off", "nearly equal columns"]

each_loss = pytest.mark.parametrize("loss", LOSSES)
each_intercept = pytest.mark.parametrize("intercept", INTERCEPTS)


class Problems(NamedTuple):
    """Shapes: x (T, n, D), targets (T, n, U or 1, K), weights (T, n, U)."""

    x: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    loss: str
    intercept: str

    def trial(self, i):
        return self._replace(x=self.x[i : i + 1], targets=self.targets[i : i + 1], weights=self.weights[i : i + 1])

    def problem(self, u):
        targets = self.targets if self.targets.shape[2] == 1 else self.targets[:, :, u : u + 1]
        return self._replace(targets=targets, weights=self.weights[:, :, u : u + 1])

    def one_by_one(self):
        for i in range(len(self.x)):
            for u in range(self.weights.shape[2]):
                yield (i, u), self.trial(i).problem(u)

    def arguments(self):
        """Return the rows, targets and weights of the only problem, for the reference."""
        return self.x[0], self.targets[0, :, 0], self.weights[0, :, 0]

    @property
    def settings(self):
        return {"loss": self.loss, "intercept": self.intercept}


def make(seed, *, loss, intercept, kind="plain", shape=(1, 12, 4), n_problems=1, heavy=False, shared=True):
    """Draw problems in which each class has a row that counts, and about one row in five does not."""
    rng = np.random.default_rng(seed)
    n_outputs = 3 if loss == "softmax" else 1
    n_classes = max(n_outputs, 2)
    n_trials, n_rows, n_columns = shape
    x = rng.normal(size=shape)
    codes = rng.integers(0, n_classes, (n_trials, n_rows, 1 if shared else n_problems))
    codes[:, :n_classes] = np.arange(n_classes)[:, None]
    if kind == "constant column":
        x[..., rng.integers(n_columns)] = rng.choice([-7, 1, 1e3])
    elif kind == "duplicate rows":
        x[:, n_rows // 2 :] = x[:, : n_rows - n_rows // 2].copy()
    elif kind == "separable":
        x[..., 0] += 5 * codes[..., 0]
    elif kind == "scales":
        x *= 10 ** rng.uniform(-4, 3, n_columns)
    elif kind == "far off":
        x += 100
    elif kind == "nearly equal columns":
        x = x[..., :1] * (1 + 1e-6 * x)
    weights = 10 ** rng.uniform(-1, 0, (n_trials, n_rows, n_problems)) * (1e4 if heavy else 10)
    weights[:, n_classes:] *= rng.random((n_trials, n_rows - n_classes, n_problems)) < 0.8
    targets = np.eye(n_outputs)[codes] if n_outputs > 1 else codes[..., None].astype(float)
    return Problems(x, targets, weights, loss, intercept)


def inner(solver):
    """Return what has solved: the solver, or its form on arrays."""
    return solver if solver._arrays is None else solver._arrays


class Solved(NamedTuple):
    """Shapes: coef (T, U, K, D), intercept (T, U, K), logits (T, n, U, K); those of a softmax without their shift."""

    coef: torch.Tensor
    intercept: torch.Tensor
    logits: torch.Tensor
    n_steps: torch.Tensor
    gap: torch.Tensor
    theta: torch.Tensor
    solver: LinearSolver

    def theta_of(self, where, intercept):
        coef = self.coef[where].numpy()
        return coef if intercept == "none" else np.c_[coef, self.intercept[where].numpy()]


def centred(values, loss, dim=-1):
    return values - values.mean(dim, keepdim=True) if loss == "softmax" else values


def solve(problems, *, x=None, solver=None, max_iter=100, tol=1e-10, starts=()):
    x = torch.as_tensor(problems.x if x is None else x)
    solver = solver or LinearSolver(x, max_iter=max_iter, **problems.settings)
    targets, weights = torch.from_numpy(problems.targets), torch.from_numpy(problems.weights)
    solution = solver.solve(targets, weights, tol=tol, starts=starts)
    coef, intercept = solver.coefficients(solution.theta)
    logits = centred(solution.logits, problems.loss)
    return Solved(
        coef, centred(intercept, problems.loss), logits, solution.n_steps, solution.gap, solution.theta, solver
    )


def solve_sparse(problems, **kept):
    return solve(problems, x=as_csr(scipy.sparse.csr_array(problems.x[0])), **kept)


def assert_near(got, want, rel, floor=1e-9):
    """Compare with the largest number for the measure."""
    got, want = torch.as_tensor(got), torch.as_tensor(want)
    assert got.shape == want.shape
    assert float((got - want).abs().max()) <= rel * float(want.abs().max()) + floor


def assert_alike(got, want, rel=1e-6):
    for name in ("coef", "intercept", "logits"):
        assert_near(getattr(got, name), getattr(want, name), rel)


def assert_optimal(problems, solved, rel):
    for where, one in problems.one_by_one():
        best = reference.solve(*one.arguments(), **one.settings)
        theta = solved.theta_of(where, one.intercept)
        least = reference.objective(*one.arguments(), best, **one.settings)
        assert reference.objective(*one.arguments(), theta, **one.settings) <= least * (1 + 1e-9)
        if one.loss == "softmax":
            best = best - best.mean(0)
        # half the squared distance of the coefficients is what the objective, to its last digits, leaves open
        floor = 1e-7 * least**0.5
        assert_near(theta[:, : one.x.shape[2]], best[:, : one.x.shape[2]], rel, floor)
        rows = reference.columns(one.x[0], one.intercept)
        logits = solved.logits[where[0], :, where[1]]  # of all rows, those of weight 0 too
        assert_near(logits, rows @ best.T, rel, floor * np.abs(rows).max())
        assert_near(logits, rows @ theta.T, 1e-9)


def test_squared_hinge_by_hand():
    x = np.array([[[1.0], [-1.0]]])
    targets = np.array([[[[1.0]], [[0.0]]]])
    # c (1 - w)^2 + w^2 / 2 is least at 2 c / (2 c + 1), for the weight c of one row or of both together
    problems = Problems(x, targets, np.array([[[1.0, 0.5, 0.0], [0.0, 0.5, 4.5]]]), "squared_hinge", "none")
    solved = solve(problems)
    assert solved.coef.flatten().tolist() == pytest.approx([2 / 3, 2 / 3, 0.9])
    assert solved.intercept.tolist() == [[[0.0], [0.0], [0.0]]]
    assert solved.logits[0, :, :, 0].T.flatten().tolist() == pytest.approx([2 / 3, -2 / 3, 2 / 3, -2 / 3, 0.9, -0.9])
    # (1 - w - b)^2 + (w^2 + b^2) / 2 is least where both are 0.4
    solved = solve(Problems(x, targets, np.array([[[1.0], [0.0]]]), "squared_hinge", "penalized"))
    assert [float(solved.coef), float(solved.intercept)] == pytest.approx([0.4, 0.4])
    assert solved.logits.flatten().tolist() == pytest.approx([0.8, 0.0], abs=1e-9)


def test_logistic_by_hand():
    # at w = log 3 each row is right with probability 3/4, so that the slope is w - 2 c / 4
    problems = Problems(
        np.array([[[11.0], [9.0]]]),
        np.array([[[[1.0]], [[0.0]]]]),
        np.full((1, 2, 1), 2 * np.log(3)),
        "logistic",
        "free",
    )
    solved = solve(problems)
    assert [float(solved.coef), float(solved.intercept)] == pytest.approx([np.log(3), -10 * np.log(3)])
    assert solved.logits.flatten().tolist() == pytest.approx([np.log(3), -np.log(3)])


def test_softmax_by_hand():
    # rows that cannot be told apart: the free intercepts are the logarithms of the classes' shares
    problems = Problems(
        np.full((1, 4, 2), 3.0), np.eye(3)[[0, 0, 1, 2]][None, :, None], np.ones((1, 4, 1)), "softmax", "free"
    )
    solved = solve(problems)
    assert solved.coef.abs().max() < 1e-9
    shares = torch.log(torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64))
    assert torch.allclose(solved.intercept[0, 0], shares - shares.mean(), atol=1e-6)
    assert torch.allclose(solved.theta.sum(2), torch.zeros(1, 1, 3, dtype=torch.float64), atol=1e-9)


@each_intercept
@each_loss
def test_agrees_with_the_reference(loss, intercept):
    shapes = st.tuples(st.integers(1, 3), st.integers(4, 14), st.integers(1, 18))

    @settings(max_examples=16, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        kind=st.sampled_from(KINDS),
        shape=shapes,
        n_problems=st.integers(1, 3),
        heavy=st.booleans(),
        shared=st.booleans(),
    )
    def check(heavy, **drawn):
        problems = make(**drawn, heavy=heavy, loss=loss, intercept=intercept)
        solved = solve(problems)
        is_solved = bool((solved.gap <= 1e-10).all())
        assert is_solved or heavy  # what is separable at 10^4 may end where float64 does, and says so
        if not is_solved:
            return
        # large weights leave directions in which the objective is flat to as many digits as were asked for
        assert_optimal(problems, solved, 1e-3 if heavy else 1e-6)

    check()


@each_intercept
@each_loss
def test_together_as_one_at_a_time(loss, intercept):
    for kind in KINDS[::2]:
        problems = make(3, loss=loss, intercept=intercept, kind=kind, shape=(3, 14, 5), n_problems=3, shared=False)
        together = solve(problems)
        for (i, u), one in problems.one_by_one():
            alone = solve(one)
            assert_near(together.coef[i, u], alone.coef[0, 0], 1e-6)
            assert_near(together.intercept[i, u], alone.intercept[0, 0], 1e-6)
            assert_near(together.logits[i, :, u], alone.logits[0, :, 0], 1e-6)


@pytest.mark.parametrize("n_trials", [1, 2])
@each_loss
def test_a_finished_problem_leaves_the_others_alone(loss, n_trials):
    problems = make(0, loss=loss, intercept="free", kind="separable", shape=(n_trials, 30, 3), n_problems=5)
    strength = 10.0 ** np.array([[-6, 4, -2, 2, 0], [4, -6, 0, -2, 3]])[:n_trials, None]
    problems = problems._replace(weights=problems.weights * strength)
    solved = solve(problems)
    assert len(solved.n_steps[0].unique()) >= 3
    assert bool((solved.gap <= 1e-10).all())
    assert_optimal(problems, solved, 1e-5)


@each_intercept
@each_loss
def test_a_problem_without_rows_leaves_the_others_alone(loss, intercept):
    problems = make(0, loss=loss, intercept=intercept, n_problems=3)
    problems.weights[:, :, 1] = 0
    solved = solve(problems)
    assert_near(solved.coef[:, 1], torch.zeros_like(solved.coef[:, 1]), 0)
    for u in (0, 2):
        assert_near(solved.coef[0, u], solve(problems.problem(u)).coef[0, 0], 1e-6)


@each_intercept
@each_loss
def test_starts(loss, intercept):
    problems = make(5, loss=loss, intercept=intercept, shape=(2, 20, 4), n_problems=3)
    solver = LinearSolver(torch.from_numpy(problems.x), max_iter=100, **problems.settings)
    want = solve(problems, solver=solver)
    paths = [solve(problems._replace(weights=problems.weights * c), solver=solver).theta for c in (0.1, 0.9)]
    others = [[paths[0]], paths, [*paths, torch.lerp(*paths, 1.05)], [want.theta], [paths[0], want.theta, paths[1]]]
    for starts in others:
        kept = [start.clone() for start in starts]
        got = solve(problems, solver=solver, starts=starts)
        assert_alike(got, want)
        assert bool((got.gap <= 1e-10).all())
        assert all(a.equal(b) for a, b in zip(starts, kept, strict=True))
        if any(start is want.theta for start in starts):  # found among others, problem by problem
            assert got.n_steps.eq(1).all()
    mixed = torch.where(torch.tensor([True, False, True])[:, None, None], want.theta, paths[0])
    other = torch.where(torch.tensor([True, False, True])[:, None, None], paths[0], want.theta)
    assert solve(problems, solver=solver, starts=[mixed, other]).n_steps.eq(1).all()


@each_intercept
@each_loss
def test_sparse_as_dense(loss, intercept):
    @settings(max_examples=8, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        shape=st.tuples(st.just(1), st.integers(4, 25), st.integers(1, 30)),
        n_problems=st.integers(1, 3),
        shared=st.booleans(),
    )
    def check(seed, **drawn):
        problems = make(seed, **drawn, loss=loss, intercept=intercept)
        x = problems.x * (np.random.default_rng(seed).random(problems.x.shape) < 0.3)  # empty rows and columns too
        problems = problems._replace(x=x)
        got = solve_sparse(problems)
        assert_alike(got, solve(problems))
        assert bool((got.gap <= 1e-10).all())

    check()


@each_loss
def test_max_iter_is_kept(loss):
    problems = make(0, loss=loss, intercept="free", kind="separable", shape=(2, 30, 3), n_problems=2, heavy=True)
    one = solve(problems, max_iter=1)
    assert one.n_steps.tolist() == [[1, 1], [1, 1]]
    assert bool((one.gap > 1e-10).all())
    for n_steps in (2, 3):
        assert solve(problems, max_iter=n_steps).n_steps.max() == n_steps
    enough = solve(problems)
    assert enough.n_steps.min() > 1
    assert enough.n_steps.max() < 100


@each_loss
def test_the_gap_is_about_the_distance_before_the_last_step(loss):
    problems = make(1, loss=loss, intercept="none", shape=(1, 30, 3))
    arguments = problems.arguments()

    def reached(solved):
        return reference.objective(*arguments, solved.theta_of((0, 0), "none"), **problems.settings)

    least = reached(solve(problems, tol=1e-14))
    steps = int(solve(problems).n_steps)
    before, last = (solve(problems, max_iter=n, tol=0) for n in (steps - 1, steps))
    assert float(last.gap) == pytest.approx(reached(before) / least - 1, rel=0.3, abs=1e-13)
    assert reached(last) <= least * (1 + 1e-12)


@each_intercept
@each_loss
@pytest.mark.parametrize("size", [1e160, 1e200, 1e300])
def test_numbers_beyond_float64_do_not_pass_for_converged(loss, intercept, size):
    problems = make(0, loss=loss, intercept=intercept, n_problems=2)
    solved = solve(problems._replace(x=problems.x * size))
    assert not bool((solved.gap <= 1e-10).any())
    assert bool(solved.theta.isfinite().all())


@each_loss
def test_numbers_beyond_float32_converge(loss):
    problems = make(2, loss=loss, intercept="none", shape=(1, 40, 3))
    want = solve(problems._replace(x=problems.x * 1e8))  # where the penalty does not count any more
    got = solve(problems._replace(x=problems.x * 1e60))
    assert inner(got.solver)._precision > 0
    assert bool((got.gap <= 1e-10).all())
    assert_near(got.logits, want.logits, 1e-6)
    assert_near(got.coef * 1e60, want.coef * 1e8, 1e-6)


@each_intercept
@each_loss
def test_directions_for_which_float32_is_not_enough(loss, intercept):
    problems = make(0, loss=loss, intercept=intercept, shape=(1, 30, 2))
    x = problems.x[..., :1] * 1e6 * (1 + 1e-7 * problems.x)  # two columns alike to float32
    problems = problems._replace(x=np.concatenate([x, problems.x], 2))
    solved = solve(problems)
    assert inner(solved.solver)._precision > 0
    assert bool((solved.gap <= 1e-10).all())
    assert_optimal(problems, solved, 1e-5)
    easy = make(0, loss=loss, intercept=intercept, shape=(1, 30, 2))
    assert inner(solve(easy).solver)._precision == 0


@pytest.mark.parametrize("n_trials", [1, 2])
def test_the_whole_hessian_where_it_pays(n_trials):
    # a small loss, far from where the outputs' own Hessians are all there is
    problems = make(0, loss="softmax", intercept="free", kind="separable", shape=(n_trials, 60, 6), n_problems=3)
    solved = solve(problems)
    assert inner(solved.solver)._full is not None
    assert bool((solved.gap <= 1e-10).all())
    assert_optimal(problems, solved, 1e-5)
    again = solve(problems._replace(weights=problems.weights / 3), solver=solved.solver)
    assert_alike(again, solve(problems._replace(weights=problems.weights / 3)), 1e-5)


@each_intercept
@each_loss
@pytest.mark.parametrize("size", [1, 64])
def test_the_whole_hessian_is_the_references(loss, intercept, size, monkeypatch):
    monkeypatch.setattr(linear_rows, "values_per_chunk", lambda device: size)
    problems = make(4, loss=loss, intercept=intercept, shape=(2, 11, 3), n_problems=2, shared=False)
    solver = LinearSolver(torch.from_numpy(problems.x), max_iter=1, **problems.settings)
    n_outputs, n_columns = problems.targets.shape[3], solver._rows.n_columns
    theta = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 2, n_outputs, n_columns)))
    targets, weights = torch.from_numpy(problems.targets), torch.from_numpy(problems.weights)
    slope, curvature = solver._loss.derivatives(solver._logits(solver._rows, theta), targets, weights)
    got = curvature.hessian(solver._rows).numpy()
    for (i, u), one in problems.one_by_one():
        x = one.x[0] - one.x[0].mean(0) if intercept == "free" else one.x[0]  # the solver's own columns
        gradient, hessian = reference.derivatives(x, *one.arguments()[1:], theta[i, u].numpy(), **one.settings)
        penalty = np.tile(reference.penalty(n_columns, intercept), n_outputs)
        pulled = solver._pull(solver._rows, slope)[i, u].flatten().numpy()
        np.testing.assert_allclose(pulled + penalty * theta[i, u].flatten().numpy(), gradient, rtol=1e-9)
        added = got[i, u] - (hessian - np.diag(penalty))
        last = np.arange(n_columns - 1, len(penalty), n_columns)
        if loss == "softmax":  # the last columns of all outputs have what keeps their shift from being flat
            corner = added[np.ix_(last, last)]
            np.testing.assert_allclose(corner.sum(0), got[i, u][np.ix_(last, last)].sum(0), atol=1e-9)
            assert np.linalg.eigvalsh(corner).min() >= -1e-9
            added[np.ix_(last, last)] = 0
        assert np.abs(added).max() <= 1e-9


@pytest.mark.parametrize("kind", ["own", "mean", "whole", "diagonal"])
@each_intercept
@each_loss
def test_any_preconditioner_leads_to_the_optimum(loss, intercept, kind, monkeypatch):
    for module in (newton, array_newton):
        monkeypatch.setattr(module, "OWN_HESSIAN", 128 if kind == "own" else 0)
        monkeypatch.setattr(module, "whole_hessian_pays", lambda *arguments: kind == "whole")
    monkeypatch.setattr(newton, "GRAM_COLUMNS", 0 if kind == "diagonal" else 4096)
    for seed, shape in enumerate([(2, 16, 3), (1, 16, 5), (2, 6, 9)]):
        problems = make(seed, loss=loss, intercept=intercept, shape=shape, n_problems=3)
        solved = solve(problems)
        assert (inner(solved.solver)._full is not None) == (kind == "whole")
        assert_optimal(problems, solved, 1e-6)


@each_intercept
@pytest.mark.parametrize("loss", ["logistic", "squared_hinge"])
def test_more_columns_than_have_a_hessian_each(loss, intercept):
    problems = make(0, loss=loss, intercept=intercept, kind="scales", shape=(1, 150, 140), n_problems=2)
    solved = solve(problems)
    assert solved.solver._rows.n_columns > preconditioner.OWN_HESSIAN
    assert_optimal(problems, solved, 1e-6)


def test_more_columns_than_have_a_hessian_each_softmax():
    problems = make(0, loss="softmax", intercept="free", shape=(1, 135, 130))
    assert_optimal(problems, solve(problems), 1e-6)


@each_intercept
@each_loss
def test_chunks_change_nothing(loss, intercept, monkeypatch):
    for shape in [(2, 40, 7), (1, 40, 20), (1, 9, 40)]:
        problems = make(6, loss=loss, intercept=intercept, shape=shape, n_problems=2)
        monkeypatch.undo()
        want = solve(problems)
        monkeypatch.setattr(linear_rows, "values_per_chunk", lambda device: 64)
        for module in (newton, array_newton):
            monkeypatch.setattr(module, "whole_hessian_pays", lambda *arguments: True)
        assert_alike(solve(problems), want)


@pytest.mark.parametrize("n_problems", [1, 3])
def test_sums_of_outer_products(n_problems, monkeypatch):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 23, 9)))
    values = torch.from_numpy(np.random.default_rng(1).uniform(size=(2, 23, n_problems)))
    rows = linear_rows.DenseRows(x, "none")
    pairs = torch.einsum("tnu,tnp,tnq->tupq", values, x, x)
    for size in (1, 64, 2**20):
        monkeypatch.setattr(linear_rows, "values_per_chunk", lambda device, size=size: size)
        taken = []

        def some(rows, taken=taken):
            taken.append(len(range(*rows.indices(23))))
            return values[:, rows]

        first, second = torch.tril_indices(9, 9)
        torch.testing.assert_close(rows.gram(values), pairs)
        torch.testing.assert_close(rows.pair_sums(some, n_problems), pairs[..., first, second])
        torch.testing.assert_close(
            rows.pull_squares(values), torch.einsum("tnu,tnp->tup", values, x.square()), rtol=1e-12, atol=0
        )
        assert sum(taken) == 23
        assert all(n_rows == 1 or 2 * n_rows * len(first) <= size for n_rows in taken)


@each_intercept
def test_sparse_rows_are_as_dense_ones(intercept):
    x = np.random.default_rng(0).poisson(0.4, (15, 6)).astype(float)
    dense, sparse = (
        linear_rows.DenseRows(torch.from_numpy(x)[None], intercept),
        linear_rows.SparseRows(as_csr(scipy.sparse.csr_array(x)), intercept),
    )
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(1, 4, dense.n_columns, generator=generator, dtype=torch.float64)
    values = torch.rand(1, 15, 4, generator=generator, dtype=torch.float64)
    assert sparse.n_columns == dense.n_columns
    torch.testing.assert_close(sparse.times(theta), dense.times(theta))
    torch.testing.assert_close(sparse.pull(values), dense.pull(values))
    torch.testing.assert_close(sparse.pull_squares(values), dense.pull_squares(values))
    for one, other in zip(sparse.coefficients(theta[None]), dense.coefficients(theta[None]), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_that_cannot_be_factorised_has_no_factor(dtype):
    # what is added to its diagonal makes this one exactly singular; the others of the batch have their factors
    corner = float(torch.ones(1, dtype=dtype) * (1 + (1e-10 if dtype == torch.float64 else 1e-5)))
    singular = torch.tensor([[1.0, corner], [corner, 1.0]], dtype=dtype)
    indefinite = torch.tensor([[2.0, 1.0], [1.0, -3.0]], dtype=dtype)
    found = preconditioner.factor(
        torch.stack([singular, torch.eye(2, dtype=dtype), indefinite]), torch.zeros(2, dtype=dtype)
    )
    assert found[[0, 2]].isnan().all()
    torch.testing.assert_close(found[1], torch.eye(2, dtype=dtype), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_whether_a_matrix_is_singular_does_not_hang_on_where_rounding_falls(dtype, scale):
    # a pivot some roundings above or below 0, which a factorisation may take for positive, and one that is surely so
    raised = 1e-10 if dtype == torch.float64 else 1e-5
    eps = torch.finfo(dtype).eps
    for n_roundings in range(-4, 5):
        corner = (1 + raised) * (1 + n_roundings * eps)
        near = torch.tensor([[1.0, corner], [corner, 1.0]], dtype=dtype) * scale
        assert preconditioner.factor(near.unsqueeze(0), torch.zeros(2, dtype=dtype)).isnan().all()
    collinear = torch.ones(1, 2, 2, dtype=dtype) * scale  # semidefinite: what was added keeps it regular
    assert preconditioner.factor(collinear, torch.zeros(2, dtype=dtype)).isfinite().all()


@pytest.mark.parametrize("loss", ["softmax", "logistic"])
@pytest.mark.parametrize("weight", [1e4, 1e7, 1e10])
def test_separable_rows_of_a_huge_weight_converge(loss, weight):
    # a row's loss is then a tiny part of its logits, of which it must not be what rounding leaves
    for seed in range(8):
        problems = make(seed, loss=loss, intercept="free", kind="separable", shape=(1, 30, 5))
        scale = 10 ** np.random.default_rng(seed).uniform(-1, 1, 5)
        solved = solve(problems._replace(x=problems.x * scale, weights=problems.weights * weight / 10))
        assert bool((solved.gap <= 1e-10).all())


@pytest.mark.parametrize(
    ("loss", "intercept", "drawn"),
    [
        ("softmax", "penalized", {"seed": 4, "kind": "scales", "shape": (1, 4, 14), "n_problems": 2}),
        ("logistic", "none", {"seed": 5, "kind": "scales", "shape": (1, 5, 14), "n_problems": 2}),
        ("logistic", "free", {"seed": 0, "kind": "scales", "shape": (2, 4, 15), "n_problems": 2, "shared": False}),
        # the step that was to be the last crosses the kinks of two rows
        ("squared_hinge", "free", {"seed": 3598, "kind": "duplicate rows", "shape": (2, 7, 11), "shared": False}),
    ],
)
def test_cases_in_which_digits_or_kinks_have_counted(loss, intercept, drawn):
    problems = make(**drawn, loss=loss, intercept=intercept, heavy=True)
    solved = solve(problems)
    assert bool((solved.gap <= 1e-10).all())
    assert_optimal(problems, solved, 1e-3)


@pytest.mark.gpu
@each_loss
def test_cuda_finds_the_same(loss):
    problems = make(0, loss=loss, intercept="free", shape=(2, 200, 20), n_problems=3)
    want = solve(problems)
    x, targets, weights = (torch.from_numpy(part).cuda() for part in problems[:3])
    solver = LinearSolver(x, max_iter=100, **problems.settings)
    solution = solver.solve(targets, weights, tol=1e-10)
    coef, _ = solver.coefficients(solution.theta)
    assert_near(coef.cpu(), want.coef, 1e-6)
    assert_near(centred(solution.logits.cpu(), loss), want.logits, 1e-6)
