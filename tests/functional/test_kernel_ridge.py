import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge

from torchal.functional import kernel_ridge
from torchal.functional.kernel_ridge import RidgeSystem
from torchal.functional.kernels import rbf_kernel

GAMMA = torch.tensor([0.3], dtype=torch.float64)


def problem(n=60, d=3, n_outputs=4, n_trials=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_trials, n, d, generator=generator, dtype=torch.float64)
    return x, torch.randn(n_trials, n, n_outputs, generator=generator, dtype=torch.float64)


def solve(x, right, ridge, *, gamma=GAMMA, weights=None, block_size=1000, tol=1e-10, max_iter=500):
    system = RidgeSystem(x, gamma, weights=weights, block_size=block_size)
    ridges = torch.full((len(x),), ridge, dtype=torch.float64)
    coef, n_iter = system.solve(right, ridges, tol=tol, max_iter=max_iter)
    return coef, n_iter, system.residual(coef, right, ridges)


def test_two_rows_by_hand():
    x = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    right = torch.tensor([[[1.0], [0.0]]], dtype=torch.float64)
    k = float(torch.tensor(-0.3).double().exp())
    coef = solve(x, right, 1.0)[0]
    np.testing.assert_allclose(coef[0, :, 0], np.array([2.0, -k]) / (4 - k**2), rtol=1e-7)


@pytest.mark.parametrize("block_size", [1000, 60, 59, 10])
@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_the_dense_solution(ridge, block_size):
    x, right = problem()
    coef, n_iter, residual = solve(x, right, ridge, block_size=block_size)
    matrix = rbf_kernel(x[0], x[0], 0.3) + ridge * torch.eye(60, dtype=torch.float64)
    expected = np.linalg.solve(matrix.numpy(), right[0].numpy())
    np.testing.assert_allclose(coef[0], expected, rtol=1e-6, atol=1e-6)
    assert (n_iter == 0) == (block_size >= 60)
    np.testing.assert_allclose(residual, [np.linalg.norm(right[0] - matrix @ coef[0]) / right[0].norm()], atol=1e-12)
    assert float(residual) <= 1e-9


@pytest.mark.parametrize("block_size", [1000, 20])
def test_weights_are_those_of_kernel_ridge(block_size):
    x, right = problem()
    weights = torch.rand(1, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
    coef = solve(x, right, 0.5, weights=weights, block_size=block_size)[0]
    theirs = KernelRidge(alpha=0.5, kernel="rbf", gamma=0.3).fit(x[0], right[0], sample_weight=weights[0])
    np.testing.assert_allclose(coef[0], theirs.dual_coef_, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("block_size", [1000, 20])
def test_a_row_of_weight_zero_is_no_row(block_size):
    x, right = problem()
    weights = (torch.arange(60) % 3 != 0).double().unsqueeze(0)
    kept = weights[0] > 0
    coef, _, residual = solve(x, right, 0.1, weights=weights, block_size=block_size)
    alone = solve(x[:, kept], right[:, kept], 0.1)[0]
    np.testing.assert_allclose(coef[:, kept], alone, rtol=1e-6, atol=1e-7)
    assert (coef[:, ~kept] == 0).all()
    assert float(residual) <= 1e-9


def test_many_at_once_as_each_alone():
    x, right = problem(n_trials=3)
    gamma = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64)
    coef = RidgeSystem(x, gamma, block_size=1000).solve(right, gamma, tol=1e-10, max_iter=1)[0]
    for i in range(3):
        alone = solve(x[i : i + 1], right[i : i + 1], float(gamma[i]), gamma=gamma[i : i + 1])[0]
        torch.testing.assert_close(coef[i], alone[0])


@pytest.mark.parametrize("block_size", [1000, 8])
def test_duplicates_and_a_tiny_ridge_are_survived(block_size):
    x = torch.tensor([[0.0], [0.0], [1.0], [1.0], [1.0]] * 4, dtype=torch.float64).unsqueeze(0)
    right = torch.eye(5, dtype=torch.float64).repeat(4, 1).unsqueeze(0)
    coef = solve(x, right, 1e-14, block_size=block_size, max_iter=5)[0]
    assert torch.isfinite(coef).all()


def test_steps_end_where_they_are_told_to():
    x, right = problem(n=200)
    _, n_iter, residual = solve(x, right, 1e-3, block_size=5, max_iter=3)
    assert n_iter == 3
    assert float(residual) > 1e-10
    _, n_iter, residual = solve(x, right, 1e-3, block_size=100, tol=1e-4)
    assert n_iter < 100
    assert float(residual) <= 1e-4


def test_no_temporary_is_larger_than_a_chunk(monkeypatch):
    x, right = problem(n=100)
    expected = solve(x, right, 0.1, block_size=20)[0]
    monkeypatch.setattr(kernel_ridge, "values_per_chunk", lambda device: 300)
    sizes = []
    whole = kernel_ridge.rbf_kernel
    monkeypatch.setattr(
        kernel_ridge, "rbf_kernel", lambda x, y, gamma: sizes.append(len(x) * len(y)) or whole(x, y, gamma)
    )
    torch.testing.assert_close(solve(x, right, 0.1, block_size=20)[0], expected, rtol=1e-7, atol=1e-9)
    assert max(sizes) <= 20 * 20  # the block itself


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 30),
    d=st.integers(1, 4),
    log_ridge=st.floats(-4, 2),
    block=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_random_systems(n, d, log_ridge, block, seed):
    x, right = problem(n=n, d=d, n_outputs=2, seed=seed)
    ridge = 10**log_ridge
    coef = solve(x, right, ridge, block_size=block)[0][0]
    matrix = rbf_kernel(x[0], x[0], 0.3) + ridge * torch.eye(n, dtype=torch.float64)
    expected = torch.linalg.solve(matrix, right[0])
    torch.testing.assert_close(coef, expected, rtol=1e-5, atol=1e-6 / min(1, ridge))
