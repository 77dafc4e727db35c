import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tests.references import drop_query as reference
from torchal import BudgetError, ConfigError, DataError, ShapeError
from torchal.engine import features as feature_rows
from torchal.functional import drop_query, dropout_disagreement


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(n_rows=60, n_columns=5, n_classes=4, seed=0, dtype=torch.float64):
    generator = seeded(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return normal(n_rows, n_columns), {"weight": normal(n_classes, n_columns), "bias": normal(n_classes)}


def masks(n_rows, n_columns, n_masks, rate, seed=0):
    """Return the masks (n_masks, N, D) that one block of draws has."""
    generator = seeded(seed)
    return torch.stack([torch.rand(n_rows, n_columns, generator=generator) >= rate for _ in range(n_masks)])


def test_a_row_whose_label_hangs_on_one_feature():
    weight, bias = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([0.0, 1.0])
    x = torch.tensor([[5.0, 0.0], [-5.0, 3.0]])
    found = dropout_disagreement(x, weight=weight, bias=bias, generator=seeded(), n_masks=4000)
    # the first label changes when its only feature is dropped, the second never
    assert float(found[0]) == pytest.approx(0.75, abs=0.035)  # 5 standard deviations
    assert float(found[1]) == 0.0


@settings(deadline=None)
@given(
    n_rows=st.integers(1, 8),
    n_columns=st.integers(1, 5),
    n_classes=st.integers(1, 5),
    n_masks=st.integers(1, 5),
    rate=st.sampled_from([0.0, 0.25, 0.75]),
    seed=st.integers(0, 1000),
)
def test_agrees_with_the_loop_for_the_same_masks(n_rows, n_columns, n_classes, n_masks, rate, seed):
    x, layer = problem(n_rows, n_columns, n_classes, seed)
    found = dropout_disagreement(x, **layer, generator=seeded(seed), n_masks=n_masks, rate=rate)
    drawn = masks(n_rows, n_columns, n_masks, rate, seed).numpy()
    weight, bias = layer["weight"].numpy(), layer["bias"].numpy()
    for row in range(n_rows):
        changed = sum(reference.changes(x[row].numpy(), weight, bias, kept[row], rate) for kept in drawn)
        assert float(found[row]) == pytest.approx(changed / n_masks)


def test_disagreement_has_the_distribution_of_dropout():
    x, layer = problem(20, 4, 3)
    n = 2000
    found = dropout_disagreement(x, **layer, generator=seeded(1), n_masks=n, rate=0.6)
    weight, bias = layer["weight"].numpy(), layer["bias"].numpy()
    for row, share in zip(x.numpy(), found.tolist(), strict=True):
        chance = reference.chance_of_change(row, weight, bias, 0.6)
        assert stats.binomtest(round(share * n), n, min(chance, 1.0)).pvalue > 1e-5


@pytest.mark.parametrize("n_classes", [4, 13])
def test_chunks_of_features_do_not_change_the_draws(monkeypatch, n_classes):
    x, layer = problem(300, n_classes=n_classes)
    whole = dropout_disagreement(x, **layer, generator=seeded())
    monkeypatch.setattr(feature_rows, "values_per_chunk", lambda _: 20)
    assert dropout_disagreement(x, **layer, generator=seeded()).equal(whole)


def test_masks_are_drawn_block_by_block(monkeypatch):
    x, layer = problem(50)
    monkeypatch.setattr(importlib.import_module("torchal.functional.drop_query"), "_DRAWN", 35)  # seven rows
    found = dropout_disagreement(x, **layer, generator=seeded(), n_masks=2)
    generator = seeded()
    want = [dropout_disagreement(some, **layer, generator=generator, n_masks=2) for some in x.split(7)]
    assert found.equal(torch.cat(want))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_size_of_features_does_not_count(size):
    x, layer = problem(dtype=torch.float32)
    layer["bias"].zero_()
    want = dropout_disagreement(x, **layer, generator=seeded())
    assert dropout_disagreement(x * size, **layer, generator=seeded()).equal(want)


def test_half_precision_one_class_and_equal_rows():
    x, layer = problem(dtype=torch.float32)
    found = dropout_disagreement(x.half(), **layer, generator=seeded())
    assert found.dtype == torch.float32
    assert found.equal(dropout_disagreement(x.half().float(), **layer, generator=seeded()))
    one = {"weight": layer["weight"][:1], "bias": layer["bias"][:1]}
    assert not dropout_disagreement(x, **one, generator=seeded()).any()
    # each row has masks of its own
    assert dropout_disagreement(x[:1].repeat(500, 1), **layer, generator=seeded()).unique().numel() > 1


def test_picks_rows_that_most_masks_change():
    x, layer = problem(200)
    found = dropout_disagreement(x, **layer, generator=seeded())
    unsure = found > 0.5
    assert 20 < int(unsure.sum()) < 180
    picked = drop_query(x, 10, **layer, generator=seeded())
    assert unsure[picked.indices].all()
    assert picked.scores.equal(found[picked.indices])
    assert picked.scores.sort(descending=True).values.equal(picked.scores)


def test_what_is_missing_disagrees_most_and_is_drawn_among_equals():
    x, layer = problem(200)
    layer["bias"] = layer["bias"] + torch.tensor([3.0, 0, 0, 0], dtype=x.dtype)
    found = dropout_disagreement(x, **layer, generator=seeded())
    unsure, third = found > 0.5, (found > 0) & (found < 0.5)
    n = int(unsure.sum()) + 3
    assert int(third.sum()) > 3
    seen = set()
    for seed in range(12):
        found = dropout_disagreement(x, **layer, generator=seeded(seed))
        unsure, third = found > 0.5, (found > 0) & (found < 0.5)
        n = int(unsure.sum()) + 3
        picked = drop_query(x, n, **layer, generator=seeded(seed)).indices
        assert unsure[picked].sum() == n - 3
        assert third[picked].sum() == 3
        seen.add(tuple((third[: int(picked.max()) + 1].cumsum(0)[picked])[third[picked]].sort().values.tolist()))
    assert len(seen) > 6  # and not the first rows each time


def test_all_candidates_one_row_and_a_pool_that_is_sure():
    x, layer = problem()
    candidates = torch.arange(60) % 2 == 0
    picked = drop_query(x, 30, **layer, generator=seeded(), candidates=candidates).indices
    assert picked.sort().values.equal(candidates.nonzero().squeeze(1))
    assert drop_query(x[:1], 1, **layer, generator=seeded()).indices.tolist() == [0]
    sure = drop_query(x, 7, **layer, generator=seeded(), rate=0.0)
    assert len(sure.indices.unique()) == 7
    assert not sure.scores.any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n": 61}, BudgetError, "asked for 61 rows, 60 can"),
        ({"candidates": torch.ones(60)}, ShapeError, "candidates must be a bool"),
        ({"weight": torch.zeros(4, 6)}, ShapeError, r"weight must be \(C, 5\)"),
        ({"bias": torch.zeros(3)}, ShapeError, r"bias must be \(4,\)"),
        ({"weight": torch.full((4, 5), math.nan)}, DataError, "weight must be finite"),
        ({"features": torch.full((60, 5), math.nan)}, DataError, "features must be finite"),
        ({"features": torch.zeros(60, 5, dtype=torch.complex64)}, ShapeError, "features must be real numbers"),
        ({"n_masks": 0}, ConfigError, "n_masks must be a whole number of at least 1"),
        ({"rate": 1.0}, ConfigError, "rate must be a number of at least 0 and below 1"),
        ({"rate": -0.1}, ConfigError, "rate must be"),
        ({"rate": True}, ConfigError, "rate must be"),
    ],
)
def test_refuses_what_it_cannot_use(change, error, message):
    x, layer = problem()
    arguments = {"features": x, "n": 3, **layer} | change
    with pytest.raises(error, match=message):
        drop_query(arguments.pop("features"), arguments.pop("n"), **arguments, generator=seeded())


@pytest.mark.gpu
def test_cuda_picks_the_same():
    x, layer = problem(2000)
    there = {name: tensor.cuda() for name, tensor in layer.items()}
    candidates = torch.rand(2000, generator=seeded(3)) < 0.8
    want = drop_query(x, 20, **layer, candidates=candidates, generator=seeded())
    found = drop_query(x.cuda(), 20, **there, candidates=candidates.cuda(), generator=seeded())
    assert found.indices.is_cuda
    assert found.indices.cpu().equal(want.indices)
    assert found.scores.cpu().equal(want.scores)
    whole = drop_query(x.cuda(), 20, **there, generator=torch.Generator("cuda").manual_seed(0))
    assert len(whole.indices.unique()) == 20
