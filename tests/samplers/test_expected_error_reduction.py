import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as TheirLogisticRegression
from sklearn.svm import LinearSVC

from tests.contracts import NearestMean, make_pool, make_view
from tests.references import expected_error as reference
from torchal import BudgetError, CapabilityError, ConfigError, DataError, Pool, PoolView, functional
from torchal.models import LogisticRegression
from torchal.samplers import ExpectedErrorReduction


def test_binds_its_settings():
    view = make_view(make_pool()[0])
    rows = view.candidates.nonzero().squeeze(1)
    settings = {"loss": "zero_one", "l2": 0.3, "fit_intercept": False, "form": "kronecker", "n_steps": 3}
    want = functional.expected_error_reduction(
        view.log_probs, view.features, labeled=view.labeled, rows=rows, pool=rows, **settings
    )
    best = functional.top_n(want, 7)
    got = ExpectedErrorReduction(**settings).select(view, 7)
    assert got.indices.equal(rows[best.indices])
    assert got.scores.equal(best.scores)


def test_a_sample_is_scored_against_a_sample():
    view = make_view(make_pool(n_rows=600)[0])
    sampler = ExpectedErrorReduction(n_candidates=20, n_pool=30)
    picked = sampler.select(view, 20).indices
    assert sampler.select(view, 5).indices.equal(picked[:5])
    assert view.candidates[picked].all()
    other = sampler.select(view.fork(1), 20).indices
    assert not other.sort().values.equal(picked.sort().values)
    assert len(sampler.select(view, 45).indices.unique()) == 45  # more than n_candidates
    assert len(sampler.select(view, 594).indices.unique()) == 594
    everything = ExpectedErrorReduction(n_candidates=None, n_pool=None).select(view, 3)
    rows = view.candidates.nonzero().squeeze(1)
    scores = functional.expected_error_reduction(view.log_probs, view.features, labeled=view.labeled)
    assert everything.indices.equal(rows[functional.top_n(scores, 3).indices])


@pytest.mark.parametrize("loss", ["log", "zero_one"])
@pytest.mark.parametrize("model", [LogisticRegression, TheirLogisticRegression], ids=["together", "one by one"])
def test_exact_refits_are_those_of_a_plain_loop(model, loss):
    pool, targets, _ = make_pool(n_rows=18)
    bought = pool.labeled.nonzero().squeeze(1)
    pool = Pool.unlabeled(pool.inputs.double(), n_classes=3).with_labels(bought, targets[bought])
    view = make_view(pool, model=model(tol=1e-10, max_iter=1000))
    rows = view.candidates.nonzero().squeeze(1).tolist()
    labeled = view.labeled.nonzero().squeeze(1).tolist()
    x = pool.inputs.numpy()

    def refit(row, label):
        y = [*pool.targets[labeled].tolist(), label]
        return TheirLogisticRegression(tol=1e-10, max_iter=1000).fit(x[[*labeled, row]], y).predict_proba(x)

    want = reference.by_refits(view.log_probs.exp().numpy(), refit, rows, rows, loss=loss)
    got = ExpectedErrorReduction(refit="exact", loss=loss, refits_at_once=7).select(view, len(rows))
    order = np.argsort(-want, kind="stable")
    np.testing.assert_allclose(got.scores, want[order], atol=1e-6)
    assert got.indices[0] == rows[order[0]]


def test_exact_refits_of_classes_that_the_model_has_seen():
    pool, targets, _ = make_pool(n_labeled=0)
    two = (targets != 1).nonzero().squeeze(1)[:6]
    view = make_view(pool.with_labels(two, targets[two]))
    for refit in ("exact", "last_layer"):
        assert len(ExpectedErrorReduction(refit=refit).select(view, 9).indices.unique()) == 9


def test_the_last_layer_agrees_with_exact_refits_of_a_logistic_regression():
    view = make_view(make_pool(n_rows=40)[0], model=LogisticRegression(C=10.0))
    exact = ExpectedErrorReduction(refit="exact").select(view, 34)
    near = ExpectedErrorReduction(l2=0.1, n_steps=100).select(view, 34)
    by_row = [picked.scores[picked.indices.argsort()] for picked in (exact, near)]
    torch.testing.assert_close(by_row[1].double(), by_row[0].double(), atol=1e-3, rtol=0)


def test_refuses_models_without_what_it_reads():
    with pytest.raises(CapabilityError, match="ExpectedErrorReduction needs a model with predict_proba"):
        ExpectedErrorReduction().check_model(LinearSVC())

    class Single:
        fit = predict = predict_proba = None

    ExpectedErrorReduction().check_model(Single())
    with pytest.raises(CapabilityError, match="Single has no get_params to clone it; refit='last_layer' needs none"):
        ExpectedErrorReduction(refit="exact").check_model(Single())
    ExpectedErrorReduction(refit="exact").check_model(NearestMean())


def test_refuses_views_without_labels_or_a_model():
    log_probs = torch.rand(9, 2).log_softmax(1)
    view = PoolView.from_tensors(features=torch.rand(9, 2), log_probs=log_probs)
    with pytest.raises(DataError, match="no row is labeled"):
        ExpectedErrorReduction().select(view, 3)
    with pytest.raises(CapabilityError, match="refit needs a model"):
        ExpectedErrorReduction(refit="exact").select(view, 3)
    with pytest.raises(BudgetError, match="9 can be picked"):
        ExpectedErrorReduction().select(view, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"refit": "full"}, "refit must be one of last_layer, exact; got 'full'"),
        ({"loss": "hinge"}, "loss must be one of log, zero_one"),
        ({"form": "bound"}, "form must be one of auto, newton, kronecker"),
        ({"l2": -1.0}, "l2 must be a finite number above 0"),
        ({"fit_intercept": 1}, "fit_intercept must be true or false"),
        ({"n_steps": None}, "n_steps"),
        ({"n_candidates": 0}, "n_candidates"),
        ({"n_pool": 2.5}, "n_pool"),
        ({"refits_at_once": 0}, "refits_at_once"),
    ],
)
def test_refuses_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        ExpectedErrorReduction(**settings)
