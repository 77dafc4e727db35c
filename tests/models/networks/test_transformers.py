"""The real thing, where it is installed: `pip install transformers datasets`. Nothing is downloaded."""

from functools import partial

import pytest
import torch

from tests.token_nets import Texts
from torchal import ActiveLearner, DatasetInputs, Pool, TorchClassifier, embed
from torchal.errors import DataError, ShapeError
from torchal.samplers import Badge, KCenterGreedy, Margin

transformers = pytest.importorskip("transformers", reason="they are in the dev extra")
datasets = pytest.importorskip("datasets", reason="they are in the dev extra")

TEXTS = Texts(80)
LABELS = TEXTS.labels


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[PAD]": 0, "[UNK]": 1} | {f"w{i}": i + 2 for i in range(98)}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture(scope="module")
def texts():
    words = [" ".join(f"w{i}" for i in item["input_ids"]) for item in TEXTS.items]
    return datasets.Dataset.from_dict({"text": words, "label": LABELS.tolist()})


@pytest.fixture(scope="module")
def encoded(texts, tokenizer):
    datasets.disable_progress_bars()
    return texts.map(lambda batch: tokenizer(batch["text"]), batched=True, remove_columns=["text"])


@pytest.fixture(scope="module")
def inputs(encoded, tokenizer):
    return DatasetInputs(encoded, collate=transformers.DataCollatorWithPadding(tokenizer))


def bert(n_classes, attention="sdpa"):
    config = transformers.BertConfig(
        vocab_size=100,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=n_classes,
        attn_implementation=attention,
    )
    return transformers.BertForSequenceClassification(config)


def distilbert(n_classes):
    config = transformers.DistilBertConfig(
        vocab_size=100, dim=16, n_layers=1, n_heads=2, hidden_dim=32, max_position_embeddings=32, num_labels=n_classes
    )
    return transformers.DistilBertForSequenceClassification(config)


def make(module=bert, **settings):
    settings = {"epochs": 8, "batch_size": 16, "num_workers": 0, "device": "cpu"} | settings
    return TorchClassifier(module, optimizer=partial(torch.optim.AdamW, lr=5e-3), **settings)


@pytest.mark.parametrize("module", [bert, partial(bert, attention="eager"), distilbert])
def test_trained_and_padded_as_it_comes(inputs, module):
    model = make(module, validation_fraction=0.2, patience=4).fit(inputs, LABELS)
    assert model.score(inputs, LABELS) > 0.85
    some = torch.tensor([3, 20, 71])
    for name in ("predict_proba", "transform"):
        whole = getattr(model, name)(inputs)
        alone = torch.cat([getattr(model, name)(inputs[int(i) : int(i) + 1]) for i in some])
        torch.testing.assert_close(alone, whole[some], rtol=1e-4, atol=1e-5)
    draws = model.sample_log_probs(inputs, 3)
    assert draws.exp().std(1).mean() > 1e-3
    for i in some:
        alone = model.sample_log_probs(inputs[int(i) : int(i) + 1], 3)[0]
        torch.testing.assert_close(alone, draws[i], rtol=1e-4, atol=1e-5)
    features, logits = model.outputs(inputs)
    weight, bias = model.last_layer(inputs)
    torch.testing.assert_close(features @ weight.T + bias, logits, rtol=1e-4, atol=1e-5)
    found = embed(model.module_, inputs, batch_size=64, progress=False)
    torch.testing.assert_close(found.features, features, rtol=1e-4, atol=1e-5)


def test_saved_and_gone_on_with(inputs, tmp_path):
    model = make(epochs=2, warm_start=True).fit(inputs, LABELS)
    model.save(tmp_path / "model.pt")
    loaded = make(epochs=2, warm_start=True).load(tmp_path / "model.pt")
    assert loaded.predict_proba(inputs).equal(model.predict_proba(inputs))
    assert loaded.fit(inputs, LABELS).loss_curve_[0] < model.loss_curve_[0]


@pytest.mark.parametrize("sampler", [Margin(), Badge(), KCenterGreedy()], ids=lambda sampler: type(sampler).__name__)
def test_a_pool_is_asked(inputs, sampler, tmp_path):
    learner = ActiveLearner(make(epochs=2), sampler, Pool.unlabeled(inputs, n_classes=2))
    rows = learner.ask(8)
    learner.tell(rows, LABELS[rows])
    assert len(set(learner.ask(5).tolist()) - set(rows.tolist())) == 5
    learner.save(tmp_path / "learner.pt")
    again = ActiveLearner(make(epochs=2), sampler, Pool.unlabeled(inputs, n_classes=2))
    again.load(tmp_path / "learner.pt")
    assert again.asked.equal(learner.asked)


def test_texts_that_collate_turns_to_tokens(texts, tokenizer, inputs):
    def tokenize(items):
        return tokenizer([item["text"] for item in items], padding=True, return_tensors="pt")

    by_batch = make(epochs=1).fit(DatasetInputs(texts, collate=tokenize), LABELS)
    ready = make(epochs=1).fit(inputs, LABELS)
    assert by_batch.predict_proba(inputs).equal(ready.predict_proba(inputs))


def test_a_data_set_is_a_pool_by_itself_where_it_needs_no_padding(texts, encoded, tokenizer):
    def of_one_length(batch):
        return tokenizer(batch["text"], padding="max_length", max_length=9)

    even = texts.map(of_one_length, batched=True, remove_columns=["text"])
    pool = Pool.unlabeled(even, n_classes=2)
    assert pool.inputs.names() == ["input_ids", "attention_mask"]
    assert Pool.unlabeled(even.with_format("torch"), n_classes=2).inputs.read([0]).tensors["input_ids"].shape == (1, 9)
    assert make(epochs=1).fit(even, LABELS).predict(even).shape == (80,)
    with pytest.raises(DataError, match=r"row 0 of the data set \(Dataset\) cannot be read: 'text' is no tensor"):
        Pool.unlabeled(texts, n_classes=2)
    with pytest.raises(ShapeError, match=r"all rows must have one shape of 'input_ids'.* give collate="):
        Pool.unlabeled(encoded, n_classes=2)
