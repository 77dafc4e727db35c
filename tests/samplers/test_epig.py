import pytest
import torch
from sklearn.naive_bayes import GaussianNB
from torch import nn

from tests.contracts import make_pool, make_view
from torchal import BudgetError, CapabilityError, ConfigError, PoolView, ShapeError, functional
from torchal.samplers import EPIG

FIRST = torch.tensor([[0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])  # under four draws
SECOND = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])


def view_of(*rows, **more):
    return PoolView.from_tensors(posterior_log_probs=torch.stack(rows).log(), **more)


def test_the_targets_say_what_is_wanted():
    view = view_of(SECOND, FIRST, SECOND, FIRST)
    assert EPIG(k=4, target_rows=[1]).select(view, 2).indices.tolist() == [1, 3]
    assert EPIG(k=4, target_rows=[0]).select(view, 2).indices.tolist() == [0, 2]


def test_a_labeled_row_can_be_a_target_but_is_no_pick():
    view = view_of(FIRST, SECOND, FIRST, labeled=torch.tensor([True, False, False]))
    assert EPIG(k=4, target_rows=(0,)).select(view, 1).indices.tolist() == [2]
    assert EPIG(k=4, target_rows=(0,)).score(view)[0] == -torch.inf
    assert sorted(EPIG(k=4).select(view, 2).indices.tolist()) == [1, 2]
    with pytest.raises(BudgetError, match="2 can be picked"):
        EPIG(k=4).select(view, 3)


def test_without_targets_all_candidates_are_those_or_a_sample():
    view = make_view(make_pool()[0])
    rows = view.candidates.nonzero().squeeze(1)
    draws = view.posterior_log_probs_of(rows, 6)
    everything = EPIG(k=6, n_targets=1000).score(view)[rows]
    assert torch.allclose(everything, functional.epig_of_targets(draws), atol=1e-6)
    order = torch.randperm(len(rows), generator=view.generator)
    some = EPIG(k=6, n_targets=5).score(view)[rows]
    targets, others = order[:5], order[5:]
    assert torch.allclose(some[others], functional.epig(draws[others], draws[targets]), atol=1e-6)
    assert torch.allclose(some[targets], functional.epig_of_targets(draws[targets]), atol=1e-6)
    assert not torch.allclose(some, everything, rtol=0.01)


def test_rows_are_not_picked_for_being_targets():
    weights = torch.randn(40, 60, generator=torch.Generator().manual_seed(0))  # draws of a linear model
    x = torch.randn(400, 60, generator=torch.Generator().manual_seed(1))
    logits = x @ weights.T / 3
    log_probs = torch.stack([nn.functional.logsigmoid(-logits), nn.functional.logsigmoid(logits)], 2)
    view = PoolView.from_tensors(posterior_log_probs=log_probs)
    drawn = torch.randperm(400, generator=view.generator)[:40]
    picked = EPIG(k=40, n_targets=40).select(view, 40).indices
    assert len(set(picked.tolist()) & set(drawn.tolist())) < 12  # 4 are expected by chance, and 40 counted themselves
    counted = functional.epig(log_probs, log_probs[drawn]).topk(40).indices
    assert len(set(counted.tolist()) & set(drawn.tolist())) > 20


def test_inputs_from_elsewhere_go_through_the_model():
    view = make_view(make_pool()[0])
    elsewhere = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    rows = view.candidates.nonzero().squeeze(1)
    targets = view.model.sample_log_probs(elsewhere, 5)
    want = functional.epig(view.posterior_log_probs_of(rows, 5), targets)
    assert torch.allclose(EPIG(k=5, target_inputs=elsewhere).score(view)[rows], want, atol=1e-7)
    given = view_of(FIRST, SECOND)
    with pytest.raises(CapabilityError, match="posterior_log_probs_at needs a model"):
        EPIG(k=4, target_inputs=elsewhere).select(given, 1)


def test_refuses_rows_that_are_not_there():
    with pytest.raises(ShapeError, match=r"target_rows must lie in \[0, 2\), got 2 to 2"):
        EPIG(k=4, target_rows=[2]).select(view_of(FIRST, SECOND), 1)


def test_refuses_a_model_without_a_posterior():
    with pytest.raises(CapabilityError, match="EPIG needs a model with sample_log_probs; GaussianNB has none"):
        EPIG().check_model(GaussianNB())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 1}, "k must be a whole number of at least 2"),
        ({"n_targets": 0}, "n_targets must be a whole number of at least 1"),
        ({"target_rows": []}, "target_rows must not be empty"),
        ({"target_inputs": torch.zeros(0, 2)}, "target_inputs must not be empty"),
        ({"target_rows": [0], "target_inputs": torch.zeros(1, 2)}, "not both"),
    ],
)
def test_refuses_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        EPIG(**settings)


def test_fewer_draws_than_asked_for_are_all_taken():
    view = view_of(SECOND, FIRST, SECOND, FIRST)
    assert EPIG(k=20).select(view, 2).scores.equal(EPIG(k=4).select(view, 2).scores)
