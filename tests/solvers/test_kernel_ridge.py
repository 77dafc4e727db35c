import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.kernel_ridge import KernelRidge

from torchal.errors import ShapeError
from torchal.solvers import kernel_ridge
from torchal.solvers.kernel_ridge import RidgeSystem
from torchal.solvers.kernels import RbfKernel

GAMMA = torch.tensor([0.3], dtype=torch.float64)


def draw(n_rows, n_columns=3, n_outputs=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_rows, n_columns)), rng.normal(size=(n_rows, n_outputs)), rng.uniform(0.1, 3, n_rows)


def system(x, *, gamma=0.3, weights=None, block_size=10_000):
    """Return the system of one data set (n, D)."""
    weights = None if weights is None else torch.from_numpy(weights)[None]
    return RidgeSystem(
        torch.from_numpy(x)[None], torch.tensor([gamma], dtype=torch.float64), weights=weights, block_size=block_size
    )


def solve_rows(x, right, ridge, *, tol=1e-10, max_iter=1000, **kept):
    """Return coefficients (n, K), the number of steps and the residual."""
    right, ridge = torch.from_numpy(right)[None], torch.tensor([ridge], dtype=torch.float64)
    made = system(x, **kept)
    coef, n_iter = made.solve(right, ridge, tol=tol, max_iter=max_iter)
    return coef[0].numpy(), n_iter, float(made.residual(coef, right, ridge))


def reference(x, right, ridge, *, gamma=0.3, weights=None):
    roots = np.ones(len(x)) if weights is None else weights**0.5
    kernel = np.exp(-gamma * cdist(x, x, "sqeuclidean")) * np.outer(roots, roots)
    return roots[:, None] * np.linalg.solve(kernel + ridge * np.eye(len(x)), roots[:, None] * right)


def assert_near(got, want, rel):
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= rel * np.abs(want).max()


def test_weights_by_hand():
    # a kernel of 1 and 1/2, since exp(-gamma) is 1/2, and a ridge of 1:
    # [[2, 1], [1, 5]] with the root of the weight 4 on both sides: [5, -1] / 9, of which the root once more
    x, right = np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]])
    coef, _, _ = solve_rows(x, right, 1.0, gamma=np.log(2), weights=np.array([1.0, 4.0]))
    assert coef[:, 0].tolist() == pytest.approx([5 / 9, -2 / 9])


@pytest.mark.parametrize("block_size", [1000, 20])
def test_weights_are_those_of_kernel_ridge(block_size):
    x, right, weights = draw(60)
    coef, _, _ = solve_rows(x, right, 0.5, weights=weights, block_size=block_size)
    theirs = KernelRidge(alpha=0.5, kernel="rbf", gamma=0.3).fit(x, right, sample_weight=weights)
    assert_near(coef, theirs.dual_coef_, 1e-8)


@pytest.mark.parametrize("block_size", [1000, 20])
def test_a_row_of_weight_zero_is_no_row(block_size):
    x, right, weights = draw(60)
    weights[::3] = 0
    coef, _, residual = solve_rows(x, right, 0.1, weights=weights, block_size=block_size)
    kept = weights > 0
    assert_near(coef[kept], solve_rows(x[kept], right[kept], 0.1, weights=weights[kept])[0], 1e-8)
    assert (coef[~kept] == 0).all()
    assert residual <= 1e-9


def test_more_rows_than_a_block_are_of_one_trial():
    x = torch.zeros(2, 9, 3, dtype=torch.float64)
    with pytest.raises(ShapeError, match="x must be of one trial, got 2: 9 rows are above block_size, 8"):
        RidgeSystem(x, torch.ones(2, dtype=torch.float64), block_size=8)


def test_steps_end_where_they_are_told_to():
    x, right, _ = draw(200)
    _, n_iter, residual = solve_rows(x, right, 1e-3, block_size=5, max_iter=3)
    assert n_iter == 3
    assert residual > 1e-10
    _, n_iter, residual = solve_rows(x, right, 1e-3, block_size=100, tol=1e-4)
    assert n_iter < 100
    assert residual <= 1e-4


def test_no_temporary_is_larger_than_a_chunk(monkeypatch):
    x, right, _ = draw(100)
    expected, _, _ = solve_rows(x, right, 0.1, block_size=20)
    monkeypatch.setattr(kernel_ridge, "values_per_chunk", lambda device: 300)
    sizes, whole = [], RbfKernel.exponents
    monkeypatch.setattr(RbfKernel, "exponents", lambda self, x: sizes.append(len(x)) or whole(self, x))
    assert_near(solve_rows(x, right, 0.1, block_size=20)[0], expected, 1e-7)
    assert sorted(set(sizes)) == [1, 3, 10, 15, 20]  # with all rows, with 20, and the block itself


@settings(max_examples=80, deadline=None)
@given(
    n_rows=st.integers(1, 25),
    n_columns=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    ridge=st.floats(-3, 3),
    gamma=st.floats(-3, 3),
    weighted=st.booleans(),
)
def test_solved_directly(n_rows, n_columns, seed, ridge, gamma, weighted):
    x, right, weights = draw(n_rows, n_columns, seed=seed)
    kept = {"gamma": 10**gamma, "weights": weights if weighted else None}
    coef, n_iter, residual = solve_rows(x, right, 10**ridge, **kept)
    assert_near(coef, reference(x, right, 10**ridge, **kept), 1e-9)
    assert n_iter == 0
    assert residual < 1e-9


@settings(max_examples=40, deadline=None)
@given(
    n_rows=st.integers(2, 40),
    n_columns=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
    ridge=st.floats(-2, 3),
    gamma=st.floats(-3, 3),
    weighted=st.booleans(),
    part=st.floats(0, 1, exclude_max=True),
)
def test_solved_by_conjugate_gradients(n_rows, n_columns, seed, ridge, gamma, weighted, part):
    x, right, weights = draw(n_rows, n_columns, seed=seed)
    kept = {"gamma": 10**gamma, "weights": weights if weighted else None}
    coef, n_iter, residual = solve_rows(x, right, 10**ridge, block_size=1 + int(part * (n_rows - 1)), **kept)
    assert_near(coef, reference(x, right, 10**ridge, **kept), 1e-6)
    assert n_iter >= 1
    assert residual <= 1e-9


@pytest.fixture
def few_tries(monkeypatch):
    """A matrix that cannot be factorised is not to be tried forever."""
    tries, factorise = itertools.count(), torch.linalg.cholesky_ex

    def counted(*arguments, **settings):
        assert next(tries) < 100
        return factorise(*arguments, **settings)

    monkeypatch.setattr(torch.linalg, "cholesky_ex", counted)


@pytest.mark.parametrize("block_size", [10, 40])
def test_numbers_beyond_float64_end(block_size, few_tries):
    x, right, _ = draw(40)
    _, n_iter, residual = solve_rows(x * 1e200, right, 0.1, block_size=block_size, max_iter=5)
    assert n_iter <= 5
    assert not residual <= 1e-8  # which would pass for solved


@pytest.mark.parametrize("block_size", [1, 2, 5])
def test_weight_zero_of_all_rows_of_the_preconditioner(block_size, few_tries):
    x, right, weights = draw(30)
    weights[np.linspace(0, 29, block_size).astype(int)] = 0
    coef, _, _ = solve_rows(x, right, 0.5, weights=weights, block_size=block_size)
    assert_near(coef, reference(x, right, 0.5, weights=weights), 1e-8)


def test_weights_of_all_sizes():
    x, right, _ = draw(50)
    weights = np.where(np.arange(50) % 3 == 0, 1e-12, 2.0)
    for block_size in (15, 50):
        coef, _, _ = solve_rows(x, right, 0.5, weights=weights, block_size=block_size)
        assert_near(coef, reference(x, right, 0.5, weights=weights), 1e-8)


@pytest.mark.parametrize("block_size", [12, 40])
def test_the_residual_is_that_of_the_coefficients(block_size):
    x, right, weights = draw(40)
    weights[5] = 0
    kept = weights > 0
    made = system(x, weights=weights, block_size=block_size)
    coef = np.random.default_rng(1).normal(size=right.shape) * kept[:, None]
    got = made.residual(
        torch.from_numpy(coef)[None], torch.from_numpy(right)[None], torch.tensor([0.7], dtype=torch.float64)
    )
    roots = weights[kept, None] ** 0.5
    kernel = roots * np.exp(-0.3 * cdist(x[kept], x[kept], "sqeuclidean")) * roots.T
    left = roots * right[kept] - (kernel + 0.7 * np.eye(kept.sum())) @ (coef[kept] / roots)
    assert got.shape == (1,)
    assert float(got) == pytest.approx(np.linalg.norm(left) / np.linalg.norm(roots * right[kept]), rel=1e-10)
    assert float(made.residual(torch.zeros(1, 40, 2), torch.from_numpy(right)[None], torch.ones(1))) == 1


@pytest.mark.parametrize("block_size", [1, 3, 20, 39, 40])
@pytest.mark.parametrize("rows", ["in fours", "all alike", "smooth", "far off"])
@pytest.mark.parametrize("ridge", [1e-14, 1e-8, 1e-4, 1e-2])
def test_a_kernel_of_low_rank_and_a_tiny_ridge(rows, ridge, block_size):
    x, right, _ = draw(40)
    gamma = 1e-4 if rows == "smooth" else 0.3
    if rows == "in fours":
        x = np.repeat(x[:10], 4, 0)
    elif rows == "all alike":
        x[:] = x[0]
    elif rows == "far off":
        x += 1e5
    coef, n_iter, residual = solve_rows(x, right, ridge, gamma=gamma, block_size=block_size, max_iter=100)
    assert np.isfinite(coef).all()
    assert np.isfinite(residual)
    assert n_iter <= 100
    if ridge >= 1e-2 and block_size >= 20:  # beyond rounding, or a sketch of all that there is
        assert residual <= 1e-9


def test_steps_are_few_where_the_preconditioner_sees_the_kernel():
    x, right, _ = draw(200)
    few = [solve_rows(x, right, 1e-4, gamma=1e-3, block_size=block_size)[1] for block_size in (30, 100, 150, 199)]
    assert max(few) <= 8
    none = solve_rows(x, right, 1e-2, gamma=0.3, block_size=1)[1]
    assert solve_rows(x, right, 1e-2, gamma=0.3, block_size=100)[1] < none / 4


def test_one_ridge_after_another_and_other_right_sides():
    x, right, weights = draw(50)
    for block_size in (12, 50):
        made = system(x, weights=weights, block_size=block_size)
        for ridge in (1.0, 0.1, 1.0):
            for some in (right, right[:, :1]):
                kept = some.copy()
                coef, _ = made.solve(
                    torch.from_numpy(some)[None], torch.tensor([ridge], dtype=torch.float64), tol=1e-10, max_iter=500
                )
                assert_near(coef[0].numpy(), reference(x, some, ridge, weights=weights), 1e-8)
                np.testing.assert_array_equal(some, kept)


def test_a_right_side_of_zeros():
    x, right, _ = draw(30)
    right[:, 1] = 0
    for block_size in (8, 30):
        coef, _, _ = solve_rows(x, right, 0.1, block_size=block_size)
        assert (coef[:, 1] == 0).all()
        assert_near(coef, reference(x, right, 0.1), 1e-8)
        coef, n_iter, _ = solve_rows(x, right * 0, 0.1, block_size=block_size)
        assert (coef == 0).all()
        assert n_iter == 0


def test_many_at_once_with_weights():
    parts = [draw(20, seed=seed) for seed in range(3)]
    x, right, weights = (torch.from_numpy(np.stack(part)) for part in zip(*parts, strict=True))
    weights[1, 4:9] = 0
    gamma, ridge = torch.tensor([[0.1, 1.0, 3.0], [1e-2, 1.0, 10.0]], dtype=torch.float64)
    for each in (weights, None):
        made = RidgeSystem(x, gamma, weights=each, block_size=20)
        coef, n_iter = made.solve(right, ridge, tol=0.0, max_iter=0)
        residual = made.residual(coef, right, ridge)
        assert n_iter == 0
        assert residual.shape == (3,)
        assert residual.max() < 1e-12
        for i in range(3):
            own = None if each is None else each[i].numpy()
            want = reference(x[i].numpy(), right[i].numpy(), float(ridge[i]), gamma=float(gamma[i]), weights=own)
            assert_near(coef[i].numpy(), want, 1e-9)


@pytest.mark.gpu
@pytest.mark.parametrize("block_size", [100, 500])
def test_cuda_finds_the_same(block_size):
    x, right, weights = draw(500)
    want, _, _ = solve_rows(x, right, 0.1, weights=weights)
    x, right, weights = (torch.from_numpy(part)[None].cuda() for part in (x, right, weights))
    made = RidgeSystem(x, GAMMA.cuda(), weights=weights, block_size=block_size)
    coef, _ = made.solve(right, torch.full_like(GAMMA, 0.1).cuda(), tol=1e-10, max_iter=500)
    assert_near(coef[0].cpu().numpy(), want, 1e-8)
