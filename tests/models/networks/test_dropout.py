"""Draws by Monte-Carlo dropout."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from torchal import Pool
from torchal.errors import CapabilityError, ConfigError
from torchal.models import MLP, SmallCNN, TorchClassifier
from torchal.models.networks.dropout import DropoutDraws
from torchal.pool import interop

X = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 3
MODEL = TorchClassifier(partial(MLP, hidden=(40,), dropout=0.5), epochs=3, device="cpu")


class Sequence(nn.Module):
    """Has its rows on axis 1."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(n_features, n_classes)

    def forward(self, x):
        return self.head(self.dropout(x[None])[0])


class Recurrent(Sequence):
    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes)
        self.body = nn.LSTM(n_features, n_features, num_layers=2, dropout=0.2)

    def forward(self, x):
        return self.head(self.dropout(self.body(x[None])[0][0]))


def test_shape_and_kind_of_the_answer():
    model = MODEL.fit(X, Y)
    drawn = model.sample_log_probs(X, 7)
    assert drawn.shape == (30, 7, 3)
    torch.testing.assert_close(drawn.exp().sum(2), torch.ones(30, 7))
    assert isinstance(model.sample_log_probs(X.numpy(), 2), np.ndarray)
    assert not drawn[:, 0].equal(drawn[:, 1])
    assert not any(layer._forward_hooks for layer in model.module_.modules())
    assert not model.module_.training


def test_a_draw_is_one_function_and_the_same_every_time(monkeypatch):
    model = MODEL.fit(X, Y)
    drawn = model.sample_log_probs(X, 4)
    assert model.sample_log_probs(X, 4).equal(drawn)
    torch.testing.assert_close(model.sample_log_probs(X, 2), drawn[:, :2])
    torch.testing.assert_close(model.sample_log_probs(X[[7]], 4), drawn[[7]])
    torch.testing.assert_close(model.sample_log_probs(X.flip(0), 4), drawn.flip(0))
    torch.testing.assert_close(model.sample_log_probs(TensorDataset(X), 4), drawn)
    monkeypatch.setattr("torchal.models.base._CHUNK_ROWS", (1, 7))
    torch.testing.assert_close(model.sample_log_probs(X, 4), drawn)


def test_is_the_network_with_units_dropped():
    model = MODEL.fit(X, Y)
    hidden = torch.relu(model.module_[1](X))
    first = model.sample_log_probs(X, 1)[:, 0]
    mask = (
        torch.rand(
            40,
            generator=torch.Generator().manual_seed(
                int(np.random.SeedSequence([model.seed_, 2, 0]).generate_state(1)[0])
            ),
        )
        >= 0.5
    ) / 0.5
    torch.testing.assert_close(first, model.module_[-1](hidden * mask).log_softmax(1).detach())


def test_units_are_kept_as_often_as_the_layer_says():
    kept = []

    class Watch(nn.Module):
        def forward(self, x):
            kept.append((x != 0).double().mean().item())
            return x

    net = nn.Sequential(nn.Dropout(0.2), Watch()).eval()
    with DropoutDraws(net, 0).drawing() as choose:
        means = []
        for i in range(50):
            choose(i)
            means.append(net(torch.ones(1, 400)).mean().item())
    assert np.mean(kept) == pytest.approx(0.8, abs=0.01)
    assert np.mean(means) == pytest.approx(1, abs=0.01)


def test_channels_are_dropped_whole():
    net = nn.Sequential(nn.Dropout2d(0.5)).eval()
    with DropoutDraws(net, 0).drawing() as choose:
        choose(0)
        out = net(torch.ones(3, 16, 4, 4))
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert (out == out[:1, :, :1, :1]).all()


def test_a_layer_that_runs_twice_drops_others_each_time():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x):
            return torch.stack([self.dropout(x), self.dropout(x)])

    net = Twice().eval()
    with DropoutDraws(net, 0).drawing() as choose:
        choose(0)
        first, second = net(torch.ones(1, 64))
        assert not first.equal(second)
        choose(0)
        assert net(torch.ones(1, 64))[0].equal(first)


def test_all_dropped():
    net = nn.Sequential(nn.Dropout(1.0)).eval()
    with DropoutDraws(net, 0).drawing() as choose:
        choose(0)
        assert not net(torch.ones(2, 8)).any()


def test_the_mean_of_many_draws_is_near_the_probabilities_of_dropout_by_row():
    model = MODEL.fit(X, Y)
    ours = model.sample_log_probs(X, 2000).exp().mean(1)
    model.module_.train()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        by_row = torch.stack([model.module_(X).softmax(1) for _ in range(2000)]).mean(0)
    torch.testing.assert_close(ours, by_row, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (MLP, "MLP has no dropout layer to draw with"),
        (lambda n_classes: nn.Sequential(nn.Dropout(0.0), nn.Linear(5, n_classes)), "no dropout layer"),
        (
            lambda n_classes: nn.Sequential(nn.AlphaDropout(0.5), nn.Linear(5, n_classes)),
            "AlphaDropout are not supported",
        ),
    ],
)
def test_networks_that_cannot_be_drawn(module, match):
    model = TorchClassifier(module, epochs=1).fit(X, Y)
    with pytest.raises(CapabilityError, match=match):
        model.sample_log_probs(X, 2)
    with pytest.raises(ConfigError, match="k must be"):
        model.sample_log_probs(X, 0)


def test_through_a_view():
    pool = Pool.unlabeled(X, n_classes=3).with_labels(torch.arange(10), Y[:10])
    model = MODEL.fit(X[:10], Y[:10])
    interop.fit(model, *pool.training_data())
    view = pool.view(model, generator=torch.Generator())
    assert view.posterior_log_probs(5).equal(model.sample_log_probs(X, 5))


@pytest.mark.gpu
@pytest.mark.parametrize("net", [partial(MLP, hidden=(40, 20), dropout=0.5), SmallCNN], ids=["units", "channels"])
def test_cuda_draws_the_functions_of_the_cpu(net, monkeypatch):
    x = X if net is not SmallCNN else torch.rand(30, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    make = partial(TorchClassifier, net, precision="fp64", epochs=1)
    here = make(device="cpu").fit(x, Y)
    there = make(device="cuda").load_state_dict(here.state_dict())
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    want, found = here.sample_log_probs(x, 5), there.sample_log_probs(x.cuda(), 5)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), want, rtol=1e-6, atol=1e-8)
    assert torch.get_rng_state().equal(before[0])
    assert torch.cuda.get_rng_state().equal(before[1])
    monkeypatch.setattr("torchal.models.base._CHUNK_ROWS", (1, 7))
    torch.testing.assert_close(there.sample_log_probs(x.cuda(), 5), found)
    assert isinstance(there.sample_log_probs(x.numpy(), 5), np.ndarray)
    assert there.sample_log_probs(TensorDataset(x), 5).is_cuda


@pytest.mark.gpu
def test_a_pool_on_cuda_gets_draws_there():
    model = TorchClassifier(partial(MLP, hidden=(40,), dropout=0.5), epochs=3).fit(X.cuda(), Y.cuda())
    pool = Pool.unlabeled(X.cuda(), n_classes=3).with_labels(torch.arange(9), Y[:9])
    drawn = pool.view(model, generator=torch.Generator()).posterior_log_probs(4)
    assert drawn.is_cuda
    assert drawn.equal(model.sample_log_probs(X.cuda(), 4))
