"""What the committed tables say of each strategy: on how many data sets it was above uniform sampling, or below."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.cost import Cost, Size

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
COSTS = ROOT / "benchmarks" / "results" / "cost.csv"


class Study(NamedTuple):
    """A table of paired comparisons, or a part of one.

    Attributes:
        title: what was tried, in a few words.
        page: that has all of it.
        file: of the table.
        takes: whether a line of it belongs here.
    """

    title: str
    page: str
    file: str
    takes: Callable[[Mapping[str, str]], bool] = lambda _: True


def _is_repeated(line: Mapping[str, str]) -> bool:
    return "repeated" in line["experiment"]


def _noise(share: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda line: line["experiment"].endswith(f"-noise-{share}")


STUDIES = {
    "first": Study("the first hundred labels, linear model", "low_budget", "low_budget.csv"),
    "linear": Study("some hundred labels, linear model", "study", "study.csv"),
    "network": Study("up to 300 labels, networks", "modern", "modern.csv", lambda line: not _is_repeated(line)),
    "copies": Study("every image three times, network", "modern", "modern.csv", _is_repeated),
    "rare": Study("a class of one row in a hundred", "rare", "rare.csv"),
    "texts": Study("documents, classes of different size", "texts", "texts.csv"),
    "noise": Study("two labels in ten wrong", "noise", "noise.csv", _noise("0.2")),
    "much_noise": Study("four labels in ten wrong", "noise", "noise.csv", _noise("0.4")),
}


class Verdict(NamedTuple):
    """On how many data sets a strategy's area was above that of uniform sampling, below it, and tried at all."""

    better: int
    worse: int
    sets: int

    @property
    def net(self) -> float:
        """The share of sets above less that below."""
        return (self.better - self.worse) / self.sets


def lines_of(study: Study) -> Iterator[Mapping[str, str]]:
    """Yield the lines of a study's table: one for each data set and strategy but uniform sampling."""
    path = RESULTS / study.file
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if line["sampler"] != "uniform" and study.takes(line):
                yield line


def verdicts() -> dict[str, dict[str, Verdict]]:
    """Return what each study says of each strategy: by study, then by strategy."""
    found: dict[str, dict[str, Verdict]] = {}
    for key, study in STUDIES.items():
        counts: dict[str, list[int]] = {}
        for line in lines_of(study):
            count = counts.setdefault(_strategy(line["sampler"]), [0, 0, 0])
            count[0] += float(line["lower"]) > 0
            count[1] += float(line["upper"]) < 0
            count[2] += 1
        found[key] = {name: Verdict(*count) for name, count in counts.items()}
    return found


def _strategy(name: str) -> str:
    return "mixture" if name.startswith("mixture-") else name


def half_widths(key: str) -> tuple[float, float, float]:
    """Return the median, and the first and last decile, of how far a study's 95 % intervals reach to either side."""
    halves = [(float(line["upper"]) - float(line["lower"])) / 2 for line in lines_of(STUDIES[key])]
    deciles = statistics.quantiles(halves, n=10)
    return statistics.median(halves), deciles[0], deciles[-1]


def costs() -> dict[str, Cost]:
    """Return the fitted cost of each strategy that was measured."""
    with COSTS.open(encoding="utf-8", newline="") as file:
        return {
            line["sampler"]: Cost(
                float(line["fixed"]),
                float(line["seconds"]),
                tuple(float(line[name]) for name in Size._fields),
            )
            for line in csv.DictReader(file)
        }


def how_far_off() -> list[float]:
    """Return predicted / measured of the pool that no formula was fitted to, for each strategy that was tried on it."""
    with COSTS.open(encoding="utf-8", newline="") as file:
        found = [(float(line["predicted"]), float(line["measured"])) for line in csv.DictReader(file)]
    return [predicted / measured for predicted, measured in found if measured == measured]  # noqa: PLR0124 - NaN
