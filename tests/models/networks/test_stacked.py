"""Many networks at once: each as if fitted alone."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau, StepLR

from torchal import Pool
from torchal.errors import CapabilityError, DivergenceError, ShapeError
from torchal.models import MLP, Callback, TorchClassifier, TorchEnsemble
from torchal.models.networks import stacked
from torchal.pool import interop

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(4, 50, 6, generator=GENERATOR, dtype=torch.float64)
Y = (X[..., 0] > 0).long() + (X[..., 1] > 0)
DROPOUT_MLP = partial(MLP, hidden=(16,), dropout=0.3)


class NormedNet(nn.Sequential):
    def __init__(self, n_features, n_classes):
        super().__init__(nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_classes))


class ConvolutionNet(nn.Sequential):
    def __init__(self, n_classes):
        super().__init__(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, n_classes))


class Branching(MLP):
    """Cannot be stacked: what it does depends on its numbers."""

    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class OwnProjection(nn.Module):
    """Draws what is neither parameter nor buffer."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.projection = torch.randn(n_features, 8, dtype=torch.float64)
        self.head = nn.Linear(8, n_classes)

    def forward(self, x):
        return self.head((x @ self.projection).cos())


class MovingMean(nn.Module):
    """Updates a buffer by assignment, which stacked weights would lose."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.head = nn.Linear(n_features, n_classes)
        self.register_buffer("mean", torch.zeros(n_features))

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0).detach()
        return self.head(x - self.mean)


class CountingNet(MLP):
    """Depends on how often it ran."""

    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes)
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (1 + self.calls / 100)


class Attention(nn.Module):
    def __init__(self, n_features, n_classes):
        super().__init__()
        self.attention = nn.MultiheadAttention(3, 1, dropout=0.5, batch_first=True)
        self.head = nn.Linear(n_features, n_classes)

    def forward(self, x):
        x = x.view(len(x), 2, 3)
        return self.head(self.attention(x, x, x, need_weights=False)[0].flatten(1))


class Hooked(MLP):
    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes)
        self[-1].bias.register_hook(lambda gradient: gradient * 0)


class Scaled(MLP):
    """Has a parameter without axes."""

    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return super().forward(x) * self.scale


def decay_matrices(parameters):
    parameters = list(parameters)
    groups = [{"params": [p], "weight_decay": 0.5 * (p.ndim > 1)} for p in parameters]
    return torch.optim.AdamW(groups, lr=0.01)


def warm_up(optimizer, total_steps):
    return torch.optim.lr_scheduler.LinearLR(
        optimizer, total_iters=total_steps // 2, start_factor=1 / (total_steps // 2)
    )


@pytest.fixture
def together(monkeypatch):
    """Count the fits that were made together."""
    calls, whole = [], stacked.train_together

    def train_together(modules, *args):
        calls.append(len(modules))
        return whole(modules, *args)

    monkeypatch.setattr("torchal.models.networks.torch_classifier.train_together", train_together)
    return calls


def numbers_of(model):
    return torch.cat([value.detach().double().flatten() for value in model.module_.state_dict().values()])


def check_as_alone(model, many, X=X, Y=Y, atol=1e-9):
    assert len(many) == len(X)
    for copy, x, y in zip(many, X, Y, strict=True):
        alone = clone(model).fit(x, y)
        torch.testing.assert_close(numbers_of(copy), numbers_of(alone), rtol=1e-6, atol=atol)
        np.testing.assert_allclose(copy.loss_curve_, alone.loss_curve_, rtol=1e-6)
        assert copy.n_epochs_ == alone.n_epochs_
        torch.testing.assert_close(copy.predict_proba(x), alone.predict_proba(x))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"module": DROPOUT_MLP},
        {"module": NormedNet},
        {"batch_size": 100},
        {"batch_size": 17, "module": NormedNet},
        {"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)},
        {"optimizer": partial(torch.optim.RMSprop, lr=1e-3, alpha=0.9, eps=1e-7)},
        {"optimizer": torch.optim.NAdam},
        {"optimizer": partial(torch.optim.SGD, lr=1.0), "max_grad_norm": 0.1},
        {"scheduler": partial(StepLR, step_size=2)},
        {"scheduler": partial(OneCycleLR, max_lr=0.5), "scheduler_step": "batch"},
        {"class_weight": "balanced"},
        {"module": Scaled, "max_grad_norm": 0.1},
        {"loss": partial(nn.CrossEntropyLoss, label_smoothing=0.1)},
        {"random_state": 7},
        {"random_state": np.random.RandomState(7)},
    ],
)
def test_each_as_if_fitted_alone(together, settings):
    model = TorchClassifier(**{"precision": "fp64", "epochs": 5, "device": "cpu", **settings})
    many = model.fit_many(X, Y)
    assert together == [4]
    check_as_alone(model, many)


def test_convolutions_too(together, monkeypatch):
    monkeypatch.setattr(stacked, "_is_worth_it", lambda *a: True)  # they are not on a CPU
    model = TorchClassifier(ConvolutionNet, precision="fp64", epochs=3, device="cpu")
    check_as_alone(model, model.fit_many(X, Y))
    assert together == [4]


class Quiet(Callback):
    pass


@pytest.mark.parametrize(
    "settings",
    [
        {"module": Branching},
        {"module": ConvolutionNet},
        {"module": MovingMean},
        {"module": CountingNet},
        {"module": Hooked},
        {"optimizer": decay_matrices},
        {"scheduler": warm_up, "scheduler_step": "batch"},
        {"module": partial(MLP, hidden=(20_000,)), "epochs": 1},
        {"callbacks": [Quiet()]},
        {"augment": torch.neg},
        {"precision": "bf16-mixed"},
        {"compile": {"backend": "eager"}, "epochs": 1},
        {"validation_fraction": 0.2, "patience": 2},
        {"scheduler": ReduceLROnPlateau},
        {"optimizer": lambda parameters: torch.optim.Adafactor(parameters)},
    ],
)
def test_one_after_another_where_it_would_not_be_the_same_or_not_be_faster(together, settings):
    model = TorchClassifier(**{"precision": "fp64", "epochs": 3, "device": "cpu", **settings})
    check_as_alone(model, model.fit_many(X, Y))
    assert not together


def test_attention_is_right_either_way():
    """Its dropout draws other masks under some versions of vmap; then the trial finds out."""
    model = TorchClassifier(Attention, precision="fp64", epochs=3, device="cpu")
    check_as_alone(model, model.fit_many(X, Y))


def test_other_classes_in_one_data_set(together):
    y = Y.clone()
    y[2].clamp_(max=1)
    model = TorchClassifier(epochs=2, device="cpu")
    many = model.fit_many(X, y)
    assert not together
    assert [len(copy.classes_) for copy in many] == [3, 3, 2, 3]
    check_as_alone(model, many, Y=y)


def test_other_names_of_as_many_classes(together):
    y = Y.clone()
    y[1] += 5
    many = TorchClassifier(epochs=2, device="cpu").fit_many(X, y)
    assert together == [4]
    assert many[1].classes_.tolist() == [5, 6, 7]
    assert set(many[1].predict(X[1]).tolist()) <= {5, 6, 7}


def test_arrays_and_text(together):
    names = np.array(["a", "b", "c"])
    many = TorchClassifier(epochs=2).fit_many(X.numpy(), names[Y])
    assert together == [4]
    assert many[0].predict(X[0].numpy()).dtype == names.dtype


def test_without_a_seed_each_gets_its_own(together):
    many = TorchClassifier(epochs=2, random_state=None).fit_many(X[:1].expand(4, -1, -1), Y[:1].expand(4, -1))
    assert together == [4]
    assert not numbers_of(many[0]).equal(numbers_of(many[1]))


def test_one_is_fitted_alone(together):
    assert len(TorchClassifier(epochs=1).fit_many(X[:1], Y[:1])) == 1
    assert not together


def test_global_generator_stays():
    state = torch.get_rng_state()
    TorchClassifier(DROPOUT_MLP, epochs=1).fit_many(X, Y)
    assert torch.get_rng_state().equal(state)


def test_a_loss_that_is_not_finite_names_the_data_set(together):
    x = X.clone()
    x[2] *= 1e160
    with pytest.raises(
        DivergenceError, match=r"fit 3 of 4 made together: the loss is (nan|inf) in epoch 1 of 2, batch"
    ):
        TorchClassifier(epochs=2, optimizer=partial(torch.optim.SGD, lr=0.1), precision="fp64").fit_many(x, Y)


@pytest.mark.parametrize(("x", "y"), [(X[0], Y[0]), (X, Y[:, :3]), (X[:0], Y[:0]), (X, Y[..., None])])
def test_other_axes(x, y):
    with pytest.raises(ShapeError, match=r"\(T, n, ...\) and \(T, n\)"):
        TorchClassifier().fit_many(x, y)


def test_refits_of_a_pool_are_one_call(together):
    pool = Pool.unlabeled(X[0], n_classes=3).with_labels(torch.arange(20), Y[0, :20])
    model = TorchClassifier(epochs=3, device="cpu")
    interop.fit(model, *pool.training_data())
    view = pool.view(model, generator=torch.Generator())
    rows = torch.tensor([[20, 21], [30, 31], [40, 41]])
    refitted = view.refit(rows, Y[0][rows])
    assert together == [3]
    for i in range(3):
        alone = view.refit(rows[i], Y[0][rows[i]])
        torch.testing.assert_close(refitted.log_probs[i], alone.log_probs, rtol=1e-4, atol=1e-5)


def test_weights_that_overflow_in_the_last_step():
    def steep(reduction):
        return lambda logits, targets: 1e6 * nn.functional.cross_entropy(logits, targets, reduction=reduction)

    sgd = partial(torch.optim.SGD, lr=1e38)
    with pytest.raises(
        DivergenceError, match="fit 1 of 4 made together: the weights are not finite after epoch 1 of 1"
    ):
        TorchClassifier(optimizer=sgd, epochs=1, batch_size=100, loss=steep, device="cpu").fit_many(X, Y)


def test_one_after_another_where_all_at_once_do_not_fit(together, monkeypatch):
    def full(*args):
        raise torch.OutOfMemoryError("all at once")

    monkeypatch.setattr("torchal.models.networks.torch_classifier.train_together", full)
    model = TorchClassifier(epochs=2, precision="fp64", device="cpu")
    check_as_alone(model, model.fit_many(X, Y))


class Remembering(MLP):
    """Keeps tensors in a list, which cannot be compared as numbers are."""

    def __init__(self, n_features, n_classes):
        super().__init__(n_features, n_classes)
        self.seen = [torch.zeros(2), torch.ones(2)]

    def forward(self, x):
        if self.training:
            self.seen = [self.seen[0] + 1, self.seen[1]]
        return super().forward(x) + self.seen[0][0] / 100


class Constant(Remembering):
    def forward(self, x):
        return MLP.forward(self, x) + self.seen[1][0]


@pytest.mark.parametrize(("module", "expected"), [(Remembering, []), (Constant, [4])])
def test_tensors_that_layers_keep_in_lists(together, module, expected):
    model = TorchClassifier(module, precision="fp64", epochs=3, device="cpu")
    check_as_alone(model, model.fit_many(X, Y))
    assert together == expected


def test_without_dropout_the_trial_is_of_all_else():
    """As on CUDA, whose masks for a stack are others."""
    nets = [DROPOUT_MLP(6, 3).double() for _ in range(2)]
    assert stacked._agree(nets, X[0, :2], 3, with_dropout=False)
    assert nets[0][3].p == 0.3
    changing = [CountingNet(6, 3).double() for _ in range(2)]
    assert not stacked._agree(changing, X[0, :2], 3, with_dropout=False)


def test_an_answer_that_is_no_tensor():
    class Pair(MLP):
        def forward(self, x):
            return [super().forward(x), x]

    with pytest.raises(CapabilityError, match=r"must answer with logits: .* got list"):
        TorchClassifier(Pair, device="cpu").fit_many(X, Y)


def test_a_loss_of_another_shape():
    with pytest.raises(ShapeError, match=r"one value per row, \(128,\), got \(\)"):
        TorchClassifier(loss=lambda reduction: lambda logits, y: logits.mean(), device="cpu").fit_many(X, Y)


class TestEnsemble:
    def test_members_with_numbers_of_their_own_are_trained_alone(self, together):
        ensemble = TorchEnsemble(TorchClassifier(OwnProjection, epochs=3, precision="fp64"), n_members=3).fit(
            X[0], Y[0]
        )
        assert not together
        for member in ensemble.estimators_:
            alone = clone(member).fit(X[0], Y[0])
            torch.testing.assert_close(member.predict_proba(X[0]), alone.predict_proba(X[0]))

    def test_dropout_masks_of_members_differ_in_training(self, monkeypatch):
        seen = []
        whole = stacked._Stack.__init__
        monkeypatch.setattr(
            stacked._Stack,
            "__init__",
            lambda self, modules, *, same_masks: (seen.append(same_masks), whole(self, modules, same_masks=same_masks))[
                1
            ],
        )
        TorchEnsemble(TorchClassifier(DROPOUT_MLP, epochs=1), n_members=2).fit(X[0], Y[0])
        TorchClassifier(DROPOUT_MLP, epochs=1).fit_many(X, Y)
        assert seen == [True, False, True, True]  # each time a trial with the same masks, then the training

    def test_members_are_those_of_their_seeds(self, together):
        ensemble = TorchEnsemble(TorchClassifier(epochs=3, precision="fp64", device="cpu"), n_members=3)
        ensemble.fit(X[0], Y[0])
        assert together == [3]
        for member in ensemble.estimators_:
            alone = TorchClassifier(**member.get_params(deep=False)).fit(X[0], Y[0])
            torch.testing.assert_close(numbers_of(member), numbers_of(alone), rtol=1e-6, atol=1e-9)
        assert not numbers_of(ensemble.estimators_[0]).equal(numbers_of(ensemble.estimators_[1]))

    def test_weights_reach_the_members(self, together):
        weights = torch.linspace(0, 1, 50)
        ensemble = TorchEnsemble(TorchClassifier(epochs=2, precision="fp64"), n_members=2).fit(X[0], Y[0], weights)
        assert together == [2]
        for member in ensemble.estimators_:
            alone = TorchClassifier(**member.get_params(deep=False)).fit(X[0], Y[0], weights)
            torch.testing.assert_close(numbers_of(member), numbers_of(alone), rtol=1e-6, atol=1e-9)

    def test_dropout_masks_of_members_differ(self, together):
        TorchEnsemble(TorchClassifier(DROPOUT_MLP, epochs=2), n_members=3).fit(X[0], Y[0])
        assert together == [3]
        net = DROPOUT_MLP(6, 3).double()
        for same in (True, False):
            outputs = stacked._Stack([net, net], same_masks=same).run(X[:1].expand(2, -1, -1))
            assert outputs[0].equal(outputs[1]) == same


SMALL_MLP = partial(MLP, hidden=(16,))


@pytest.mark.gpu
@pytest.mark.parametrize("module", [SMALL_MLP, NormedNet, Scaled], ids=["mlp", "norm", "scale"])
def test_cuda_trains_together_as_alone_and_as_the_cpu_does(module, together):
    model = TorchClassifier(module, precision="fp64", epochs=3, batch_size=20)
    many = model.fit_many(X.cuda(), Y.cuda())
    assert together == [4]
    check_as_alone(model, many, X.cuda(), Y.cuda(), atol=1e-8)
    here = clone(model).set_params(device="cpu")
    for one, x, y in zip(many, X, Y, strict=True):
        assert numbers_of(one).is_cuda
        torch.testing.assert_close(numbers_of(one).cpu(), numbers_of(here.fit(x, y)), rtol=1e-5, atol=1e-7)
        assert one.predict(x.cuda()).is_cuda


@pytest.mark.gpu
def test_cuda_trains_with_class_weights_a_schedule_and_cut_gradients_together(together):
    model = TorchClassifier(
        SMALL_MLP,
        precision="fp64",
        epochs=3,
        batch_size=20,
        class_weight="balanced",
        max_grad_norm=0.05,
        scheduler=partial(StepLR, step_size=2, gamma=0.5),
        scheduler_step="batch",
    )
    check_as_alone(model, model.fit_many(X.cuda(), Y.cuda()), X.cuda(), Y.cuda(), atol=1e-8)
    assert together == [4]


@pytest.mark.gpu
@pytest.mark.parametrize("module", [Branching, ConvolutionNet], ids=["cannot be stacked", "is slower stacked"])
def test_cuda_trains_one_by_one_what_stacking_does_not_serve(module, together):
    model = TorchClassifier(module, precision="fp64", epochs=2)
    check_as_alone(model, model.fit_many(X.cuda(), Y.cuda()), X.cuda(), Y.cuda(), atol=1e-8)
    assert not together


@pytest.mark.gpu
def test_cuda_drops_units_in_a_stack_and_leaves_its_generator(together):
    model = TorchClassifier(DROPOUT_MLP, precision="fp64", epochs=2)
    before = torch.cuda.get_rng_state()
    first, again = (model.fit_many(X.cuda(), Y.cuda()) for _ in range(2))
    assert together == [4, 4]
    assert torch.cuda.get_rng_state().equal(before)
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(numbers_of(one), numbers_of(other), rtol=1e-9, atol=1e-9)
    without = TorchClassifier(SMALL_MLP, precision="fp64", epochs=2).fit_many(X.cuda(), Y.cuda())
    assert not torch.allclose(numbers_of(first[0]), numbers_of(without[0]))  # units were dropped


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_cuda_trains_rows_of_the_host_together(kind, together):
    model = TorchClassifier(SMALL_MLP, precision="fp64", epochs=2, device="cuda")
    many = model.fit_many(*((X.numpy(), Y.numpy()) if kind == "array" else (X, Y)))
    assert together == [4]
    for one, there in zip(many, model.fit_many(X.cuda(), Y.cuda()), strict=True):
        assert numbers_of(one).is_cuda
        torch.testing.assert_close(numbers_of(one), numbers_of(there))


@pytest.mark.gpu
def test_a_view_of_a_pool_on_cuda_refits_together(together):
    pool = Pool.unlabeled(X[0].cuda(), n_classes=3).with_labels(torch.arange(12), Y[0, :12])
    found = []
    for device in ("cpu", "cuda"):
        model = TorchClassifier(SMALL_MLP, precision="fp64", epochs=2, device=device)
        there = Pool.unlabeled(X[0].to(device), n_classes=3).with_labels(torch.arange(12), Y[0, :12])
        interop.fit(model, *there.training_data())
        view = there.view(model, generator=torch.Generator().manual_seed(0))
        trials = view.refit(torch.arange(20, 26).view(3, 2).to(device), Y[0, 20:26].view(3, 2).to(device)).trials
        found.append(torch.stack([trial.log_probs for trial in trials]))
        assert found[-1].device == there.device
    assert together == [3, 3]
    assert pool.device.type == "cuda"
    torch.testing.assert_close(found[1].cpu(), found[0], rtol=1e-5, atol=1e-6)
