"""A map of the pool as a picture: where the labeled rows lie, and those that are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from torchal._checks import as_rows
from torchal.errors import ConfigError, DataError, ShapeError
from torchal.report.legend import COLUMN, Labels, MapClass, draw_legend, map_classes
from torchal.report.looks import THEMES, Letters, Theme, mark, paste, ring, weights

_Box: TypeAlias = tuple[float, float, float, float]

_WIDTH, _HEIGHT = 1600, 1200  # to be shown at half this size
_PANEL = (84, 104, 1204, 1056)  # left, top, right, bottom
_UNTITLED = 80  # pixels that a map without a title lacks
_MARGIN = 26  # pixels between the rows that lie farthest out and the frame
_NUMBERED = 20  # rings with their rank beside them
_REACH = 0.3  # of the range that most rows lie in: how far beyond it the farthest may lie and still be inside
_FEW_ROWS = 20  # with fewer, none lies outside


def draw_map(
    xy: Tensor | NDArray[Any],
    *,
    labeled: Tensor | Sequence[int] | NDArray[Any] | None = None,
    labels: Labels | None = None,
    classes: Sequence[str] | None = None,
    asked: Tensor | Sequence[int] | NDArray[Any] | None = None,
    title: str = "Map of the pool",
    explained: Sequence[float] | Tensor | None = None,
    theme: Literal["light", "dark"] = "light",
    font: str | PathLike[str] | None = None,
) -> Image.Image:
    """Draw the rows: most as a grey density, labeled ones as dots, those that are asked for as rings.

    The grey is darker where more rows lie, by the logarithm of their number. Each class has one of 7 colours that
    colour-blind readers tell apart, and with more than 7 classes one of 3 shapes; of more than 21, the 20 with the most
    labels have looks of their own, and the others share one. The first 20 rings have their rank beside them.

    Each axis has the scale at which its rows fill the frame, so distances along different axes do not compare. It
    reaches from the 0.1 to the 99.9 percentile (from the 1 to the 99 percentile with fewer than 1 000 rows), and as far
    as 30 % of that beyond on each side, if rows lie there. Rows that lie farther out are drawn at the edge, and the
    caption says how many; of fewer than 20 rows, none do.

    Pillow's built-in font has the letters of English only. Names lose their accents in it, and those that it cannot
    write at all become "class 3", by their place in the order of classes, unless `font` can write them.

    Args:
        xy: where the rows lie, as by `map_coordinates`.
        labeled: the numbers of the labeled rows.
        labels: their labels, names or numbers; without these, all labeled rows look alike.
        classes: all classes in their order, which the looks follow: those that have no label yet too, so that colours
            stay from round to round. Labels that are numbers then count these from 0. The classes among the labels, by
            name, unless given.
        asked: the numbers of the rows that are asked for, the most wanted first.
        title: what stands above the map; where it is empty, the picture is less high.
        explained: the share of the variance along each axis, for their names.
        theme: of the colours, for a light or a dark page.
        font: the file of a font for all text, TrueType or OpenType.

    Shapes:
        xy: (N, 2) float.
        labeled, labels: (L,).
        asked: (n,) int.
        explained: (2,).

    Returns:
        1600 x 1200 pixels (1600 x 1120 without a title), to be shown at half that size; `as_png` makes a file of it.

    Raises:
        ShapeError: xy is not (N, 2); row numbers repeat or are no rows; labels do not match the labeled rows.
        DataError: no rows; coordinates that are not finite; a row is labeled and asked for; a label is no class.
        ConfigError: an unknown theme, or a font that cannot be read; labels or classes without labeled rows.

    Complexity:
        O(N) time and memory, and a time for each labeled row: half a second for a million rows, 20 microseconds for
        each label on a CPU core.

    Example:
        >>> xy = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> draw_map(xy, labeled=[0, 1, 2], labels=["cat", "dog", "cat"], asked=[17, 4]).size
        (1600, 1200)
    """
    if theme not in THEMES:
        raise ConfigError(f"theme must be one of {', '.join(THEMES)}, got {theme!r}")
    look = THEMES[theme]
    points = _points(xy)
    n_rows = len(points)
    known, wanted = (_rows(name, rows, n_rows) for name, rows in (("labeled", labeled), ("asked", asked)))
    groups = map_classes(labels, classes, len(known), given=labeled is not None, rest=look.rest)
    ordinary = np.ones(n_rows, dtype=bool)
    ordinary[known] = False
    if not ordinary[wanted].all():
        row = wanted[~ordinary[wanted]]
        raise DataError(f"rows that are asked for must not be labeled: {len(row)} are, the first is row {row[0]}")
    ordinary[wanted] = False
    pixels, outside = _to_pixels(points)
    image = Image.new("RGB", (_WIDTH, _HEIGHT), look.ground)
    image.paste(Image.fromarray(_shaded(pixels[ordinary], look)), _PANEL[:2])
    for centre in np.unique(pixels[outside & ordinary], axis=0).tolist():
        paste(image, mark("disc", 4), look.dense, centre)  # a few at the edge would not be seen as grey
    _draw_labeled(image, pixels[known], groups, look)
    letters = Letters(26, font)
    _draw_asked(image, pixels[wanted], look, letters)
    n_others = int(ordinary.sum())
    draw_legend(image, groups, look, letters, top=_PANEL[1], n_asked=len(wanted), n_others=n_others)
    _draw_frame(image, title, explained, look, font=font, n_rows=n_rows, n_outside=int(outside.sum()))
    return image if title else image.crop((0, _UNTITLED, _WIDTH, _HEIGHT))


def as_png(image: Image.Image) -> bytes:
    """Return a picture as the bytes of a PNG file, the same for the same picture.

    Args:
        image: the picture.

    Example:
        >>> as_png(Image.new("RGB", (2, 2)))[:4]
        b'\\x89PNG'
    """
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _points(xy: Tensor | NDArray[Any]) -> NDArray[np.float64]:
    """Return coordinates as (N, 2) float64, checked."""
    array = xy.detach().cpu().double().numpy() if isinstance(xy, Tensor) else np.asarray(xy)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "fiu":
        raise ShapeError(f"xy must be (N, 2) numbers, got {array.dtype} of shape {array.shape}")
    if not len(array):
        raise DataError("a map needs at least one row, got none")
    finite = np.isfinite(array).all(1)
    if not finite.all():
        raise DataError(
            f"xy must be finite: {int((~finite).sum())} of {len(array)} rows are not, "
            f"the first is row {int(np.flatnonzero(~finite)[0])}"
        )
    return np.asarray(array, dtype=np.float64)


def _rows(name: str, rows: object, n_rows: int) -> NDArray[np.int64]:
    checked = as_rows(name, [] if rows is None else rows, n_rows=n_rows, device=torch.device("cpu"))
    return checked.numpy()


def _limits(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return which range of an axis to show, of values from -1 to 1: all of it but for what lies far out."""
    least, most = float(values.min()), float(values.max())
    if len(values) >= _FEW_ROWS:
        share = 0.001 if len(values) >= 1000 else 0.01
        # inwards to whole rows, so that at least one on each side can lie outside
        low = float(np.quantile(values, share, method="higher"))
        high = float(np.quantile(values, 1 - share, method="lower"))
        if high > low:
            reach = _REACH * (high - low)
            least, most = max(least, low - reach), min(most, high + reach)
    if most - least > 1e-12 * max(abs(least), abs(most)):  # what is nearer is rounding
        return least, most
    return least - 1, most + 1


def _to_pixels(points: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the pixel of each row, (N, 2), and which rows lie outside, (N,)."""
    left, top, right, bottom = _PANEL
    outside = np.zeros(len(points), dtype=bool)
    pixels = np.empty(points.shape, dtype=np.int64)
    for axis, (begin, end) in enumerate(((left, right), (bottom, top))):
        inwards = int(math.copysign(_MARGIN, end - begin))
        values = points[:, axis]
        scale = max(float(np.abs(values).max()), 1e-300)  # widths of ranges do not overflow
        values = values / scale
        low, high = _limits(values)
        outside |= (values < low) | (values > high)
        shares = np.clip((values - low) / (high - low), 0, 1)
        # rows that lie outside go to the frame itself, into the margin that no other row reaches
        shares = begin + inwards + shares * (end - begin - 2 * inwards)
        shares[values < low] = begin + inwards // 3
        shares[values > high] = end - inwards // 3
        pixels[:, axis] = np.rint(shares)
    return pixels, outside


def _shaded(pixels: NDArray[np.int64], theme: Theme) -> NDArray[np.uint8]:
    """Return the panel, darker where more rows lie, as (height, width, 3)."""
    left, top, right, bottom = _PANEL
    width, height = right - left, bottom - top
    panel = np.empty((height, width, 3), dtype=np.uint8)
    panel[:] = theme.panel
    if not len(pixels):
        return panel
    dot = weights(mark("disc", max(1.6, 6.2 - 0.9 * math.log10(len(pixels)))))
    edge = len(dot) // 2
    wide = width + 2 * edge
    cells = np.bincount((pixels[:, 1] - top) * wide + pixels[:, 0] - left)
    full = np.flatnonzero(cells)
    counts = cells[full].astype(np.float32)
    # By how many dots each pixel is covered; a part of one at its edge. The cells differ, so += counts each of them.
    covered = np.zeros((height + 2 * edge) * wide, dtype=np.float32)
    for down, across in np.argwhere(dot > 0).tolist():
        covered[full + (down * wide + across)] += dot[down, across] * counts
    covered = covered.reshape(-1, wide)[edge : edge + height, edge : edge + width]
    seen = covered > 0
    values = covered[seen]
    # The darkest grey is for a place that is fuller than nearly all others.
    most = max(4.0, float(np.quantile(values[values >= 1], 0.995)))
    alone = max(0.12, 0.75 - 0.12 * math.log10(len(pixels)))  # how dark one row is: few are to be seen well
    tone = (alone + (1 - alone) * np.minimum(1, np.log(np.maximum(1, values)) / math.log(most)))[:, None]
    grey = np.asarray(theme.sparse) * (1 - tone) + np.asarray(theme.dense) * tone
    share = np.minimum(1, values)[:, None]
    panel[seen] = (panel[seen] * (1 - share) + grey * share).round()
    return panel


def _draw_labeled(image: Image.Image, pixels: NDArray[np.int64], classes: list[MapClass], theme: Theme) -> None:
    """Draw dots of all classes by turns, in the order of the rows, so that no class hides another."""
    radius = 8.0 if len(pixels) <= 300 else 6.5 if len(pixels) <= 3000 else 5.0
    owner = np.zeros(len(pixels), dtype=np.int64)
    for number, one in enumerate(classes):
        owner[one.places] = number
    # of the dots of a class on one pixel, one is enough
    _, first = np.unique(np.column_stack([pixels, owner]), axis=0, return_index=True)
    rims = [mark(one.look[1], radius + 1.8) for one in classes]
    dots = [mark(one.look[1], radius) for one in classes]
    for place in np.sort(first).tolist():
        number, centre = int(owner[place]), pixels[place].tolist()
        paste(image, rims[number], theme.ground, centre)
        paste(image, dots[number], classes[number].look[0], centre)


def _draw_asked(image: Image.Image, pixels: NDArray[np.int64], theme: Theme, letters: Letters) -> None:
    """Draw rings, the most wanted on top, and then the numbers, where there is room for them."""
    radius = 13.0 if len(pixels) <= 100 else 10.0 if len(pixels) <= 1000 else 7.0
    width = radius / 4
    rim, line = ring(radius, width + 4), ring(radius, width)
    for centre in pixels[::-1].tolist():
        paste(image, rim, theme.ground, centre)
        paste(image, line, theme.asked, centre)
    draw = ImageDraw.Draw(image)
    reach = radius + width
    numbered = pixels[:_NUMBERED].tolist()
    taken: list[_Box] = [(x - reach, y - reach, x + reach, y + reach) for x, y in numbered]
    for rank, (x, y) in enumerate(numbered, 1):
        box, far = _place(x, y, reach, (letters.width(str(rank)), letters.height), taken)
        taken.append(box)
        if far:  # a line says which ring it is that the number belongs to
            middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            angle = math.atan2(middle[1] - y, middle[0] - x)
            start = (x + reach * math.cos(angle), y + reach * math.sin(angle))
            draw.line((*start, *middle), fill=theme.asked, width=2)
    for rank, box in enumerate(taken[len(numbered) :], 1):
        letters.write(image, box[:2], str(rank), theme.asked, halo=theme.ground)


def _place(x: float, y: float, reach: float, size: tuple[int, int], taken: list[_Box]) -> tuple[_Box, bool]:
    """Return where a number covers the least of what is there already, and whether that is far from its ring."""
    left, top, right, bottom = _PANEL
    best: tuple[float, _Box, bool] | None = None
    for ring_number in range(6):  # around the ring, and farther and farther out
        distance = reach + 3 + ring_number * 34
        steps = 16 if ring_number else 8
        for step in range(steps):
            angle = -math.pi / 4 + (step + 0.37 * ring_number) * math.tau / steps
            middle_x = x + math.cos(angle) * (distance + size[0] / 2)
            middle_y = y + math.sin(angle) * (distance + size[1] / 2)
            box = (middle_x - size[0] / 2, middle_y - size[1] / 2, middle_x + size[0] / 2, middle_y + size[1] / 2)
            cost = sum(_overlap(box, other) for other in taken) + 10 * ring_number
            if box[0] < left + 4 or box[1] < top + 4 or box[2] > right - 4 or box[3] > bottom - 4:
                cost += 1e6
            if best is None or cost < best[0]:
                best = cost, box, ring_number > 0
    assert best is not None
    return best[1], best[2]


def _overlap(a: _Box, b: _Box) -> float:
    """Return how many pixels two boxes share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _draw_frame(
    image: Image.Image,
    title: str,
    explained: Sequence[float] | Tensor | None,
    theme: Theme,
    *,
    font: str | PathLike[str] | None,
    n_rows: int,
    n_outside: int,
) -> None:
    """Draw the frame, and write title, axes and caption around it."""
    left, top, right, bottom = _PANEL
    lively = "darker" if theme is THEMES["light"] else "brighter"
    ImageDraw.Draw(image).rounded_rectangle((left, top, right - 1, bottom - 1), 6, outline=theme.frame, width=2)
    large, small = Letters(42, font), Letters(24, font)
    heading = large.spell(title)
    if heading is None:  # the font lacks letters, and a title with holes is worse than a plain one
        heading = "Map of the pool"
    large.write(image, (left, 34), large.fit(heading, COLUMN[1] - left), theme.text)
    shares: list[float] = [] if explained is None else [float(share) for share in explained]
    if shares and len(shares) != 2:
        raise ShapeError(f"explained must be (2,), got {len(shares)} numbers")
    names = [
        f"component {axis + 1}" + (f" ({100 * s:.3g} % of the variance)" if shares else "")
        for axis, s in enumerate(shares or [0.0, 0.0])
    ]
    small.write(image, ((left + right - small.width(names[0])) / 2, bottom + 14), names[0], theme.quiet)
    upright = Image.new("RGB", (small.width(names[1]) + 4, small.height + 6), theme.ground)
    small.write(upright, (2, 2), names[1], theme.quiet)
    upright = upright.transpose(Image.Transpose.ROTATE_90)
    image.paste(upright, (left - 14 - upright.width, (top + bottom - upright.height) // 2))
    caption = [
        f"{n_rows:,} row{'s' if n_rows > 1 else ''}, each axis on a scale of its own; "
        f"grey is {lively} where more lie, on a log scale"
    ]
    if n_outside:
        caption.append(
            f"{n_outside:,} row{'s lie' if n_outside > 1 else ' lies'} farther out and "
            f"{'are' if n_outside > 1 else 'is'} drawn at the edge"
        )
    for number, text in enumerate(caption):
        small.write(
            image, (left, bottom + 58 + number * (small.height + 8)), small.fit(text, COLUMN[1] - left), theme.quiet
        )
