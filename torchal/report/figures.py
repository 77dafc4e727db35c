"""The figures of a page: how the classes are balanced, and how sure the model is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchal.report.markup import escape, name, percent, plural

_BARS = 30  # classes with a bar of their own
_BINS = 20
_TICKS = 500  # of rows that are asked for, below the histogram


class _Counts(NamedTuple):
    """A column of bars."""

    title: str
    colour: str
    counts: Mapping[str, float]
    total: float

    def share(self, one: str) -> float:
        return self.counts.get(one, 0) / self.total


def class_table(labeled: Mapping[str, float] | None, predicted: Mapping[str, float] | None) -> str:
    """Return a table of bars, one for each class: its labels so far, and the rows of the pool predicted to be of it.

    Bars are as long as the class's share of its column. Of more than 30 classes, those with the largest shares are
    shown, and the others together, without a bar.
    """
    given = (("Labeled so far", "mine", labeled), ("Predicted", "guess", predicted))
    columns = [_Counts(title, colour, of, sum(of.values()) or 1) for title, colour, of in given if of]
    names = list(dict.fromkeys(one for column in columns for one in column.counts))
    others: list[str] = []
    if len(names) > _BARS:
        order = sorted(names, key=lambda one: -max(column.share(one) for column in columns))
        kept = set(order[: _BARS - 1])
        others = [one for one in names if one not in kept]
        names = [one for one in names if one in kept]
    longest = max((column.share(one) for column in columns for one in names), default=0) or 1
    rows = []
    for one in names:
        bars = [(column, column.counts.get(one, 0), 100 * column.share(one) / longest) for column in columns]
        rows.append(_class_row(name(one), bars))
    if others:
        sums = [(column, sum(column.counts.get(one, 0) for one in others), None) for column in columns]
        rows.append(_class_row(f"<em>{plural(len(others), 'other class', 'other classes')}</em>", sums))
    heads = "".join(f'<th scope="col">{column.title}</th>' for column in columns)
    return (
        '<table class="classes"><caption class="unseen">Rows of each class</caption>'
        f'<thead><tr><th scope="col">Class</th>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _class_row(title: str, cells: Sequence[tuple[_Counts, float, float | None]]) -> str:
    """Return a row of the table: for each column a count, and how long its bar is in percent, if it has one."""
    parts = []
    for column, count, length in cells:
        bar = "" if length is None else f'<span class="bar {column.colour}" style="width:{length:.1f}%"></span>'
        track = f'<span class="track">{bar}</span>' if bar else ""
        share = percent(count / column.total)
        parts.append(
            f'<td><span class="cell">{track}<span class="count">{count:,.0f} <small>{share}</small></span></span></td>'
        )
    return f'<tr><th scope="row">{title}</th>{"".join(parts)}</tr>'


def confidence_figure(confidence: NDArray[Any], asked: Sequence[float]) -> str:
    """Return a histogram of the model's largest probabilities as SVG, with a tick for each row that is asked for."""
    counts, _ = np.histogram(confidence, bins=_BINS, range=(0.0, 1.0))
    mean = float(np.mean(confidence, dtype=np.float64))
    left, right, top, foot = 8.0, 392.0, 26.0, 150.0
    wide = (right - left) / _BINS
    tallest = int(counts.max())
    bars = []
    for place, count in enumerate(counts.tolist()):
        if count:  # what is there is seen, however little it is
            height = max(1.5, (foot - top) * count / tallest)
            bars.append(
                f'<rect class="pool" x="{left + place * wide + 1:.1f}" y="{foot - height:.1f}" width="{wide - 2:.1f}" '
                f'height="{height:.1f}"><title>{place * 5} to {place * 5 + 5} %: {plural(count, "row")}</title></rect>'
            )
    ticks = "".join(
        f'<path d="M{left + share * (right - left):.1f} {foot + 3:.0f}v9"/>' for share in sorted(asked)[:_TICKS]
    )
    labels = "".join(
        f'<text x="{left + share * (right - left):.0f}" y="{foot + 28:.0f}" text-anchor="{anchor}">'
        f"{100 * share:.0f} %</text>"
        for share, anchor in ((0.0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1.0, "end"))
    )
    at = left + mean * (right - left)
    anchor, shift = ("end", -4) if mean > 0.5 else ("start", 4)
    text = (
        f"Histogram of the largest probability of {plural(len(confidence), 'row')}: the mean is {100 * mean:.0f} %, "
        f"most rows lie between {int(counts.argmax()) * 5} and {int(counts.argmax()) * 5 + 5} %."
    )
    legend = '<span class="key pool"></span> rows of the pool'
    if asked:
        legend += ' <span class="key tick"></span> rows to label'
    return (
        f'<svg class="histogram" viewBox="0 0 400 184" role="img" aria-label="{escape(text)}">'
        f'<path class="axis" d="M{left} {foot}H{right}"/>{"".join(bars)}<g class="ticks">{ticks}</g>'
        f'<path class="mean" d="M{at:.1f} {top - 10}V{foot}"/>'
        f'<text class="strong" x="{at + shift:.1f}" y="{top - 8}" text-anchor="{anchor}">mean {percent(mean)}</text>'
        f"{labels}</svg>"
        f'<p class="quiet legend">{legend}</p>'
    )
