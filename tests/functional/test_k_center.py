import itertools
import os
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import k_center as reference
from torchal import BudgetError, CapabilityError, ConfigError, DataError, ShapeError
from torchal._chunks import Chunker
from torchal.engine import greedy
from torchal.engine.distances import ManhattanSpace, Space
from torchal.errors import DeviceMemoryError
from torchal.functional import Cover, assign_to_centers, k_center, k_center_greedy

METRICS = ["euclidean", "cosine", "manhattan"]


@pytest.fixture(params=[4, 1024], ids=["tiny blocks", "usual blocks"])
def block_rows(request, monkeypatch):
    """With tiny blocks, small pools too go through every level of the engine."""
    monkeypatch.setattr(Space, "block_rows", request.param)
    monkeypatch.setattr(ManhattanSpace, "block_rows", request.param)
    return request.param


def mask(n_rows, rows):
    out = torch.zeros(n_rows, dtype=torch.bool)
    out[list(rows)] = True
    return out


def normal(n_rows, n_columns, seed=0, dtype=torch.float64):
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def assert_picks(features, n, labeled, metric="euclidean", **settings):
    """Compare with one pass per pick in float64."""
    want, scores = reference.plain_greedy(features, n, labeled, ~labeled, metric)
    got = k_center_greedy(features, n, labeled=labeled, metric=metric, **settings)
    assert got.indices.tolist() == want
    assert got.scores.tolist() == pytest.approx(scores, rel=1e-5, abs=1e-6)


def test_by_hand():
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [-6.0, 8.0]])
    picks = k_center_greedy(x, 3, labeled=mask(4, [0]))
    assert picks.indices.tolist() == [3, 1, 2]
    assert picks.scores.tolist() == pytest.approx([10.0, 5.0, 1.0])
    picks = k_center_greedy(x, 3, labeled=mask(4, [0]), metric="manhattan")
    assert picks.indices.tolist() == [3, 1, 2]
    assert picks.scores.tolist() == pytest.approx([14.0, 7.0, 1.0])
    picks = k_center_greedy(x[1:], 2, labeled=mask(3, [0]), metric="cosine")
    assert picks.indices.tolist() == [2, 1]
    assert picks.scores.tolist() == pytest.approx([1 - 0.28, 0.2])


whole_numbers = st.tuples(st.integers(2, 30), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.integers(-2, 2).map(float)),
        hnp.arrays(np.bool_, shape[0]),
        st.integers(1, shape[0]),
        st.integers(1, shape[0]),
    )
)


@pytest.mark.parametrize("metric", METRICS)
def test_whole_numbers_agree_with_exact_arithmetic_ties_included(metric, block_rows):
    @settings(max_examples=60, deadline=None)
    @given(whole_numbers)
    def check(case):
        features, labeled, n, chunk_rows = case
        labeled[0], labeled[-1] = True, False
        if metric == "cosine":
            features[(features == 0).all(1)] = 1
        n = min(n, int((~labeled).sum()))
        got = k_center_greedy(
            torch.from_numpy(features), n, labeled=torch.from_numpy(labeled), metric=metric, chunk_rows=chunk_rows
        )
        assert got.indices.tolist() == reference.k_center_greedy(features, n, labeled, ~labeled, metric)

    check()


@pytest.mark.parametrize("metric", METRICS)
def test_any_numbers_are_picked_greedily_up_to_the_stated_bound(metric, block_rows):
    shapes = st.tuples(st.integers(2, 20), st.integers(1, 3))
    numbers = st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3)

    @settings(max_examples=50, deadline=None)
    @given(shapes.flatmap(lambda s: hnp.arrays(np.float32, s, elements=numbers)), st.integers(1, 20))
    def check(features, n):
        n = min(n, len(features) - 1)
        if metric == "cosine":
            features[(features == 0).all(1)] = 1
        labeled = mask(len(features), [len(features) // 2])
        picks = k_center_greedy(torch.from_numpy(features), n, labeled=labeled, metric=metric).indices.tolist()
        rows = reference.as_fractions(features)
        nearest = [reference.distance(row, rows[len(rows) // 2], metric) for row in rows]
        left = {row for row in range(len(rows)) if not labeled[row]}
        # distances below this may be rounded to those of equal rows
        size = max(float(value) for value in reference_sizes(rows, metric))
        for pick in picks:
            best = max(nearest[row] for row in left)
            assert nearest[pick] >= best - 4 * (features.shape[1] + 4) * 2.0**-23 * size
            if nearest[pick] > 0:
                assert not any(rows[other] == rows[pick] for other in left if other < pick)
            left.remove(pick)
            nearest = [
                min(old, reference.distance(row, rows[pick], metric)) for old, row in zip(nearest, rows, strict=True)
            ]

    def reference_sizes(rows, metric):
        if metric == "cosine":
            return [4]  # 1 - cos |cos| changes at most twice as fast as 1 - cos
        mean = [Fraction(sum(column), len(rows)) for column in zip(*rows, strict=True)]
        return [2 * reference.distance(row, mean, metric) for row in rows]

    check()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("chunk_rows", "share", "threads"), [(7, 8, 2), (64, 2, 1), (5000, 64, 2), (None, 3, 1), (1000, 8, 1)]
)
def test_blocks_chunks_and_threads_change_no_pick(metric, chunk_rows, share, threads, block_rows, monkeypatch):
    monkeypatch.setattr(greedy, "_SHARE", share)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_picks(normal(900, 6), 200, mask(900, range(3)), metric, chunk_rows=chunk_rows)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("chunk_rows", [None, 13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_equal_rows_the_lowest_comes_first(metric, chunk_rows, dtype, block_rows):
    once = normal(150, 9, dtype=dtype) + 5
    place = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    features = torch.cat([once, once])[place]
    twin = {int(a): int(b) for a, b in zip(place.argsort()[:150], place.argsort()[150:], strict=True)}
    twin |= {b: a for a, b in twin.items()}
    start = int(place.argsort()[0])
    picks = k_center_greedy(features, 299, labeled=mask(300, [start]), metric=metric, chunk_rows=chunk_rows).indices
    assert all(row < twin[row] for row in picks[:149].tolist())
    rest = picks[149:].tolist()  # nothing but copies of centres is left
    assert rest == sorted(rest)
    if dtype == torch.float64:
        assert_picks(features, 149, mask(300, [start]), metric, chunk_rows=chunk_rows)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("fraction", [0.0, 0.3], ids=["whole", "fractional"])
def test_more_equal_rows_than_a_block_holds(metric, fraction, block_rows):
    kinds = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [3, 1, 0]]) + fraction
    kind = torch.arange(4000) % 3
    kind[:2], kind[3999] = 0, 3
    features = kinds[kind]
    picks = k_center_greedy(features, 8, labeled=mask(4000, [0]), metric=metric).indices.tolist()
    first = {"euclidean": 3999, "manhattan": 3999, "cosine": 2}[metric]
    assert picks[0] == first
    assert sorted(picks[:3]) == [2, 4, 3999]
    assert picks[3:] == [1, 3, 5, 6, 7]


@pytest.mark.parametrize("metric", METRICS)
def test_one_hot_categories(metric, block_rows):
    # all distances are among few values, so there are far more ties than picks
    columns = torch.randint(0, 4, (300, 4), generator=torch.Generator().manual_seed(3))
    features = torch.nn.functional.one_hot(columns, 4).flatten(1).float()
    labeled = mask(300, [0])
    picks = k_center_greedy(features, 30, labeled=labeled, metric=metric)
    assert picks.indices.tolist() == reference.k_center_greedy(features, 30, labeled, ~labeled, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_one_hot_categories_times_a_fraction(metric, block_rows):
    # the same ties, known up to rounding only: any of them may come first, but nothing that is nearer
    columns = torch.randint(0, 4, (500, 6), generator=torch.Generator().manual_seed(3))
    features = torch.nn.functional.one_hot(columns, 4).flatten(1).float() * 0.3
    picks = k_center_greedy(features, 60, labeled=mask(500, [0]), metric=metric)
    far = {"manhattan": torch.cdist(features, features, p=1), "euclidean": torch.cdist(features, features)}
    unit = features / features.norm(dim=1, keepdim=True)
    far = far.get(metric, 1 - unit @ unit.T)
    nearest, left = far[0].clone(), torch.arange(500) > 0
    for row, score in zip(*picks, strict=True):
        assert score == pytest.approx(float(nearest[row]), abs=1e-3)  # cdist rounds more than we do
        assert score >= nearest[left].max() - 1e-3
        left[row] = False
        nearest = torch.minimum(nearest, far[row])


@pytest.mark.parametrize("metric", METRICS)
def test_constant_features(metric):
    picks = k_center_greedy(torch.full((50, 3), 0.1), 49, labeled=mask(50, [20]), metric=metric)
    assert picks.indices.tolist() == [row for row in range(50) if row != 20]
    assert picks.scores.tolist() == [0.0] * 49


@pytest.mark.parametrize("offset", [50.0, 1e4, 1e6])
def test_a_huge_offset_changes_nothing(offset, block_rows):
    features = normal(400, 16, dtype=torch.float32) + offset  # what is left of them after rounding is the data
    assert_picks(features, 60, mask(400, [0]))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("size", "dtype"), [(1e-30, torch.float32), (1e30, torch.float32), (1e-200, torch.float64), (1e200, torch.float64)]
)
def test_tiny_and_huge_numbers(metric, size, dtype):
    small = normal(200, 5, dtype=dtype)
    want = k_center_greedy(small, 50, labeled=mask(200, [0]), metric=metric)
    got = k_center_greedy(small * size, 50, labeled=mask(200, [0]), metric=metric)
    assert got.indices.equal(want.indices)
    factor = 1 if metric == "cosine" else size
    assert got.scores.tolist() == pytest.approx((want.scores.double() * factor).tolist(), rel=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_far_groups_are_told_apart_inside(metric):
    # within a group, distances are lost in the rounding of the lengths unless near pairs are computed again
    groups = torch.tensor([[1000.0, 0, 0, 3], [0, 1000, 0, 5], [0, 0, 1000, 2]])
    features = (groups[torch.arange(90) % 3] + normal(90, 4) * 0.05).float()
    if metric != "cosine":
        assert_picks(features, 60, mask(90, [0]), metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("whole", [True, False])
def test_without_labels_it_starts_far_from_the_mean(metric, whole):
    features = normal(40, 3) * 3 + 1
    features = features.round() if whole else features
    features[(features == 0).all(1)] = 1
    picks = k_center_greedy(features, 5, metric=metric)
    first = int(picks.indices[0])
    if metric == "cosine":
        unit = features / features.norm(dim=1, keepdim=True)
        assert first == int((unit - unit.mean(0)).norm(dim=1).argmax())
    else:
        assert first == reference.farthest_from_mean(features, torch.ones(40), metric)
    rest = k_center_greedy(features, 4, labeled=mask(40, [first]), metric=metric)
    assert picks.indices[1:].equal(rest.indices)
    assert picks.scores[1:].equal(rest.scores)


def test_ties_for_the_first_pick_go_to_the_lowest_row():
    features = torch.tensor([[1.0, 1], [0, 0], [-1, 1], [1, -1], [-1, -1], [1, 1], [-1, 1], [0, 1]])
    assert int(k_center_greedy(features, 1).indices) == reference.farthest_from_mean(features, [1] * 8, "euclidean")
    assert k_center_greedy(features[:5] / 3, 1, candidates=torch.tensor([False, True, True, True, True])).indices == 2


@pytest.mark.parametrize("metric", METRICS)
def test_the_smallest_pools(metric):
    one = torch.ones(1, 2)
    assert k_center_greedy(one, 1, metric=metric).indices.tolist() == [0]
    two = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    assert k_center_greedy(two, 1, labeled=mask(2, [0]), metric=metric).indices.tolist() == [1]
    assert k_center_greedy(two, 2, metric=metric).indices.tolist() == [0, 1]
    many = normal(100, 2)
    assert k_center_greedy(many, 1, labeled=~mask(100, [42]), metric=metric).indices.tolist() == [42]
    assert sorted(k_center_greedy(many, 100, metric=metric).indices.tolist()) == list(range(100))


def test_rows_that_are_no_candidates_are_neither_picked_nor_centres(block_rows):
    features = torch.tensor([[0.0], [9.1], [9.1], [5.0], [9.1]])
    picks = k_center_greedy(features, 2, labeled=mask(5, [0]), candidates=mask(5, [2, 3, 4]))
    assert picks.indices.tolist() == [2, 3]
    assert picks.scores.tolist() == pytest.approx([9.1, 4.1])
    x = normal(300, 4)
    candidates = mask(300, range(100, 200))
    labeled = mask(300, range(10))
    want, _ = reference.plain_greedy(x, 50, labeled, candidates, "euclidean")
    assert k_center_greedy(x, 50, labeled=labeled, candidates=candidates).indices.tolist() == want


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_lie_apart_in_memory(metric):
    x = normal(200, 12, dtype=torch.float32)
    wanted = k_center_greedy(x[:, ::2].contiguous(), 30, labeled=mask(200, [0]), metric=metric).indices
    assert k_center_greedy(x[:, ::2], 30, labeled=mask(200, [0]), metric=metric).indices.equal(wanted)
    turned = x[:, ::2].T.contiguous().T
    assert k_center_greedy(turned, 30, labeled=mask(200, [0]), metric=metric).indices.equal(wanted)


def test_half_precision_is_computed_in_single():
    x = normal(300, 8, dtype=torch.float32).half()
    half, single = (k_center_greedy(rows, 40, labeled=mask(300, [0])) for rows in (x, x.float()))
    assert half.indices.equal(single.indices)
    assert half.scores.dtype == torch.float32


def test_the_callers_settings_are_neither_used_nor_changed():
    x = normal(500, 300, dtype=torch.float32).requires_grad_()
    want = k_center_greedy(x, 100, labeled=mask(500, [0]))
    assert not want.scores.requires_grad
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = k_center_greedy(x, 100, labeled=mask(500, [0]))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="torch before 2.9 has no setting per backend"
)
def test_the_settings_per_backend_are_kept_too():
    matmul, x = torch.backends.cuda.matmul, normal(50, 3)
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        assert len(k_center_greedy(x, 5).indices) == 5
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize("metric", METRICS)
def test_a_memory_mapped_file_gives_the_same_picks(metric, tmp_path):
    x = normal(700, 5, dtype=torch.float32)
    padded = np.memmap(tmp_path / "x.bin", np.float32, "w+", offset=8, shape=(1000, 5))
    padded[:] = 77
    padded[123:823] = x.numpy()
    padded.flush()
    mapped = np.memmap(tmp_path / "x.bin", np.float32, "r", offset=8, shape=(1000, 5))[123:823]
    want = k_center_greedy(x, 60, labeled=mask(700, range(5)), metric=metric)
    for chunk_rows in (None, 1, 64):
        got = k_center_greedy(mapped, 60, labeled=mask(700, range(5)), metric=metric, chunk_rows=chunk_rows)
        assert got.indices.equal(want.indices)
        assert got.scores.tolist() == pytest.approx(want.scores.tolist(), rel=1e-5)
    assert k_center_greedy(mapped, 3, metric=metric).indices.equal(k_center_greedy(x, 3, metric=metric).indices)


@pytest.mark.parametrize("kind", ["npy", "half", "big-endian", "private", "step", "columns", "fortran"])
def test_any_memory_map_is_read_right(kind, tmp_path):
    x = normal(200, 6, dtype=torch.float32).half().numpy()
    dtype = {"half": "<f2", "big-endian": ">f4"}.get(kind, "<f4")
    np.save(tmp_path / "x.npy", np.asarray(x, dtype, order="F" if kind == "fortran" else "C"))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="c" if kind == "private" else "r")
    if kind == "private":
        mapped[7] = x[7] = 3  # a change that is not in the file
    cut = {"step": np.s_[::2], "columns": np.s_[:, 1:4]}.get(kind, np.s_[:])
    rows = torch.from_numpy(np.array(x[cut], np.float32))
    labeled = mask(len(rows), [0])
    assert isinstance(mapped[cut], np.memmap)
    assert k_center_greedy(mapped[cut], 30, labeled=labeled).indices.equal(
        k_center_greedy(rows, 30, labeled=labeled).indices
    )


def test_a_file_that_was_deleted_is_read_from_the_map(tmp_path):
    x = normal(50, 4, dtype=torch.float32)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    (tmp_path / "x.npy").unlink()
    assert k_center_greedy(mapped, 9).indices.equal(k_center_greedy(x, 9).indices)


def test_a_file_that_was_cut_short_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((5000, 8), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    os.truncate(tmp_path / "x.npy", 9000)
    with pytest.raises(DataError, match="cut short"):
        k_center_greedy(mapped, 3)


def test_a_cover_goes_on_from_round_to_round(block_rows):
    x = normal(600, 7)
    cover = Cover(x)
    labeled = mask(600, [3, 4])
    cover.add(torch.tensor([3, 4]))
    for _ in range(4):
        picks = cover.pick(30)
        assert picks.indices.equal(cover.pick(30).indices)
        assert picks.indices.equal(k_center_greedy(x, 30, labeled=labeled).indices)
        cover.add(picks.indices[:20])
        labeled[picks.indices[:20]] = True
    want = torch.cdist(x, x[labeled]).amin(1)
    assert torch.allclose(cover.distances, want, atol=1e-7)
    assert Cover(x).distances.isinf().all()


@pytest.mark.parametrize("metric", METRICS)
def test_rows_are_assigned_to_the_nearest_centre(metric):
    x = normal(500, 6)
    centers = k_center_greedy(x, 40, metric=metric).indices
    rows = x / x.norm(dim=1, keepdim=True) if metric == "cosine" else x
    far = torch.cdist(rows, rows[centers], p=1 if metric == "manhattan" else 2)
    far = far.square() / 2 if metric == "cosine" else far
    got = assign_to_centers(x, centers, metric=metric, chunk_rows=33)
    assert got.centers.equal(centers[far.argmin(1)])
    assert torch.allclose(got.distances, far.amin(1), atol=1e-7)
    assert got.distances[centers].equal(torch.zeros(40, dtype=torch.float64))


def test_many_centres_are_taken_in_parts():
    x = torch.arange(3000.0).unsqueeze(1)
    got = assign_to_centers(x, torch.arange(2999, -1, -2))
    assert got.centers.equal(torch.arange(3000) // 2 * 2 + 1)
    assert got.distances.max() == 1


def test_equally_near_centres_go_to_the_first_given():
    got = assign_to_centers(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([2, 0]))
    assert got.centers.tolist() == [0, 2, 2]


@pytest.mark.parametrize("n_columns", [16, 17, 100])
def test_of_equal_centres_the_first_given_has_all_the_rows(n_columns):
    z = normal(4, n_columns, dtype=torch.float32)
    x = torch.cat([z, z[:1], normal(300, n_columns, seed=1, dtype=torch.float32)])
    assert not (assign_to_centers(x, torch.arange(5)).centers == 4).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loop_for_gpus_makes_the_same_picks(dtype):
    generator = torch.Generator().manual_seed(0)
    for case in range(30):
        rows = torch.randint(0, 3, (40, 3), generator=generator).to(dtype) * (0.3 if case % 2 else 1)
        distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        values = torch.where(torch.rand(40, generator=generator) < 0.3, -torch.inf, distances[case].clone())
        pool = greedy.Pool(
            greedy.HeldRows(greedy.Rows(rows, rows.square().sum(1)), torch.tensor(9.0), Chunker()),
            Space(n_columns=3, dtype=dtype, exact=case % 2 == 0),
            values.square().where(values > -torch.inf, values),
        )
        n, least = case + 1, [-torch.inf, 0.5][case % 3 == 0]
        other = pool.values.clone()
        matrix = pool.space.pairwise(pool.source.rows, pool.source.rows)
        want = greedy._pick_in_matrix(pool, n, least)
        got = greedy._pick_masked(other, matrix, n, least)
        assert got[0].equal(want[0])
        assert got[1].equal(want[1])
        assert other.equal(pool.values)


class Scarce:
    """A device on which only chunks of so many rows fit."""

    def __init__(self, monkeypatch, rows):
        self.nearest, self.rows = getattr(Space.nearest, "whole", Space.nearest), rows
        monkeypatch.setattr(Space, "nearest", lambda space, a, b: self(space, a, b))

    def __call__(self, space, a, b):
        if len(a.x) > self.rows:
            raise torch.OutOfMemoryError("Tried to allocate 7.00 GiB")
        return self.nearest(space, a, b)


def test_out_of_memory_halves_the_chunk_with_one_warning(monkeypatch):
    x = normal(3000, 4)
    want = k_center_greedy(x, 5, labeled=mask(3000, [0]))
    Scarce(monkeypatch, 500)
    with pytest.warns(UserWarning, match="out of device memory: going on with smaller chunks") as warned:
        got = k_center_greedy(x, 5, labeled=mask(3000, [0]))
    assert got.indices.equal(want.indices)
    assert len(warned) == 1
    Scarce(monkeypatch, 20)
    too_much = pytest.raises(DeviceMemoryError, match=r"a chunk of 64 rows does not fit .*7.00 GiB")
    with too_much, pytest.warns(UserWarning, match="smaller chunks"):
        k_center_greedy(x, 5, labeled=mask(3000, [0]))


X = normal(10, 3, dtype=torch.float32)


@pytest.mark.parametrize(
    ("features", "n", "settings", "error", "match"),
    [
        (X[:0], 1, {}, DataError, "features has no rows"),
        (X[:, :0], 1, {}, ShapeError, r"at least one column, got shape \(10, 0\)"),
        (X[0], 1, {}, ShapeError, r"2 axes, got shape \(3,\)"),
        (X.cfloat(), 1, {}, ShapeError, "real numbers, got torch.complex64"),
        (X.tolist(), 1, {}, ShapeError, "must be a torch.Tensor or a NumPy array, got list"),
        (X, 0, {}, BudgetError, "asked for 0 rows, 10 can be picked"),
        (X, 11, {}, BudgetError, "asked for 11 rows, 10 can be picked"),
        (X, 10, {"labeled": mask(10, [1])}, BudgetError, "asked for 10 rows, 9 can be picked"),
        (X, 3, {"candidates": mask(10, [1, 2])}, BudgetError, "asked for 3 rows, 2 can be picked"),
        (X, 1, {"labeled": mask(9, [1])}, ShapeError, r"labeled must have shape \(10,\), got \(9,\)"),
        (X, 1, {"labeled": torch.zeros(10)}, ShapeError, "labeled must be a bool tensor"),
        (X, 1, {"labeled": mask(10, [1]).to("meta")}, ShapeError, "labeled must be on cpu, got meta"),
        (X, 1, {"labeled": mask(10, [1]), "candidates": mask(10, [1])}, ShapeError, "1 rows are both"),
        (X, 1, {"metric": "l2"}, ConfigError, "euclidean, cosine, manhattan, got 'l2'"),
        (X, 1, {"backend": "numpy"}, ConfigError, "auto, faiss, torch, got 'numpy'"),
        (X, 1, {"backend": "faiss"}, CapabilityError, "faiss .* manhattan distances"),
        (X.double(), 1, {"backend": "faiss", "metric": "manhattan"}, CapabilityError, "float32, asked for .*float64"),
        (X, 1, {"chunk_rows": 0}, ConfigError, "chunk_rows must be a whole number of at least 1, got 0"),
        (X * torch.tensor([[1.0, 1, torch.nan]]), 1, {}, DataError, "10 of 10 rows are not, the first is row 0"),
        (X / (torch.arange(10) != 7)[:, None], 1, {}, DataError, "1 of 10 rows are not, the first is row 7"),
        (X * (torch.arange(10) != 7)[:, None], 1, {"metric": "cosine"}, DataError, "row 7 is all zeros"),
    ],
)
def test_bad_input(features, n, settings, error, match):
    with pytest.raises(error, match=match):
        k_center_greedy(features, n, **settings)


def test_bad_numbers_are_found_in_any_chunk(tmp_path):
    x = np.ones((300, 2), np.float32)
    x[250, 1] = np.inf
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=r"from row 192 on.*the first is row 250"):
        k_center_greedy(np.load(tmp_path / "x.npy", mmap_mode="r"), 1, chunk_rows=64)


def test_bad_centres():
    with pytest.raises(ShapeError, match="at least one row, got none"):
        assign_to_centers(X, torch.empty(0, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"lie in \[0, 10\)"):
        assign_to_centers(X, torch.tensor([10]))


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
@given(
    values=st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=4, max_size=30, unique=True),
    data=st.data(),
)
@settings(deadline=None, max_examples=30)
def test_a_cover_that_is_extended_is_that_of_all_rows(metric, values, data):
    x = torch.tensor(values, dtype=torch.float64) + 0.5  # no row of zeros, which has no direction
    n_old = data.draw(st.integers(1, len(x)))
    centers = torch.tensor(data.draw(st.lists(st.integers(0, n_old - 1), unique=True, max_size=5)), dtype=torch.int64)
    cover = Cover(x[:n_old], metric=metric)
    cover.add(centers)
    extended = cover.extended(x)
    whole = Cover(x, metric=metric)
    whole.add(centers)
    assert torch.allclose(extended.distances, whole.distances, atol=1e-12)
    assert extended.is_center.equal(whole.is_center)
    assert len(cover) == n_old


def test_a_cover_is_extended_by_a_pass_over_the_new_rows(monkeypatch):
    x = torch.rand(1000, 4, generator=torch.Generator().manual_seed(0))
    cover = Cover(x[:900])
    cover.add(torch.arange(50))
    measured, inner = [], k_center.nearest_centers

    def watched(source, *rest):
        measured.append(len(source))
        return inner(source, *rest)

    monkeypatch.setattr(k_center, "nearest_centers", watched)
    monkeypatch.setattr(Cover, "add", lambda *_: pytest.fail("all rows were measured again"))
    cover.extended(x)
    assert measured == [100]
    for rows in (x[:800], torch.rand(1000, 5)):
        with pytest.raises(ShapeError, match="a cover of 900 rows of 4 columns cannot be extended"):
            cover.extended(rows)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
def test_cuda_makes_the_same_picks(metric):
    x = normal(20_000, 32)
    labeled = mask(20_000, range(50))
    want = k_center_greedy(x, 500, labeled=labeled, metric=metric)
    there = k_center_greedy(x.cuda(), 500, labeled=labeled.cuda(), metric=metric)
    assert there.indices.device.type == "cuda"
    assert there.indices.cpu().equal(want.indices)
    streamed = k_center_greedy(x, 500, labeled=labeled, metric=metric, device="cuda", chunk_rows=3000)
    assert streamed.indices.device.type == "cpu"
    assert streamed.indices.equal(want.indices)


@pytest.mark.gpu
def test_cuda_never_uses_reduced_precision():
    x = normal(5000, 256, dtype=torch.float32).cuda()
    want = k_center_greedy(x.double(), 200)
    torch.set_float32_matmul_precision("high")
    try:
        assert (k_center_greedy(x, 200).indices == want.indices).float().mean() > 0.99
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
def test_a_cover_on_cuda_is_that_of_the_cpu(metric):
    x = normal(3000, 12)
    candidates = mask(3000, range(0, 3000, 2))
    found = []
    for rows, where in ((x, {}), (x.cuda(), {}), (x, {"device": "cuda", "chunk_rows": 700})):
        cover = Cover(rows, metric=metric, **where)
        picks = [cover.pick(5).indices]  # without a centre
        for step in range(3):
            cover.add(torch.arange(10 * step, 10 * step + 10))
            cover.add(picks[-1])
            picks.append(cover.pick(20, candidates=(candidates.to(rows.device) & ~cover.is_center)).indices)
        assert {one.device for one in (*picks, cover.distances, cover.is_center)} == {rows.device}
        found.append((torch.cat(picks).tolist(), cover.distances.cpu()))
    assert found[0][0] == found[1][0] == found[2][0]
    torch.testing.assert_close(found[1][1], found[0][1])
    torch.testing.assert_close(found[2][1], found[0][1])


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
def test_cuda_assigns_rows_as_the_cpu_does(metric):
    x, centers = normal(3000, 12), torch.arange(0, 3000, 100)
    want = assign_to_centers(x, centers, metric=metric)
    there = assign_to_centers(x.cuda(), centers.cuda(), metric=metric)
    assert there.centers.is_cuda
    assert there.distances.is_cuda
    streamed = assign_to_centers(x, centers, metric=metric, device="cuda", chunk_rows=700)
    assert streamed.centers.device.type == streamed.distances.device.type == "cpu"
    for found in (there, streamed):
        assert found.centers.cpu().equal(want.centers)
        torch.testing.assert_close(found.distances.cpu(), want.distances)


@pytest.mark.parametrize("seed", range(6))
def test_the_radius_is_at_most_twice_the_least_possible(seed):
    """What Gonzalez proved of farthest-first, against all choices of centres."""
    x = torch.randn(11, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    distances = torch.cdist(x, x)
    labeled = torch.arange(11) < seed % 3
    for n in (1, 2, 4):
        others = (~labeled).nonzero().squeeze(1).tolist()
        known = labeled.nonzero().squeeze(1).tolist()
        least = min(float(distances[[*known, *some]].amin(0).max()) for some in itertools.combinations(others, n))
        picked = k_center_greedy(x, n, labeled=labeled).indices.tolist()
        assert float(distances[[*known, *picked]].amin(0).max()) <= 2 * least + 1e-12
