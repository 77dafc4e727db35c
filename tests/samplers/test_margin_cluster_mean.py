import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView, Schedule, functional, rounds
from torchal.samplers import Margin, MarginClusterMean


def test_representatives_come_from_inside_the_margin():
    # inside: three groups; outside: rows with larger values than the labeled one
    features = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2], [9.0], [9.1], [9.2], [20.0], [30.0]])
    scores = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 3.0, 1.0])
    view = PoolView.from_tensors(features=features, scores=scores, labeled=torch.arange(11) == 10)
    sampler = MarginClusterMean()
    assert sampler.rows_inside(view).tolist() == [True] * 9 + [False] * 2
    picked = sampler.select(view, 3)
    assert picked.indices.tolist() == [1, 7, 4]
    assert picked.scores.tolist() == pytest.approx([-0.2, -0.2, -0.5])
    assert sampler.report() == {"n_inside": 9}


def test_fewer_rows_inside_than_the_batch_is_the_batch_of_margin():
    features, scores = torch.rand(8, 2), torch.tensor([0.1, 9.0, 2.0, 3.0, 0.5, 4.0, 5.0, 1.0])
    view = PoolView.from_tensors(features=features, scores=scores, labeled=torch.arange(8) == 7)
    sampler = MarginClusterMean()
    assert sampler.select(view, 3).indices.equal(Margin().select(view, 3).indices)
    assert sampler.report() == {"n_inside": 2}


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("model", [LinearSVC(), GaussianNB(), NearestMean()], ids=["scores", "probabilities", "both"])
def test_runs_to_the_last_row_with_any_model(model, n_classes):
    pool, targets, _ = make_pool(n_classes=n_classes)
    learner = ActiveLearner(model, MarginClusterMean(), pool)
    *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=7))
    assert last.n_labeled == 60


def test_unit_margin():
    view = PoolView.from_tensors(features=torch.rand(4, 1), scores=torch.tensor([-0.9, 1.0, 0.2, -3.0]))
    assert MarginClusterMean(inside="unit").rows_inside(view).tolist() == [True, False, True, False]


def test_probabilities_alone_stand_in_as_log_odds():
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.72, 0.27, 0.01]])
    view = PoolView.from_tensors(features=torch.rand(3, 1), log_probs=probs.log())
    # |log odds| < 1 is a probability between 0.269 and 0.731
    assert MarginClusterMean(inside="unit").rows_inside(view).tolist() == [True, False, True]


def test_the_clusters_are_those_of_the_inputs_with_the_settings(monkeypatch):
    calls = []
    monkeypatch.setattr(functional, "margin_cluster_mean", lambda x, n, **rest: calls.append((x, rest)))
    view = make_view(make_pool()[0])
    MarginClusterMean(max_iterations=3).select(view, 5)
    assert calls[0][0].equal(view.inputs)
    assert not view.features.equal(view.inputs)
    assert calls[0][1]["max_iterations"] == 3


def test_a_skipped_row_does_not_make_the_margin_smaller():
    pool = make_pool()[0]
    every = MarginClusterMean().rows_inside(make_view(pool))
    assert MarginClusterMean().rows_inside(make_view(pool.without(every.nonzero().squeeze(1)[:5]))).equal(every)


def test_a_row_inside_that_is_no_candidate_is_not_picked():
    pool, _, _ = make_pool()
    skipped = pool.candidates.nonzero().squeeze(1)[::2]
    view = make_view(pool.without(skipped))
    assert not torch.isin(MarginClusterMean(inside="unit").select(view, 5).indices, skipped).any()


def test_refuses_settings_and_models():
    with pytest.raises(ConfigError, match="labeled, unit; got 'all'"):
        MarginClusterMean(inside="all")
    with pytest.raises(ConfigError, match="max_iterations"):
        MarginClusterMean(max_iterations=0)
    with pytest.raises(CapabilityError, match="decision_function or predict_proba"):
        MarginClusterMean().check_model(object())
