"""Sum up runs: curves, areas, labels needed, paired comparisons, ranks, what was bought."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchal._records import without
from torchal.errors import ConfigError, DataError
from torchal.runs.curves import learning_curve
from torchal.runs.metrics import LOWER_IS_BETTER
from torchal.runs.results import AXES, Run
from torchal.runs.watching import WATCHED
from torchal.statistics import curves
from torchal.study.comparing import (
    areas_of,
    compare_over_all,
    compare_with,
    count_penalties,
    rank,
)
from torchal.study.picks import bought_by_class, class_columns, class_divergence, sole_shares, spread
from torchal.study.reading import SEEDS, Runs, StudyRun, differing, packages_of, part_of
from torchal.study.summary import (
    Band,
    Comparison,
    Entry,
    Estimate,
    ExperimentSummary,
    Reached,
    Summary,
)

_PLACES = 160  # of a curve, at the most


class Wanted(NamedTuple):
    """What is to be summed up.

    Attributes:
        metric: the main one, of the test part; all others that the runs recorded follow.
        metrics: those of interest; all where None.
        baseline: the sampler that others are compared with; where an experiment lacks it, none is.
        target: the value of the main metric that is to be reached; where None, 90 % of what all training data come to.
        title, command: what the report is called, and the command that makes it.
    """

    metric: str = "accuracy"
    metrics: Sequence[str] | None = None
    baseline: str = "uniform"
    target: float | None = None
    title: str = "Results"
    command: str = ""


SHARE_OF_FULL = 0.9
"""Of the accuracy with all training data: the target unless one is given."""


def sum_up(runs: Runs, wanted: Wanted | None = None) -> Summary:
    """Sum up runs that differ in anything: experiment by experiment, and over all of them.

    An experiment is what its runs share: all settings but sampler and seed. Samplers are compared over pairs of runs of
    the same experiment and seed only, whose split and first labels are the same.

    Args:
        runs: as `read_runs` found them.
        wanted: which metric, baseline and target; by default accuracy, uniform sampling and 90 % of what all training
            data come to.

    Raises:
        DataError: there is no run with a round.
        ConfigError: no run recorded the metric.
    """
    if not runs.found:
        raise DataError("there is no run to report on" + (f"; {runs.problems[0].why}" if runs.problems else ""))
    wanted = wanted or Wanted()
    metrics = _metrics(runs.found, wanted)
    groups: dict[str, list[StudyRun]] = {}
    for one in runs.found:
        groups.setdefault(one.settings, []).append(one)
    settings = _settings_of(list(groups.values()))
    experiments = [
        _experiment(group, told, metrics, wanted) for group, told in zip(groups.values(), settings, strict=True)
    ]
    experiments.sort(key=lambda one: (one.data, one.model, one.settings))
    finished = [one for one in runs.found if one.run.finished]
    ranking, why = rank(experiments, metrics[0])
    notes = [f"Ranks over experiments: {why}."] if why else []
    notes += [f"Left out, for the same run was found before: {folder}." for folder in runs.twice]
    notes += [
        f"{one.name}: there is no {wanted.baseline} to compare with." for one in experiments if one.baseline is None
    ]
    notes += [note for one in experiments for note in _spans(one.name, groups[one.key])]
    return Summary(
        title=wanted.title,
        command=wanted.command,
        written=time.strftime("%Y-%m-%d %H:%M"),
        metrics=metrics,
        lower_is_better=[name for name in metrics if name in LOWER_IS_BETTER],
        experiments=experiments,
        comparisons={name: compare_over_all(finished, name) for name in _compared(metrics)},
        ranking=ranking,
        penalties=count_penalties(groups.values(), metrics[0]),
        problems=runs.problems,
        unfinished=[*_progress(groups, experiments), *(f"{folder}: no round yet" for folder in runs.empty)],
        missing=list(_missing(experiments, groups)),
        versions=_versions(runs.found),
        notes=notes,
        n_empty=len(runs.empty),
    )


def _metrics(found: Sequence[StudyRun], wanted: Wanted) -> list[str]:
    """Return what runs recorded of the test part, the main metric first, and what they watched."""
    recorded = dict.fromkeys(name for one in found for name in one.run.rounds[0].test)
    watched = {name for one in found for result in one.run.rounds for name in result.pool}
    if wanted.metric not in recorded:
        have = f"they have {', '.join(recorded)}" if recorded else "they have no test part"
        raise ConfigError(f"no run recorded {wanted.metric} on the test part; {have}")
    recorded |= dict.fromkeys(name for name in WATCHED if name in watched)
    others = [name for name in wanted.metrics if name in recorded] if wanted.metrics is not None else list(recorded)
    return [wanted.metric, *(name for name in others if name != wanted.metric)]


def _compared(metrics: Sequence[str]) -> list[str]:
    """Return the metrics of which more, or less, is better: not what was watched."""
    return [name for name in metrics if part_of(name) == "test"]


def _settings_of(groups: Sequence[Sequence[StudyRun]]) -> list[str]:
    """Return, for each group, the settings that tell it apart from others of the same data and model."""
    alike: dict[tuple[str, str], list[int]] = {}
    for number, group in enumerate(groups):
        alike.setdefault((group[0].data, group[0].model), []).append(number)
    told = [""] * len(groups)
    for numbers in alike.values():
        if len(numbers) < 2:
            continue
        shared = [json.loads(groups[number][0].settings) for number in numbers]
        names = differing(shared)
        for number in numbers:
            flat = groups[number][0].flat
            told[number] = ", ".join(f"{name}={flat.get(name)}" for name in names if name in flat)
        if len({told[number] for number in numbers}) < len(numbers):
            for number in numbers:
                told[number] = str(groups[number][0].run.folder.parent.parent)
    return told


def _experiment(group: Sequence[StudyRun], settings: str, metrics: Sequence[str], wanted: Wanted) -> ExperimentSummary:
    by_sampler: dict[str, list[StudyRun]] = {}
    for one in group:
        by_sampler.setdefault(one.sampler, []).append(one)
    full = full_data(group)
    known = (one.environment["data"] for one in group if isinstance(one.environment.get("data"), Mapping))
    about: Mapping[str, Any] = next(known, {})
    met = max(
        (int(result.labels.max()) + 1 for one in group for result in one.run.rounds if len(result.labels)), default=0
    )
    counts = about.get("class_counts")
    if not isinstance(counts, list) or len(counts) < met or not all(isinstance(count, int) for count in counts):
        counts = None  # of other data than the runs bought
    n_classes = met if counts is None else len(counts)
    columns = class_columns(group, n_classes, counts)
    names = about.get("class_names") or ()
    names = names if len(names) == n_classes else [str(number) for number in range(n_classes)]
    class_names = ["others" if len(column) > 1 else str(names[column[0]]) for column in columns]
    ended = {name: [one for one in runs if one.run.finished] for name, runs in by_sampler.items()}
    baseline = wanted.baseline if ended.get(wanted.baseline) else None
    against: dict[str, dict[str, Comparison]] = {name: {} for name in by_sampler}
    if baseline is not None:
        for metric in _compared(metrics):
            scores = areas_of([one for runs in ended.values() for one in runs], metric)
            for name, compared in compare_with(scores, baseline, metric).items():
                against[name][metric] = compared
    sole = sole_shares(ended)
    entries = {
        name: _entry(name, runs, metrics, full, columns, against[name], wanted, counts, sole.get(name))
        for name, runs in by_sampler.items()
    }
    return ExperimentSummary(
        folder=str(group[0].run.folder.parent.parent),
        data=group[0].data,
        model=group[0].model,
        settings=settings,
        baseline=baseline,
        full_data=float(np.mean(list(full.values()))) if full and metrics[0] == "accuracy" else None,
        class_names=class_names,
        pool_classes=None if counts is None else [sum(counts[c] for c in column) for column in columns],
        entries=entries,
        ordered=_ordered(entries, metrics[0]),
        key=group[0].settings,
    )


def _ordered(entries: Mapping[str, Entry], metric: str) -> list[str]:
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def place(name: str) -> tuple[float, str]:
        found = entries[name].area.get(metric)
        return (math.inf if found is None else sign * found.mean), name

    return sorted(entries, key=place)


def full_data(group: Sequence[StudyRun]) -> dict[int, float]:
    """Return the test accuracy with all training data, by seed, as far as it is known."""
    known: dict[int, float] = {}
    config = group[0].run.config
    for folder in sorted({one.run.folder.parent.parent for one in group}):
        for path in (folder / "full_data").glob("seed=*.json"):
            try:
                content = json.loads(path.read_text("utf-8"))
                of = content["config"]
                same = all(without(of[name], SEEDS) == without(config.get(name), SEEDS) for name in of.keys() - SEEDS)
                if same:
                    known[int(path.stem.removeprefix("seed="))] = float(content["accuracy"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # a file that is being written, or of somebody else: the target is then not known
    return known


def _entry(  # noqa: PLR0917
    sampler: str,
    runs: Sequence[StudyRun],
    metrics: Sequence[str],
    full: Mapping[int, float],
    columns: Sequence[Sequence[int]],
    against: dict[str, Comparison],
    wanted: Wanted,
    counts: Sequence[int] | None,
    sole: float | None,
) -> Entry:
    ended = [one for one in runs if one.run.finished]
    shown = ended or list(runs)
    labels, bought = bought_by_class([one.run for one in shown], columns)
    measured = {name: [one for one in shown if one.has(name)] for name in metrics}
    return Entry(
        sampler=sampler,
        runs=len(ended),
        unfinished=len(runs) - len(ended),
        labels=float(np.mean([one.run.rounds[-1].n_labeled for one in shown])),
        cost=float(np.mean([one.run.rounds[-1].cost for one in shown])),
        seconds=_seconds([one.run for one in shown]),
        final={
            name: _estimate([one.run.curve(name, part_of(name))[1][-1] for one in some if one.run.finished])
            for name, some in measured.items()
            if any(one.run.finished for one in some)
        },
        area={
            name: _estimate([one.area(name) for one in some if one.run.finished])
            for name, some in measured.items()
            if any(one.run.finished for one in some)
        },
        reached=_reached(ended, metrics[0], full, wanted.target),
        against=against,
        curves={name: _bands([one.run for one in some], name) for name, some in measured.items() if some},
        class_labels=labels,
        classes=bought,
        divergence=class_divergence(shown, counts),
        sole=sole,
    )


def _estimate(values: Sequence[float]) -> Estimate:
    array = np.array(values, dtype=np.float64)
    lower, upper = (float(end) for end in curves.mean_interval(array))
    finite = math.isfinite(lower)
    return Estimate(float(array.mean()), lower if finite else None, upper if finite else None)


def _bands(runs: Sequence[Run], metric: str) -> dict[str, Band]:
    """Return the mean curve against labels, cost and seconds, where the runs have some of these in common."""
    bands = {}
    for against in AXES:
        try:
            curve = learning_curve(runs, metric=metric, part=part_of(metric), against=against)
        except DataError:
            continue  # the slowest began when the quickest was done
        keep = spread(len(curve.n_labeled), most=_PLACES)
        bands[against] = Band(
            x=[float(x) for x in curve.n_labeled[keep]],
            mean=curve.mean[keep].tolist(),
            lower=_or_none(curve.lower[keep]),
            upper=_or_none(curve.upper[keep]),
            n_runs=len(runs),
        )
    return bands


def _or_none(values: NDArray[Any]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _seconds(runs: Sequence[Run]) -> dict[str, float]:
    totals: Counter[str] = Counter()
    for run in runs:
        for result in run.rounds:
            totals.update(result.seconds)
    return {phase: seconds / len(runs) for phase, seconds in totals.items()}


def _reached(runs: Sequence[StudyRun], metric: str, full: Mapping[int, float], target: float | None) -> Reached | None:
    """Return the labels needed to come to the target: one for all, or a share of what all training data come to."""
    known = []
    for one in runs:
        at = target if target is not None else (full[one.seed] * SHARE_OF_FULL if one.seed in full else None)
        if at is not None and one.has(metric) and (target is not None or metric == "accuracy"):
            known.append((one, at))
    if not known:
        return None
    down = metric in LOWER_IS_BETTER
    needed = [curves.labels_to_reach(*one.run.curve(metric), at, lower_is_better=down) for one, at in known]
    told = curves.reached(needed, [one.run.rounds[-1].n_labeled for one, _ in known])
    return Reached(
        target=target if target is not None else float(np.mean([at for _, at in known])),
        runs=told["runs"],
        reached=told["reached"],
        median=told["median"],
    )


def _spans(name: str, group: Sequence[StudyRun]) -> Iterable[str]:
    """Say where finished runs have other numbers of labels than others: their areas are then not of the same."""
    spans = {(one.run.rounds[0].n_labeled, one.run.rounds[-1].n_labeled) for one in group if one.run.finished}
    if len(spans) > 1:
        begin, end = ({span[place] for span in spans} for place in (0, 1))
        told = " and ".join(
            f"{what} at {min(some)}{f' to {max(some)}' if len(some) > 1 else ''}"
            for what, some in (("begin", begin), ("end", end))
        )
        yield f"{name}: areas are not over the same labels: runs {told}."


def _progress(groups: Mapping[str, Sequence[StudyRun]], experiments: Sequence[ExperimentSummary]) -> Iterable[str]:
    """Tell how far the runs are that did not finish, those of a sampler together."""
    for experiment in experiments:
        waiting: dict[str, list[StudyRun]] = {}
        for one in groups[experiment.key]:
            if not one.run.finished:
                waiting.setdefault(one.sampler, []).append(one)
        for sampler, some in waiting.items():
            seeds = sorted(one.seed for one in some)
            counts = sorted(one.run.rounds[-1].n_labeled for one in some)
            last = max((one.run.folder / "rounds.jsonl").stat().st_mtime for one in some)
            written = time.strftime("%Y-%m-%d %H:%M", time.localtime(last))
            labels = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
            of = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
            yield f"{experiment.name}: {sampler}, {of}: {labels} labels so far, last written {written}"


def _missing(experiments: Sequence[ExperimentSummary], groups: Mapping[str, Sequence[StudyRun]]) -> Iterable[str]:
    """Tell the seeds and the samplers that others have."""
    for experiment in experiments:
        group = groups[experiment.key]
        seeds = {one.seed for one in group}
        by_sampler: dict[str, set[int]] = {}
        for one in group:
            by_sampler.setdefault(one.sampler, set()).add(one.seed)
        for sampler, own in by_sampler.items():
            if lacking := sorted(seeds - own):
                yield f"{experiment.name}: {sampler} has no run of seed {', '.join(map(str, lacking))}"
    samplers = dict.fromkeys(name for one in experiments for name in one.ordered)
    for experiment in experiments:
        if lacking_samplers := [name for name in samplers if name not in experiment.entries]:
            yield f"{experiment.name}: there is no run of {', '.join(lacking_samplers)}"


def _versions(found: Sequence[StudyRun]) -> list[str]:
    """Return what the runs were made with, each in a line with how many they are."""
    lines: Counter[str] = Counter()
    for one in found:
        about = one.environment
        packages = ", ".join(f"{name} {version}" for name, version in packages_of(about).items() if version)
        made = str(about.get("commit") or "")
        commit = f", commit {made[:12]}{'-dirty' if made.endswith('-dirty') else ''}" if made else ""
        on = f", on {about.get('device_name') or about.get('device')}" if about.get("device") else ""
        line = f"{packages or 'not known'}, Python {about.get('python', 'not known')}{on}{commit}"
        lines[line] += 1
    return [f"{count} run{'s' * (count > 1)}: {line}" for line, count in lines.most_common()]
