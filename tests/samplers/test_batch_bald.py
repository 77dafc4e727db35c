import pytest
import torch
from sklearn.naive_bayes import GaussianNB

from torchal import BudgetError, CapabilityError, ConfigError, PoolView, functional
from torchal.samplers import BatchBALD

FIRST = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])  # under four draws
SECOND = torch.tensor([[0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
NOISE = torch.full((4, 2), 0.5)


def view_of(*rows, **more):
    return PoolView.from_tensors(posterior_log_probs=torch.stack(rows).log(), **more)


def test_literal():
    view = view_of(NOISE, FIRST, FIRST, SECOND)
    sampler = BatchBALD(k=4)
    assert sampler.select(view, 2).indices.tolist() == [1, 3]
    assert sampler.report() == {
        "joint_mutual_information": pytest.approx(0.6931 + 0.3681, abs=1e-4),
        "standard_error": 0,
    }


def test_never_picks_what_is_no_candidate():
    view = view_of(FIRST, SECOND, FIRST, NOISE, labeled=torch.tensor([True, False, False, False]))
    assert BatchBALD(k=4).select(view, 2).indices.tolist() == [2, 1]
    assert sorted(BatchBALD(k=4).select(view, 3).indices.tolist()) == [1, 2, 3]
    with pytest.raises(BudgetError, match="3 can be picked"):
        BatchBALD(k=4).select(view, 4)


def test_settings_reach_the_function():
    draws, candidates = torch.randn(90, 9, 3, generator=torch.Generator().manual_seed(0)), torch.arange(90) % 3 > 0
    view = PoolView.from_tensors(posterior_log_probs=draws.log_softmax(2), candidates=candidates)
    rows = candidates.nonzero().squeeze(1)
    for most in (3, 10_000):
        log_probs = view.posterior_log_probs_of(rows, 7)
        want = functional.batch_bald(log_probs, 8, generator=view.generator, max_configurations=most)
        got = BatchBALD(k=7, max_configurations=most).select(view, 8)
        assert got.indices.equal(rows[want.indices])
        assert got.scores.equal(want.scores)


def test_only_rows_of_the_largest_bald_are_considered_and_the_report_tells_what_that_may_cost():
    view = view_of(NOISE, FIRST, FIRST, SECOND)
    sampler = BatchBALD(k=4, n_candidates=2)
    picks = sampler.select(view, 2)
    assert picks.indices.tolist() == [1, 2]  # the copy: the second best is the only other one
    assert sampler.report()["bound_outside"] == pytest.approx(0.3681, abs=1e-4)
    assert picks.scores[1] < sampler.report()["bound_outside"]
    for more in (3, None):
        sampler = BatchBALD(k=4, n_candidates=more)
        assert sampler.select(view, 2).indices.tolist() == [1, 3]
    assert sorted(BatchBALD(k=4, n_candidates=1).select(view, 3).indices.tolist()) == [1, 2, 3]


def test_draws_that_agree_are_warned_of():
    with pytest.warns(UserWarning, match=r"all 3 candidates have the same BatchBALD score, 0.*under every draw\?"):
        assert BatchBALD(k=4).select(view_of(NOISE, NOISE, NOISE), 2).indices.tolist() == [0, 1]


def test_refuses_a_model_without_a_posterior():
    with pytest.raises(CapabilityError, match="BatchBALD needs a model with sample_log_probs; GaussianNB has none"):
        BatchBALD().check_model(GaussianNB())


@pytest.mark.parametrize("settings", [{"k": 1}, {"max_configurations": 0}, {"n_candidates": 0}, {"k": 2.5}])
def test_refuses_settings_out_of_range(settings):
    with pytest.raises(ConfigError, match=f"{next(iter(settings))} must be a whole number of at least"):
        BatchBALD(**settings)


def test_fewer_draws_than_asked_for_are_all_taken():
    view = view_of(NOISE, FIRST, FIRST, SECOND)
    assert BatchBALD(k=100).select(view, 2).indices.equal(BatchBALD(k=4).select(view, 2).indices)
