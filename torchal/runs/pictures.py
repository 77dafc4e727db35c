"""Pictures of a run: the rows that were asked for, the classes that were bought, how sure the model is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from torchal.errors import DataError
from torchal.pool.dataset_inputs import DatasetInputs
from torchal.pool.inputs import gather
from torchal.protocols import Inputs
from torchal.report.looks import THEMES, Colour, Letters
from torchal.runs.calibration import N_BINS, calibration_error

_LOOK = THEMES["light"]
_WRONG: Colour = (200, 60, 0)
_LEAST_SIDE = 2  # pixels of a side: a narrower tensor of three axes is no picture
# TensorBoard shows pictures about 340 pixels wide, and scales those of another width
_WIDTH = 340
_CELL = 77  # pixels of a side of a thumbnail
_COLUMNS = 4
_MOST_BARS = 24
_AT_ONCE = 64  # pictures that are read together, in their full size
_MOST_PIXELS = 64  # of a side, of pictures that stay as they are; JPEG is smaller for others


class Encoded(NamedTuple):
    """A picture as the bytes of a PNG or JPEG file."""

    content: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Caption:
    """What stands below a thumbnail: its label, what the model had said before, and whether that was right."""

    label: str
    predicted: str | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether the model had said something else."""
        return self.predicted is not None and self.predicted != self.label


@cache
def _letters() -> Letters:
    return Letters(11)


@lru_cache(maxsize=1024)
def _text(text: str, width: int) -> Image.Image:
    """Return a text as a mask, as much of it as goes into a width; most of them come again in every round."""
    letters = _letters()
    shown = letters.fit(letters.spell(text) or "?", width)
    mask = Image.new("RGB", (letters.width(shown) + 2, letters.height + 2))
    letters.write(mask, (0, 0), shown, (255, 255, 255))
    return mask.convert("L")


def _png(image: Image.Image) -> Encoded:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=4)
    return Encoded(buffer.getvalue(), *image.size)


class _Chart:
    """A small chart in greys and two blues: a byte a pixel, since a chart is drawn in each round of each run."""

    WHITE, PANEL, FRAME, PALE, DIAGONAL, QUIET, DARK = 251, 247, 212, 222, 135, 95, 30
    LIGHT_BLUE, BLUE = 252, 253
    _PALETTE = bytes(round(grey * 255 / 251) for grey in range(252) for _ in "rgb") + bytes(
        (176, 205, 226, 0, 114, 178)
    )

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("L", (width, height), self.WHITE)
        self.draw = ImageDraw.Draw(self.image)

    def write(self, at: tuple[float, float], text: str, grey: int, *, width: int = 400, align: float = 0.0) -> int:
        """Write a text to the right of a place, or (align=1) to its left; return where the next may begin."""
        mask = _text(text, width)
        x = round(at[0] - align * mask.width)
        self.image.paste(grey, (x, round(at[1])), mask)
        return x + mask.width + 3

    def encoded(self) -> Encoded:
        """Return the chart as a PNG."""
        self.image.putpalette(self._PALETTE)
        return _png(self.image)


def are_pictures(inputs: Inputs, shape: Sequence[int] | None = None) -> bool:
    """Tell whether the first row is a picture: (C, H, W) of 1, 3 or 4 channels, float or bytes, or one of Pillow.

    Args:
        inputs: the rows.
        shape: (C, H, W) of rows of a tensor that are flat.
    """
    first = _items(inputs, torch.tensor([0]), shape)
    return first is not None and _is_picture(first[0])


def pictures_of(inputs: Inputs, rows: Tensor, *, side: int, shape: Sequence[int] | None = None) -> list[Image.Image]:
    """Return rows as pictures of at most so many pixels a side, in grey or colour.

    A picture of floats that do not lie between 0 and 1, or of more than eight bits, is scaled from its darkest value to
    its lightest. A row that is no picture, where the first row of all is one, is a blank. Few are read at once.

    Shapes:
        rows: (n,) int64.

    Raises:
        DataError: the first row of all is no picture, or one cannot be read.
    """
    if not are_pictures(inputs, shape):
        raise DataError("the inputs are no pictures")
    images = []
    for some in rows.split(_AT_ONCE):
        for item in _items(inputs, some, shape) or ():
            image = _as_image(item) if _is_picture(item) else Image.new("L", (_LEAST_SIDE, _LEAST_SIDE), 255)
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
            images.append(image)
    return images


def _items(inputs: Inputs, rows: Tensor, shape: Sequence[int] | None) -> Sequence[Any] | None:
    """Return rows as whatever might be a picture; None where no row can be one."""
    if isinstance(inputs, DatasetInputs):
        return [_first_picture(item) for item in inputs.items(rows.tolist())]
    if isinstance(inputs, Tensor):
        values = inputs[rows]
        if shape is not None and values.ndim == 2 and values.shape[1] == math.prod(shape):
            values = values.reshape(-1, *shape)
        return values.unbind()
    return list(gather(inputs, rows)) if isinstance(inputs, np.ndarray) else None


def _first_picture(item: Any) -> Any:
    """Return the picture in an item of a data set: itself, the first of a tuple, or the first value that is one."""
    if isinstance(item, tuple | list) and item:
        item = item[0]
    return next(filter(_is_picture, item.values()), None) if isinstance(item, Mapping) else item


def _is_picture(item: Any) -> bool:
    if isinstance(item, Image.Image):
        return True
    if isinstance(item, Tensor):
        known = item.is_floating_point() or item.dtype == torch.uint8
    elif isinstance(item, np.ndarray):
        known = item.dtype.kind == "f" or item.dtype == np.uint8
    else:
        return False
    return known and item.ndim == 3 and item.shape[0] in (1, 3, 4) and min(item.shape[1:]) >= _LEAST_SIDE


def _as_image(item: Any) -> Image.Image:
    """Return a picture in grey or colour with eight bits a channel, a copy."""
    if isinstance(item, Image.Image):
        if item.mode not in ("I", "F") and not item.mode.startswith("I;"):
            return item.convert("L" if item.mode in ("1", "L", "LA") else "RGB")
        values = np.asarray(item, dtype=np.float64)[None]
    elif isinstance(item, Tensor):
        pixels = item.detach().cpu()
        values = (pixels.float() if pixels.is_floating_point() else pixels).numpy()  # NumPy has no bfloat16
    else:
        values = item
    if values.dtype != np.uint8:
        values = np.nan_to_num(values.astype(np.float64))
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 1:
            values = (values - low) / ((high - low) or 1.0)
        values = (255 * values).round().astype(np.uint8)
    return Image.fromarray(values[0]) if len(values) == 1 else Image.fromarray(values.transpose(1, 2, 0)).convert("RGB")


def sheet(images: Sequence[Image.Image], captions: Sequence[Caption]) -> Encoded:
    """Return pictures side by side, each above its label and what the model had said; that in red where it was wrong.

    Raises:
        DataError: no picture, or not a caption for each.
    """
    if not images or len(images) != len(captions):
        raise DataError(f"a sheet needs a caption for each picture, got {len(images)} and {len(captions)}")
    gap, columns, line = 6, min(_COLUMNS, len(images)), _letters().height + 2
    has_said = any(caption.predicted is not None for caption in captions)
    step = _CELL + gap, _CELL + gap + line * (1 + has_said)
    drawn = Image.new("RGB", (gap + columns * step[0], gap + -(-len(images) // columns) * step[1]), _LOOK.ground)
    for place, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = gap + place % columns * step[0], gap + place // columns * step[1]
        fitted = _fitted(image, _CELL)
        drawn.paste(fitted, (x + (_CELL - fitted.width) // 2, y + _CELL - fitted.height))
        drawn.paste(_LOOK.text, (x, y + _CELL + 1), _text(caption.label, _CELL))
        if caption.predicted is not None:
            colour = _WRONG if caption.is_wrong else _LOOK.quiet
            drawn.paste(colour, (x, y + _CELL + 1 + line), _text(f"said {caption.predicted}", _CELL))
    if all(max(image.size) <= _MOST_PIXELS for image in images):
        return _png(drawn)
    buffer = BytesIO()  # photographs are a fifth of the size
    drawn.save(buffer, "JPEG", quality=85)
    return Encoded(buffer.getvalue(), *drawn.size)


def _fitted(image: Image.Image, side: int) -> Image.Image:
    """Return a picture as large as a square lets it be; small ones with all their pixels to be seen."""
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def class_bars(now: Tensor, before: Tensor, names: Sequence[str]) -> Encoded:
    """Return bars of how many labels of each class are there: those of this round dark, earlier ones light.

    Of more than 24 classes, those with the most labels are shown; the last bar is of all others together.

    Shapes:
        now, before: (C,) int64.
    """
    total = now + before
    shown = list(range(len(names)))
    labels, rest = list(names), None
    if len(names) > _MOST_BARS:
        order = total.argsort(descending=True, stable=True)
        shown = order[: _MOST_BARS - 1].tolist()
        labels = [names[code] for code in shown] + [f"{len(names) - len(shown)} others"]
        others = order[_MOST_BARS - 1 :]
        rest = int(before[others].sum()), int(now[others].sum())
    counts = [(int(before[code]), int(now[code])) for code in shown] + ([rest] if rest else [])
    height, left = _letters().height + 5, 80
    room = _WIDTH - left - 60
    chart = _Chart(_WIDTH, height * len(counts) + 8)
    most = max(1, *(sum(pair) for pair in counts))
    for line, (name, (earlier, newly)) in enumerate(zip(labels, counts, strict=True)):
        y = 4 + line * height
        chart.write((left - 6, y + 1), name, chart.DARK, width=left - 12, align=1)
        first, last = round(room * earlier / most), round(room * (earlier + newly) / most)
        if first:
            chart.draw.rectangle((left, y, left + first - 1, y + height - 4), fill=chart.LIGHT_BLUE)
        if last > first:
            chart.draw.rectangle((left + first, y, left + last - 1, y + height - 4), fill=chart.BLUE)
        end = chart.write((left + last + 6, y + 1), f"{earlier + newly}", chart.QUIET)
        if newly:
            chart.write((end, y + 1), f"+{newly}", chart.DARK)
    return chart.encoded()


def reliability_diagram(bins: Mapping[str, Sequence[float]]) -> Encoded:
    """Return how often the model is right against how sure it is; a calibrated one has its points on the diagonal.

    Args:
        bins: as `torchal.runs.calibration.reliability` returns them; not empty.
    """
    left, top, height = 40, 26, 180
    width = _WIDTH - left - 12
    chart = _Chart(_WIDTH, top + height + 40)
    most = max(bins["rows"])

    def at(x: float, y: float) -> tuple[float, float]:
        return left + width * x, top + height * (1 - y)

    chart.draw.rectangle((*at(0, 1), *at(1, 0)), fill=chart.PANEL, outline=chart.FRAME)
    for rows, confidence in zip(bins["rows"], bins["confidence"], strict=True):  # how many rows, as quiet bars
        low = max(0, math.ceil(confidence * N_BINS) - 1)
        left_end, right_end = (low + 0.1) / N_BINS, (low + 0.9) / N_BINS
        chart.draw.rectangle((*at(left_end, 0.2 * rows / most), *at(right_end, 0)), fill=chart.PALE)
    chart.draw.line((at(0, 0), at(1, 1)), fill=chart.DIAGONAL)
    points = [at(x, y) for x, y in zip(bins["confidence"], bins["accuracy"], strict=True)]
    chart.draw.line(points, fill=chart.BLUE, width=2)
    for (x, y), rows in zip(points, bins["rows"], strict=True):
        reach = 2.5 + 2 * (rows / most) ** 0.5
        chart.draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=chart.BLUE)
    for tick in (0.0, 0.5, 1.0):
        (x, _), (_, y) = at(tick, 0), at(0, tick)
        chart.write((x, top + height + 4), f"{tick:g}", chart.QUIET, align=0.5)
        chart.write((left - 6, y - _letters().height / 2), f"{tick:g}", chart.QUIET, align=1)
    chart.write((left, 6), f"error {calibration_error(bins):.3f} over {int(sum(bins['rows']))} rows", chart.DARK)
    chart.write((left + width / 2, top + height + 20), "how sure the model is", chart.DARK, align=0.5)
    chart.write((left + 6, top + 4), "how often it is right", chart.DARK)
    return chart.encoded()


def sprite(images: Sequence[Image.Image], side: int) -> Encoded:
    """Return pictures in a square grid of cells of so many pixels a side, as TensorBoard's projector reads them."""
    columns = int(np.ceil(len(images) ** 0.5))
    mode = "L" if all(image.mode == "L" for image in images) else "RGB"
    grid = Image.new(mode, (columns * side, columns * side))
    for place, image in enumerate(images):
        grid.paste(_fitted(image, side), (place % columns * side, place // columns * side))
    return _png(grid)
