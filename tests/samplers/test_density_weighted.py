import pytest
import torch

from tests.contracts import SamplerContract, make_pool, make_view
from torchal import CapabilityError, ConfigError, PoolView
from torchal.functional import density_weighted, information_density
from torchal.samplers import ClassBalanced, DensityWeighted, Entropy, KCenterGreedy, Margin, Mixture, SubPool, Uniform


class TestNested(SamplerContract):
    """A product of products, scored class by class, in a mixture in a sub-pool."""

    @pytest.fixture
    def sampler(self):
        product = DensityWeighted(DensityWeighted(Margin()), similarity="rbf", beta=0.5)
        return SubPool(Mixture([ClassBalanced(product), Uniform()]), n_rows=56)


@pytest.mark.parametrize("inner", [Margin(), Entropy()])
@pytest.mark.parametrize("settings", [{}, {"similarity": "rbf", "gamma": 0.3, "beta": 2.0}, {"similarity": "inverse"}])
def test_binds_the_settings(inner, settings):
    view = make_view(make_pool()[0])
    sampler = DensityWeighted(inner, **settings)
    kind = {name: value for name, value in settings.items() if name != "beta"}
    density = information_density(view.features, among=~view.labeled, **kind)
    want = density_weighted(inner.score(view), density, beta=settings.get("beta", 1.0), candidates=view.candidates)
    assert sampler.score(view).equal(want)
    assert sampler.select(view, 3).scores.equal(want.sort(descending=True).values[:3])
    assert sampler.report()["features"] == "embedding"


def test_a_lone_row_is_worth_less_than_it_is_unsure():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.2], [0.0, 1.0]])
    view = PoolView.from_tensors(features=x, scores=torch.tensor([3.0, 0.2, 3.0, 0.1]))
    assert Margin().select(view, 1).indices.tolist() == [3]
    assert DensityWeighted(Margin()).select(view, 1).indices.tolist() == [1]
    assert DensityWeighted(Margin(), beta=0.0).select(view, 1).indices.tolist() == [3]


def test_labeled_rows_make_nothing_dense():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 1.1]])
    labeled = torch.tensor([True, True, False, False, False])
    log_probs = torch.full((5, 2), 0.5).log()
    found = DensityWeighted(Entropy()).score(PoolView.from_tensors(features=x, log_probs=log_probs, labeled=labeled))
    assert found[:2].isneginf().all()
    assert found[3] > found[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": KCenterGreedy()}, "KCenterGreedy picks rows together"),
        ({"beta": -0.5}, "beta must be"),
        ({"similarity": "l2"}, "similarity must be one of"),
        ({"gamma": 2.0}, "gamma is of 'rbf'"),
        ({"sampler": "entropy"}, "Sampler object"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        DensityWeighted(**settings)


def test_needs_what_its_sampler_needs():
    with pytest.raises(CapabilityError, match="Entropy needs a model with predict_proba"):
        DensityWeighted(Entropy()).check_model(object())
    assert all(DensityWeighted(Entropy()).reads(capability) for capability in Entropy.requires)
