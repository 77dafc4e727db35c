import copy

import pytest
import torch

from tests.contracts import NearestMean, SamplerContract, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView, Sampler, samplers
from torchal.samplers import Entropy, GraphDensity, Hierarchical, KCenterGreedy, Margin, Mixture, SubPool, Uniform


class TestNested(SamplerContract):
    """A wrapper in a wrapper, around what has state."""

    @pytest.fixture
    def sampler(self):
        return SubPool(SubPool(Mixture([GraphDensity(), Hierarchical(), Uniform()]), n_rows=20), n_rows=30)


class Everything(Sampler):
    """Remembers the candidates that it was shown."""

    def select(self, view, n):
        self.seen = view.candidates.clone()
        return Uniform().select(view, n)


def view_of(n_rows, seed=0, **outputs):
    labeled = torch.arange(n_rows) < 3
    generator = torch.Generator().manual_seed(seed)
    return PoolView.from_tensors(features=torch.zeros(n_rows, 1), labeled=labeled, generator=generator, **outputs)


def test_the_sampler_sees_as_many_candidates_as_asked_for_at_random():
    inner = Everything()
    sampler = SubPool(inner, n_rows=50)
    times = torch.zeros(100)
    for seed in range(200):
        view = view_of(100, seed)
        picked = sampler.select(view, 5).indices
        assert int(inner.seen.sum()) == 50
        assert bool(inner.seen[picked].all())
        assert not bool((inner.seen & ~view.candidates).any())
        times += inner.seen
    assert times[:3].tolist() == [0, 0, 0]
    assert times[3:].min() > 60  # 103 of 200 expected, with a standard deviation of 7
    assert times[3:].max() < 146


def test_the_same_view_draws_the_same_rows_and_the_sampler_other_numbers():
    inner, view = Everything(), view_of(100)
    sampler = SubPool(inner, n_rows=50)
    first, seen = sampler.select(view, 10).indices, inner.seen
    assert sampler.select(view, 10).indices.equal(first)
    assert inner.seen.equal(seen)
    drawn = sampler.drawn(view, 50).nonzero().squeeze(1)
    assert not first.equal(drawn[:10])


@pytest.mark.parametrize(("n_rows", "n", "shown"), [(1, 1, 1), (1, 9, 9), (10**9, 4, 97), (97, 97, 97)])
def test_a_sub_pool_has_at_least_the_batch_and_at_most_all_candidates(n_rows, n, shown):
    inner = Everything()
    assert len(SubPool(inner, n_rows=n_rows).select(view_of(100), n).indices.unique()) == n
    assert int(inner.seen.sum()) == shown


def test_picks_the_best_of_those_drawn():
    scores = torch.randn(100, generator=torch.Generator().manual_seed(5))
    view = view_of(100, scores=scores)
    sampler = SubPool(Margin(), n_rows=20)
    drawn = sampler.drawn(view, 20)
    best = torch.where(drawn, -scores.abs(), -torch.inf).topk(4).indices
    assert sampler.select(view, 4).indices.tolist() == best.tolist()


def test_all_rows_still_count_where_they_are_looked_at():
    # a sub-pool changes the candidates, not what is labeled
    x = torch.tensor([[0.0], [4.0], [5.0], [9.0]])
    view = PoolView.from_tensors(features=x, labeled=torch.tensor([True, False, False, True]))
    assert SubPool(KCenterGreedy(), n_rows=2).select(view, 1).indices.tolist() == [1]


def test_the_record_has_the_samplers_own():
    view = make_view(make_pool()[0])
    sampler = SubPool(KCenterGreedy(), n_rows=20)
    rows = sampler.select(view, 3).indices
    told = {"rows": rows.tolist(), "n_rows": 3, "report": {"features": "embedding", "n_features": 4}}
    assert sampler.report() == {"n_drawn": 20, "members": {"KCenterGreedy": told}}


def test_the_sampler_observes_what_was_bought():
    pool, targets, _ = make_pool()
    sampler = SubPool(GraphDensity(), n_rows=40)
    learner = ActiveLearner(NearestMean(), sampler, pool)
    rows = learner.ask(4)
    learner.tell(rows, targets[rows])
    learner.finish_round()
    assert sampler.sampler.state_dict()["bought"] == rows.tolist()
    again = copy.deepcopy(SubPool(GraphDensity(), n_rows=40))
    again.load_state_dict(sampler.state_dict())
    assert again.sampler.state_dict() == sampler.sampler.state_dict()


def test_needs_are_passed_on():
    sampler = SubPool(SubPool(samplers.from_name("bandit_mixture")))
    assert sampler.needs_validation
    assert not SubPool(Margin()).needs_validation
    assert all(SubPool(Entropy()).reads(capability) for capability in Entropy.requires)
    with pytest.raises(CapabilityError, match="Entropy needs a model with predict_proba"):
        SubPool(SubPool(Entropy())).check_model(object())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_rows": 0}, "n_rows must be a whole number of at least 1, got 0"),
        ({"n_rows": 0.1}, "n_rows must be a whole number"),
        ({"sampler": "margin"}, r"sampler must be a Sampler object, got 'margin'; by name: samplers.from_name"),
        ({"sampler": Margin}, "sampler must be a Sampler object"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        SubPool(**settings)


def test_one_object_is_no_member_twice_through_a_wrapper():
    shared = GraphDensity()
    with pytest.raises(ConfigError, match="one object is a member 2 times"):
        Mixture([SubPool(shared), shared])
