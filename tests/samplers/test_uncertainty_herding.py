import pytest
import torch

from tests.contracts import NearestMean, make_pool, make_view
from torchal import CapabilityError, ConfigError, PoolView
from torchal.functional import (
    calibrated_temperature,
    labeled_distance,
    max_herding,
    tempered_uncertainty,
    uncertainty_herding,
)
from torchal.pool.pool import Pool
from torchal.samplers import UncertaintyHerding


@pytest.mark.parametrize("uncertainty", ["margin", "entropy", "least_confidence"])
@pytest.mark.parametrize("normalize", [True, False])
def test_settings_are_passed_on_and_the_bandwidth_is_that_of_the_labels(uncertainty, normalize):
    view = make_view(make_pool()[0])
    bandwidth = labeled_distance(view.features, view.labeled, normalize=normalize)
    weights = tempered_uncertainty(view.log_probs, uncertainty, temperature=2.5)
    masks = {"labeled": view.labeled, "normalize": normalize}
    want = uncertainty_herding(view.features, 9, uncertainty=weights, bandwidth=bandwidth, **masks)
    sampler = UncertaintyHerding(uncertainty=uncertainty, temperature=2.5, normalize=normalize)
    got = sampler.select(view, 9)
    assert got.indices.equal(want.indices)
    assert got.scores.equal(want.scores)
    report = {"features": "embedding", "temperature": 2.5, "bandwidth": bandwidth}
    assert sampler.report() == report | {"value": want.value, "bound": want.bound}
    got = UncertaintyHerding(uncertainty=uncertainty, temperature=2.5, bandwidth=0.25, normalize=normalize)
    want = uncertainty_herding(view.features, 9, uncertainty=weights, bandwidth=0.25, **masks)
    assert got.select(view, 9).indices.equal(want.indices)


class Overconfident(NearestMean):
    """Sure of everything, and remembers what it was fitted on."""

    fits = []

    def __sklearn_clone__(self):
        return Overconfident(self.sharpness)

    def fit(self, X, y):
        self.fits.append((X, y))
        super().fit(X, y)

    def decision_function(self, X):
        return 30 * super().decision_function(X)


def test_the_temperature_calibrates_a_fit_on_seven_tenths_of_the_labels():
    inputs = torch.randn(240, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(240) % 3  # nothing to be sure of
    pool = Pool.unlabeled(inputs, n_classes=3).with_labels(torch.arange(60), targets[:60])
    view = make_view(pool, model=Overconfident())
    Overconfident.fits.clear()
    sampler = UncertaintyHerding()
    sampler.select(view, 5)
    [(learned, labels)] = Overconfident.fits
    assert len(labels) == 60 - 18
    assert labels.unique().tolist() == [0, 1, 2]
    held = (~(inputs[:60, None] == learned).all(2).any(1)).nonzero().squeeze(1)
    assert len(held) == 18
    fitted = Overconfident()
    fitted.fit(learned, labels)
    want = calibrated_temperature(fitted.predict_log_proba(inputs[held]), targets[held])
    assert sampler.report()["temperature"] == want > 5
    assert sampler.select(view, 5).indices.equal(sampler.select(view, 5).indices)


def test_a_label_of_each_class_stays_and_few_labels_are_not_split():
    pool, _, _ = make_pool(n_labeled=3)
    view = make_view(pool)
    sampler = UncertaintyHerding()
    sampler.select(view, 2)
    assert sampler.report()["temperature"] == 1


def test_without_labels_every_row_counts_alike_and_no_probabilities_are_read():
    pool, _, _ = make_pool(n_labeled=0)
    view = PoolView.from_tensors(features=pool.inputs)
    sampler = UncertaintyHerding()
    got = sampler.select(view, 4)
    assert got.indices.equal(max_herding(pool.inputs, 4).indices)
    assert sampler.report()["temperature"] == sampler.report()["bandwidth"] == 1


def test_without_a_model_the_given_probabilities_are_taken_as_they_are():
    view = make_view(make_pool()[0])
    given = PoolView.from_tensors(features=view.features, log_probs=view.log_probs, targets=view.targets)
    want = UncertaintyHerding(temperature=1.0).select(view, 7)
    assert UncertaintyHerding().select(given, 7).indices.equal(want.indices)


def test_refuses_settings_that_make_no_sense_and_models_without_probabilities():
    with pytest.raises(ConfigError, match="max_held must be a whole number of at least 0"):
        UncertaintyHerding(max_held=-1)
    with pytest.raises(ConfigError, match="uncertainty must be one of margin, entropy, least_confidence, got 'conf'"):
        UncertaintyHerding(uncertainty="conf")
    for name in ("temperature", "bandwidth"):
        with pytest.raises(ConfigError, match=f"{name} must be a finite number above 0, got 0"):
            UncertaintyHerding(**{name: 0})
    with pytest.raises(ConfigError, match="normalize must be true or false"):
        UncertaintyHerding(normalize=1)
    with pytest.raises(CapabilityError):
        UncertaintyHerding().check_model(object())
