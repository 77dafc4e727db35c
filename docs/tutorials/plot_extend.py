"""
A strategy, a model and a data set of your own
==============================================

What is in torchal is not special: a strategy is a small class, a model is whatever scikit-learn would call a
classifier, a data set is a function. This tutorial writes one of each, in one file each, *outside* of torchal, tries
them in Python, and then sweeps them by the command of the experiments beside those that were there before.
"""

# %%
# A folder of yours
# -----------------
# It is a temporary one here. Let us say that you predict who of 442 people with diabetes will get worse fast, that fast
# means the worst 15 % a year later, and that finding this out costs a visit each.

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import torchal
from torchal import ActiveLearner, PoolView, Schedule, rounds
from torchal.statistics import mean_interval

workspace = tempfile.TemporaryDirectory()
mine = Path(workspace.name)


def imported(name):
    """Import a file of the folder, as ``import name`` does where the folder is on the path."""
    sys.path.insert(0, str(mine))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(mine))


# %%
# The data set
# ------------
# A function that answers with :class:`torchal.data.Splits`. What to do with a seed, the shares of the parts, rare
# classes or standardizing is the business of :func:`torchal.data.make_splits`, and goes through as settings.

(mine / "my_data.py").write_text('''
"""Who gets worse fast: scikit-learn's diabetes data, cut into two classes."""

import numpy as np
from sklearn.datasets import load_diabetes

from torchal.data import Splits, make_splits


def progression(*, share: float = 0.15, **settings) -> Splits:
    """Load 442 people by 10 measurements; the class "fast" are those with the largest progression after a year."""
    inputs, progress = load_diabetes(return_X_y=True)
    labels = np.where(progress >= np.quantile(progress, 1 - share), "fast", "slow")
    return make_splits(inputs, labels, name="progression", **settings)
''')

progression = imported("my_data").progression

data = progression(seed=0, standardize=True)
print(data.class_names, "in the pool:", torch.bincount(data.train.targets).tolist())

# %%
# The model
# ---------
# Anything with ``fit`` and ``predict``, and with ``predict_proba`` if strategies are to look at probabilities. With
# scikit-learn's ``BaseEstimator`` it can be cloned, so that every round begins with a fresh one. It gets NumPy arrays.
# A network needs none of this: an ``nn.Module`` inside :class:`torchal.TorchClassifier` is a model.

(mine / "my_model.py").write_text('''
"""Classify by the nearest mean, with probabilities."""

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin


class NearestMean(ClassifierMixin, BaseEstimator):
    """Each class is a ball around its mean, all as wide; the width is that of the labeled rows."""

    def __init__(self, width: float = 1.0):
        self.width = width

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.means_ = np.stack([X[y == one].mean(0) for one in self.classes_])
        nearest = self.means_[np.searchsorted(self.classes_, y)]
        self.variance_ = self.width**2 * max(np.mean((X - nearest) ** 2), 1e-6)
        return self

    def predict_proba(self, X):
        sq_distances = ((X[:, None] - self.means_) ** 2).sum(2)
        return softmax(-sq_distances / (2 * self.variance_), axis=1)

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]
''')

NearestMean = imported("my_model").NearestMean

# %%
# The strategy
# ------------
# One that gives each row a score inherits from :class:`torchal.ScoreSampler` and has ``score``; higher is more wanted,
# and the rest (the best n candidates, ties, checks) is inherited. One that looks at the batch as a whole inherits from
# :class:`torchal.Sampler` and has ``select``. ``requires`` says what it reads of a model, so that a model without it is
# refused before anybody pays for a label.
#
# This one wants rows of which the model is unsure, but the more of them the rarer the class is among the labels so far.

(mine / "my_strategy.py").write_text('''
"""Unsure rows, rather of classes that are rare among the labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from torchal import PoolView, ScoreSampler
from torchal.protocols import HasProbabilities


@dataclass(frozen=True)
class RareMargin(ScoreSampler):
    """Scores a row by the expected rarity of its class, times how near its two best classes are.

    Args:
        power: of the rarity; 0 is margin sampling.
    """

    requires = (HasProbabilities,)
    power: float = 1.0

    def score(self, view: PoolView) -> Tensor:
        """Return (N,), between 0 and the rarity of the rarest class."""
        probs = view.log_probs.exp()
        best = probs.topk(2, dim=1).values
        counts = torch.bincount(view.targets[view.labeled], minlength=view.n_classes)
        rarity = (counts.sum() / (counts + 1)) ** self.power
        return (1 - (best[:, 0] - best[:, 1])) * (probs @ rarity.to(probs.dtype))
''')

RareMargin = imported("my_strategy").RareMargin

# %%
# Try it on a handful of rows by hand first: two rows of which the model is as unsure, one of them rather of the class
# that has one label only.

view = PoolView.from_tensors(
    log_probs=torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9], [0.1, 0.9]]).log(),
    targets=torch.tensor([0, -1, -1, 1, 1]),
)
print("power 0:", RareMargin(power=0.0).score(view)[1:3].tolist())
print("power 1:", RareMargin().score(view)[1:3].tolist(), "picks row", RareMargin().select(view, 1).indices.tolist())

# %%
# In Python, they are used like any other:

learner = ActiveLearner(NearestMean(), RareMargin(), data.pool(), test=data.test, seed=0)
for result in rounds(learner, data.oracle(), Schedule(batch_size=10, budget=60), start=20):
    fast = int((learner.pool.targets == data.class_names.index("fast")).sum())
    print(f"{result.n_labeled} labels, {fast} of them fast: accuracy {result.test['accuracy']:.3f}")

# %%
# The command
# -----------
# ``python -m experiments.run`` composes data, model and strategy of YAML files. A folder of your own with the same
# subfolders goes in front of those of the checkout by ``--config-dir``. A file names a class by its path and gives it
# settings; what is on the command line changes them.

CONFIGS = {
    "data/progression.yaml": """
defaults:
  - /split@_here_
  - _self_

_target_: my_data.progression
share: 0.15
""",
    "model/nearest_mean.yaml": """
_target_: my_model.NearestMean
width: 1.0
""",
    "sampler/rare_margin.yaml": """
_target_: my_strategy.RareMargin
power: 1.0
""",
}
for name, text in CONFIGS.items():
    path = mine / "my_conf" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.lstrip())

# %%
# In a shell this is, from the root of the checkout and with your folder on ``PYTHONPATH``,
#
# .. code-block:: bash
#
#     python -m experiments.run --config-dir my_conf data=progression model=nearest_mean \
#         sampler=rare_margin,margin,uniform seed=0 trials=8 start.n=10 schedule.batch_size=10 schedule.budget=80 \
#         metrics=[balanced_accuracy] -m
#
# From here it is the same with a few more settings that keep it quiet.

checkout = Path(torchal.__file__).parents[1]
words = [
    "--config-dir", str(mine / "my_conf"), "data=progression", "model=nearest_mean",
    "sampler=rare_margin,margin,uniform", "seed=0", "trials=8", "start.n=10", "schedule.batch_size=10",
    "schedule.budget=80", "metrics=[balanced_accuracy]", f"runs={mine / 'runs'}", "progress=false", "report=false",
    "device=cpu", "threads=1", "-m",
]  # fmt: skip
paths = os.pathsep.join([str(mine), str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
done = subprocess.run(
    [sys.executable, "-m", "experiments.run", *words],
    cwd=checkout, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
)  # fmt: skip
if done.returncode:
    raise RuntimeError(done.stderr)
print(done.stdout.partition("TensorBoard")[0].strip())

# %%
# What was written is read back like any other runs. Accuracy is a poor number here: who says *slow* of everybody is
# right in 85 of 100 cases. Balanced accuracy is the mean over the two classes. Beside it stands what the strategy was
# made for, how many of the fast ones it finds.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for sampler in ("rare_margin", "margin", "uniform"):
    runs = [run for run in torchal.results.find_runs(mine / "runs") if run.config["names"]["sampler"] == sampler]
    bought, _ = runs[0].curve("balanced_accuracy")
    values = np.array([run.curve("balanced_accuracy")[1] for run in runs])
    fast = np.array([np.cumsum([int((result.labels == 0).sum()) for result in run.rounds]) for run in runs])
    for axis, numbers in ((left, values), (right, fast)):
        lower, upper = mean_interval(numbers)
        (line,) = axis.plot(bought, numbers.mean(0), marker="o", markersize=4, label=sampler)
        axis.fill_between(bought, lower, upper, alpha=0.15, color=line.get_color(), linewidth=0)
left.set(xlabel="labels", ylabel="balanced accuracy on the test part")
right.set(xlabel="labels", ylabel="labels of the class fast")
right.legend()
plt.show()
workspace.cleanup()

# %%
# The strategy finds more of the rare class than chance does, as it was written to, and hardly more than margin sampling
# finds without being told. Whether that makes the model better, eight seeds on test parts of 73 people cannot say. Most
# ideas end like this, and it took five minutes to know. :doc:`plot_compare_strategies` says what it takes to know more.
#
# What can go wrong
# -----------------
# * **Looking at what was not bought.** A view has ``targets`` of labeled rows only, and -1 elsewhere; nothing else is
#   there to look at.
# * **Randomness of one's own.** Draw from ``view.generator``, or a run cannot be repeated.
# * **State.** A strategy that learns is told by ``observe`` what was bought, and keeps what it knows in ``state_dict``;
#   ``select`` changes nothing.
# * **A file that the command does not find.** ``my_conf`` needs the subfolders ``data``, ``model`` and ``sampler``, and
#   the Python files must be on ``PYTHONPATH``.
#
# To bring a strategy into torchal, with its reference, its contract tests and a figure of its speed, see the
# contributing guide.
