"""How samplers look, the same everywhere on a page: a colour, a dash and a marker each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torchal.study.summary import Summary

# Near Okabe & Ito's, moved until each is seen on its ground (contrast of 3:1) and told from the others by readers of
# every kind of sight; for light and for dark pages. The last is the baseline's.
COLOURS = (
    ("#0c5197", "#4f7fc4"),
    ("#dc5e02", "#c07a3c"),
    ("#02a358", "#2ce59c"),
    ("#cd5d90", "#f06592"),
    ("#6f5018", "#edd557"),
    ("#6614f0", "#9e5bf6"),
    ("#297bf3", "#7cc4ff"),
    ("#3a4049", "#dde0e5"),
)
_BASELINE = len(COLOURS) - 1
_DASHES = ("", "7 3", "2 3", "9 3 2 3")

MARKERS = (
    "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",  # disc
    "m-2.7-2.7h5.4v5.4h-5.4z",  # square
    "m0-3.7l3.5 6.1h-7z",  # triangle
    "m0-3.9l3.9 3.9l-3.9 3.9l-3.9-3.9z",  # diamond
    "m0 3.7l3.5-6.1h-7z",  # triangle on its tip
    "m-1.2-3.6h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4z",  # cross
    "m-3.4-2.4l1-1l2.4 2.4l2.4-2.4l1 1l-2.4 2.4l2.4 2.4l-1 1l-2.4-2.4l-2.4 2.4l-1-1l2.4-2.4z",  # cross, turned
    "m-3.8 0l3.8-2l3.8 2l-3.8 2z",  # flat diamond
)
"""Outlines of markers as SVG paths, to be put behind the `M x y` of where they are."""


class Look(NamedTuple):
    """Which of the colours and markers, and how the line is broken, as SVG says it."""

    colour: int
    dash: str
    marker: int


def looks(samplers: Sequence[str], baseline: str | None) -> dict[str, Look]:
    """Return the look of each sampler, in their order; no two are alike up to 56 of them.

    Example:
        >>> looks(["margin", "uniform"], "uniform")
        {'margin': Look(colour=0, dash='', marker=0), 'uniform': Look(colour=7, dash='6 3', marker=0)}
    """
    given = {}
    place = 0
    for sampler in samplers:
        if sampler == baseline:
            given[sampler] = Look(_BASELINE, "6 3", 0)
            continue
        dash = _DASHES[place // _BASELINE % len(_DASHES)]
        given[sampler] = Look(place % _BASELINE, dash, place % len(MARKERS))
        place += 1
    return given


def sampler_order(summary: Summary) -> list[str]:
    """Return all samplers, the best first: by their mean rank in the experiments that have them.

    Example:
        >>> from torchal.study.summary import Entry, ExperimentSummary
        >>> entries = {name: Entry(name, 1, 0, 10, 10, {}, {}, {}, None, {}, {}) for name in ("a", "b")}
        >>> of = ExperimentSummary("runs/a", "iris", "svm", "", "a", None, [], None, entries, ["b", "a"])
        >>> sampler_order(Summary("", "", "", [], [], [of], {}, None, None, [], [], [], [], []))
        ['b', 'a']
    """
    places: dict[str, list[float]] = {}
    for experiment in summary.experiments:
        for name in experiment.entries:
            places.setdefault(name, [])
        for place, name in enumerate(experiment.ordered):
            # as a share, for one of two is not like one of twenty
            places.setdefault(name, []).append(place / max(1, len(experiment.ordered) - 1))
    if summary.ranking is not None:
        ranked = list(summary.ranking.mean_ranks)
        return [*ranked, *(name for name in _by_mean(places) if name not in summary.ranking.mean_ranks)]
    return _by_mean(places)


def _by_mean(places: dict[str, list[float]]) -> list[str]:
    return sorted(places, key=lambda name: sum(places[name]) / len(places[name]) if places[name] else float("inf"))


def common_baseline(summary: Summary) -> str | None:
    """Return the baseline of most experiments, the first of them where that is none in particular."""
    named = [experiment.baseline for experiment in summary.experiments if experiment.baseline is not None]
    return max(dict.fromkeys(named), key=named.count) if named else None


def swatches(given: dict[str, Look]) -> str:
    """Return what `swatch` shows, to be put into a page once: a piece of each sampler's line with its marker."""
    parts = []
    for place, look in enumerate(given.values()):
        dash = f' stroke-dasharray="{look.dash}"' if look.dash else ""
        parts.append(
            f'<symbol id="w{place}" viewBox="0 0 26 12"><path class="line" d="M1 6H25"{dash}/>'
            f'<path class="dot" d="M13 6{MARKERS[look.marker]}"/></symbol>'
        )
    return f'<svg width="0" height="0" class="unseen" aria-hidden="true">{"".join(parts)}</svg>' if parts else ""


def swatch(place: int, look: Look) -> str:
    """Return the piece of line of the sampler at this place."""
    return f'<svg class="swatch k{look.colour}" aria-hidden="true"><use href="#w{place}"></use></svg>'
