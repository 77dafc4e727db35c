import pytest
import torch

from tests.contracts import NearestMean, SamplerContract, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView, Schedule, rounds, samplers
from torchal.samplers import (
    ClassBalanced,
    Entropy,
    GraphDensity,
    Hierarchical,
    KCenterGreedy,
    Margin,
    Mixture,
    SubPool,
    Uniform,
)


class TestNested(SamplerContract):
    """Around a mixture of what has state, in a sub-pool."""

    @pytest.fixture
    def sampler(self):
        inner = Mixture([GraphDensity(), Hierarchical(), samplers.from_name("bandit_mixture")])
        return SubPool(ClassBalanced(inner, target="equal"), n_rows=57)


SCORES = torch.tensor([[9.0, 0], [8, 0], [7, 0], [6, 0], [0, 5], [0, 4], [3, 0], [2, 0], [0, 1]])


def view_of(targets=None, **outputs):
    return PoolView.from_tensors(scores=SCORES, targets=targets, **outputs)


def test_equal_parts_of_the_predicted_classes():
    # rows 4, 5 and 8 are predicted as class 1
    assert ClassBalanced(Margin()).select(view_of(), 4).indices.tolist() == [8, 7, 6, 5]
    assert sorted(ClassBalanced(Margin()).select(view_of(), 3).indices.tolist()) == [6, 7, 8]
    sampler = ClassBalanced(Margin())
    assert sorted(sampler.select(view_of(), 8).indices.tolist()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert sampler.report()["picks_per_class"] == [5, 3]


@pytest.mark.parametrize("inner", [KCenterGreedy(), Uniform(), Margin()])
def test_any_sampler_gives_its_part_of_each_class(inner):
    pool, _, _ = make_pool(n_rows=90)
    view = make_view(pool)
    sampler = ClassBalanced(inner)
    rows = sampler.select(view, 12).indices
    predicted = view.log_probs.argmax(1)[rows]
    assert predicted.bincount(minlength=3).tolist() == [4, 4, 4] == sampler.report()["picks_per_class"]


def test_a_sampler_of_sets_is_asked_class_by_class():
    pool, _, _ = make_pool(n_rows=90)
    view = make_view(pool)
    rows = ClassBalanced(KCenterGreedy()).select(view, 9).indices
    predicted = view.log_probs.argmax(1)
    for c in range(3):
        alone = view.narrowed(view.candidates & (predicted == c))
        assert rows[3 * c : 3 * c + 3].equal(KCenterGreedy().select(alone, 3).indices)


def test_towards_equal_labels():
    targets = torch.full((9,), -1)
    targets[[0, 1, 2]] = 0
    view = view_of(targets)
    assert sorted(ClassBalanced(Margin()).select(view, 2).indices.tolist()) == [7, 8]
    assert sorted(ClassBalanced(Margin(), target="equal").select(view, 2).indices.tolist()) == [5, 8]
    assert sorted(ClassBalanced(Margin(), target="equal").select(view, 3).indices.tolist()) == [4, 5, 8]
    # five labels, one of each five in class 1
    assert sorted(ClassBalanced(Margin(), target=[4, 1]).select(view, 2).indices.tolist()) == [7, 8]
    assert ClassBalanced(Margin(), target=[0.0, 1.0]).select(view, 1).indices.tolist() == [8]


def test_classes_that_no_row_is_predicted_as_are_left_out():
    targets = torch.full((9,), -1)
    targets[0] = 5
    view = view_of(targets)
    assert view.n_classes == 6
    sampler = ClassBalanced(Margin())
    sampler.select(view, 4)
    assert sampler.report()["picks_per_class"] == [2, 2, 0, 0, 0, 0]


@pytest.mark.parametrize("scores", [torch.tensor([3.0, -1, 2, -4]), torch.tensor([[3.0], [-1], [2], [-4]])])
def test_one_decision_value_for_two_classes(scores):
    view = PoolView.from_tensors(scores=scores)
    assert sorted(ClassBalanced(Margin()).select(view, 2).indices.tolist()) == [1, 2]


def test_probabilities_alone_will_do():
    log_probs = torch.tensor([[0.51, 0.49], [0.52, 0.48], [0.8, 0.2], [0.1, 0.9]]).log()
    assert ClassBalanced(Entropy()).select(PoolView.from_tensors(log_probs=log_probs), 2).indices.tolist() == [0, 3]
    with pytest.raises(CapabilityError, match="ClassBalanced needs a model with"):
        ClassBalanced(Uniform()).check_model(object())


def test_what_was_asked_more_than_once_has_no_report_of_its_own():
    view = make_view(make_pool(n_rows=90)[0])
    sampler = ClassBalanced(KCenterGreedy())
    sampler.select(view, 9)
    assert "report" not in sampler.report()["members"]["KCenterGreedy"]
    sampler.select(view, 1)
    assert "report" in sampler.report()["members"]["KCenterGreedy"]


def test_balances_the_labels_of_a_run():
    pool, targets, _ = make_pool(n_rows=90)
    learner = ActiveLearner(NearestMean(), ClassBalanced(Uniform(), target=[1, 1, 4]), pool)
    for _ in rounds(learner, lambda rows: targets[rows], Schedule(batch_size=9, max_rounds=3)):
        pass
    counts = learner.pool.targets[learner.pool.labeled].bincount()
    assert counts[2] > counts[0] + counts[1]


@pytest.mark.parametrize("target", ["uniform", [], [0, 0], [1, -1], [1, float("nan")], [1, float("inf")], 0.5, ["a"]])
def test_refuses_other_targets(target):
    with pytest.raises(ConfigError, match="target must be null, 'equal', or numbers"):
        ClassBalanced(target=target)


def test_refuses_a_target_for_other_classes():
    with pytest.raises(ConfigError, match="target has 3 numbers, the pool has 2 classes"):
        ClassBalanced(target=[1, 1, 1]).select(view_of(), 2)
