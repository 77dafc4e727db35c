"""K-center greedy with weights, outliers and a least distance."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import k_center as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal._chunks import Chunker
from torchal.engine import greedy
from torchal.engine.distances import ManhattanSpace, Space
from torchal.functional import Cover, k_center_greedy

METRICS = ["euclidean", "cosine", "manhattan"]
X = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
LINE = torch.tensor([[0.0], [1.0], [5.0], [9.0], [10.0]])


@pytest.fixture(params=[4, 1024], ids=["tiny blocks", "usual blocks"])
def block_rows(request, monkeypatch):
    """With tiny blocks, small pools too go through every level of the engine."""
    monkeypatch.setattr(Space, "block_rows", request.param)
    monkeypatch.setattr(ManhattanSpace, "block_rows", request.param)


def mask(n_rows, rows):
    out = torch.zeros(n_rows, dtype=torch.bool)
    out[list(rows)] = True
    return out


def normal(n_rows, n_columns, seed=0, dtype=torch.float64):
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def uniform(n_rows, seed=1, dtype=torch.float64):
    return torch.rand(n_rows, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def plain(features, n, labeled, metric="euclidean", weights=None, beyond=0, min_distance=0.0):
    """Return rows and values w d of one pass per pick in float64, on rows without ties."""
    x = features.double()
    x = x / x.norm(dim=1, keepdim=True) if metric == "cosine" else x
    far = torch.cdist(x, x, p=1 if metric == "manhattan" else 2, compute_mode="donot_use_mm_for_euclid_dist")
    far = far.square() / 2 if metric == "cosine" else far
    nearest, left = far[:, labeled].amin(1), ~labeled
    weights = torch.ones(len(x), dtype=torch.float64) if weights is None else weights.double()
    picked, scores = [], []
    for _ in range(n):
        values = torch.where(left & (nearest >= min_distance), weights * nearest, -torch.inf)
        best = values.topk(beyond + 1)
        if best.values[-1] == -torch.inf:
            break
        row = int(best.indices[-1])
        picked.append(row)
        scores.append(float(best.values[-1]))
        left[row] = False
        nearest = torch.minimum(nearest, far[row])
    return picked, scores


def test_by_hand():
    first = mask(5, [0])
    picks = k_center_greedy(LINE, 3, labeled=first, weights=torch.tensor([1.0, 1.0, 3.0, 1.0, 0.5]))
    assert picks.indices.tolist() == [2, 3, 1]  # 3 x 5 = 15, then 4 and 2.5, then 1 and 0.5
    assert picks.scores.tolist() == pytest.approx([15.0, 4.0, 1.0])
    picks = k_center_greedy(LINE, 2, labeled=first, outliers=0.25)  # one of the four: the farthest, every time
    assert picks.indices.tolist() == [3, 1]
    assert picks.scores.tolist() == pytest.approx([9.0, 1.0])
    picks = k_center_greedy(LINE, 4, labeled=first, min_distance=4.0)
    assert picks.indices.tolist() == [4, 2]
    assert k_center_greedy(LINE, 4, labeled=first, min_distance=5.0).indices.tolist() == [4, 2]  # as far, not nearer
    assert k_center_greedy(LINE, 4, labeled=first, min_distance=5.1).indices.tolist() == [4]
    none = k_center_greedy(LINE, 4, labeled=first, min_distance=11.0)
    assert none.indices.shape == none.scores.shape == (0,)
    assert none.indices.dtype == torch.int64
    # 9 x 0.1 is the largest product after 10, but within 2 of it
    picks = k_center_greedy(LINE, 4, labeled=first, min_distance=2.0, weights=torch.tensor([1, 0.01, 0.01, 0.9, 1.0]))
    assert picks.indices.tolist() == [4, 2]


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_rows_without_weight_lower_no_others_where_rows_are_passed_over(metric, block_rows):
    features = torch.tensor([2.0] + [0.0] * 19 + [1.0])[:, None]
    weights = torch.zeros(21)
    weights[[9, *range(15, 21)]] = 1  # six rows at 0 are passed over, the seventh is the last row
    picks = k_center_greedy(features, 10, labeled=mask(21, [0]), metric=metric, weights=weights, outliers=0.34)
    assert picks.indices.tolist() == [20, *range(1, 9), 10]  # and not 9, of which row 1 is a copy


whole_numbers = st.tuples(st.integers(2, 24), st.integers(1, 3)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.integers(-2, 2).map(float)),
        hnp.arrays(np.float32, shape[0], elements=st.integers(0, 3).map(float)),
        hnp.arrays(np.bool_, shape[0]),
        st.integers(1, shape[0]),
    )
)


@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
def test_whole_numbers_agree_with_exact_arithmetic_ties_included(metric, block_rows):
    @settings(max_examples=40, deadline=None)
    @given(whole_numbers, st.booleans(), st.sampled_from([0.0, 0.1, 0.34, 0.7]), st.sampled_from([None, 1.0, 2.0]))
    def check(case, weighted, outliers, min_distance):
        features, weights, labeled, n = case
        labeled[0], labeled[-1] = True, False
        rows = reference.as_fractions(features)
        nearest = [min(reference.distance(row, rows[c], metric) for c in np.flatnonzero(labeled)) for row in rows]
        n_candidates = int((~labeled).sum())
        n = min(n, n_candidates)
        beyond = min(int(outliers * n_candidates + 1e-9), n_candidates - n)
        got = k_center_greedy(
            torch.from_numpy(features),
            n,
            labeled=torch.from_numpy(labeled),
            metric=metric,
            weights=torch.from_numpy(weights) if weighted else None,
            outliers=outliers,
            min_distance=min_distance,
        )
        want = reference.settings_greedy(
            features,
            n,
            nearest,
            ~labeled,
            metric,
            weights=weights if weighted else None,
            beyond=beyond,
            min_distance=min_distance or 0,
        )
        assert got.indices.tolist() == want

    check()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "extra",
    [
        {"weights": True},
        {"outliers": 0.02},
        {"outliers": 0.3},
        {"weights": True, "outliers": 0.05, "min_distance": 0.3},
    ],
    ids=["weights", "few outliers", "many outliers", "all"],
)
def test_picks_are_those_of_one_pass_per_pick(metric, extra, block_rows):
    x, labeled = normal(500, 6), mask(500, range(3))
    extra = dict(extra)
    if extra.get("weights"):
        extra["weights"] = uniform(500)
    beyond = int(extra.get("outliers", 0) * 497)
    want, scores = plain(x, 60, labeled, metric, extra.get("weights"), beyond, extra.get("min_distance", 0.0))
    for chunk_rows in (None, 7):
        got = k_center_greedy(x, 60, labeled=labeled, metric=metric, chunk_rows=chunk_rows, **extra)
        assert got.indices.tolist() == want
        assert got.scores.tolist() == pytest.approx(scores, rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_weights_change_nothing(metric, block_rows):
    x = normal(300, 5, dtype=torch.float32)
    for labeled in (mask(300, [7]), mask(300, [])):
        want = k_center_greedy(x, 40, labeled=labeled, metric=metric)
        got = k_center_greedy(x, 40, labeled=labeled, metric=metric, weights=torch.full((300,), 3.0))
        assert got.indices.equal(want.indices)
        assert got.scores.tolist() == pytest.approx((3 * want.scores).tolist(), rel=1e-5)


def test_whole_numbers_with_cosine_distances_keep_their_ties(block_rows):
    x = torch.randint(-2, 3, (60, 3), generator=torch.Generator().manual_seed(0)).float()
    x[(x == 0).all(1)] = 1
    x = torch.cat([x, 3 * x])  # each direction twice
    picks = k_center_greedy(x, 100, labeled=mask(120, [5]), metric="cosine", weights=torch.ones(120)).indices.tolist()
    first = [row for row in picks if row < 60 and row + 60 in picks]
    assert all(picks.index(row) < picks.index(row + 60) for row in first)
    assert len(first) > 30


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_of_equal_rows_the_heavier_comes_first_and_of_those_the_lowest(metric, dtype, block_rows):
    once = normal(100, 9, dtype=dtype) + 5
    x = once.repeat(3, 1)
    weights = torch.cat([torch.full((100,), 0.5), torch.ones(200)]).to(dtype)
    picks = k_center_greedy(x, 299, labeled=mask(300, [0]), metric=metric, weights=weights).indices.tolist()
    assert all(100 <= row < 200 for row in picks[:99])
    assert picks[99:] == sorted(picks[99:])  # copies of centres


def test_rows_without_weight_come_last_in_their_order(block_rows):
    x, weights = normal(4000, 3, dtype=torch.float32), torch.zeros(4000)
    weights[100:120] = uniform(20, dtype=torch.float32) + 0.1
    picks = k_center_greedy(x, 30, labeled=mask(4000, [0]), weights=weights)
    assert sorted(picks.indices[:20].tolist()) == list(range(100, 120))
    assert picks.indices[20:].tolist() == list(range(1, 11))
    assert not picks.scores[20:].any()
    assert k_center_greedy(x, 3, labeled=mask(4000, [0]), weights=torch.zeros(4000)).indices.tolist() == [1, 2, 3]
    few = k_center_greedy(x, 30, labeled=mask(4000, [0]), weights=weights, min_distance=1e-3)
    assert few.indices.equal(picks.indices[:20])


@pytest.mark.parametrize("metric", METRICS)
def test_more_equal_rows_than_a_block_holds(metric, block_rows):
    kinds = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [3, 1, 0]]) + 0.3
    kind = torch.arange(2000) % 3
    kind[:2], kind[1999] = 0, 3
    weights = torch.where(torch.arange(2000) < 1000, 0.5, 1.0)
    picks = k_center_greedy(kinds[kind], 5, labeled=mask(2000, [0]), metric=metric, weights=weights).indices.tolist()
    assert sorted(picks[:3]) == [1000, 1001, 1999]
    assert picks[3:] == [1, 2]
    far = k_center_greedy(kinds[kind], 2, labeled=mask(2000, [0]), metric=metric, outliers=0.001).indices.tolist()
    assert far == [2, 4]  # one of the rows at the largest distance is passed over


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_tiny_and_huge_numbers(size):
    x, labeled, weights = normal(200, 5, dtype=torch.float32), mask(200, [0]), uniform(200, dtype=torch.float32)
    want = k_center_greedy(x, 50, labeled=labeled, weights=weights)
    for features, factor in ((x * size, 1), (x, size)):
        got = k_center_greedy(features, 50, labeled=labeled, weights=weights * factor)
        assert got.indices.equal(want.indices)
        assert got.scores.tolist() == pytest.approx((want.scores.double() * size).tolist(), rel=1e-5)
    few = k_center_greedy(x, 50, labeled=labeled, outliers=0.1, min_distance=2.0)
    got = k_center_greedy(x * size, 50, labeled=labeled, outliers=0.1, min_distance=2.0 * size)
    assert got.indices.equal(few.indices)
    assert 0 < len(few.indices) < 50


def test_weights_that_differ_very_much_are_told_apart():
    x, labeled = normal(300, 4, dtype=torch.float32), mask(300, [0])
    weights = torch.logspace(0, -30, 300, dtype=torch.float64)
    want, scores = plain(x, 200, labeled, weights=weights)
    got = k_center_greedy(x, 200, labeled=labeled, weights=weights)
    assert got.indices.tolist() == want
    assert got.scores.tolist() == pytest.approx(scores, rel=1e-4)


def test_the_first_pick_is_the_heaviest_and_of_those_far_from_the_mean():
    assert k_center_greedy(LINE, 1, weights=torch.tensor([1.0, 1, 2, 2, 1])).indices.tolist() == [3]
    assert k_center_greedy(LINE, 1, weights=torch.tensor([1.0, 1, 2, 1, 1])).scores.tolist() == [0.0]
    assert k_center_greedy(LINE, 1, outliers=0.2).indices.tolist() == [0]  # 5 from the mean; 10 as far: the lowest
    assert k_center_greedy(LINE, 1, outliers=0.4).indices.tolist() == [1]
    assert k_center_greedy(LINE, 1, min_distance=100.0).indices.tolist() == [0]  # there was no centre to be near to
    nothing = torch.zeros(len(LINE))
    assert len(k_center_greedy(LINE, 2, min_distance=1.0, weights=nothing).indices) == 0
    assert k_center_greedy(LINE, 2, weights=nothing).indices.tolist() == [0, 1]


def test_the_smallest_pools():
    one = torch.ones(1, 2)
    for extra in ({"weights": torch.ones(1)}, {"weights": torch.zeros(1)}, {"outliers": 0.9}, {"min_distance": 1.0}):
        assert k_center_greedy(one, 1, **extra).indices.tolist() == [0]
    x = normal(100, 2)
    last = ~mask(100, [42])
    assert k_center_greedy(x, 1, labeled=last, weights=uniform(100), outliers=0.5).indices.tolist() == [42]
    everything = k_center_greedy(x, 100, weights=uniform(100), outliers=0.5).indices.tolist()
    assert sorted(everything) == list(range(100))
    some = mask(100, range(10, 30))
    picks = k_center_greedy(x, 10, candidates=some, weights=torch.where(some, 1.0, torch.inf).nan_to_num(posinf=1e30))
    assert picks.indices.equal(k_center_greedy(x, 10, candidates=some).indices)


def test_a_cover_weighs_each_round_anew(block_rows):
    x, weights = normal(300, 4), uniform(300)
    cover, labeled = Cover(x), mask(300, [3, 4])
    cover.add(torch.tensor([3, 4]))
    for seed in range(3):
        weights = uniform(300, seed)
        picks = cover.pick(20, weights=weights, outliers=0.03)
        assert picks.indices.equal(k_center_greedy(x, 20, labeled=labeled, weights=weights, outliers=0.03).indices)
        cover.add(picks.indices)
        labeled[picks.indices] = True
    assert torch.allclose(cover.distances, torch.cdist(x, x[labeled]).amin(1), atol=1e-7)
    assert 0 < len(cover.pick(100, min_distance=1.0).indices) < 100


def test_half_precision_and_files(tmp_path):
    x, weights = normal(300, 8, dtype=torch.float32).half(), uniform(300).half()
    want = k_center_greedy(x.float(), 40, weights=weights.float())
    assert k_center_greedy(x, 40, weights=weights).indices.equal(want.indices)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert k_center_greedy(mapped, 40, weights=weights, chunk_rows=64).indices.equal(want.indices)


def radius(distances, centers, outliers=0, weights=None, labeled=()):
    """Return how far all rows but some outliers are from the centres."""
    rest = [row for row in range(len(distances)) if row not in labeled and row not in centers]
    far = distances[:, [*labeled, *centers]].min(1) * (1 if weights is None else weights)
    return np.sort(far[rest])[len(rest) - 1 - outliers] if len(rest) > outliers else 0.0


@pytest.mark.parametrize("labeled", [(), (0,)])
def test_the_cover_is_at_most_twice_the_best(labeled):
    for seed in range(12):
        x = normal(10, 2, seed)
        distances = torch.cdist(x, x).numpy()
        for k in (1, 2, 3):
            picks = k_center_greedy(x, k, labeled=mask(10, labeled)).indices.tolist()
            assert radius(distances, picks, labeled=labeled) <= 2 * reference.best_radius(
                distances, k, labeled=labeled
            ) * (1 + 1e-9)


@pytest.mark.parametrize("labeled", [(), (0,)])
def test_with_weights_the_cover_is_within_the_stated_factor(labeled):
    worst = 0.0
    for seed in range(12):
        x, weights = normal(10, 2, seed), uniform(10, seed) ** 2 + 0.01
        distances, w = torch.cdist(x, x).numpy(), weights.numpy()
        rest = [row for row in range(10) if row not in labeled]
        factor = min(3, 1 + w[rest].max() / w[rest].min())
        for k in (1, 2, 3):
            picks = k_center_greedy(x, k, labeled=mask(10, labeled), weights=weights).indices.tolist()
            best = reference.best_radius(distances, k, weights=w, labeled=labeled)
            worst = max(worst, radius(distances, picks, weights=w, labeled=labeled) / best)
            assert worst <= factor * (1 + 1e-9)
    assert worst > 1


@pytest.mark.parametrize("labeled", [(), (0,)])
def test_with_outliers_the_cover_is_within_the_stated_factor(labeled):
    share, n = 2 / (10 - len(labeled)), 4
    for seed in range(10):
        x = normal(10, 2, seed)
        distances = torch.cdist(x, x).numpy()
        picks = k_center_greedy(x, n, labeled=mask(10, labeled), outliers=share).indices.tolist()
        best = reference.best_radius(distances, n - 2, outliers=2, labeled=labeled)
        assert radius(distances, picks, 2, labeled=labeled) <= 2 * best * (1 + 1e-9)


def test_outliers_that_lie_far_away_are_never_picked():
    x = normal(40, 2)
    x[[3, 17]] = torch.tensor([[100.0, 0.0], [0.0, 120.0]], dtype=torch.float64)
    inside = [row for row in range(40) if row not in {3, 17}]
    distances = torch.cdist(x, x).numpy()
    for k in (1, 2, 3):
        picks = k_center_greedy(x, k, outliers=0.05).indices.tolist()
        assert not {3, 17} & set(picks)
        best = reference.best_radius(distances[np.ix_(inside, inside)], k)
        assert radius(distances, picks, 2) <= 2 * best * (1 + 1e-9)
    assert set(k_center_greedy(x, 3).indices.tolist()) > {3, 17}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("beyond", [0, 3])
def test_the_loop_for_gpus_makes_the_same_picks(dtype, beyond):
    generator = torch.Generator().manual_seed(0)
    for case in range(20):
        rows = torch.randint(0, 3, (40, 3), generator=generator).to(dtype) * (0.3 if case % 2 else 1)
        weights = torch.randint(0, 3, (40,), generator=generator).to(dtype)
        rows = greedy.Rows(rows, rows.square().sum(1))
        pool = greedy.Pool(
            greedy.HeldRows(rows, torch.tensor(9.0), Chunker()),
            Space(n_columns=3, dtype=dtype, exact=case % 2 == 0),
            torch.where(torch.rand(40, generator=generator) < 0.3, -torch.inf, weights),
            weights,
            0.5 * (case % 3),
        )
        matrix, other = pool.space.pairwise(rows, rows), pool.values.clone()
        want = greedy._pick_in_matrix(pool, case + 1, 1e-30, beyond)
        got = greedy._pick_masked(other, matrix, case + 1, 1e-30, pool=pool, beyond=beyond)
        assert got[0].equal(want[0])
        assert got[1].equal(want[1])


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"weights": torch.ones(9)}, ShapeError, r"weights must be \(10,\) on cpu, got \(9,\)"),
        ({"weights": torch.ones(10, 1)}, ShapeError, r"weights must have 1 axes, got shape \(10, 1\)"),
        ({"weights": torch.ones(10).int()}, ShapeError, "weights must be floating point, got torch.int32"),
        ({"weights": "1.0"}, ShapeError, "weights must be a torch.Tensor or a NumPy array, got str"),
        ({"weights": torch.ones(10, device="meta")}, ShapeError, "on cpu, got .* on meta"),
        ({"weights": torch.ones(10).index_fill(0, torch.tensor([4]), torch.nan)}, DataError, "the first is row 4"),
        ({"weights": torch.ones(10).index_fill(0, torch.tensor([4]), torch.inf)}, DataError, "the first is row 4"),
        ({"weights": torch.arange(10.0) - 2}, DataError, "at least 0: 2 of 10 are not, down to -2"),
        ({"outliers": 1.0}, ConfigError, r"outliers must be a number in \[0, 1\), got 1.0"),
        ({"outliers": -0.1}, ConfigError, r"outliers must be a number in \[0, 1\), got -0.1"),
        ({"outliers": True}, ConfigError, r"outliers must be a number in \[0, 1\), got True"),
        ({"min_distance": 0.0}, ConfigError, "min_distance must be a finite number above 0, got 0.0"),
        ({"min_distance": torch.inf}, ConfigError, "min_distance must be a finite number above 0, got inf"),
    ],
)
def test_bad_settings(settings, error, match):
    with pytest.raises(error, match=match):
        k_center_greedy(X, 2, **settings)
    with pytest.raises(error, match=match):
        Cover(X).pick(2, **settings)


def test_too_many_are_refused_with_outliers_too():
    with pytest.raises(BudgetError, match="asked for 11 rows, 10 can be picked"):
        k_center_greedy(X, 11, outliers=0.5)


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("extra", [{"outliers": 0.02}, {"min_distance": 0.5}, {"outliers": 0.02, "min_distance": 0.5}])
def test_picks_on_cuda_are_those_on_the_cpu(metric, extra):
    x, labeled, weights = normal(3000, 6), mask(3000, range(3)), uniform(3000)
    for some in ({}, {"weights": weights}):
        want = k_center_greedy(x, 100, labeled=labeled, metric=metric, **some, **extra)
        there = {name: value.cuda() for name, value in some.items()}
        got = k_center_greedy(x.cuda(), 100, labeled=labeled.cuda(), metric=metric, **there, **extra)
        assert got.indices.is_cuda
        assert got.indices.tolist() == want.indices.tolist()


@pytest.mark.parametrize("settings", [{}, {"weights": True}, {"outliers": 0.1}, {"weights": True, "min_distance": 2.0}])
@pytest.mark.parametrize("labeled", [[], [3, 77]])
def test_parts_of_what_is_kept_of_rows_change_nothing(settings, labeled, monkeypatch):
    x = torch.randint(0, 6, (400, 3), generator=torch.Generator().manual_seed(0)).float()  # with many ties
    given = dict(settings)
    if "weights" in given:
        given["weights"] = torch.randint(0, 3, (400,), generator=torch.Generator().manual_seed(1)).float()
    want = k_center_greedy(x, 60, labeled=mask(400, labeled), **given)
    for module in ("greedy", "order_statistics"):
        monkeypatch.setattr(f"torchal.engine.{module}.values_per_chunk", lambda _: 7)
    got = k_center_greedy(x, 60, labeled=mask(400, labeled), **given)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_a_cover_keeps_its_distances_and_centres_when_it_picks():
    cover = Cover(X)
    cover.add(torch.tensor([2]))
    before = cover.distances
    picked = cover.pick(4)
    assert cover.distances.equal(before)
    assert cover.is_center.nonzero().squeeze(1).tolist() == [2]
    assert cover.pick(4).indices.equal(picked.indices)
