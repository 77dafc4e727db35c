"""Draws of the weights of a logistic regression."""

import numpy as np
import pytest
import scipy.sparse
import torch
from sklearn.base import clone
from torch import nn

from tests.contracts import check_name, make_pool, scikit_learn_checks
from torchal.errors import CapabilityError, ConfigError
from torchal.models import LogisticRegression
from torchal.protocols import HasPosterior, provides

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0)
LAPLACE = LogisticRegression(posterior="laplace", device="cpu")


@pytest.mark.parametrize(("estimator", "check"), scikit_learn_checks(LAPLACE), ids=check_name)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_precision_is_the_hessian_of_what_is_minimised(n_classes, fit_intercept):
    y = Y.clamp(max=n_classes - 1)
    weights = torch.arange(60).double() % 3
    model = clone(LAPLACE).set_params(C=0.3, fit_intercept=fit_intercept).fit(X, y, weights)
    layer = model.module_

    def objective(theta):
        logits = X @ theta[:, :5].T + (theta[:, 5] if fit_intercept else 0)
        if n_classes == 2:
            losses = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y.double(), reduction="none")
        else:
            losses = nn.functional.cross_entropy(logits, y, reduction="none")
        return 0.3 * weights @ losses + 0.5 * theta[:, :5].square().sum()

    theta = torch.cat([layer.weight, layer.bias[:, None]], 1) if fit_intercept else layer.weight
    hessian = torch.autograd.functional.hessian(objective, theta.detach()).reshape(theta.numel(), -1) / 0.3
    found = model.laplace_.covariance().inverse()
    torch.testing.assert_close(found, hessian, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_draws_are_logistic_regressions(n_classes):
    model = clone(LAPLACE).fit(X, Y.clamp(max=n_classes - 1))
    drawn = model.sample_log_probs(X, 20)
    assert drawn.shape == (60, 20, n_classes)
    torch.testing.assert_close(drawn.exp().sum(2), torch.ones(60, 20, dtype=torch.float64))
    weights = model.laplace_.draw(20, model.seed_)
    logits = torch.einsum("nd,kcd->nkc", X, weights[..., :-1]) + weights[..., -1]
    if n_classes == 2:
        logits = torch.cat([torch.zeros_like(logits), logits], 2)
    torch.testing.assert_close(drawn, logits.log_softmax(2))


def test_a_draw_is_one_function_and_the_same_every_time(monkeypatch):
    model = clone(LAPLACE).fit(X, Y)
    drawn = model.sample_log_probs(X, 20)
    torch.testing.assert_close(model.sample_log_probs(X, 5), drawn[:, :5])
    torch.testing.assert_close(model.sample_log_probs(X[[7]], 20), drawn[[7]])
    monkeypatch.setattr("torchal.models.rows._CHUNK_ROWS", (1, 7))
    monkeypatch.setattr("torchal.models.classical.linear.values_per_chunk", lambda device: 20)
    torch.testing.assert_close(model.sample_log_probs(X, 20), drawn)
    torch.testing.assert_close(clone(LAPLACE).fit(X, Y).sample_log_probs(X, 20), drawn)
    assert isinstance(model.sample_log_probs(X.numpy(), 2), np.ndarray)
    other = clone(LAPLACE).set_params(random_state=1).fit(X, Y)
    assert not other.sample_log_probs(X, 20).allclose(drawn)


@pytest.mark.usefixtures("stay_sparse")
def test_sparse_rows():
    sparse = scipy.sparse.csr_matrix(np.where(X.numpy() > 0, X.numpy(), 0))
    want = clone(LAPLACE).fit(sparse.toarray(), Y.numpy()).sample_log_probs(sparse.toarray(), 4)
    found = clone(LAPLACE).fit(sparse, Y.numpy()).sample_log_probs(sparse, 4)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_many_features_are_factored_and_too_many_refused():
    wide = torch.randn(30, 800, generator=torch.Generator().manual_seed(0))
    model = clone(LAPLACE).fit(wide, Y[:30])
    assert len(model.laplace_.factors) == 4
    assert model.sample_log_probs(wide, 3).shape == (30, 3, 3)
    with pytest.raises(CapabilityError, match="8200 features is too large"):
        clone(LAPLACE).fit(torch.randn(6, 8200, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 2)


def test_many_fits_at_once_and_a_search():
    x, y = X.view(3, 20, 5), Y.view(3, 20)
    model = clone(LAPLACE).set_params(C=[0.1, 1.0])
    for many, rows, labels in zip(model.fit_many(x, y), x, y, strict=True):
        alone = clone(model).fit(rows, labels)
        assert many.C_ == alone.C_
        torch.testing.assert_close(many.sample_log_probs(X, 3), alone.sample_log_probs(X, 3), rtol=1e-5, atol=1e-6)


def test_has_a_posterior_only_where_it_is_asked_for():
    assert provides(LAPLACE, HasPosterior)
    assert not provides(LogisticRegression(), HasPosterior)
    assert not hasattr(LogisticRegression().fit(X, Y), "laplace_")
    with pytest.raises(ConfigError, match="posterior must be 'laplace' or None, got 'dropout'"):
        LogisticRegression(posterior="dropout").fit(X, Y)
    with pytest.raises(ConfigError, match="k must be"):
        clone(LAPLACE).fit(X, Y).sample_log_probs(X, 0)


def test_in_a_pool():
    pool = make_pool()[0]
    model = clone(LAPLACE).fit(*pool.training_data())
    view = pool.view(model, generator=torch.Generator())
    assert view.posterior_log_probs(4).shape == (60, 4, 3)


@pytest.mark.gpu
def test_cuda_draws_the_functions_of_the_cpu():
    want = clone(LAPLACE).fit(X, Y).sample_log_probs(X, 5)
    found = clone(LAPLACE).set_params(device="cuda").fit(X.cuda(), Y.cuda()).sample_log_probs(X.cuda(), 5)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), want, rtol=1e-5, atol=1e-6)
