"""Networks that are called by name, as those of transformers are, on texts of several lengths."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn
from torch.nn import functional as F

from tests.token_nets import Answer, Texts, TokenNet, pad
from torchal import ActiveLearner, DatasetInputs, LabeledData, Pool, TorchClassifier, TorchEnsemble
from torchal.errors import CapabilityError, ConfigError, DataError, ShapeError
from torchal.models import MLP
from torchal.models.networks.dropout import _uniform_by_place
from torchal.samplers import BALD, Badge, KCenterGreedy, Margin

TEXTS = Texts(60)
INPUTS, LABELS = DatasetInputs(TEXTS, collate=pad), TEXTS.labels
OUTPUTS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")


def make(module=TokenNet, **settings):
    settings = {"optimizer": partial(torch.optim.Adam, lr=0.02), "epochs": 6, "batch_size": 16} | settings
    return TorchClassifier(module, num_workers=0, device="cpu", **settings)


def weights_of(model):
    return torch.cat([p.detach().flatten() for p in model.module_.parameters()])


@pytest.fixture(scope="module")
def fitted():
    return make().fit(INPUTS, LABELS)


class Attentive(TokenNet):
    """With dropout of attention weights, whose shape is the texts' length twice, and of positions."""

    def __init__(self, n_classes):
        super().__init__(n_classes, dropout=0.3)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.to(self.words.weight.dtype)
        words = self.dropout(self.words(input_ids))
        weights = (words @ words.mT).masked_fill(mask[:, None] == 0, -torch.inf).softmax(2)
        words = F.dropout(weights, 0.2, self.training) @ words
        words = (words * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        return {"logits": self.head(self.hidden(words).relu())}


class DropsLate(TokenNet):
    """With dropout of what has one shape for all texts, so that draws can be made side by side."""

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(2).to(self.words.weight.dtype)
        mean = (self.words(input_ids) * mask).sum(1) / mask.sum(1)
        return Answer(self.head(F.dropout(self.hidden(mean).relu(), 0.4, self.training)))


class TestFit:
    def test_learns_and_never_sees_a_label(self, fitted):
        assert fitted.score(INPUTS, LABELS) > 0.9
        assert fitted.module_.n_labels_seen == 0
        assert fitted.loss_curve_[-1] < fitted.loss_curve_[0] / 2
        held_out = Texts(40, seed=1)
        assert fitted.score(DatasetInputs(held_out, collate=pad), held_out.labels) > 0.9

    def test_padding_changes_nothing_but_the_last_bits(self, fitted):
        for name in OUTPUTS:
            whole = getattr(fitted, name)(INPUTS)
            alone = torch.cat([getattr(fitted, name)(INPUTS[i : i + 1]) for i in range(60)])
            torch.testing.assert_close(whole, alone)
        features, logits = fitted.outputs(INPUTS)
        assert features.equal(fitted.transform(INPUTS))
        weight, bias = fitted.last_layer(INPUTS[:3])
        torch.testing.assert_close(features @ weight.T + bias, logits)

    def test_chunks_are_put_together_in_order(self, fitted, monkeypatch):
        whole = fitted.decision_function(INPUTS)
        monkeypatch.setattr("torchal.models.rows._NAMED_ROWS", (7, 7))
        torch.testing.assert_close(fitted.decision_function(INPUTS), whole)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_same_seed_gives_the_same_weights(self, fitted, workers):
        again = make().set_params(num_workers=workers).fit(INPUTS, LABELS)
        assert weights_of(again).equal(weights_of(fitted))
        assert weights_of(clone(again).fit(INPUTS[torch.arange(60)], LABELS)).equal(weights_of(fitted))
        assert not weights_of(make(random_state=1).fit(INPUTS, LABELS)).equal(weights_of(fitted))

    def test_fixed_shapes_need_no_collate_and_give_what_one_tensor_would(self):
        x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        y = (x[:, 0] > 0).long()

        class Named(MLP):
            def forward(self, numbers):
                return super().forward(numbers)

        def recipe(n_classes):
            return Named(4, n_classes)

        by_name = make(recipe).fit(DatasetInputs([{"numbers": row.tolist(), "label": 3} for row in x]), y)
        assert weights_of(by_name).equal(weights_of(make(MLP).fit(x, y)))
        assert by_name.input_shape_ == {"numbers": (4,)}

    def test_early_stopping_and_a_part_to_validate_on(self):
        held_out = Texts(30, seed=1)
        validation = DatasetInputs(held_out, collate=pad), held_out.labels
        model = make(epochs=40, validation_fraction=0.3, patience=3).fit(INPUTS, LABELS)
        assert len(model.validation_loss_curve_) == model.n_epochs_
        given = make(epochs=40, patience=3, calibrated=True).fit(INPUTS, LABELS, validation=validation)
        assert given.validation_accuracy_curve_[-1] > 0.8
        assert given.temperature_ != 1
        best = int(np.argmin(given.validation_loss_curve_))
        logits = given.module_(**validation[0].read(list(range(30))).tensors).logits
        loss = F.cross_entropy(logits.detach(), held_out.labels)
        assert float(loss) == pytest.approx(given.validation_loss_curve_[best], 1e-5)

    def test_weights_of_classes_and_rows(self, fitted):
        assert not weights_of(make(class_weight={0: 5.0}).fit(INPUTS, LABELS)).equal(weights_of(fitted))
        kept = torch.arange(60) < 40
        some = make().fit(INPUTS, LABELS, sample_weight=kept)
        assert weights_of(some).equal(weights_of(make().fit(INPUTS[:40], LABELS[:40])))

    def test_warm_starts_go_on(self):
        model = make(epochs=2, warm_start=True).fit(INPUTS, LABELS)
        before = model.loss_curve_[-1]
        assert model.fit(INPUTS, LABELS).loss_curve_[0] < before

    def test_a_training_data_set_and_augmentation(self, fitted):
        other = DatasetInputs(TEXTS, train=Texts(60, seed=9), collate=pad)
        assert not weights_of(make().fit(other, LABELS)).equal(weights_of(fitted))
        seen = []

        def drop_words(tensors):
            seen.append(sorted(tensors))
            return tensors | {"attention_mask": torch.ones_like(tensors["attention_mask"])}

        augmented = make(augment=drop_words, epochs=1).fit(INPUTS, LABELS)
        assert seen == [["attention_mask", "input_ids"]] * 4
        assert not weights_of(augmented).equal(weights_of(make(epochs=1).fit(INPUTS, LABELS)))
        with pytest.raises(ConfigError, match="augment must answer a mapping of tensors with one, got Tensor"):
            make(augment=lambda tensors: tensors["input_ids"]).fit(INPUTS, LABELS)

    def test_out_of_memory_batches_go_in_pieces(self, fitted):
        class Small(TokenNet):
            def forward(self, input_ids, attention_mask):
                if self.training and len(input_ids) > 5:
                    raise torch.OutOfMemoryError("too small")
                return super().forward(input_ids, attention_mask)

        settings = {"module": partial(Small, dropout=0.0), "precision": "fp64"}
        with pytest.warns(UserWarning, match="out of device memory"):
            pieces = make(**settings).fit(INPUTS, LABELS)
        whole = make(**settings | {"module": partial(TokenNet, dropout=0.0)}).fit(INPUTS, LABELS)
        torch.testing.assert_close(weights_of(pieces), weights_of(whole))

    def test_several_fits(self):
        ensemble = TorchEnsemble(make(epochs=2), n_members=2).fit(INPUTS, LABELS)
        assert ensemble.transform(INPUTS).shape == (60, 12)
        assert ensemble.sample_log_probs(INPUTS, 2).shape == (60, 2, 2)
        assert len({member.seed_ for member in ensemble.estimators_}) == 2


class TestAnswers:
    @pytest.mark.parametrize(
        "answer",
        [lambda logits: (logits, None), lambda logits: {"logits": logits}, Answer],
        ids=["tuple", "mapping", "object"],
    )
    def test_of_one_tensor_too(self, answer):
        class Speaking(MLP):
            def forward(self, x):
                return answer(super().forward(x))

        x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
        y = (x[:, 0] > 0).long()
        model, plain = (make(net, validation_fraction=0.2).fit(x, y) for net in (Speaking, MLP))
        for name in OUTPUTS:
            assert getattr(model, name)(x).equal(getattr(plain, name)(x))
        many = make(Speaking).fit_many(x.reshape(2, 20, 3), y.reshape(2, 20))
        alone = make(MLP).fit_many(x.reshape(2, 20, 3), y.reshape(2, 20))
        torch.testing.assert_close(weights_of(many[1]), weights_of(alone[1]))

    def test_of_no_logits(self):
        class Silent(TokenNet):
            def forward(self, input_ids, attention_mask):
                return [super().forward(input_ids, attention_mask).logits]

        with pytest.raises(CapabilityError, match=r"must answer with logits: .* got list"):
            make(Silent).fit(INPUTS, LABELS)


class MasksIfNeeded(TokenNet):
    """Looks at the mask only where something is masked, as transformers do."""

    def forward(self, input_ids, attention_mask):
        words = self.dropout(self.words(input_ids))
        if not attention_mask.all():
            words = words * attention_mask[torch.arange(len(words))].unsqueeze(2)
        return Answer(self.head(self.hidden(words.mean(1)).relu()))


class TestDraws:
    def test_of_rows_with_padding_after_rows_without(self):
        model = make(partial(MasksIfNeeded, dropout=0.3), epochs=1).fit(INPUTS, LABELS)
        lengths = torch.tensor([len(item["input_ids"]) for item in Texts(60).items])
        longest = lengths.argsort(descending=True, stable=True)[:2]
        assert lengths[longest].unique() == lengths.max()
        shorter = (lengths < lengths.max()).nonzero().squeeze(1)[:5]
        order = torch.cat([longest, shorter])  # the first two have no padding
        drawn = model.sample_log_probs(INPUTS[order], 4)
        padded = model.sample_log_probs(INPUTS[order.flip(0)], 4)  # here the first two are not of one length
        torch.testing.assert_close(drawn, padded.flip(0))

    @pytest.mark.parametrize("net", [partial(TokenNet, dropout=0.3), Attentive, DropsLate])
    def test_by_dropout_are_functions_whatever_the_padding(self, net):
        model = make(net, epochs=2).fit(INPUTS, LABELS)
        whole = model.sample_log_probs(INPUTS, 4)
        assert whole.exp().std(1).mean() > 1e-3
        order = torch.tensor([17, 3, 44])
        torch.testing.assert_close(model.sample_log_probs(INPUTS[order], 4), whole[order])
        for row in (0, 31, 59):
            torch.testing.assert_close(model.sample_log_probs(INPUTS[row : row + 1], 4)[0], whole[row])

    def test_by_laplace(self):
        model = make(posterior="laplace").fit(INPUTS, LABELS)
        whole = model.sample_log_probs(INPUTS, 3)
        torch.testing.assert_close(model.sample_log_probs(INPUTS[5:6], 3)[0], whole[5])

    def test_without_dropout_there_are_none(self):
        model = make(partial(TokenNet, dropout=0.0), epochs=1)
        with pytest.raises(CapabilityError, match="TokenNet has no dropout to draw with"):
            model.fit(INPUTS, LABELS).sample_log_probs(INPUTS, 2)
        with pytest.raises(CapabilityError, match="TokenNet has no dropout to draw with"):
            ActiveLearner(model, BALD(), Pool.unlabeled(INPUTS, n_classes=2))
        assert model.set_params(posterior="auto").fit(INPUTS, LABELS).posterior_ == "laplace"

    def test_masks_of_two_shapes_agree_where_both_are(self):
        large = _uniform_by_place((3, 2, 0, 1), (2, 50, 40))
        assert (_uniform_by_place((3, 2, 0, 1), (2, 7, 11)) == large[:, :7, :11]).all()
        assert not (_uniform_by_place((3, 2, 0, 2), (2, 50, 40)) == large).any()
        n, standard = large.size, 12**-0.5
        assert abs(large.mean() - 0.5) < 4 * standard / n**0.5
        assert abs(large.std() - standard) < 0.01
        assert len(np.unique(large)) == n
        for axis in range(3):  # no place tells of its neighbour
            pairs = [np.delete(large, end, axis).ravel() for end in (0, -1)]
            assert abs(np.corrcoef(pairs)[0, 1]) < 5 / n**0.5


class TestShapes:
    def test_are_by_name(self, fitted):
        assert fitted.input_shape_ == {"input_ids": (None,), "attention_mask": (None,)}
        assert fitted.n_features_in_ == 2

    def test_the_recipe_is_told_the_shape_by_name(self):
        told = []

        def recipe(input_shape, n_classes):
            told.append(input_shape)
            return TokenNet(n_classes)

        make(recipe, epochs=1).fit(INPUTS, LABELS)
        assert told == [{"input_ids": (None,), "attention_mask": (None,)}]

    def test_a_recipe_that_counts_features(self):
        with pytest.raises(ConfigError, match=r"MLP asks for n_features, .* \(input_ids, attention_mask\)"):
            make(MLP).fit(INPUTS, LABELS)

    @pytest.mark.parametrize(
        "other",
        [
            torch.zeros(3, 2),
            np.zeros((3, 2)),
            DatasetInputs([{"input_ids": [1]}]),
            DatasetInputs([{"input_ids": [[1]], "attention_mask": [[1]]}]),
            DatasetInputs(list(torch.zeros(3, 2))),
        ],
        ids=["tensor", "array", "a name less", "an axis more", "no names"],
    )
    def test_rows_of_another_kind(self, fitted, other):
        with pytest.raises(ShapeError, match=r"X has rows of .*, fitted were rows of \{'input_ids': \(None,\)"):
            fitted.predict(other)

    def test_columns_are_no_rows(self):
        with pytest.raises(DataError, match=r"X must be rows, got a dict of 2 columns; see torchal\.DatasetInputs"):
            make().fit(INPUTS.read([0, 1]).tensors, LABELS[:2])

    def test_rows_of_the_same_kind_that_another_collate_made(self, fitted):
        items = DatasetInputs([{"attention_mask": [1, 1], "input_ids": [3, 4]}])
        assert fitted.predict(items).shape == (1,)

    def test_values_that_are_not_finite_are_named(self):
        class Named(MLP):
            def forward(self, ages):
                return super().forward(ages)

        ages = [{"ages": [float(i), 1.0]} for i in range(20)]
        model = make(lambda n_classes: Named(2, n_classes), epochs=1).fit(DatasetInputs(ages), LABELS[:20])
        ages[13] = {"ages": [1.0, float("nan")]}
        with pytest.raises(DataError, match=r"X\['ages'\] must be finite: 1 of 20 rows are not, the first is row 13"):
            model.predict(DatasetInputs(ages))

    def test_saved_and_loaded(self, fitted, tmp_path):
        fitted.save(tmp_path / "model.pt")
        loaded = make().load(tmp_path / "model.pt")
        assert loaded.input_shape_ == fitted.input_shape_
        assert loaded.n_features_in_ == 2
        for name in OUTPUTS:
            assert getattr(loaded, name)(INPUTS).equal(getattr(fitted, name)(INPUTS))
        assert loaded.sample_log_probs(INPUTS, 2).equal(fitted.sample_log_probs(INPUTS, 2))


class TestLearner:
    @pytest.mark.parametrize(
        "sampler", [Margin(), Badge(), KCenterGreedy(), BALD()], ids=lambda one: type(one).__name__
    )
    def test_asks_and_is_told(self, sampler, tmp_path):
        def learner():
            parts = LabeledData(DatasetInputs(Texts(20, seed=5), collate=pad), Texts(20, seed=5).labels)
            pool = Pool.unlabeled(INPUTS, n_classes=2)
            return ActiveLearner(make(epochs=2), sampler, pool, validation=parts, test=parts, seed=3)

        first = learner()
        rows = first.ask(8)  # drawn, before there are two classes
        assert rows.equal(ActiveLearner(make(), Margin(), Pool.unlabeled(INPUTS, n_classes=2), seed=3).ask(8))
        first.tell(rows, LABELS[rows])
        asked = first.ask(6)
        assert len(asked.unique()) == 6
        assert not torch.isin(asked, rows).any()
        first.save(tmp_path / "learner.pt")
        second = learner()
        second.load(tmp_path / "learner.pt")
        for one in (first, second):
            one.tell(asked, LABELS[asked])
        assert first.ask(5).equal(second.ask(5))
        assert [result.test["accuracy"] for result in first.history] == [
            result.test["accuracy"] for result in second.history
        ]

    def test_picks_are_of_the_networks_outputs(self):
        pool = Pool.unlabeled(INPUTS, n_classes=2).with_labels(torch.arange(10), LABELS[:10])
        model = make(epochs=2).fit(*pool.training_data())
        view = pool.view(model, generator=torch.Generator())
        assert view.features.equal(model.transform(INPUTS))
        doubt = view.scores[:, 0].abs().masked_fill(pool.labeled, torch.inf)
        assert Margin().select(view, 1).indices.tolist() == [int(doubt.argmin())]

    def test_refits(self):
        pool = Pool.unlabeled(INPUTS, n_classes=2).with_labels(torch.arange(10), LABELS[:10])
        view = pool.view(make(epochs=1).fit(*pool.training_data()), generator=torch.Generator())
        assert view.refit(torch.tensor([[11], [12]]), torch.tensor([[1], [0]])).log_probs.shape == (2, 60, 2)


@pytest.mark.gpu
class TestDevice:
    def test_there_it_gives_the_same(self):
        settings = {"epochs": 2, "precision": "fp64"}
        net = partial(TokenNet, dropout=0.0)
        there = make(net, **settings).set_params(device="cuda").fit(INPUTS, LABELS)
        assert there.predict_proba(INPUTS).device.type == "cuda"
        here = make(net, **settings).fit(INPUTS, LABELS)
        torch.testing.assert_close(there.predict_proba(INPUTS).cpu(), here.predict_proba(INPUTS))

    @pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of a fork beside CUDA's threads
    def test_workers_and_draws(self):
        model = make(Attentive, epochs=2).set_params(device="cuda", num_workers=2).fit(INPUTS, LABELS)
        whole = model.sample_log_probs(INPUTS, 3)
        torch.testing.assert_close(model.sample_log_probs(INPUTS[7:8], 3)[0], whole[7], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("precision", ["bf16-mixed", "fp16-mixed"])
    def test_mixed_precision(self, precision):
        model = make(precision=precision).set_params(device="cuda").fit(INPUTS, LABELS)
        assert model.score(INPUTS, LABELS) > 0.9
        assert isinstance(model.module_, nn.Module)
