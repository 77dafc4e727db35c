"""
Coming from modAL and scikit-activeml
=====================================

You know active learning in Python by `modAL <https://modal-python.readthedocs.io>`_ or
`scikit-activeml <https://scikit-activeml.github.io>`_. The ideas are the same here, and some of the words. This
tutorial puts the same task in all three side by side, says which name became which, and what there is on one side only.
"""

# %%
# The same task, three times
# --------------------------
# Handwritten digits, a logistic regression, twenty labels to begin with, ten more in each of ten rounds, by the margin
# between the two largest probabilities.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

from torchal import ActiveLearner, LabeledData, Pool, Schedule, rounds
from torchal.models import Committee
from torchal.samplers import DensityWeighted, Entropy, Margin, QueryByCommittee, Uniform
from torchal.statistics import mean_interval

X, y = load_digits(return_X_y=True)
X, X_test, y, y_test = train_test_split(X / 16, y, test_size=500, random_state=0, stratify=y)
start = np.random.default_rng(0).choice(len(X), 20, replace=False)

# %%
# In modAL, the learner has the training data, and the pool is yours: you take out of it what was labeled, and keep
# count of what its rows were called.
#
# .. code-block:: python
#
#     from modAL.models import ActiveLearner
#     from modAL.uncertainty import margin_sampling
#
#     learner = ActiveLearner(
#         LogisticRegression(max_iter=1000), query_strategy=margin_sampling, X_training=X[start], y_training=y[start]
#     )
#     X_pool, y_pool = np.delete(X, start, axis=0), np.delete(y, start)
#     for _ in range(10):
#         rows, _ = learner.query(X_pool, n_instances=10)
#         learner.teach(X_pool[rows], y_pool[rows])
#         X_pool, y_pool = np.delete(X_pool, rows, axis=0), np.delete(y_pool, rows)
#     print(learner.score(X_test, y_test))
#
# In scikit-activeml, the labels are one array with gaps, rows keep their numbers, and the loop is yours.
#
# .. code-block:: python
#
#     from skactiveml.classifier import SklearnClassifier
#     from skactiveml.pool import UncertaintySampling
#     from skactiveml.utils import MISSING_LABEL
#
#     labels = np.full(len(X), MISSING_LABEL)
#     labels[start] = y[start]
#     model = SklearnClassifier(LogisticRegression(max_iter=1000), classes=np.unique(y), random_state=0)
#     strategy = UncertaintySampling(method="margin_sampling", random_state=0)
#     for _ in range(10):
#         rows = strategy.query(X=X, y=labels, clf=model, batch_size=10)
#         labels[rows] = y[rows]
#     print(model.fit(X, labels).score(X_test, y_test))
#
# Here, the learner has the pool, rows keep their numbers, and what was asked for and is not answered yet is known too.

pool = Pool.unlabeled(X, n_classes=10).with_labels(start, y[start])
learner = ActiveLearner(LogisticRegression(max_iter=1000), Margin(on="probabilities"), pool)
for _ in range(10):
    rows = learner.ask(10)
    learner.tell(rows, y[rows])
print(f"{(learner.predict(X_test).numpy() == y_test).mean():.3f}")

# %%
# All three come to 0.926, for all three bought the same 100 rows, ten out of ten in every round. That was measured with
# modAL-python 0.4.2.1, scikit-activeml 1.0.1 and Python 3.11 on one core, where the loops took 0.3, 0.6 and 0.5 s. At
# this size nothing of it is the library; it is the logistic regression.
#
# modAL 0.4.2.1 needs an older scikit-learn and NumPy: the figures are with 1.5.2 and 1.26. With scikit-learn 1.9,
# ``teach`` fails on an argument that is no longer there, and with NumPy 2 ``modAL.expected_error`` cannot be imported.
#
# Names
# -----
# ===============================================  =========================================================
# modAL                                            torchal
# ===============================================  =========================================================
# ``ActiveLearner(estimator, query_strategy)``     ``ActiveLearner(model, sampler, pool)``
# ``X_training=``, ``y_training=``                 ``Pool.unlabeled(X).with_labels(rows, y)``
# ``learner.query(X_pool, n_instances=10)``        ``learner.ask(10)``
# ``learner.teach(X, y)``                          ``learner.tell(rows, y)``; fitted when it is asked next
# ``uncertainty_sampling``                         ``LeastConfidence()``
# ``margin_sampling``                              ``Margin(on="probabilities")``
# ``entropy_sampling``                             ``Entropy()``
# ``Committee([...])``                             ``torchal.models.Committee([...])``, as the model
# ``vote_entropy_sampling``                        ``QueryByCommittee("vote_entropy")``
# ``max_disagreement_sampling``                    ``QueryByCommittee("consensus_kl")``: the mean, not the largest
# ``consensus_entropy_sampling``                   ``Entropy()`` of a committee
# ``information_density``                          ``functional.information_density``, ``DensityWeighted(...)``
# ``modAL.expected_error``                         ``ExpectedErrorReduction()``
# ``DeepActiveLearner`` (of skorch)                ``TorchClassifier(module)``
# ===============================================  =========================================================
#
# ===============================================  =========================================================
# scikit-activeml                                  torchal
# ===============================================  =========================================================
# ``y`` with ``MISSING_LABEL``                     ``Pool``; -1 in ``pool.targets``
# ``SklearnClassifier(clf, classes=...)``          ``clf`` as it is; ``Pool.unlabeled(X, classes=...)``
# ``SkorchClassifier(...)``                        ``TorchClassifier(module)``
# ``strategy.query(X, y, clf, batch_size=10)``     ``learner.ask(10)``; ``sampler.select(view, 10)`` in a loop
# ``return_utilities=True``                        ``learner.scores_of(rows)``; ``sampler.score(view)`` of all rows
# ``candidates=``                                  ``PoolView.from_tensors(candidates=...)``, ``learner.cannot_label``
# ``RandomSampling``                               ``Uniform()``
# ``UncertaintySampling(method="entropy")``        ``Entropy()``, and the others as above
# ``QueryByCommittee()``                           ``QueryByCommittee("consensus_kl")``
# ``CoreSet``                                      ``KCenterGreedy()``
# ``Badge``, ``TypiClust``, ``ProbCover``          ``Badge()``, ``TypiClust()``, ``ProbCover()``
# ``BatchBALD``, ``GreedyBALD``, ``DropQuery``     ``BatchBALD()``, ``BALD()``, ``DropQuery()``
# ``ContrastiveAL``, ``MaxHerding``                ``Contrastive()``, ``MaxHerding()``
# ``MonteCarloEER``                                ``ExpectedErrorReduction()``
# ``SubSamplingWrapper``                           ``SubPool(...)``
# several annotators                               ``learner.tell(rows, labels, by="Anna")``
# ===============================================  =========================================================
#
# What is not here: regression, Bayesian optimization, streams, and several labels for one row; of scikit-activeml's
# strategies for classification also ``ProbabilisticAL``, ``EpistemicUncertaintySampling``, ``ValueOfInformationEER``,
# ``Quire``, ``FourDs``, ``CostEmbeddingAL``, ``DiscriminativeAL``, ``Clue`` and ``Falcun``, and the choice of *whom* to
# ask; of modAL ``uncertainty_batch_sampling``. If you need these, stay, or call theirs on a view of your own.
#
# A strategy is exchanged, the loop is not
# ----------------------------------------
# Four of the names in the tables, on the same task, three seeds each. A committee is a model like any other.

logistic = LogisticRegression(max_iter=1000)
committee = Committee(LogisticRegression(max_iter=300), n_copies=5, random_state=0)
entries = {
    "Margin": (logistic, Margin(on="probabilities")),
    "QueryByCommittee": (committee, QueryByCommittee("vote_entropy")),
    "DensityWeighted": (logistic, DensityWeighted(Entropy())),
    "Uniform": (logistic, Uniform()),
}
test, empty = LabeledData(X_test, y_test), Pool.unlabeled(X, n_classes=10)


def play(model, sampler, seed):
    learner = ActiveLearner(model, sampler, empty, test=test, seed=seed)
    start = np.random.default_rng(seed).choice(len(X), 20, replace=False)
    results = rounds(learner, lambda rows: y[rows], Schedule(batch_size=20, budget=120), start=start)
    return [result.test["accuracy"] for result in results]


figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
bought = np.arange(20, 121, 20)
for name, (model, sampler) in entries.items():
    values = np.array([play(model, sampler, seed) for seed in range(3)])
    lower, upper = mean_interval(values)
    (line,) = axis.plot(bought, values.mean(0), marker="o", markersize=4, label=name)
    axis.fill_between(bought, lower, upper, alpha=0.1, color=line.get_color(), linewidth=0)
axis.set(xlabel="labels", ylabel="test accuracy", ylim=(0.3, 1))
axis.legend()
plt.show()

# %%
# Margin sampling is ahead of chance here, the committee and the density are not; with three seeds one should not say
# more (:doc:`plot_compare_strategies`).
#
# Where it makes a difference
# ---------------------------
# Strategies that compare rows with each other take longer, the more rows there are. On 20 000 images of 12 by 12 pixels
# (the digits, moved), 100 labels and a batch of 100, on one core, medians of three:
#
# ==============  ======================  ===========
# strategy        scikit-activeml 1.0.1   torchal
# ==============  ======================  ===========
# core set        1.5 s                   0.10 s
# Badge           7.8 s                   0.09 s
# ==============  ======================  ===========
#
# The features may then be tensors on a GPU, or lie in a file that is larger than the memory: :doc:`plot_many_rows`.
#
# What can go wrong
# -----------------
# * **Probabilities or scores.** ``Margin()`` takes decision values where the model has them. With more than two classes
#   their order is another one than that of probabilities; for modAL's picks say ``on="probabilities"``.
# * **Ties.** Equal scores go to the lowest row here, everywhere and on every device. modAL's order of ties is NumPy's,
#   scikit-activeml draws among them by its ``random_state``.
# * **A committee that agrees on what it does not know.** With ``consensus_kl`` in place of ``vote_entropy``, the one
#   above stays at an accuracy of 0.5: classes that have one label or none are not what its members differ about.
# * **Deleting rows from the pool.** Do not: rows keep their numbers, and labeled ones are never asked for again.
