import pytest
import torch

from tests.contracts import NearestMean, SamplerContract, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView, Schedule, rounds
from torchal.functional import combined_greedy, information_density, k_center_greedy, query_similarity
from torchal.protocols import HasProbabilities
from torchal.samplers import Combine, DensityWeighted, Entropy, KCenterGreedy, Margin, Mixture, Seals, Uniform


class TestNested(SamplerContract):
    """Every factor at once, in wrappers, over a wrapper."""

    @pytest.fixture
    def sampler(self):
        product = Combine(
            [DensityWeighted(Margin()), Entropy()], diversity=0.5, density=0.5, query_rows=[1, 2], balance=1.0
        )
        return Mixture([Seals(product, k=3), Uniform()])


def test_binds_the_settings():
    view = make_view(make_pool()[0])
    sampler = Combine(
        [Entropy()], strengths=[0.5], diversity=2.0, density=0.3, query_rows=[4], similarity=1.5, balance=0.7,
        target=[1, 2, 3], metric="manhattan",
    )  # fmt: skip
    utilities = [
        Entropy().score(view),
        information_density(view.features, among=~view.labeled).clamp(min=0),
        query_similarity(view.features, torch.tensor([4])),
    ]
    want = combined_greedy(
        9,
        utilities=utilities,
        strengths=[0.5, 0.3, 1.5],
        features=view.features,
        diversity=2.0,
        log_probs=view.log_probs,
        balance=0.7,
        target=torch.tensor([1.0, 2, 3]),
        counts=view.targets[view.labeled].bincount(minlength=3),
        labeled=view.labeled,
        metric="manhattan",
    )
    got = sampler.select(view, 9)
    assert got.indices.equal(want.indices)
    assert torch.allclose(got.scores, want.scores)
    assert sampler.report()["members"]["Entropy"]["rows"] == got.indices.tolist()


def test_strengths_of_0_leave_the_others():
    view = make_view(make_pool()[0])
    assert Combine([Margin()], diversity=0.0).select(view, 9).indices.equal(Margin().select(view, 9).indices)
    alone = Combine([Margin()], strengths=[0.0]).select(view, 9).indices
    assert alone.equal(k_center_greedy(view.features, 9, labeled=view.labeled).indices)


def test_needs_no_sampler_where_something_else_counts():
    view = make_pool(n_labeled=0)[0].view(None, generator=torch.Generator().manual_seed(0))
    assert Combine().select(view, 9).indices.equal(k_center_greedy(view.features, 9).indices)
    dense = Combine(diversity=0.0, density=1.0)
    assert not dense.needs_model(0)
    assert dense.select(view, 1).indices.tolist() == [int(information_density(view.features).argmax())]
    assert dense.report() == {"members": {}}
    assert Combine(balance=1.0).needs_model(0)


def test_a_member_of_strength_0_is_not_asked():
    view = make_pool(n_labeled=0)[0].view(None, generator=torch.Generator().manual_seed(0))
    sampler = Combine([Margin()], strengths=[0])
    assert not sampler.needs_model(0)
    assert Combine([Margin(), Entropy()], strengths=[0, 1]).needs_model(0)
    assert sampler.select(view, 9).indices.equal(Combine().select(view, 9).indices)
    assert sampler.report() == {"members": {"Margin": {"rows": [], "n_rows": 0}}}


def test_balances_what_the_model_predicts():
    log_probs = torch.tensor([[0.9, 0.1]] * 8 + [[0.1, 0.9]] * 4).log()
    view = PoolView.from_tensors(log_probs=log_probs)
    picks = Combine([Entropy()], diversity=0.0, balance=1.0).select(view, 6).indices
    assert int((picks >= 8).sum()) == 3
    picks = Combine([Entropy()], diversity=0.0, balance=1.0, target=[0, 1]).select(view, 3).indices
    assert picks.tolist() == [8, 9, 10]


def test_classes_that_the_model_has_not_seen_are_left_out():
    pool, targets, _ = make_pool(n_labeled=0)
    pool = pool.with_labels(torch.tensor([0, 2, 3]), targets[[0, 2, 3]])  # classes 0 and 2
    view = make_view(pool)
    assert view.log_probs.shape[1] == 2
    assert len(Combine([Margin()], balance=1.0, target=[1, 5, 1]).select(view, 6).indices.unique()) == 6


def test_goes_through_a_run():
    pool, targets, _ = make_pool()
    learner = ActiveLearner(NearestMean(), Combine([Margin()], balance=1.0), pool)
    *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=6, max_rounds=3))
    assert last.report["members"]["Margin"]["n_rows"] == 6


def test_a_balance_needs_probabilities():
    class Decides:
        def decision_function(self, X):
            return X

    Combine([Margin()]).check_model(Decides())
    with pytest.raises(CapabilityError, match=r"Combine\(balance=0.5\) needs a model with predict_proba"):
        Combine([Margin()], balance=0.5).check_model(Decides())
    assert Combine([Margin()], balance=0.5).reads(HasProbabilities)
    assert not Combine([Margin()]).reads(HasProbabilities)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samplers": "margin"}, "at least one sampler, got 'margin'"),
        ({"samplers": [], "diversity": 0.0}, "there is nothing to choose by: give samplers"),
        ({"strengths": [0], "diversity": 0.0}, "there is nothing to choose by: give samplers"),
        ({"samplers": [KCenterGreedy()]}, "KCenterGreedy picks rows together"),
        ({"strengths": [1.0, 1.0]}, "one strength for each of 1 utilities, got 2"),
        ({"diversity": -1.0}, "at least 0, got -1.0"),
        ({"balance": "yes"}, "at least 0, got 'yes'"),
        ({"metric": "l2"}, "metric must be one of"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Combine(**{"samplers": [Margin()], **settings})


def test_refuses_a_target_for_other_classes():
    view = make_view(make_pool()[0])
    with pytest.raises(ConfigError, match="target has 2 numbers, the pool has 3 classes"):
        Combine([Margin()], balance=1.0, target=[1, 1]).select(view, 2)
