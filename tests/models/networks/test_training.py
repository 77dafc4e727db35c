"""The training loop: what it computes, and what may go wrong in it."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from torchal import embed
from torchal.errors import CapabilityError, ConfigError, DataError, DivergenceError, ShapeError
from torchal.models import MLP, Callback, TorchClassifier
from torchal.models.base import TrainingData
from torchal.models.networks.parts import hold_out
from torchal.models.networks.recipes import batch_sizes, make_optimizer

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(101, 6, generator=GENERATOR, dtype=torch.float64)
Y = (X[:, 0] + 0.3 * torch.randn(101, generator=GENERATOR, dtype=torch.float64) > 0).long() + (X[:, 1] > 0.5)
DROPOUT_MLP = partial(MLP, hidden=(16,), dropout=0.3)
SGD = partial(torch.optim.SGD, lr=0.1)


class Seen(Callback):
    """Collects what it is told; clones share the list."""

    def __init__(self, stop_after=None):
        self.calls, self.stop_after = [], stop_after

    def __deepcopy__(self, memo):
        return self

    def on_round(self, round):  # noqa: A002
        self.calls.append(("round", round))

    def on_fit_start(self, *, epochs, n_rows):
        self.calls.append(("start", epochs, n_rows))

    def on_epoch_end(self, epoch):
        self.calls.append(epoch)
        return epoch.number == self.stop_after

    def on_fit_end(self):
        self.calls.append("end")

    @property
    def epochs(self):
        return [call for call in self.calls if hasattr(call, "loss")]


class NormedNet(nn.Sequential):
    def __init__(self, n_features, n_classes):
        super().__init__(nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, n_classes))


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.module_.parameters()])


def fit(*args, **settings):
    validation = settings.pop("validation", None)
    sample_weight = settings.pop("sample_weight", None)
    model = TorchClassifier(*args, **{"epochs": 4, "device": "cpu", **settings})
    return model.fit(X, Y, sample_weight, validation=validation)


def plain_loop(make, optimizer, epochs, batch_size, *, scheduler=None, by_batch=False, clip=None, seed=0):
    """Train as a plain script would, from the same weights and batches; return the network and the losses by epoch."""
    drawn = int(np.random.RandomState(seed).randint(2**31 - 1))
    order = torch.Generator().manual_seed(drawn)
    curve = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(drawn)
        net = make(n_features=6, n_classes=3).double()
        optimizer = optimizer(net.parameters())
        schedule = scheduler and scheduler(optimizer)
        for _ in range(epochs):
            losses = []
            for rows in torch.randperm(len(X), generator=order).split(batch_size):
                loss = nn.functional.cross_entropy(net(X[rows]), Y[rows])
                optimizer.zero_grad()
                loss.backward()
                if clip:
                    nn.utils.clip_grad_norm_(net.parameters(), clip)
                optimizer.step()
                losses.append(loss.item())
                if schedule and by_batch:
                    schedule.step()
            if schedule and not by_batch:
                schedule.step()
            curve.append(np.mean(losses))
    return net.eval(), curve


class TestSameAsAPlainLoop:
    @pytest.mark.parametrize(
        ("optimizer", "settings", "plain"),
        [
            (torch.optim.Adam, {}, {}),
            (partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1), {}, {}),
            (partial(torch.optim.SGD, lr=0.1, momentum=0.9), {}, {}),
            (partial(torch.optim.RMSprop, lr=1e-3, alpha=0.9, eps=1e-7), {}, {}),
            (SGD, {"scheduler": partial(StepLR, step_size=2)}, {"scheduler": partial(StepLR, step_size=2)}),
            (SGD, {"scheduler": CosineAnnealingLR}, {"scheduler": partial(CosineAnnealingLR, T_max=4)}),
            (
                SGD,
                {"scheduler": partial(OneCycleLR, max_lr=0.5), "scheduler_step": "batch"},
                {"scheduler": partial(OneCycleLR, max_lr=0.5, total_steps=28), "by_batch": True},
            ),
            (partial(torch.optim.SGD, lr=1.0), {"max_grad_norm": 0.1}, {"clip": 0.1}),
        ],
    )
    def test_curve_and_weights(self, optimizer, settings, plain):
        model = fit(DROPOUT_MLP, optimizer=optimizer, batch_size=16, precision="fp64", **settings)
        net, curve = plain_loop(DROPOUT_MLP, optimizer, 4, 16, **plain)
        np.testing.assert_allclose(model.loss_curve_, curve, rtol=1e-9)
        np.testing.assert_allclose(model.decision_function(X), net(X).detach(), rtol=1e-6, atol=1e-9)

    def test_plateau_looks_at_the_loss(self):
        def dull(optimizer):
            return ReduceLROnPlateau(optimizer, patience=0, threshold=1e9)

        seen = Seen()
        fit(optimizer=SGD, scheduler=dull, callbacks=[seen])
        assert [epoch.learning_rate for epoch in seen.epochs] == pytest.approx([0.1, 0.01, 0.001, 0.0001])
        with pytest.raises(ConfigError, match="scheduler_step must be 'epoch'"):
            fit(scheduler=dull, scheduler_step="batch")


class TestOptimizers:
    def test_fused_unless_something_else_is_bound(self):
        net = MLP(3, 2)
        for recipe in (torch.optim.Adam, partial(torch.optim.AdamW, lr=0.1), SGD):
            assert make_optimizer(recipe, net).defaults["fused"]
        assert not make_optimizer(partial(torch.optim.Adam, foreach=True), net).defaults.get("fused")
        assert not make_optimizer(lambda parameters: torch.optim.Adam(parameters), net).defaults.get("fused")
        assert not make_optimizer(torch.optim.RMSprop, net).defaults.get("fused")
        sparse = nn.Sequential(nn.Embedding(5, 2, sparse=True))
        assert not make_optimizer(SGD, sparse).defaults.get("fused")

    def test_one_that_asks_for_the_loss_again_is_refused(self):
        with pytest.raises(ConfigError, match="LBFGS asks for the loss several times"):
            fit(optimizer=torch.optim.LBFGS)


def test_batch_normalization_never_sees_one_row():
    assert batch_sizes(101, 20, MLP(6, 3)) == [20] * 5 + [1]
    assert batch_sizes(101, 20, NormedNet(6, 3)) == [20] * 4 + [21]
    assert batch_sizes(20, 20, MLP(6, 3)) == [20]
    assert batch_sizes(3, 20, NormedNet(6, 3)) == [3]
    assert fit(NormedNet, batch_size=20).predict(X).shape == (101,)


class TestPrecision:
    @pytest.mark.parametrize(
        ("precision", "dtype"),
        [
            ("fp32", torch.float32),
            ("fp64", torch.float64),
            ("bf16-mixed", torch.float32),
            ("fp16-mixed", torch.float32),
        ],
    )
    def test_dtype_of_weights_and_outputs(self, precision, dtype):
        model = fit(precision=precision, optimizer=partial(torch.optim.Adam, lr=0.03), epochs=10)
        assert weights_of(model).dtype == dtype
        for name in ("predict_proba", "decision_function", "transform"):
            assert getattr(model, name)(X).dtype == dtype
            assert isinstance(getattr(model, name)(X.numpy()), np.ndarray)
        assert model.outputs(X).features.dtype == dtype
        assert model.score(X, Y) > 0.8

    def test_mixed_runs_in_the_lower_precision(self):
        seen = []

        def net(n_features, n_classes):
            layer = nn.Linear(n_features, n_classes)
            layer.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
            return layer

        fit(net, precision="bf16-mixed").predict(X)
        assert set(seen) == {torch.bfloat16}

    def test_a_scaled_loss_is_clipped_at_its_own_size(self):
        scaled = fit(optimizer=SGD, precision="fp16-mixed", max_grad_norm=0.01, epochs=1)
        plain = fit(optimizer=SGD, precision="fp32", max_grad_norm=0.01, epochs=1)
        torch.testing.assert_close(weights_of(scaled), weights_of(plain), atol=1e-4, rtol=0)


class TestEarlyStopping:
    def test_stops_and_keeps_the_best_weights(self):
        validation = X[:30], Y[:30]
        model = fit(optimizer=partial(torch.optim.SGD, lr=3.0), epochs=200, patience=5, validation=validation)
        losses = model.validation_loss_curve_
        best = int(losses.argmin())
        assert model.n_epochs_ == len(losses) == len(model.loss_curve_) == best + 1 + 5 < 200
        loss = nn.functional.cross_entropy(model.decision_function(X[:30]), Y[:30])
        assert float(loss) == pytest.approx(losses[best], rel=1e-5)
        assert model.validation_accuracy_curve_[best] == pytest.approx(model.score(X[:30], Y[:30]))

    def test_a_share_of_each_class_is_held_back(self):
        seen = Seen()
        model = fit(validation_fraction=0.2, callbacks=[seen], epochs=2)
        sizes = torch.bincount(Y)
        assert seen.calls[0] == ("start", 2, 101 - int((0.2 * sizes).round().sum()))
        assert model.validation_loss_curve_.shape == (2,)
        assert seen.epochs[1].validation_loss == model.validation_loss_curve_[1]
        assert weights_of(fit(validation_fraction=0.2, epochs=2)).equal(weights_of(model))

    def test_a_class_keeps_its_last_row(self):
        y = torch.zeros(101, dtype=torch.int64)
        y[5] = 1
        model = TorchClassifier(epochs=1, validation_fraction=0.5).fit(X, y)
        assert model.validation_loss_curve_ is not None
        with pytest.raises(DataError, match="of 2 rows holds back no row"):
            TorchClassifier(validation_fraction=0.5).fit(X[:2], [0, 1])

    @pytest.mark.parametrize(
        ("settings", "validation", "error", "match"),
        [
            ({"patience": 3}, None, ConfigError, "patience needs a validation part"),
            ({"validation_fraction": 0.1}, (X, Y), ConfigError, "not both"),
            ({"validation_fraction": 1.5}, None, ConfigError, "between 0 and 1, got 1.5"),
            (
                {},
                (X, Y + 1),
                DataError,
                r"\d+ of 101 validation labels are of no class in y, the first is 3; .* 0, 1, 2",
            ),
            ({}, (X, Y[:5]), ShapeError, r"101 inputs and labels of shape \(5,\)"),
            ({}, (X[:, :2], Y), ShapeError, "X has 2 features"),
            ({}, (X.index_fill(0, torch.tensor([9]), torch.nan), Y), DataError, "validation X .* the first is row 9"),
        ],
    )
    def test_what_is_not_possible(self, settings, validation, error, match):
        with pytest.raises(error, match=match):
            fit(**settings, validation=validation)

    def test_the_best_buffers_come_back_too(self):
        settings = {"optimizer": partial(torch.optim.SGD, lr=3.0), "epochs": 60, "patience": 4, "precision": "fp64"}
        model = fit(NormedNet, batch_size=20, validation=(X[:30], Y[:30]), **settings)
        best = int(model.validation_loss_curve_.argmin())
        assert best + 1 < model.n_epochs_
        loss = nn.functional.cross_entropy(model.decision_function(X[:30]), Y[:30])
        assert float(loss) == pytest.approx(model.validation_loss_curve_[best], rel=1e-9)

    def test_weights_count_in_validation(self):
        weights = torch.linspace(0.1, 3, 101, dtype=torch.float64)
        seen = Seen()
        slow = {"optimizer": partial(torch.optim.SGD, lr=1e-12), "epochs": 1, "precision": "fp64"}
        model = fit(validation_fraction=0.3, sample_weight=weights, callbacks=[seen], class_weight={1: 4.0}, **slow)
        n_train = seen.calls[0][2]
        held = hold_out(TrainingData(X, Y, weights, 3), 0.3, model.seed_)[1]
        assert len(held.codes) == 101 - n_train
        rows = held.weights * torch.where(held.codes == 1, 4.0, 1.0)
        losses = nn.functional.cross_entropy(model.decision_function(held.inputs), held.codes, reduction="none")
        assert model.validation_loss_curve_[0] == pytest.approx(float(rows @ losses / rows.sum()), rel=1e-6)

    def test_dropout_is_off_in_validation(self):
        slow = {"optimizer": partial(torch.optim.SGD, lr=1e-12), "epochs": 2, "validation": (X, Y)}
        curve = fit(DROPOUT_MLP, **slow).validation_loss_curve_
        assert curve[0] == pytest.approx(curve[1], rel=1e-6)

    def test_a_plateau_is_one_of_the_validation_loss(self):
        seen = Seen()
        settings = {"scheduler": partial(ReduceLROnPlateau, patience=0), "epochs": 12, "callbacks": [seen]}
        fit(optimizer=partial(torch.optim.SGD, lr=2.0), validation=(X[:20], Y[:20]), **settings)
        rates = [epoch.learning_rate for epoch in seen.epochs]
        losses = [epoch.validation_loss for epoch in seen.epochs]
        for i in range(1, 11):
            worse = losses[i] >= min(losses[:i]) * (1 - 1e-4)
            assert rates[i + 1] == pytest.approx(rates[i] * (0.1 if worse else 1))

    def test_other_rows_are_held_back_with_another_seed(self):
        parts = [hold_out(TrainingData(X, Y, None, 3), 0.3, seed)[1].inputs for seed in (0, 1)]
        assert not parts[0].equal(parts[1])

    def test_a_few_rows_still_leave_one_to_judge_by(self):
        x, y = X[:12], torch.tensor([0] * 4 + [1] * 5 + [2] * 3)
        model = TorchClassifier(epochs=2, validation_fraction=0.1, patience=1).fit(x, y)
        assert len(model.validation_loss_curve_) >= 1

    def test_a_validation_loss_that_is_not_finite(self):
        bad = X[:30].clone()
        bad[3] = 3e38
        with pytest.raises(DivergenceError, match=r"the validation loss is (nan|inf) after epoch 1 of 4"):
            fit(validation=(bad, Y[:30]), optimizer=SGD)


class TestClassWeight:
    def test_a_class_that_is_not_there_yet_does_not_matter(self):
        y = Y.clamp(max=1)
        settings = {"epochs": 2, "device": "cpu", "batch_size": 1000}
        weighted = TorchClassifier(class_weight={1: 3.0, 9: 5.0}, **settings).fit(X, y)
        assert weights_of(weighted).equal(
            weights_of(TorchClassifier(class_weight={0: 1.0, 1: 3.0}, **settings).fit(X, y))
        )

    def test_is_multiplied_into_the_rows_weights(self):
        model = partial(fit, batch_size=1000, precision="fp64", optimizer=SGD)
        own = torch.linspace(0.5, 1.5, 101, dtype=torch.float64)
        by_class = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)[Y]
        expected = weights_of(model(sample_weight=own * by_class))
        torch.testing.assert_close(weights_of(model(sample_weight=own, class_weight={0: 1, 1: 2, 2: 5})), expected)
        balanced = (101 / (3 * torch.bincount(Y))).double()[Y]
        torch.testing.assert_close(
            weights_of(model(class_weight="balanced")), weights_of(model(sample_weight=balanced))
        )

    @pytest.mark.parametrize("weights", ["even", {7: 1.0}, {0: 0.0, 1: 1.0, 2: 1.0}, {0: np.nan}])
    def test_impossible(self, weights):
        with pytest.raises(ConfigError, match="class_weight"):
            fit(class_weight=weights)


class TestWarmStart:
    def test_goes_on_from_the_last_weights(self):
        cold = TorchClassifier(epochs=1, optimizer=SGD)
        warm = TorchClassifier(epochs=1, optimizer=SGD, warm_start=True)
        first = weights_of(warm.fit(X, Y)).clone()
        assert first.equal(weights_of(cold.fit(X, Y)))
        second = weights_of(warm.fit(X, Y))
        assert not second.equal(first)
        assert warm.loss_curve_[0] < cold.loss_curve_[0]
        assert weights_of(cold.fit(X, Y)).equal(first)

    def test_starts_cold_where_classes_or_rows_are_others(self):
        warm = TorchClassifier(epochs=1, warm_start=True).fit(X, Y)
        cold = TorchClassifier(epochs=1)
        for x, y in ((X, Y.clamp(max=1)), (X[:, :3], Y)):
            assert weights_of(warm.fit(x, y)).equal(weights_of(cold.fit(x, y)))

    def test_a_fit_that_fails_leaves_the_weights_it_went_on_from(self):
        warm = TorchClassifier(epochs=1, warm_start=True, device="cpu").fit(X, Y)
        before = weights_of(warm).clone()
        for validation, error in (((X, Y + 1), DataError), ((X, Y[:4]), ShapeError)):
            with pytest.raises(error):
                warm.fit(X, Y, validation=validation)
            assert weights_of(warm).equal(before)
        with pytest.raises(DataError):
            warm.fit(X * torch.nan, Y)
        assert weights_of(warm).equal(before)
        assert warm.set_params(precision="fp64").fit(X, Y).predict_proba(X).dtype == torch.float64

    def test_other_rows_alone_start_cold(self):
        warm = TorchClassifier(epochs=1, warm_start=True).fit(X, Y)
        assert weights_of(warm.fit(X[:, :3], Y)).equal(weights_of(TorchClassifier(epochs=1).fit(X[:, :3], Y)))


class TestCallbacks:
    def test_the_rate_is_that_of_the_last_step(self):
        seen = Seen()
        halve = partial(StepLR, step_size=1, gamma=0.5)
        fit(optimizer=SGD, scheduler=halve, scheduler_step="batch", batch_size=51, epochs=1, callbacks=[seen])
        assert seen.epochs[0].learning_rate == pytest.approx(0.05)

    def test_all_hear_of_the_end_even_if_one_fails_there(self):
        class Failing(Callback):
            def on_fit_end(self):
                raise RuntimeError("end")

        seen = Seen()
        with pytest.raises(RuntimeError, match="end"):
            fit(callbacks=[seen, Failing()])
        assert seen.calls[-1] == "end"

    def test_any_of_them_may_stop(self):
        assert fit(callbacks=[Seen(), Seen(stop_after=2), Seen()], epochs=9).n_epochs_ == 2

    def test_are_told_of_each_epoch(self):
        seen = Seen()
        model = fit(callbacks=[seen], epochs=3)
        assert seen.calls[0] == ("start", 3, 101)
        assert seen.calls[-1] == "end"
        assert [epoch.number for epoch in seen.epochs] == [1, 2, 3]
        assert [epoch.loss for epoch in seen.epochs] == list(model.loss_curve_)
        assert all(0 <= epoch.accuracy <= 1 and epoch.seconds > 0 for epoch in seen.epochs)
        assert seen.epochs[0].validation_loss is None
        assert weights_of(fit(epochs=3)).equal(weights_of(model))

    def test_accuracy_is_of_the_rows(self):
        seen = Seen()
        fit(callbacks=[seen], epochs=1, batch_size=1000, optimizer=partial(torch.optim.SGD, lr=1e-12))
        untrained = fit(epochs=1, batch_size=1000, optimizer=partial(torch.optim.SGD, lr=1e-12))
        assert seen.epochs[0].accuracy == pytest.approx(untrained.score(X, Y))

    def test_may_stop_and_hear_of_the_end_after_an_error(self):
        seen = Seen(stop_after=2)
        assert fit(callbacks=[seen], epochs=9).n_epochs_ == 2
        failing = Seen()
        with pytest.raises(DivergenceError):
            fit(callbacks=[failing], optimizer=partial(torch.optim.SGD, lr=1e30))
        assert failing.calls[-1] == "end"

    def test_must_be_callbacks(self):
        with pytest.raises(ConfigError, match="callbacks must be"):
            fit(callbacks=[print])


def test_augment_changes_training_batches_only():
    seen = []

    def flip(batch):
        seen.append(len(batch))
        return -batch

    flipped = fit(augment=flip, batch_size=50, epochs=1)
    assert seen == [50, 50, 1]
    mirrored = TorchClassifier(epochs=1, batch_size=50, device="cpu").fit(-X, Y)
    assert weights_of(flipped).equal(weights_of(mirrored))
    assert flipped.decision_function(X).equal(mirrored.decision_function(X))
    assert len(seen) == 3


def test_compiled_training_is_the_same():
    compiled = fit(precision="fp64", compile={"backend": "aot_eager"})
    torch.testing.assert_close(weights_of(compiled), weights_of(fit(precision="fp64")))
    assert type(compiled.module_) is MLP


def test_channels_last_is_the_same():
    def net(n_classes):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, n_classes))

    images = torch.randn(40, 3, 6, 6)
    fitted = [TorchClassifier(net, epochs=2, channels_last=last).fit(images, Y[:40]) for last in (False, True)]
    torch.testing.assert_close(*(model.predict_proba(images) for model in fitted))


class Hungry(MLP):
    """Runs out of memory with more than so many rows."""

    most = 8

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError(f"{len(x)} rows")
        return super().forward(x)


class TestOutOfMemory:
    @pytest.mark.parametrize("weights", [None, torch.linspace(0, 2, 101)])
    def test_smaller_pieces_give_the_same_step_with_one_warning(self, weights):
        settings = {"batch_size": 32, "precision": "fp64", "sample_weight": weights}
        with pytest.warns(UserWarning, match="out of device memory") as caught:
            model = fit(Hungry, **settings)
        assert len(caught) == 1
        torch.testing.assert_close(weights_of(model), weights_of(fit(**settings)))
        np.testing.assert_allclose(model.loss_curve_, fit(**settings).loss_curve_)

    def test_predictions_too(self):
        model = fit(partial(Hungry, hidden=(4,)), batch_size=8)
        with pytest.warns(UserWarning, match="out of device memory") as caught:
            probabilities = model.predict_proba(X)
        assert len(caught) == 1
        model.module_.most = 1000
        torch.testing.assert_close(probabilities, model.predict_proba(X))

    def test_validation_too(self):
        with pytest.warns(UserWarning, match="out of device memory"):
            model = fit(Hungry, batch_size=8, validation=(X, Y), epochs=1)
        expected = fit(batch_size=8, validation=(X, Y), epochs=1)
        np.testing.assert_allclose(model.validation_loss_curve_, expected.validation_loss_curve_, rtol=1e-5)

    def test_pieces_are_even_for_batch_normalization(self):
        class HungryNormed(NormedNet):
            def forward(self, x):
                if len(x) > 12:
                    raise torch.OutOfMemoryError(f"{len(x)} rows")
                return super().forward(x)

        with pytest.warns(UserWarning, match="out of device memory"):
            fit(HungryNormed, batch_size=25, epochs=1)

    def test_one_row_too_many_is_an_error(self, monkeypatch):
        monkeypatch.setattr(Hungry, "most", 0)
        with (
            pytest.warns(UserWarning, match="smaller"),
            pytest.raises(MemoryError, match="a chunk of 1 rows does not fit"),
        ):
            fit(Hungry)


class TestDivergence:
    def test_the_weights_of_the_last_good_epoch_are_kept(self):
        class Explodes(Callback):
            def on_epoch_end(self, epoch):
                if epoch.number == 3:
                    with torch.no_grad():
                        next(epoch.module.parameters()).fill_(torch.inf)

        model = TorchClassifier(epochs=9, callbacks=[Explodes()])
        with pytest.raises(DivergenceError, match="the loss is nan in epoch 4 of 9, batch 1 of 4"):
            model.fit(X, Y)
        assert weights_of(model).equal(weights_of(TorchClassifier(epochs=3).fit(X, Y)))
        assert model.loss_curve_.shape == (3,)
        assert model.predict(X).shape == (101,)
        assert all(p.grad is None for p in model.module_.parameters())

    def test_weights_that_explode_in_the_last_step(self):
        def steep(reduction):
            return lambda logits, targets: 1e6 * nn.functional.cross_entropy(logits, targets, reduction=reduction)

        with pytest.raises(DivergenceError, match="the weights are not finite after epoch 1 of 4, batch 1 of 1"):
            fit(optimizer=partial(torch.optim.SGD, lr=1e38), batch_size=1000, loss=steep)

    def test_an_infinite_loss(self):
        def infinite(reduction):
            return lambda logits, targets: logits.sum(1) * torch.inf

        with pytest.raises(DivergenceError, match=r"the loss is (nan|inf|-inf) in epoch 1 of 4, batch 1 of 4"):
            fit(loss=infinite)


def test_a_loss_with_tensors_of_its_own():
    weighted = partial(nn.CrossEntropyLoss, weight=torch.tensor([1.0, 2.0, 5.0]))
    assert fit(loss=weighted, precision="fp64").predict(X).shape == (101,)


def test_a_recipe_that_keeps_its_body_starts_as_it_is():
    body = nn.Sequential(nn.Linear(6, 16), nn.ReLU())

    def net(n_classes):
        return nn.Sequential(body, nn.Linear(16, n_classes))

    before = body[0].weight.clone()
    model = TorchClassifier(net, epochs=2, device="cpu")
    first = weights_of(model.fit(X, Y)).clone()
    assert body[0].weight.equal(before)
    assert weights_of(model.fit(X, Y)).equal(first)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"callbacks": None}, ConfigError, "callbacks must be a list"),
        ({"loss": nn.CrossEntropyLoss()}, ConfigError, "loss must be a recipe"),
        ({"optimizer": "adam"}, ConfigError, "optimizer must be a recipe: .* got 'adam'"),
        ({"module": None}, ConfigError, "module must be a class"),
        ({"module": lambda: torch.compile(nn.Linear(6, 3))}, ConfigError, "set compile=True instead"),
        ({"module": lambda: nn.Sequential(nn.LazyLinear(3))}, ConfigError, "only a first pass tells"),
        ({"module": lambda: nn.Linear(6, 3).requires_grad_(False)}, ConfigError, "no parameters to train"),
        ({"validation": 0.2}, ConfigError, "validation must be inputs and labels, got float"),
        ({"epochs": 0}, ConfigError, "epochs must be a whole number of at least 1, got 0"),
        ({"batch_size": True}, ConfigError, "batch_size"),
        ({"max_grad_norm": 0}, ConfigError, "max_grad_norm must be above 0, got 0"),
        ({"patience": 0}, ConfigError, "patience"),
        ({"precision": "fp8"}, ConfigError, "one of fp32, fp64, bf16-mixed, fp16-mixed; got 'fp8'"),
        ({"scheduler_step": "year"}, ConfigError, "scheduler_step"),
        ({"channels_last": "no"}, ConfigError, "channels_last must be true or false"),
        ({"warm_start": 1}, ConfigError, "warm_start"),
        ({"num_workers": -1}, ConfigError, "num_workers"),
        ({"compile": "yes"}, ConfigError, "compile"),
        ({"module": lambda: 5}, ConfigError, "module must make an nn.Module, it made a int"),
        (
            {"loss": lambda reduction: lambda logits, y: logits.mean()},
            ShapeError,
            r"one value per row, \(32,\), got \(\)",
        ),
        (
            {"module": lambda: nn.Sequential(nn.Linear(6, 1), nn.Flatten(0))},
            ShapeError,
            r"logits .*, got shape \(32,\)",
        ),
        ({"module": lambda: nn.Flatten()}, ConfigError, "no parameters to train: Flatten"),
    ],
)
def test_impossible_settings(settings, error, match):
    with pytest.raises(error, match=match):
        fit(**settings)


def test_a_module_that_answers_with_something_else():
    class Pair(MLP):
        def forward(self, x):
            return [super().forward(x), x]

    with pytest.raises(CapabilityError, match=r"must answer with logits: .* got list"):
        fit(Pair)


def test_the_estimator_can_be_copied_while_it_has_a_bar():
    model = TorchClassifier(epochs=1, progress=True)
    copy.deepcopy(model.fit(X, Y)).fit(X, Y)


class Softmaxed(nn.Module):
    """A network as skorch wants it, with a softmax at its end."""

    def __init__(self, n_features, n_classes):
        super().__init__()
        self.body, self.head = nn.Linear(n_features, 8), nn.Linear(8, n_classes)

    def forward(self, x):
        return self.head(self.body(x).relu()).softmax(1)


def test_probabilities_in_the_place_of_logits_are_said():
    x, y = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    words = "answers with probabilities .*Leave out its last softmax"
    with pytest.warns(UserWarning, match=f"Softmaxed {words}"):
        model = TorchClassifier(Softmaxed, epochs=1, device="cpu").fit(x, y)
    with pytest.warns(UserWarning, match=f"the module {words}"):
        embed(model.module_, x, layer="head", progress=False)
    with pytest.warns(UserWarning, match=f"Softmaxed {words}"):
        TorchClassifier(Softmaxed, epochs=1, device="cpu").fit_many(x.view(2, 15, 4), y.view(2, 15))
