"""A summary in Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torchal.study.answer import answer
from torchal.study.numbers import p_value, probability
from torchal.study.summary import Comparison, Entry, ExperimentSummary, Summary
from torchal.study.words import difference, estimated, reached, verdict


def markdown(summary: Summary, *, pictures: Mapping[str, str] | None = None) -> str:
    """Return the report in Markdown, as GitHub shows it.

    Args:
        summary: what it says.
        pictures: files of charts by what they show, which are linked to.
    """
    parts = [f"# {_escaped(summary.title)}", answer(summary, quote=_escaped)]
    if summary.problems or summary.missing or summary.unfinished:
        parts.append(_listed([f"{one.folder}: {one.why}" for one in summary.problems], "Could not be read"))
        parts.append(_listed(summary.unfinished, "Not finished"))
        parts.append(_listed(summary.missing, "Missing"))
    parts += [f"![{_escaped(what)}]({file})" for what, file in (pictures or {}).items()]
    parts += [_experiment_markdown(one, summary) for one in summary.experiments]
    if any(summary.comparisons.values()):
        parts.append(
            "## Each against each\n\nA minus B in area, over pairs of the same experiment and seed; p is Holm's."
        )
        parts += [
            f"### {_escaped(metric)}\n\n{_pairs_markdown(found)}"
            for metric, found in summary.comparisons.items()
            if found
        ]
    if summary.ranking is not None:
        ranks = [[_escaped(name), f"{rank:.2f}"] for name, rank in summary.ranking.mean_ranks.items()]
        alike = "; ".join(", ".join(group) for group in summary.ranking.cliques) or "none"
        parts.append(
            f"## Ranks over {summary.ranking.blocks} experiments\n\n{_table(['sampler', 'mean rank'], ranks)}\n\n"
            f"Friedman's test: {probability(summary.ranking.p)}. Nemenyi's critical difference at 5 %: "
            f"{summary.ranking.critical_difference:.2f} ranks. Not told apart by it: {_escaped(alike)}."
        )
    parts.append("## How it was made")
    parts += [_listed(summary.versions, "With"), _listed(summary.notes, "Notes")]
    if summary.command:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", summary.command)), default=0))
        parts.append(f"{fence}bash\n{summary.command}\n{fence}")
    parts.append(f"Written {summary.written}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _experiment_markdown(experiment: ExperimentSummary, summary: Summary) -> str:
    metric = summary.metric
    full = "" if experiment.full_data is None else f" With all training data: {experiment.full_data:.4f}."
    heads = ["sampler", "runs", "labels", f"final {_escaped(metric)}", "area", "labels to target", "s/run"]
    rows = [_cells(name, experiment.entries[name], metric) for name in experiment.ordered]
    if experiment.baseline is not None:
        heads.insert(5, f"area minus {_escaped(experiment.baseline)}")
        for name, row in zip(experiment.ordered, rows, strict=True):
            row.insert(5, _difference(experiment.entries[name].against.get(metric)))
    return f"## {_escaped(experiment.name)}\n\nMeans with 95 % intervals.{full}\n\n{_table(heads, rows)}"


def _difference(found: Comparison | None) -> str:
    """Return the difference to the baseline, bold where it is better and italic where it is worse."""
    mark = "" if found is None else {1: "**", -1: "*", 0: ""}[found.verdict]
    return "" if found is None else f"{mark}{difference(found.difference)}{mark}"


def _cells(sampler: str, entry: Entry, metric: str) -> list[str]:
    runs = f"{entry.runs}" + (f" (+{entry.unfinished} unfinished)" if entry.unfinished else "")
    estimates = [estimated(of.get(metric)) for of in (entry.final, entry.area)]
    seconds = f"{sum(entry.seconds.values()):.2f}"
    return [_escaped(sampler), runs, f"{entry.labels:g}", *estimates, reached(entry.reached), seconds]


def _pairs_markdown(found: Sequence[Comparison]) -> str:
    heads = ["A", "B", "pairs", "difference", "p", "won / equal / lost", "verdict"]
    rows = [
        [
            _escaped(one.a),
            _escaped(one.b),
            str(one.pairs),
            difference(one.difference),
            p_value(one.p_holm),
            f"{one.wins} / {one.ties} / {one.losses}",
            _escaped(verdict(one)),
        ]
        for one in found
    ]
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def _listed(lines: Sequence[str], what: str) -> str:
    return "" if not lines else f"{what}:\n\n" + "\n".join(f"- {_escaped(line)}" for line in lines)


def _escaped(text: str) -> str:
    """Return a text on one line of which Markdown, and HTML inside it, makes nothing."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", re.sub(r"\s+", " ", text))
