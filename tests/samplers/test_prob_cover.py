import copy
import math

import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from tests.samplers.test_k_center import Plain, plain_view
from torchal import ActiveLearner, ConfigError, PoolView, Schedule, functional, rounds
from torchal.functional import BallCover, prob_cover, purity_radius
from torchal.samplers import ProbCover


@pytest.fixture
def searches(monkeypatch):
    """Return a list that grows by one with each search for a radius."""
    calls = []

    def counted(*arguments, **settings):
        calls.append(settings)
        return purity_radius(*arguments, **settings)

    monkeypatch.setattr(functional, "purity_radius", counted)
    return calls


def test_the_balls_are_found_once_while_the_features_are_the_inputs(monkeypatch):
    found = []

    class Counted(BallCover):
        def __init__(self, *arguments, **settings):
            found.append(settings["radius"])
            super().__init__(*arguments, **settings)

    monkeypatch.setattr(functional, "BallCover", Counted)
    pool, targets, _ = make_pool()
    sampler = ProbCover(radius=1.0)
    learner = ActiveLearner(Plain(), sampler, pool)
    results = list(rounds(learner, lambda rows: targets[rows], Schedule(batch_size=5, max_rounds=3)))
    assert found == [1.0]
    again = pool
    for result in results[1:]:  # as if each round were the first
        want = prob_cover(again.inputs, 5, radius=1.0, labeled=again.labeled)
        assert result.rows.equal(want.indices)
        again = again.with_labels(result.rows, targets[result.rows])
    assert (
        copy.deepcopy(sampler).select(plain_view(again), 3).indices.equal(sampler.select(plain_view(again), 3).indices)
    )
    assert found == [1.0, 1.0]  # a copy is empty
    pool.inputs[3] += 1
    sampler.select(plain_view(pool), 3)
    for _ in range(2):  # another embedding in each round
        sampler.select(make_view(pool), 3)
    assert len(found) == 5


def test_the_fullest_balls_of_a_given_radius():
    features = torch.tensor([[0.0], [1.0], [2.0], [7.0], [8.0], [20.0]])
    sampler = ProbCover(radius=1.5)
    picked = sampler.select(PoolView.from_tensors(features=features), 2)
    assert picked.indices.tolist() == [1, 3]
    assert picked.scores.tolist() == [3, 2]
    assert sampler.report() == {"features": "given", "radius": 1.5, "newly_covered": 5}
    candidates = torch.tensor([False, False, True, False, True, True])
    view = PoolView.from_tensors(features=features, labeled=torch.arange(6) == 0, candidates=candidates)
    assert sampler.select(view, 3).indices.tolist() == [4, 2, 5]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_settings_are_passed_on_and_the_radius_is_that_of_the_classes(metric):
    view = make_view(make_pool()[0])
    radius = purity_radius(
        view.features, n_clusters=3, generator=torch.Generator().manual_seed(5), alpha=0.8, metric=metric
    )
    want = prob_cover(view.features, 9, radius=radius, labeled=view.labeled, metric=metric)
    sampler = ProbCover(metric=metric, alpha=0.8, seed=5)
    got = sampler.select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
    report = {"features": "embedding", "radius": radius, "newly_covered": int(want.scores.sum())}
    assert sampler.report() == report
    with pytest.raises(ConfigError, match="max_edges is 100"):
        ProbCover(max_edges=100).select(view, 1)


def test_without_any_label():
    pool, targets, _ = make_pool(n_labeled=0)
    view = PoolView.from_tensors(features=pool.inputs + 20 * targets[:, None], scores=torch.zeros(60, 3))
    picked = ProbCover().select(view, 3)
    assert sorted(targets[picked.indices].tolist()) == [0, 1, 2]  # one of each blob
    assert picked.scores.sum() == 60


def test_the_radius_is_searched_for_once_on_the_same_features(searches):
    pool, targets, _ = make_pool()
    for sampler in (ProbCover(), ProbCover()):
        learner = ActiveLearner(Plain(), sampler, pool)
        *_, last = rounds(learner, lambda rows: targets[rows], Schedule(batch_size=5, max_rounds=3))
        assert last.report["features"] == "inputs"
    assert len(searches) == 1
    pool.inputs[3] += 1
    ProbCover().select(plain_view(pool), 3)
    assert len(searches) == 2
    for _ in range(2):  # another embedding in each round
        ProbCover().select(make_view(pool), 3)
    assert len(searches) == 4
    features = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    for n_labeled in (0, 3):
        ProbCover().select(PoolView.from_tensors(features=features, labeled=torch.arange(20) < n_labeled), 3)
    assert len(searches) == 5


def test_all_candidates_and_no_other_row():
    pool = make_pool()[0]
    skipped = pool.candidates.nonzero().squeeze(1)[::2]
    view = make_view(pool.without(skipped))
    picked = ProbCover().select(view, int(view.candidates.sum())).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


def test_pools_of_one_and_two_rows():
    for n_rows in (1, 2):
        view = PoolView.from_tensors(features=torch.rand(n_rows, 2), scores=torch.rand(n_rows, 3))
        assert ProbCover().select(view, n_rows).indices.sort().values.tolist() == list(range(n_rows))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"radius": 0}, "radius must be a number above 0, got 0"),
        ({"radius": math.nan}, "radius must be a number above 0, got nan"),
        ({"metric": "manhattan"}, "metric must be one of euclidean, cosine, got 'manhattan'"),
        ({"alpha": 1.5}, r"alpha must be a number in \(0, 1\], got 1.5"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"max_edges": 0}, "max_edges must be a whole number of at least 1"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings, match):
    with pytest.raises(ConfigError, match=match):
        ProbCover(**settings)


def test_any_model_will_do():
    ProbCover().check_model(NearestMean())
    ProbCover().check_model(object())
