"""
There and back: Label Studio and spreadsheets
=============================================

People label where they already work. torchal writes the rows that it wants as files of their tool, and reads the
answers back; the tool needs not be installed where torchal runs. This tutorial makes the round trip twice, by Label
Studio's JSON and by a CSV file, with what comes back from people: several opinions, skipped tasks, and open ones.
"""

# %%
# Texts with ids
# --------------
# What comes back names rows by an *id*, never by a place in a list, so give each row one that lasts, and that does not
# give the answer away. Here the texts are first sentences of SciPy's documentation, and the question is which part of
# SciPy each is from.

import importlib
import json
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer

from torchal import ActiveLearner, LogisticRegression, Pool
from torchal.exchange import (
    Question,
    label_studio_config,
    read_answers,
    read_label_studio,
    write_csv,
    write_label_studio,
)
from torchal.samplers import Margin

PARTS = ["linalg", "ndimage", "optimize", "signal", "stats"]
texts, truth = {}, {}
for part in PARTS:
    module = importlib.import_module(f"scipy.{part}")
    for name in module.__all__:
        lines = (getattr(module, name).__doc__ or "").strip().split("\n\n")
        sentence = " ".join(max(lines[:2], key=len).split())[:200]
        if len(sentence.split()) > 4:
            texts[f"t{len(texts):03}"], truth[f"t{len(truth):03}"] = sentence, part
ids = list(texts)
row_of = {name: row for row, name in enumerate(ids)}
words = TfidfVectorizer(sublinear_tf=True, stop_words="english").fit_transform(texts.values())
learner = ActiveLearner(LogisticRegression(C=10.0), Margin(), Pool.unlabeled(words, classes=PARTS))
folder = tempfile.TemporaryDirectory()
tasks_json, export_json, sheet = (Path(folder.name, name) for name in ("tasks.json", "export.json", "ask.csv"))
print(len(ids), "texts, as", ids[0], "-", texts[ids[0]])

# %%
# Out to Label Studio
# -------------------
# A :class:`torchal.exchange.Question` is a row with what is known of it. What the model would answer goes along where
# there is a model: it saves people keystrokes, and its doubts come first.


def questions_of(rows):
    probabilities = learner.predict_proba().max(1).values if learner.can_fit else None
    guesses = learner.predict() if learner.can_fit else None
    return [
        Question(
            id=ids[row],
            rank=rank,
            score=score,
            picked_by="start" if score is None else "Margin",
            text=texts[ids[row]],
            predicted=None if guesses is None else guesses[row],
            probability=None if probabilities is None else float(probabilities[row]),
        )
        for rank, (row, score) in enumerate(zip(rows.tolist(), learner.scores_of(rows), strict=True), 1)
    ]


asked = questions_of(learner.ask(40))
write_label_studio(asked, tasks_json, model_version="round 0")
print(json.dumps(json.loads(tasks_json.read_text())[0], indent=1))

# %%
# The page on which people choose is a few lines of XML. In Label Studio: *Create Project*, *Labeling Interface*,
# *Code*, paste; then *Import* ``tasks.json``.

print(label_studio_config(PARTS))

# %%
# And back
# --------
# *Export*, *JSON* gives a file like this. There is nobody here who could sit before Label Studio, so that the next
# lines put the answers where it puts them: Anna has answered most tasks, Ben some of the same, one was skipped and five
# are still open.

ANNA, BEN = {"id": 1, "email": "anna@example.org"}, {"id": 2, "email": "ben@example.org"}


def answered(by, choice):
    result = [{"from_name": "label", "to_name": "item", "type": "choices", "value": {"choices": [choice]}}]
    return {"completed_by": by, "was_cancelled": False, "result": result if choice else []}


exported = json.loads(tasks_json.read_text())
for number, task in enumerate(exported):
    right = truth[task["data"]["row_id"]]
    task["annotations"] = [] if number >= 35 else [answered(ANNA, right)]
    if number < 12:
        task["annotations"].append(answered(BEN, "signal" if number in (3, 7) else right))
exported[20]["annotations"] = [{"completed_by": ANNA, "was_cancelled": True, "result": []}]
export_json.write_text(json.dumps(exported))

# %%
# :func:`torchal.exchange.read_label_studio` makes the same :class:`torchal.exchange.Answers` of it as all readers make,
# one entry for each answer of each person. An open task has no label; a skipped one says so.

answers = read_label_studio(export_json)
print(
    f"{len(answers)} entries, {sum(answers.skipped)} skipped, {sum(label is None for label in answers.labels)} without"
)


def tell_all(answers):
    entries = list(zip(answers.ids, answers.labels, answers.by, answers.skipped, strict=True))
    for who in sorted({by for by in answers.by if by is not None}):
        told = {row_of[name]: label for name, label, by, _ in entries if by == who and label is not None}
        learner.tell(list(told), list(told.values()), by=who)
    learner.cannot_label([row_of[name] for name, _, _, skipped in entries if skipped])


tell_all(answers)
print(f"{learner.pool.n_labeled} labels, {len(learner.asked)} still out; agreement {learner.agreement().share:.0%}")
for one in learner.disagreements():
    print(f"{ids[one.row]}: {one.labels}, counts as {one.label}")

# %%
# Where one person labels, all of this is one line: ``learner.tell(rows, labels)`` with ``answers.labels_of()``.
#
# The same by a spreadsheet
# -------------------------
# For a handful of rows nothing beats a CSV file with an empty column. Predicted classes are in it, and whoever fills it
# in may sort it, move its columns and leave rows out. Semicolons and tabs are read as well, as Excel saves them in
# other countries.

corrected = []
for _ in range(5):
    asked = questions_of(learner.ask(30))
    write_csv(asked, sheet)
    filled = pd.read_csv(sheet, dtype=str)
    filled["label"] = filled["id"].map(truth)
    filled.sort_values("text").to_csv(sheet, index=False, sep=";")
    answers = read_answers(sheet).labels_of()
    learner.tell([row_of[name] for name in answers], list(answers.values()))
    corrected.append(np.mean([answers[question.id] != question.predicted for question in asked]))
print(pd.read_csv(sheet, sep=";")[["id", "predicted", "probability", "label"]].head(4).to_string(index=False))

# %%
# How often did people have to correct the prediction? Among rows that margin sampling picks, more often than not: these
# are what it looks for. Among the others the model is much better. Where people hardly ever correct anything, the
# labels teach nothing any more; and where they *never* do, they may have stopped reading.

rest = ~learner.pool.labeled.numpy()
wrong = np.mean(np.array(learner.predict())[rest] != np.array(list(truth.values()))[rest])
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
axis.bar(range(1, 6), corrected, width=0.6, label="of the rows that were asked for")
axis.axhline(wrong, color="tab:orange", label="of all rows without a label, in the end")
axis.set(xlabel="round", ylabel="predictions that are wrong", ylim=(0, 1))
axis.legend()
plt.show()
folder.cleanup()

# %%
# What can go wrong
# -----------------
# * **Ids that a spreadsheet changes.** 007 becomes 7, and 1e5 a number. Take ids with a letter in them.
# * **The wrong export.** Label Studio's JSON has everything; JSON-MIN leaves out who skipped what; its CSV is for
#   ``read_answers(path, id_column="row_id")``.
# * **A damaged file** is one error that lists all problems by task or line, and nothing is taken.
# * **People who see predictions agree with them.** Leave ``predicted`` out of a share of the questions, and compare.
#
# CVAT, COCO, Argilla, Hugging Face, FiftyOne and Embedding Atlas: :doc:`/guides/labeling_tools`.
