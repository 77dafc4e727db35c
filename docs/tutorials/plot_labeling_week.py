"""
A week of labeling
==================

In papers an oracle answers at once and is always right. In an office, labels come back on another day, in part, in a
spreadsheet, with typing errors; two people disagree; on Friday there are new rows, and somebody asks whether it is
enough now. :class:`torchal.ActiveLearner` is made for that week. Here it is, day by day, on handwritten digits.
"""

# %%
# What stays the same every day
# -----------------------------
# One function opens the work: the rows in the same order, the same model, strategy and seed. What happened so far is
# read from a file, where there is one. ``watch`` records two numbers each round that Friday will need.

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from torchal import ActiveLearner, LogisticRegression, Pool
from torchal.errors import DataError
from torchal.samplers import Margin

digits = load_digits()
images, truth = digits.data / 16, [str(digit) for digit in digits.target]
folder = tempfile.TemporaryDirectory()
saved, sheet = Path(folder.name, "learner.pt"), Path(folder.name, "to_label.csv")


def open_work(rows):
    pool = Pool.unlabeled(rows, classes=[str(digit) for digit in range(10)])
    learner = ActiveLearner(LogisticRegression(C=1.0), Margin(), pool, seed=0)
    learner.watch("kappa", "uncertainty")
    if saved.exists():
        learner.load(saved)
    return learner


# %%
# Monday: a spreadsheet goes out
# ------------------------------
# There are 1 200 images so far and no label. Forty rows are drawn at random, since margin sampling has no model yet,
# and go out as a file. ``source_row`` is where each row stands in the data that it came from; here the same number.

learner = open_work(images[:1200])
learner.ask(40)
learner.export_asked(sheet)
learner.save(saved)
print(sheet.read_text().splitlines()[:3])

# %%
# Tuesday: it comes back, in part and with an error
# -------------------------------------------------
# Anna has filled in 30 of the 40, one of them with a letter O.

filled = pd.read_csv(sheet, dtype=str)
filled.loc[:29, "label"] = [truth[int(row)] for row in filled.row[:30]]
right = filled.loc[4, "label"]
filled.loc[4, "label"] = "O"
filled.to_csv(sheet, index=False)

learner = open_work(images[:1200])
try:
    learner.tell_csv(sheet)
except DataError as error:
    print(str(error).replace(folder.name, ""))

# %%
# Nothing was taken. After the correction all thirty are, and the ten others still wait; nobody else is asked for them.
# One turns out to be unreadable, and is not asked about again.

filled.loc[4, "label"] = right
filled.to_csv(sheet, index=False)
print(f"{len(learner.tell_csv(sheet))} new labels, {len(learner.asked)} rows wait")
learner.cannot_label(learner.asked[:1])
learner.release(learner.asked)  # the rest go back into the pool: Anna is away until Thursday
rows = learner.ask(30)  # now by margin
learner.tell(rows, [truth[row] for row in rows.tolist()])
learner.save(saved)
print(f"{learner.pool.n_labeled} labels in {len(learner.history)} finished rounds")

# %%
# Wednesday: a mistake is found
# -----------------------------
# Yesterday's first label was wrong. ``relabel`` corrects it; the record of the round stays as it was, and
# ``corrections`` has both labels. Strategies that have learned from the wrong one learn again.
#
# (The mistake is made here first, so that there is one to correct.)

learner = open_work(images[:1200])
row = int(rows[0])
learner.relabel([row], ["3" if truth[row] != "3" else "5"])
learner.relabel([row], [truth[row]])
print(learner.corrections[-1])

# %%
# Where would you look for mistakes of which nobody told you? At labels that the model, fitted with them, still finds
# improbable:

probabilities = learner.predict_proba()
labeled = learner.pool.labeled.nonzero().squeeze(1)
given = probabilities[labeled, learner.pool.targets[labeled]]
doubtful = labeled[given.argsort()[:5]]
print({int(row): (learner.pool.classes[learner.pool.targets[row]], f"{given.min():.2f}") for row in doubtful[:1]})
rows = learner.ask(30)
learner.tell(rows, [truth[row] for row in rows.tolist()])
learner.save(saved)

# %%
# Thursday: two people, and they disagree
# ---------------------------------------
# Anna and Ben both label the same thirty images, to see how far one can trust them. Ben is new, and now and then he
# presses the wrong key. ``by=`` says who; the label of a row is then what people come to, by majority. As long as there
# are as many for one label as for another, it stays what was said first.

learner = open_work(images[:1200])
noise = np.random.default_rng(4)
rows = learner.ask(30)
ben = [str(noise.integers(10)) if noise.random() < 0.15 else truth[row] for row in rows.tolist()]
learner.tell(rows, [truth[row] for row in rows.tolist()], by="Anna")
learner.tell(rows, ben, by="Ben")
agreement = learner.agreement()
print(f"{agreement.share:.0%} the same on {agreement.n_rows} rows, Krippendorff's alpha {agreement.alpha:.2f}")
for one in learner.disagreements():
    print(f"row {one.row}: {one.labels}, counts as {one.label}")

# %%
# These are worth a look by both, or by a third. ``ask_again`` takes their labels back until another answer came.

disputed = learner.ask_again()
figure, axes = plt.subplots(
    1, len(disputed), figsize=(1.5 * len(disputed) + 0.5, 2), layout="constrained", squeeze=False
)
for axis, one in zip(axes[0], learner.disagreements(), strict=True):
    axis.imshow(images[one.row].reshape(8, 8), cmap="gray_r")
    axis.set(xticks=[], yticks=[], title=", ".join(f"{who}: {label}" for who, label in one.labels.items()))
    axis.title.set_fontsize(8)
plt.show()
learner.tell(disputed, [truth[row] for row in disputed.tolist()], by="Carla")

# %%
# Two people may also work at once: the second who asks gets other rows, by the same model.

annas, bens = learner.ask(20), learner.ask(20)
print("rows that both have:", len(set(annas.tolist()) & set(bens.tolist())))
for rows in (bens, annas):
    learner.tell(rows, [truth[row] for row in rows.tolist()])
learner.save(saved)

# %%
# Friday: new rows
# ----------------
# 597 more images have come in. They go behind those that there are, so that every number of before still means the
# same; tomorrow's ``open_work`` gets all 1 797.

learner = open_work(images[:1200])
new = learner.extend(images[1200:])
print(f"rows {int(new[0])} to {int(new[-1])} are new; {len(learner.pool)} in all")
learner.save(saved)

# %%
# Friday afternoon: is it enough?
# -------------------------------
# Without a test part there are two signs. *Kappa* is how far the predictions for the pool agree with those of the round
# before: where three rounds in a row agree at 0.99, more labels change hardly anything (Bloodgood & Vijay-Shanker,
# 2009). *Uncertainty* is the mean of one minus the largest probability, over what may still be asked. Neither says that
# the model is right, only that it has settled.


def settled(learner):
    kappas = [result.pool["kappa"] for result in learner.history[-3:] if "kappa" in result.pool]
    return len(kappas) == 3 and sum(kappas) / 3 >= 0.99


learner = open_work(images)
while not settled(learner) and learner.pool.n_labeled < 900:
    rows = learner.ask(30)
    learner.tell(rows, [truth[row] for row in rows.tolist()])
    learner.finish_round()
learner.save(saved)
print(f"settled after {learner.pool.n_labeled} labels")

# %%
# The gap in the upper curve is Friday's new rows: what a model said of the old ones is nothing to compare with.

bought = [result.n_labeled for result in learner.history]
figure, (upper, lower) = plt.subplots(2, 1, figsize=(6.5, 5), sharex=True, layout="constrained")
upper.plot(bought, [result.pool.get("kappa", np.nan) for result in learner.history], marker="o", label="kappa")
upper.axhline(0.99, color="gray", linewidth=1, linestyle=":")
upper.set(ylabel="agreement with\nthe round before")
lower.plot(bought, [result.pool["uncertainty"] for result in learner.history], marker="o", color="tab:orange")
lower.set(xlabel="labels", ylabel="uncertainty")
plt.show()

rest = ~learner.pool.labeled.numpy()
guesses = np.array(learner.predict())
print(f"right on what has no label: {(guesses == np.array(truth))[rest].mean():.3f}")

# %%
# The labels are all known here, so that the last line can look at what nobody knows in an office. It is more than a
# test part would say: the hard images are those that have a label by now.
#
# What can go wrong
# -----------------
# * **Rows in another order** on another day. ``load`` compares a fingerprint of the rows and refuses others.
# * **A strategy that learns from each batch**, as a bandit, picks none before the last one is answered; it says so.
# * **Stopping early.** The rule needs rounds that are large enough to change something: with one label a round, the
#   predictions of two rounds always agree. The predictions can also settle where the model is wrong; a small test part
#   of random rows is the only way to know.
#
# Files for labeling tools instead of spreadsheets are in :doc:`plot_labeling_tools`, and the whole week without Python
# is in :doc:`/guides/command`.
folder.cleanup()
