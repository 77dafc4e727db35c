"""The classes of a map, and what says which mark is whose."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from torchal.errors import ConfigError, DataError, ShapeError
from torchal.report.looks import LOOKS, Colour, Letters, Shape, Theme, mark, paste, ring

Labels: TypeAlias = "Sequence[str] | Sequence[int] | Tensor | NDArray[Any]"

COLUMN = 1240, 1568
"""Left and right of the legend."""


class MapClass(NamedTuple):
    """A class in the legend: which labeled rows are of it, by their places in `labeled`."""

    name: str
    look: tuple[Colour, Shape]
    places: NDArray[np.int64]


def map_classes(
    labels: Labels | None, classes: Sequence[str] | None, n_labeled: int, *, given: bool, rest: Colour
) -> list[MapClass]:
    """Return the classes of the legend in their order."""
    if not given:
        if labels is not None or classes is not None:
            raise ConfigError("labels and classes are those of labeled rows: labeled must say which rows these are")
        return []
    if labels is None:
        if classes is not None:
            raise ConfigError("classes are those of labels, and there are none")
        return [MapClass("labeled", LOOKS[0], np.arange(n_labeled))]
    values = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else list(labels)
    if len(values) != n_labeled:
        raise ShapeError(f"labels must be one for each labeled row: there are {len(values)} for {n_labeled} rows")
    names = _names(values, classes)
    order = [str(name) for name in classes] if classes is not None else sorted(set(names), key=_natural)
    if len(set(order)) < len(order):
        raise DataError(f"classes must be distinct: {len(order) - len(set(order))} of {len(order)} are repeats")
    place = {name: index for index, name in enumerate(order)}
    unknown = sorted(set(names).difference(place))
    if unknown:
        raise DataError(f"labels must be among the {len(order)} classes: {len(unknown)} are not, as {unknown[0]!r}")
    codes = np.array([place[name] for name in names], dtype=np.int64)
    counts = np.bincount(codes, minlength=len(order))
    shown = np.arange(len(order))
    if len(order) > len(LOOKS):
        shown = np.sort(np.argsort(-counts, kind="stable")[: len(LOOKS) - 1])
    found = [MapClass(order[code], LOOKS[i], np.flatnonzero(codes == code)) for i, code in enumerate(shown)]
    if len(order) > len(shown):
        others = np.flatnonzero(~np.isin(codes, shown))
        found.append(MapClass(f"{len(order) - len(shown)} other classes", (rest, "disc"), others))
    return found


def _names(values: list[Any], classes: Sequence[str] | None) -> list[str]:
    """Return labels as names; with classes, whole numbers count these."""
    whole = bool(values) and all(isinstance(value, int) and not isinstance(value, bool) for value in values)
    if classes is None or not whole:
        return [str(value) for value in values]
    low, high = min(values), max(values)
    if low < 0 or high >= len(classes):
        raise DataError(f"labels must lie in [0, {len(classes)}), the number of classes, got {low} to {high}")
    return [str(classes[value]) for value in values]


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return what sorts "9" before "10"."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), part) if i % 2 else (1, 0, part) for i, part in enumerate(parts) if part or i]


def draw_legend(
    image: Image.Image,
    classes: list[MapClass],
    theme: Theme,
    letters: Letters,
    *,
    top: int,
    n_asked: int,
    n_others: int,
) -> None:
    """Write what the marks mean, and how many rows each stands for."""
    left, right = COLUMN
    step = letters.height + 12
    y = float(top)

    def line(masks: list[tuple[Image.Image, Colour]], name: str, count: int) -> None:
        nonlocal y
        middle = left + 16, y + letters.height / 2 + 1
        for mask, colour in masks:
            paste(image, mask, colour, middle)
        number = f"{count:,}"
        room = right - left - 44 - letters.width(number) - 16
        letters.write(image, (left + 44, y), letters.fit(name, room), theme.text)
        letters.write(image, (right - letters.width(number), y), number, theme.quiet)
        y += step

    if n_asked:
        line([(ring(12, 3), theme.asked)], "to label", n_asked)
        y += step / 3
    if classes and [one.name for one in classes] != ["labeled"]:
        letters.write(image, (left, y), "labeled", theme.quiet)
        total = f"{sum(len(one.places) for one in classes):,}"
        letters.write(image, (right - letters.width(total), y), total, theme.quiet)
        y += step
    for number, one in enumerate(classes, 1):
        name = letters.spell(one.name)
        line([(mark(one.look[1], 8), one.look[0])], name or f"class {number}", len(one.places))
    y += step / 3 if classes else 0
    if n_others:
        grey = mark("disc", 10)
        line([(grey, theme.dense)], "other rows" if classes or n_asked else "rows", n_others)
