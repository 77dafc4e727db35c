import math

import pytest
import torch
from sklearn.svm import LinearSVC

from tests.contracts import make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, PoolView
from torchal.samplers import ExpectedGradientLength

LOG_PROBS = torch.tensor([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]).log()
FEATURES = torch.tensor([[0.0], [2.0], [9.0]])


@pytest.mark.parametrize(("bias", "want"), [(True, [math.sqrt(2.5), math.sqrt(0.5)]), (False, [math.sqrt(2.0), 0.0])])
def test_longer_features_move_more_and_sure_rows_nothing(bias, want):
    view = PoolView.from_tensors(log_probs=LOG_PROBS, features=FEATURES)
    picked = ExpectedGradientLength(bias=bias).select(view, 2)
    assert picked.indices.tolist() == [1, 0]
    assert picked.scores.tolist() == pytest.approx(want)


def test_the_features_are_the_models_embedding():
    view = make_view(make_pool()[0])
    scores = ExpectedGradientLength().score(view)
    same = PoolView.from_tensors(log_probs=view.log_probs, features=view.features)
    assert scores.equal(ExpectedGradientLength().score(same))
    assert not view.features.equal(view.inputs)


def test_all_candidates_and_no_other_row():
    view = PoolView.from_tensors(log_probs=LOG_PROBS, features=FEATURES, candidates=torch.tensor([True, False, True]))
    assert ExpectedGradientLength().select(view, 2).indices.tolist() == [0, 2]


def test_refuses_settings_and_models():
    with pytest.raises(ConfigError, match="bias must be true or false, got 'no'"):
        ExpectedGradientLength(bias="no")
    with pytest.raises(CapabilityError, match="ExpectedGradientLength needs a model with predict_proba"):
        ActiveLearner(LinearSVC(), ExpectedGradientLength(), make_pool()[0])
