import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from tests.contracts import make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, DataError, PoolView, functional
from torchal.samplers import AlfaMix

# Two classes to both sides of 0, one row of each labeled; the farther anchor of row 3 is 2.1 away.
FEATURES = torch.tensor([[-2.0], [2.0], [-1.0], [0.1], [-0.4], [1.5]])
TARGETS = torch.tensor([0, 1, -1, -1, -1, -1])
LAYER = torch.tensor([[-1.0], [1.0]]), torch.zeros(2)


def test_rows_near_the_boundary_flip_first():
    view = PoolView.from_tensors(features=FEATURES, last_layer=LAYER, targets=TARGETS)
    picked = AlfaMix().select(view, 2)
    assert picked.indices.tolist() == [3, 4]
    assert picked.scores.tolist() == pytest.approx([-0.1 / 2.1, -0.4 / 2.4])


@pytest.mark.parametrize(("max_eps", "want"), [(0.1, [3, 4, 2]), (1.0, [3, 4, 2])])
def test_the_mix_grows_or_is_filled(max_eps, want):
    view = PoolView.from_tensors(features=FEATURES, last_layer=LAYER, targets=TARGETS)
    assert AlfaMix(eps=0.1, max_eps=max_eps).select(view, 3).indices.tolist() == want


def test_features_last_layer_anchors_and_settings_are_passed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(functional, "alfa_mix", lambda x, n, **rest: calls.append((x, n, rest)))
    view = make_view(make_pool()[0])
    AlfaMix(eps=0.3, max_eps=0.6, max_iterations=7).select(view, 5)
    x, n, rest = calls[0]
    assert x.equal(view.features)
    assert n == 5
    assert rest["weight"].equal(view.last_layer.weight)
    assert rest["bias"].equal(view.last_layer.bias)
    want = [view.features[view.targets == c].mean(0) for c in range(3)]
    torch.testing.assert_close(rest["anchors"], torch.stack(want))
    assert rest["candidates"].equal(view.candidates)
    assert (rest["eps"], rest["max_eps"], rest["max_iterations"]) == (0.3, 0.6, 7)


def test_all_candidates_and_no_other_row():
    pool = make_pool()[0]
    skipped = pool.candidates.nonzero().squeeze(1)[::2]
    view = make_view(pool.without(skipped))
    n = int(view.candidates.sum())
    picked = AlfaMix().select(view, n).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


def test_refuses_settings_models_and_a_pool_without_labels():
    with pytest.raises(ConfigError, match="eps must be a finite number above 0"):
        AlfaMix(eps=-1)
    with pytest.raises(ConfigError, match="max_eps"):
        AlfaMix(eps=0.5, max_eps=0.4)
    with pytest.raises(ConfigError, match="max_iterations"):
        AlfaMix(max_iterations=0)
    with pytest.raises(CapabilityError, match="AlfaMix needs a model with last_layer"):
        ActiveLearner(GaussianNB(), AlfaMix(), make_pool()[0])
    with pytest.raises(DataError, match="none of 6 rows is labeled"):
        AlfaMix().select(PoolView.from_tensors(features=FEATURES, last_layer=LAYER), 1)
