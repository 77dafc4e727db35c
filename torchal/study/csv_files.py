"""A summary as CSV files: for spreadsheets, and for whoever draws charts of their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping

from torchal.study.summary import Comparison, Entry, Estimate, ExperimentSummary, Summary


def results_csv(summary: Summary) -> str:
    """Return a line for each experiment, sampler and metric."""
    return _written(
        _about(experiment) | {"sampler": sampler} | _result(entry, metric, experiment, is_main=metric == summary.metric)
        for experiment, sampler, entry in _entries(summary)
        for metric in summary.metrics
    )


def curves_csv(summary: Summary) -> str:
    """Return a line for each place of each mean curve."""
    return _written(
        _about(experiment)
        | {"sampler": sampler, "metric": metric, "against": against, "x": x}
        | {"mean": mean, "lower": lower, "upper": upper, "runs": band.n_runs}
        for experiment, sampler, entry in _entries(summary)
        for metric, by_axis in entry.curves.items()
        for against, band in by_axis.items()
        for x, mean, lower, upper in zip(band.x, band.mean, band.lower, band.upper, strict=True)
    )


def comparisons_csv(summary: Summary) -> str:
    """Return a line for each metric and pair of samplers, over all experiments."""
    return _written(
        {"metric": metric, "a": one.a, "b": one.b} | _compared(one) | {"verdict": one.verdict}
        for metric, found in summary.comparisons.items()
        for one in found
    )


def _entries(summary: Summary) -> Iterator[tuple[ExperimentSummary, str, Entry]]:
    for experiment in summary.experiments:
        for sampler in experiment.ordered:
            yield experiment, sampler, experiment.entries[sampler]


def _about(experiment: ExperimentSummary) -> dict[str, object]:
    return {name: getattr(experiment, name) for name in ("folder", "data", "model", "settings")}


def _result(entry: Entry, metric: str, experiment: ExperimentSummary, *, is_main: bool) -> dict[str, object]:
    target = entry.reached if is_main else None
    return (
        {"runs": entry.runs, "unfinished": entry.unfinished, "labels": entry.labels, "metric": metric}
        | _ends("final", entry.final.get(metric))
        | _ends("area", entry.area.get(metric))
        | {"baseline": experiment.baseline}
        | _compared(entry.against.get(metric))
        | {name: None if target is None else getattr(target, name) for name in ("target", "reached", "median")}
        | {"cost": entry.cost, "seconds": sum(entry.seconds.values())}
        | {"class_divergence": entry.divergence, "sole_share": entry.sole}
    )


def _ends(name: str, estimate: Estimate | None) -> dict[str, object]:
    ends = {name: "mean", f"{name}_lower": "lower", f"{name}_upper": "upper"}
    return {column: None if estimate is None else getattr(estimate, end) for column, end in ends.items()}


def _compared(found: Comparison | None) -> dict[str, object]:
    names = ("p", "p_wilcoxon", "p_holm", "wins", "ties", "losses")
    rest = {name: None if found is None else getattr(found, name) for name in names}
    ends = _ends("difference", None if found is None else found.difference)
    return {"pairs": None if found is None else found.pairs} | ends | rest


def _written(lines: Iterator[Mapping[str, object]]) -> str:
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for line in lines:
        if writer is None:
            writer = csv.DictWriter(text, list(line), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: f"{cell:.6g}" if isinstance(cell, float) else cell for name, cell in line.items()})
    return text.getvalue()
