import pytest

from tests.contracts import NearestMean, SamplerContract, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, Schedule, rounds, samplers
from torchal.samplers import Entropy, GraphDensity, Hierarchical, KCenterGreedy, Margin, SubPool, Switch, Uniform


class TestNested(SamplerContract):
    """Three phases, of what has state."""

    @pytest.fixture
    def sampler(self):
        return Switch([GraphDensity(), Switch([SubPool(Hierarchical(), n_rows=40), Uniform()], after=20)], after=10)


@pytest.mark.parametrize(("after", "turn"), [(7, 0), (6, 1), (0, 1)])
def test_the_second_takes_over_once_there_are_enough_labels(after, turn):
    pool, _, _ = make_pool(n_labeled=6)
    alone = [KCenterGreedy(), Margin()][turn]
    sampler = Switch([KCenterGreedy(), Margin()], after=after)
    picked = sampler.select(make_view(pool), 5).indices
    assert picked.equal(alone.select(make_view(pool), 5).indices)
    assert sampler.report()["turn"] == type(alone).__name__


def test_phases_of_a_run():
    pool, targets, _ = make_pool(n_labeled=6)
    sampler = Switch([KCenterGreedy(), Switch([Uniform(), Margin()], after=20)], after=12)
    learner = ActiveLearner(NearestMean(), sampler, pool)
    results = list(rounds(learner, lambda rows: targets[rows], Schedule(batch_size=6, max_rounds=5)))
    turns = [result.report["turn"] for result in results[1:]]
    assert turns == ["KCenterGreedy", "Switch", "Switch", "Switch", "Switch"]
    inner = [result.report["members"]["Switch"]["report"]["turn"] for result in results[2:]]
    assert inner == ["Uniform", "Uniform", "Margin", "Margin"]


def test_the_second_knows_what_was_bought_before_its_time():
    pool, targets, _ = make_pool(n_labeled=6)
    sampler = Switch([Uniform(), Hierarchical()], after=12)
    learner = ActiveLearner(NearestMean(), sampler, pool)
    for _ in rounds(learner, lambda rows: targets[rows], Schedule(batch_size=6, max_rounds=1)):
        pass
    observed = sampler.samplers[1].state_dict()
    alone = Hierarchical()
    assert str(observed) != str(alone.state_dict())


def test_needs_of_both_are_asked_for():
    assert Switch([Uniform(), samplers.from_name("bandit_mixture")]).needs_validation
    with pytest.raises(CapabilityError, match="Entropy needs a model"):
        Switch([Uniform(), Entropy()]).check_model(object())


@pytest.mark.parametrize(
    ("members", "after", "message"),
    [
        ([Margin()], 5, "between 2 samplers, got 1"),
        ([Margin(), Uniform(), Margin()], 5, "between 2 samplers, got 3"),
        ([Margin(), Uniform()], -1, "after must be a whole number of at least 0, got -1"),
        ([Margin(), Uniform()], 0.5, "after must be a whole number"),
        ([Margin(), "uniform"], 5, "by name: from_name"),
    ],
)
def test_refuses_settings(members, after, message):
    with pytest.raises(ConfigError, match=message):
        Switch(members, after=after)
