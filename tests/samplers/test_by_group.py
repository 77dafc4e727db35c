import copy

import pytest
import torch
from sklearn.svm import LinearSVC

from tests.contracts import SamplerContract, make_pool, make_view
from torchal import (
    ActiveLearner,
    CapabilityError,
    ConfigError,
    DataError,
    PoolView,
    Schedule,
    ShapeError,
    functional,
    rounds,
)
from torchal.protocols import HasPosterior, HasProbabilities
from torchal.samplers import BALD, ByGroup, Entropy, Margin, ScoreSampler, Uniform

GROUPS = [f"image {row // 7}.jpg" for row in range(60)]  # eight of seven rows, and one of four


class TestWholeGroups(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return ByGroup(groups=GROUPS)


class TestSomeOfEach(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return ByGroup(Margin(), groups=torch.arange(60) % 11, how="top_k", k=2, per_group=2)


class TestOneRowEach(SamplerContract):
    @pytest.fixture
    def sampler(self):
        return ByGroup(Margin())


def test_by_hand_and_the_report_says_which_groups():
    view = PoolView.from_tensors(scores=torch.tensor([3.0, 0.1, 2.0, 0.2, 0.3]), labeled=torch.arange(5) == 2)
    sampler = ByGroup(Margin(), groups=["a", "b", "a", "c", "b"])
    assert sampler.report() == {}
    picks = sampler.select(view, 3)
    assert picks.indices.tolist() == [1, 4, 3]
    assert picks.scores.tolist() == pytest.approx([-0.1, -0.1, -0.2])
    assert sampler.report() == {
        "n_groups": 2,
        "groups": ["b", "c"],
        "rows_per_group": [2, 1],
        "members": {"Margin": {"rows": [1, 4, 3], "n_rows": 3}},
    }
    assert ByGroup(Margin(), groups=["a", "b", "a", "c", "b"], per_group=1).select(view, 3).indices.tolist() == [
        1,
        3,
        0,
    ]


@pytest.mark.parametrize("settings", [{}, {"how": "mean"}, {"how": "top_k", "k": 3}, {"per_group": 2}])
def test_picks_what_the_function_picks(settings):
    view = make_view(make_pool()[0])
    want = functional.top_of_groups(Entropy().score(view), GROUPS, 20, candidates=view.candidates, **settings)
    got = ByGroup(groups=GROUPS, **settings).select(view, 20)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_rows_by_themselves_are_those_of_the_sampler():
    view = make_view(make_pool()[0])
    assert ByGroup(Margin()).select(view, 9).indices.equal(Margin().select(view, 9).indices)


def test_a_run_labels_group_after_group():
    pool, targets, validation = make_pool()
    learner = ActiveLearner(make_view(pool).model, ByGroup(groups=GROUPS), pool, validation=validation)
    results = list(rounds(learner, lambda rows: targets[rows], Schedule(batch_size=14, max_rounds=2)))
    for result in results[1:]:
        assert sum(result.report["rows_per_group"]) == 14
        assert len(set(result.report["groups"])) == result.report["n_groups"] <= 3


class Learns(ScoreSampler):
    """Scores by how often it was told of a round."""

    requires = (HasPosterior,)
    times = 0

    def score(self, view):
        return torch.arange(len(view)) * float(self.times - 1)

    def observe(self, result):
        self.times += 1
        return {"times": self.times}

    def state_dict(self):
        return {"times": self.times}

    def load_state_dict(self, state):
        self.times = state["times"]


def test_what_the_sampler_needs_and_learns_is_passed_on():
    with pytest.raises(CapabilityError, match="Entropy"):
        ByGroup().check_model(LinearSVC())
    assert ByGroup().reads(HasProbabilities)
    assert ByGroup(BALD()).reads(HasPosterior)
    assert not ByGroup().needs_validation
    pool, targets, _ = make_pool()
    sampler, other = ByGroup(Learns()), ByGroup(Learns())
    learner = ActiveLearner(make_view(pool).model, sampler, pool)
    results = list(rounds(learner, lambda rows: targets[rows], Schedule(batch_size=14, max_rounds=1)))
    assert [result.report["learned"]["members"]["Learns"] for result in results] == [{"times": 1}, {"times": 2}]
    other.load_state_dict(sampler.state_dict())
    assert other.sampler.times == sampler.sampler.times == 2
    assert copy.deepcopy(ByGroup(groups=GROUPS)).groups.ids == ByGroup(groups=GROUPS).groups.ids


def test_samplers_of_other_groups_are_other_samplers():
    one, same = ByGroup(groups=GROUPS), ByGroup(groups=list(GROUPS))
    others = [ByGroup(), ByGroup(groups=GROUPS[::-1]), ByGroup(groups=torch.arange(60) // 7), ByGroup(Margin())]
    assert one == same == copy.deepcopy(one)
    assert repr(one) == repr(same)
    same.load_state_dict(one.state_dict())
    for other in others:
        assert one != other
        assert repr(one) != repr(other)
        with pytest.raises(DataError, match="the state is of "):
            other.load_state_dict(one.state_dict())
    with pytest.raises(DataError, match=f"the groups {one.groups_digest}; this sampler has {others[1].groups_digest}"):
        others[1].load_state_dict(one.state_dict())


def test_refuses_what_it_cannot_group():
    with pytest.raises(ConfigError, match="ranked by the scores of single rows; Uniform picks rows together"):
        ByGroup(Uniform())
    with pytest.raises(ConfigError, match="how must be one of max, mean, sum, top_k, got 'min'"):
        ByGroup(how="min")
    with pytest.raises(ConfigError, match="per_group must be a whole number of at least 1, got 0"):
        ByGroup(per_group=0)
    with pytest.raises(ShapeError, match="all text or all whole numbers: 1 of 2 are text"):
        ByGroup(groups=["a", 1])
    with pytest.raises(ShapeError, match="one id for each of 60 rows, got 59"):
        ByGroup(groups=GROUPS[:-1]).select(make_view(make_pool()[0]), 2)
