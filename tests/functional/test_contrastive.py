import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import contrastive as reference
from tests.references import neighbors
from torchal import ConfigError, DataError, ShapeError
from torchal.functional import contrastive


def problem(n_rows=60, n_classes=4, n_columns=3, n_labeled=9, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (3 * torch.randn(n_rows, n_classes, generator=generator, dtype=dtype)).log_softmax(1)
    x = torch.randn(n_rows, n_columns, generator=generator, dtype=dtype)
    labeled = torch.zeros(n_rows, dtype=torch.bool)
    labeled[torch.randperm(n_rows, generator=generator)[:n_labeled]] = True
    return log_probs, x, labeled


def by_the_loop(log_probs, x, labeled, k, eps=1e-7):
    rows = labeled.nonzero().squeeze(1).tolist()
    near = neighbors.among(neighbors.distances(x.numpy(), "euclidean"), k, rows)
    return reference.contrastive(log_probs.exp().tolist(), [[j for _, j in some] for some in near], eps)


def test_literal():
    log_probs = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.25, 0.75], [0.5, 0.5]], dtype=torch.float64).log()
    x = torch.tensor([[0.0], [10.0], [1.0], [9.0]])
    labeled = torch.tensor([True, True, False, False])
    found = contrastive(log_probs, x, labeled=labeled, k=1)
    # row 2 beside (1/2, 1/2), row 3 beside (1, 0)
    want = [0.5 * math.log(2) + 0.5 * math.log(2 / 3), math.log(2)]
    assert found[2:].tolist() == pytest.approx(want, abs=2e-6)
    assert found[:2].tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


@settings(deadline=None)
@given(
    n_rows=st.integers(1, 12),
    n_classes=st.integers(1, 5),
    n_labeled=st.integers(1, 6),
    k=st.integers(1, 8),
    seed=st.integers(0, 1000),
    impossible=st.booleans(),
)
def test_agrees_with_the_loop(n_rows, n_classes, n_labeled, k, seed, impossible):
    log_probs, x, labeled = problem(n_rows, n_classes, 2, n_labeled, seed)
    if impossible and n_classes > 1:
        log_probs[::2, 0] = -math.inf
        log_probs = log_probs.log_softmax(1)
    found = contrastive(log_probs, x, labeled=labeled, k=k)
    assert found.tolist() == pytest.approx(by_the_loop(log_probs, x, labeled, k), abs=1e-9)


def test_a_row_unlike_its_neighbours_scores_higher():
    log_probs = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.1, 0.9]]).log()
    found = contrastive(log_probs, torch.zeros(3, 1), labeled=torch.tensor([True, False, False]))
    assert found[2] > found[1]
    assert float(found[1]) == pytest.approx(0.0, abs=1e-6)


def test_equal_distances_go_to_the_lowest_labeled_row():
    log_probs = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]).log()
    x = torch.tensor([[0.0], [1.0], [-1.0], [1.0]])
    found = contrastive(log_probs, x, labeled=torch.tensor([False, True, True, True]), k=1)
    want = reference.divergence([0.9, 0.1], [0.5, 0.5])
    assert float(found[0]) == pytest.approx(want, abs=1e-5)


def test_fewer_labeled_rows_than_neighbours_are_all_of_them():
    log_probs, x, labeled = problem(n_labeled=4)
    assert contrastive(log_probs, x, labeled=labeled, k=10).equal(contrastive(log_probs, x, labeled=labeled, k=4))


def test_impossible_labels_are_finite_and_eps_says_how_far():
    log_probs = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).log()
    x, labeled = torch.zeros(2, 1), torch.tensor([True, False])
    for eps in (1e-7, 1e-3):
        found = contrastive(log_probs, x, labeled=labeled, eps=eps)
        p = reference.floored([1.0, 0.0], eps)
        assert float(found[1]) == pytest.approx(reference.divergence(p, p[::-1]), rel=1e-5)
    # as long as no probability is below eps, all logarithms may be shifted
    high = torch.tensor([[0.6, 0.4], [0.3, 0.7]], dtype=torch.float64).log()
    assert contrastive(high, x, labeled=labeled, eps=1e-9).equal(contrastive(high, x, labeled=labeled, eps=0.1))


def test_one_class_says_nothing():
    assert not contrastive(torch.zeros(4, 1), torch.rand(4, 2), labeled=torch.arange(4) < 2).any()


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_size_of_features_does_not_count(size):
    log_probs, x, labeled = problem(dtype=torch.float32)
    want = contrastive(log_probs, x, labeled=labeled, k=3)
    torch.testing.assert_close(contrastive(log_probs, x * size, labeled=labeled, k=3), want)


def test_half_precision():
    log_probs, x, labeled = problem(dtype=torch.float32)
    log_probs, x = log_probs.half(), x.half()
    found = contrastive(log_probs, x, labeled=labeled)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, contrastive(log_probs.float(), x.float(), labeled=labeled))


def test_small_divergences_are_not_noise():
    log_probs = torch.tensor([[0.3, 0.7], [0.3 + 1e-6, 0.7 - 1e-6]], dtype=torch.float64).log()
    found = contrastive(log_probs, torch.zeros(2, 1), labeled=torch.tensor([True, False]))
    assert float(found[1]) == pytest.approx(0.5e-12 / 0.21, rel=1e-3)


def test_other_metrics():
    log_probs = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]).log()
    x = torch.tensor([[1.0, 1.0], [9.0, 9.0], [1.0, 0.0]])
    labeled = torch.tensor([False, True, True])
    near = reference.divergence([0.2, 0.8], [0.5, 0.5]), reference.divergence([0.9, 0.1], [0.5, 0.5])
    for metric, want in (("euclidean", near[0]), ("manhattan", near[0]), ("cosine", near[1])):
        found = contrastive(log_probs, x, labeled=labeled, k=1, metric=metric)
        assert float(found[0]) == pytest.approx(want, abs=1e-5)


def test_chunks_do_not_change_the_answer(monkeypatch):
    log_probs, x, labeled = problem(150, n_labeled=40)
    whole = contrastive(log_probs, x, labeled=labeled, k=5)
    for name in ("functional.contrastive", "functional.neighbors", "engine.features"):
        monkeypatch.setattr(importlib.import_module(f"torchal.{name}"), "values_per_chunk", lambda _: 20)
    torch.testing.assert_close(contrastive(log_probs, x, labeled=labeled, k=5), whole, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labeled": torch.zeros(3, dtype=torch.bool)}, DataError, "none of 3 rows is labeled"),
        ({"labeled": torch.zeros(3)}, ShapeError, "labeled must be a bool"),
        ({"labeled": torch.ones(2, dtype=torch.bool)}, ShapeError, r"labeled must have shape \(3,\)"),
        ({"log_probs": torch.tensor([[0.5, 0.5]] * 3)}, DataError, "row 0 sums to 3.297"),
        ({"log_probs": torch.zeros(3, 0)}, ShapeError, "at least one column"),
        ({"log_probs": torch.zeros(2, 1)}, ShapeError, r"log_probs must be \(3, C\)"),
        ({"log_probs": torch.full((3, 1), math.nan)}, DataError, "sums to nan"),
        ({"features": torch.full((3, 2), math.nan)}, DataError, "features must be finite"),
        ({"features": torch.zeros(3, 2, dtype=torch.complex64)}, ShapeError, "features must be real numbers"),
        ({"k": 0}, ConfigError, "k must be a whole number of at least 1"),
        ({"eps": 0.0}, ConfigError, "eps must be a number above 0"),
        ({"eps": 0.2}, ConfigError, "at most 0.1"),
        ({"metric": "hamming"}, ConfigError, "metric must be one of"),
    ],
)
def test_refuses_what_it_cannot_use(change, error, message):
    arguments = {
        "log_probs": torch.zeros(3, 1),
        "features": torch.rand(3, 2),
        "labeled": torch.tensor([True, False, False]),
    } | change
    with pytest.raises(error, match=message):
        contrastive(arguments.pop("log_probs"), arguments.pop("features"), **arguments)


@pytest.mark.gpu
def test_cuda_gives_the_same():
    log_probs, x, labeled = problem(3000, n_labeled=300)
    want = contrastive(log_probs, x, labeled=labeled)
    found = contrastive(log_probs.cuda(), x.cuda(), labeled=labeled.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), want)
    with pytest.raises(ShapeError, match="labeled must be on cuda:0, got cpu"):
        contrastive(log_probs.cuda(), x.cuda(), labeled=labeled)
