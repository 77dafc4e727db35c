"""The answer of a report in one or two sentences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torchal.study.comparing import corrected
from torchal.study.looks import common_baseline
from torchal.study.numbers import interval, is_number, probability, signed
from torchal.study.summary import Comparison, Estimate, Summary


def flipped(one: Comparison) -> Comparison:
    """Return the same comparison, B minus A.

    Example:
        >>> flipped(Comparison("a", "b", 3, Estimate(0.5, 0.25, 1.0), 2, 0, 1, 0.1, 0.1, 0.1, 0)).difference
        Estimate(mean=-0.5, lower=-1.0, upper=-0.25)
    """
    lower, upper = one.difference.lower, one.difference.upper
    difference = Estimate(-one.difference.mean, None if upper is None else -upper, None if lower is None else -lower)
    return replace(
        one,
        a=one.b,
        b=one.a,
        difference=difference,
        wins=one.losses,
        losses=one.wins,
        verdict=-one.verdict,
    )


def with_baseline(summary: Summary, metric: str, baseline: str) -> list[Comparison]:
    """Return the comparisons with the baseline, each sampler minus it, the best first.

    Those without a number are not among them; Holm's correction is over those that are.
    """
    turned = [
        one if one.b == baseline else flipped(one)
        for one in summary.comparisons.get(metric, [])
        if baseline in (one.a, one.b) and one.pairs
    ]
    sign = -1 if metric in summary.lower_is_better else 1
    known = [one for one in turned if is_number(one.difference.mean)]
    known = corrected(known, lower_is_better=sign < 0)
    return sorted(known, key=lambda one: -sign * one.difference.mean)


def answer(summary: Summary, *, quote: Callable[[str], str] = str) -> str:
    """Return what the runs say of the main metric: the best sampler against the baseline, and how the others fare.

    Args:
        summary: what is reported.
        quote: what names are put through, as `markup.name` for a page.

    Example:
        >>> answer(Summary("", "", "", [], [], [], {}, None, None, [], [], [], [], []))
        'There is no run to say anything of.'
    """
    n = len(summary.experiments)
    if not summary.metrics or not any(experiment.entries for experiment in summary.experiments):
        return "There is no run to say anything of."
    metric = summary.metric
    if not any(entry.runs for experiment in summary.experiments for entry in experiment.entries.values()):
        return "No run is finished yet."
    baseline = common_baseline(summary)
    against = [] if baseline is None else with_baseline(summary, metric, baseline)
    where = f"On {n} experiments" if n > 1 else "On one experiment"
    if baseline is None or not against:
        return _without_baseline(summary, where, quote)
    best = against[0]
    less = ", of which less is better" if metric in summary.lower_is_better else ""
    holm = ", Holm" if is_number(best.p_holm) else ""
    p = f", {_in_words(probability(best.p_holm))}{holm}" if is_number(best.p_holm) else ""
    band = interval(best.difference, signed)
    figures = (
        f"{signed(best.difference.mean)}{f' {band}' if band else ''} (area of {quote(metric)}{less}, "
        f"{best.pairs} {'pair' if best.pairs == 1 else 'pairs'}{p})"
    )
    name, other = quote(best.a), quote(baseline)
    if best.verdict > 0:
        first = f"{where}, {name} is ahead of {other} by {figures}."
    elif not is_number(best.p_holm):
        first = f"{where}, {name} is best against {other}: {figures}. So few pairs do not tell it from chance."
    elif any(one.verdict for one in against):
        first = f"{where}, no sampler is significantly ahead of {other}; the best is {name}: {figures}."
    else:
        first = f"{where}, no difference to {other} is significant; the best mean is that of {name}: {figures}."
    return first + _others(against, other)


def _without_baseline(summary: Summary, where: str, quote: Callable[[str], str]) -> str:
    """Return who has the best mean most often, where no baseline was compared with."""
    firsts = [experiment.ordered[0] for experiment in summary.experiments if experiment.ordered]
    if not firsts:
        return f"{where}, no run has a value of {quote(summary.metric)}."
    names = {name for experiment in summary.experiments for name in experiment.entries}
    if len(names) == 1:
        return f"{where}, {quote(firsts[0])} is the only sampler: there is nothing to compare it with."
    best = max(dict.fromkeys(firsts), key=firsts.count)
    if len(firsts) == 1:
        return (
            f"{where}, {quote(best)} has the best mean area of {quote(summary.metric)}; no baseline is compared with."
        )
    return (
        f"{where}, {quote(best)} has the best mean area of {quote(summary.metric)} in {firsts.count(best)} of "
        f"{len(firsts)}; no baseline is compared with."
    )


def _others(against: list[Comparison], baseline: str) -> str:
    if len(against) < 2:
        return ""
    words = {
        1: ("is ahead", "are ahead"),
        -1: ("is behind", "are behind"),
        0: ("does not differ significantly", "do not differ significantly"),
    }
    if not any(one.verdict for one in against):
        return ""  # which is said already
    said = []
    for sign, (one, many) in words.items():
        count = sum(other.verdict == sign for other in against)
        if count:
            said.append(f"{count if count < len(against) else 'all'} {one if count == 1 else many}")
    last = f" and {said[-1]}" if len(said) > 1 else said[-1]
    return f" Of {len(against)} samplers that are compared with {baseline}, {', '.join(said[:-1])}{last}."


def _in_words(p: str) -> str:
    """Return a p-value without the sign that HTML would read as the beginning of an element."""
    return p.replace("p < ", "p below ")
