"""Draws from Laplace's approximation at the last layer of a network."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.utils.data import TensorDataset

from tests.references.laplace import exact_precision
from torchal import ActiveLearner, Pool
from torchal.errors import CapabilityError, ConfigError, DataError, DivergenceError
from torchal.models import MLP, AllConv, SmallCNN, TorchClassifier, TorchEnsemble
from torchal.pool import interop
from torchal.samplers import BALD

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0)
IMAGES = torch.rand(30, 1, 12, 12, generator=torch.Generator().manual_seed(0))
LAPLACE = TorchClassifier(partial(MLP, hidden=(16,)), posterior="laplace", epochs=5, device="cpu")


def fitted(model=LAPLACE, **settings):
    return clone(model).set_params(**settings).fit(X, Y)


def test_the_gaussian_is_that_of_the_rows_it_was_fitted_on():
    model = fitted(precision="fp64", prior_precision=0.3)
    features, layer = model.transform(X), model.module_[-1]
    prior = torch.full((17,), 0.3, dtype=torch.float64)
    ones = torch.ones(60, dtype=torch.float64)
    precision = exact_precision(features, layer.weight.detach(), layer.bias.detach(), ones, prior)
    assert model.posterior_ == "laplace"
    torch.testing.assert_close(model.laplace_.covariance(), precision.inverse())


def test_draws_are_the_network_with_another_last_layer():
    model = fitted(precision="fp64")
    drawn = model.sample_log_probs(X, 3)
    assert drawn.shape == (60, 3, 3)
    for i, weights in enumerate(model.laplace_.draw(3, model.seed_)):
        logits = model.transform(X) @ weights[:, :-1].T + weights[:, -1]
        torch.testing.assert_close(drawn[:, i], logits.log_softmax(1))
    assert isinstance(model.sample_log_probs(X.numpy(), 2), np.ndarray)


def test_the_more_rows_the_less_the_draws_differ():
    untrained = clone(LAPLACE).set_params(optimizer=partial(torch.optim.SGD, lr=1e-30), epochs=1)
    few, many = clone(untrained).fit(X[:10], Y[:10]), clone(untrained).fit(X.repeat(10, 1), Y.repeat(10))
    spread = [model.sample_log_probs(X, 50).exp().std(1).mean().item() for model in (few, many)]
    assert spread[1] < spread[0] / 2
    tight = fitted(prior_precision=1e8)
    torch.testing.assert_close(tight.sample_log_probs(X, 1)[:, 0], tight.predict_log_proba(X), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("width", "n_factors"), [(16, 1), (700, 4)], ids=["exact", "factored"])
def test_a_draw_is_one_function_and_the_same_every_time(width, n_factors, monkeypatch):
    model = fitted(module=partial(MLP, hidden=(width,)), epochs=1)
    assert len(model.laplace_.factors) == n_factors
    drawn = model.sample_log_probs(X, 20)
    assert model.sample_log_probs(X, 20).equal(drawn)
    torch.testing.assert_close(model.sample_log_probs(X, 5), drawn[:, :5], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.sample_log_probs(X[[7]], 20), drawn[[7]], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.sample_log_probs(X.flip(0), 20), drawn.flip(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(model.sample_log_probs(TensorDataset(X), 20), drawn, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr("torchal.models.rows._CHUNK_ROWS", (1, 7))
    torch.testing.assert_close(model.sample_log_probs(X, 20), drawn, rtol=1e-3, atol=1e-4)
    again = clone(model).fit(X, Y)  # in chunks too
    torch.testing.assert_close(again.sample_log_probs(X, 20), drawn, rtol=1e-3, atol=1e-4)


class TestAuto:
    def test_is_dropout_where_something_is_dropped(self):
        dropping = partial(MLP, hidden=(16,), dropout=0.5)
        model = fitted(module=dropping, posterior="auto")
        assert model.posterior_ == "dropout"
        assert model.laplace_ is None
        assert model.sample_log_probs(X, 3).equal(fitted(module=dropping, posterior="dropout").sample_log_probs(X, 3))

    def test_is_laplace_elsewhere(self):
        model = fitted(posterior="auto")
        assert model.posterior_ == "laplace"
        assert model.sample_log_probs(X, 3).equal(fitted().sample_log_probs(X, 3))

    def test_is_laplace_where_what_is_dropped_cannot_be_drawn(self):
        class Recurrent(nn.Module):
            def __init__(self, n_features, n_classes):
                super().__init__()
                self.body = nn.LSTM(n_features, 8, num_layers=2, dropout=0.2, batch_first=True)
                self.head = nn.Linear(8, n_classes)

            def forward(self, x):
                return self.head(self.body(x[:, None])[0][:, 0])

        model = fitted(module=Recurrent, posterior="auto")
        assert model.posterior_ == "laplace"
        assert model.sample_log_probs(X, 2).shape == (60, 2, 3)

    def test_costs_nothing_unasked(self):
        model = fitted(posterior="dropout")
        assert model.laplace_ is None
        with pytest.raises(CapabilityError, match=r"no dropout to draw with.*posterior='laplace'"):
            model.sample_log_probs(X, 2)

    def test_none_is_left_of_a_fit_that_did_not_end(self):
        model = clone(LAPLACE).set_params(
            module=partial(MLP, dropout=0.5), optimizer=partial(torch.optim.SGD, lr=1e30), epochs=3
        )
        with pytest.raises(DivergenceError):
            model.fit(X, Y)
        with pytest.raises(CapabilityError, match="did not come to its end, so that there is no Gaussian"):
            model.sample_log_probs(X, 2)

    @pytest.mark.parametrize("posterior", ["laplace", "auto"])
    def test_a_network_that_does_not_end_in_a_linear_layer_is_refused_before_its_fit(self, posterior):
        class Bounded(MLP):
            def forward(self, x):
                return super().forward(x).tanh()

        model = clone(LAPLACE).set_params(module=Bounded, posterior=posterior)
        with pytest.raises(CapabilityError, match="logits of Bounded are not linear"):
            ActiveLearner(model, BALD(), Pool.unlabeled(X, n_classes=3))
        with pytest.raises(CapabilityError, match="8200 features is too large"):
            clone(LAPLACE).set_params(module=partial(MLP, hidden=(8200,)), posterior=posterior).check_draws(X, 3)
        clone(LAPLACE).check_draws(X, 3)


@pytest.mark.parametrize("labels", [Y > 0, Y])
@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16-mixed"])
def test_images_classes_and_precisions(precision, labels):
    y = labels[:30].long()
    model = TorchClassifier(
        SmallCNN, posterior="laplace", precision=precision, epochs=1, device="cpu", embedding="hidden"
    )
    drawn = model.fit(IMAGES, y).sample_log_probs(IMAGES, 4)
    assert drawn.shape == (30, 4, len(y.unique()))
    assert drawn.dtype == (torch.float64 if precision == "fp64" else torch.float32)
    torch.testing.assert_close(drawn.exp().sum(2), torch.ones_like(drawn[..., 0]))


def test_a_head_without_bias():
    class Headed(MLP):
        def __init__(self, n_features, n_classes):
            super().__init__(n_features, n_classes)
            self[-1] = nn.Linear(128, n_classes, bias=False)

    model = fitted(module=Headed)
    assert model.laplace_.mean.shape == (3, 128)
    assert model.sample_log_probs(X, 2).shape == (60, 2, 3)


def test_weights_of_rows_and_classes_count_as_in_training():
    weights = torch.arange(60) % 4
    untrained = clone(LAPLACE).set_params(optimizer=partial(torch.optim.SGD, lr=1e-30))
    plain = untrained.fit(X, Y).sample_log_probs(X, 2)
    weighted = untrained.fit(X, Y, weights).sample_log_probs(X, 2)
    assert not weighted.allclose(plain)
    torch.testing.assert_close(untrained.fit(X, Y, 5 * weights).sample_log_probs(X, 2), weighted)  # scaled to mean 1
    assert not untrained.set_params(class_weight={0: 100.0}).fit(X, Y).sample_log_probs(X, 2).allclose(plain)


class TestState:
    def test_goes_through_a_file(self, tmp_path):
        model = fitted()
        model.save(tmp_path / "model.pt")
        loaded = clone(LAPLACE).load(tmp_path / "model.pt")
        assert loaded.posterior_ == "laplace"
        assert loaded.sample_log_probs(X, 3).equal(model.sample_log_probs(X, 3))

    def test_of_before_there_were_posteriors(self):
        model = fitted(posterior="dropout", module=partial(MLP, dropout=0.5))
        state = {name: value for name, value in model.state_dict().items() if name != "laplace"}
        assert clone(model).load_state_dict(state).sample_log_probs(X, 3).equal(model.sample_log_probs(X, 3))

    def test_of_another_setting(self):
        state = fitted(posterior="dropout").state_dict()
        with pytest.raises(DataError, match="saved without a Gaussian, this classifier has posterior='laplace'"):
            clone(LAPLACE).load_state_dict(state)
        with pytest.raises(DataError, match="saved with a Gaussian, this classifier has posterior='dropout'"):
            clone(LAPLACE).set_params(posterior="dropout").load_state_dict(fitted().state_dict())

    def test_a_warm_start_has_the_gaussian_of_its_own_rows(self):
        model = clone(LAPLACE).set_params(warm_start=True).fit(X, Y)
        first = model.laplace_.covariance()
        model.fit(X[:30], Y[:30])
        assert not model.laplace_.covariance().allclose(first)

    def test_a_fit_that_diverges_has_none(self):
        model = clone(LAPLACE).set_params(optimizer=partial(torch.optim.SGD, lr=1e30))
        with pytest.raises(DivergenceError):
            model.fit(X, Y)
        assert model.posterior_ == "dropout"


def test_many_fits_at_once_have_each_their_own():
    x, y = X.view(3, 20, 5), Y.view(3, 20)
    model = clone(LAPLACE).set_params(precision="fp64")
    for many, rows, labels in zip(model.fit_many(x, y), x, y, strict=True):
        alone = clone(model).fit(rows, labels)
        torch.testing.assert_close(many.sample_log_probs(X, 3), alone.sample_log_probs(X, 3), rtol=1e-5, atol=1e-7)


def test_held_out_rows_are_no_training_rows():
    model = fitted(validation_fraction=0.5, precision="fp64")
    total = fitted(precision="fp64").laplace_.covariance().trace()
    assert model.laplace_.covariance().trace() > total


def test_an_ensemble_has_no_need_of_it():
    ensemble = TorchEnsemble(LAPLACE, n_members=2).fit(X, Y)
    assert all(member.laplace_ is None for member in ensemble.estimators_)


@pytest.mark.parametrize("posterior", ["laplace", "auto"])
def test_networks_without_a_linear_head(posterior):
    class Squares(MLP):
        def forward(self, x):
            return super().forward(x).square()

    with pytest.raises(CapabilityError, match="not linear in its embedding"):
        fitted(module=Squares, posterior=posterior)
    no_dropout = TorchClassifier(NothingDropped, posterior=posterior, epochs=1)
    with pytest.raises(CapabilityError, match=r"an nn\.Linear of"):
        no_dropout.fit(IMAGES, Y[:30])


class NothingDropped(AllConv):
    def __init__(self, input_shape, n_classes):
        super().__init__(input_shape, n_classes)
        for layer in self.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"posterior": "swag"}, "posterior must be one of dropout, laplace, auto; got 'swag'"),
        ({"prior_precision": 0.0}, "prior_precision must be a finite number above 0, got 0.0"),
        ({"prior_precision": float("inf")}, "prior_precision"),
        ({"prior_precision": "1"}, "prior_precision"),
    ],
)
def test_impossible_settings(settings, match):
    with pytest.raises(ConfigError, match=match):
        fitted(**settings)


def test_through_a_view():
    pool = Pool.unlabeled(X, n_classes=3).with_labels(torch.arange(20), Y[:20])
    model = clone(LAPLACE)
    interop.fit(model, *pool.training_data())
    view = pool.view(model, generator=torch.Generator())
    drawn = view.posterior_log_probs(5)
    few = view.posterior_log_probs_of(torch.tensor([3, 50]), 5)
    torch.testing.assert_close(few, drawn[[3, 50]], rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("hidden", [16, 800])
def test_cuda_draws_the_functions_of_the_cpu(hidden):
    model = clone(LAPLACE).set_params(module=partial(MLP, hidden=(hidden,)), precision="fp64", epochs=1)
    here = model.fit(X, Y)
    there = clone(model).set_params(device="cuda").load_state_dict(here.state_dict())
    found = there.sample_log_probs(X.cuda(), 5)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), here.sample_log_probs(X, 5), rtol=1e-6, atol=1e-8)
    fitted_there = clone(model).set_params(device="cuda").fit(X.cuda(), Y.cuda())
    torch.testing.assert_close(
        fitted_there.sample_log_probs(X.cuda(), 5).cpu(), here.sample_log_probs(X, 5), rtol=1e-3, atol=1e-4
    )
