"""
A transformer of Hugging Face
=============================

You train a transformer on texts with the libraries of Hugging Face, and labels are what you lack. A tokenized
``datasets.Dataset`` is a pool as it is, any model of transformers is a model as it is, and its collator pads the
batches. This tutorial puts them together, trains a little, and lets a strategy that asks *what the model would learn*
choose the next texts.
"""

# %%
# Texts and tokens
# ----------------
# The texts are what SciPy's documentation says of its functions, in a sentence or two, and the label is the part of
# SciPy. They are here already, in the docstrings.

import importlib
import re
from functools import partial

import datasets
import matplotlib.pyplot as plt
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from torchal import ActiveLearner, DatasetInputs, LabeledData, Pool, TorchClassifier
from torchal.report import map_coordinates
from torchal.samplers import BALD, Badge

datasets.disable_progress_bars()
PARTS = ["ndimage", "optimize", "signal", "stats"]
texts, labels = [], []
for part in PARTS:
    module = importlib.import_module(f"scipy.{part}")
    for name in module.__all__:
        parts = (getattr(module, name).__doc__ or "").strip().split("\n\n")[:3]
        sentence = " ".join(" ".join(p.split()) for p in parts if not re.match(r"\w+\(|Parameters|See Also", p.strip()))
        if len(sentence.split()) > 4:
            texts.append(sentence)
            labels.append(part)
order = np.random.default_rng(0).permutation(len(texts))
data = datasets.Dataset.from_dict({"text": [texts[i] for i in order], "part": [labels[i] for i in order]})
test_data, data = data.select(range(150)), data.select(range(150, len(data)))
print(data)

# %%
# With a network connection, tokenizer and model are somebody's, trained on more text than there is in SciPy:
#
# .. code-block:: python
#
#     tokenizer = transformers.AutoTokenizer.from_pretrained("distilbert-base-uncased")
#
#     def module(n_classes):
#         return transformers.AutoModelForSequenceClassification.from_pretrained(
#             "distilbert-base-uncased", num_labels=n_classes
#         )
#
# Here both are small and made on the spot: a tokenizer of the pool's own words, and a DistilBERT of one layer with
# random weights. *It knows no English*, and what it comes to is far from what a pretrained one would; every line after
# this block is the same.

raw = Tokenizer(models.WordLevel(unk_token="[UNK]"))
raw.normalizer = normalizers.Lowercase()
raw.pre_tokenizer = pre_tokenizers.Whitespace()
raw.train_from_iterator(data["text"], trainers.WordLevelTrainer(vocab_size=2000, special_tokens=["[PAD]", "[UNK]"]))
tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")


def module(n_classes):
    config = transformers.DistilBertConfig(
        vocab_size=2000, dim=64, n_layers=1, n_heads=4, hidden_dim=128, max_position_embeddings=64,
        num_labels=n_classes, dropout=0.2, seq_classif_dropout=0.2,
    )  # fmt: skip
    return transformers.DistilBertForSequenceClassification(config)


# %%
# Tokenizing is done once, by ``map``. Rows are then mappings of different lengths; ``DataCollatorWithPadding`` pads
# each batch to its longest row, and the mask says where. Columns called ``label`` or ``labels`` would be left out: a
# network must not see them, and torchal computes the loss.


def tokenize(batch):
    return tokenizer(batch["text"], truncation=True, max_length=64)


collate = transformers.DataCollatorWithPadding(tokenizer)
inputs, test_inputs = (
    DatasetInputs(part.map(tokenize, batched=True, remove_columns=["text", "part"]), collate=collate)
    for part in (data, test_data)
)
print(inputs.names(), tuple(inputs.read([0, 1, 2]).tensors["input_ids"].shape))

# %%
# The learner
# -----------
# ``module`` is called anew for each fit, so that each round begins with the same pretrained weights and not with those
# of the round before. For a fine-tuned transformer a learning rate of 2e-5 to 5e-5 and three to five epochs are usual;
# weights from nothing need more.

model = TorchClassifier(
    module,
    optimizer=partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.01),
    scheduler=torch.optim.lr_scheduler.CosineAnnealingLR,
    epochs=15,
    batch_size=16,
    num_workers=0,
)
test = LabeledData(test_inputs, test_data["part"])
learner = ActiveLearner(model, Badge(), Pool.unlabeled(inputs, classes=PARTS), test=test, seed=0)

# %%
# :class:`torchal.samplers.Badge` looks at the gradients of the last layer: large ones, of which the model would learn
# much, in directions that differ. The first forty texts are drawn at random, since there is no model yet.

truth = np.array(data["part"])
maps = []
for _ in range(4):
    rows = learner.ask(40)
    learner.tell(rows, truth[rows.numpy()].tolist())
    result = learner.finish_round()
    maps.append((result.n_labeled, learner.model.outputs(inputs).features))
    print(f"{result.n_labeled} labels: accuracy {result.test['accuracy']:.3f}, log-loss {result.test['log_loss']:.3f}")

# %%
# What the network makes of the texts, after the first round and after the last: what goes into its last layer, by its
# first two principal components. Colours are the truth. In the middle is what it cannot tell apart yet.

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axis, (n_labeled, features) in zip(axes, (maps[0], maps[-1]), strict=True):
    xy = map_coordinates(features, generator=torch.Generator().manual_seed(0)).xy
    for part in PARTS:
        axis.scatter(*xy[truth == part].T, s=8, alpha=0.6, linewidth=0, label=part)
    axis.set(xticks=[], yticks=[], title=f"{n_labeled} labels")
axes[1].legend(markerscale=2, fontsize=8)
plt.show()

# %%
# Dropout as a committee
# ----------------------
# The network has dropout, so that it can be asked several times with other parts of it switched off. Where these
# answers contradict each other, a label would tell the model something about itself; where all say "half, half", the
# text is simply unclear. :class:`torchal.samplers.BALD` wants the former, and margin sampling cannot tell them apart.

view = learner.pool.view(learner.model, generator=torch.Generator().manual_seed(0))
picks = BALD().select(view, 3).indices
draws = learner.model.sample_log_probs(inputs[picks], 5).exp()
for row, several in zip(picks.tolist(), draws, strict=True):
    says = [PARTS[int(one)] for one in several.argmax(1)]
    print(f"{truth[row]:>8}: {data['text'][row][:70]}\n{'':>10}five answers: {', '.join(says)}")

# %%
# What can go wrong
# -----------------
# * **Warm starts by accident.** A ``module`` that returns the *same* network each time trains on from the last round.
# * **Truncation.** Two texts that differ after token 64 are one to the network, and both are asked for.
# * **The pool pass takes longer than the training.** With a frozen encoder, compute its vectors once
#   (:doc:`plot_texts`). Otherwise ask among a random part of the pool: ``SubPool(Badge(), n_rows=5000)``.
# * **Mixed precision and GPUs** are settings: ``TorchClassifier(..., precision="bf16-mixed")``; the device is the GPU
#   where there is one.
#
# Questions and answers as data sets of Hugging Face, and Argilla, are in :doc:`/guides/labeling_tools`.
