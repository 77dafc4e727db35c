from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch.utils.data import TensorDataset

from tests.contracts import check_name, scikit_learn_checks
from tests.models.networks.test_torch_classifier import FAST_ADAM, FULL_BATCH, SmallMLP
from torchal import ActiveLearner, Pool
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.models import MLP, TorchClassifier, TorchEnsemble
from torchal.samplers import KCenterGreedy, Margin

X = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long() + (X[:, 1] > 0)
ONE = TorchClassifier(epochs=3, device="cpu")

EXACT = TorchEnsemble(
    TorchClassifier(SmallMLP, precision="fp64", optimizer=FAST_ADAM, batch_size=FULL_BATCH), n_members=2
)


@pytest.mark.parametrize(("estimator", "check"), scikit_learn_checks(EXACT), ids=check_name)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def test_probabilities_are_the_members_mean():
    model = TorchEnsemble(ONE, n_members=3).fit(X, Y)
    mean = torch.stack([member.predict_proba(X) for member in model.estimators_]).mean(0)
    torch.testing.assert_close(model.predict_proba(X), mean)
    torch.testing.assert_close(model.decision_function(X), mean.log())
    assert model.predict(X).equal(mean.argmax(1))


def test_draws_are_the_members():
    model = TorchEnsemble(ONE, n_members=3).fit(X, Y)
    draws = model.sample_log_probs(X, 2)
    assert draws.shape == (60, 2, 3)
    for i in range(2):
        torch.testing.assert_close(draws[:, i], model.estimators_[i].predict_log_proba(X))
    with pytest.raises(ConfigError, match="asked for 4 draws, the ensemble has 3 members"):
        model.sample_log_probs(X, 4)


def test_embeddings_side_by_side_in_one_pass():
    model = TorchEnsemble(ONE, n_members=3).fit(X, Y)
    features, logits = model.outputs(X)
    assert features.shape == (60, 3 * 128)
    torch.testing.assert_close(features, torch.cat([member.transform(X) for member in model.estimators_], 1))
    torch.testing.assert_close(logits, model.decision_function(X))
    assert model.transform(X).equal(features)
    assert model.outputs(X, most_features=60 * 3 * 128 - 1).features is None


def test_the_same_seed_the_same_ensemble():
    first = TorchEnsemble(ONE, n_members=2, random_state=3).fit(X, Y)
    assert clone(first).fit(X, Y).predict_proba(X).equal(first.predict_proba(X))
    other = clone(first).set_params(random_state=4).fit(X, Y)
    assert not other.predict_proba(X).equal(first.predict_proba(X))
    more = clone(first).set_params(n_members=3).fit(X, Y)
    torch.testing.assert_close(more.estimators_[1].predict_proba(X), first.estimators_[1].predict_proba(X))


def test_other_sources_and_settings_of_members():
    expected = TorchEnsemble(ONE, n_members=2).fit(X, Y).predict_proba(X)
    streamed = TorchEnsemble(ONE, n_members=2).fit(TensorDataset(X), Y)
    torch.testing.assert_close(streamed.predict_proba(TensorDataset(X)), expected, rtol=1e-4, atol=1e-6)
    stopping = TorchEnsemble(clone(ONE).set_params(validation_fraction=0.2, patience=1), n_members=2).fit(X, Y)
    assert stopping.estimators_[0].validation_loss_curve_ is not None
    assert TorchEnsemble().get_params()["estimator"] is None
    assert TorchEnsemble(ONE).set_params(estimator__epochs=7).estimator.epochs == 7
    ONE.set_params(epochs=3)


def test_round_trip_through_a_file(tmp_path):
    model = TorchEnsemble(ONE, n_members=2).fit(X, Y)
    model.save(tmp_path / "model.pt")
    loaded = TorchEnsemble(ONE, n_members=2).load(tmp_path / "model.pt")
    assert loaded.predict_proba(X).equal(model.predict_proba(X))
    with pytest.raises(DataError, match="2 members were saved, this ensemble has n_members=3"):
        TorchEnsemble(ONE, n_members=3).load(tmp_path / "model.pt")


def test_names_of_columns_go_through_a_file(tmp_path):
    import pandas as pd

    frame = pd.DataFrame(X.numpy(), columns=list("abcde"))
    model = TorchEnsemble(ONE, n_members=2).fit(frame, Y.numpy())
    model.save(tmp_path / "model.pt")
    loaded = TorchEnsemble(ONE, n_members=2).load(tmp_path / "model.pt")
    np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))


@pytest.mark.parametrize("sampler", [Margin(), KCenterGreedy()])
def test_selects(sampler):
    learner = ActiveLearner(TorchEnsemble(ONE, n_members=2), sampler, Pool.unlabeled(X, n_classes=3))
    learner.tell(torch.arange(9), Y[:9])
    assert len(learner.ask(4)) == 4


@pytest.mark.parametrize(
    ("ensemble", "match"),
    [(TorchEnsemble(ONE, n_members=0), "n_members"), (TorchEnsemble(MLP), "made of a TorchClassifier")],
)
def test_impossible_settings(ensemble, match):
    with pytest.raises(ConfigError, match=match):
        ensemble.fit(X, Y)


def test_answers_arrays_with_arrays():
    model = TorchEnsemble(ONE, n_members=2).fit(X.numpy(), Y.numpy())
    for answer in (model.sample_log_probs(X.numpy(), 2), model.transform(X.numpy()), *model.outputs(X.numpy())):
        assert isinstance(answer, np.ndarray)


@pytest.mark.gpu
def test_cuda_gives_the_answers_of_the_cpu(tmp_path):
    make = TorchClassifier(partial(MLP, hidden=(16,)), precision="fp64", epochs=3)
    want = TorchEnsemble(clone(make).set_params(device="cpu"), n_members=3).fit(X.double(), Y)
    model = TorchEnsemble(make, n_members=3).fit(X.double().cuda(), Y.cuda())
    rows = X.double().cuda()
    for found, expected in (
        (model.predict_proba(rows), want.predict_proba(X.double())),
        (model.transform(rows), want.transform(X.double())),
        (model.sample_log_probs(rows, 2), want.sample_log_probs(X.double(), 2)),
        *zip(model.outputs(rows), want.outputs(X.double()), strict=True),
    ):
        assert found.is_cuda
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-7)
    model.save(tmp_path / "model.pt")
    here = TorchEnsemble(clone(make).set_params(device="cpu"), n_members=3).load(tmp_path / "model.pt")
    torch.testing.assert_close(here.predict_proba(X.double()), model.predict_proba(rows).cpu())
    with pytest.raises(ShapeError, match="X is on cuda:0 and the model on cpu"):
        here.predict(rows)


@pytest.mark.gpu
def test_a_pool_on_cuda_sees_the_members():
    pool = Pool.unlabeled(X.cuda(), n_classes=3)
    model = TorchEnsemble(TorchClassifier(epochs=2), n_members=2)
    learner = ActiveLearner(model, KCenterGreedy(), pool)
    learner.tell(torch.arange(20), Y[:20])
    assert learner.ask(5).is_cuda
    view = pool.with_labels(torch.arange(20), Y[:20]).view(learner.model, generator=torch.Generator())
    draws = view.posterior_log_probs(2)
    assert draws.is_cuda
    assert draws.shape == (60, 2, 3)
