"""BALD and the samplers that draw batches by its scores."""

import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, BudgetError, CapabilityError, ConfigError, PoolView
from torchal.functional import bald, power_scores, softmax_scores, softrank_scores
from torchal.samplers import BALD, PowerBALD, SoftmaxBALD, SoftrankBALD

ALL = [BALD, PowerBALD, SoftmaxBALD, SoftrankBALD]
DRAWN = {PowerBALD: power_scores, SoftmaxBALD: softmax_scores, SoftrankBALD: softrank_scores}

# of one mind, sure; of one mind, unsure; the one against the other, more and more
ROWS = [[0.99, 0.99], [0.5, 0.5], [0.4, 0.6], [0.3, 0.7], [0.1, 0.9]]


def a_view(n_draws=2, **masks):
    first = torch.tensor(ROWS).repeat(1, n_draws // 2)
    draws = torch.stack([first, 1 - first], 2).log()
    return PoolView.from_tensors(posterior_log_probs=draws, generator=torch.Generator().manual_seed(5), **masks)


class Members(NearestMean):
    """An ensemble, of which there are no more draws than members."""

    max_draws = 3

    def __sklearn_clone__(self):
        return Members(self.sharpness)

    def sample_log_probs(self, X, k):
        assert k <= self.max_draws
        return super().sample_log_probs(X, k)


def test_picks_in_the_order_of_the_mutual_information():
    picked = BALD().select(a_view(), 5)
    assert picked.indices.tolist() == [4, 3, 2, 0, 1]
    assert picked.scores.tolist() == bald(a_view().posterior_log_probs(2))[picked.indices].tolist()


@pytest.mark.parametrize("sampler", DRAWN)
@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_draws_by_the_settings_among_the_candidates(sampler, beta):
    view = a_view(labeled=torch.tensor([False, False, False, False, True]))
    scores = bald(view.posterior_log_probs(2))
    scores[4] = -torch.inf
    want = DRAWN[sampler](scores, beta=beta, generator=view.generator)
    picked = sampler(beta=beta).select(view, 4)
    assert picked.scores.equal(want[picked.indices])
    assert sorted(picked.indices.tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("sampler", DRAWN)
def test_draws_follow_the_views_generator(sampler):
    view = make_view(make_pool()[0])
    assert not sampler().select(view, 20).indices.equal(sampler().select(view.fork(1), 20).indices)


@pytest.mark.parametrize("sampler", ALL)
def test_reads_k_draws_and_the_members_of_a_smaller_ensemble(sampler, monkeypatch):
    asked = []
    draw = NearestMean.sample_log_probs
    monkeypatch.setattr(NearestMean, "sample_log_probs", lambda self, X, k: (asked.append(k), draw(self, X, k))[1])
    sampler().select(make_view(make_pool()[0]), 3)
    sampler(k=7).select(make_view(make_pool()[0]), 3)
    sampler().select(make_view(make_pool()[0], model=Members()), 3)
    sampler(k=2).select(make_view(make_pool()[0], model=Members()), 3)
    assert asked == [20, 7, 3, 2]


@pytest.mark.parametrize("sampler", ALL)
def test_all_candidates_and_no_other(sampler):
    candidates = torch.tensor([True, False, True, True, False])
    assert sorted(sampler().select(a_view(candidates=candidates), 3).indices.tolist()) == [0, 2, 3]
    with pytest.raises(BudgetError, match="asked for 4 rows, 3 can be picked"):
        sampler().select(a_view(candidates=candidates), 4)


@pytest.mark.parametrize("sampler", ALL)
def test_refuses_models_that_cannot_be_drawn_from_and_single_draws(sampler, monkeypatch):
    pool, _, _ = make_pool()
    with pytest.raises(CapabilityError, match=f"{sampler.__name__} needs a model with sample_log_probs.*TorchEnsemble"):
        ActiveLearner(GaussianNB(), sampler(), pool).ask(3)
    with pytest.raises(ConfigError, match="k must be a whole number of at least 2, got 1"):
        sampler(k=1)
    monkeypatch.setattr(Members, "max_draws", 1)
    with pytest.raises(CapabilityError, match="compared with each other, and there is only 1"):
        sampler().select(make_view(pool, model=Members()), 3)


@pytest.mark.parametrize("sampler", DRAWN)
def test_refuses_a_beta_of_nothing(sampler):
    with pytest.raises(ConfigError, match="beta must be a finite number above 0, got 0"):
        sampler(beta=0)


def test_draws_that_are_all_the_same_are_drawn_from_evenly():
    draws = torch.full((40, 3, 2), 0.5).log()
    view = PoolView.from_tensors(posterior_log_probs=draws)
    with pytest.warns(UserWarning, match="all 40 candidates have the same BALD score, 0"):
        BALD().select(view, 3)
    for sampler in DRAWN:  # without a warning: these are not the first rows
        assert sampler().select(view, 3).indices.tolist() != [0, 1, 2]
