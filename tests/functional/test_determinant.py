import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import badge as badge_reference
from tests.references import determinant as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import variances
from torchal.functional import log_det, max_det


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def made(n_rows, n_classes, n_columns, seed=0, dtype=torch.float64):
    """Return log-probabilities and features of a pool."""
    logits = 2 * normal(n_rows, n_classes, seed=seed)
    return logits.log_softmax(1).to(dtype), normal(n_rows, n_columns, seed=seed + 1, dtype=dtype)


def masks(n_rows, n_labeled, n_left_out, seed):
    """Return which rows are labeled, and which may be picked; at least one."""
    order = torch.randperm(n_rows, generator=seeded(seed))
    n_labeled = min(n_labeled, n_rows - 1)
    labeled, candidates = torch.zeros(2, n_rows, dtype=torch.bool)
    labeled[order[:n_labeled]] = True
    candidates[order[n_labeled : max(n_labeled + 1, n_rows - n_left_out)]] = True
    return labeled, candidates


def small(monkeypatch, *, few=8, picks=3):
    """Make blocks and steps so small that few rows have many of them."""
    monkeypatch.setattr(variances.VariancePool, "few", few)
    monkeypatch.setattr(variances, "_MOST", picks)
    monkeypatch.setattr(variances, "block_rows", lambda values, *_: max(1, len(values) // 8))


# det(K + I): two equal rows 3, rows at a right angle 4; all three 2 * 3, in either order
RIGHT = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])


def test_by_hand():
    picks = log_det(RIGHT, 3)
    assert picks.indices.tolist() == [0, 2, 1]
    assert picks.scores.tolist() == pytest.approx([math.log(2), math.log(2), math.log(3 / 2)])
    # mean squared length 14 / 3
    picks = log_det(RIGHT, 3, kernel="linear", ridge=0.5)
    assert picks.indices.tolist() == [2, 1, 0]
    gains = [27 / 14 + 1 / 2, 12 / 14 + 1 / 2, (3 / 14) * 0.5 / (12 / 14 + 0.5) + 0.5]
    assert picks.scores.tolist() == pytest.approx([math.log(gain) for gain in gains], rel=1e-5)


def test_labeled_rows_count_as_picked():
    labeled = torch.tensor([False, True, False])
    assert log_det(RIGHT, 2, labeled=labeled).indices.tolist() == [2, 0]
    assert log_det(RIGHT, 1, labeled=labeled, candidates=torch.arange(3) == 0).indices.tolist() == [0]


def test_gradients_by_hand():
    # along (-1, 1): 0.5 x 1, 0.1 x 9 and 0.25 x 8 in the first column of h, 0.5 x 3 in the second
    log_probs = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.75, 0.25], [0.5, 0.5]]).log()
    features = torch.tensor([[1.0, 0.0], [-9.0, 0.0], [8.0, 0.0], [0.0, 3.0]])
    assert max_det(log_probs, features, 4).indices.tolist() == [2, 3, 1, 0]
    labeled = torch.arange(4) == 2
    assert max_det(log_probs, features, 1, labeled=labeled).indices.tolist() == [3]


@settings(deadline=None, max_examples=40)
@given(
    n_rows=st.integers(1, 40),
    n_columns=st.integers(1, 12),
    n_labeled=st.integers(0, 20),
    n_left_out=st.integers(0, 3),
    kernel=st.sampled_from(["cosine", "linear"]),
    ridge=st.sampled_from([1e-3, 0.3, 1.0]),
    repeats=st.booleans(),
    blocks=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_determinants(n_rows, n_columns, n_labeled, n_left_out, kernel, ridge, repeats, blocks, seed):
    x = normal(n_rows, n_columns, seed=seed)
    if repeats:
        x[n_rows // 2 :] = x[: n_rows - n_rows // 2].clone()
    labeled, candidates = masks(n_rows, n_labeled, n_left_out, seed)
    n = int(torch.randint(1, min(8, int(candidates.sum())) + 1, (), generator=seeded(seed)))
    with pytest.MonkeyPatch.context() as patch:
        if blocks:
            small(patch, few=2, picks=2)
        chosen = {"labeled": labeled, "candidates": candidates, "kernel": kernel, "ridge": ridge}
        picks = log_det(x, n, **chosen, chunk_rows=7)
    rows, gains = reference.greedy(reference.kernel_matrix(x, kernel), n, ridge, labeled, candidates)
    assert picks.scores.tolist() == pytest.approx(gains, abs=1e-8)
    assert picks.indices.tolist() == rows or n_columns == 1  # where all directions are equal up to rounding


@settings(deadline=None, max_examples=25)
@given(
    n_rows=st.integers(1, 30),
    n_classes=st.integers(1, 4),
    n_columns=st.integers(1, 4),
    n_labeled=st.integers(0, 10),
    bias=st.booleans(),
    blocks=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_gradients_agree_with_the_determinants(n_rows, n_classes, n_columns, n_labeled, bias, blocks, seed):
    log_probs, x = made(n_rows, n_classes, n_columns, seed=seed)
    labeled, candidates = masks(n_rows, n_labeled, 2, seed)
    n = int(torch.randint(1, min(8, int(candidates.sum())) + 1, (), generator=seeded(seed)))
    with pytest.MonkeyPatch.context() as patch:
        if blocks:
            small(patch, few=2, picks=2)
        chosen = {"labeled": labeled, "candidates": candidates, "ridge": 0.05, "bias": bias}
        picks = max_det(log_probs, x, n, **chosen, chunk_rows=7)
    gradients = badge_reference.gradients(log_probs.exp(), x, bias=bias)
    rows, gains = reference.greedy(reference.scaled(gradients @ gradients.T), n, 0.05, labeled, candidates)
    if n_classes > 1:  # else all are 0
        assert picks.scores.tolist() == pytest.approx(gains, abs=1e-8)
    assert picks.indices.tolist() == rows


@pytest.mark.parametrize("ridge", [1.0, 0.01])
def test_the_sum_of_gains_is_near_the_largest(ridge):
    for seed in range(5):
        x = normal(9, 3, seed=seed)
        k = reference.kernel_matrix(x)
        best = max(reference.log_det(k, list(rows), ridge) for rows in itertools.combinations(range(9), 4))
        found = float(log_det(x, 4, ridge=ridge).scores.sum())
        assert found <= best + 1e-9
        assert found >= (1 - 1 / math.e) * best or ridge < 1


@pytest.mark.parametrize("kernel", ["cosine", "linear"])
@pytest.mark.parametrize("n_labeled", [0, 5, 60])
def test_blocks_and_chunks_do_not_change_the_picks(monkeypatch, kernel, n_labeled):
    x, labeled = normal(900, 20), torch.arange(900) < n_labeled
    want = log_det(x, 100, kernel=kernel, labeled=labeled, ridge=0.1)
    assert len(want.indices.unique()) == 100
    small(monkeypatch)
    got = log_det(x, 100, kernel=kernel, labeled=labeled, ridge=0.1, chunk_rows=70)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores, want.scores)
    monkeypatch.setattr(variances, "_PARTS", 2)
    monkeypatch.setattr(variances, "values_per_chunk", lambda _: 64)
    assert log_det(x, 100, kernel=kernel, labeled=labeled, ridge=0.1).indices.equal(want.indices)


def test_many_columns_need_no_matrix_of_them(monkeypatch):
    x, labeled = normal(300, 150), torch.arange(300) < 20
    want, _ = reference.greedy(reference.kernel_matrix(x), 30, 0.1, labeled, ~labeled)
    assert log_det(x, 30, labeled=labeled, ridge=0.1).indices.tolist() == want
    small(monkeypatch)
    assert log_det(x, 30, labeled=labeled, ridge=0.1).indices.tolist() == want
    posterior = variances.LinearPosterior(150, 0.1, 50, x.device)
    assert posterior._matrix is None


def test_blocks_of_gradients_do_not_change_the_picks(monkeypatch):
    log_probs, x = made(600, 4, 5)
    labeled = torch.arange(600) < 9
    want = max_det(log_probs, x, 80, labeled=labeled)
    small(monkeypatch)
    monkeypatch.setattr(variances, "_PARTS", 5)
    got = max_det(log_probs, x, 80, labeled=labeled, chunk_rows=64)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores, want.scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("blocks", [False, True])
def test_equal_rows_go_in_order(monkeypatch, dtype, blocks):
    if blocks:
        small(monkeypatch)
    alike = torch.full((300, 3), 0.1, dtype=dtype)
    assert log_det(alike, 20).indices.tolist() == list(range(20))
    assert log_det(alike, 5, kernel="linear", ridge=1e-9).indices.tolist() == list(range(5))
    log_probs = torch.tensor([0.6, 0.3, 0.1], dtype=dtype).log().expand(300, 3).contiguous()
    assert max_det(log_probs, alike, 20).indices.tolist() == list(range(20))
    repeated = normal(40, 6, dtype=dtype).repeat(5, 1)
    picks = log_det(repeated, 120, ridge=0.1).indices
    assert len(picks.unique()) == 120
    for row in range(40):
        copies = picks[picks % 40 == row]
        assert copies.equal(copies.sort().values)
        assert copies.tolist() == [row + 40 * i for i in range(len(copies))]


def test_one_class_has_no_gradients():
    picks = max_det(torch.zeros(9, 1), normal(9, 2), 4)
    assert picks.indices.tolist() == [0, 1, 2, 3]
    assert torch.isfinite(picks.scores).all()


def test_rows_of_zeros_have_no_variance():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    picks = log_det(x, 3, kernel="linear")
    assert picks.indices.tolist() == [1, 0, 2]
    assert picks.scores.tolist() == pytest.approx([math.log(4), 0, 0], abs=1e-6)
    assert log_det(torch.zeros(3, 2), 3, kernel="linear").indices.tolist() == [0, 1, 2]


@pytest.mark.parametrize("ridge", [0.01, 1.0])
def test_rows_of_zeros_come_last_by_the_cosine_too(ridge):
    x = normal(50, 3)
    with_zeros = torch.cat([torch.zeros(2, 3), x, torch.zeros(1, 3)])
    want, picks = log_det(x, 50, ridge=ridge), log_det(with_zeros, 53, ridge=ridge)
    assert picks.indices.tolist() == [*(want.indices + 2).tolist(), 0, 1, 52]
    assert torch.allclose(picks.scores[:50], want.scores)
    assert picks.scores[50:].tolist() == pytest.approx([math.log(ridge)] * 3)
    assert log_det(with_zeros, 9, labeled=torch.arange(53) < 3, ridge=ridge).indices.equal(
        log_det(x, 9, labeled=torch.arange(50) < 1, ridge=ridge).indices + 2
    )
    assert log_det(torch.zeros(3, 2), 3).indices.tolist() == [0, 1, 2]


def test_every_candidate_and_one_row():
    x = normal(30, 4)
    assert log_det(x, 30).indices.sort().values.tolist() == list(range(30))
    assert log_det(x, 1, labeled=torch.arange(30) != 7).indices.tolist() == [7]
    assert log_det(x[:1], 1).scores.tolist() == pytest.approx([math.log(2)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_size_of_features_does_not_count(size, dtype):
    log_probs, x = made(100, 3, 8, dtype=dtype)
    for kernel in ("cosine", "linear"):
        want, got = (log_det(y, 12, kernel=kernel, ridge=0.1) for y in (x, x * size))
        assert got.indices[1:].equal(want.indices[1:]) or kernel == "cosine"
        assert torch.allclose(got.scores, want.scores, rtol=1e-3, atol=1e-5)
    assert max_det(log_probs, x * size, 12).indices.equal(max_det(log_probs, x, 12).indices)


def test_a_short_row_has_a_direction_too():
    x = normal(50, 4, dtype=torch.float32)
    x[7] *= 1e-30
    assert log_det(x, 50).indices.equal(log_det(torch.nn.functional.normalize(x.double()), 50).indices)


def test_half_precision():
    log_probs, x = made(100, 3, 8, dtype=torch.float16)
    picks = log_det(x, 12, kernel="linear")
    assert picks.scores.dtype == torch.float32
    assert picks.indices.equal(log_det(x.float(), 12, kernel="linear").indices)
    assert max_det(log_probs, x, 12).scores.dtype == torch.float32


def test_probabilities_of_0_and_1():
    log_probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]).log()
    picks = max_det(log_probs, torch.ones(3, 2), 3)
    assert picks.indices.tolist() == [1, 0, 2]
    assert torch.isfinite(picks.scores).all()


def test_files(tmp_path):
    log_probs, x = made(3000, 3, 6, dtype=torch.float32)
    for name, rows in (("h", x), ("p", log_probs)):
        np.save(tmp_path / f"{name}.npy", rows.numpy())
    h, p = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "hp")
    assert log_det(h, 50, kernel="linear").indices.equal(log_det(x, 50, kernel="linear").indices)
    assert max_det(p, h, 50).indices.equal(max_det(log_probs, x, 50).indices)


LOG_PROBS, FEATURES = made(10, 3, 4)


@pytest.mark.parametrize(
    ("n", "changed", "error", "match"),
    [
        (0, {}, BudgetError, "asked for 0 rows"),
        (11, {}, BudgetError, "asked for 11 rows, 10 can be picked"),
        (3, {"candidates": torch.arange(10) < 2}, BudgetError, "asked for 3 rows, 2 can be picked"),
        (1, {"labeled": torch.ones(9).bool()}, ShapeError, r"labeled must have shape \(10,\)"),
        (1, {"ridge": 0.0}, ConfigError, "ridge must be a finite number above 0, got 0"),
        (1, {"ridge": True}, ConfigError, "ridge must be a finite number above 0, got True"),
        (1, {"chunk_rows": 0}, ConfigError, "chunk_rows"),
        (1, {"features": FEATURES[:, :0]}, ShapeError, "features must have at least one column"),
        (1, {"features": FEATURES[:0]}, DataError, "features has no rows"),
        (1, {"features": FEATURES.index_fill(0, torch.tensor(7), torch.nan)}, DataError, "features .*finite"),
    ],
)
def test_bad_input(n, changed, error, match):
    chosen = {"features": FEATURES} | changed
    features = chosen.pop("features")
    with pytest.raises(error, match=match):
        log_det(features, n, **chosen)
    with pytest.raises(error, match=match):
        max_det(LOG_PROBS[: len(features)], features, n, **chosen)


def test_bad_input_of_one_of_them():
    with pytest.raises(ConfigError, match="kernel must be one of cosine, linear, got 'rbf'"):
        log_det(FEATURES, 1, kernel="rbf")
    with pytest.raises(ConfigError, match="bias must be true or false, got 'no'"):
        max_det(LOG_PROBS, FEATURES, 1, bias="no")
    with pytest.raises(DataError, match=r"row 0 sums to .* after exp, not to 1"):
        max_det(LOG_PROBS.exp(), FEATURES, 1)
    with pytest.raises(ShapeError, match=r"log_probs must be \(10, C\) on cpu, .* got \(9, 3\) on cpu"):
        max_det(LOG_PROBS[:9], FEATURES, 1)


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.mark.parametrize("kernel", ["cosine", "linear"])
    @pytest.mark.parametrize("blocks", [False, True])
    def test_the_same_picks(self, monkeypatch, kernel, blocks):
        x, labeled = normal(2000, 8), torch.arange(2000) < 30
        want = log_det(x, 100, kernel=kernel, labeled=labeled, ridge=0.1)
        if blocks:
            small(monkeypatch)
        got = log_det(x.to("cuda"), 100, kernel=kernel, labeled=labeled.to("cuda"), ridge=0.1)
        assert got.indices.is_cuda
        assert got.indices.cpu().equal(want.indices)
        assert torch.allclose(got.scores.cpu(), want.scores)
        assert log_det(x, 100, kernel=kernel, labeled=labeled, ridge=0.1, device="cuda").indices.equal(want.indices)

    def test_the_same_gradients(self):
        log_probs, x = made(2000, 4, 8)
        want = max_det(log_probs, x, 100)
        assert max_det(log_probs.to("cuda"), x.to("cuda"), 100).indices.cpu().equal(want.indices)


def test_a_ridge_near_rounding_and_more_labeled_rows_than_directions():
    """What the labeled rows leave of the kernel is rounding alone."""
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        log_probs = torch.randn(1300, 3, generator=generator, dtype=torch.float64).log_softmax(1)
        x = torch.randn(1300, 3, generator=generator, dtype=torch.float64)
        for ridge in (1e-12, 1e-14):
            picks = max_det(log_probs, x, 5, labeled=torch.arange(1300) < 1200, ridge=ridge)
            assert len(picks.indices.unique()) == 5
            assert picks.scores.isfinite().all()
