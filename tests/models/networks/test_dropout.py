"""Draws by Monte-Carlo dropout."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from torchal import ActiveLearner, Pool
from torchal.errors import CapabilityError, ConfigError
from torchal.models import MLP, SmallCNN, TorchClassifier
from torchal.models.networks.dropout import DropoutDraws
from torchal.pool import interop
from torchal.pool.inputs import as_inputs
from torchal.samplers import BALD, Margin, Mixture

X = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 3
IMAGES = torch.rand(30, 1, 12, 12, generator=torch.Generator().manual_seed(0))
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
        self.body = nn.LSTM(n_features, n_features, num_layers=2, dropout=0.2, batch_first=True)

    def forward(self, x):
        return self.head(self.dropout(self.body(x[:, None])[0][:, 0]))


class OnlyWhileTraining(Sequence):
    def forward(self, x):
        return self.head(F.dropout(x, 0.5) if self.training else x)


class DotProduct(nn.Module):
    def __init__(self, width, _, *, dropout, batch_first):
        super().__init__()
        self.dropout = dropout

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout), None


class Attention(Sequence):
    def __init__(self, kind, n_features, n_classes):
        super().__init__(n_features, n_classes)
        self.body = kind(n_features, 1, dropout=0.1, batch_first=True)

    def forward(self, x):
        x = x[:, None]
        return self.head(self.dropout(self.body(x, x, x)[0][:, 0]))


class Branches(nn.Module):
    """Has two dropouts that see the rows as they come in."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x):
        return self.left(F.dropout(x, 0.5, self.training)) + self.right(F.dropout(x.cos(), 0.2, self.training))


class Residual(Branches):
    """Adds what is not dropped to what is."""

    def forward(self, x):
        return self.right(x + F.dropout(x.sin(), 0.5, self.training))


class Flattening(Branches):
    """Asks how many rows came in."""

    def forward(self, x):
        return self.right(F.dropout(x, 0.5, self.training).view(len(x), 5))


class OfTheBatch(Branches):
    """Does not treat each row by itself."""

    def forward(self, x):
        dropped = F.dropout(x, 0.5, self.training)
        return self.right(dropped - dropped.mean(0))


def test_shape_and_kind_of_the_answer():
    model = MODEL.fit(X, Y)
    drawn = model.sample_log_probs(X, 7)
    assert drawn.shape == (30, 7, 3)
    torch.testing.assert_close(drawn.exp().sum(2), torch.ones(30, 7))
    assert isinstance(model.sample_log_probs(X.numpy(), 2), np.ndarray)
    assert not drawn[:, 0].equal(drawn[:, 1])
    assert not model.module_.training


def test_a_draw_is_one_function_and_the_same_every_time(monkeypatch):
    model = MODEL.fit(X, Y)
    drawn = model.sample_log_probs(X, 4)
    assert model.sample_log_probs(X, 4).equal(drawn)
    torch.testing.assert_close(model.sample_log_probs(X, 2), drawn[:, :2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.sample_log_probs(X[[7]], 4), drawn[[7]], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.sample_log_probs(X.flip(0), 4), drawn.flip(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.sample_log_probs(TensorDataset(X), 4), drawn, rtol=1e-4, atol=1e-4)
    monkeypatch.setattr("torchal.models.rows._CHUNK_ROWS", (1, 7))
    torch.testing.assert_close(model.sample_log_probs(X, 4), drawn, rtol=1e-4, atol=1e-4)


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
    out = DropoutDraws(nn.Dropout(0.2).eval(), 0)(torch.ones(1, 400), 50)
    assert (out != 0).double().mean().item() == pytest.approx(0.8, abs=0.01)
    assert out.mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_channels_are_dropped_whole(axes):
    layer = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)[axes - 1](0.5).eval()
    out = DropoutDraws(lambda x: layer(x).flatten(1), 0)(torch.ones(3, 16, *[4] * axes), 1)
    out = out.view(3, 16, 4**axes)
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert (out == out[:1, :, :1]).all()


def test_a_layer_that_runs_twice_drops_others_each_time():
    dropout = nn.Dropout(0.5).eval()
    draws = DropoutDraws(lambda x: torch.cat([dropout(x), dropout(x)], 1), 0)
    first, second = draws(torch.ones(1, 64), 1)[0, 0].split(64)
    assert not first.equal(second)
    assert draws(torch.ones(1, 64), 1)[0, 0, :64].equal(first)


def test_all_dropped():
    for dropout in (F.dropout, F.dropout1d, F.alpha_dropout):
        assert not DropoutDraws(partial(dropout, p=1.0, training=False), 0)(torch.ones(2, 8), 3).any()


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
        (MLP, "MLP has no dropout to draw with"),
        (lambda n_classes: nn.Sequential(nn.Dropout(0.0), nn.Linear(5, n_classes)), "no dropout to draw with"),
        (OnlyWhileTraining, "no dropout to draw with"),
        (Sequence, r"rows along axis 0: 2 rows went in, dropout got shape \(1, 2, 5\)"),
        (Recurrent, "inside a recurrent layer are not supported"),
        (partial(Attention, nn.MultiheadAttention), "the dropout of attention weights are not supported"),
        (partial(Attention, DotProduct), "the dropout of attention weights are not supported"),
    ],
)
def test_networks_that_cannot_be_drawn(module, match):
    model = TorchClassifier(module, epochs=1).fit(X, Y)
    with pytest.raises(CapabilityError, match=match):
        model.sample_log_probs(X, 2)
    with pytest.raises(ConfigError, match="k must be"):
        model.sample_log_probs(X, 0)


class TestCalls:
    """A network that calls functions draws what one that has layers draws."""

    @pytest.mark.parametrize(
        "call",
        [
            lambda x: F.dropout(x, 0.3, training=False),
            lambda x: F.dropout(x, training=False, p=0.3, inplace=True),
            lambda x: torch.dropout(x, 0.3, False),
            lambda x: torch.dropout(x, 0.3, True),
            nn.Dropout(0.3).eval(),
        ],
    )
    def test_units(self, call):
        want = DropoutDraws(nn.Dropout(0.3), 5)(torch.arange(1.0, 9).expand(3, 8), 4)
        found = DropoutDraws(call, 5)(torch.arange(1.0, 9).expand(3, 8), 4)
        assert found.equal(want)

    @pytest.mark.parametrize("call", [F.dropout1d, F.dropout2d, F.dropout3d, torch.feature_dropout])
    def test_channels(self, call):
        x = torch.rand(3, 6, *[2] * (1 if call is F.dropout1d else 3 if call is F.dropout3d else 2))
        found = DropoutDraws(lambda x: call(x, 0.3, False).flatten(1), 5)(x, 4)
        kept = DropoutDraws(nn.Dropout(0.3), 5)(torch.ones(1, 6), 4)[0]
        torch.testing.assert_close(found, torch.einsum("nc...,kc->nkc...", x, kept).flatten(2))

    @pytest.mark.parametrize("call", [F.alpha_dropout, F.feature_alpha_dropout, torch.alpha_dropout])
    def test_alpha_dropout_keeps_mean_and_variance(self, call):
        x = torch.randn(1, 2000, generator=torch.Generator().manual_seed(0))
        out = DropoutDraws(lambda x: call(x, 0.3, False), 0)(x, 100)
        assert out.mean().item() == pytest.approx(x.mean().item(), abs=0.05)
        assert out.std().item() == pytest.approx(x.std().item(), abs=0.05)
        torch.manual_seed(0)
        with torch.random.fork_rng():
            theirs = call(torch.zeros(1, 2000), 0.3, True)
        ours = DropoutDraws(lambda x: call(x, 0.3, False), 0)(torch.zeros(1, 2000), 1)
        torch.testing.assert_close(ours.unique(), theirs.unique())

    def test_in_place_changes_what_it_is_given_but_the_rows(self):
        def network(x):
            hidden = x + 1
            F.dropout(hidden, 0.5, training=False, inplace=True)
            return hidden

        rows = torch.zeros(3, 50)
        want = DropoutDraws(nn.Dropout(0.5), 0)(rows + 1, 4)
        assert DropoutDraws(network, 0)(rows, 4).equal(want)
        assert DropoutDraws(nn.Dropout(0.5, inplace=True), 0)(rows + 1, 4).equal(want)
        rows = torch.ones(3, 50)
        DropoutDraws(nn.Dropout(0.5, inplace=True), 0)(rows, 1)
        assert (rows == 1).all()

    def test_what_is_impossible_is_said_by_torch(self):
        with pytest.raises(ValueError, match="dropout probability"):
            DropoutDraws(lambda x: F.dropout(x, 2.0), 0)(X, 1)


class TestSideBySide:
    """Draws in one pass are what each of them is alone."""

    @pytest.fixture
    def passes(self):
        return []

    def watched(self, network, passes):
        def run(rows):
            passes.append(len(rows))
            return network(rows)

        return run

    @pytest.mark.parametrize(
        "network",
        [
            nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 3)),
            nn.Sequential(nn.Dropout(0.2), nn.Linear(5, 40), nn.BatchNorm1d(40), nn.Dropout(0.5), nn.Linear(40, 3)),
            nn.Sequential(nn.Linear(5, 40), nn.SELU(), nn.AlphaDropout(0.3), nn.Linear(40, 3)),
            Branches(),
        ],
    )
    def test_in_few_passes(self, network, passes):
        network = network.eval()
        with torch.no_grad():
            alone = torch.cat([DropoutDraws(network, 3)._run(X, range(i, i + 1)) for i in range(20)], 1)
            found = DropoutDraws(self.watched(network, passes), 3)(X, 20)
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-6)
        assert passes == [2, 2, 2, 2, 30]  # three draws of two rows, these at once, and all of all

    @pytest.mark.parametrize("network", [Residual(), Flattening(), OfTheBatch()], ids=["sum", "view", "batch"])
    def test_one_after_another_where_that_does_not_fit(self, network, passes):
        network = network.eval()
        with torch.no_grad():
            alone = torch.cat([DropoutDraws(network, 3)._run(X, range(i, i + 1)) for i in range(6)], 1)
            found = DropoutDraws(self.watched(network, passes), 3)(X, 6)
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
        assert passes == [2, 2, 2, 2, *[30] * 6]

    def test_rows_in_a_pass_are_bounded(self, monkeypatch):
        sizes = []
        model = MODEL.fit(X, Y)
        want = model.sample_log_probs(X, 10)
        model.module_[-1].register_forward_hook(lambda layer, args, out: sizes.append(len(out)))
        for most in (1, 7, 25, 100):
            monkeypatch.setattr("torchal.models.rows._CHUNK_ROWS", (1, most))
            torch.testing.assert_close(model.sample_log_probs(X, 10), want, rtol=1e-4, atol=1e-4)
            assert max(sizes) <= max(6, most)  # the trial has two rows in three draws
            sizes.clear()

    def test_a_network_that_runs_out_of_memory_is_not_taken_for_one_that_does_not_fit(self):
        def network(rows):
            dropped = F.dropout(rows, 0.5)
            if len(dropped) > len(rows):
                raise torch.OutOfMemoryError("no memory")
            return dropped

        with pytest.raises(torch.OutOfMemoryError):
            DropoutDraws(network, 0)(X, 5)


@pytest.mark.parametrize("precision", ["fp32", "fp64", "bf16-mixed"])
def test_the_first_draws_of_many_are_the_draws_of_few(precision):
    model = TorchClassifier(SmallCNN, epochs=1, precision=precision, device="cpu").fit(IMAGES, Y)
    many = model.sample_log_probs(IMAGES, 20)
    tolerance = 0.05 if precision == "bf16-mixed" else 1e-5
    for k in (1, 5):
        few = model.sample_log_probs(IMAGES, k)
        torch.testing.assert_close(few, many[:, :k], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(model.sample_log_probs(IMAGES[7:9], 20), many[7:9], rtol=tolerance, atol=tolerance)


def test_compiled_parts_are_drawn_too():
    class Compiled(nn.Module):
        def __init__(self, n_classes):
            super().__init__()
            self.body = torch.compile(nn.Sequential(nn.Dropout(0.5), nn.Linear(5, n_classes)), backend="eager")

        def forward(self, x):
            return self.body(x)

    model = TorchClassifier(Compiled, epochs=1, device="cpu").fit(X, Y)
    drawn = model.sample_log_probs(X, 3)
    assert not drawn[:, 0].allclose(drawn[:, 1])


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
    monkeypatch.setattr("torchal.models.rows._CHUNK_ROWS", (1, 7))
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


class TestBeforeTheFirstFit:
    pool = Pool.unlabeled(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), n_classes=3)

    @pytest.mark.parametrize(
        "sampler", [BALD(), Mixture([Margin(), BALD()], weights=[0.5, 0.5])], ids=["bald", "mixture"]
    )
    def test_a_network_without_dropout_is_refused(self, sampler):
        with pytest.raises(CapabilityError, match="MLP has no dropout to draw with: give it some"):
            ActiveLearner(TorchClassifier(MLP), sampler, self.pool)

    @pytest.mark.parametrize("posterior", ["laplace", "auto"])
    def test_one_with_another_posterior_is_taken(self, posterior):
        ActiveLearner(TorchClassifier(MLP, posterior=posterior), BALD(), self.pool)
        ActiveLearner(TorchClassifier(MLP), Margin(), self.pool)

    @pytest.mark.parametrize("inputs", [pool.inputs, TensorDataset(pool.inputs)], ids=["tensor", "data set"])
    def test_one_with_dropout_is_taken_and_nothing_is_drawn_of_the_global_numbers(self, inputs):
        before = torch.get_rng_state()
        model = TorchClassifier(partial(MLP, dropout=0.5))
        ActiveLearner(model, BALD(), Pool.unlabeled(as_inputs(inputs), n_classes=3))
        assert torch.get_rng_state().equal(before)
        assert not hasattr(model, "module_")
