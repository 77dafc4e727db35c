import math

import pytest
import torch
from sklearn.svm import LinearSVC

from tests.contracts import make_pool, make_view
from torchal import ActiveLearner, CapabilityError, ConfigError, DataError, PoolView, functional
from torchal.samplers import Contrastive

LOG_PROBS = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5], [0.9, 0.1]]).log()
FEATURES = torch.tensor([[0.0], [9.0], [8.0], [7.0]])
TARGETS = torch.tensor([0, 1, -1, -1])


def test_the_row_that_is_unlike_the_labeled_one_beside_it():
    view = PoolView.from_tensors(log_probs=LOG_PROBS, features=FEATURES, targets=TARGETS)
    picked = Contrastive(k=1).select(view, 2)
    assert picked.indices.tolist() == [2, 3]
    want = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert picked.scores.tolist() == pytest.approx([want, 0.0], abs=1e-5)


def test_settings_are_passed_on(monkeypatch):
    calls = []
    monkeypatch.setattr(functional, "contrastive", lambda p, x, **rest: calls.append((p, x, rest)))
    view = make_view(make_pool()[0])
    Contrastive(k=3, metric="manhattan", eps=1e-3).score(view)
    p, x, rest = calls[0]
    assert p.equal(view.log_probs)
    assert x.equal(view.features)
    assert rest["labeled"].equal(view.labeled)
    assert (rest["k"], rest["metric"], rest["eps"]) == (3, "manhattan", 1e-3)


def test_all_candidates_and_no_other_row():
    pool = make_pool()[0]
    skipped = pool.candidates.nonzero().squeeze(1)[::2]
    view = make_view(pool.without(skipped))
    picked = Contrastive().select(view, int(view.candidates.sum())).indices
    assert picked.sort().values.equal(view.candidates.nonzero().squeeze(1))


def test_refuses_settings_models_and_a_pool_without_labels():
    with pytest.raises(ConfigError, match="k must be"):
        Contrastive(k=0)
    with pytest.raises(ConfigError, match="eps must be"):
        Contrastive(eps=0)
    with pytest.raises(ConfigError, match="metric must be one of"):
        Contrastive(metric="dot")
    with pytest.raises(CapabilityError, match="Contrastive needs a model with predict_proba"):
        ActiveLearner(LinearSVC(), Contrastive(), make_pool()[0])
    with pytest.raises(DataError, match="none of 4 rows is labeled"):
        Contrastive().select(PoolView.from_tensors(log_probs=LOG_PROBS, features=FEATURES), 1)
