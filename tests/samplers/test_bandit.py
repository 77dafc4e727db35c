import math
from dataclasses import replace

import pytest
import torch

from tests.contracts import NearestMean, SamplerContract, make_pool, make_view
from tests.references import composite as reference
from tests.samplers.test_mixture import Fixed
from torchal import ActiveLearner, ConfigError, DataError, RoundResult, samplers
from torchal.samplers import Bandit, GraphDensity, Hierarchical, Margin, Mixture, Uniform


def paid(number, report, score):
    """Return the result of a round in which the rows of a report were bought and the accuracy was `score`."""
    rows = torch.tensor([number])
    return RoundResult(
        number, number, rows, rows, rows * 0, rows.double(), "Bandit", validation={"accuracy": score}, report=report
    )


class TestWithState(SamplerContract):
    @pytest.fixture
    def sampler(self):
        members = [Mixture([GraphDensity(), Uniform()]), Hierarchical(), Uniform()]
        return Bandit(members, arms=[[0.5, 0.5, 0], [0, 0, 1], [0.2, 0.3, 0.5]])


def test_probabilities_follow_the_formula_on_scripted_rewards():
    bandit = samplers.from_name("bandit_mixture")
    bandit.observe(paid(0, {}, 0.9))  # the start set: no reward
    view = make_view(make_pool()[0])
    pulls = []
    for number in range(1, 60):
        expected = reference.exp3(5, 0.5, pulls)[-1]
        assert bandit.probabilities.tolist() == pytest.approx(expected, abs=1e-12)
        bandit.select(view, 3)
        report = bandit.report()
        assert list(report["probabilities"].values()) == bandit.probabilities.tolist()
        assert report["pull"] == len(pulls)
        pulls.append(((number * 7) % 5, (number % 11) / 10))  # whatever was drawn
        learned = bandit.observe(paid(number, report | {"arm": pulls[-1][0]}, pulls[-1][1]))
        assert learned["reward"] == pulls[-1][1]
        assert list(learned["pulls"].values()) == [[arm for arm, _ in pulls].count(i) for i in range(5)]


def test_the_first_draw_is_uniform():
    counts = torch.zeros(2)
    bandit = samplers.from_name("bandit_discrete")
    for seed in range(400):
        bandit.select(make_view(make_pool()[0], seed=seed), 1)
        counts[bandit.report()["arm"]] += 1
    assert 150 < counts[0] < 250
    assert bandit.report()["probabilities"] == {"Uniform-1": 0.5, "Margin-1": 0.5}


@pytest.mark.parametrize("seed", range(10))
def test_an_arm_that_is_always_better_has_nine_tenths_of_the_weight(seed):
    bandit = Bandit([Fixed((1,)), Fixed((2,))])
    good = seed % 2
    for number in range(200):
        bandit.select(make_view(make_pool()[0], seed=1000 * seed + number), 1)
        report = bandit.report()
        bandit.observe(paid(number, report, 0.95 if report["arm"] == good else 0.55))
    assert bandit._log_weights.softmax(0)[good] >= 0.9


def test_arms_pick_what_their_mixture_picks():
    bandit = Bandit([Fixed((0, 1, 2)), Fixed((5, 6, 7))], arms=[[1, 0], [0, 1], [0.5, 0.5]])
    pool = make_pool(n_labeled=0)[0].with_labels(torch.tensor([20, 21]), torch.tensor([0, 1]))
    picks = set()
    for seed in range(30):
        rows = bandit.select(make_view(pool, seed=seed), 2).indices.tolist()
        picks.add((bandit.report()["arm"], bandit.report()["arm_name"], *rows))
    assert picks == {(0, "Fixed-1", 0, 1), (1, "Fixed_2-1", 5, 6), (2, "Fixed-0.5-Fixed_2-0.5", 0, 5)}


def test_the_state_of_the_members_is_shared_by_all_arms():
    shared = GraphDensity()
    bandit = Bandit([shared, Uniform()], arms=[[1, 0], [0.5, 0.5]])
    pool, targets, validation = make_pool()
    learner = ActiveLearner(NearestMean(), bandit, pool, validation=validation)
    for _ in range(6):
        rows = learner.ask(4)
        learner.tell(rows, targets[rows])
    learner.finish_round()
    named = [set(result.report["members"]["GraphDensity"]["rows"]) for result in learner.history[1:]]
    assert set(shared.state_dict()["bought"]) == set().union(*named)
    assert {result.report["arm"] for result in learner.history[1:]} == {0, 1}


def test_a_batch_that_is_told_in_parts_is_one_pull():
    pool, targets, validation = make_pool()
    bandit = Bandit([Margin(), Uniform()])
    learner = ActiveLearner(NearestMean(), bandit, pool, validation=validation)
    rows = learner.ask(6)
    before = bandit.probabilities
    for part in rows.split(2):
        learner.tell(part, targets[part])
        result = learner.finish_round()
    assert bandit._pulls == [result.report["arm"]]
    reward = result.validation["accuracy"]
    expected = reference.exp3(2, 0.5, [(result.report["arm"], reward)])
    assert before.tolist() == expected[0]
    assert bandit.probabilities.tolist() == pytest.approx(expected[1])


def test_labels_of_rows_that_nobody_asked_for_are_no_reward():
    pool, targets, validation = make_pool()
    bandit = Bandit([Margin(), Uniform()])
    learner = ActiveLearner(NearestMean(), bandit, pool, validation=validation)
    rows = pool.candidates.nonzero().squeeze(1)[:5]
    learner.tell(rows, targets[rows])
    learner.finish_round()
    assert bandit.probabilities.tolist() == [0.5, 0.5]


def test_any_function_of_the_scores_is_a_reward():
    seen = []

    def gain(scores):
        seen.append(scores)
        return max(0.0, scores[-1] - scores[-2])

    pool, targets, validation = make_pool()
    learner = ActiveLearner(NearestMean(), Bandit([Margin(), Uniform()], reward=gain), pool, validation=validation)
    for _ in range(3):
        rows = learner.ask(3)
        learner.tell(rows, targets[rows])
    learner.finish_round()
    assert [len(scores) for scores in seen] == [2, 3, 4]
    assert list(seen[-1]) == [result.validation["accuracy"] for result in learner.history]


def test_a_reward_outside_0_to_1_is_refused_again_and_again_and_nothing_is_lost():
    pool, targets, validation = make_pool()
    shared, rewards = GraphDensity(), [5.0, 5.0, 0.75]
    bandit = Bandit([shared, Uniform()], arms=[[1, 0]], reward=lambda scores: rewards[0])
    learner = ActiveLearner(NearestMean(), bandit, pool, validation=validation)
    rows = learner.ask(3)
    learner.tell(rows, targets[rows])
    state = str(bandit.state_dict())
    for _ in range(2):
        with pytest.raises(DataError, match=r"reward of EXP3 must be in \[0, 1\], got 5.0"):
            learner.finish_round()
        rewards.pop(0)
        assert str(bandit.state_dict()) == state
    result = learner.finish_round()
    assert result.picked_by == "Bandit"
    assert result.report["learned"]["reward"] == 0.75
    assert not result.scores.isnan().any()
    assert (len(bandit._scores), bandit._pulls) == (2, [0])
    assert shared.state_dict()["bought"] == rows.tolist()


def test_no_member_observes_a_round_twice_when_another_fails():
    pool, targets, validation = make_pool()
    failures = ["interrupted", "unwritable"]

    class Unwritable(Uniform):
        def observe(self, result):
            return {"what": object()} if failures == ["unwritable"] else None

    def reward(scores):
        if failures == ["interrupted", "unwritable"]:
            raise KeyboardInterrupt
        return scores[-1]

    shared, bandit = GraphDensity(), Bandit([Margin()], reward=reward)
    learner = ActiveLearner(NearestMean(), Mixture([shared, bandit, Unwritable()]), pool, validation=validation)
    rows = learner.ask(6)
    learner.tell(rows, targets[rows])
    for error in (KeyboardInterrupt, ConfigError):
        with pytest.raises(error):
            learner.finish_round()
        failures.pop(0)
    result = learner.finish_round()
    assert shared.state_dict()["bought"] == result.report["members"]["GraphDensity"]["rows"] != []
    assert bandit._scores == [r.validation["accuracy"] for r in learner.history]
    assert len(learner.ask(3)) == 3


def test_a_gain_over_a_batch_told_in_parts_is_that_of_the_whole_batch():
    pool, targets, validation = make_pool()
    seen = []

    def reward(scores):
        seen.append(scores)
        return 0.5

    learner = ActiveLearner(NearestMean(), Bandit([Margin()], reward=reward), pool, validation=validation)
    rows = learner.ask(6)
    others = pool.candidates.nonzero().squeeze(1)
    others = others[~torch.isin(others, rows)][:2]
    for part in (rows[:2], others, rows[2:]):
        learner.tell(part, targets[part])
        learner.finish_round()
    start, *_, last = [result.validation["accuracy"] for result in learner.history]
    assert [len(scores) for scores in seen] == [2, 2]
    assert seen[-1] == (start, last)


def test_a_member_none_of_whose_rows_was_bought_is_not_paid():
    pool, targets, validation = make_pool()
    inner = Bandit([Fixed((42, 43, 44))])
    learner = ActiveLearner(NearestMean(), Mixture([Fixed((21, 23, 24)), inner]), pool, validation=validation)
    rows = learner.ask(2)
    assert rows.tolist() == [21, 42]
    learner.tell(rows[:1], targets[rows[:1]])
    learner.finish_round()
    assert inner._pulls == []
    learner.withdraw()
    never = Bandit([Fixed((43,))])
    learner = ActiveLearner(
        NearestMean(), Mixture([Fixed((21, 23)), never], weights=[1.0, 0.0]), pool, validation=validation
    )
    for _ in range(2):
        rows = learner.ask(1)
        learner.tell(rows, targets[rows])
    learner.finish_round()
    assert never._pulls == []
    assert len(never._scores) == 3


def test_a_bandit_in_two_runs_at_once_is_refused():
    bandit = Bandit([Fixed(tuple(range(60)))])
    pool, targets, validation = make_pool()
    learners = [
        ActiveLearner(NearestMean(), bandit, part, validation=validation) for part in (pool, pool.without([1, 2, 3]))
    ]
    arms = []
    for learner in learners:
        rows = learner.ask(3)
        arms.append(bandit.report()["arm"])
        learner.tell(rows, targets[rows])
    assert arms[0] == arms[1]  # so that only the rows tell the two batches apart
    learners[0].finish_round()
    with pytest.raises(DataError, match="belongs to one run"):
        learners[1].finish_round()


def test_a_state_is_a_snapshot():
    bandit = Bandit([Margin(), Uniform()])
    state = bandit.state_dict()
    before = str(state)
    bandit.observe(paid(0, {}, 0.9))
    bandit.observe(paid(1, {"arm": 1, "pull": 0, "members": {}}, 0.9))
    assert str(state) == before


def test_needs_a_validation_part_before_the_first_fit():
    class NeverFitted(NearestMean):
        def fit(self, X, y):
            raise AssertionError

    for sampler in (samplers.from_name("bandit_mixture"), Mixture([Uniform(), Bandit([Margin()])])):
        with pytest.raises(ConfigError, match="looks at the score on a validation part, and there is none"):
            ActiveLearner(NeverFitted(), sampler, make_pool()[0])
    with pytest.raises(DataError, match="learns from the validation accuracy; round 1 has none"):
        Bandit([Margin()]).observe(
            RoundResult(1, 1, torch.tensor([0]), torch.tensor([0]), torch.tensor([0]), torch.zeros(1), "Bandit")
        )


def test_rows_of_others_need_no_score_while_there_is_no_model():
    bandit = Bandit([GraphDensity()])
    rows = torch.arange(3)
    before_a_model = RoundResult(0, 3, rows, rows, rows * 0, rows * math.nan, "Switch")
    assert bandit.observe(before_a_model) is None
    assert bandit._scores == []
    bandit.observe(replace(before_a_model, validation={"accuracy": 0.5}))
    assert bandit._scores == [0.5]
    with pytest.raises(DataError, match="round 0 has none"):
        bandit.observe(replace(before_a_model, report={"arm": 0, "pull": 0, "members": {}}))


@pytest.mark.parametrize(
    "sampler",
    [Bandit([Margin()]), Mixture([Margin()]), Hierarchical(), GraphDensity()],
    ids=["bandit", "mixture", "hierarchical", "density"],
)
def test_an_empty_state_is_refused(sampler):
    with pytest.raises(DataError, match=f"not of {type(sampler).__name__}: it has no"):
        sampler.load_state_dict({})


def test_arms_may_be_an_array():
    assert Bandit([Margin(), Uniform()], arms=torch.eye(2)) == Bandit([Margin(), Uniform()])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"samplers": []}, "at least one sampler"),
        ({"arms": []}, "at least one arm"),
        ({"arms": [[0.5, 0.4]]}, "sum to 1"),
        ({"arms": [[1.0]]}, "one weight for each of 2"),
        ({"arms": [[1.0, 0.0], [0.5, -0.5]]}, "at least 0"),
        ({"arms": ["margin"]}, "one weight for each of 2 samplers, got 'margin'"),
        ({"gamma": 0}, "gamma"),
        ({"gamma": 1.1}, "gamma"),
        ({"reward": 0.5}, "reward must be a function"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Bandit(**({"samplers": [Margin(), Uniform()]} | settings))


def test_state_of_other_members_or_arms_is_refused():
    state = Bandit([Margin(), Uniform()]).state_dict()
    with pytest.raises(DataError, match="the state is of Margin, Uniform; the members are Uniform, Margin"):
        Bandit([Uniform(), Margin()]).load_state_dict(state)
    with pytest.raises(DataError, match="the state is of the arms"):
        samplers.from_name("bandit_mixture").load_state_dict(state)
