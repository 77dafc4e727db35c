"""Drawings of a report as SVG: learning curves, and critical differences."""

from __future__ import annotations

import itertools
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence

from torchal.errors import DataError
from torchal.report.markup import clean, escape
from torchal.study.looks import MARKERS, Look
from torchal.study.numbers import MINUS, is_number
from torchal.study.summary import Band, Ranking

_WIDTH, _HEIGHT = 360.0, 250.0
_LEFT, _RIGHT, _TOP, _FOOT = 46.0, 10.0, 24.0, 40.0
SHADED = 8  # curves at most whose bands can be told apart
_MARKED = 8  # markers along a curve


def shorten(text: str, letters: int) -> str:
    """Return a name of at most so many letters; names often differ at their ends, so that stays. Wide letters count 2.

    Example:
        >>> shorten("informative_diverse", 12), shorten("margin", 12)
        ('informa…erse', 'margin')
    """
    text = " ".join(clean(text).split())
    if _width(text) <= letters:
        return text
    end = text[-4:]
    kept = ""
    for letter in text[:-4]:
        if _width(kept + letter) + 1 + _width(end) > letters:
            break
        kept += letter
    return f"{kept}…{end}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers from low to high, at most so many, and at least one unless there is none between.

    Example:
        >>> ticks(0.0, 1.0), ticks(3, 187), ticks(0.71, 0.74)
        ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [50.0, 100.0, 150.0], [0.71, 0.72, 0.73, 0.74])
    """
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(number * step, digits) + 0.0 for number in range(first, last + 1)]


def tick_texts(values: Sequence[float]) -> list[str]:
    """Return numbers with the digits that tell them apart.

    Example:
        >>> tick_texts([0.0, 0.5, 1.0]), tick_texts([5000.0, 10000.0])
        (['0.0', '0.5', '1.0'], ['5,000', '10,000'])
    """
    step = min((abs(b - a) for a, b in itertools.pairwise(values)), default=abs(values[0]) if values else 1)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return [f"{value:,.{digits}f}".replace("-", MINUS) for value in values]


def value_range(bands: Sequence[Band], level: float | None) -> tuple[float, float] | None:
    """Return a vertical range that shows all lines, and of their bands no more than leaves the lines readable; None
    where there is nothing to show.
    """
    lines = [value for band in bands for value in band.mean if is_number(value)]
    lines += [level] if level is not None and is_number(level) else []
    if not lines:
        return None
    ends = [end for band in bands for side in (band.lower, band.upper) for end in side if end is not None]
    ends = [end for end in ends if math.isfinite(end)] + lines
    least, most = min(lines), max(lines)
    room = (most - least) or abs(least) or 1.0
    low, high = max(min(ends), least - room / 2), min(max(ends), most + room / 2)
    edge = 0.04 * ((high - low) or room)
    return low - edge, high + edge


def curves_svg(
    curves: Mapping[str, Band], looks: Mapping[str, Look], *, metric: str, axis: str, level: float | None = None
) -> str:
    """Return mean curves with their bands; what is drawn last is on top, so that the best should come first.

    Colours are those of the classes k0 to k7 around them.

    Args:
        curves: by sampler.
        looks: of at least these samplers.
        metric: what the values are.
        axis: what they are drawn against.
        level: a value that is drawn as a level line.
    """
    limits = value_range(list(curves.values()), level)
    places = [x for band in curves.values() for x in band.x if is_number(x)]
    if limits is None or not places:
        return f'<p class="quiet">No values of <bdi>{escape(metric)}</bdi> here.</p>'
    low, high = limits
    start, end = min(places), max(places)
    if start == end:
        start, end = start - 1, end + 1
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _FOOT

    def across(x: float) -> float:
        return round((x - start) / (end - start) * wide, 1)

    def down(y: float) -> float:
        return round((high - y) / (high - low) * tall, 1)

    lines, words = [], []
    y_ticks, x_ticks = ticks(low, high, 4), ticks(start, end, 5)
    for value, text in zip(y_ticks, tick_texts(y_ticks), strict=True):
        y = down(value) + _TOP
        lines.append(f"M{_LEFT:g} {y:g}h{wide:g}")
        words.append(f'<text x="{_LEFT - 6:g}" y="{y + 4:g}" text-anchor="end">{text}</text>')
    for value, text in zip(x_ticks, tick_texts(x_ticks), strict=True):
        x = across(value) + _LEFT
        words.append(f'<text x="{x:g}" y="{_TOP + tall + 16:g}" text-anchor="middle">{text}</text>')
    words.append(f'<text x="{_LEFT + wide / 2:g}" y="{_HEIGHT - 6:g}" text-anchor="middle">{escape(axis)}</text>')
    words.append(f'<text class="what" x="4" y="14">{escape(shorten(metric, 40))}</text>')
    drawn = []
    for name, band in reversed(list(curves.items())):
        drawn.append(_curve(band, looks[name], across, down, few=len(curves) <= SHADED))
    full = ""
    if level is not None and is_number(level):
        full = f'<path class="level" d="M0 {down(level):g}h{wide:g}"/>'
    return (
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(f"{metric} against {axis}")}">'
        f'<path class="grid" d="{"".join(lines)}"/>{"".join(words)}'
        f'<svg x="{_LEFT - 5:g}" y="{_TOP:g}" width="{wide + 10:g}" height="{tall:g}"><g transform="translate(5 0)">'
        f"{full}{''.join(drawn)}</g></svg></svg>"
    )


def _curve(
    band: Band, look: Look, across: Callable[[float], float], down: Callable[[float], float], *, few: bool
) -> str:
    line, dots, pen = [], [], False
    there = [place for place, value in enumerate(band.mean) if is_number(value) and is_number(band.x[place])]
    every = max(1, math.ceil(len(there) / (_MARKED if few else _MARKED / 2)))
    for place in range(len(band.x)):
        if not is_number(band.mean[place]) or not is_number(band.x[place]):
            pen = False
            continue
        at = f"{across(band.x[place]):g} {down(band.mean[place]):g}"
        line.append(f"{'L' if pen else 'M'}{at}")
        pen = True
        if place % every == 0:
            dots.append(f"M{at}{MARKERS[look.marker]}")
    shade = ""
    ends = zip(band.x, band.lower, band.upper, strict=True)
    whole = [(x, low, high) for x, low, high in ends if is_number(x) and is_number(low) and is_number(high)]
    if few and len(whole) > 1:
        upper = "L".join(f"{across(x):g} {down(high):g}" for x, _, high in whole)
        lower = "L".join(f"{across(x):g} {down(low):g}" for x, low, _ in reversed(whole))
        shade = f'<path class="band" d="M{upper}L{lower}z"/>'
    dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
    return (
        f'<g class="k{look.colour}">{shade}<path class="line" d="{"".join(line)}"{dash}/>'
        f'<path class="dot" d="{"".join(dots)}"/></g>'
    )


def critical_difference_svg(ranking: Ranking) -> str:
    """Return a critical-difference diagram: samplers at their mean ranks, and bars over those that do not differ.

    Lines and letters have the colour of the text around (`currentColor`), so that it fits light and dark pages.

    Raises:
        DataError: there are fewer than two samplers, or a rank is no finite number.

    Reference:
        Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, Figure 1. The best rank is
        on the left here.

    Example:
        >>> ranking = Ranking({"margin": 1.25, "uniform": 1.75}, 8, 0.04, 0.69, [["margin", "uniform"]], [])
        >>> critical_difference_svg(ranking)[:4]
        '<svg'
    """
    ranks = dict(sorted(ranking.mean_ranks.items(), key=lambda item: item[1]))
    if len(ranks) < 2 or not all(map(is_number, ranks.values())):
        raise DataError(f"a diagram of ranks needs at least two samplers with a finite mean rank, got {ranks!r:.200}")
    n = len(ranks)
    half = (n + 1) // 2
    beside = [20 + 7.6 * (6 + max(_width(shorten(name, 20)) for name in side)) for side in _halves(list(ranks), half)]
    left, right = round(beside[0]), round(beside[0]) + 300.0
    width = round(right + beside[1])
    scale = (right - left) / (n - 1)

    def at(rank: float) -> float:
        return round(left + (rank - 1) * scale, 1)

    axis, step = 62.0, 20.0
    first = axis + 18 + 9 * len(ranking.cliques) + 6
    parts = [_difference_bar(ranking.critical_difference, left, right, scale)]
    numbered = list(range(1, n + 1)) if n <= 10 else [1, *range(5, n + 1, 5)]
    marks = "".join(f"M{at(rank):g} {axis:g}v-7" for rank in numbered)
    parts.append(f'<path d="M{left:g} {axis:g}H{right:g}{marks}" stroke="currentColor" fill="none"/>')
    parts += [
        f'<text x="{at(rank):g}" y="{axis - 11:g}" text-anchor="middle" fill="currentColor">{rank}</text>'
        for rank in numbered
    ]
    for place, (name, rank) in enumerate(ranks.items()):
        row, on_left = (place, True) if place < half else (n - 1 - place, False)
        y = first + step * row + 6
        edge, anchor, text = (left - 16, "end", left - 20) if on_left else (right + 16, "start", right + 20)
        parts.append(
            f'<path d="M{at(rank):g} {axis:g}V{y:g}H{edge:g}" stroke="currentColor" stroke-opacity="0.55" fill="none"/>'
            f'<text x="{text:g}" y="{y + 4:g}" text-anchor="{anchor}" fill="currentColor" '
            f'style="unicode-bidi:isolate"><title>{escape(name)}: mean rank {rank:.2f}</title>'
            f"{_label(name, rank, on_left=on_left)}</text>"
        )
    for place, clique in enumerate(ranking.cliques):
        inside = [ranks[name] for name in clique if name in ranks]
        if len(inside) > 1:
            y = axis + 13 + 9 * place
            parts.append(
                f'<path d="M{at(min(inside)) - 4:g} {y:g}H{at(max(inside)) + 4:g}" stroke="currentColor" '
                'stroke-width="4" stroke-linecap="round" fill="none"/>'
            )
    height = first + step * half + 6
    told = "; ".join(f"{name} {rank:.2f}" for name, rank in ranks.items())
    return (
        f'<svg class="ranks" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'font-size="13" aria-label="{escape(f"Mean ranks, 1 is the best: {told}")}">{"".join(parts)}</svg>'
    )


def _halves(names: list[str], half: int) -> tuple[list[str], list[str]]:
    return names[:half], names[half:]


def _label(name: str, rank: float, *, on_left: bool) -> str:
    short = f'<tspan style="unicode-bidi:isolate">{escape(shorten(name, 20))}</tspan>'
    number = f'<tspan fill-opacity="0.75">{rank:.2f}</tspan>'
    return f"{short} {number}" if on_left else f"{number} {short}"


def _difference_bar(difference: float, left: float, right: float, scale: float) -> str:
    """Return the critical difference as a bar as long as it is on the axis, and no longer than that."""
    end = min(right, left + difference * scale)
    longer = ", longer than the axis" if left + difference * scale > right else ""
    return (
        f'<path d="M{left:g} 26v8m0-4H{end:g}m0-4v8" stroke="currentColor" stroke-width="1.5" fill="none"/>'
        f'<text x="{left:g}" y="16" fill="currentColor">critical difference {difference:.2f}{longer}</text>'
    )
