"""Text as HTML: whatever somebody's rows hold, it is read as text."""

from __future__ import annotations

import html
import math
import re

# What no HTML file may hold: control characters other than tabs and line breaks, halves of characters, and those that
# stand for no character. Browsers do with them what they like.
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def clean(text: str) -> str:
    """Return a text with line breaks of one kind, and the sign for an unknown character in the place of what is none.

    Example:
        >>> clean("a\\r\\nb\\x00")
        'a\\nb�'
    """
    return _NO_TEXT.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))


def escape(text: str) -> str:
    """Return a text as it stands in an element or between the quotes of an attribute.

    Example:
        >>> escape('<b class="x">')
        '&lt;b class=&quot;x&quot;&gt;'
    """
    return html.escape(clean(text))


def name(text: str) -> str:
    """Return a name as an element, so that one written from right to left does not turn what is beside it."""
    return f"<bdi>{escape(text)}</bdi>"


def number(value: float) -> str:
    """Return a number as people read it: four digits, an infinity as its sign.

    Example:
        >>> number(0.123456), number(1234567), number(float("-inf"))
        ('0.1235', '1,234,567', '&minus;∞')
    """
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}".replace("-", "&minus;")
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "&minus;∞"
    return f"{value:.4g}".replace("-", "&minus;")


def percent(share: float) -> str:
    """Return a share of 1 in percent, never 0 % or 100 % of what is only near.

    Example:
        >>> percent(0.5), percent(0.9999), percent(0.001), percent(1.0)
        ('50 %', '&gt; 99 %', '&lt; 1 %', '100 %')
    """
    if 0 < share < 0.01:
        return "&lt; 1 %"
    if 0.99 < share < 1:
        return "&gt; 99 %"
    return f"{100 * share:.0f} %"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Return a number of things.

    Example:
        >>> plural(1, "row"), plural(1200, "row"), plural(2, "class", "classes")
        ('1 row', '1,200 rows', '2 classes')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
