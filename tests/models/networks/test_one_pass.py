"""A network runs once for all that a view is asked."""

import itertools
from functools import partial

import pytest
import torch
from torch import nn

from torchal import Pool
from torchal.errors import CapabilityError
from torchal.models import MLP, AllConv, SmallCNN, TorchClassifier, TorchEnsemble
from torchal.pool import interop
from torchal.samplers import InformativeDiverse, Margin

X = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(50) % 3
OUTPUTS = ("scores", "log_probs", "features")


class Counting(MLP):
    rows = 0

    def forward(self, x):
        Counting.rows += len(x)
        return super().forward(x)


def make_view(model, inputs=X):
    pool = Pool.unlabeled(inputs, n_classes=3).with_labels(torch.arange(12), Y[:12])
    interop.fit(model, *pool.training_data())
    Counting.rows = 0
    return pool.view(model, generator=torch.Generator())


@pytest.mark.parametrize("order", list(itertools.permutations(OUTPUTS)))
@pytest.mark.parametrize("inputs", [X, torch.utils.data.TensorDataset(X)])
def test_one_pass_for_all_outputs_in_any_order(order, inputs):
    view = make_view(TorchClassifier(Counting, epochs=1, device="cpu"), inputs)
    read = {name: getattr(view, name) for name in order}
    assert Counting.rows == 50
    model = view.model
    torch.testing.assert_close(read["scores"], model.decision_function(X))
    torch.testing.assert_close(read["log_probs"], model.predict_log_proba(X))
    torch.testing.assert_close(read["features"], model.transform(X))


def test_forks_and_samplers_share_it():
    view = make_view(TorchClassifier(Counting, epochs=1))
    InformativeDiverse().select(view, 5)
    Margin().select(view.fork(1), 5)
    assert Counting.rows == 50
    view.log_probs_of(torch.tensor([3]))
    assert Counting.rows == 50


def test_an_ensemble_too():
    view = make_view(TorchEnsemble(TorchClassifier(Counting, epochs=1), n_members=2))
    assert view.features.shape == (50, 256)
    assert view.scores.shape == view.log_probs.shape == (50, 3)
    assert Counting.rows == 100


def test_two_classes_have_one_column_of_scores():
    pool = Pool.unlabeled(X, n_classes=2).with_labels(torch.arange(12), Y[:12] % 2)
    model = TorchClassifier(epochs=1, device="cpu")
    interop.fit(model, *pool.training_data())
    view = pool.view(model, generator=torch.Generator())
    assert view.scores.shape == (50, 1)
    torch.testing.assert_close(view.scores[:, 0], model.decision_function(X))
    torch.testing.assert_close(view.log_probs, model.predict_log_proba(X))


def test_features_that_nobody_asked_for_are_not_kept_when_they_are_many(monkeypatch):
    monkeypatch.setattr("torchal.pool.view._KEPT_FEATURES", 50 * 128 - 1)
    view = make_view(TorchClassifier(Counting, epochs=1))
    assert view.scores.shape == (50, 3)
    assert "features" not in view.outputs
    assert view.features.shape == (50, 128)
    assert Counting.rows == 100
    view = make_view(TorchClassifier(Counting, epochs=1))
    assert view.features.shape == (50, 128)
    assert view.scores.shape == (50, 3)
    assert Counting.rows == 50


def test_a_network_without_an_embedding_still_has_scores():
    def net(n_classes):
        return nn.Sequential(nn.Unflatten(1, (6, 1)), nn.Conv1d(6, n_classes, 1), nn.Flatten())

    view = make_view(TorchClassifier(net, epochs=1))
    assert view.scores.shape == (50, 3)
    with pytest.raises(CapabilityError, match=r"no nn\.Linear"):
        view.features  # noqa: B018


class TestEmbedding:
    IMAGES = torch.rand(12, 3, 12, 12, generator=torch.Generator().manual_seed(0))

    def fit(self, module, **settings):
        return TorchClassifier(module, epochs=1, device="cpu", **settings).fit(self.IMAGES, torch.arange(12) % 3)

    def test_small_cnn_after_and_before_the_last_relu(self):
        after = self.fit(SmallCNN).transform(self.IMAGES)
        before = self.fit(SmallCNN, embedding="hidden").transform(self.IMAGES)
        assert after.shape == before.shape == (12, 512)
        assert bool((before < 0).any())
        torch.testing.assert_close(after, before.relu())

    def test_allconv_before_the_global_average(self):
        model = self.fit(AllConv)
        maps = model.transform(self.IMAGES)
        assert maps.shape == (12, 3 * 3 * 3)
        torch.testing.assert_close(maps.reshape(12, 3, 9).mean(2), model.decision_function(self.IMAGES))

    def test_a_layer_by_name(self):
        model = TorchClassifier(partial(MLP, hidden=(9, 7)), embedding="1", epochs=1).fit(X, Y)
        torch.testing.assert_close(model.transform(X), model.module_[1](X).detach())


@pytest.mark.parametrize(("module", "shape", "n_passes"), [(SmallCNN, (28, 28), 3), (MLP, (784,), 1)])
def test_images_go_through_a_network_in_chunks_that_fit_a_cache(module, shape, n_passes):
    rows = torch.rand(400, *shape, generator=torch.Generator().manual_seed(0))
    model = TorchClassifier(module, epochs=1, device="cpu").fit(rows[:9], torch.arange(9) % 3)
    sizes = []
    model.module_.register_forward_hook(lambda module, args, output: sizes.append(len(output)))
    probs = model.predict_log_proba(rows)
    assert (len(sizes), sum(sizes)) == (n_passes, 400)
    alone = torch.cat([model.predict_log_proba(some) for some in rows.split(100)])
    torch.testing.assert_close(probs, alone, rtol=1e-4, atol=1e-5)
