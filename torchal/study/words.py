"""What stands in the cells of a report's tables, in Markdown, in LaTeX and in the terminal."""

from __future__ import annotations

from torchal.study.numbers import decimal, interval, signed
from torchal.study.summary import Comparison, Estimate, Reached


def estimated(found: Estimate | None) -> str:
    """Return a mean with its interval.

    Example:
        >>> estimated(Estimate(0.9123, 0.9, 0.92)), estimated(Estimate(0.5, None, None)), estimated(None)
        ('0.9123 [0.9000, 0.9200]', '0.5000', '')
    """
    return "" if found is None else f"{decimal(found.mean)} {interval(found)}".rstrip()


def difference(found: Estimate) -> str:
    """Return a difference with its interval.

    Example:
        >>> difference(Estimate(0.0213, 0.01, 0.03)), difference(Estimate(0.5, None, None))
        ('+0.0213 [+0.0100, +0.0300]', '+0.5000')
    """
    return f"{signed(found.mean)} {interval(found, signed)}".rstrip()


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
