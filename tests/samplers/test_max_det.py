import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView, functional
from torchal.samplers import MaxDet


class NoProbabilities(NearestMean):
    @property
    def predict_proba(self):
        raise AttributeError("predict_proba")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("condition", [False, True])
def test_picks_what_the_function_picks(bias, condition):
    view = make_view(make_pool()[0])
    labeled = view.labeled if condition else None
    want = functional.max_det(
        view.log_probs, view.features, 9, labeled=labeled, candidates=view.candidates, ridge=0.2, bias=bias
    )
    got = MaxDet(ridge=0.2, bias=bias, condition=condition).select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)


def test_by_hand():
    # row 1 has the gradient of the labeled row 0, and row 2 half of it, at a right angle
    log_probs = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.75, 0.25]]).log()
    features, targets = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, -1, -1])
    view = PoolView.from_tensors(features=features, log_probs=log_probs, targets=targets)
    assert MaxDet().select(view, 1).indices.tolist() == [2]
    assert MaxDet(condition=False).select(view, 2).indices.tolist() == [1, 2]


def test_every_candidate_and_no_other_row():
    pool, _, _ = make_pool()
    view = make_view(pool.without(pool.candidates.nonzero().squeeze(1)[::2]))
    rows = view.candidates.nonzero().squeeze(1)
    assert MaxDet().select(view, len(rows)).indices.sort().values.equal(rows)


def test_a_model_without_probabilities_is_refused():
    with pytest.raises(CapabilityError, match="MaxDet needs a model with predict_proba; NoProbabilities has none"):
        ActiveLearner(NoProbabilities(), MaxDet(), make_pool()[0])


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"ridge": -1.0}, "ridge must be a finite number above 0"),
        ({"bias": "no"}, "bias must be true or false, got 'no'"),
        ({"condition": 1}, "condition must be true or false, got 1"),
    ],
)
def test_refuses_wrong_settings(settings, match):
    with pytest.raises(ConfigError, match=match):
        MaxDet(**settings)
