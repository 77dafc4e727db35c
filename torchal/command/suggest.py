"""Name the strategies that suit a pool and its labels, with the reason, and what they would take."""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

import torch

from torchal import samplers
from torchal.command.models import make_model
from torchal.command.sources import Source
from torchal.errors import TorchalError
from torchal.pool.pool import Pool
from torchal.runs.learner import ActiveLearner

_FEW = 10  # labels of each class, below which typical and covering rows did better than unsure ones
_RARE = 0.05  # share of the labels of the rarest class
_LARGE_BATCH = 50  # of which a strategy that looks at rows one by one picks many that are alike
_TRIED, _AGAIN = 2_000, 4_000  # rows that a strategy is timed on


class Suggestion(NamedTuple):
    """A strategy for a pool.

    Attributes:
        strategy: by name.
        reason: why, a sentence.
        seconds: what one query takes on this machine, about; None where it could not be tried.
    """

    strategy: str
    reason: str
    seconds: float | None


def suggest(source: Source, labels: dict[str, str | None], budget: int, *, model: str, seed: int = 0) -> list[Suggestion]:
    """Return two or three strategies for the next rows, the one to begin with first.

    What is looked at is how many labels there are of each class, and how many rows are wanted. The rules are those that
    the studies of torchal's documentation bear out: with up to about ten labels of each class, rows that are typical of
    the pool (`typiclust`) or cover it beat those that the model is unsure of, from then on it is the other way round;
    for large batches `badge`, which weighs both, is never much worse than either. Seconds are those of two smaller
    pools of this one's rows, and grow as between these.
    """
    counts = Counter(label for label in labels.values() if label is not None)
    n_rows, n_labels = len(source), sum(counts.values())
    found: list[tuple[str, str]]
    if len(counts) < 2:
        found = [
            ("typiclust", f"{n_labels} labels of {len(counts)} classes: no model can be fitted, and typical rows of each part of the pool make the best start"),
            ("prob_cover" if n_rows <= 50_000 else "hierarchical_kmeans", "another start without a model, which covers the dense parts of the pool"),
            ("k_center", "a start that covers outliers too"),
        ]
    elif n_labels < _FEW * len(counts):
        found = [
            ("switch", f"{n_labels} labels of {len(counts)} classes are few: typical rows up to a hundred labels, and those with small margins from then on"),
            ("uncertainty_herding", "covers the rows that the model is unsure of, and needs no switch"),
            ("margin", "the plainest choice; better once each class has about ten labels"),
        ]
    else:
        found = [
            ("margin", f"{n_labels} labels of {len(counts)} classes let a model say where it is unsure"),
            ("badge", f"as sure as margin, and its {budget} rows differ from each other"),
            ("cluster_margin" if budget >= _LARGE_BATCH else "uniform", "small margins, spread over the clusters of the pool" if budget >= _LARGE_BATCH else "the baseline: any other should beat it on rows labeled at random"),
        ]
        if budget >= _LARGE_BATCH:
            found[0], found[1] = found[1], found[0]
        rarest, least = min(counts.items(), key=lambda item: item[1])
        if least < _RARE * n_labels:
            found[2] = ("class_balanced", f"{rarest!r} has {least} of {n_labels} labels: this asks for as many of each predicted class")
    return [Suggestion(name, reason, _seconds(source, labels, name, budget, model=model, seed=seed)) for name, reason in found]


def _seconds(source: Source, labels: dict[str, str | None], name: str, budget: int, *, model: str, seed: int) -> float | None:
    """Return what a query takes, by what it takes on fewer rows: it grows by the power that it grew by between these."""
    sizes = [size for size in (_TRIED, _AGAIN) if size < len(source)] or [len(source)]
    try:
        taken = [max(1e-4, _one(source, labels, name, min(budget, size // 4 or 1), size, model=model, seed=seed)) for size in sizes]
    except TorchalError:
        return None
    if len(taken) == 1:
        return taken[0] * max(1.0, len(source) / sizes[0])
    import math

    power = min(2.0, max(0.5, math.log(taken[1] / taken[0], sizes[1] / sizes[0])))
    return taken[1] * float((len(source) / sizes[1]) ** power)


def _one(source: Source, labels: dict[str, str | None], name: str, n: int, size: int, *, model: str, seed: int) -> float:
    """Return the seconds of a query among some of the rows, all labeled ones and others at random."""
    told = {source_row: label for source_row, label in enumerate(map(labels.get, source.ids)) if label is not None}
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [*list(told)[: size // 2], *(row for row in order if row not in told)][:size]
    learner = ActiveLearner(make_model(model), samplers.from_name(name), Pool.unlabeled(source.features[rows]), seed=seed)
    known = [(place, told[row]) for place, row in enumerate(rows) if row in told]
    if known:
        places, words = zip(*known, strict=True)
        learner.tell(list(places), list(words))
    started = time.perf_counter()
    learner.ask(n)
    return time.perf_counter() - started
