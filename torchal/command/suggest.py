"""Name the strategies that suit a pool and its labels, with the reason, and what they would take."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch

from torchal import samplers
from torchal.command.models import make_model
from torchal.command.sources import Source
from torchal.errors import TorchalError
from torchal.pool.pool import Pool
from torchal.runs.learner import ActiveLearner
from torchal.samplers.switch import typiclust_then_margin

_FEW = 10  # labels of each class, below which typical and covering rows did better than unsure ones
_RARE = 0.05  # share of the labels of the rarest class
_LARGE_BATCH = 50  # of which a strategy that looks at rows one by one picks many that are alike
_MOST_PAIRED = 50_000  # rows up to which strategies that compare all of them with each other are named
_SHORTEST = 1e-4  # seconds
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


def suggest(
    source: Source, labels: dict[str, str | None], budget: int, *, model: str, seed: int = 0
) -> list[Suggestion]:
    """Return two or three strategies for the next rows, the one to begin with first.

    What is looked at is how many labels there are of each class, and how many rows are wanted. The rules are those that
    the studies in docs/ bear out: up to ten labels of each class, rows that are typical of the pool (`typiclust`) or
    near many others (`max_herding`, `uncertainty_herding`) are above chance on all four sets, and `k_center` and
    `prob_cover`, which are not named for that, below it on two; `margin` and `badge` are above chance on the sets with
    more labels. Seconds are those of two smaller pools of this one's rows, and grow as between these.
    """
    counts = Counter(label for label in labels.values() if label is not None)
    if len(counts) < 2:
        found = _without_a_model(len(source), counts)
    elif sum(counts.values()) < _FEW * len(counts):
        found = _with_few_labels(len(source), counts)
    else:
        found = _with_many_labels(counts, budget)
    return [
        Suggestion(name, reason, _seconds(source, labels, name, budget, model=model, seed=seed))
        for name, reason in found.items()
    ]


def _of(counts: Mapping[str, int]) -> str:
    return f"{sum(counts.values())} labels of {len(counts)} class{'es' * (len(counts) != 1)}"


def _without_a_model(n_rows: int, counts: Mapping[str, int]) -> dict[str, str]:
    found = {
        "typiclust": f"{_of(counts)}: no model can be fitted, and typical rows of each part of the pool are a start"
    }
    if n_rows <= _MOST_PAIRED:
        found["max_herding"] = "another start without a model: every row is near one of these"
    else:
        found["hierarchical_kmeans"] = "another start without a model: as many rows of each region of the pool"
    return found | {"uniform": "the baseline, and labels that are fit to measure a model on"}


def _with_few_labels(n_rows: int, counts: Mapping[str, int]) -> dict[str, str]:
    after = typiclust_then_margin().after
    if sum(counts.values()) < after:
        found = {"switch": f"{_of(counts)} are few: typical rows up to {after} labels, then those with small margins"}
    else:
        found = {"typiclust": f"{_of(counts)} are few for each: typical rows of the parts of the pool without a label"}
    if n_rows <= _MOST_PAIRED:
        found["uncertainty_herding"] = "covers the rows that the model is unsure of, for few labels and for many"
    return found | {"margin": "the plainest choice; with so few labels often no better than random rows"}


def _with_many_labels(counts: Mapping[str, int], budget: int) -> dict[str, str]:
    margin = {"margin": f"{_of(counts)} let a model say where it is unsure"}
    badge = {"badge": f"rows that the model is unsure of, and that differ: {budget} at once are not all alike"}
    found = badge | margin if budget >= _LARGE_BATCH else margin | badge
    rarest, least = min(counts.items(), key=lambda item: item[1])
    if least < _RARE * sum(counts.values()):
        found["class_balanced"] = (
            f"of {rarest!r} there are {least} labels: this asks for as many of each predicted class"
        )
    elif budget >= _LARGE_BATCH:
        found["cluster_margin"] = "small margins, spread over the clusters of the pool"
    else:
        found["uniform"] = "the baseline, and labels that are fit to measure the model on"
    return found


def _seconds(
    source: Source, labels: Mapping[str, str | None], name: str, budget: int, *, model: str, seed: int
) -> float | None:
    """Return what a query takes, by two on fewer rows: it goes on to grow by the power that it grew by between them."""
    sizes = [size for size in (_TRIED, _AGAIN) if size < len(source)] or [len(source)]
    taken = []
    for size in sizes:
        n = min(budget, max(1, size // 4))
        try:
            taken.append(max(_SHORTEST, _one(source, labels, name, (n, size), model=model, seed=seed)))
        except TorchalError:
            return None
    if len(taken) == 1:
        return taken[0]
    power = min(2.0, max(0.5, math.log(taken[1] / taken[0], sizes[1] / sizes[0])))
    return taken[1] * float((len(source) / sizes[1]) ** power)


def _one(
    source: Source, labels: Mapping[str, str | None], name: str, sizes: tuple[int, int], *, model: str, seed: int
) -> float:
    """Return the seconds of a query for n among some of the rows: labeled ones, up to a half, and others at random."""
    n, size = sizes
    told = {row: label for row, label in enumerate(map(labels.get, source.ids)) if label is not None}
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [*list(told)[: size // 2], *(row for row in order if row not in told)][:size]
    learner = ActiveLearner(
        make_model(model), samplers.from_name(name), Pool.unlabeled(source.features[rows]), seed=seed
    )
    known = {place: told[row] for place, row in enumerate(rows) if row in told}
    learner.tell(list(known), list(known.values()))
    started = time.perf_counter()
    learner.ask(n)
    return time.perf_counter() - started
