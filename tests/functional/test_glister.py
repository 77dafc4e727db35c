import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import glister as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import features as engine_features
from torchal.functional import glister

module = importlib.import_module("torchal.functional.glister")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64).to(dtype)


def made(n_rows, n_columns, n_classes, n_validation=9, seed=0, dtype=torch.float64):
    """Return features, and a layer and a validation part as `glister` takes them."""
    rest = {
        "weight": normal(n_classes, n_columns, seed=seed + 1, dtype=dtype),
        "bias": normal(n_classes, seed=seed + 2, dtype=dtype),
        "validation_features": normal(n_validation, n_columns, seed=seed + 3, dtype=dtype),
        "validation_targets": torch.randint(n_classes, (n_validation,), generator=seeded(seed)),
    }
    return normal(n_rows, n_columns, seed=seed, dtype=dtype), rest


def plain(x, n, rest, learning_rate=0.01, candidates=None):
    """Return what the loop picks."""
    layer = torch.cat([rest["weight"], rest["bias"][:, None]], 1).numpy()
    candidates = torch.ones(len(x), dtype=torch.bool) if candidates is None else candidates
    validation = rest["validation_features"].numpy(), rest["validation_targets"].numpy()
    return reference.greedy(x.numpy(), n, layer, *validation, learning_rate, candidates.tolist())


# logits (-x, x), a validation row at 1 that is of class 1: its loss falls by rows predicted to be of class 1
LINE = torch.tensor([[-0.5], [1.0], [0.2]])
REST = {
    "weight": torch.tensor([[-1.0], [1.0]]),
    "bias": torch.zeros(2),
    "validation_features": torch.tensor([[1.0]]),
    "validation_targets": torch.tensor([1]),
}


def test_by_hand():
    # u = q (1, -1) with q = 1 - p: 1 / (1 + e^(2 |x|)); G = q (1, -1) x (1, 1) at x = 1
    q = [1 / (1 + np.exp(2 * abs(x))) for x in (-0.5, 1.0, 0.2)]
    gains = [-2 * q[0] * q[1] * (1 - 0.5), 2 * q[1] * q[1] * (1 + 1), 2 * q[2] * q[1] * (0.2 + 1)]
    picks = glister(LINE, 1, **REST, learning_rate=0.5)
    assert int(picks.indices) == int(np.argmax(gains))
    assert float(picks.scores) == pytest.approx(0.5 * max(gains))
    # the layer moves by -0.5 q[2] (1, -1) x (0.2, 1): both logits of the validation row by 0.5 q[2] 1.2
    moved = 1 / (1 + np.exp(2 + q[2] * 1.2))
    second = glister(LINE, 2, **REST, learning_rate=0.5)
    assert second.indices.tolist() == [2, 1]
    assert float(second.scores[1]) == pytest.approx(0.5 * 2 * q[1] * moved * 2)


@settings(deadline=None, max_examples=40)
@given(
    n_rows=st.integers(1, 30),
    n_columns=st.integers(1, 4),
    n_classes=st.integers(2, 4),
    n_validation=st.integers(1, 6),
    learning_rate=st.sampled_from([1e-3, 0.1, 3.0]),
    blocks=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_loop(n_rows, n_columns, n_classes, n_validation, learning_rate, blocks, seed):
    x, rest = made(n_rows, n_columns, n_classes, n_validation, seed)
    candidates = torch.rand(n_rows, generator=seeded(seed)) < 0.8
    candidates[0] = True
    n = int(torch.randint(1, int(candidates.sum()) + 1, (), generator=seeded(seed)))
    with pytest.MonkeyPatch.context() as patch:
        if blocks:
            patch.setattr(module, "_SMALLEST_BLOCK", 2)
            patch.setattr(module, "values_per_chunk", lambda _: 1)
        picks = glister(x, n, **rest, learning_rate=learning_rate, candidates=candidates, chunk_rows=7)
    rows, gains = plain(x, n, rest, learning_rate, candidates)
    assert picks.scores.tolist() == pytest.approx(gains, rel=1e-6, abs=1e-12)
    assert picks.indices.tolist() == rows or learning_rate == 3.0  # after which gains may vanish


def test_gains_are_the_slope_of_the_validation_loss():
    x, rest = made(20, 3, 3)
    layer = torch.cat([rest["weight"], rest["bias"][:, None]], 1).numpy()
    picks = glister(x, 1, **rest, learning_rate=1e-5)
    row = reference.with_one(x[picks.indices])
    step = reference.gradients(row, (row @ layer.T).argmax(1), layer).reshape(layer.shape)
    validation = reference.with_one(rest["validation_features"]), rest["validation_targets"].numpy()
    fall = reference.validation_loss(*validation, layer) - reference.validation_loss(*validation, layer - 1e-5 * step)
    assert float(picks.scores) == pytest.approx(fall, rel=1e-3)


def test_blocks_and_chunks_do_not_change_the_picks(monkeypatch):
    x, rest = made(900, 6, 4, 50)
    want = glister(x, 200, **rest, learning_rate=0.3)
    assert want.indices.tolist() == plain(x, 200, rest, 0.3)[0]
    monkeypatch.setattr(module, "_SMALLEST_BLOCK", 5)
    monkeypatch.setattr(module, "values_per_chunk", lambda _: 1)
    monkeypatch.setattr(engine_features, "values_per_chunk", lambda _: 64)
    got = glister(x, 200, **rest, learning_rate=0.3, chunk_rows=70)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores, want.scores)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rows_go_in_order(dtype):
    _, rest = made(1, 3, 4, dtype=dtype)
    assert glister(torch.full((300, 3), 0.1, dtype=dtype), 20, **rest).indices.tolist() == list(range(20))
    x, rest = made(40, 3, 4, dtype=dtype)
    picks = glister(x.repeat(5, 1), 200, **rest).indices
    for row in range(40):
        assert picks[picks % 40 == row].tolist() == [row + 40 * i for i in range(5)]


def test_one_class_has_no_gradients():
    x, rest = made(9, 2, 1)
    assert glister(x, 4, **rest).indices.tolist() == [0, 1, 2, 3]


def test_a_model_that_is_sure_of_every_row():
    x, rest = made(9, 2, 3)
    rest["bias"] = torch.tensor([1e6, 0.0, 0.0], dtype=torch.float64)
    picks = glister(x, 9, **rest)
    assert picks.indices.tolist() == list(range(9))
    assert torch.isfinite(picks.scores).all()


def test_every_candidate_and_one_row():
    x, rest = made(30, 3, 3)
    assert glister(x, 30, **rest).indices.sort().values.tolist() == list(range(30))
    assert glister(x, 1, **rest, candidates=torch.arange(30) == 7).indices.tolist() == [7]
    assert glister(x[:1], 1, **rest).indices.tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_features_of_any_size(size, dtype):
    x, rest = made(60, 4, 3, dtype=dtype)
    rest["bias"] *= 0
    picks = glister(x * size, 30, **rest)
    assert len(picks.indices.unique()) == 30
    assert torch.isfinite(picks.scores).all()


def test_half_precision():
    x, rest = made(60, 4, 3, dtype=torch.float32)
    picks = glister(x.half(), 10, **rest)
    assert picks.scores.dtype == torch.float32
    assert picks.indices.equal(glister(x.half().float(), 10, **rest).indices)


def test_files(tmp_path):
    x, rest = made(3000, 6, 3, dtype=torch.float32)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert glister(mapped, 20, **rest).indices.equal(glister(x, 20, **rest).indices)


FEATURES, GIVEN = made(10, 4, 3)


@pytest.mark.parametrize(
    ("n", "changed", "error", "match"),
    [
        (0, {}, BudgetError, "asked for 0 rows"),
        (11, {}, BudgetError, "asked for 11 rows, 10 can be picked"),
        (3, {"candidates": torch.arange(10) < 2}, BudgetError, "asked for 3 rows, 2 can be picked"),
        (1, {"candidates": torch.ones(9).bool()}, ShapeError, r"candidates must have shape \(10,\)"),
        (1, {"learning_rate": 0.0}, ConfigError, "learning_rate must be a finite number above 0"),
        (1, {"chunk_rows": 0}, ConfigError, "chunk_rows"),
        (1, {"features": FEATURES[:0]}, DataError, "features has no rows"),
        (1, {"features": FEATURES.index_fill(0, torch.tensor(7), torch.nan)}, DataError, "features .*finite"),
        (1, {"weight": torch.ones(3, 5)}, ShapeError, r"weight must be \(C, 4\)"),
        (1, {"bias": torch.ones(2)}, ShapeError, r"bias must be \(3,\)"),
        (1, {"validation_features": torch.ones(9, 5)}, ShapeError, r"validation_features must be \(M, 4\) on cpu"),
        (1, {"validation_features": torch.ones(0, 4)}, DataError, "validation_features has no rows"),
        (1, {"validation_features": torch.full((9, 4), torch.inf)}, DataError, "validation_features must be finite"),
        (1, {"validation_targets": torch.zeros(8).long()}, ShapeError, r"validation_targets must be \(9,\) int64"),
        (1, {"validation_targets": torch.zeros(9)}, ShapeError, r"got \(9,\) torch\.float32 on cpu"),
        (1, {"validation_targets": torch.arange(9)}, DataError, r"must lie in \[0, 3\), got 0 to 8"),
    ],
)
def test_bad_input(n, changed, error, match):
    given = {"features": FEATURES} | GIVEN | changed
    with pytest.raises(error, match=match):
        glister(given.pop("features"), n, **given)


@pytest.mark.gpu
@pytest.mark.parametrize("blocks", [False, True])
def test_the_same_picks_on_a_gpu(monkeypatch, blocks):
    x, rest = made(2000, 6, 4, 50)
    want = glister(x, 100, **rest)
    if blocks:
        monkeypatch.setattr(module, "_SMALLEST_BLOCK", 5)
        monkeypatch.setattr(module, "values_per_chunk", lambda _: 1)
    got = glister(x.to("cuda"), 100, **{name: one.to("cuda") for name, one in rest.items()})
    assert got.indices.is_cuda
    assert got.indices.cpu().equal(want.indices)
    assert torch.allclose(got.scores.cpu(), want.scores)
