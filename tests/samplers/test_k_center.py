import copy
import pickle

import pytest
import torch
from sklearn.svm import LinearSVC

from tests.contracts import NearestMean, make_pool, make_view
from torchal import (
    ActiveLearner,
    CapabilityError,
    ConfigError,
    Pool,
    PoolView,
    Schedule,
    functional,
    rounds,
    samplers,
)
from torchal.functional import Cover, k_center_greedy
from torchal.protocols import HasProbabilities
from torchal.samplers import KCenterGreedy


class Plain(NearestMean):
    """A model without an embedding."""

    @property
    def transform(self):
        raise AttributeError("transform")

    def __sklearn_clone__(self):
        return Plain(self.sharpness)


def plain_view(pool):
    model = Plain()
    model.fit(*pool.training_data())
    return pool.view(model, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def surveys(monkeypatch):
    """Count how often distances are begun from nothing."""
    made = []
    start = Cover.__init__
    monkeypatch.setattr(Cover, "__init__", lambda self, *a, **k: (made.append(1), start(self, *a, **k))[1])
    return made


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "manhattan"])
def test_picks_what_the_function_picks(metric):
    view = make_view(make_pool()[0])
    want = k_center_greedy(view.features, 9, labeled=view.labeled, metric=metric)
    got = KCenterGreedy(metric=metric).select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_the_embedding_is_taken_where_there_is_one_and_the_record_says_which():
    pool, targets, _ = make_pool()
    squeezed = pool.inputs * torch.tensor([1.0, 0.01, 0.01, 0.01])
    view = PoolView.from_tensors(features=squeezed, labeled=pool.labeled)
    sampler = KCenterGreedy()
    assert sampler.report() == {}
    sampler.select(view, 3)
    assert sampler.report() == {"features": "given", "n_features": 4}
    for model, source in ((NearestMean(), "embedding"), (Plain(), "inputs")):
        learner = ActiveLearner(model, KCenterGreedy(), pool)
        *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=5, max_rounds=2))
        assert last.report == {"features": source, "n_features": 4}


def test_rounds_go_on_from_each_other_on_the_same_inputs(surveys):
    pool, targets, _ = make_pool()
    sampler = KCenterGreedy()
    for _ in range(4):
        view = plain_view(pool)
        picked = sampler.select(view, 8).indices
        assert picked.equal(k_center_greedy(view.features, 8, labeled=view.labeled).indices)
        surveys.pop()  # the line above
        pool = pool.with_labels(picked[:5], targets[picked[:5]])
    assert len(surveys) == 1


def test_images_too(surveys):
    images = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    sampler = KCenterGreedy()
    for labeled in (torch.arange(40) < 4, torch.arange(40) < 9):
        view = PoolView.from_tensors(features=images.flatten(1), labeled=labeled)
        assert len(sampler.select(view, 3).indices) == 3
    assert len(surveys) == 1


@pytest.mark.parametrize("change", ["in place", "fewer labels", "other rows", "embedding"])
def test_anything_else_starts_from_nothing(change, surveys):
    pool, targets, _ = make_pool()
    sampler = KCenterGreedy()
    sampler.select(make_view(pool) if change == "embedding" else plain_view(pool), 5)
    if change == "in place":
        pool.inputs[3:9] *= 4
    elif change == "fewer labels":
        pool = Pool.unlabeled(pool.inputs, n_classes=3).with_labels(torch.arange(3), targets[:3])
    elif change == "other rows":
        pool = make_pool(seed=1)[0]
    view = make_view(pool) if change == "embedding" else plain_view(pool)
    assert sampler.select(view, 5).indices.equal(KCenterGreedy().select(view, 5).indices)
    assert len(surveys) == 3


def test_a_copy_in_the_middle_of_a_run_picks_the_same():
    view = plain_view(make_pool()[0])
    sampler = KCenterGreedy()
    want = sampler.select(view, 5).indices
    assert copy.deepcopy(sampler).select(view, 5).indices.equal(want)


def test_a_copy_does_not_carry_the_pool():
    view = plain_view(make_pool(n_rows=20_000)[0])
    sampler = KCenterGreedy()
    sampler.select(view, 5)
    assert len(pickle.dumps(sampler)) < 2000


def test_inference_tensors_are_taken():
    with torch.inference_mode():
        features = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    sampler = KCenterGreedy()
    for _ in range(2):
        assert len(sampler.select(PoolView.from_tensors(features=features), 4).indices) == 4


def test_features_that_are_all_the_same_are_warned_of():
    view = PoolView.from_tensors(features=torch.ones(6, 2), labeled=torch.arange(6) < 1)
    with pytest.warns(UserWarning, match=r"all 2 picks have the distance 0, and are the first rows.*\(given\)"):
        assert KCenterGreedy().select(view, 2).indices.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("weights", "measure"),
    [
        ("entropy", functional.entropy),
        ("least_confidence", functional.least_confidence),
        ("margin", lambda log_probs: 1 + functional.margin(log_probs.exp())),
    ],
)
def test_rows_that_the_model_is_unsure_of_count_more(weights, measure):
    view = make_view(make_pool()[0])
    want = k_center_greedy(
        view.features, 9, labeled=view.labeled, weights=measure(view.log_probs).clamp(min=0), outliers=0.1
    )
    got = KCenterGreedy(weights=weights, outliers=0.1).select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
    assert not got.indices.equal(KCenterGreedy().select(view, 9).indices)


def test_weights_by_hand():
    features = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    log_probs = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.9, 0.1]]).log()
    view = PoolView.from_tensors(features=features, log_probs=log_probs, labeled=torch.arange(4) < 1)
    assert KCenterGreedy(weights="margin").select(view, 3).indices.tolist() == [2, 1, 3]  # 5, then 1 and 4 x 0.2
    assert KCenterGreedy(outliers=0.4).select(view, 2).indices.tolist() == [2, 1]


def test_weights_need_probabilities_and_outliers_none_left():
    pool, *_ = make_pool()
    with pytest.raises(CapabilityError, match=r"KCenterGreedy\(weights='entropy'\) needs"):
        ActiveLearner(LinearSVC(), KCenterGreedy(weights="entropy"), pool)
    ActiveLearner(LinearSVC(), KCenterGreedy(), pool)
    assert KCenterGreedy(weights="entropy").reads(HasProbabilities)
    assert not KCenterGreedy().reads(HasProbabilities)
    view = make_view(pool)
    everything = KCenterGreedy(weights="entropy", outliers=0.5).select(view, 54).indices
    assert everything.sort().values.equal(view.candidates.nonzero().squeeze(1))


def test_a_model_that_is_sure_of_every_row_is_warned_of():
    sure = torch.tensor([[1.0, 0.0]]).log().expand(6, 2)
    view = PoolView.from_tensors(features=torch.rand(6, 2), log_probs=sure, labeled=torch.arange(6) < 1)
    with pytest.warns(UserWarning, match="sure of every candidate: all weights by least_confidence are 0"):
        assert KCenterGreedy(weights="least_confidence").select(view, 2).indices.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"weights": "unsure"}, "entropy, least_confidence, margin, or None; got 'unsure'"),
        ({"outliers": 1.0}, r"outliers must be a number in \[0, 1\), got 1.0"),
    ],
)
def test_refuses_settings_out_of_range(setting, match):
    with pytest.raises(ConfigError, match=match):
        KCenterGreedy(**setting)


def test_the_playgrounds_name():
    assert samplers.from_name("kcenter") == KCenterGreedy()
    assert "kcenter" not in samplers.names()


def test_refuses_an_unknown_metric():
    with pytest.raises(ConfigError, match="euclidean, cosine, manhattan, got 'l1'"):
        KCenterGreedy(metric="l1")
