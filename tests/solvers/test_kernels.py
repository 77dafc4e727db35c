import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.utils.multiclass import _ovr_decision_function

from torchal.solvers.kernels import most_voted, ovr_values, pair_values, rbf_kernel


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_rbf_kernel_is_that_of_the_distances(offset):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)) + offset, rng.normal(size=(5, 3)) + offset
    found = rbf_kernel(torch.tensor(x), torch.tensor(y), 0.7)
    np.testing.assert_allclose(found, np.exp(-0.7 * cdist(x, y, "sqeuclidean")), rtol=1e-9)


def test_a_row_with_itself_is_exactly_one():
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 1e3
    kernel = rbf_kernel(x, x, 1e-6)
    assert (kernel.diagonal() == 1).all()
    assert (kernel <= 1).all()
    torch.testing.assert_close(kernel, kernel.T)


def test_each_of_a_batch_has_its_own_gamma():
    x = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gamma = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    whole = rbf_kernel(x, x[:, :4], gamma[:, None, None])
    for one, rows, width in zip(whole, x, gamma, strict=True):
        torch.testing.assert_close(one, rbf_kernel(rows, rows[:4], float(width)))


def pairs_by_loops(kernel, dual, codes, intercept):
    """Return the values of each pair, one pair and one support row at a time."""
    n_classes = len(dual) + 1
    values, pair = np.zeros((len(kernel), len(intercept))), 0
    for first in range(n_classes):
        for second in range(first + 1, n_classes):
            values[:, pair] = intercept[pair]
            for row, code in enumerate(codes):
                if code == first:
                    values[:, pair] += kernel[:, row] * dual[second - 1, row]
                elif code == second:
                    values[:, pair] += kernel[:, row] * dual[first, row]
            pair += 1
    return values


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_pair_values(n_classes):
    rng = np.random.default_rng(0)
    n_pairs = n_classes * (n_classes - 1) // 2
    kernel, codes = rng.random((6, 12)), rng.integers(0, n_classes, 12)
    dual, intercept = rng.normal(size=(2, n_classes - 1, 12)), rng.normal(size=(2, n_pairs))
    found = pair_values(*map(torch.tensor, (kernel, dual, codes, intercept)))
    for machine in range(2):
        expected = pairs_by_loops(kernel, dual[machine], codes, intercept[machine])
        np.testing.assert_allclose(found[machine], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("n_classes", [2, 3, 6])
def test_votes_and_confidences_are_scikit_learns(n_classes):
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(40, n_classes * (n_classes - 1) // 2)).round(1)
    found = ovr_values(torch.tensor(pairs), n_classes)
    np.testing.assert_allclose(found, _ovr_decision_function(pairs > 0, pairs, n_classes), rtol=1e-12)


def test_most_votes_of_equally_many_the_first():
    circle = torch.tensor([[1.0, -1.0, 1.0]])  # 1 beats 0, 0 beats 2, 2 beats 1
    assert most_voted(circle, 3).tolist() == [0]
    assert most_voted(torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, 1.0], [0.0, 0.0, 0.0]]), 3).tolist() == [2, 0, 2]
