"""One temperature for all logits."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from torch import nn

from torchal.errors import ConfigError, DataError, ShapeError
from torchal.models import MLP, TorchClassifier, TorchEnsemble
from torchal.models.networks.calibration import fit_temperature

X = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(200, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] + NOISE > 0).long()
MODEL = TorchClassifier(
    partial(MLP, hidden=(64,)),
    optimizer=partial(torch.optim.Adam, lr=0.03),
    calibrated=True,
    validation_fraction=0.3,
    epochs=20,
    precision="fp64",
    device="cpu",
)


def test_by_hand():
    # three of four right: probabilities of 3/4 are likeliest, so 2 / T = log 3
    logits = torch.tensor([[2.0, 0.0]]).expand(4, -1)
    temperature = fit_temperature(logits, torch.tensor([0, 0, 1, 0]))
    assert temperature == pytest.approx(2 / torch.tensor(3.0).log().item(), rel=1e-6)
    weighted = fit_temperature(logits[:2], torch.tensor([0, 1]), torch.tensor([3.0, 1.0]))
    assert weighted == pytest.approx(temperature, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 99), n_classes=st.sampled_from([2, 3, 7]), size=st.sampled_from([0.3, 1.0, 5.0]))
def test_is_the_least_loss_of_another_minimiser(seed, n_classes, size):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, n_classes, generator=generator, dtype=torch.float64)
    targets = (logits + 1.5 * torch.randn(50, n_classes, generator=generator)).argmax(1)

    def loss(log_temperature):
        return float(nn.functional.cross_entropy(size * logits * torch.exp(-torch.tensor(log_temperature)), targets))

    want = minimize_scalar(loss, bounds=(-3, 4.6), method="bounded", options={"xatol": 1e-8})
    found = fit_temperature(size * logits, targets)
    assert loss(torch.tensor(found).log().item()) <= want.fun + 1e-9
    assert fit_temperature((size * logits).half(), targets) == pytest.approx(found, rel=0.05)


def test_bounds_where_all_are_right_or_none():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(logits, torch.tensor([0, 1])) == pytest.approx(0.05)
    assert fit_temperature(logits, torch.tensor([1, 0])) == pytest.approx(100)
    assert 0.05 <= fit_temperature(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)) <= 100


def test_refuses():
    with pytest.raises(DataError, match="logits must be finite"):
        fit_temperature(torch.tensor([[torch.nan, 0.0]]), torch.tensor([0]))
    with pytest.raises(ShapeError, match=r"targets must be \(2,\), got \(1,\)"):
        fit_temperature(torch.zeros(2, 2), torch.tensor([0]))


class TestOfTheClassifier:
    def test_makes_probabilities_likelier_and_keeps_predictions(self):
        model, plain = clone(MODEL).fit(X, Y), clone(MODEL).set_params(calibrated=False).fit(X, Y)
        assert plain.temperature_ == 1
        assert model.temperature_ > 1.2  # labels are noisy, and the network learns them by heart
        assert model.predict(X).equal(plain.predict(X))
        torch.testing.assert_close(model.outputs(X).logits, plain.outputs(X).logits / model.temperature_)
        torch.testing.assert_close(model.transform(X), plain.transform(X))
        new = torch.randn(500, 5, generator=torch.Generator().manual_seed(2))
        labels = (new[:, 0] + torch.randn(500, generator=torch.Generator().manual_seed(3)) > 0).long()
        losses = [nn.functional.nll_loss(one.predict_log_proba(new), labels) for one in (model, plain)]
        assert losses[0] < losses[1]

    def test_is_of_the_rows_that_were_given(self):
        model = clone(MODEL).set_params(validation_fraction=None).fit(X[:150], Y[:150], validation=(X[150:], Y[150:]))
        raw = model.outputs(X[150:]).logits * model.temperature_
        assert model.temperature_ == pytest.approx(fit_temperature(raw, Y[150:]), rel=1e-6)

    def test_weights_of_classes_do_not_count(self):
        model = clone(MODEL).set_params(validation_fraction=None, class_weight={0: 5.0})
        model.fit(X[:150], Y[:150], validation=(X[150:], Y[150:]))
        raw = model.outputs(X[150:]).logits * model.temperature_
        assert model.temperature_ == pytest.approx(fit_temperature(raw, Y[150:]), rel=1e-6)

    def test_the_last_layer_and_draws_have_it_too(self):
        model = clone(MODEL).set_params(posterior="laplace", prior_precision=1e10).fit(X, Y)
        weight, bias = model.last_layer(X[:1])
        torch.testing.assert_close(model.transform(X) @ weight.T + bias, model.outputs(X).logits)
        torch.testing.assert_close(model.sample_log_probs(X, 1)[:, 0], model.predict_log_proba(X), rtol=1e-2, atol=1e-2)
        dropping = clone(MODEL).set_params(module=partial(MLP, dropout=1e-9)).fit(X, Y)
        torch.testing.assert_close(dropping.sample_log_probs(X, 2)[:, 1], dropping.predict_log_proba(X))

    def test_goes_through_a_file(self, tmp_path):
        model = clone(MODEL).fit(X, Y)
        model.save(tmp_path / "model.pt")
        loaded = clone(MODEL).load(tmp_path / "model.pt")
        assert loaded.temperature_ == model.temperature_
        assert loaded.predict_proba(X).equal(model.predict_proba(X))
        earlier = {name: value for name, value in model.state_dict().items() if name != "temperature"}
        assert clone(MODEL).load_state_dict(earlier).temperature_ == 1

    def test_members_of_an_ensemble_have_each_their_own(self):
        ensemble = TorchEnsemble(clone(MODEL).set_params(epochs=10), n_members=2).fit(X, Y)
        first, second = ensemble.estimators_
        assert first.temperature_ != second.temperature_

    def test_needs_a_validation_part(self):
        for fit in (lambda one: one.fit(X, Y), lambda one: one.fit_many(X.view(2, 100, 5), Y.view(2, 100))):
            with pytest.raises(ConfigError, match="calibrated needs a validation part"):
                fit(TorchClassifier(calibrated=True, epochs=1))


@pytest.mark.gpu
def test_on_cuda():
    want = clone(MODEL).set_params(epochs=2).fit(X, Y)
    found = clone(MODEL).set_params(epochs=2, device="cuda").fit(X.cuda(), Y.cuda())
    assert found.temperature_ == pytest.approx(want.temperature_, rel=1e-3)
    torch.testing.assert_close(found.predict_proba(X.cuda()).cpu(), want.predict_proba(X), rtol=1e-3, atol=1e-4)


def test_rows_that_earlier_fits_have_seen_are_not_held_back():
    model = clone(MODEL).set_params(warm_start=True)
    with pytest.raises(ConfigError, match="rows that were never trained on"):
        model.fit(X, Y)
