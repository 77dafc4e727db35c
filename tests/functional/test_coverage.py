import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.references import coverage as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal._chunks import Chunker
from torchal.engine import balls
from torchal.engine.features import FeatureReader
from torchal.functional import BallCover, k_center_greedy, kmeans, prob_cover, purity_radius

WITHIN = prob_cover.__globals__  # a module may be there twice, where its doctests are collected first
LINE = torch.tensor([[0.0], [1.0], [2.0], [7.0], [8.0], [20.0]])


def seeded(seed=0, device="cpu"):
    return torch.Generator(device).manual_seed(seed)


def normal(n_rows, n_columns, seed=0, dtype=torch.float32):
    return torch.randn(n_rows, n_columns, generator=seeded(seed), dtype=dtype)


def mask(n_rows, rows):
    out = torch.zeros(n_rows, dtype=torch.bool)
    out[list(rows)] = True
    return out


def found_balls(features, radius, *, metric="euclidean", max_edges=2**28, **reading):
    """Return the balls as a list of lists."""
    ruler = balls.Ruler(FeatureReader(features, **reading), metric)
    found = balls.find_balls(ruler, radius, max_edges)
    return [part.tolist() for part in found.rows.split(found.starts.diff().tolist())]


class TestByHand:
    def test_each_pick_covers_most_of_what_is_left(self):
        picks = prob_cover(LINE, 3, radius=1.5)
        assert picks.indices.tolist() == [1, 3, 5]
        assert picks.scores.tolist() == [3, 2, 1]

    def test_labeled_rows_have_covered_their_balls(self):
        picks = prob_cover(LINE, 2, radius=1.5, labeled=mask(6, [0]))
        assert picks.indices.tolist() == [3, 1]  # row 1 covers row 2 alone, as rows 2 and 5 do
        assert picks.scores.tolist() == [2, 1]

    def test_rows_that_are_no_candidates_want_to_be_covered_and_are_not_picked(self):
        picks = prob_cover(LINE, 2, radius=1.5, candidates=mask(6, [0, 4, 5]))
        assert picks.indices.tolist() == [0, 4]
        assert picks.scores.tolist() == [2, 2]

    def test_balls_are_open(self):
        x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
        assert prob_cover(x, 1, radius=5.0).scores.tolist() == [1]
        assert prob_cover(x, 1, radius=math.nextafter(5.0, 6)).scores.tolist() == [2]
        diagonal = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
        assert prob_cover(diagonal, 1, radius=math.sqrt(2)).scores.tolist() == [1]

    def test_once_all_is_covered_the_farthest_rows_are_picked(self):
        x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [0.5]])
        picks = prob_cover(x, 4, radius=2.5)
        assert picks.indices.tolist() == [1, 3, 0, 2]
        assert picks.scores.tolist() == [5, 0, 0, 0]
        rest = k_center_greedy(x, 3, labeled=mask(5, [1]))
        assert rest.indices.tolist() == [3, 0, 2]

    def test_cosine_distances_are_half_the_squares_of_those_of_unit_rows(self):
        x = normal(300, 5)
        units = torch.nn.functional.normalize(x.double())
        want = prob_cover(units, 30, radius=0.7)
        got = prob_cover(x * torch.linspace(0.1, 9, 300)[:, None], 30, radius=0.7**2 / 2, metric="cosine")
        assert got.indices.equal(want.indices)
        assert got.scores.tolist() == want.scores.tolist()


small_pools = st.tuples(st.integers(1, 12), st.integers(1, 3)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float64, shape, elements=st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.1, 1.0, 2.0, 2.5])),
        hnp.arrays(np.int8, shape[0], elements=st.integers(0, 2)),
        st.integers(1, shape[0]),
        st.integers(1, 40),
    )
)


@settings(max_examples=50, deadline=None)
@given(small_pools, st.sampled_from([torch.float16, torch.float32, torch.float64]), st.sampled_from([None, 1, 3]))
def test_agrees_with_the_reference_and_reaches_the_share_that_theory_grants(case, dtype, chunk_rows):
    features, kinds, n, quarter_radius = case
    x = torch.from_numpy(features).to(dtype)
    labeled, candidates = torch.from_numpy(kinds == 0), torch.from_numpy(kinds == 1)
    rows, centers = np.flatnonzero(kinds == 1).tolist(), np.flatnonzero(kinds == 0).tolist()
    n = min(n, len(rows))
    if not n:
        return
    radius = quarter_radius / 4
    around = reference.balls(x.double().tolist(), Fraction(radius) ** 2)
    want, gains = reference.greedy(around, n, centers, rows)
    picks = prob_cover(x, n, radius=radius, labeled=labeled, candidates=candidates, chunk_rows=chunk_rows)
    assert picks.indices[: len(want)].tolist() == want
    assert picks.scores.tolist() == gains + [0] * (n - len(want))
    assert len(picks.indices.unique()) == n
    assert candidates[picks.indices].all()
    assert sum(gains) >= (1 - 1 / math.e) * reference.most_covered(around, n, centers, rows)


class TestBalls:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    @pytest.mark.parametrize("offset", [0.0, 30.0])
    def test_are_those_of_all_distances_in_float64(self, dtype, offset):
        x = (normal(400, 20) + offset).to(dtype)
        distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
        for radius in (0.5, 4.0, 5.5, 100.0):
            want = [row.nonzero().squeeze(1).tolist() for row in distances < radius]
            assert found_balls(x, radius) == want
            assert found_balls(x, radius, chunk_rows=130) == want

    def test_pairs_at_the_radius_are_told_apart_by_float64(self):
        steps = torch.linspace(-1, 1, 41, dtype=torch.float64) * 1e-9
        x = torch.cat([torch.zeros(1, 64, dtype=torch.float64), torch.zeros(41, 64, dtype=torch.float64)])
        x[1:, 0] = 1 + steps
        rows = x.float().double()  # in float32 most of them are equal to 1
        near = [[j for j in range(42) if abs(float(rows[i, 0] - rows[j, 0])) < 1.0] for i in range(42)]
        assert found_balls(rows.float() + 0.0, 1.0) == near
        assert [len(ball) for ball in found_balls(x, 1.0)[:1]] == [1 + 20]

    def test_sizes_far_from_1(self):
        x = normal(60, 3, dtype=torch.float64)
        want = found_balls(x, 1.0)
        for power in (-900, -500, -100, 100, 500):
            assert found_balls(x * 2.0**power, 2.0**power) == want
        for size in (1e-30, 1e30):
            y = (normal(60, 3) * size).double()
            distances = torch.cdist(y / size, y / size, compute_mode="donot_use_mm_for_euclid_dist")
            assert found_balls(y.float(), size) == [row.nonzero().squeeze(1).tolist() for row in distances < 1.0]

    def test_equal_rows_are_in_each_others_balls_however_small(self):
        x = normal(40, 30)[torch.arange(120) % 40]
        assert found_balls(x, 1e-20) == [[i % 40, i % 40 + 40, i % 40 + 80] for i in range(120)]
        assert found_balls(x, 1e-20, metric="cosine") == found_balls(x, 1e-20)

    def test_infinite_balls_hold_everything(self):
        for metric in ("euclidean", "cosine"):
            for dtype in (torch.float32, torch.float64):
                assert found_balls(normal(9, 2, dtype=dtype), math.inf, metric=metric) == [list(range(9))] * 9

    @pytest.mark.parametrize("metric", ["euclidean", "cosine"])
    def test_whole_numbers(self, metric):
        x = torch.randint(-3, 4, (200, 4), generator=seeded()).float()
        x[:, 0] += 10
        y = torch.nn.functional.normalize(x.double()) if metric == "cosine" else x.double()
        distances = (y[:, None] - y).square().sum(2)
        limit = 2 * 0.0537 if metric == "cosine" else 9
        radius = 0.0537 if metric == "cosine" else 3.0
        assert found_balls(x, radius, metric=metric) == [r.nonzero().squeeze(1).tolist() for r in distances < limit]

    def test_a_mapped_file(self, tmp_path):
        x = normal(500, 8)
        np.save(tmp_path / "x.npy", x.numpy())
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert found_balls(mapped, 2.0, chunk_rows=70) == found_balls(x, 2.0)
        assert prob_cover(mapped, 40, radius=2.0).indices.equal(prob_cover(x, 40, radius=2.0).indices)

    def test_too_little_memory_halves_the_blocks(self, monkeypatch):
        x = normal(900, 4)
        want = found_balls(x, 1.0)
        near = balls.Ruler.near

        def poor(self, a, b, limit):
            if len(a.raw) > 150:
                raise torch.OutOfMemoryError("too much")
            return near(self, a, b, limit)

        monkeypatch.setattr(balls.Ruler, "near", poor)
        with pytest.warns(UserWarning, match="smaller chunks"):
            assert found_balls(x, 1.0) == want


@pytest.mark.parametrize("part", [1, 50])
def test_the_parts_in_which_balls_are_taken_off_change_nothing(part, monkeypatch):
    x = normal(400, 3)
    labeled = torch.arange(400) % 50 == 0
    want = prob_cover(x, 60, radius=0.8, labeled=labeled)
    monkeypatch.setitem(WITHIN, "values_per_chunk", lambda device: part)
    got = prob_cover(x, 60, radius=0.8, labeled=labeled)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
    assert want.scores[0] > 1


class TestEdges:
    def test_every_candidate_and_one_row(self):
        assert prob_cover(LINE, 6, radius=1.5).indices.sort().values.tolist() == list(range(6))
        assert prob_cover(LINE[:1], 1, radius=1.0).scores.tolist() == [1]
        one = prob_cover(LINE, 1, radius=1.5, labeled=mask(6, [0, 1, 2, 3, 5]))
        assert one.indices.tolist() == [4]
        assert one.scores.tolist() == [0]

    def test_equal_rows_go_by_number(self):
        picks = prob_cover(torch.ones(7, 3), 4, radius=0.1)
        assert picks.indices.tolist() == [0, 1, 2, 3]
        assert picks.scores.tolist() == [7, 0, 0, 0]

    def test_no_row_is_left_out_whatever_their_number(self):
        x = torch.cat([normal(1003, 2), torch.full((4, 2), 50.0)])  # the last of 1007 rows are a crowd by themselves
        picks = prob_cover(x, 40, radius=0.5)
        assert 1003 in picks.indices

    def test_scores_have_the_features_dtype_and_at_least_float32(self):
        for dtype, want in ((torch.float16, torch.float32), (torch.float64, torch.float64)):
            assert prob_cover(LINE.to(dtype), 2, radius=1.5).scores.dtype == want


class TestTooManyEdges:
    def test_is_refused_before_the_work_and_a_radius_is_named_that_fits(self, monkeypatch):
        x = normal(4000, 2)
        monkeypatch.setattr(balls, "find_balls", None)  # what must not be reached
        monkeypatch.setitem(WITHIN, "find_balls", None)
        pattern = r"balls of radius 1 hold \d+\.?\d* of 4000 rows each, as measured on 512: about .* and max_edges is"
        with pytest.raises(ConfigError, match=pattern) as error:
            prob_cover(x, 5, radius=1.0, max_edges=200_000)
        monkeypatch.undo()
        radius = float(str(error.value).split("a radius of ")[1].split(" is small enough")[0])
        edges = sum(map(len, found_balls(x, radius)))
        assert 100_000 < edges <= 200_000
        assert len(prob_cover(x, 5, radius=radius, max_edges=200_000).indices) == 5

    def test_some_of_the_rows_say_nearly_as_much_as_all(self, monkeypatch):
        x = normal(4000, 2)
        ruler = balls.Ruler(FeatureReader(x, chunk_rows=300), "euclidean")
        exact = sum(map(len, found_balls(x, 1.0)))
        monkeypatch.setattr(balls, "_LOOKED_AT", 500)
        with pytest.raises(ConfigError, match="max_edges is 200000") as error:
            balls.check_edges(ruler, 1.0, 200_000)
        assert float(str(error.value).split("about ")[1].split(" in all")[0]) == pytest.approx(exact, rel=0.1)
        radius = float(str(error.value).split("a radius of ")[1].split(" is small enough")[0])
        assert 100_000 < sum(map(len, found_balls(x, radius))) <= 220_000
        balls.check_edges(ruler, radius, 200_000)

    def test_an_infinite_radius_too(self):
        with pytest.raises(
            ConfigError, match=r"balls of radius inf hold 2000 of 2000 rows each.* a radius of 0\.\d+ is"
        ):
            prob_cover(normal(2000, 2), 1, radius=math.inf, max_edges=100_000)

    def test_equal_rows_have_no_radius_that_fits(self):
        with pytest.raises(ConfigError, match="so do balls far smaller"):
            prob_cover(torch.ones(2000, 2), 1, radius=1.0, max_edges=100_000)
        with pytest.raises(ConfigError, match="so do balls far smaller"):
            prob_cover(normal(1, 99).expand(2000, 99), 1, radius=1.0, max_edges=100_000)

    def test_what_the_sample_does_not_say_is_said_on_the_way(self, monkeypatch):
        monkeypatch.setitem(WITHIN, "check_edges", lambda *_: None)
        with pytest.raises(ConfigError, match="hold more than 1000 rows in all, which is max_edges"):
            prob_cover(normal(500, 2), 1, radius=1.0, max_edges=1000)


class TestBallCover:
    def test_picks_again_and_again_as_if_anew(self):
        x, labeled = normal(60, 3), torch.zeros(60, dtype=torch.bool)
        cover = BallCover(x, radius=1.2)
        assert cover.n_edges == sum(map(len, found_balls(x, 1.2)))
        for n in (1, 5, 20, 34):
            candidates = ~labeled & (torch.arange(60) % 7 > 0) if n < 20 else None
            want = prob_cover(x, n, radius=1.2, labeled=labeled, candidates=candidates)
            for _ in range(2):
                got = cover.pick(n, labeled=labeled, candidates=candidates)
                assert got.indices.equal(want.indices)
                assert got.scores.equal(want.scores)
            labeled[got.indices] = True
        assert labeled.all()

    def test_checks(self):
        with pytest.raises(ConfigError, match="radius must be a number above 0, got 0"):
            BallCover(normal(5, 2), radius=0)
        cover = BallCover(normal(5, 2), radius=1.0)
        with pytest.raises(BudgetError, match="asked for 6 rows, 5 can be picked"):
            cover.pick(6)
        with pytest.raises(ShapeError, match="labeled must"):
            cover.pick(1, labeled=torch.zeros(4, dtype=torch.bool))


class TestPurityRadius:
    def test_by_hand(self):
        x = torch.tensor([[0.0], [1.0], [2.0], [8.0], [9.0], [10.0]])
        # the nearest rows of the other cluster: 8, 7, 6, 6, 7, 8 away
        for alpha, want in ((1.0, 6.0), (0.7, 6.0), (4 / 6, 7.0), (0.5, 7.0), (2 / 6, 8.0), (0.01, 8.0)):
            assert purity_radius(x, n_clusters=2, alpha=alpha, generator=seeded()) == want

    @settings(max_examples=25, deadline=None)
    @given(
        hnp.arrays(np.int8, st.tuples(st.integers(3, 12), st.integers(1, 3)), elements=st.integers(-9, 9)),
        st.integers(2, 3),
        st.sampled_from([0.3, 0.5, 0.95, 1.0]),
        st.sampled_from([None, 1, 4]),
        st.booleans(),
    )
    def test_agrees_with_the_reference(self, whole, k, alpha, chunk_rows, fractions):
        x = torch.from_numpy(whole).float()
        x = x / 8 + 0.0625 if fractions else x
        found = kmeans(x, k, generator=seeded(), max_iterations=100, n_starts=10, chunk_rows=chunk_rows)
        clusters = found.assignments
        want = reference.sq_purity_radius(x.tolist(), clusters.tolist(), alpha)
        radius = purity_radius(x, n_clusters=k, alpha=alpha, generator=seeded(), chunk_rows=chunk_rows)
        assert radius == math.sqrt(want)
        if math.isfinite(radius):  # the share is what it says it is, and less at the next number
            kinds = clusters.tolist()
            around = found_balls(x, radius), found_balls(x, math.nextafter(radius, math.inf))
            shares = [sum(len({kinds[row] for row in ball}) == 1 for ball in some) / len(x) for some in around]
            assert shares[0] >= alpha > shares[1]

    def test_the_root_is_right_in_the_last_bit(self):
        """A radius that is an ulp too large lets rows of another cluster in; vectorised roots may be off by one."""
        x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
        radius = purity_radius(x, n_clusters=2, generator=seeded())
        assert radius == math.sqrt(2)
        assert found_balls(x, radius) == [[0], [1, 2], [1, 2]]

    def test_many_rows_and_clusters_in_blocks(self, monkeypatch):
        x = normal(900, 6)
        kinds = kmeans(x, 7, generator=seeded(), max_iterations=100).assignments
        distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distances.masked_fill(kinds[:, None] == kinds, torch.inf).amin(1).sort().values
        assert purity_radius(x, n_clusters=7, generator=seeded()) == pytest.approx(float(nearest[45]), rel=1e-12)
        monkeypatch.setitem(WITHIN, "_POINTS", 100)
        found = purity_radius(x, n_clusters=7, generator=seeded(), chunk_rows=90)
        assert found == pytest.approx(float(nearest[45]), rel=1e-12)

    def test_a_sample_of_balls_is_nearly_all_of_them(self):
        x = normal(3000, 2)
        exact = purity_radius(x, n_clusters=4, alpha=0.8, generator=seeded())
        drawn = purity_radius(x, n_clusters=4, alpha=0.8, generator=seeded(), max_balls=1000)
        kinds = kmeans(x, 4, generator=seeded(), max_iterations=100).assignments
        pure = torch.cdist(x, x).masked_fill(kinds[:, None] == kinds, torch.inf).amin(1) >= drawn
        assert float(pure.float().mean()) == pytest.approx(0.8, abs=0.05)
        assert 0.5 * exact < drawn < 2 * exact

    def test_cosine_is_euclidean_on_unit_rows(self):
        x = normal(400, 4)
        units = torch.nn.functional.normalize(x)
        want = purity_radius(units, n_clusters=3, generator=seeded())
        found = purity_radius(
            x * torch.linspace(0.1, 9, 400)[:, None], n_clusters=3, generator=seeded(), metric="cosine"
        )
        assert found == pytest.approx(want**2 / 2, rel=1e-4)

    def test_half_precision_and_files(self, tmp_path):
        x = normal(300, 4).half()
        np.save(tmp_path / "x.npy", x.numpy())
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        for metric in ("euclidean", "cosine"):
            found = [purity_radius(y, n_clusters=3, generator=seeded(), metric=metric) for y in (x, mapped)]
            assert found[0] == found[1] > 0

    def test_one_cluster_has_no_limit(self):
        radius = purity_radius(torch.ones(5, 2), n_clusters=2, generator=seeded())
        assert radius == math.inf
        assert prob_cover(torch.ones(5, 2), 2, radius=radius).indices.tolist() == [0, 1]

    def test_equal_rows_in_two_clusters_leave_none(self, monkeypatch):
        x = torch.ones(6, 2)
        halves = kmeans(x, 1, generator=seeded())._replace(assignments=torch.arange(6) % 2)
        monkeypatch.setitem(WITHIN, "kmeans", lambda *_, **__: halves)
        with pytest.raises(DataError, match=r"6 of 6 rows equal a row of another cluster: no radius leaves .* 0\.95"):
            purity_radius(x, n_clusters=2, generator=seeded())


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: prob_cover(LINE, 0, radius=1.0), BudgetError, "asked for 0 rows, 6 can be picked"),
        (lambda: prob_cover(LINE, 7, radius=1.0), BudgetError, "asked for 7 rows, 6 can be picked"),
        (lambda: prob_cover(LINE, 1, radius=0), ConfigError, "radius must be a number above 0, got 0"),
        (lambda: prob_cover(LINE, 1, radius=math.nan), ConfigError, "radius must be a number above 0, got nan"),
        (lambda: prob_cover(LINE, 1, radius="1"), ConfigError, "radius must be a number above 0, got '1'"),
        (lambda: prob_cover(LINE, 1, radius=1.0, metric="manhattan"), ConfigError, "euclidean, cosine, got 'manh"),
        (lambda: prob_cover(LINE, 1, radius=1.0, max_edges=0), ConfigError, "max_edges must be a whole number"),
        (lambda: prob_cover(LINE / 0, 1, radius=1.0), DataError, "features must be finite"),
        (lambda: prob_cover(LINE[:0], 1, radius=1.0), DataError, "features has no rows"),
        (lambda: prob_cover(LINE, 1, radius=1.0, metric="cosine"), DataError, "row 0 is all zeros"),
        (lambda: prob_cover(LINE.cfloat(), 1, radius=1.0), ShapeError, "features must be real numbers"),
        (lambda: prob_cover(LINE, 1, radius=1.0, labeled=torch.ones(5).bool()), ShapeError, "labeled must have shape"),
        (lambda: prob_cover(LINE, 1, radius=1.0, candidates=torch.ones(6)), ShapeError, "candidates must be a bool"),
        (lambda: purity_radius(LINE, n_clusters=1, generator=seeded()), ConfigError, "n_clusters .* at least 2, got 1"),
        (lambda: purity_radius(LINE, n_clusters=7, generator=seeded()), BudgetError, "asked for 7 rows"),
        (lambda: purity_radius(LINE, n_clusters=2, alpha=0, generator=seeded()), ConfigError, "alpha must be"),
        (lambda: purity_radius(LINE, n_clusters=2, max_balls=0, generator=seeded()), ConfigError, "max_balls"),
        (lambda: purity_radius(LINE, n_clusters=2, metric="l1", generator=seeded()), ConfigError, "metric"),
        (lambda: purity_radius(LINE / 0, n_clusters=2, generator=seeded()), DataError, "finite"),
    ],
)
def test_bad_input(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_no_chunk_at_all_fits(monkeypatch):
    def poor(*_):
        raise torch.OutOfMemoryError("too much")

    monkeypatch.setattr(balls.Ruler, "near", poor)
    with pytest.raises(MemoryError, match="does not fit"), pytest.warns(UserWarning, match="smaller chunks"):
        prob_cover(normal(400, 2), 1, radius=1.0)
    assert Chunker()._most is None


@pytest.mark.gpu
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_cuda_picks_the_same(metric):
    x = normal(2000, 16)
    labeled, candidates = torch.arange(2000) < 9, torch.arange(2000) % 3 > 0
    candidates &= ~labeled
    for generator in (seeded(), seeded(device="cuda")):
        assert purity_radius(x.cuda(), n_clusters=4, generator=generator, metric=metric, max_balls=500) > 0
    radius = 3.0 if metric == "euclidean" else 0.4
    here = prob_cover(x, 150, radius=radius, labeled=labeled, candidates=candidates, metric=metric)
    there = prob_cover(
        x.cuda(), 150, radius=radius, labeled=labeled.cuda(), candidates=candidates.cuda(), metric=metric
    )
    assert there.indices.is_cuda
    assert there.indices.cpu().equal(here.indices)
    assert there.scores.cpu().equal(here.scores)
    assert here.scores.min() > 0  # those that cover nothing are k-center's
    computed_there = prob_cover(x, 50, radius=radius, metric=metric, device="cuda")
    assert computed_there.indices.equal(prob_cover(x, 50, radius=radius, metric=metric).indices)


@pytest.mark.gpu
def test_cuda_refuses_what_the_cpu_refuses():
    with pytest.raises(ConfigError, match="is small enough"):
        prob_cover(normal(4000, 2).cuda(), 5, radius=1.0, max_edges=200_000)
