"""
Texts from a CSV file
=====================

You have a CSV file with a column of texts and nobody who wants to read all of them. Two ways lead from texts to rows
that a strategy can choose among. Word counts (tf-idf) need no other model and are hard to beat with short texts and a
few hundred labels; vectors of a sentence encoder know that *mean* and *average* are alike, and are computed once. This
tutorial goes both ways on the same file.
"""

# %%
# A file of texts
# ---------------
# The texts are what the docstrings of five installed libraries say in prose, and the label is the library that a text
# is from: real sentences that people wrote, and no download. First, they go to a CSV file, as yours are in one.

import importlib
import inspect
import re
import tempfile
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.manifold import TSNE
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

from torchal import ActiveLearner, LabeledData, LogisticRegression, Pool, PoolView, Schedule, functional, rounds
from torchal.exchange import Question, write_questions
from torchal.models import LinearSVM
from torchal.samplers import Margin, TypiClust, Uniform
from torchal.statistics import compare, mean_interval

MODULES = {
    "numpy": "numpy numpy.linalg numpy.ma numpy.polynomial numpy.random numpy.strings",
    "scipy": "scipy.ndimage scipy.optimize scipy.signal scipy.spatial scipy.special scipy.stats",
    "scikit-learn": "sklearn.cluster sklearn.ensemble sklearn.linear_model sklearn.metrics sklearn.preprocessing",
    "pandas": "pandas pandas.api.types pandas.tseries.offsets",
    "torch": "torch torch.distributions torch.nn torch.optim torch.utils.data",
}
SECTION = re.compile(r"\n\s*(?:[A-Z]\w+\n\s*---|Args|Arguments|Examples?|Shape|Returns?|\.\. )")


def prose(docstring):
    paragraphs = [" ".join(part.split()) for part in SECTION.split("\n" + docstring)[0].split("\n\n")]
    return " ".join(part for part in paragraphs if not re.match(r"\w+\(", part))[:400]


def documented(module):
    for name, thing in inspect.getmembers(importlib.import_module(module), callable):
        yield f"{module}.{name}", thing
        if inspect.isclass(thing) and module == "pandas":  # which documents methods, where others have functions
            yield from ((f"{module}.{name}.{key}", value) for key, value in vars(thing).items())


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of names that are going to be removed
    found = [
        (name, library, prose(inspect.getdoc(thing) or ""))
        for library, modules in MODULES.items()
        for module in modules.split()
        for name, thing in documented(module)
        if "._" not in name
    ]
table = pd.DataFrame(found, columns=["id", "library", "text"])
table = table[table.text.str.split().str.len() >= 8].drop_duplicates("text").drop_duplicates("id")
folder = tempfile.TemporaryDirectory()
texts_csv = Path(folder.name, "texts.csv")
table.sample(frac=1, random_state=0).to_csv(texts_csv, index=False)

# %%
# From here on it is your file. In yours the column of labels is empty; in this one it answers in place of a person.

table = pd.read_csv(texts_csv, keep_default_na=False)
test_table, table = table.iloc[:600], table.iloc[600:].reset_index(drop=True)
print(table.library.value_counts().to_string())
for row in table.iloc[:3].itertuples():
    print(f"{row.library:>12}: {row.text[:80]}")

# %%
# The first way: word counts
# --------------------------
# ``TfidfVectorizer`` needs no labels, so that it may read the whole pool. Its matrix stays sparse: the pool, the
# models :class:`torchal.models.LinearSVM` and :class:`torchal.LogisticRegression`, and the strategies that look at
# scores all read it as it is. With a list, ``C`` is tuned at each fit: the best one for 30 labels is not that for 300.

tfidf = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
words, test_words = tfidf.fit_transform(table.text), tfidf.transform(test_table.text)
print(
    f"{words.shape[0]} texts, {words.shape[1]} words and pairs of words, {words.nnz / np.prod(words.shape):.2%} filled"
)

libraries = sorted(table.library.unique())
pool = Pool.unlabeled(words, classes=libraries)
test = LabeledData(test_words, list(test_table.library))
svm = LinearSVM(C=[0.1, 1.0, 10.0])
learner = ActiveLearner(svm, Margin(), pool, test=test)
rows = learner.ask(30)  # at random, for there is no label yet
learner.tell(rows, table.library[rows.tolist()].tolist())
for row in learner.ask(5).tolist():
    print(f"- {table.text[row][:100]}")

# %%
# These five are what the model, after thirty labels, finds hardest to tell apart. A person gets them as a file: a
# spreadsheet with an empty column, or the project of a labeling tool, see :doc:`plot_labeling_tools`.

questions = [
    Question(table.id[row], rank, score, "Margin", text=table.text[row])
    for rank, (row, score) in enumerate(zip(learner.asked.tolist(), learner.scores_of(learner.asked), strict=True), 1)
]
write_questions(questions, Path(folder.name, "to_label.csv"))
print(Path(folder.name, "to_label.csv").read_text().splitlines()[0])

# %%
# The second way: a sentence encoder
# ----------------------------------
# An encoder reads each text once, and its vectors go to a file. With sentence-transformers that is
#
# .. code-block:: python
#
#     from sentence_transformers import SentenceTransformer
#
#     encoder = SentenceTransformer("all-MiniLM-L6-v2")
#     vectors = encoder.encode(table.text.tolist(), normalize_embeddings=True)  # (N, 384) float32
#     np.save("vectors.npy", vectors)
#
# It is not run here, since it would download weights. In its place stands latent semantic analysis: the 100 principal
# directions of the word counts. *It is no sentence encoder*, and the figures below say nothing of one; the lines after
# it are the same.

lsa = make_pipeline(TruncatedSVD(100, random_state=0), Normalizer())
np.save(Path(folder.name, "vectors.npy"), lsa.fit_transform(words).astype(np.float32))
test_vectors = lsa.transform(test_words).astype(np.float32)

# %%
# A mapped file is read where it is needed, chunk by chunk, and never as a whole; it may be larger than the memory.

vectors = np.load(Path(folder.name, "vectors.npy"), mmap_mode="r")
print(type(vectors).__name__, vectors.shape, vectors.dtype)

# %%
# Vectors can do what word counts cannot: choose *before there is a label*. :class:`torchal.samplers.TypiClust` takes
# the most typical text of as many clusters as you have labels to give.

view = PoolView.from_tensors(features=vectors)
first = TypiClust().select(view, 20).indices
print(table.library[first.tolist()].value_counts().to_dict())
for row in first[:3].tolist():
    print(f"- {table.text[row][:100]}")

# %%
# The same vectors draw a map of the pool, here by t-SNE, with the first twenty on it.
# :func:`torchal.functional.represents` says for how many texts each of them stands: a pick that stands for two is an
# outlier. The picks are the middles of dense places. Between these the libraries run into each other, and there labels
# are needed later, when there is a model to say where.

counts = functional.represents(torch.tensor(vectors), first).counts
x, y = TSNE(init="pca", max_iter=300, random_state=0).fit_transform(np.asarray(vectors)).T
figure, axis = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
for library in libraries:
    of_it = (table.library == library).to_numpy()
    axis.scatter(x[of_it], y[of_it], s=5, alpha=0.6, linewidth=0, label=library)
axis.scatter(x[first], y[first], s=counts.float(), facecolor="none", edgecolor="black")
axis.set(xticks=[], yticks=[], title="20 texts picked without a label; the larger, the more texts it stands for")
axis.legend(markerscale=2, fontsize=8)
plt.show()

# %%
# Which way, and which strategy?
# ------------------------------
# Eight seeds of each, with 30 texts at random to begin with, the same for all with the same seed. ``C`` is fixed, to be
# quick.

truth = table.library.to_numpy()


def curve(model, sampler, inputs, test_inputs, seed):
    test = LabeledData(test_inputs, list(test_table.library))
    learner = ActiveLearner(model, sampler, Pool.unlabeled(inputs, classes=libraries), test=test, seed=seed)
    start = np.random.default_rng(seed).choice(len(table), 30, replace=False)
    schedule = Schedule(batch_size=30, budget=240)
    results = list(rounds(learner, lambda rows: truth[rows.numpy()], schedule, start=start))
    return [result.test["accuracy"] for result in results]


svm, logistic = LinearSVM(C=1.0), LogisticRegression(C=10.0)
ways = {
    "words, margin": (svm, Margin(), words, test_words),
    "words, uniform": (svm, Uniform(), words, test_words),
    "vectors, margin": (logistic, Margin(), vectors, test_vectors),
    "vectors, uniform": (logistic, Uniform(), vectors, test_vectors),
}
bought = np.arange(30, 241, 30)
values = {name: np.array([curve(*way, seed) for seed in range(8)]) for name, way in ways.items()}
figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
for name, runs in values.items():
    lower, upper = mean_interval(runs)
    style = "--" if "uniform" in name else "-"
    colour = "tab:orange" if "words" in name else "tab:blue"
    axis.plot(bought, runs.mean(0), style, marker="o", color=colour, label=name)
    axis.fill_between(bought, lower, upper, alpha=0.12, color=colour, linewidth=0)
axis.set(xlabel="labels", ylabel="test accuracy")
axis.legend()
plt.show()

# %%
for way in ("words", "vectors"):
    for place in (1, -1):
        found = compare(values[f"{way}, margin"][:, place], values[f"{way}, uniform"][:, place])
        interval = f"[{found['lower']:+.3f}, {found['upper']:+.3f}]"
        print(f"{way:>7}, {bought[place]:>3} labels: margin - uniform {found['difference']:+.3f} {interval}")
folder.cleanup()

# %%
# The intervals are about other starts of this one split: with another split too, as :doc:`plot_compare_strategies` has
# it, they are wider. Two things are worth taking home. First, the vectors are far ahead of the counts while labels are
# few: they were made of all texts, labeled or not. Second, with the words and sixty labels, margin sampling is on
# average *behind* uniform. A model of ten thousand words that has seen thirty texts is unsure of everything, and its
# margins are noise; from
# about 150 labels on it pays. Where you expect that, begin with more texts at random, or with
# :class:`torchal.samplers.Switch`, which takes typical texts until there are enough labels; measurements of the first
# hundred labels are in :doc:`/results/low_budget`.
#
# What can go wrong
# -----------------
# * **Rows that are not those of the file.** ``pandas`` drops no row and changes no order unless told to, but a filter
#   before the vectors and none before the table shifts all rows. Keep an id beside each text, as above.
# * **Duplicates.** Margin asks for every copy of a hard text. Drop them first, as ``drop_duplicates`` did above.
# * **Classes of very different sizes** make accuracy a poor number: give the learner ``metrics={"balanced": ...}``, a
#   function of an :class:`torchal.runs.metrics.Outcome`. A start at random may miss a class, and no model is fitted
#   until there are two: :func:`torchal.data.start_rows` draws some of each. :doc:`/results/texts` compares strategies
#   on two sets of documents by balanced accuracy.
# * **Strategies that look at distances** refuse sparse rows, since nothing makes them dense unasked: give them vectors.
#
# A transformer that is trained further on the labels is in :doc:`plot_hugging_face`. The command
# ``torchal query --texts texts.csv --column text --target library`` needs no Python; it takes tf-idf along 100
# principal directions, so something between the two ways: :doc:`/guides/command`.
