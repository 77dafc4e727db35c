"""What the script of a page reads: a summary as few and short numbers.

Names are said once and counted from there. A curve is a list of places in a list of arrays, where equal arrays are one:
`[x, mean, below, above]`, with the reach of the interval below and above the mean, or without the last where that is
the same. An array is the power of ten that its numbers are counted in, the first number, and what each is more than the
one before it: [-4, 9321, 100, null, -21] is 0.9321, 0.9421, no number and 0.94.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from torchal.report.markup import clean
from torchal.study.looks import MARKERS, Look
from torchal.study.numbers import is_number, significant
from torchal.study.summary import Band, Entry, Estimate, ExperimentSummary, Summary

AXES = ("labels", "cost", "seconds")
_DIGITS = 5
_REACH_DIGITS = 4
_TABLE_DIGITS = 6
ROUNDS = 12  # of a run, of which the classes are shown
CLASSES = 30  # with a row of their own


def as_script_text(data: Any) -> str:
    """Return data as JSON that may stand in a `script` element: nothing in it ends that.

    Example:
        >>> as_script_text(["</script>"])
        '["\\\\u003c/script>"]'
    """
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


class Arrays:
    """Arrays that are written once each.

    Example:
        >>> arrays = Arrays()
        >>> arrays.add([0.5, 0.25, None], 5), arrays.add([10, 20], 5), arrays.add([0.5, 0.25, None], 5)
        (0, 1, 0)
        >>> arrays.written
        [[-5, 50000, -25000, None], [0, 10, 10]]
    """

    def __init__(self) -> None:
        self.written: list[list[int | None]] = []
        self._places: dict[tuple[int | None, ...], int] = {}

    def add(self, values: Sequence[float | None], digits: int) -> int:
        """Return the place of an array whose smallest value has so many significant digits at least, within reason."""
        sizes = [abs(value) for value in values if is_number(value) and value != 0]
        power = 0
        if sizes and (max(sizes) >= 1e15 or any(size != int(size) for size in sizes)):
            least, most = (math.floor(math.log10(end)) for end in (min(sizes), max(sizes)))
            # a value a thousand times smaller than the largest needs no digits of its own
            power = max(least - digits + 1, most - digits - 1, -300)
        scale = 10.0**-power
        steps: list[int | None] = []
        before = 0
        for value in values:
            whole = round(value * scale) if is_number(value) else None
            steps.append(None if whole is None else whole - before)
            before = before if whole is None else whole
        key = (power, *steps)
        place = self._places.setdefault(key, len(self.written))
        if place == len(self.written):
            self.written.append(list(key))
        return place


def pack(summary: Summary, looks: dict[str, Look]) -> dict[str, Any]:
    """Return the data of a page; samplers are in the order of their looks."""
    arrays = Arrays()
    places = {name: place for place, name in enumerate(looks)}
    experiments = [_experiment(summary, one, places, arrays) for one in summary.experiments]
    return {
        "metrics": list(map(clean, summary.metrics)),
        "lower": [place for place, metric in enumerate(summary.metrics) if metric in summary.lower_is_better],
        "axes": list(AXES),
        "phases": list(map(clean, phases(summary))),
        "samplers": list(map(clean, places)),
        "looks": [list(look) for look in looks.values()],
        "markers": list(MARKERS),
        "experiments": experiments,
        "arrays": arrays.written,
    }


def _experiment(summary: Summary, one: ExperimentSummary, places: dict[str, int], arrays: Arrays) -> dict[str, Any]:
    shown, n_others = shown_classes(one)
    steps = phases(summary)
    return {
        "name": clean(one.name),
        "baseline": places.get(one.baseline) if one.baseline is not None else None,
        "full": significant(one.full_data, _DIGITS),
        "classes": [clean(one.class_names[place]) for place in shown] + (["others"] if n_others else []),
        "pool": _shares(one.pool_classes, shown, n_others) if one.pool_classes is not None else None,
        "entries": [
            {
                "s": places[entry.sampler],
                "curves": [
                    [_band(entry.curves.get(metric, {}).get(axis), arrays) for axis in AXES]
                    for metric in summary.metrics
                ],
                "table": [table_numbers(entry, metric) for metric in summary.metrics],
                "seconds": [significant(entry.seconds.get(phase), _DIGITS) for phase in steps],
                "cost": [significant(entry.labels, _DIGITS), significant(entry.cost, _DIGITS)],
                "rounds": rounds(entry, shown, n_others),
            }
            for entry in table_order(one)
        ],
    }


def table_order(experiment: ExperimentSummary) -> list[Entry]:
    """Return the entries of an experiment from the best to the worst, those without a finished run last."""
    names = dict.fromkeys([*(name for name in experiment.ordered if name in experiment.entries), *experiment.entries])
    return [experiment.entries[name] for name in names]


def phases(summary: Summary) -> list[str]:
    """Return the phases of a run that some sampler spends seconds in."""
    every = (phase for one in summary.experiments for entry in one.entries.values() for phase in entry.seconds)
    return list(dict.fromkeys(every))


def _band(band: Band | None, arrays: Arrays) -> list[int] | None:
    if band is None or not any(map(is_number, band.mean)):
        return None
    triples = list(zip(band.mean, band.lower, band.upper, strict=True))
    below = [m - low if is_number(m) and is_number(low) else None for m, low, _ in triples]
    above = [high - m if is_number(m) and is_number(high) else None for m, _, high in triples]
    if all(a == b or _near(a, b) for a, b in zip(below, above, strict=True)):
        above = []
    places = [arrays.add(band.x, _DIGITS), arrays.add(band.mean, _DIGITS), arrays.add(below, _REACH_DIGITS)]
    return [*places, arrays.add(above, _REACH_DIGITS)] if above else places


def _near(a: float | None, b: float | None) -> bool:
    return is_number(a) and is_number(b) and math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-9)


def _estimate(one: Estimate | None) -> list[float | None]:
    values = [None, None, None] if one is None else [one.mean, one.lower, one.upper]
    return [significant(value, _TABLE_DIGITS) for value in values]


def table_numbers(entry: Entry, metric: str) -> list[float | None]:
    """Return a row's numbers of a metric: final, area and the area's difference to the baseline's, each with its
    interval; p and the verdict.
    """
    against = entry.against.get(metric)
    return [
        *_estimate(entry.final.get(metric)),
        *_estimate(entry.area.get(metric)),
        *_estimate(None if against is None else against.difference),
        None if against is None else significant(against.p_holm, _TABLE_DIGITS),
        None if against is None else against.verdict,
    ]


def shown_classes(one: ExperimentSummary) -> tuple[list[int], int]:
    """Return which classes have a row of their own, and how many others there are: those with the most rows are shown,
    in their order.
    """
    n = len(one.class_names)
    if n <= CLASSES:
        return list(range(n)), 0
    sums = [0.0] * n
    for counts in (
        [one.pool_classes] if one.pool_classes else [e.classes[-1] for e in one.entries.values() if e.classes]
    ):
        sums = [total + count for total, count in zip(sums, counts, strict=True)]
    kept = sorted(sorted(range(n), key=lambda place: -sums[place])[: CLASSES - 1])
    return kept, n - len(kept)


def _shares(counts: Sequence[float], shown: list[int], n_others: int) -> list[float]:
    """Return the share of each shown class, and of the others together, in thousandths."""
    total = sum(counts) or 1
    kept = [counts[place] for place in shown]
    return [round(1000 * count / total) for count in kept + ([total - sum(kept)] if n_others else [])]


def rounds(entry: Entry, shown: list[int], n_others: int) -> list[list[float]]:
    """Return for some rounds, evenly chosen and the last among them, the labels and the classes' shares of them."""
    n = len(entry.classes)
    if n <= ROUNDS:
        chosen = list(range(n))
    else:
        chosen = sorted({round(place * (n - 1) / (ROUNDS - 1)) for place in range(ROUNDS)})
    return [
        [significant(entry.class_labels[place], _DIGITS) or 0, *_shares(entry.classes[place], shown, n_others)]
        for place in chosen
    ]
