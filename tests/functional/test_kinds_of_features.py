"""What all functions take as features, masks and labels beside tensors: arrays, mapped files, whole numbers, lists."""

import inspect
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from torchal import functional, samplers
from torchal.engine.features import FeatureReader
from torchal.engine.file_rows import FileRows
from torchal.errors import CapabilityError, DataError, ShapeError
from torchal.pool.view import PoolView
from torchal.samplers import KCenterGreedy

N, D, C = 36, 4, 3


def seeded():
    return torch.Generator().manual_seed(0)


def drawn(seed, *shape, high=120):
    return torch.randint(1, high, shape, generator=torch.Generator().manual_seed(seed))


X = drawn(0, N, D)
LABELED = torch.arange(N) % 9 == 0
CANDIDATES = torch.arange(N) % 3 == 1
LOG_PROBS = torch.rand(N, C, generator=seeded()).log_softmax(1)
SCORES = torch.rand(N, generator=seeded())
TARGETS = torch.where(LABELED, torch.arange(N) % C, -1)
CLUSTERS = torch.arange(N) % 4
WEIGHT, BIAS = torch.rand(C, D, generator=seeded()) / 100, torch.zeros(C)
ROWS = torch.tensor([1, 4, 10])

F = functional


def picked_from_a_cover(x, rows, **given):
    cover = F.Cover(x)
    cover.add(rows)
    return cover.pick(3, **given), cover.distances


masks = {"labeled": LABELED, "candidates": CANDIDATES}
CALLS = {
    F.alfa_mix: lambda x, n=3, **k: F.alfa_mix(x, n, generator=seeded(), **k),
    F.assign_to_centers: F.assign_to_centers,
    F.badge: lambda x, log_probs, **k: F.badge(log_probs, x, 3, generator=seeded(), **k),
    F.bait: lambda x, log_probs, **k: F.bait(log_probs, x, 3, **k),
    F.BallCover: lambda x, **k: F.BallCover(x, radius=40.0).pick(3, **k),
    F.class_means: F.class_means,
    F.cluster_representatives: lambda x, **k: F.cluster_representatives(x, 3, generator=seeded(), **k),
    F.cluster_tree: lambda x: F.cluster_tree(x, generator=seeded()).children,
    F.combined_greedy: lambda x, scores, **k: F.combined_greedy(
        3, features=x, utilities=[scores], strengths=[1.0], **k
    ),
    F.contrastive: lambda x, log_probs, **k: F.contrastive(log_probs, x, **k),
    F.Cover: lambda x, **k: picked_from_a_cover(x, **k),
    F.density_graph: lambda x: F.density_graph(x, 5),
    F.drop_query: lambda x, **k: F.drop_query(x, 3, generator=seeded(), **k),
    F.dropout_disagreement: lambda x, **k: F.dropout_disagreement(x, generator=seeded(), **k),
    F.expected_error_reduction: lambda x, log_probs, **k: F.expected_error_reduction(log_probs, x, **k),
    F.expected_gradient_length: lambda x, log_probs: F.expected_gradient_length(log_probs, x),
    F.facility_location: lambda x, **k: F.facility_location(x, 3, **k),
    F.flip_eps: F.flip_eps,
    F.glister: lambda x, **k: F.glister(x, 3, **k),
    F.graph_cut: lambda x, **k: F.graph_cut(x, 3, **k),
    F.hac_clusters: lambda x: F.hac_clusters(x, generator=seeded()),
    F.hierarchical_kmeans: lambda x: F.hierarchical_kmeans(
        x, (5, 2), generator=seeded(), n_resamples=1, max_iterations=2
    ),
    F.information_density: F.information_density,
    F.k_center_by_parts: lambda x, **k: F.k_center_by_parts(x, 3, part_rows=20, **k),
    F.k_center_greedy: lambda x, **k: F.k_center_greedy(x, 3, **k),
    F.kmeans: lambda x, **k: F.kmeans(x, 3, generator=seeded(), **k),
    F.kmeans_plus_plus: lambda x, **k: F.kmeans_plus_plus(x, 3, generator=seeded(), **k),
    F.knn_graph: lambda x: F.knn_graph(x, 4),
    F.labeled_distance: lambda x, **k: F.labeled_distance(x, **k),
    F.lcmd: lambda x, **k: F.lcmd(x, 3, **k),
    F.log_det: lambda x, **k: F.log_det(x, 3, **k),
    F.margin_cluster_mean: lambda x, **k: F.margin_cluster_mean(x, 3, generator=seeded(), **k),
    F.max_det: lambda x, log_probs, **k: F.max_det(log_probs, x, 3, **k),
    F.max_dist: lambda x, **k: F.max_dist(x, 3, **k),
    F.max_herding: lambda x, **k: F.max_herding(x, 3, **k),
    F.nearest_among: lambda x, **k: F.nearest_among(x, 2, **k),
    F.nearest_rows: F.nearest_rows,
    F.neighbors_of: lambda x, **k: F.neighbors_of(x, 2, **k),
    F.prob_cover: lambda x, **k: F.prob_cover(x, 3, radius=40.0, **k),
    F.purity_radius: lambda x: F.purity_radius(x, n_clusters=3, generator=seeded(), max_iterations=2),
    F.query_similarity: F.query_similarity,
    F.represents: F.represents,
    F.saturated_coverage: lambda x, **k: F.saturated_coverage(x, 3, **k),
    F.similar: lambda x, **k: F.similar(x, 3, measure="flqmi", **k),
    F.typical_rows: lambda x, **k: F.typical_rows(x, 3, **k),
    F.typiclust: lambda x, **k: F.typiclust(x, 3, generator=seeded(), max_clusters=9, max_iterations=2, **k),
    F.uncertainty_herding: lambda x, **k: F.uncertainty_herding(x, 3, **k),
}
layer = {"weight": WEIGHT, "bias": BIAS}
candidates = {"candidates": CANDIDATES}
log_probs = {"log_probs": LOG_PROBS}
weights = {"weights": SCORES}
among = {"among": LABELED}
BESIDE = {
    F.alfa_mix: {**layer, **candidates, "anchors": X[:2].float()},
    F.assign_to_centers: {"centers": ROWS},
    F.badge: {**log_probs, **candidates},
    F.bait: {**log_probs, **masks},
    F.BallCover: masks,
    F.class_means: {"targets": TARGETS},
    F.cluster_representatives: {"wanted": ~LABELED, "scores": SCORES, **candidates},
    F.combined_greedy: {"scores": SCORES, **masks, **log_probs},
    F.contrastive: {**log_probs, "labeled": LABELED},
    F.Cover: {"rows": ROWS, "candidates": ~CANDIDATES, **weights},
    F.drop_query: {**layer, **candidates},
    F.dropout_disagreement: layer,
    F.expected_error_reduction: {**log_probs, "labeled": LABELED, "rows": ROWS},
    F.expected_gradient_length: log_probs,
    F.facility_location: {**masks, **weights},
    F.flip_eps: {**layer, "anchors": X[:2].float()},
    F.glister: {
        **layer,
        **candidates,
        "validation_features": X[:5].float(),
        "validation_targets": torch.tensor([0, 1, 2, 0, 1]),
    },
    F.graph_cut: masks,
    F.information_density: {"among": ~LABELED},
    F.k_center_by_parts: masks,
    F.k_center_greedy: {**masks, **weights},
    F.kmeans: weights,
    F.kmeans_plus_plus: {**weights, "labeled": LABELED},
    F.labeled_distance: {"labeled": LABELED},
    F.lcmd: {**masks, **log_probs},
    F.log_det: masks,
    F.margin_cluster_mean: {"uncertainty": SCORES, "inside": ~LABELED, **candidates},
    F.max_det: {**log_probs, **masks},
    F.max_dist: masks,
    F.max_herding: masks,
    F.nearest_among: among,
    F.nearest_rows: {"centers": X[:3].float()},
    F.neighbors_of: {"rows": ROWS},
    F.prob_cover: masks,
    F.query_similarity: {"queries": ROWS},
    F.represents: {"picks": ROWS, "among": ~LABELED},
    F.saturated_coverage: {**masks, **weights},
    F.similar: {"query": X[:2].float(), **masks},
    F.typical_rows: {"clusters": CLUSTERS, **masks},
    F.typiclust: masks,
    F.uncertainty_herding: {"uncertainty": SCORES, **masks},
}


def mapped(x, path, dtype):
    """Return the numbers as a mapped file of a dtype."""
    there = np.memmap(path, dtype, "w+", shape=tuple(x.shape))
    there[:] = x.numpy()
    there.flush()
    return np.memmap(path, dtype, "r", shape=tuple(x.shape))


def read_only(array):
    array.flags.writeable = False
    return array


def with_gaps(array):
    return np.repeat(array, 2, axis=1)[:, ::2]


def packed(array):
    """Return a column of a record whose bytes lie at odd places."""
    records = np.zeros(len(array), dtype=[("kind", "u1"), ("x", array.dtype, array.shape[1:])])
    records["x"] = array
    return records["x"]


def in_files(x, path, dtype):
    """Return the numbers as the rows of two files of a dtype."""
    numbers = x.to(dtype).view(torch.int16).numpy()
    files = [path.with_suffix(f".{i}") for i in range(2)]
    for file, part in zip(files, (numbers[:11], numbers[11:]), strict=True):
        part.tofile(file)
    return FileRows(files, dtype, n_columns=x.shape[1])


KINDS = {
    "float16": lambda x, _: x.numpy().astype(np.float16),
    "float32": lambda x, _: x.numpy().astype(np.float32),
    "float64": lambda x, _: x.numpy().astype(np.float64),
    "read-only": lambda x, _: read_only(x.numpy().astype(np.float32)),
    "big-endian": lambda x, _: x.numpy().astype(">f4"),
    "backwards": lambda x, _: x.numpy().astype(np.float32)[::-1].copy()[::-1],
    "by columns": lambda x, _: np.asfortranarray(x.numpy().astype(np.float32)),
    "with gaps": lambda x, _: with_gaps(x.numpy().astype(np.float32)),
    "unaligned": lambda x, _: packed(x.numpy().astype(np.float32)),
    "matrix": lambda x, _: x.numpy().astype(np.float32).view(np.matrix),
    "unmasked": lambda x, _: np.ma.MaskedArray(x.numpy().astype(np.float32)),
    "mapped integers": lambda x, path: mapped(x, path, ">i2"),
    "mapped bytes": lambda x, path: mapped(x, path, np.uint8),
    "files of bfloat16": lambda x, path: in_files(x, path, torch.bfloat16),
    "files of float16": lambda x, path: in_files(x, path, torch.float16),
    **{f"array of {dtype}": lambda x, _, d=dtype: x.numpy().astype(d) for dtype in ("u1", "i1", "i2", "i4", "i8")},
    **{f"array of {dtype}": lambda x, _, d=dtype: x.numpy().astype(d) for dtype in ("u2", "u4", "u8", ">u2")},
    **{f"tensor of {dtype}": lambda x, _, d=dtype: x.to(d) for dtype in (torch.uint8, torch.int16, torch.int64)},
    **{f"tensor of {dtype}": lambda x, _, d=dtype: x.to(d) for dtype in (torch.uint16, torch.uint32, torch.uint64)},
}


def as_read(x, features):
    """Return the same numbers as the tensor that it is said to be read as."""
    return x.to(FeatureReader(features).dtype)


def numbers(result):
    """Return all that a function answered with, as a list of tensors."""
    if isinstance(result, torch.Tensor):
        return [result.to_dense()]
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in numbers(part)]
    return [torch.tensor(result)]


def check_same(got, want):
    got, want = numbers(got), numbers(want)
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        assert (one.dtype, one.shape, one.device) == (other.dtype, other.shape, other.device)
        if one.is_floating_point():
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, equal_nan=True)
        else:
            assert torch.equal(one, other)


def takes_features(function):
    parameters = inspect.signature(function).parameters.values()
    return any("Features" in str(parameter.annotation) for parameter in parameters)


def test_all_functions_that_take_features_are_here():
    public = {value for name, value in vars(functional).items() if not name.startswith("_") and callable(value)}
    assert set(CALLS) == {value for value in public if takes_features(value)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_taken(kind, tmp_path):
    check_kind(KINDS[kind](X, tmp_path / "x.bin"), (F.k_center_greedy, F.kmeans_plus_plus, F.cluster_tree))


@pytest.mark.parametrize("kind", ["big-endian", "mapped integers", "files of bfloat16", "tensor of torch.uint8"])
def test_every_function_takes_them(kind, tmp_path):
    check_kind(KINDS[kind](X, tmp_path / "x.bin"), CALLS)


def check_kind(features, functions):
    want = as_read(X, features)
    for function in functions:
        call = CALLS[function]
        beside = BESIDE.get(function, {})
        check_same(call(features, **beside), call(want, **beside))


FOR_ARRAYS_ONLY = {"anchors", "query", "validation_features"}  # and what is a matrix in some functions


@pytest.mark.parametrize("convert", [lambda values: read_only(values.copy()), np.ndarray.tolist])
def test_masks_weights_and_labels_may_be_arrays_or_lists(convert):
    for function, call in CALLS.items():
        beside = {
            name: value.double() if value.is_floating_point() else value
            for name, value in BESIDE.get(function, {}).items()
        }
        matrices = FOR_ARRAYS_ONLY | ({"centers"} if function is F.nearest_rows else set())
        matrices |= {"log_probs"} if function in {F.badge, F.lcmd, F.max_det} else set()
        kept = matrices if convert is np.ndarray.tolist else set()
        given = {name: value if name in kept else convert(value.numpy()) for name, value in beside.items()}
        check_same(call(X.numpy(), **given), call(X.double(), **beside))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "?", ">i2", "f4"]),
    st.integers(0, 2**31),
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 9),
)
def test_picks_of_any_numbers_are_those_of_floats(dtype, seed, n_rows, n_columns, chunk_rows):
    draw = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    low, high = (0, 2) if kind.kind in "bf" else (max(np.iinfo(kind).min, -(2**31)), min(np.iinfo(kind).max, 2**31))
    x = draw.integers(low, high, (n_rows, n_columns)).astype(kind)
    n = 1 + seed % n_rows
    wide = torch.tensor(x.astype(np.float64))
    assert FeatureReader(x).dtype == (torch.float64 if kind.kind in "iu" and kind.itemsize > 2 else torch.float32)
    got = functional.k_center_greedy(x, n, chunk_rows=chunk_rows)
    check_same(got, functional.k_center_greedy(wide.to(FeatureReader(x).dtype), n, chunk_rows=chunk_rows))
    assert torch.equal(FeatureReader(x).rows(got.indices).double(), wide[got.indices])


class TestMemory:
    def test_an_array_is_read_where_it_is(self):
        x = np.zeros((100, 4), np.float32)
        for array in (x, x[::2], x.T[:, :4], read_only(x.copy())):
            assert FeatureReader(array).read(0, 2).data_ptr() == array.__array_interface__["data"][0]

    def test_a_reader_outlives_the_name_of_a_read_only_array(self):
        reader = FeatureReader(read_only(np.full((1000, 4), 7.0)))
        assert bool((reader.read(0, 1000) == 7).all())

    def test_whole_numbers_are_never_copied_whole(self):
        x = np.arange(2_000_000, dtype=np.uint8).reshape(-1, 4)
        tracemalloc.start()
        reader = FeatureReader(x)
        total = sum(float(reader.read(start, start + 1000).sum()) for start in range(0, len(x), 1000))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total == x.sum()
        assert most < x.nbytes / 4


class TestErrors:
    @pytest.mark.parametrize(
        ("features", "error", "words"),
        [
            (np.zeros((3, 2), complex), ShapeError, "64 bits, got an array of complex128"),
            (np.zeros((3, 2), object), ShapeError, "got an array of object"),
            (np.array([["a"], ["b"]]), ShapeError, "got an array of <U1"),
            (np.zeros((3, 2), "M8[s]"), ShapeError, r"got an array of datetime64\[s\]"),
            (np.zeros((3, 2), np.longdouble), ShapeError, "got an array of (float128|longdouble)"),
            (np.zeros(3, [("a", "f4")]), ShapeError, r"got an array of \[\('a', '<f4'\)\]"),
            (np.ma.MaskedArray(np.zeros((3, 2)), mask=np.eye(3, 2)), DataError, "no masked values, got 2 of 6"),
            (pd.DataFrame({"a": [1.0]}), ShapeError, r"got DataFrame; use features.to_numpy\(\)"),
            (np.zeros(3), ShapeError, r"2 axes, got shape \(3,\)"),
            (np.zeros((0, 3)), DataError, "no rows"),
            (np.zeros((3, 0), np.uint8), ShapeError, "at least one column"),
            (torch.zeros(3, 2, dtype=torch.complex64), ShapeError, "real numbers, got torch.complex64"),
            ([[1.0]], ShapeError, "a torch.Tensor or a NumPy array, got list"),
            (np.array([[1.0], [np.nan]]), DataError, "1 of 2 rows are not, the first is row 1"),
        ],
    )
    def test_of_features(self, features, error, words):
        with pytest.raises(error, match=words):
            functional.k_center_greedy(features, 1)

    @pytest.mark.parametrize(
        ("given", "error", "words"),
        [
            (
                {"labeled": np.arange(N) % 2},
                ShapeError,
                "labeled must be a bool tensor or array, got ndarray of torch.int64",
            ),
            ({"labeled": [0, 1] * (N // 2)}, ShapeError, "got list of torch.int64"),
            ({"candidates": [True, [False]]}, ShapeError, "candidates must be a tensor or an array of numbers"),
            ({"candidates": ["yes"] * N}, ShapeError, "got an array of <U3"),
            ({"candidates": [True, None] * (N // 2)}, ShapeError, "got an array of object"),
            ({"candidates": pd.Series([True] * N)}, ShapeError, r"got Series; use candidates.to_numpy\(\)"),
            ({"weights": [1] * N}, ShapeError, "weights must be floating point, got torch.int64"),
            ({"weights": np.ones(N - 1)}, ShapeError, rf"weights must be \({N},\) on cpu, got \({N - 1},\)"),
            ({"weights": np.ma.MaskedArray([1.0] * N, mask=[True] + [False] * (N - 1))}, DataError, f"got 1 of {N}"),
        ],
    )
    def test_of_what_is_beside_them(self, given, error, words):
        with pytest.raises(error, match=words):
            functional.k_center_greedy(X.numpy(), 1, **given)

    def test_labels_are_whole_numbers(self):
        with pytest.raises(ShapeError, match=r"targets must be \(n,\) integers, got torch.float64"):
            functional.class_means(X.numpy(), np.zeros(N))
        check_same(
            functional.class_means(X.numpy(), TARGETS.numpy().astype(np.int8)), functional.class_means(X, TARGETS)
        )

    def test_log_probs_are_no_whole_numbers(self):
        with pytest.raises(ShapeError, match="log_probs must be floating point"):
            functional.badge(np.zeros((N, 1), int), X.numpy(), 1, generator=seeded())


class TestViews:
    @pytest.mark.parametrize("kind", KINDS)
    def test_take_what_functions_take(self, kind, tmp_path):
        features = KINDS[kind](X, tmp_path / "x.bin")
        view = PoolView.from_tensors(features=features, labeled=LABELED.numpy(), targets=TARGETS.numpy())
        want = PoolView.from_tensors(features=as_read(X, features), targets=TARGETS)
        check_same(KCenterGreedy().select(view, 5), KCenterGreedy().select(want, 5))

    def test_every_sampler_takes_them(self):
        outputs = {"log_probs": LOG_PROBS, "posterior_log_probs": LOG_PROBS.unsqueeze(1), "targets": TARGETS}
        outputs |= {"scores": LOG_PROBS, "last_layer": (WEIGHT, BIAS)}
        given = PoolView.from_tensors(features=X.numpy().astype(">f4"), **outputs)
        want = PoolView.from_tensors(features=X.float(), **outputs)
        n_tried = 0
        for name in samplers.names():
            try:
                picks = samplers.from_name(name).select(want, 3)
            except CapabilityError:  # it wants a model that can be fitted again
                continue
            check_same(samplers.from_name(name).select(given, 3), picks)
            n_tried += 1
        assert n_tried > 40

    def test_do_not_copy(self):
        x = read_only(np.zeros((100, 4), np.float32))
        assert PoolView.from_tensors(features=x).features.data_ptr() == x.__array_interface__["data"][0]

    def test_refuse_what_functions_refuse(self):
        with pytest.raises(ShapeError, match="features must be numbers of at most 64 bits, got an array of object"):
            PoolView.from_tensors(features=np.zeros((3, 2), object))
        with pytest.raises(DataError, match="got 2 of 6"):
            PoolView.from_tensors(features=np.ma.MaskedArray(np.zeros((3, 2)), mask=np.eye(3, 2)))
