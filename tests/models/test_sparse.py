import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from torchal import ActiveLearner, Pool
from torchal.models import LinearSVM, LogisticRegression, OneVsRestLogisticRegression, sparse
from torchal.models.sparse import as_csr, csr_rows, dense_where_small
from torchal.samplers import Margin

ROWS = np.array([[1.0, 0.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0], [4.0, 0.0, 5.0, 0.0]])
FORMATS = ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"]


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr])
def test_any_sparse_tensor(layout, every_warning):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse")  # torch's own, of making one
        blocks = {"blocksize": (2, 2)} if layout == torch.sparse_bsr else {}
        given = torch.from_numpy(ROWS).to_sparse(layout=layout, **blocks)
    assert_csr(as_csr(given), ROWS)


def test_values_at_one_place_are_added_up():
    twice = scipy.sparse.coo_array(([1.0, 2.0, 5.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    assert as_csr(twice).to_dense().tolist() == [[0.0, 3.0], [5.0, 0.0]]
    tensor = torch.sparse_coo_tensor(
        torch.tensor([[0, 0], [1, 1]]), torch.tensor([1.0, 2.0]), (2, 2), check_invariants=True
    )
    assert as_csr(tensor).to_dense().tolist() == [[0.0, 3.0], [0.0, 0.0]]


def drawn(n_rows, n_columns, seed, density=0.3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_rows, n_columns)) * (rng.random((n_rows, n_columns)) < density)


@pytest.fixture
def every_warning():
    """What torch says once in a process, it says each time."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


def assert_csr(got, want):
    """Compare with an array, and require what torch's products read without checking."""
    assert got.layout == torch.sparse_csr
    assert got.shape == want.shape
    offsets, columns, values = got.crow_indices(), got.col_indices(), got.values()
    assert offsets.dtype == columns.dtype
    assert offsets[0] == 0
    assert offsets[-1] == len(columns) == len(values)
    assert len(offsets) == len(want) + 1
    assert (offsets.diff() >= 0).all()
    for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        row = columns[start:stop].tolist()
        assert row == sorted(set(row))
    np.testing.assert_array_equal(got.to_dense().numpy(), want)


def test_numbers_keep_their_type():
    for dtype in (np.float32, np.float64, np.int64, np.bool_):
        got = as_csr(scipy.sparse.csr_array(ROWS.astype(dtype)))
        assert got.values().numpy().dtype == dtype


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_any_format_of_scipy_is_well_formed(form, kind, every_warning):
    matrix = getattr(scipy.sparse, f"{form}_{kind}")(ROWS)
    assert_csr(as_csr(matrix), ROWS)
    assert_csr(as_csr(matrix.astype(np.float32)), ROWS.astype(np.float32))
    np.testing.assert_array_equal(matrix.toarray(), ROWS)


def test_nothing_is_said_of_sparse_tensors(every_warning):
    tensor = torch.from_numpy(ROWS).to_sparse_coo()
    assert_csr(as_csr(tensor), ROWS)
    x = as_csr(scipy.sparse.csr_array(ROWS))
    assert_csr(csr_rows(x, torch.tensor([2, 0])), ROWS[[2, 0]])
    assert_csr(csr_rows(x, slice(1, 3)), ROWS[1:3])


@pytest.mark.parametrize("rows", [[2], [3, 0, 1], [1, 1, 1], [0, 3, 0, 3, 2, 1, 0], [1], []])
def test_rows_by_number_of_any_index_type(rows):
    for index_type in (np.int32, np.int64):
        matrix = scipy.sparse.csr_array(ROWS)
        matrix.indptr, matrix.indices = matrix.indptr.astype(index_type), matrix.indices.astype(index_type)
        x = as_csr(matrix)
        assert_csr(csr_rows(x, torch.tensor(rows, dtype=torch.int64)), ROWS[rows])
        assert_csr(x, ROWS)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_rows_are_scipys(data):
    n_rows, n_columns = data.draw(st.integers(1, 15)), data.draw(st.integers(1, 8))
    x = drawn(n_rows, n_columns, data.draw(st.integers(0, 1000)), data.draw(st.sampled_from([0.0, 0.3, 1.0])))
    matrix = scipy.sparse.csr_array(x)
    csr = as_csr(matrix)
    rows = data.draw(st.lists(st.integers(0, n_rows - 1), max_size=20))
    assert_csr(csr_rows(csr, torch.tensor(rows, dtype=torch.int64)), matrix[rows].toarray())
    start = data.draw(st.integers(0, n_rows))
    stop = data.draw(st.integers(start, n_rows + 3))
    assert_csr(csr_rows(csr, slice(start, stop)), matrix[start:stop].toarray())
    again = csr_rows(csr_rows(csr, torch.arange(n_rows - 1, -1, -1)), slice(0, n_rows))
    assert_csr(again, x[::-1])


def test_rows_are_products_of_the_whole(every_warning):
    x = drawn(50, 9, 0)
    weight = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    csr = as_csr(scipy.sparse.csr_array(x))
    rows = torch.randint(0, 50, (80,), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(csr_rows(csr, rows) @ weight, torch.from_numpy(x)[rows] @ weight)


def test_what_fits_in_a_chunk_becomes_dense(monkeypatch):
    x = as_csr(scipy.sparse.csr_array(ROWS))
    assert dense_where_small(x).equal(torch.from_numpy(ROWS))
    monkeypatch.setattr(sparse, "values_per_chunk", lambda device: ROWS.size - 1)
    assert dense_where_small(x) is x
    dense = torch.zeros(3, 2)
    assert dense_where_small(dense) is dense


SPARSE_MODELS = [
    LogisticRegression(),
    OneVsRestLogisticRegression(penalize_intercept=True),
    LinearSVM(solver="torch"),
    LogisticRegression(C=[0.1, 10.0]),
]


@pytest.mark.gpu
@pytest.mark.parametrize("model", SPARSE_MODELS, ids=["logistic", "one against the rest", "svm", "searched"])
@pytest.mark.parametrize("small", [True, False], ids=["made dense", "stays sparse"])
def test_cuda_fits_sparse_rows_as_the_cpu_does(model, small, request):
    if not small:
        request.getfixturevalue("stay_sparse")
    y = np.arange(150) % 3
    x = drawn(150, 12, seed=0) + np.eye(3)[y][:, [0, 1, 2] * 4] * 2 * (drawn(150, 12, seed=1) != 0)
    rows = scipy.sparse.csr_array(x)
    here = clone(model).set_params(device="cpu").fit(rows, y)
    want = torch.as_tensor(here.decision_function(rows))
    there = clone(model).set_params(device="cuda").fit(rows, y)
    assert there.module_.weight.is_cuda
    np.testing.assert_allclose(there.decision_function(rows), want, rtol=1e-4, atol=1e-5)
    csr = as_csr(rows).to("cuda")
    tensors = clone(model).fit(csr, torch.from_numpy(y).cuda())
    found = tensors.decision_function(csr)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), want, rtol=1e-4, atol=1e-5)
    assert tensors.predict(csr).cpu().tolist() == here.predict(rows).tolist()
    learner = ActiveLearner(clone(model).set_params(device="cuda"), Margin(), Pool.unlabeled(rows, n_classes=3))
    learner.tell(torch.arange(60), torch.from_numpy(y[:60]))
    alone = ActiveLearner(clone(model).set_params(device="cpu"), Margin(), Pool.unlabeled(rows, n_classes=3))
    alone.tell(torch.arange(60), torch.from_numpy(y[:60]))
    assert learner.ask(9).tolist() == alone.ask(9).tolist()


@pytest.mark.gpu
def test_cuda_takes_rows_of_a_sparse_matrix():
    x = drawn(40, 7, seed=2)
    csr = as_csr(scipy.sparse.csr_array(x)).to("cuda")
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert csr_rows(csr, order.cuda()).is_cuda
    assert_csr(csr_rows(csr, order.cuda()).cpu(), x[order])
    assert_csr(csr_rows(csr, slice(5, 30)).cpu(), x[5:30])
    assert dense_where_small(csr).is_cuda
    assert dense_where_small(csr).cpu().numpy().tolist() == x.tolist()
