"""
Coming from google/active-learning
==================================

You have run experiments with the *Active Learning Playground*, ``google/active-learning``, and its
``run_experiment.py`` does not run with today's scikit-learn and TensorFlow any more. Its strategies, models, data sets
and settings are here under names that you will recognise. This tutorial translates one of your commands, runs it, and
reads back what used to be a pickle.
"""

# %%
# One command, translated
# -----------------------
# In the Playground:
#
# .. code-block:: bash
#
#     python run_experiment.py --dataset=checkerboard --max_dataset_size=1500 --score_method=kernel_svm \
#         --sampling_method=margin --warmstart_size=0.02 --batch_size=0.02 --train_horizon=0.24 --trials=5 --seed=1
#
# and once more with ``--sampling_method=informative_diverse`` and ``uniform``. Here a comma makes it three runs, and
# ``schedule=playground`` is what the Playground's defaults were, 2 % to begin with and 2 % a batch:
#
# .. code-block:: bash
#
#     python -m experiments.run data=checkerboard data.max_rows=1500 model=kernel_svm model.gamma=auto \
#         sampler=margin,informative_diverse,uniform schedule=playground schedule.budget_fraction=0.24 \
#         trials=5 seed=1 -m
#
# A flag became a setting, mostly under a longer name:
#
# ========================================  ===========================================================
# flag                                      setting
# ========================================  ===========================================================
# ``--dataset``                             ``data``, and any setting of it as ``data.keep=[4,9]``
# ``--sampling_method``                     ``sampler``; ``kcenter`` is ``k_center``
# ``--score_method``                        ``model``
# ``--select_method``                       ``select_model``
# ``--warmstart_size=0.02``                 ``start.n=null start.fraction=0.02``, in ``schedule=playground``
# ``--batch_size=0.02``                     ``schedule.batch_fraction=0.02``, in the same
# ``--train_horizon=0.24``                  ``schedule.budget_fraction=0.24``
# ``--trials=5 --seed=1``                   ``trials=5 seed=1``
# ``--confusions="0.0 0.1"``                ``noise=0.0,0.1 -m``
# ``--active_sampling_percentage="0.3"``    ``active_fraction=0.3``
# ``--normalize_data``                      ``data.normalize=true``
# ``--save_dir=DIR``                        ``runs=DIR``
# ``utils/chart_data.py``                   the report at the end; ``python -m experiments.report DIR``
# ========================================  ===========================================================
#
# All of them, and every difference that changes numbers, are in :doc:`/guides/playground`.
#
# Run it
# ------
# The command, from Python and with two changes to be quick: ``C`` is fixed, where the Playground tunes it at every fit
# (and ``model=kernel_svm`` does, too, unless told otherwise), and no model is fitted on all labels at the end.

import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import torchal
from torchal import Schedule, Trainer
from torchal.data import checkerboard, start_rows
from torchal.models import KernelSVM
from torchal.samplers import Margin, from_name
from torchal.statistics import mean_interval

workspace = tempfile.TemporaryDirectory()
runs = Path(workspace.name, "runs")
words = [
    "data=checkerboard", "data.max_rows=1500", "model=kernel_svm", "model.gamma=auto", "model.C=100",
    "sampler=margin,informative_diverse,uniform", "schedule=playground", "schedule.budget_fraction=0.24", "trials=5",
    "seed=1", f"runs={runs}", "full_data=false", "report=false", "progress=false", "device=cpu", "threads=1", "-m",
]  # fmt: skip
checkout = Path(torchal.__file__).parents[1]
done = subprocess.run(
    [sys.executable, "-m", "experiments.run", *words], cwd=checkout, capture_output=True, text=True, check=False
)
if done.returncode:
    raise RuntimeError(done.stderr)
print(done.stdout.partition("TensorBoard")[0].strip())

# %%
# The pickle of results
# ---------------------
# Each run has a folder with its settings and one line of JSON for each round: the rows bought, where they stand in the
# source, the metrics, and the seconds of each phase. :func:`torchal.results.find_runs` reads all of them.

found = {}
for run in torchal.results.find_runs(runs):
    found.setdefault(run.config["names"]["sampler"], {})[run.config["seed"]] = run
print({name: len(by_seed) for name, by_seed in found.items()})
first = found["margin"][1].rounds[1]
print(f"round {first.round}: {first.n_labeled} labels, rows {first.source_rows[:5].tolist()}, ...")

figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
for name, by_seed in found.items():
    bought, _ = by_seed[1].curve()
    values = np.array([run.curve()[1] for run in by_seed.values()])
    lower, upper = mean_interval(values)
    (line,) = axis.plot(bought, values.mean(0), marker="o", markersize=4, label=name)
    axis.fill_between(bought, lower, upper, alpha=0.15, color=line.get_color(), linewidth=0)
axis.set(xlabel="labels", ylabel="test accuracy")
axis.legend()
plt.show()

# %%
# Why margin sampling can fail on a checkerboard
# ----------------------------------------------
# The Playground has this data set for a reason. Four fifths of the points are of one colour; a model that has not seen
# a label of some square of the other does not suspect that there is one, and margin sampling, which asks where the
# model is unsure, never goes to look. In the run below it bought nothing in most of the lower left. Informative-diverse
# sampling deals its picks out to clusters of the pool, and sees a little more; random points are everywhere. Points are
# what was bought, in the colour that the answer was.

data = checkerboard(seed=1, max_rows=1500)
points, colours = data.train
red = int(points[colours == 1][0].floor().sum()) % 2
board = np.indices((4, 4)).sum(0) % 2 == red
figure, axes = plt.subplots(1, 3, figsize=(7.2, 2.6), layout="constrained")
for axis, (name, by_seed) in zip(axes, found.items(), strict=True):
    labeled = torch.cat([result.rows for result in by_seed[1].rounds])
    axis.imshow(board, extent=(0, 4, 0, 4), origin="lower", cmap="coolwarm", alpha=0.25)
    axis.scatter(*points[labeled].T, c=colours[labeled], s=7, cmap="coolwarm")
    axis.set(xticks=[], yticks=[], title=f"{name}: {by_seed[1].curve()[1][-1]:.3f}")
plt.show()

# %%
# The same in Python
# ------------------
# The command is made of names that a program can import. This is the run of seed 1 with margin sampling once more, and
# it buys the same rows.

data = checkerboard(seed=1, max_rows=1500, standardize=True)
n_start = int(0.02 * len(data.train.targets))
start = start_rows(data.train.targets, n_start, generator=torch.Generator().manual_seed(1), how="playground")
trainer = Trainer(
    KernelSVM(C=100, gamma="auto"),
    Margin(),
    schedule=Schedule(batch_fraction=0.02, budget_fraction=0.24),
    run_dir=Path(workspace.name, "by_hand"),
    seed=1,
    progress=False,
    loggers=[],
)
by_hand = trainer.fit(data.pool(), data.oracle(), validation=data.validation, test=data.test, start=start)
same = [a.rows.equal(b.rows) for a, b in zip(by_hand.rounds, found["margin"][1].rounds, strict=True)]
print(f"{sum(same)} of {len(same)} rounds bought the same rows")

# %%
# The Playground's names of strategies are understood, mixtures by their pattern included:

print(from_name("kcenter"))
print(from_name("mixture_of_samplers-margin-0.33-informative_diverse-0.33-uniform-0.34").names)
workspace.cleanup()

# %%
# What can go wrong
# -----------------
# * **Other numbers than in old results.** Splits and start sets are drawn by other generators, and some things were
#   corrected, as the bandits' reward, which was the *test* accuracy. The guide lists them.
# * **Uniform sampling** took the first rows of a shuffled pool; here it draws anew in each round.
# * **More strategies**, which the Playground does not have, are under the same setting: ``sampler=badge``,
#   ``sampler=typiclust``, and so on.
#
# A strategy that you wrote for the Playground becomes a class of ten lines: :doc:`plot_extend`.
