import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from tests.contracts import make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView, functional
from torchal.samplers import DropQuery

# The label hangs on the only feature that is not 0 (rows 0, 2 and 3), or on the bias alone (row 1).
FEATURES = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, 6.0]])
LAYER = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([0.0, 1.0])


def test_one_row_of_each_direction_of_those_that_change():
    view = PoolView.from_tensors(features=FEATURES, last_layer=LAYER)
    picked = DropQuery(n_masks=101).select(view, 2)
    assert sorted(picked.indices.tolist()) == [0, 2]
    assert picked.scores.tolist() == pytest.approx([0.75, 0.75], abs=0.2)


def test_a_row_that_never_changes_comes_last():
    view = PoolView.from_tensors(features=FEATURES, last_layer=LAYER)
    picked = DropQuery(n_masks=101).select(view, 4)
    assert picked.indices[-1] == 1
    assert picked.scores[-1] == 0


def test_features_last_layer_and_settings_are_passed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(functional, "drop_query", lambda x, n, **rest: calls.append((x, n, rest)))
    view = make_view(make_pool()[0])
    DropQuery(n_masks=5, rate=0.5, max_iterations=7).select(view, 6)
    x, n, rest = calls[0]
    assert x.equal(view.features)
    assert n == 6
    assert rest["weight"].equal(view.last_layer.weight)
    assert rest["bias"].equal(view.last_layer.bias)
    assert rest["candidates"].equal(view.candidates)
    assert (rest["n_masks"], rest["rate"], rest["max_iterations"]) == (5, 0.5, 7)


def test_all_candidates_and_no_other_row():
    pool = make_pool()[0]
    skipped = pool.candidates.nonzero().squeeze(1)[::2]
    view = make_view(pool.without(skipped))
    n = int(view.candidates.sum())
    picked = DropQuery().select(view, n).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


def test_refuses_settings_and_models():
    with pytest.raises(ConfigError, match="n_masks"):
        DropQuery(n_masks=0)
    with pytest.raises(ConfigError, match="rate"):
        DropQuery(rate=1)
    with pytest.raises(ConfigError, match="max_iterations"):
        DropQuery(max_iterations=0)
    with pytest.raises(CapabilityError, match="DropQuery needs a model with last_layer"):
        ActiveLearner(GaussianNB(), DropQuery(), make_pool()[0])
