"""A summary as lines in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torchal.study.numbers import MINUS, probability
from torchal.study.summary import Comparison, Entry, ExperimentSummary, Reached, Summary
from torchal.study.words import difference, estimated, reached


def lines(summary: Summary, *, target: str = "target") -> Iterator[str]:
    """Return a table of each experiment, how its samplers compare with the baseline, and what is not finished.

    Args:
        summary: what is told.
        target: what the labels are needed for, as "90% of full".
    """
    for number, experiment in enumerate(summary.experiments):
        if number:
            yield ""
        yield from _experiment(experiment, summary.metric, target)
    if summary.unfinished:
        n = summary.n_unfinished
        them = "it" if n == 1 else "them"
        yield f"{n} more run{'s' * (n > 1)} did not finish; the command that began {them} goes on with {them}"


def _experiment(experiment: ExperimentSummary, metric: str, target: str) -> Iterator[str]:
    full = "not known" if experiment.full_data is None else f"{experiment.full_data:.4f}"
    yield f"{experiment.name}   {metric} with all training data: {full}"
    heads = ["sampler", "runs", f"final {metric}", "mean area [95 % interval]", f"labels to {target}", "s/run"]
    table = [heads, *(_cells(name, experiment.entries[name], metric) for name in experiment.ordered)]
    widths = [max(len(line[i]) for line in table) for i in range(len(heads))]
    for line in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    for name in experiment.ordered:
        if found := experiment.entries[name].against.get(metric):
            yield compared(found)


def compared(found: Comparison) -> str:
    """Return a comparison in a line.

    Example:
        >>> from torchal.study.summary import Estimate
        >>> compared(Comparison("margin", "uniform", 5, Estimate(0.03, 0.01, 0.05), 5, 0, 0, 0.01, 0.06, 0.02, 1))
        'margin - uniform: area +0.0300 [+0.0100, +0.0500], paired over 5 runs, p = 0.020 (Holm)'
    """
    p = "" if found.p_holm is None else f", {probability(found.p_holm)} (Holm)"
    pairs = f"{found.pairs} run{'s' * (found.pairs > 1)}"
    told = f"{found.a} - {found.b}: area {difference(found.difference)}, paired over {pairs}{p}"
    return told.replace(MINUS, "-")  # which a terminal can search for


def _cells(sampler: str, entry: Entry, metric: str) -> Sequence[str]:
    final, area = entry.final.get(metric), entry.area.get(metric)
    return [
        sampler,
        str(entry.runs) if not entry.unfinished else f"{entry.runs} (+{entry.unfinished})",
        "" if final is None else f"{final.mean:.4f}",
        estimated(area).replace(MINUS, "-") + (" [one run]" if area is not None and area.lower is None else ""),
        _needed(entry.reached),
        f"{sum(entry.seconds.values()):.2f}",
    ]


def _needed(found: Reached | None) -> str:
    """Return the labels needed; of how many runs, where not all came there."""
    text = reached(found)
    return text.partition(" (")[0] if found is not None and found.reached == found.runs else text
