"""Compare samplers over runs that are paired: with a baseline, with each other, by ranks and by penalties."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchal.errors import DataError
from torchal.runs.curves import learning_curve
from torchal.runs.metrics import LOWER_IS_BETTER
from torchal.runs.results import Run
from torchal.statistics import comparisons, rankings
from torchal.study.reading import StudyRun
from torchal.study.summary import Comparison, Estimate, ExperimentSummary, Penalties, Ranking


def areas_of(runs: Iterable[StudyRun], metric: str) -> dict[str, dict[Any, float]]:
    """Return the areas of finished runs, by sampler and by what they are paired on."""
    scores: dict[str, dict[Any, float]] = {}
    for one in runs:
        if one.run.finished and one.has(metric):
            scores.setdefault(one.sampler, {})[one.settings, one.seed] = one.area(metric)
    return scores


def compare_with(scores: Mapping[str, Mapping[Any, float]], baseline: str, metric: str) -> dict[str, Comparison]:
    """Compare each sampler with the baseline, with Holm's correction over these comparisons."""
    if baseline not in scores:
        return {}
    down = metric in LOWER_IS_BETTER
    found = []
    for name, own in scores.items():
        shared = sorted(own.keys() & scores[baseline].keys())
        if name != baseline and shared:
            pair = [np.array([of[key] for key in shared]) for of in (own, scores[baseline])]
            one = comparisons.compare(*pair, lower_is_better=down)
            found.append(_comparison(name, baseline, {**one, "p_holm": None, "verdict": 0}))
    return {one.a: one for one in corrected(found, lower_is_better=down)}


def corrected(found: Sequence[Comparison], *, lower_is_better: bool) -> list[Comparison]:
    """Return comparisons with Holm's correction over them, and what is then said of each."""
    return [
        replace(one, p_holm=p, verdict=_verdict(one.difference.mean, p, down=lower_is_better))
        for one, p in zip(found, comparisons.holm([one.p for one in found]), strict=True)
    ]


def _verdict(difference: float, p: float | None, *, down: bool) -> int:
    if p is None or p >= 0.05:
        return 0
    return int(np.sign(difference)) * (-1 if down else 1)


def _comparison(a: str, b: str, found: Mapping[str, Any]) -> Comparison:
    return Comparison(
        a=a,
        b=b,
        pairs=found["pairs"],
        difference=Estimate(found["difference"], found["lower"], found["upper"]),
        wins=found["wins"],
        ties=found["ties"],
        losses=found["losses"],
        p=found["p"],
        p_wilcoxon=found["p_wilcoxon"],
        p_holm=found["p_holm"],
        verdict=found["verdict"],
    )


def compare_over_all(runs: Sequence[StudyRun], metric: str) -> list[Comparison]:
    """Compare all samplers with each other over all experiments."""
    found = comparisons.compare_all(areas_of(runs, metric), lower_is_better=metric in LOWER_IS_BETTER)
    return [_comparison(one["a"], one["b"], one) for one in found if one["pairs"]]


def rank(experiments: Sequence[ExperimentSummary], metric: str) -> tuple[Ranking | None, str]:
    """Rank the samplers by their mean area in each experiment; or say why not."""
    samplers = list(
        dict.fromkeys(name for one in experiments for name in one.ordered if metric in one.entries[name].area)
    )
    whole = [
        one for one in experiments if all(name in one.entries and metric in one.entries[name].area for name in samplers)
    ]
    left_out = [one.name for one in experiments if one not in whole]
    if len(samplers) < 2 or len(experiments) < 2:
        return None, "they need two samplers and two experiments"
    if len(whole) < 2:
        return None, f"{len(whole)} of {len(experiments)} experiments have all {len(samplers)} samplers"
    scores = np.array([[one.entries[name].area[metric].mean for name in samplers] for one in whole])
    test = rankings.friedman(scores, lower_is_better=metric in LOWER_IS_BETTER)
    width = rankings.critical_difference(len(samplers), len(whole))
    ranks = list(test["mean_ranks"])
    order = sorted(range(len(samplers)), key=lambda number: (ranks[number], samplers[number]))
    groups = rankings.cliques([ranks[number] for number in order], width)
    ranking = Ranking(
        mean_ranks={samplers[number]: float(ranks[number]) for number in order},
        blocks=len(whole),
        p=float(test["p"]),
        critical_difference=float(width),
        cliques=[[samplers[order[place]] for place in group] for group in groups],
        left_out=left_out,
    )
    return ranking, ""


def count_penalties(groups: Iterable[Sequence[StudyRun]], metric: str) -> Penalties | None:
    """Count, over experiments and numbers of labels, how often a sampler was significantly better than another."""
    blocks: dict[str, dict[str, NDArray[Any]]] = {}
    for group in groups:
        runs: dict[str, dict[int, Run]] = {}
        for one in group:
            if one.run.finished and one.has(metric):
                runs.setdefault(one.sampler, {})[one.seed] = one.run
        seeds = sorted(set.intersection(*map(set, runs.values()))) if runs else []
        if len(runs) < 2 or len(seeds) < 2:
            continue
        try:
            together = learning_curve([own[seed] for own in runs.values() for seed in seeds], metric=metric)
        except DataError:
            continue  # no number of labels in common
        sign = -1 if metric in LOWER_IS_BETTER else 1
        stacked = sign * together.values.reshape(len(runs), len(seeds), -1)
        blocks[group[0].settings] = dict(zip(runs, stacked, strict=True))
    if not blocks:
        return None
    found = comparisons.penalty_matrix(blocks)
    matrices = (np.asarray(found[name]).tolist() for name in ("matrix", "compared"))
    return Penalties(list(found["samplers"]), next(matrices), int(found["blocks"]), next(matrices))
