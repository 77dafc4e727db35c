import pytest
import torch

from tests.contracts import make_pool, make_view
from torchal import ConfigError, PoolView
from torchal.functional import max_herding
from torchal.samplers import MaxHerding


@pytest.mark.parametrize("settings", [{}, {"bandwidth": 0.2}, {"normalize": False}])
def test_settings_are_passed_on(settings):
    view = make_view(make_pool()[0])
    want = max_herding(view.features, 9, labeled=view.labeled, **settings)
    sampler = MaxHerding(**settings)
    got = sampler.select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
    assert sampler.report() == {"features": "embedding", "value": want.value, "bound": want.bound}


def test_only_candidates_and_without_any_label():
    features = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    candidates = torch.tensor([True, False, True, True])
    view = PoolView.from_tensors(features=features, candidates=candidates)
    sampler = MaxHerding(bandwidth=2.0, normalize=False)
    assert sampler.select(view, 3).indices.tolist() == [0, 3, 2]


def test_refuses_settings_that_make_no_sense():
    with pytest.raises(ConfigError, match="max_held must be a whole number of at least 0"):
        MaxHerding(max_held=-1)
    with pytest.raises(ConfigError, match="bandwidth must be a finite number above 0, got 0"):
        MaxHerding(bandwidth=0)
    with pytest.raises(ConfigError, match="normalize must be true or false, got 'no'"):
        MaxHerding(normalize="no")
    MaxHerding().check_model(object())
