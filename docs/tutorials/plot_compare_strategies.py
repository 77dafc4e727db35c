"""
Comparing strategies honestly
=============================

Every strategy beats chance in the paper that introduces it. Whether it does on *your* data is a question of one
evening, if it is asked in the right way: the same seeds for all, differences in pairs, intervals, a correction for how
many comparisons you make, and enough runs. This tutorial asks it of two strategies and one impostor on handwritten
digits; one of the three holds.
"""

# %%
# One run, in a folder
# --------------------
# A simulation begins with labels that are all known, and buys them batch by batch. :class:`torchal.Trainer` writes each
# run into a folder of its own and goes on where it was stopped, so that a sweep can be killed, repeated and extended by
# more seeds.
#
# The seed decides *everything* that is not the strategy: the split into pool and test part, the first twenty labels.
# Runs with the same seed are then a pair, and differ by the strategy alone.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import torchal
from torchal import LogisticRegression, Schedule, Trainer
from torchal.data import digits, start_rows
from torchal.samplers import KCenterGreedy, Margin, Uniform
from torchal.statistics import area_under_curve, compare, holm, labels_to_reach, mean_interval, reached, runs_needed

workspace = tempfile.TemporaryDirectory()
samplers = {"margin": Margin(), "k_center": KCenterGreedy(), "uniform": Uniform(), "impostor": Uniform()}


def play(name, seed):
    data = digits(seed=seed, standardize=True, max_rows=800)
    start = start_rows(data.train.targets, 20, generator=torch.Generator().manual_seed(seed))
    trainer = Trainer(
        LogisticRegression(C=1.0),
        samplers[name],
        schedule=Schedule(batch_size=20, budget=120),
        run_dir=Path(workspace.name, name, f"seed={seed}"),
        seed=seed + 1000 * (name == "impostor"),
        config={"names": {"sampler": name}, "seed": seed},
        progress=False,
        loggers=[],
    )
    return trainer.fit(data.pool(), data.oracle(), test=data.test, start=start)


# %%
# The *impostor* is uniform sampling with other random numbers. It cannot be better than uniform sampling. Whatever way
# of comparing declares it a winner is a wrong way, and it is worth having one in every sweep of yours.
#
# Three seeds, as is the custom
# -----------------------------

for name in samplers:
    for seed in range(3):
        play(name, seed)


def curves():
    """Return the numbers of labels, and of each strategy its curves by seed."""
    runs = {name: {} for name in samplers}
    for run in torchal.results.find_runs(workspace.name):
        bought, values = run.curve("accuracy")
        runs[run.config["names"]["sampler"]][run.config["seed"]] = values
    return np.array(bought), {name: np.array([by[seed] for seed in sorted(by)]) for name, by in runs.items()}


bought, found = curves()
for name, values in found.items():
    print(f"{name:>8}: {values[:, -1].mean():.3f} with {bought[-1]} labels")

# %%
# A table like this one stands in many reports, and the best number is bold. It hides three things: how much the runs
# differ, that a curve has more than an end, and that the best of several is lucky.
#
# The right numbers
# -----------------
# The *area* under a curve, divided by its range, is the mean accuracy on the way; it does not hang on the moment at
# which one stops. Differences in area are taken seed by seed, so that a lucky split is lucky for both.
# :func:`torchal.statistics.compare` gives their mean, Student's interval and the paired t-test, and
# :func:`torchal.statistics.holm` corrects the p-values for their number.


def against_uniform():
    bought, found = curves()
    areas = {name: np.array([area_under_curve(bought, one) for one in values]) for name, values in found.items()}
    others = [name for name in samplers if name != "uniform"]
    results = [compare(areas[name], areas["uniform"]) for name in others]
    corrected = holm([result["p"] for result in results])
    return {name: result | {"p_holm": p} for name, result, p in zip(others, results, corrected, strict=True)}, areas


def show(results):
    for name, result in results.items():
        interval = f"[{result['lower']:+.4f}, {result['upper']:+.4f}]"
        wins = f"{result['wins']} of {result['pairs']} won"
        print(f"{name:>8} - uniform: {result['difference']:+.4f} {interval}, {wins}, p = {result['p_holm']:.2g} (Holm)")


with_three, areas = against_uniform()
show(with_three)

# %%
# With three seeds the intervals are as wide as any difference that one could hope for. After the correction nothing
# holds: neither that there is a difference nor that there is none.
#
# How many runs?
# --------------
# Say first which difference would *matter*; here one point of accuracy on the way. How many pairs a test needs to find
# it in four of five cases follows from the spread of the differences, which even few runs tell roughly:

for name in with_three:
    needed = runs_needed(areas[name] - areas["uniform"], difference=0.01)
    print(f"{name:>8}: spread {needed['spread']:.4f}, so {needed['pairs']} pairs, {needed['more']} more")

# %%
# The difference that was *measured* is the wrong one to put in there: it was noticed because it is large, so it is
# mostly too large, and the answer too small. And three runs tell a spread but roughly: the true one may be half of it
# or six times as much. Run twenty, and ask again.

for name in samplers:
    for seed in range(3, 20):
        play(name, seed)
with_twenty, areas = against_uniform()
show(with_twenty)
for name in with_twenty:
    needed = runs_needed(areas[name] - areas["uniform"], difference=0.01)
    print(f"{name:>8}: spread {needed['spread']:.4f}, so {needed['pairs']} pairs are needed for 0.01")

# %%
# Both in one picture: the interval is what to look at, not the dot in it.

figure, axis = plt.subplots(figsize=(6.5, 3), layout="constrained")
for results, shift, colour in ((with_three, 0.12, "lightgray"), (with_twenty, -0.12, "tab:blue")):
    for row, result in enumerate(results.values()):
        axis.plot([result["lower"], result["upper"]], [row + shift] * 2, color=colour, linewidth=3)
        axis.plot(result["difference"], row + shift, "o", color=colour)
    axis.plot([], [], color=colour, linewidth=3, label=f"{result['pairs']} pairs")
axis.axvline(0, color="black", linewidth=1)
axis.set(yticks=range(len(with_twenty)), yticklabels=with_twenty, xlabel="difference in area to uniform")
axis.legend()
plt.show()

# %%
# * *margin* is better than chance here, by an amount that its interval tells.
# * *k_center* is not: uniform sampling was not beaten, and the end of the interval says how large a difference could
#   have been overlooked. If that much would matter, run the pairs that are missing; if not, the question is answered.
# * The *impostor* is what it is. With three seeds it had won three of three.
#
# This is no exception: :doc:`/results/study` compares eight strategies on 37 published data sets, and on 13 of them
# none of the eight beats uniform sampling.

bought, found = curves()
figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
for name, values in found.items():
    lower, upper = mean_interval(values)
    (line,) = axis.plot(bought, values.mean(0), marker="o", markersize=4, label=name)
    axis.fill_between(bought, lower, upper, alpha=0.15, color=line.get_color(), linewidth=0)
axis.set(xlabel="labels", ylabel="test accuracy, mean of 20 seeds")
axis.legend()
plt.show()

# %%
# In labels, which is what is paid for
# ------------------------------------
# How many labels until 88 % are right? Runs that never get there count as what they are, unfinished, by the estimate of
# Kaplan and Meier; leaving them out would make the strategy that fails most look best.

for name, values in found.items():
    when = reached([labels_to_reach(bought.tolist(), one, 0.88) for one in values], [bought[-1]] * len(values))
    print(f"{name:>8}: median {when['median']} labels [{when['lower']}, {when['upper']}], {when['reached']} of 20 runs")

# %%
# What can go wrong
# -----------------
# * **Tuning on the test part.** If you try ten settings and report the best by its test accuracy, you have compared ten
#   strategies: correct for ten, or choose by the validation part and report another seed range.
# * **Adding runs until it is significant.** Decide on the number first; this page, which looked at three and then ran
#   twenty, shows what both look like, and is no example of it.
# * **Seeds are not data sets.** Twenty seeds of one set speak of that set. Over several sets, one counts once:
#   :func:`torchal.statistics.friedman` ranks, :func:`torchal.statistics.signed_rank_probabilities` tells "no difference
#   that matters" from "too few to tell".
# * **Averages hide the start.** Look at the curves: a strategy may win late and lose early, as in :doc:`plot_texts`.
#
# ``python -m experiments.run data=digits sampler=margin,k_center,uniform seed=0,1,2 -m`` does all of this as one
# command, with a report: :doc:`/guides/report`.
workspace.cleanup()
