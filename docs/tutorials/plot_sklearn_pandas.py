"""
A pandas table and a scikit-learn pipeline
==========================================

You have a table with gaps and words in it, a scikit-learn pipeline that reads it, and an expert whose time is dear:
here a pathologist who says of a biopsy *benign* or *malignant*. Which biopsies should she look at first?
:class:`torchal.ActiveLearner` takes the table and the pipeline as they are, speaks in her words, and asks.
"""

# %%
# The table
# ---------
# The Wisconsin breast-cancer data of scikit-learn: 569 biopsies, 30 measurements each. To look like tables outside of
# textbooks, one cell in fifty is emptied, and one column is put into words.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from torchal import ActiveLearner, LabeledData, Pool, Schedule, rounds
from torchal.samplers import Margin, Uniform
from torchal.statistics import area_under_curve, compare, mean_interval

biopsies = load_breast_cancer(as_frame=True)
diagnoses = biopsies.target.map({0: "malignant", 1: "benign"})
table = biopsies.data.mask(np.random.default_rng(0).random(biopsies.data.shape) < 0.02)
table["size"] = pd.cut(biopsies.data["mean area"], [0, 420, 800, np.inf], labels=["small", "medium", "large"]).astype(
    str
)
table = table.drop(columns="mean area")
table, test_table, diagnoses, test_diagnoses = train_test_split(
    table, diagnoses, test_size=200, stratify=diagnoses, random_state=0
)
print(table.iloc[:4][["mean radius", "mean texture", "worst concave points", "size"]])
print(f"{len(table)} biopsies to choose from, {int(table.isna().sum().sum())} cells are empty")

# %%
# The pipeline is what you would write without torchal. Gaps are filled and words become columns *inside* of it, on the
# labeled rows only; nothing of the pool leaks into it, and the same pipeline goes into production later.

numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
words = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
columns = make_column_transformer(
    (numbers, make_column_selector(dtype_include="number")), (words, make_column_selector(dtype_exclude="number"))
)
pipeline = make_pipeline(columns, LogisticRegression(C=0.1, max_iter=1000))

# %%
# Ask and tell
# ------------
# The pool is the table without a label. ``on_unfit="random"`` says what to do while the labels are too few for the
# pipeline: ask for biopsies at random. Rows are counted by their place in the table, whatever index it has.

pool = Pool.unlabeled(table, classes=["benign", "malignant"])
test = LabeledData(test_table, list(test_diagnoses))
learner = ActiveLearner(pipeline, Margin(), pool, test=test, on_unfit="random", seed=0)
rows = learner.ask(10)
print("the first to look at:", rows.tolist())

# %%
# The pathologist answers in her words. ``None`` (or pandas' NaN) says that she cannot tell: the biopsy is not asked
# about again.

answers = diagnoses.iloc[rows.numpy()].tolist()
answers[3] = None
learner.tell(rows, answers)
print(f"{learner.pool.n_labeled} labels, {int(learner.pool.skipped.sum())} that nobody can tell")

# %%
# From now on the pipeline is fitted on all labels whenever the next rows are asked for, and margin sampling takes those
# where *benign* and *malignant* are nearly as probable.

for _ in range(5):
    rows = learner.ask(10)
    learner.tell(rows, diagnoses.iloc[rows.numpy()].tolist())
print([f"{result.n_labeled}: {result.test['accuracy']:.3f}" for result in learner.history])
print(learner.predict(test_table.iloc[:5]), test_diagnoses.iloc[:5].tolist())
probabilities = learner.predict_proba(test_table.iloc[:5])
print(probabilities.numpy().round(3))

# %%
# What did it ask about?
# ----------------------
# Two of the measurements are enough to see it. Malignant biopsies lie in the upper right; most of what was asked for
# lies between, and hardly anything in the large clouds that a random choice would spend most labels on.

x, y = biopsies.data.loc[table.index, "worst radius"], biopsies.data.loc[table.index, "worst concave points"]
asked = learner.pool.labeled.numpy()
figure, axis = plt.subplots(figsize=(6.5, 4.2), layout="constrained")
for name, colour in (("benign", "tab:blue"), ("malignant", "tab:red")):
    of_it = (diagnoses == name).to_numpy()
    axis.scatter(x[of_it & ~asked], y[of_it & ~asked], s=9, color=colour, alpha=0.25, linewidth=0)
    axis.scatter(x[of_it & asked], y[of_it & asked], s=36, color=colour, edgecolor="black", label=f"{name}, asked")
axis.set(xlabel="worst radius", ylabel="worst concave points")
axis.legend()
plt.show()

# %%
# Does it pay?
# ------------
# In a simulation the answers are known, so the question has an answer. :func:`torchal.rounds` plays the
# pathologist by a function, here for ten seeds and two strategies. The same seed begins with the same ten biopsies.

truth = diagnoses.to_numpy()


def play(sampler, seed):
    learner = ActiveLearner(pipeline, sampler, pool, test=test, on_unfit="random", seed=seed)
    schedule = Schedule(batch_size=10, budget=70)
    start = np.random.default_rng(seed).choice(len(pool), 10, replace=False)
    results = list(rounds(learner, lambda rows: truth[rows.numpy()], schedule, start=start))
    return [result.n_labeled for result in results], [result.test["accuracy"] for result in results]


curves = {}
for name, sampler in (("margin", Margin()), ("uniform", Uniform())):
    runs = [play(sampler, seed) for seed in range(10)]
    bought = runs[0][0]
    curves[name] = np.array([values for _, values in runs])

figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
for name, values in curves.items():
    lower, upper = mean_interval(values)
    (line,) = axis.plot(bought, values.mean(0), marker="o", label=name)
    axis.fill_between(bought, lower, upper, alpha=0.2, color=line.get_color(), linewidth=0)
axis.set(xlabel="labels", ylabel="test accuracy")
axis.legend()
plt.show()

# %%
areas = {name: [area_under_curve(bought, one) for one in values] for name, values in curves.items()}
found = compare(areas["margin"], areas["uniform"])
print(
    f"margin - uniform: {found['difference']:+.4f} [{found['lower']:+.4f}, {found['upper']:+.4f}], p = {found['p']:.2g}"
)
print(f"better in {found['wins']} of {found['pairs']} pairs")

# %%
# The interval is about other starts on this one split of the table; with another split for each seed, as
# :doc:`plot_compare_strategies` has it, it is wider.

# %%
# What can go wrong
# -----------------
# * **A model without probabilities.** ``Margin`` reads a ``decision_function`` too; strategies that need probabilities
#   say so before the first label is bought.
# * **Accuracy is the wrong number** where one error costs more than another. ``ActiveLearner(..., metrics=...)`` takes
#   any function of predictions and truth; see ``torchal.metrics``.
# * **The test part is not free.** Its 200 labels were bought too, and at random: a test part chosen by the strategy
#   would be of hard rows only, and its accuracy too low.
# * **A typing error** in a label is a new class if the classes are not named in advance. With ``classes=`` it is an
#   error that lists what there is, and nothing is taken.
# * **A model that you have fitted already** goes in by ``pretrained=True``.
#
# Where to read on: :doc:`plot_labeling_week` has mistakes, several people, new rows and when to stop;
# :doc:`plot_labeling_tools` has files for the tools that people label with.
