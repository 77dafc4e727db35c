import pytest
import torch

from tests.contracts import make_pool, make_view
from torchal import ConfigError, PoolView
from torchal.functional import saturated_coverage
from torchal.samplers import SaturatedCoverage


def test_the_dense_region_until_it_has_enough():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [1.0, 0.1], [0.0, 1.0]])
    view = PoolView.from_tensors(features=features)
    assert SaturatedCoverage(saturation=0.25).select(view, 2).indices.tolist() == [2, 4]
    assert 4 not in SaturatedCoverage(saturation=1.0).select(view, 4).indices.tolist()


@pytest.mark.parametrize("settings", [{}, {"saturation": 0.3, "similarity": "rbf", "gamma": 0.3, "max_held": 9}])
def test_settings_are_passed_on(settings):
    view = make_view(make_pool()[0])
    want = saturated_coverage(view.features, 9, labeled=view.labeled, **settings)
    sampler = SaturatedCoverage(**settings)
    got = sampler.select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
    assert sampler.report() == {"features": "embedding", "value": want.value, "bound": want.bound}
    assert not sampler.needs_model(0)


def test_only_candidates_and_all_of_them():
    pool = make_pool()[0]
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    picked = SaturatedCoverage().select(view, int(view.candidates.sum())).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"saturation": 0.0}, "saturation must be"),
        ({"saturation": 1.5}, "saturation must be"),
        ({"similarity": "inverse"}, "similarity must be one of"),
        ({"max_held": -1}, "max_held must be"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        SaturatedCoverage(**settings)
