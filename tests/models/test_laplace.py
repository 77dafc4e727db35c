"""The Gaussian at a last layer."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.references.laplace import exact_precision, factored_precision
from torchal.errors import CapabilityError, DataError
from torchal.models import laplace
from torchal.models.laplace import LaplaceFit, LastLayerGaussian


def problem(n=40, n_features=5, n_classes=3, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    draw = [
        torch.randn(shape, generator=generator, dtype=dtype) for shape in ((n, n_features), (n_features, n_classes))
    ]
    return draw[0], draw[1].T.contiguous(), torch.randn(n_classes, generator=generator, dtype=dtype)


def fitted(features, weight, bias, weights=None, **settings):
    fit = LaplaceFit(weight, bias, **{"prior": 0.7, **settings})
    fit.add(features, weights)
    return fit.gaussian()


def test_by_hand():
    # one row at x = 2 with p = 1/2: precision 1/4 * 2^2 + 1
    gaussian = fitted(torch.tensor([[2.0]]), torch.zeros(1, 1), None, prior=1.0)
    torch.testing.assert_close(gaussian.covariance(), torch.tensor([[0.5]], dtype=torch.float64))
    # of three classes, all equally likely: Lambda = 1/3 - 1/9 on the diagonal and -1/9 elsewhere
    gaussian = fitted(torch.tensor([[1.0]]), torch.zeros(3, 1), None, prior=1.0)
    precision = torch.eye(3, dtype=torch.float64) * 4 / 3 - 1 / 9
    torch.testing.assert_close(gaussian.covariance().inverse(), precision)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 12),
    n_features=st.integers(1, 4),
    n_outputs=st.sampled_from([1, 2, 3, 5]),
    has_bias=st.booleans(),
    exact=st.booleans(),
    flat=st.booleans(),
    weighted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_agrees_with_the_reference(n, n_features, n_outputs, has_bias, exact, flat, weighted, seed):
    features, weight, bias = problem(n, n_features, n_outputs, seed=seed)
    bias = bias if has_bias else None
    weights = torch.rand(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    gaussian = fitted(
        features, weight, bias, weights if weighted else None, flat_bias=flat, most_exact=100 if exact else 0
    )
    prior = torch.full((n_features + has_bias,), 0.7, dtype=torch.float64)
    if has_bias and flat:
        prior[-1] *= 1e-6
    reference = exact_precision if exact else factored_precision
    weights = weights if weighted else torch.ones_like(weights)
    want = reference(features, weight, bias, weights, prior)
    torch.testing.assert_close(want @ gaussian.covariance(), torch.eye(len(want), dtype=want.dtype), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_is_the_hessian_that_autograd_finds(n_classes):
    features, weight, bias = problem(n_classes=n_classes)
    targets = torch.arange(40) % n_classes

    def loss(theta):
        logits = features @ theta[:, :-1].T + theta[:, -1]
        return nn.functional.cross_entropy(logits, targets, reduction="sum") + 0.35 * theta.square().sum()

    theta = torch.cat([weight, bias[:, None]], 1)
    hessian = torch.autograd.functional.hessian(loss, theta).reshape(theta.numel(), -1)
    torch.testing.assert_close(fitted(features, weight, bias).covariance(), hessian.inverse())


def test_where_factors_are_exact_both_are_one():
    # equal rows: the mean of the products is the product of the means
    features, weight, bias = problem()
    features = features[:1].expand(30, -1)
    exact, factored = (fitted(features, weight, bias, most_exact=most) for most in (100, 0))
    torch.testing.assert_close(exact.covariance(), factored.covariance())


@pytest.mark.parametrize("most_exact", [100, 0])
class TestDraws:
    def test_have_the_mean_and_covariance(self, most_exact):
        features, weight, bias = problem(n_features=2)
        gaussian = fitted(features, weight, bias, most_exact=most_exact)
        drawn = gaussian.draw(4000, 0).flatten(1)
        torch.testing.assert_close(drawn.T.cov(), gaussian.covariance(), rtol=0, atol=0.08)
        torch.testing.assert_close(drawn.mean(0).view(3, 3), gaussian.mean, rtol=0, atol=0.06)

    def test_the_first_of_many_are_the_few(self, most_exact):
        gaussian = fitted(*problem(), most_exact=most_exact)
        torch.testing.assert_close(gaussian.draw(20, 7)[:5], gaussian.draw(5, 7), rtol=1e-12, atol=1e-12)
        assert not gaussian.draw(1, 7).allclose(gaussian.draw(1, 8))

    def test_chunks_and_several_adds_change_nothing(self, most_exact, monkeypatch):
        features, weight, bias = problem()
        weights = torch.arange(1.0, 41)
        want = fitted(features, weight, bias, weights, most_exact=most_exact)
        monkeypatch.setattr(laplace, "values_per_chunk", lambda device: 50)
        fit = LaplaceFit(weight, bias, prior=0.7, most_exact=most_exact)
        fit.add(features[:17], weights[:17])
        fit.add(features[17:], weights[17:])
        torch.testing.assert_close(fit.gaussian().covariance(), want.covariance())

    def test_a_weight_is_as_many_rows(self, most_exact):
        features, weight, bias = problem()
        weights = torch.arange(40) % 3
        want = fitted(features.repeat_interleave(weights, 0), weight, bias, most_exact=most_exact)
        found = fitted(features, weight, bias, weights.double(), most_exact=most_exact)
        torch.testing.assert_close(found.covariance(), want.covariance())

    def test_goes_through_a_file(self, most_exact):
        gaussian = fitted(*problem(), most_exact=most_exact)
        file = io.BytesIO()
        torch.save(gaussian.state_dict(), file)
        file.seek(0)
        loaded = LastLayerGaussian.from_state(torch.load(file, weights_only=True), torch.device("cpu"))
        assert loaded.draw(3, 1).equal(gaussian.draw(3, 1))

    @pytest.mark.parametrize("size", [1e-30, 1e30])
    def test_sizes_of_features(self, most_exact, size):
        features, weight, bias = problem(dtype=torch.float32)
        gaussian = fitted(features * size, weight / size, bias, most_exact=most_exact)
        logits = gaussian.logits((features * size).double(), gaussian.draw(5, 0))
        assert logits.isfinite().all()

    def test_sure_rows_and_half_precision(self, most_exact):
        features, weight, bias = problem()
        sure = fitted(features, 1e4 * weight, bias, most_exact=most_exact)
        torch.testing.assert_close(sure.covariance(), torch.eye(18, dtype=torch.float64) / 0.7, rtol=1e-3, atol=1e-3)
        half = fitted(features.half(), weight.half(), bias.half(), most_exact=most_exact)
        want = fitted(features.half().double(), weight.half().double(), bias.half().double(), most_exact=most_exact)
        assert half.draw(2, 0).equal(want.draw(2, 0))


def test_a_flat_prior_of_the_bias_moves_no_probability():
    # the direction that raises all classes alike has nearly no precision, and is seen by no softmax
    features, weight, bias = problem()
    gaussian = fitted(features, weight, bias, flat_bias=True)
    drawn = gaussian.draw(50, 0)
    assert drawn[..., -1].std() > 100
    assert gaussian.logits(features, drawn).log_softmax(2).std(1).max() < 10


def test_bounds_on_the_layer():
    assert len(LaplaceFit(torch.zeros(2, 1023), torch.zeros(2), prior=1.0).gaussian().factors) == 1
    with pytest.raises(CapabilityError, match="a last layer of 8193 features is too large"):
        LaplaceFit(torch.zeros(2, 8193), None, prior=1.0)
    fit = LaplaceFit(torch.zeros(2, 1024), torch.zeros(2), prior=1.0)
    fit.add(torch.ones(1, 1024))
    assert len(fit.gaussian().factors) == 4


@pytest.mark.parametrize(
    "damage", [{"mean": 3}, {"factors": []}, {"factors": [torch.eye(3)]}, {"mean": torch.zeros(2)}, {"has_bias": None}]
)
def test_a_damaged_state(damage):
    state = fitted(*problem()).state_dict()
    if damage == {"has_bias": None}:
        damage, state = {}, {name: value for name, value in state.items() if name != "has_bias"}
    with pytest.raises(DataError, match="the saved posterior is damaged"):
        LastLayerGaussian.from_state(state | damage, torch.device("cpu"))


@pytest.mark.gpu
@pytest.mark.parametrize("most_exact", [100, 0])
def test_cuda_draws_what_the_cpu_draws(most_exact):
    features, weight, bias = problem()
    want = fitted(features, weight, bias, most_exact=most_exact)
    found = fitted(features.cuda(), weight.cuda(), bias.cuda(), most_exact=most_exact)
    torch.testing.assert_close(found.covariance().cpu(), want.covariance())
    torch.testing.assert_close(found.draw(3, 0).cpu(), want.draw(3, 0))
    moved = LastLayerGaussian.from_state(want.state_dict(), torch.device("cuda"))
    torch.testing.assert_close(moved.draw(3, 0).cpu(), want.draw(3, 0))
