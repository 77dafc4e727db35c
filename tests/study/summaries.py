"""Summaries for tests, made of simulated runs: rich, minimal, large, and as hostile as they get."""

import base64
import itertools
from copy import deepcopy
from dataclasses import replace
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image
from scipy import integrate, stats

from tests.report.pages import HOSTILE
from torchal.study.summary import (
    Band,
    Comparison,
    Entry,
    Estimate,
    Example,
    ExperimentSummary,
    Penalties,
    Problem,
    Ranking,
    Reached,
    Summary,
)

SAMPLERS = ("uniform", "margin", "k_center", "typiclust", "badge")
DATA = ("digits", "mnist", "fashion_mnist", "letters")
AXES = ("labels", "cost", "seconds")
METRICS = ("accuracy", "log_loss", "macro_f1")
LOWER = ("log_loss",)
HOSTILE_NAMES = (
    f"</script>{HOSTILE}",
    "حدود <b>הפער</b> \u202egnp.exe",
    "🦉🧪 sampler & \"quoted\" 'name'",
    "a_very_long_name_" * 12,
    "__proto__",
    "constructor",
    "a,b|c\\d_e%f$g#h",
)


@cache
def _student(n):
    return float(stats.t.ppf(0.975, n - 1)) / n**0.5


def estimate(values):
    """Return the mean of some runs and its 95 % interval by Student's t, whose ends are None for one run."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, None, None)
    reach = _student(len(values)) * float(np.std(values, ddof=1))
    return Estimate(mean, mean - reach, mean + reach)


def band(x, values):
    """Return the mean curve of runs, (S, P)."""
    mean = values.mean(0)
    if len(values) < 2:
        return Band(list(map(float, x)), mean.tolist(), [None] * len(x), [None] * len(x), len(values))
    reach = _student(len(values)) * values.std(0, ddof=1)
    return Band(list(map(float, x)), mean.tolist(), (mean - reach).tolist(), (mean + reach).tolist(), len(values))


def compare(a, b, values_a, values_b, *, lower_is_better, with_ranks=True):
    """Return the comparison of two samplers by their areas, (pairs,); its p_holm is its p."""
    differences = np.asarray(values_a) - np.asarray(values_b)
    better = -differences if lower_is_better else differences
    p = p_wilcoxon = None
    if len(differences) > 1:
        p = float(stats.ttest_rel(values_a, values_b).pvalue)
        p_wilcoxon = float(stats.wilcoxon(differences).pvalue) if with_ranks else None  # takes milliseconds
    return Comparison(
        a=a,
        b=b,
        pairs=len(differences),
        difference=estimate(differences),
        wins=int((better > 0).sum()),
        ties=int((better == 0).sum()),
        losses=int((better < 0).sum()),
        p=p,
        p_wilcoxon=p_wilcoxon,
        p_holm=p,
        verdict=_verdict(p, better),
    )


def _verdict(p, better):
    return 0 if p is None or p >= 0.05 else int(np.sign(better.mean()))


def with_holm(comparisons, lower_is_better):
    """Return comparisons whose p_holm minds how many they are."""
    order = sorted((one.p, place) for place, one in enumerate(comparisons) if one.p is not None)
    corrected, largest = {}, 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[place] = largest
    sign = -1 if lower_is_better else 1
    return [
        Comparison(**{**vars(one), "p_holm": p, "verdict": _verdict(p, np.array([sign * one.difference.mean]))})
        for place, one in enumerate(comparisons)
        for p in [corrected.get(place)]
    ]


@cache
def picture(value, side=8):
    """Return a small grey picture as a `data:` URI."""
    pixels = (np.arange(side * side).reshape(side, side) * 3 + 40 * value) % 256
    buffer = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _examples(n, class_names, shift, texts):
    if texts:
        return [
            Example(label=class_names[(i + shift) % len(class_names)], text=f"Text number {i + shift}. " * (1 + 9 * i))
            for i in range(n)
        ]
    return [Example(class_names[(i + shift) % len(class_names)], picture(i + shift), 8, 8) for i in range(n)]


class _Runs:
    """Simulated runs of all samplers of an experiment: values (S, P) by sampler and metric, on the same seeds."""

    def __init__(self, generator, samplers, metrics, *, n_runs, n_points, lower):
        self.labels = 10.0 * np.arange(1, n_points + 1)
        self.values, self.seconds = {}, {}
        slow = 1 + generator.random()
        ease = generator.normal(0, 0.01, (n_runs, 1))
        for place, sampler in enumerate(samplers):
            speed = 0.014 + 0.0008 * ((place * 3) % 5) + 0.001 * generator.normal()
            noise = generator.normal(0, 0.008, (n_runs, n_points)) + generator.normal(0, 0.006, (n_runs, 1))
            accuracy = np.clip(0.97 - 0.7 * np.exp(-speed * self.labels) + ease + noise, 0, 1)
            self.seconds[sampler] = np.cumsum(slow * (0.05 * (1 + place) + 0.002 * self.labels))
            for metric in metrics:
                bit = generator.normal(0, 0.004, accuracy.shape)
                self.values[sampler, metric] = 2.5 * (1 - accuracy) + bit if metric in lower else accuracy + bit

    def area(self, sampler, metric):
        """Return each run's area under its curve divided by the labels that it spans, (S,)."""
        values = self.values[sampler, metric]
        if len(self.labels) == 1:
            return values[:, 0]
        return integrate.trapezoid(values, self.labels, axis=1) / (self.labels[-1] - self.labels[0])


def make_summary(
    *,
    data=DATA,
    samplers=SAMPLERS,
    metrics=METRICS,
    lower=LOWER,
    axes=AXES,
    n_runs=10,
    n_points=20,
    class_names=("zero", "one", "two", "three"),
    n_examples=6,
    model="logistic",
    settings="",
    extra="",
    seed=0,
):
    """Return a summary of one experiment for each name of data; the first sampler is the baseline.

    `extra` is put into every sentence, so that what is hostile is in all places.
    """
    generator = np.random.default_rng(seed)
    class_names = [name + extra for name in class_names]
    runs = [
        _Runs(generator, samplers, metrics, n_runs=n_runs, n_points=n_points, lower=lower) for _ in range(len(data))
    ]
    experiments = []
    for number, (name, of) in enumerate(zip(data, runs, strict=True)):
        target = float(of.values[samplers[0], metrics[0]].mean(0)[-1])
        entries = {}
        for place, sampler in enumerate(samplers):
            entries[sampler] = _entry(of, sampler, samplers[0], metrics, lower, axes, target=target)
            shares = generator.dirichlet(np.full(len(class_names), 3.0 + place))
            entries[sampler].classes.extend((of.labels[:, None] * shares).tolist())
            entries[sampler].class_labels.extend(of.labels.tolist())
            for kind, shift in ((entries[sampler].first, place), (entries[sampler].last, place + 5)):
                kind.extend(_examples(n_examples, class_names, shift, texts=number % 2))
        best = sorted(samplers, key=lambda one: entries[one].area[metrics[0]].mean, reverse=metrics[0] not in lower)
        experiments.append(
            ExperimentSummary(
                folder=f"runs/{name}-{model}",
                data=name,
                model=model,
                settings=settings,
                baseline=samplers[0],
                full_data=0.965 if metrics[0] not in lower else 0.1,
                class_names=class_names,
                pool_classes=[300 + 50 * i for i in range(len(class_names))],
                entries=entries,
                ordered=best,
            )
        )
    many = len(data) > 1 and len(samplers) > 1
    return Summary(
        title=f"Samplers on {len(data)} data sets{extra}",
        command="python -m experiments.report runs/*" + extra,
        written="2026-11-29 16:00 UTC",
        metrics=list(metrics),
        lower_is_better=[metric for metric in metrics if metric in lower],
        experiments=experiments,
        comparisons={metric: _compare_all(runs, samplers, metric, metric in lower) for metric in metrics},
        ranking=_rank(runs, samplers, metrics[0], metrics[0] in lower) if many else None,
        penalties=_penalties(runs, samplers, metrics[0], metrics[0] in lower) if many and n_runs > 1 else None,
        problems=[Problem(f"runs/broken{extra}", f"config.json is no JSON{extra}")],
        unfinished=[f"runs/{data[0]}-{model}/{samplers[-1]}/seed=3{extra}"],
        missing=[f"{data[0]}, {model}: {samplers[-1]} has no run of seed 3{extra}"],
        versions=[f"torchal 0.1.0, Python 3.12.3, torch 2.9.0{extra}"],
        notes=[f"Intervals are 95 % by Student's t over seeds.{extra}"],
    )


def _entry(of, sampler, baseline, metrics, lower, axes, *, target):
    x = {"labels": of.labels, "cost": 1.5 * of.labels, "seconds": of.seconds[sampler]}
    main = of.values[sampler, metrics[0]]
    right = main <= target if metrics[0] in lower else main >= target
    needed = np.where(right.any(1), of.labels[right.argmax(1)], np.inf)
    median = float(np.quantile(needed, 0.5, method="inverted_cdf"))
    against = {
        metric: compare(
            sampler,
            baseline,
            of.area(sampler, metric),
            of.area(baseline, metric),
            lower_is_better=metric in lower,
            with_ranks=len(of.seconds) < 10,
        )
        for metric in metrics
        if sampler != baseline
    }
    total = float(of.seconds[sampler][-1])
    return Entry(
        sampler=sampler,
        runs=len(main),
        unfinished=0,
        labels=float(of.labels[-1]),
        cost=float(x["cost"][-1]),
        seconds={"fit": 0.6 * total, "select": 0.3 * total, "score": 0.1 * total},
        final={metric: estimate(of.values[sampler, metric][:, -1]) for metric in metrics},
        area={metric: estimate(of.area(sampler, metric)) for metric in metrics},
        reached=Reached(target, len(main), int(right.any(1).sum()), median if np.isfinite(median) else None),
        against=against,
        curves={metric: {axis: band(x[axis], of.values[sampler, metric]) for axis in axes} for metric in metrics},
    )


def _compare_all(runs, samplers, metric, lower_is_better):
    areas = {sampler: np.concatenate([of.area(sampler, metric) for of in runs]) for sampler in samplers}
    pairs = itertools.combinations(samplers, 2)
    settings = {"lower_is_better": lower_is_better, "with_ranks": len(samplers) < 10}
    return with_holm([compare(a, b, areas[a], areas[b], **settings) for a, b in pairs], lower_is_better)


def _rank(runs, samplers, metric, lower_is_better):
    table = np.array([[of.area(sampler, metric).mean() for sampler in samplers] for of in runs])
    ranks = stats.rankdata(table if lower_is_better else -table, axis=1).mean(0)
    n, k = table.shape
    p = float(stats.friedmanchisquare(*table.T).pvalue) if k > 2 else 0.5
    critical = float(stats.studentized_range.ppf(0.95, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))
    order = np.argsort(ranks, kind="stable")
    cliques = []
    for first in range(k):
        group = [samplers[i] for i in order[first:] if ranks[i] - ranks[order[first]] < critical]
        if len(group) > 1 and (not cliques or cliques[-1][-1] != group[-1]):
            cliques.append(group)
    return Ranking({samplers[i]: float(ranks[i]) for i in order}, n, p, critical, cliques, [])


def _penalties(runs, samplers, metric, lower_is_better):
    matrix = np.zeros((len(samplers), len(samplers)))
    for of in runs:
        for i, j in itertools.combinations(range(len(samplers)), 2):
            a, b = of.values[samplers[i], metric], of.values[samplers[j], metric]
            differences = b - a if lower_is_better else a - b
            sure = stats.ttest_rel(a, b, axis=0).pvalue < 0.05
            matrix[i, j] += float((sure & (differences.mean(0) > 0)).mean())
            matrix[j, i] += float((sure & (differences.mean(0) < 0)).mean())
    return Penalties(list(samplers), matrix.tolist(), len(runs))


def rich():
    """Return four experiments of five samplers, ten runs each, where one sampler lacks a metric and runs go on."""
    return deepcopy(_rich())


@cache
def _rich():
    summary = make_summary()
    entry = summary.experiments[0].entries[SAMPLERS[-1]]
    for values in (entry.final, entry.area, entry.against, entry.curves):
        del values["macro_f1"]
    vars(entry).update(runs=8, unfinished=2)
    vars(entry.reached).update(runs=8, reached=3, median=None)
    return summary


def minimal():
    """Return one experiment of one sampler with one run, which says nothing of how much runs differ."""
    summary = make_summary(data=("iris",), samplers=("uniform",), metrics=("accuracy",), axes=("labels",), n_runs=1)
    (experiment,) = summary.experiments
    entry = experiment.entries["uniform"]
    for values in (entry.class_labels, entry.classes, entry.first, entry.last):
        values.clear()
    vars(entry).update(reached=None, seconds={})
    vars(experiment).update(full_data=None, class_names=[], pool_classes=None)
    for values in (summary.problems, summary.unfinished, summary.missing, summary.notes):
        values.clear()
    return summary


def unfinished():
    """Return an experiment none of whose runs is finished: there are curves and nothing else."""
    summary = make_summary(data=("wine",), n_runs=3, n_points=4)
    for entry in summary.experiments[0].entries.values():
        for values in (entry.final, entry.area, entry.against):
            values.clear()
        vars(entry).update(runs=0, unfinished=3, reached=None)
    summary.experiments[0].ordered.clear()
    vars(summary).update(comparisons={metric: [] for metric in summary.metrics}, ranking=None, penalties=None)
    return summary


def empty():
    """Return a report of a folder in which there is nothing but a run that cannot be read."""
    problems = [Problem("runs/broken", "config.json is no JSON")]
    return Summary("Nothing", "", "2026-11-29", [], [], [], {}, None, None, problems, [], [], [], [])


def hostile():
    """Return names and texts that a page, a table or a script may choke on, numbers that are none, and metrics that
    are missing."""
    extra = HOSTILE
    names = HOSTILE_NAMES
    summary = make_summary(
        data=(f"data{extra}", "نص", "d" * 200),
        samplers=names,
        metrics=("accuracy", f"log_loss{extra}", "none_has_it"),
        lower=(f"log_loss{extra}",),
        class_names=("</td>", "🦉", "c" * 200),
        model=f"model{extra}",
        settings=f"noise=0.1{extra}",
        n_runs=4,
        n_points=6,
        extra=extra,
    )
    for experiment in summary.experiments:
        for place, entry in enumerate(experiment.entries.values()):
            for values in (entry.final, entry.area, entry.against, entry.curves):
                values.pop("none_has_it", None)
            if place == 1:  # what is not a number, in all forms
                for bands in entry.curves.values():
                    for one in bands.values():
                        one.mean[0], one.lower[1], one.upper[1] = float("nan"), None, float("inf")
                for metric in entry.final:
                    entry.final[metric] = Estimate(float("nan"), None, None)
                    entry.area[metric] = Estimate(float("nan"), float("nan"), float("nan"))
            if place == 2:
                entry.curves.clear()
                entry.classes.clear()
                entry.class_labels.clear()
    summary.comparisons["none_has_it"] = []
    return summary


def large(n_experiments=50, n_samplers=20, n_points=20):
    """Return as much as a page is made for: 50 experiments of 20 samplers, 20 places, 3 metrics and 3 axes."""
    summary = make_summary(
        data=("a", "b"),
        samplers=tuple(f"sampler_{i:02d}" for i in range(n_samplers)),
        n_runs=5,
        n_points=n_points,
        n_examples=0,
        class_names=tuple(f"class {i}" for i in range(10)),
    )
    copies = [_moved(summary.experiments[i % 2], 1e-4 * i, f"data_set_{i:02d}") for i in range(n_experiments)]
    return replace(summary, title=f"Samplers on {n_experiments} data sets", experiments=copies)


def _moved(experiment, shift, name):
    """Return an experiment of the same runs with other values, so that no array is like one of another."""
    entries = {}
    for place, (sampler, entry) in enumerate(experiment.entries.items()):
        curves = {
            metric: {
                axis: Band(
                    [x * (1 + shift) for x in one.x] if axis == "seconds" else one.x,
                    *([value + shift * (1 + k + place + len(axis)) for value in side] for k, side in enumerate(sides)),
                    one.n_runs,
                )
                for axis, one in bands.items()
                for sides in [(one.mean, one.lower, one.upper)]
            }
            for metric, bands in entry.curves.items()
        }
        entries[sampler] = replace(entry, curves=curves)
    return replace(experiment, data=name, folder=f"runs/{name}-logistic", entries=entries)
