import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ConfigError, PoolView
from torchal.functional import facility_location
from torchal.samplers import FacilityLocation


def test_rows_that_are_like_all_others():
    features = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [-1.0, 0.0]])
    sampler = FacilityLocation()
    picked = sampler.select(PoolView.from_tensors(features=features), 2)
    assert picked.indices.tolist() == [2, 3]
    assert picked.scores.tolist() == pytest.approx([2.76, 1])
    report = sampler.report()
    assert report["features"] == "given"
    assert report["value"] == pytest.approx(3.76)
    assert report["bound"] >= report["value"]


@pytest.mark.parametrize("settings", [{}, {"similarity": "rbf", "gamma": 0.3}, {"similarity": "euclidean"}])
def test_settings_are_passed_on(settings):
    view = make_view(make_pool()[0])
    want = facility_location(view.features, 9, labeled=view.labeled, **settings)
    got = FacilityLocation(**settings).select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_only_candidates_and_all_of_them():
    pool = make_pool()[0]
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    picked = FacilityLocation().select(view, int(view.candidates.sum())).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


def test_refuses_settings_that_make_no_sense_and_takes_any_model():
    with pytest.raises(ConfigError, match="max_held must be a whole number of at least 0"):
        FacilityLocation(max_held=-1)
    with pytest.raises(ConfigError, match="similarity must be one of"):
        FacilityLocation(similarity="inverse")
    with pytest.raises(ConfigError, match="gamma is of 'rbf'"):
        FacilityLocation(gamma=1.0)
    FacilityLocation().check_model(NearestMean())
    FacilityLocation().check_model(object())
