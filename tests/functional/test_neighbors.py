import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import neighbors as reference
from torchal import CapabilityError, ConfigError, DataError, ShapeError
from torchal.engine.distances import Space
from torchal.errors import DeviceMemoryError
from torchal.functional import knn_graph, nearest_among, neighbors_of

METRICS = ["euclidean", "cosine", "manhattan"]
BACKENDS = ["torch", pytest.param("faiss", marks=pytest.mark.filterwarnings("ignore::DeprecationWarning"))]


def normal(n_rows, n_columns, seed=0, dtype=torch.float64):
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def exact(x, metric):
    """Return all distances in float64."""
    x = x.double()
    if metric == "cosine":
        x = x / x.norm(dim=1, keepdim=True)
        return (x[:, None] - x).square().sum(2) / 2
    return (x[:, None] - x).abs().sum(2) if metric == "manhattan" else (x[:, None] - x).square().sum(2).sqrt()


def assert_nearest(x, found, metric, rel=1e-5):
    """Compare distances with those of all pairs in float64: of ties any row may be there."""
    far = exact(x, metric)
    at = far.gather(1, found.indices)
    assert torch.allclose(found.distances.double(), at, rtol=rel, atol=1e-6)
    want = far.fill_diagonal_(torch.inf).sort(1).values[:, : at.shape[1]]
    assert torch.allclose(at, want, rtol=rel, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in found.indices.tolist())
    assert not (found.indices == torch.arange(len(x)).unsqueeze(1)).any()


def test_by_hand():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 3.0], [0.0, 0.0]])
    found = knn_graph(x, 2)
    assert found.indices.tolist() == [[3, 2], [2, 0], [1, 0], [0, 2]]
    root = 18**0.5
    assert torch.allclose(found.distances, torch.tensor([[0, root], [1, 5], [1, root], [0, root]]))
    assert knn_graph(x, 2, metric="manhattan").distances.tolist() == [[0, 6], [1, 7], [1, 6], [0, 6]]
    graph = found.to_csr()
    assert graph.layout == torch.sparse_csr
    assert graph.crow_indices().tolist() == [0, 2, 4, 6, 8]
    assert graph.col_indices().tolist() == [2, 3, 0, 2, 0, 1, 0, 2]
    assert graph.values().tolist() == pytest.approx([18**0.5, 0, 5, 1, 18**0.5, 1, 0, 18**0.5])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("whole", [True, False])
def test_agrees_with_exact_arithmetic(metric, whole):
    numbers = st.integers(-2, 2).map(float) if whole else st.floats(-4, 4, width=16)
    shapes = st.tuples(st.integers(2, 24), st.integers(1, 3))

    @settings(max_examples=40, deadline=None)
    @given(
        shapes.flatmap(lambda s: hnp.arrays(np.float32, s, elements=numbers)), st.integers(1, 23), st.integers(1, 30)
    )
    def check(features, k, chunk_rows):
        if metric == "cosine":
            features[(np.abs(features) < 0.01).all(1)] = 1
        k = min(k, len(features) - 1)
        found = knn_graph(torch.from_numpy(features), k, metric=metric, chunk_rows=chunk_rows)
        values = reference.distances(features, metric)
        want = reference.knn(values, k)
        for row, (near, far) in enumerate(zip(found.indices.tolist(), found.distances.tolist(), strict=True)):
            assert row not in near
            assert len(set(near)) == k
            for (value, _), j, got in zip(want[row], near, far, strict=True):
                if whole:
                    assert values[row][j] == value
                size = float(values[row][j])
                size = {"euclidean": size**0.5, "manhattan": size}.get(
                    metric, 1 - np.sign(1 - size) * abs(1 - size) ** 0.5
                )
                assert got == pytest.approx(size, rel=1e-4, abs=2e-6)
                assert float(values[row][j]) == pytest.approx(float(value), rel=1e-4, abs=4e-6)

    check()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("chunk_rows", [None, 64, 333])
def test_blocks_and_backends_agree(metric, backend, chunk_rows):
    if backend == "faiss":
        pytest.importorskip("faiss")
    x = normal(900, 12, dtype=torch.float32)
    found = knn_graph(x, 10, metric=metric, backend=backend, chunk_rows=chunk_rows)
    assert_nearest(x, found, metric)
    assert found.indices.equal(knn_graph(x, 10, metric=metric, backend="torch").indices)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_duplicates_are_neighbours_and_a_row_is_not(metric, backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
    x = normal(40, 5, dtype=torch.float32).repeat(5, 1)  # rows i, i + 40, ...
    found = knn_graph(x, 6, metric=metric, backend=backend)
    copies = found.indices[:, :4] % 40 == torch.arange(200).unsqueeze(1) % 40
    assert copies.all()
    assert not found.distances[:, :4].any()
    assert (found.indices[:, :4].diff() > 0).all()
    assert_nearest(x, found, metric)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("chunk_rows", [None, 13, 64, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_of_whole_numbers_go_to_the_lowest_row(metric, chunk_rows, dtype):
    x = torch.randint(0, 3, (200, 4), generator=torch.Generator().manual_seed(0)).to(dtype)
    found = knn_graph(x, 5, metric=metric, chunk_rows=chunk_rows)
    far = exact(x, metric).fill_diagonal_(torch.inf)
    assert found.indices.equal(far.sort(dim=1, stable=True).indices[:, :5])


@pytest.mark.parametrize("chunk_rows", [None, 13, 64])
def test_ties_of_angles_go_to_the_lowest_row(chunk_rows):
    x = torch.randint(1, 3, (200, 3), generator=torch.Generator().manual_seed(0)).float()
    products, squares = x @ x.T, x.square().sum(1)
    far = (1 - products.square().double() / squares.outer(squares)).fill_diagonal_(torch.inf)  # one rounded division
    want = far.sort(dim=1, stable=True).indices[:, :5]
    assert knn_graph(x, 5, metric="cosine", chunk_rows=chunk_rows).indices.equal(want)
    rows = torch.tensor([150, 3])
    assert neighbors_of(x, 5, rows=rows, metric="cosine", chunk_rows=chunk_rows).indices.equal(want[rows])


@pytest.mark.parametrize("metric", METRICS)
def test_constant_features(metric):
    found = knn_graph(torch.full((30, 2), 0.7), 3, metric=metric, chunk_rows=8)
    assert not found.distances.any()
    assert not (found.indices == torch.arange(30).unsqueeze(1)).any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("offset", [50.0, 1e4])
def test_offsets_and_far_groups_hide_no_neighbour(backend, offset):
    if backend == "faiss":
        pytest.importorskip("faiss")
    x = normal(300, 8, dtype=torch.float32) + offset
    assert_nearest(x, knn_graph(x, 5, backend=backend), "euclidean")
    # groups so tight that a product of single precision sees nothing of their inside
    groups = (normal(4, 8, seed=1) * 1000)[torch.arange(400) % 4]
    tight = (groups + normal(400, 8, seed=2) * 0.05).float()
    assert_nearest(tight, knn_graph(tight, 5, backend=backend), "euclidean", rel=1e-3)


@pytest.mark.parametrize("offset", [3e2, 1e6])
def test_a_few_rows_near_0_beside_many_far_from_it(offset):
    x = torch.cat([offset + normal(400, 4), torch.rand(30, 4) * (1e-4 if offset < 1e6 else 1e-2)]).float()
    assert_nearest(x, knn_graph(x, 5), "euclidean")
    centers = normal(5, 16, seed=1)
    y = (centers[torch.arange(400) % 5] + normal(400, 16, seed=2) * 1e-5).float()
    found = knn_graph(y, 5, metric="cosine")
    far = exact(y, "cosine")
    want = far.clone().fill_diagonal_(torch.inf).sort(1).values[:, :5]
    assert torch.allclose(far.gather(1, found.indices), want, rtol=1e-3, atol=0)


def test_float64_stays_float64_and_half_becomes_single():
    x = normal(100, 4)
    assert knn_graph(x, 3).distances.dtype == torch.float64
    assert_nearest(x, knn_graph(x, 3), "euclidean", rel=1e-12)
    assert knn_graph(x.half(), 3).distances.dtype == torch.float32


@pytest.mark.parametrize("k", [1, 2, 3])
def test_as_many_neighbours_as_there_are(k):
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert_nearest(x, knn_graph(x, k, chunk_rows=1), "euclidean")


@pytest.mark.parametrize("metric", METRICS)
def test_a_memory_mapped_file_gives_the_same(metric, tmp_path):
    x = normal(500, 6, dtype=torch.float32)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    want, got = knn_graph(x, 4, metric=metric), knn_graph(mapped, 4, metric=metric, chunk_rows=64)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.distances, want.distances, rtol=1e-5)


def test_out_of_memory_halves_the_block_with_one_warning(monkeypatch):
    x = normal(1000, 4)
    want = knn_graph(x, 3)
    rough, most = Space.rough, 300

    def scarce(space, a, b):
        if len(a.x) > most:
            raise torch.OutOfMemoryError("Tried to allocate 7.00 GiB")
        return rough(space, a, b)

    monkeypatch.setattr(Space, "rough", scarce)
    with pytest.warns(UserWarning, match="smaller chunks") as warned:
        assert knn_graph(x, 3).indices.equal(want.indices)
    assert len(warned) == 1
    most = 10
    with pytest.raises(DeviceMemoryError, match=r"7\.00 GiB"), pytest.warns(UserWarning, match="smaller chunks"):
        knn_graph(x, 3)


X = normal(10, 3, dtype=torch.float32)


@pytest.mark.parametrize(
    ("features", "k", "settings", "error", "match"),
    [
        (X, 10, {}, ConfigError, "10 neighbours of each row need at least 11 rows, features has 10"),
        (X[:1], 1, {}, ConfigError, "need at least 2 rows, features has 1"),
        (X, 0, {}, ConfigError, "k must be a whole number of at least 1, got 0"),
        (X, 2, {"metric": "l2"}, ConfigError, "got 'l2'"),
        (X, 2, {"backend": "annoy"}, ConfigError, "auto, faiss, torch, ivf, got 'annoy'"),
        (X, 2, {"chunk_rows": 0}, ConfigError, "chunk_rows"),
        (X[:0], 2, {}, DataError, "no rows"),
        (X.cfloat(), 2, {}, ShapeError, "real numbers"),
        (X / 0, 2, {}, DataError, "10 of 10 rows are not"),
        (X * 0, 2, {"metric": "cosine"}, DataError, "row 0 is all zeros"),
        (X.double(), 2, {"backend": "faiss"}, CapabilityError, "float32, these features need torch.float64"),
        (X.double(), 2, {"backend": "faiss", "metric": "manhattan"}, CapabilityError, "float32"),
    ],
)
def test_bad_input(features, k, settings, error, match):
    with pytest.raises(error, match=match):
        knn_graph(features, k, **settings)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("backend", ["auto", "faiss"])
def test_cuda_finds_the_same(metric, backend):
    if backend == "faiss":
        pytest.importorskip("faiss")
        if metric == "manhattan":
            pytest.skip("faiss has manhattan distances on the CPU only, here")
    x = normal(5000, 16, dtype=torch.float32)
    found = knn_graph(x.cuda(), 10, metric=metric, backend=backend)
    assert found.indices.is_cuda
    assert found.indices.cpu().equal(knn_graph(x, 10, metric=metric).indices)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("metric", METRICS)
def test_cuda_streams_rows_of_the_cpu(metric, dtype):
    x = normal(900, 8).to(dtype)
    want = knn_graph(x, 4, metric=metric)
    streamed = knn_graph(x, 4, metric=metric, device="cuda", chunk_rows=200, backend="torch")
    assert streamed.indices.device.type == streamed.distances.device.type == "cpu"
    there = knn_graph(x.cuda(), 4, metric=metric, backend="torch")
    assert there.indices.is_cuda
    assert there.distances.is_cuda
    for found in (streamed, there):
        torch.testing.assert_close(found.distances.cpu(), want.distances, rtol=1e-4, atol=1e-5)
        assert dtype == torch.float16 or found.indices.cpu().equal(want.indices)


def test_among_by_hand():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 3.0], [0.0, 0.0]])
    found = nearest_among(x, 2, among=torch.tensor([False, True, True, True]))
    assert found.indices.tolist() == [[3, 2], [1, 2], [2, 1], [3, 2]]
    root = 18**0.5
    assert torch.allclose(found.distances, torch.tensor([[0, root], [0, 1], [0, 1], [0, root]]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("whole", [True, False])
def test_among_agrees_with_exact_arithmetic(metric, whole):
    numbers = st.integers(-2, 2).map(float) if whole else st.floats(-4, 4, width=16)
    shapes = st.tuples(st.integers(1, 24), st.integers(1, 3))

    @settings(max_examples=40, deadline=None)
    @given(
        shapes.flatmap(lambda s: hnp.arrays(np.float32, s, elements=numbers)),
        st.integers(1, 23),
        st.integers(1, 30),
        st.data(),
    )
    def check(features, k, chunk_rows, data):
        if metric == "cosine":
            features[(np.abs(features) < 0.01).all(1)] = 1
        size = len(features)
        among = data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
        rows = [row for row in range(size) if among[row]]
        k = min(k, len(rows))
        found = nearest_among(
            torch.from_numpy(features), k, among=torch.tensor(among), metric=metric, chunk_rows=chunk_rows
        )
        values = reference.distances(features, metric)
        for row, want in enumerate(reference.among(values, k, rows)):
            near = found.indices[row].tolist()
            assert len(set(near)) == k
            assert set(near) <= set(rows)
            if whole and metric != "cosine":  # ties go to the lowest row
                assert near == [j for _, j in want]
            for j, (value, _) in zip(near, want, strict=True):
                assert float(values[row][j]) == pytest.approx(float(value), rel=1e-4, abs=1e-5)

    check()


@pytest.mark.parametrize("metric", METRICS)
def test_among_many_does_not_depend_on_chunks(metric):
    x = normal(700, 20, dtype=torch.float32) + 30
    x = torch.cat([x, x[:50]])
    among = torch.rand(750, generator=torch.Generator().manual_seed(1)) < 0.8
    far = exact(x, metric)[:, among]
    for chunk_rows in (7, 200, None):
        found = nearest_among(x, 6, among=among, metric=metric, chunk_rows=chunk_rows)
        assert among[found.indices].all()
        want = far.sort(1).values[:, :6]
        assert torch.allclose(found.distances.double(), want, rtol=1e-5, atol=1e-6)


def test_among_finds_what_rounding_hides():
    # far from the origin of all, and a thousand times nearer to each other than float32 products can tell
    x = 1e-4 * normal(60, 3)
    x[0] = 100
    x = x.float()
    among = torch.arange(60) % 2 == 0
    found = nearest_among(x, 5, among=among)
    want = exact(x, "euclidean")[:, among].sort(1)
    assert torch.allclose(found.distances[1:].double(), want.values[1:, :5], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 4}, ConfigError, "4 neighbours of each row were asked for among 3 rows"),
        ({"k": 0}, ConfigError, "k must be"),
        ({"among": torch.zeros(5)}, ShapeError, "among must be a bool"),
        ({"among": torch.ones(4, dtype=torch.bool)}, ShapeError, r"among must have shape \(5,\)"),
        ({"metric": "hamming"}, ConfigError, "metric"),
        ({"features": torch.full((5, 2), torch.nan)}, DataError, "finite"),
    ],
)
def test_among_refuses_what_it_cannot_use(change, error, message):
    arguments = {"features": torch.rand(5, 2), "k": 2, "among": torch.arange(5) < 3} | change
    with pytest.raises(error, match=message):
        nearest_among(arguments.pop("features"), arguments.pop("k"), **arguments)


@pytest.mark.gpu
def test_cuda_finds_the_same_among():
    x, among = normal(900, 8), torch.arange(900) % 3 == 0
    want = nearest_among(x, 7, among=among)
    found = nearest_among(x.cuda(), 7, among=among.cuda())
    assert found.indices.is_cuda
    assert found.indices.cpu().equal(want.indices)
    assert torch.allclose(found.distances.cpu(), want.distances)


def test_of_some_rows_by_hand():
    x = torch.tensor([[0.0], [1.0], [3.0], [3.0], [9.0]])
    found = neighbors_of(x, 2, rows=torch.tensor([4, 0, 3]))
    assert found.indices.tolist() == [[2, 3], [1, 2], [2, 1]]
    assert found.distances.tolist() == [[6, 6], [1, 3], [0, 2]]


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("chunk_rows", [None, 7])
def test_neighbours_of_some_rows_are_their_rows_of_the_graph(metric, whole, chunk_rows):
    x = normal(90, 4) * 3 + 1
    x = x.round() if whole else x
    x[(x == 0).all(1)] = 1
    rows = torch.randperm(90, generator=torch.Generator().manual_seed(1))[:23]
    found = neighbors_of(x, 6, rows=rows, metric=metric, chunk_rows=chunk_rows)
    graph = knn_graph(x, 6, metric=metric, backend="torch")
    assert torch.allclose(found.distances, graph.distances[rows])
    if not whole or metric != "cosine":
        assert found.indices.equal(graph.indices[rows])


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_of_some_rows_whatever_their_size(size):
    x = normal(50, 4).float()
    rows = torch.tensor([7, 3])
    assert neighbors_of(x * size, 5, rows=rows).indices.equal(neighbors_of(x, 5, rows=rows).indices)
    assert neighbors_of(x.half(), 5, rows=rows).indices.equal(neighbors_of(x.half().float(), 5, rows=rows).indices)


def test_of_some_rows_finds_what_rounding_hides():
    x = 1e-4 * normal(60, 3)
    x[0] = 100
    x, rows = x.float(), torch.arange(30, 50)
    want = exact(x, "euclidean").fill_diagonal_(torch.inf)[rows].sort(1)
    assert torch.allclose(neighbors_of(x, 5, rows=rows).distances.double(), want.values[:, :5], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 5}, ConfigError, "5 neighbours of each row need at least 6 rows, features has 5"),
        ({"k": 0}, ConfigError, "k must be"),
        ({"rows": torch.tensor([0, 0])}, ShapeError, "rows must be distinct"),
        ({"rows": torch.tensor([5])}, ShapeError, r"rows must lie in \[0, 5\)"),
        ({"rows": torch.tensor([], dtype=torch.int64)}, ShapeError, "at least one row"),
        ({"metric": "hamming"}, ConfigError, "metric"),
        ({"features": torch.full((5, 2), torch.nan)}, DataError, "finite"),
    ],
)
def test_of_some_rows_refuses_what_it_cannot_use(change, error, message):
    arguments = {"features": torch.rand(5, 2), "k": 2, "rows": torch.tensor([1])} | change
    with pytest.raises(error, match=message):
        neighbors_of(arguments.pop("features"), arguments.pop("k"), **arguments)


@pytest.mark.gpu
def test_cuda_finds_the_same_of_some_rows():
    x, rows = normal(900, 8), torch.arange(0, 900, 7)
    want, found = neighbors_of(x, 7, rows=rows), neighbors_of(x.cuda(), 7, rows=rows.cuda())
    assert found.indices.is_cuda
    assert found.indices.cpu().equal(want.indices)
    assert torch.allclose(found.distances.cpu(), want.distances)
