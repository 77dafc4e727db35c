import pytest
import torch
from sklearn.svm import LinearSVC

from tests.contracts import make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView
from torchal.functional import bait
from torchal.samplers import Bait


@pytest.mark.parametrize(
    "settings",
    [{}, {"regularization": 0.01}, {"oversampling": 1}, {"form": "block_diagonal"}, {"form": "binary"}],
)
def test_picks_what_the_function_picks(settings):
    view = make_view(make_pool()[0])
    want = bait(view.log_probs, view.features, 9, labeled=view.labeled, candidates=view.candidates, **settings)
    got = Bait(**settings).select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_the_settings_matter():
    generator = torch.Generator().manual_seed(1)
    log_probs = (2 * torch.randn(80, 4, generator=generator)).log_softmax(1)
    view = PoolView.from_tensors(log_probs=log_probs, features=torch.randn(80, 3, generator=generator))
    picks = {
        tuple(Bait(**settings).select(view, 6).indices.tolist())
        for settings in ({}, {"regularization": 0.01}, {"oversampling": 1}, {"form": "binary"})
    }
    assert len(picks) == 4


def test_by_hand():
    # two classes and one feature: the gain grows with p (1 - p) h^2, here 0.25, 0.36 and 0
    log_probs = torch.tensor([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]]).log()
    view = PoolView.from_tensors(log_probs=log_probs, features=torch.tensor([[1.0], [2.0], [9.0]]))
    sampler = Bait(oversampling=1)
    assert sampler.report() == {}
    assert sampler.select(view, 3).indices.tolist() == [1, 0, 2]
    assert sampler.report() == {"features": "given", "n_features": 1, "form": "exact"}


def test_never_picks_outside_of_the_candidates():
    view = make_view(make_pool()[0])
    candidates = view.candidates & (torch.arange(60) % 3 == 0)
    view = PoolView.from_tensors(
        log_probs=view.log_probs, features=view.features, labeled=view.labeled, candidates=candidates
    )
    n = int(candidates.sum())
    assert Bait().select(view, n).indices.sort().values.equal(candidates.nonzero().squeeze(1))
    assert candidates[Bait().select(view, n // 2).indices].all()


def test_a_model_without_probabilities_is_refused_before_the_first_fit():
    with pytest.raises(CapabilityError, match="Bait needs a model with"):
        ActiveLearner(LinearSVC(), Bait(), make_pool()[0])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"regularization": 0}, "regularization must be a finite number above 0, got 0"),
        ({"oversampling": 0}, "oversampling must be a whole number of at least 1, got 0"),
        ({"form": "full"}, "form must be one of auto, exact, block_diagonal, binary, got 'full'"),
    ],
)
def test_refuses_settings_at_once(settings, match):
    with pytest.raises(ConfigError, match=match):
        Bait(**settings)
