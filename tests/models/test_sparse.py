import numpy as np
import pytest
import scipy.sparse
import torch

from torchal.models.sparse import as_csr, csr_rows


def matrix():
    dense = np.random.default_rng(0).normal(size=(9, 6))
    dense[np.random.default_rng(1).random((9, 6)) > 0.3] = 0
    dense[2] = 0
    return scipy.sparse.csr_array(dense)


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "lil"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_any_sparse_matrix_of_scipy(form, kind):
    dense = matrix().toarray()
    given = getattr(scipy.sparse, f"{form}_{kind}")(dense)
    found = as_csr(given)
    assert found.layout == torch.sparse_csr
    np.testing.assert_array_equal(found.to_dense(), dense)


@pytest.mark.parametrize("layout", ["to_sparse_coo", "to_sparse_csr", "to_sparse_csc"])
def test_any_sparse_tensor(layout):
    dense = torch.tensor(matrix().toarray())
    assert as_csr(getattr(dense, layout)()).to_dense().equal(dense)


def test_values_at_one_place_are_added_up():
    twice = scipy.sparse.coo_array(([1.0, 2.0, 5.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    assert as_csr(twice).to_dense().tolist() == [[0.0, 3.0], [5.0, 0.0]]
    tensor = torch.sparse_coo_tensor(torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, 2.0]), (2, 2))
    assert as_csr(tensor).to_dense().tolist() == [[0.0, 3.0], [0.0, 0.0]]


@pytest.mark.parametrize("rows", [[0], [2], [8, 0, 2, 2, 5], [2, 2], list(range(9)), []], ids=str)
def test_rows_by_number(rows):
    given = matrix()
    found = csr_rows(as_csr(given), torch.tensor(rows, dtype=torch.int64))
    assert found.shape == (len(rows), 6)
    np.testing.assert_array_equal(found.to_dense(), given.toarray()[rows])


@pytest.mark.parametrize("rows", [slice(0, 9), slice(2, 3), slice(3, 7), slice(6, 20)], ids=str)
def test_a_run_of_rows(rows):
    given = matrix()
    np.testing.assert_array_equal(csr_rows(as_csr(given), rows).to_dense(), given.toarray()[rows])
