"""Numbers as a report says them, with one sign for minus and as many digits as help."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeGuard

from torchal.study.summary import Estimate

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"


def is_number(value: float | None) -> TypeGuard[float]:
    """Return whether a value is there and finite."""
    return value is not None and math.isfinite(value)


def significant(value: float | None, digits: int) -> float | None:
    """Return a number of so many significant digits; None for what is none.

    Example:
        >>> significant(0.123456789, 5), significant(float("nan"), 5)
        (0.12346, None)
    """
    if not is_number(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e15 else rounded


def decimal(value: float | None) -> str:
    """Return the value of a metric.

    Example:
        >>> [decimal(value) for value in (0.93, 2.5, 12.5, 1234.6, 0.00012)], decimal(-1.0) == f"{MINUS}1.0000"
        (['0.9300', '2.5000', '12.500', '1,235', '0.00012'], True)
    """
    if not is_number(value):
        return NOTHING
    size = abs(value)
    if size >= 1000:
        digits = 0
    elif size >= 100:
        digits = 2
    elif size >= 10:
        digits = 3
    elif size >= 1e-3 or size < 1e-8:
        digits = 4
    else:
        digits = 1 - math.floor(math.log10(size))
    return f"{value + 0.0:,.{digits}f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """Return a difference, with its sign; ten thousandths are enough.

    Example:
        >>> signed(0.0211), signed(-0.5) == f"{MINUS}0.5000", signed(1e-9), signed(None) == NOTHING
        ('+0.0211', True, '0.0000', True)
    """
    if not is_number(value):
        return NOTHING
    text = decimal(value) if abs(value) >= 1e-3 else f"{value:.4f}".replace("-", MINUS)
    if not text.strip(f"{MINUS}0."):
        return "0.0000"
    return text if value < 0 else f"+{text}"


def interval(one: Estimate | None, write: Callable[[float | None], str] = decimal) -> str:
    """Return an interval in brackets, or nothing where there is none.

    Example:
        >>> interval(Estimate(0.5, 0.4, 0.6)), interval(Estimate(0.5, None, None))
        ('[0.4000, 0.6000]', '')
    """
    if one is None or not is_number(one.lower) or not is_number(one.upper):
        return ""
    return f"[{write(one.lower)}, {write(one.upper)}]"


def p_value(p: float | None) -> str:
    """Return a p-value, with a sign where it is below what is told.

    Example:
        >>> p_value(0.21), p_value(0.0123), p_value(1e-9), p_value(None)
        ('0.21', '0.012', '< 0.0001', '')
    """
    if not is_number(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.{2 if p >= 0.1 else 3 if p >= 0.01 else 4}f}"


def probability(p: float | None) -> str:
    """Return what a p-value is.

    Example:
        >>> probability(0.21), probability(0.0123), probability(1e-9), probability(None)
        ('p = 0.21', 'p = 0.012', 'p < 0.0001', '')
    """
    value = p_value(p)
    return f"p {value}" if value.startswith("<") else f"p = {value}" if value else ""


def amount(value: float | None) -> str:
    """Return labels, a cost or seconds: whole where it is, else with three digits at least.

    Example:
        >>> [amount(value) for value in (120.0, 1234567, 0.1234, 12.345, 120.5)]
        ['120', '1,234,567', '0.123', '12.3', '120.5']
    """
    if not is_number(value):
        return NOTHING
    size = abs(value)
    whole = value == math.floor(value)
    digits = 0 if whole or size >= 1000 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}".replace("-", MINUS)
