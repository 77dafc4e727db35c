from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from tests.references import badge as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import greedy, kronecker
from torchal.engine.features import FeatureReader
from torchal.engine.gradients import residuals
from torchal.engine.kronecker import KroneckerSpace, open_factors
from torchal.functional.badge import badge


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def made(n_rows, n_classes, n_columns, seed=0, dtype=torch.float64, sharpness=2.0):
    """Return log-probabilities and features of a pool."""
    logits = sharpness * normal(n_rows, n_classes, seed=seed, dtype=dtype)
    return logits.log_softmax(1), normal(n_rows, n_columns, seed=seed + 1, dtype=dtype)


def opened(log_probs, features, *, bias=False):
    make_left = partial(residuals, dtype=log_probs.dtype)
    among = torch.ones(len(features), dtype=torch.bool)
    return open_factors(FeatureReader(features), FeatureReader(log_probs), make_left, constant=bias, among=among)


def pairwise(log_probs, features, *, bias=False):
    """Return the engine's squared distances of all pairs."""
    space, source = opened(log_probs, features, bias=bias)
    rows = source.select(torch.arange(len(features)))
    scale = space.scales[0] * space.scales[1]
    return space.pairwise(rows, rows).double() / scale / scale


def assert_distributed(counts, chances):
    """Require that counts of draws agree with their chances, by a chi-squared test."""
    n_runs = sum(counts.values())
    assert not [rows for rows in counts if not chances[rows]]
    often = [rows for rows in chances if chances[rows] * n_runs >= 5]
    seldom = sum(chances.values()) - sum(chances[rows] for rows in often)
    observed = [counts[rows] for rows in often]
    expected = [chances[rows] * n_runs for rows in often]
    if seldom * n_runs >= 1:
        observed, expected = [*observed, n_runs - sum(observed)], [*expected, seldom * n_runs]
    else:
        assert n_runs - sum(observed) <= 5
        observed, expected = np.array(observed), np.array(expected) * sum(observed) / sum(expected)
    if len(observed) > 1:
        assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_by_hand():
    # gradients (p - 1, 1 - p) x h: 0.5 (-1, 1) x 1, 0.1 (-1, 1) x -9 and so on; the third is the largest
    log_probs = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.75, 0.25], [0.5, 0.5]]).log()
    features = torch.tensor([[1.0], [-9.0], [-8.0], [1.0]])
    picks = badge(log_probs, features, 3, generator=seeded(0))
    lengths = {0: 0.5, 1: -0.9, 2: -2.0, 3: 0.5}  # along (-1, 1)
    assert picks.indices[0] == 2
    assert float(picks.scores[0]) == pytest.approx(2 * 2**0.5)
    second, third = picks.indices[1:].tolist()
    assert float(picks.scores[1]) == pytest.approx(abs(lengths[second] + 2) * 2**0.5)
    nearest = min(abs(lengths[third] - lengths[second]), abs(lengths[third] + 2))
    assert float(picks.scores[2]) == pytest.approx(nearest * 2**0.5)
    assert len({0, 3} & {second, third}) == 1  # of two equal rows one is drawn, and the other only once none is left
    assert badge(log_probs, features, 4, generator=seeded(0)).scores[3] == 0


@pytest.mark.parametrize(
    ("first", "bias", "kind"),
    [("largest", False, "plain"), ("uniform", True, "plain"), ("largest", True, "sure"), ("uniform", False, "copies")],
)
def test_draws_have_the_distribution_of_the_sequential_algorithm(first, bias, kind):
    log_probs, features = made(5, 3, 2)
    if kind == "sure":
        log_probs[:2] = torch.tensor([[1.0, 0, 0], [0, 0, 1]]).log()
    elif kind == "copies":
        log_probs, features = (x[torch.tensor([0, 1, 2, 1, 2])] for x in (log_probs, features))
    chances = reference.draws(reference.gradients(log_probs.exp(), features, bias=bias), 3, first)
    counts = Counter()
    for seed in range(600):
        picks = badge(log_probs, features, 3, generator=seeded(seed), first=first, bias=bias)
        counts[tuple(picks.indices.tolist())] += 1
    assert_distributed(counts, chances)


@pytest.mark.parametrize("passes", ["never", "always"])
def test_the_last_draw_of_many_blocks_has_the_distribution_of_the_sequential_algorithm(passes, monkeypatch):
    # blocks of two proposals, each of which learns of the draws before in another way
    monkeypatch.setattr(KroneckerSpace, "block_rows", 2)
    monkeypatch.setattr(greedy, "_READING", 1e9 if passes == "never" else -1e9)
    log_probs, features = made(6, 3, 2, seed=4)
    chances = reference.draws(reference.gradients(log_probs.exp(), features), 5)
    last = Counter()
    for picks, chance in chances.items():
        last[picks[-1]] += chance
    counts = Counter(int(badge(log_probs, features, 5, generator=seeded(s)).indices[-1]) for s in range(500))
    assert_distributed(counts, last)


def test_the_expected_potential_is_that_of_the_sequential_algorithm():
    # enough draws for many blocks and some passes
    kinds = torch.arange(1500) % 12
    logits = 3 * normal(12, 4)[kinds] + normal(1500, 4, seed=1)
    features = normal(12, 5, seed=2)[kinds] * 3 + normal(1500, 5, seed=3)
    log_probs = logits.log_softmax(1)
    rows = reference.gradients(log_probs.exp(), features)
    ours, theirs = [], []
    for seed in range(60):
        picks = badge(log_probs, features, 100, generator=seeded(seed)).indices
        left = torch.cdist(torch.from_numpy(rows), torch.from_numpy(rows[picks])).square().amin(1).sum()
        ours.append(float(left))
        theirs.append(reference.badge(rows, 100, np.random.default_rng(seed))[1])
    assert stats.mannwhitneyu(ours, theirs).pvalue > 1e-3
    assert abs(np.mean(ours) / np.mean(theirs) - 1) < 0.02


def test_a_rotation_of_the_features_changes_no_draw():
    log_probs, features = made(300, 4, 6)
    rotation = torch.linalg.qr(normal(6, 6, seed=9, dtype=torch.float64)).Q
    for seed in range(5):
        want = badge(log_probs, features, 40, generator=seeded(seed))
        got = badge(log_probs, features @ rotation, 40, generator=seeded(seed))
        assert got.indices.equal(want.indices)
        assert torch.allclose(got.scores, want.scores)


@settings(max_examples=80, deadline=None)
@given(
    n_rows=st.integers(1, 30),
    n_classes=st.integers(1, 5),
    n_columns=st.integers(1, 5),
    seed=st.integers(0, 1000),
    bias=st.booleans(),
    double=st.booleans(),
)
def test_distances_are_those_of_the_products(n_rows, n_classes, n_columns, seed, bias, double):
    dtype = torch.float64 if double else torch.float32
    log_probs, features = made(n_rows, n_classes, n_columns, seed=seed, dtype=dtype)
    some = torch.randint(n_rows, (n_rows,), generator=seeded(seed))  # with copies
    log_probs, features = log_probs[some], features[some]
    rows = reference.gradients(log_probs.double().exp(), features, bias=bias)
    want = torch.from_numpy(reference.distances(rows))
    got = pairwise(log_probs, features, bias=bias)
    assert torch.allclose(got, want, rtol=1e-4, atol=1e-5 * float((rows**2).sum(1).max()))
    assert not got[some.unsqueeze(0) == some.unsqueeze(1)].any()


def test_the_engine_picks_the_farthest_gradient_too():
    log_probs, features = made(60, 3, 4)
    space, source = opened(log_probs, features)
    values = torch.full((60,), torch.inf, dtype=torch.float64)
    pool = greedy.Pool(source, space, values)
    pool.lower(torch.tensor([7]))
    far = torch.from_numpy(reference.distances(reference.gradients(log_probs.exp(), features)))
    want, nearest = [], far[7].clone()
    for _ in range(20):
        want.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, far[want[-1]])
    assert greedy.farthest_first(pool, 20)[0].tolist() == want


def test_near_rows_keep_their_distance():
    log_probs, features = made(3, 4, 600, dtype=torch.float32)
    log_probs, features = log_probs.repeat(2, 1), features.repeat(2, 1)
    features[3, 5] += 1e-4 * features[3].norm()
    log_probs[4] = (log_probs[4] + torch.tensor([1e-4, 0, 0, 0])).log_softmax(0)
    rows = reference.gradients(log_probs.double().exp(), features)
    want = torch.from_numpy(reference.distances(rows))
    got = pairwise(log_probs, features)
    assert torch.allclose(got.diagonal(3)[:2], want.diagonal(3)[:2], rtol=2e-2)
    assert got[2, 5] == got[5, 2] == 0


def test_products_of_other_factors_that_are_equal_have_no_distance():
    # a sure row far out and an unsure one near are the same gradient
    log_probs = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.9, 0.1], [1.0, 0.0]]).log()
    h = normal(300)
    features = torch.stack([h, 2 * h, 5 * h, h])
    far = pairwise(log_probs, features)
    assert not far[:3, :3].any()
    assert (far[3, :3] > 0).all()


def test_a_sure_row_comes_after_a_doubtful_one_and_counts_as_the_origin():
    log_probs = torch.tensor([[1.0, 0, 0], [0.4, 0.3, 0.3], [0.0, 1, 0]]).log()
    picks = badge(log_probs, torch.ones(3, 2), 3, generator=seeded(0))
    assert picks.indices[0] == 1
    assert picks.scores.tolist() == pytest.approx([*[(2 * (0.36 + 0.09 + 0.09)) ** 0.5] * 2, 0])


def test_what_rounding_leaves_of_a_sure_prediction_counts():
    # p rounds to 1, but the others' probabilities tell the rows apart
    logits = torch.tensor([[30.0, 0, 0], [30.0, 1, 0], [31.0, 0, 0]])
    log_probs = logits.double().log_softmax(1)
    want = badge(log_probs, torch.ones(3, 1).double(), 3, generator=seeded(0))
    got = badge(log_probs.float(), torch.ones(3, 1), 3, generator=seeded(0))
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores.double(), want.scores, rtol=1e-4)
    assert want.scores[-1] > 0


@pytest.mark.parametrize("rows", ["sure", "equal", "one class", "zero features"])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_rows_that_are_all_alike(rows, n):
    log_probs, features = made(9, 3, 4)
    if rows == "sure":
        log_probs = torch.eye(3)[torch.arange(9) % 3].log()
    elif rows == "equal":
        log_probs, features = log_probs[:1].repeat(9, 1), features[:1].repeat(9, 1)
    elif rows == "one class":
        log_probs = torch.zeros(9, 1)
    else:
        features = torch.zeros(9, 4)
    candidates = torch.arange(9) > 0 if n < 9 else None
    picks = badge(log_probs, features, n, generator=seeded(0), candidates=candidates)
    assert len(picks.indices.unique()) == n
    assert picks.indices[0] == (1 if n < 9 else 0)
    assert not picks.scores[1:].any()
    assert bool(picks.scores[0] > 0) == (rows == "equal")


def test_equal_rows_are_drawn_once_each_and_ties_of_the_largest_go_to_the_lowest():
    log_probs, features = made(40, 10, 30, dtype=torch.float32)
    copies = torch.arange(400) % 40
    for seed in range(3):
        picks = badge(log_probs[copies], features[copies], 50, generator=seeded(seed))
        assert picks.indices[0] < 40
        assert len(copies[picks.indices[:40]].unique()) == 40
        assert (picks.scores[:40] > 0).all()
        assert not picks.scores[40:].any()


def test_only_candidates_are_drawn_and_all_of_them_where_all_are_asked_for():
    log_probs, features = made(50, 3, 4)
    candidates = torch.arange(50) % 3 == 1
    picks = badge(log_probs, features, int(candidates.sum()), generator=seeded(0), candidates=candidates)
    assert picks.indices.sort().values.equal(candidates.nonzero().squeeze(1))
    # other rows are no centres
    some = badge(log_probs, features, 9, generator=seeded(0), candidates=candidates)
    alone = badge(log_probs[candidates], features[candidates], 9, generator=seeded(0))
    assert candidates.nonzero().squeeze(1)[alone.indices[0]] == some.indices[0]
    assert alone.scores[0] == pytest.approx(float(some.scores[0]))


@pytest.mark.parametrize("size", [1.0, 1e20])
def test_what_is_no_candidate_has_no_say_in_what_float32_can_tell_apart(size):
    logits = torch.tensor([-60.0, -55.0, -58.0, 0.0])  # the last is doubtful, the others are sure to 1e-24
    log_probs = nn.functional.logsigmoid(torch.stack([-logits, logits], 1))
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [size, 0.0]])
    alone = badge(log_probs[:3], x[:3], 3, generator=seeded(0))
    found = badge(log_probs, x, 3, generator=seeded(0), candidates=torch.arange(4) < 3)
    assert alone.indices[0] == 1
    assert found.indices.equal(alone.indices)
    torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=0)


def test_one_row():
    picks = badge(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[2.0, 0]]), 1, generator=seeded(0))
    assert picks.indices.tolist() == [0]
    assert picks.scores.tolist() == pytest.approx([0.25 * 2 * 2**0.5])


def test_a_class_that_is_never_predicted_and_one_without_a_chance():
    log_probs = torch.tensor([[0.6, 0.4, 0], [0.3, 0.7, 0], [0.45, 0.45, 0.1]]).log()
    features = normal(3, 4, seed=3)
    want = torch.from_numpy(reference.distances(reference.gradients(log_probs.exp(), features)))
    assert torch.allclose(pairwise(log_probs, features), want, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(power=st.sampled_from([-100, -40, -20, 20, 40, 100]), seed=st.integers(0, 9), first=st.booleans())
def test_only_the_ratios_of_features_matter(power, seed, first):
    log_probs, features = made(200, 4, 5, seed=seed, dtype=torch.float32)
    how = {"first": "largest" if first else "uniform"}
    want = badge(log_probs, features, 20, generator=seeded(seed), **how)
    got = badge(log_probs, features * 2.0**power, 20, generator=seeded(seed), **how)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores.double() * 2.0**-power, want.scores.double(), rtol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_features_of_any_size_beside_a_bias(size):
    log_probs, features = made(200, 4, 5, dtype=torch.float32)
    picks = badge(log_probs, features * size, 20, generator=seeded(0), bias=True)
    beside = torch.cat([features.double() * size, torch.ones(200, 1)], 1)
    want = badge(log_probs.double(), beside, 20, generator=seeded(0))
    assert picks.indices.equal(want.indices)
    assert torch.allclose(picks.scores.double(), want.scores, rtol=1e-4)


def test_a_model_that_is_sure_of_every_row():
    logits = 10 * torch.eye(3)[torch.arange(60) % 3] + normal(60, 3)
    features = normal(60, 4, seed=1)
    for sharpness in (1, 6):
        log_probs = (sharpness * logits).double().log_softmax(1)
        want = badge(log_probs, features.double(), 10, generator=seeded(1))
        got = badge(log_probs.float(), features, 10, generator=seeded(1))
        assert got.indices.equal(want.indices)
        assert torch.allclose(got.scores.double(), want.scores, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    log_probs, features = (x.to(dtype) for x in made(300, 5, 8))
    got = badge(log_probs, features * 1000, 40, generator=seeded(0))
    want = badge(log_probs.float().log_softmax(1), features.float() * 1000, 40, generator=seeded(0))
    assert got.scores.dtype == torch.float32
    assert torch.isfinite(got.scores).all()
    assert got.indices[0] == want.indices[0]
    assert float(got.scores[0]) == pytest.approx(float(want.scores[0]), rel=0.05)


def test_chunks_of_any_size_draw_alike(monkeypatch):
    log_probs, features = made(700, 4, 5)
    want = badge(log_probs, features, 300, generator=seeded(3))
    assert badge(log_probs, features, 300, generator=seeded(3), chunk_rows=7).indices.equal(want.indices)
    monkeypatch.setattr(kronecker, "values_per_chunk", lambda _: 64)
    assert badge(log_probs, features, 300, generator=seeded(3)).indices.equal(want.indices)


def test_no_temporary_is_larger_than_a_chunk():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for one in result if isinstance(result, tuple | list) else [result]:
                if isinstance(one, torch.Tensor):
                    self.size = max(self.size, one.numel())
            return result

    log_probs, features = made(20_000, 60, 80, dtype=torch.float32)
    with Largest() as seen:
        badge(log_probs, features, 30, generator=seeded(0))
    assert seen.size <= max(features.numel(), 2**20)  # the inputs themselves go by, as detached
    with Largest() as seen:
        badge(log_probs, features, 30, generator=seeded(0), chunk_rows=100)
    assert seen.size <= features.numel()


def test_files(tmp_path):
    log_probs, features = made(3000, 3, 6, dtype=torch.float32)
    want = badge(log_probs, features, 300, generator=seeded(3))
    for name, x in (("h", features), ("p", log_probs)):
        np.save(tmp_path / f"{name}.npy", x.numpy())
    h, p = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "hp")
    assert badge(p, h, 300, generator=seeded(3)).indices.equal(want.indices)
    assert badge(log_probs, h, 300, generator=seeded(3)).indices.equal(want.indices)
    assert not badge(p, h, 300, generator=seeded(4)).indices.equal(want.indices)


LOG_PROBS, FEATURES = made(10, 3, 4)


@pytest.mark.parametrize(
    ("n", "settings", "error", "match"),
    [
        (0, {}, BudgetError, "asked for 0 rows"),
        (11, {}, BudgetError, "asked for 11 rows, 10 can be picked"),
        (3, {"candidates": torch.arange(10) < 2}, BudgetError, "asked for 3 rows, 2 can be picked"),
        (1, {"candidates": torch.ones(10)}, ShapeError, "candidates must be a bool tensor"),
        (1, {"candidates": torch.ones(9).bool()}, ShapeError, r"candidates must have shape \(10,\)"),
        (1, {"first": "drawn"}, ConfigError, "first must be one of largest, uniform, got 'drawn'"),
        (1, {"bias": "no"}, ConfigError, "bias must be true or false, got 'no'"),
        (1, {"log_probs": LOG_PROBS[:9]}, ShapeError, r"log_probs must be \(10, C\) on cpu, .* got \(9, 3\) on cpu"),
        (1, {"log_probs": LOG_PROBS[0]}, ShapeError, "log_probs must have 2 axes"),
        (1, {"log_probs": LOG_PROBS.exp()}, DataError, "row 0 sums to .* after exp, not to 1"),
        (1, {"log_probs": LOG_PROBS[:, :0]}, ShapeError, "log_probs must have at least one column"),
        (1, {"log_probs": LOG_PROBS.long()}, ShapeError, "log_probs must be floating point"),
        (1, {"log_probs": LOG_PROBS.index_fill(0, torch.tensor(7), torch.nan)}, DataError, "row 7 sums to nan"),
        (1, {"log_probs": LOG_PROBS.index_fill(0, torch.tensor(7), -torch.inf)}, DataError, "row 7 sums to 0 after"),
        (1, {"log_probs": LOG_PROBS.index_fill(0, torch.tensor(7), torch.inf)}, DataError, "row 7 sums to inf"),
        (1, {"features": FEATURES.index_fill(0, torch.tensor(7), torch.nan)}, DataError, "the first is row 7"),
        (1, {"features": FEATURES.index_fill(0, torch.tensor(7), torch.inf)}, DataError, "features must be finite"),
        (1, {"features": FEATURES[:, :0]}, ShapeError, "features must have at least one column"),
        (
            1,
            {"features": FEATURES.tolist()},
            ShapeError,
            r"must be a torch\.Tensor or a NumPy array, got list",
        ),
        (1, {"features": FEATURES[:0]}, DataError, "features has no rows"),
        (1, {"chunk_rows": 0}, ConfigError, "chunk_rows"),
    ],
)
def test_bad_input(n, settings, error, match):
    inputs = {"log_probs": LOG_PROBS, "features": FEATURES} | settings
    with pytest.raises(error, match=match):
        badge(inputs.pop("log_probs"), inputs.pop("features"), n, generator=seeded(0), **inputs)


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.mark.parametrize("generator_device", ["cpu", "cuda"])
    @pytest.mark.parametrize("bias", [False, True])
    def test_the_same_draws(self, generator_device, bias):
        log_probs, features = made(2000, 5, 8)
        want = badge(log_probs, features, 200, generator=seeded(0), bias=bias)
        generator = torch.Generator(generator_device).manual_seed(0)
        got = badge(log_probs.to("cuda"), features.to("cuda"), 200, generator=generator, bias=bias)
        assert got.indices.is_cuda
        assert got.scores.is_cuda
        assert len(got.indices.unique()) == 200
        assert got.indices[0].cpu() == want.indices[0]
        if generator_device == "cpu":
            assert got.indices.cpu().equal(want.indices)
            assert torch.allclose(got.scores.cpu(), want.scores)

    def test_rows_on_the_host_and_work_there(self):
        log_probs, features = made(2000, 5, 8)
        want = badge(log_probs, features, 200, generator=seeded(0))
        got = badge(log_probs, features, 200, generator=seeded(0), device="cuda", chunk_rows=300)
        assert got.indices.equal(want.indices)

    def test_alike_rows(self):
        picks = badge(torch.zeros(9, 1).to("cuda"), torch.ones(9, 2).to("cuda"), 5, generator=seeded(0))
        assert len(picks.indices.unique()) == 5
        assert picks.indices[0] == 0
