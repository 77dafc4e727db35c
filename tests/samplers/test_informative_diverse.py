import copy

import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView, functional
from torchal.samplers import InformativeDiverse, Margin, informative_diverse


@pytest.fixture
def clusterings(monkeypatch):
    """Return a list that grows by one with each clustering."""
    calls = []

    def counted(*arguments, **settings):
        calls.append(settings)
        return kmeans(*arguments, **settings)

    kmeans = informative_diverse.kmeans
    monkeypatch.setattr(informative_diverse, "kmeans", counted)
    return calls


def test_one_row_at_a_time_picks_exactly_what_margin_picks():
    for seed in range(3):
        pool, targets, _ = make_pool(seed=seed)
        learners = [ActiveLearner(NearestMean(), sampler, pool) for sampler in (InformativeDiverse(), Margin())]
        for _ in range(25):
            rows = [learner.ask(1) for learner in learners]
            assert rows[0].equal(rows[1])
            for learner in learners:
                learner.tell(rows[0], targets[rows[0]])


def test_each_cluster_gets_its_share_of_the_whole_pool():
    # 40 rows on the left, of which 36 are labeled, and 20 on the right; the left ones have the smaller margins
    features = torch.cat([torch.zeros(40, 1), torch.full((20, 1), 9.0)]) + torch.linspace(0, 1, 60)[:, None]
    view = PoolView.from_tensors(features=features, scores=torch.linspace(0.1, 6, 60), labeled=torch.arange(60) < 36)
    sampler = InformativeDiverse()
    assert sampler.select(view, 6).indices.tolist() == [36, 37, 38, 39, 40, 41]
    assert sorted(sampler.report()["cluster_sizes"]) == [20, 40]
    assert sorted(sampler.report()["picks_per_cluster"]) == [2, 4]
    assert sampler.select(view, 3).indices.tolist() == [36, 37, 40]


def test_the_pool_is_clustered_once(clusterings):
    pool, targets, _ = make_pool()
    learner = ActiveLearner(NearestMean(), InformativeDiverse(), pool)
    for _ in range(4):
        rows = learner.ask(5)
        learner.tell(rows, targets[rows])
    assert len(clusterings) == 1


def test_other_inputs_or_another_number_of_classes_are_clustered_anew(clusterings):
    sampler = InformativeDiverse()
    for seed, n_classes in ((0, 3), (1, 3), (1, 2)):
        sampler.select(make_view(make_pool(seed=seed, n_classes=n_classes)[0]), 3)
    assert len(clusterings) == 3


def test_equal_inputs_are_the_same_pool(clusterings):
    x, sampler = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)), InformativeDiverse()
    with torch.inference_mode():
        inference = x * 1.0
    for features in (x, x.clone(), x.t().contiguous().t(), inference, inference.clone()):
        sampler.select(PoolView.from_tensors(features=features, scores=torch.rand(40, 3)), 3)
    assert len(clusterings) == 1
    sampler.select(PoolView.from_tensors(features=inference, scores=torch.rand(40, 3)), 3)
    with torch.inference_mode():
        inference[:] = inference.flip(0)
    sampler.select(PoolView.from_tensors(features=inference, scores=torch.rand(40, 3)), 3)
    assert len(clusterings) == 2


def test_clusters_are_those_of_the_inputs_and_of_the_settings(clusterings):
    view = make_view(make_pool()[0])
    assert not view.features.equal(view.flat_inputs)
    sampler = InformativeDiverse(n_clusters=4, seed=7, max_iterations=9)
    expected = functional.kmeans(view.inputs, 4, generator=torch.Generator().manual_seed(7), max_iterations=9)
    assert sampler.clusters(view).equal(expected.assignments)
    assert clusterings[-1]["max_iterations"] == 9
    assert clusterings[-1]["generator"].initial_seed() == 7


def test_a_copy_clusters_the_same():
    view = make_view(make_pool()[0])
    sampler = InformativeDiverse(n_clusters=5)
    assert sampler.clusters(view).equal(copy.deepcopy(sampler).clusters(view))
    assert len(sampler.clusters(view).unique()) == 5


def test_fewer_distinct_rows_than_clusters():
    features = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    view = PoolView.from_tensors(features=features, scores=torch.tensor([[0.0] * 4] * 4))
    assert sorted(InformativeDiverse(n_clusters=9).select(view, 4).indices.tolist()) == [0, 1, 2, 3]
    assert len(InformativeDiverse(n_clusters=9).select(view, 2).indices) == 2


def test_a_class_that_was_never_seen():
    pool, targets, _ = make_pool(n_labeled=0)
    two = (targets < 2).nonzero().squeeze(1)[:6]
    view = make_view(pool.with_labels(two, targets[two]))
    assert view.scores.shape[1] == 2
    assert len(InformativeDiverse().select(view, 9).indices.unique()) == 9


def test_works_on_probabilities_alone_and_refuses_neither():
    probs = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    view = PoolView.from_tensors(features=torch.rand(20, 2), log_probs=probs.log())
    assert len(InformativeDiverse().select(view, 5).indices) == 5
    with pytest.raises(CapabilityError, match="decision_function or predict_proba"):
        InformativeDiverse().check_model(object())


def test_scores_without_features_are_not_enough():
    with pytest.raises(CapabilityError, match="features needs a model"):
        InformativeDiverse().select(PoolView.from_tensors(scores=torch.rand(5, 2)), 2)


@pytest.mark.parametrize("settings", [{"n_clusters": 0}, {"n_clusters": 2.5}, {"max_iterations": 0}, {"seed": -1}])
def test_refuses_settings(settings):
    with pytest.raises(ConfigError, match="whole number"):
        InformativeDiverse(**settings)
