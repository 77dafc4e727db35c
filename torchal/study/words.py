"""What a summary comes to in words, the same on the page, in Markdown and in the terminal."""

from __future__ import annotations

from torchal.study.summary import Comparison, Estimate, Reached, Summary


def p_value(p: float | None) -> str:
    """Return a p-value as people read it.

    Example:
        >>> p_value(0.0321), p_value(1e-9), p_value(None)
        ('0.032', '<0.0001', '')
    """
    if p is None:
        return ""
    return "<0.0001" if p < 1e-4 else f"{p:.2g}"


def with_p(p: float | None) -> str:
    """Return what a p-value is.

    Example:
        >>> with_p(0.0321), with_p(1e-9)
        ('p = 0.032', 'p < 0.0001')
    """
    value = p_value(p)
    return f"p < {value[1:]}" if value.startswith("<") else f"p = {value}"


def estimated(found: Estimate | None) -> str:
    """Return a mean with its interval.

    Example:
        >>> estimated(Estimate(0.9123, 0.9, 0.92)), estimated(None)
        ('0.9123 [0.9000, 0.9200]', '')
    """
    if found is None:
        return ""
    return f"{found.mean:.4f}" if found.lower is None else f"{found.mean:.4f} [{found.lower:.4f}, {found.upper:.4f}]"


def signed(difference: Estimate) -> str:
    """Return a difference with its interval.

    Example:
        >>> signed(Estimate(0.0213, 0.01, 0.03)), signed(Estimate(-0.5, None, None))
        ('+0.0213 [+0.0100, +0.0300]', '-0.5000')
    """
    ends = "" if difference.lower is None else f" [{difference.lower:+.4f}, {difference.upper:+.4f}]"
    return f"{difference.mean:+.4f}{ends}"


def reached(found: Reached | None) -> str:
    """Return the labels that were needed to come to a target.

    Example:
        >>> reached(Reached(target=0.9, runs=10, reached=8, median=120.0))
        '120 (8 of 10 runs)'
    """
    if found is None:
        return ""
    median = "—" if found.median is None else f"{found.median:g}"
    return f"{median} ({found.reached} of {found.runs} run{'s' * (found.runs > 1)})"


def verdict(found: Comparison) -> str:
    """Return which of two is better, if either is."""
    return {1: f"{found.a} better", -1: f"{found.b} better", 0: "no difference shown"}[found.verdict]


def answer(summary: Summary) -> str:
    """Return in a sentence what the runs say: which sampler is best against the baseline, and how sure that is."""
    n = len(summary.experiments)
    on = f"On {n} experiments" if n > 1 else f"On {summary.experiments[0].name}" if n else "On nothing"
    metric = summary.metric
    baselines = {one.baseline for one in summary.experiments if one.baseline is not None}
    found = [one for one in summary.comparisons.get(metric, []) if baselines & {one.a, one.b}]
    if not found:
        return f"{on} there is nothing to compare yet."
    down = metric in summary.lower_is_better
    turned = [_turned(one) if one.a in baselines else one for one in found]
    best = (min if down else max)(turned, key=lambda one: one.difference.mean)
    if best.verdict == 0:
        sure = (
            f"{with_p(best.p_holm)} after Holm's correction" if best.p_holm is not None else "too few pairs to say more"
        )
        return (
            f"{on} no sampler is shown to be better than {best.b}: the largest difference is that of {best.a}, "
            f"{signed(best.difference)} in area of {metric} over {best.pairs} pairs, {sure}."
        )
    others = sum(one.verdict == 1 for one in turned) - 1
    more = f" {others} other{'s are' if others > 1 else ' is'} better too." if best.verdict == 1 and others > 0 else ""
    side = "ahead of" if best.verdict == 1 else "behind"
    return (
        f"{on} {best.a} is {side} {best.b} by {signed(best.difference)} in area of {metric} over {best.pairs} pairs, "
        f"{with_p(best.p_holm)} after Holm's correction.{more}"
    )


def _turned(found: Comparison) -> Comparison:
    """Return the comparison the other way round."""
    ends = found.difference
    turned = Estimate(
        -ends.mean, None if ends.upper is None else -ends.upper, None if ends.lower is None else -ends.lower
    )
    return Comparison(
        found.b, found.a, found.pairs, turned, found.losses, found.ties, found.wins, found.p, found.p_wilcoxon,
        found.p_holm, -found.verdict,
    )  # fmt: skip
