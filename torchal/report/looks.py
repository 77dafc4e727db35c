"""Colours, marks and letters of the map."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from torchal.errors import ConfigError

Colour: TypeAlias = tuple[int, int, int]
Shape: TypeAlias = Literal["disc", "square", "triangle"]

# Okabe & Ito's colours but for black, which the asked rows have, and yellow, which white swallows: violet instead
_COLOURS: tuple[Colour, ...] = (
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (86, 180, 233),
    (230, 159, 0),
    (124, 58, 220),
)
_SHAPES: tuple[Shape, ...] = ("disc", "square", "triangle")

LOOKS: tuple[tuple[Colour, Shape], ...] = tuple((colour, shape) for shape in _SHAPES for colour in _COLOURS)
"""What the labeled rows of each class look like, class by class: with more classes than colours, other shapes."""

_FINE = 8  # marks are drawn so many times larger, for smooth edges


@dataclass(frozen=True)
class Theme:
    """The colours of a map, on a light or on a dark ground."""

    ground: Colour
    panel: Colour
    frame: Colour
    text: Colour
    quiet: Colour
    sparse: Colour
    dense: Colour
    asked: Colour
    rest: Colour


THEMES = {
    "light": Theme(
        ground=(255, 255, 255),
        panel=(250, 250, 251),
        frame=(214, 217, 222),
        text=(28, 32, 38),
        quiet=(90, 97, 107),
        sparse=(221, 224, 229),
        dense=(128, 135, 147),
        asked=(12, 14, 18),
        rest=(104, 98, 92),
    ),
    "dark": Theme(
        ground=(24, 27, 32),
        panel=(29, 32, 38),
        frame=(58, 63, 72),
        text=(233, 235, 239),
        quiet=(166, 173, 184),
        sparse=(58, 63, 72),
        dense=(136, 144, 157),
        asked=(255, 255, 255),
        rest=(176, 168, 160),
    ),
}


def mark(shape: Shape, radius: float) -> Image.Image:
    """Return a mark as a mask ("L") of odd sides, of about the area of a disc of this radius in pixels."""
    side = 2 * (int(radius * 1.5) + 1) + 1
    large = Image.new("L", (side * _FINE, side * _FINE))
    draw = ImageDraw.Draw(large)
    middle, reach = side * _FINE / 2, radius * _FINE
    if shape == "disc":
        draw.ellipse((middle - reach, middle - reach, middle + reach, middle + reach), fill=255)
    elif shape == "square":
        half = reach * 0.89
        draw.rectangle((middle - half, middle - half, middle + half, middle + half), fill=255)
    else:
        top, foot, half = middle - 1.3 * reach, middle + 0.75 * reach, 1.2 * reach
        draw.polygon([(middle, top), (middle + half, foot), (middle - half, foot)], fill=255)
    return large.resize((side, side), Image.Resampling.BOX)


def ring(radius: float, width: float) -> Image.Image:
    """Return a ring as a mask ("L") of odd sides; radius and width in pixels, the radius that of its middle line."""
    side = 2 * (int(radius + width) + 1) + 1
    large = Image.new("L", (side * _FINE, side * _FINE))
    draw = ImageDraw.Draw(large)
    middle = side * _FINE / 2
    for reach, fill in (((radius + width / 2) * _FINE, 255), ((radius - width / 2) * _FINE, 0)):
        draw.ellipse((middle - reach, middle - reach, middle + reach, middle + reach), fill=fill)
    return large.resize((side, side), Image.Resampling.BOX)


def weights(mask: Image.Image) -> NDArray[np.float32]:
    """Return a mask's values from 0 to 1."""
    return np.asarray(mask, dtype=np.float32) / np.float32(255)


def paste(image: Image.Image, mask: Image.Image, colour: Colour, centre: Sequence[float]) -> None:
    """Colour an image through a mask that lies with its middle on a pixel."""
    image.paste(colour, (round(centre[0]) - mask.width // 2, round(centre[1]) - mask.height // 2), mask)


class Letters:
    """Writes text of one size onto an image.

    Pillow's built-in font is drawn by FreeType. Where Pillow was built without it, its font of fixed pixels is
    written at twice its size, which is legible and not beautiful.

    Args:
        size: of the letters in pixels.
        font: the file of another font; the built-in one has the letters of English only.

    Raises:
        ConfigError: the file cannot be read as a font.
    """

    def __init__(self, size: int, font: str | PathLike[str] | None = None) -> None:
        self._zoom = 1
        self._font: ImageFont.FreeTypeFont | ImageFont.ImageFont
        try:
            if font is None:
                self._font = ImageFont.load_default(size=size)
            else:
                self._font = ImageFont.truetype(os.fspath(font), size)
        except OSError as error:
            raise ConfigError(f"{font} cannot be read as a font: {error}") from error
        except ImportError as error:
            if font is not None:
                raise ConfigError(f"Pillow was built without FreeType, so it cannot read {font}") from error
            self._font, self._zoom = ImageFont.load_default(), 2
        self._known: dict[str, bool] = {}

    @cached_property
    def height(self) -> int:
        """From the top of the highest letters to the foot of the lowest."""
        return int(self._font.getbbox("ÅÉgjy|" if self._zoom == 1 else "Agjy|")[3]) * self._zoom

    def width(self, text: str) -> int:
        """Return how many pixels wide a text is."""
        return round(self._font.getlength(text)) * self._zoom if text else 0

    def can_write(self, text: str) -> bool:
        """Return whether the font has all letters of a text."""
        return all(self._has(letter) for letter in text)

    def spell(self, text: str) -> str | None:
        """Return a text in letters that the font has, without accents if need be; None where it lacks others."""
        text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
        if self.can_write(text):
            return text
        plain = "".join(
            letter if self._has(letter) else "".join(filter(self._has, unicodedata.normalize("NFKD", letter))) or "\0"
            for letter in text
            if not unicodedata.combining(letter)
        )
        return None if "\0" in plain or not plain else plain

    def fit(self, text: str, width: int) -> str:
        """Return a text, or as much of it as goes into a width: names often differ at their ends, so that stays."""
        if self.width(text) <= width:
            return text
        dots = "…" if self._has("…") else "..."
        end = text[-5:].lstrip()
        low, high = 0, len(text) - len(end)
        while low < high:
            middle = (low + high + 1) // 2
            if self.width(text[:middle].rstrip() + dots + end) <= width:
                low = middle
            else:
                high = middle - 1
        return text[:low].rstrip() + dots + end

    def write(
        self, image: Image.Image, at: tuple[float, float], text: str, colour: Colour, *, halo: Colour | None = None
    ) -> None:
        """Write a text, its left upper corner at a place, with a rim of another colour if one is given."""
        if not text:
            return
        rim = 0 if halo is None else 3
        mask = Image.new("L", (self.width(text) // self._zoom + 2, self.height // self._zoom + 2))
        ImageDraw.Draw(mask).text((0, 0), text, fill=255, font=self._font)
        if self._zoom > 1:
            mask = mask.resize((mask.width * self._zoom, mask.height * self._zoom), Image.Resampling.NEAREST)
        x, y = round(at[0]), round(at[1])
        if halo is not None:
            wide = Image.new("L", (mask.width + 2 * rim, mask.height + 2 * rim))
            wide.paste(mask, (rim, rim))
            around = weights(wide) > 0.25
            grown = np.zeros_like(around)
            for dx in range(-rim, rim + 1):
                for dy in range(-rim, rim + 1):
                    if dx * dx + dy * dy <= rim * rim + 1:
                        grown |= np.roll(around, (dy, dx), (0, 1))
            image.paste(halo, (x - rim, y - rim), Image.fromarray(np.where(grown, 225, 0).astype(np.uint8)))
        image.paste(colour, (x, y), mask)

    def _has(self, letter: str) -> bool:
        if letter not in self._known:
            if self._zoom > 1:
                self._known[letter] = 32 <= ord(letter) < 127
            else:
                lacking = self._font.getmask("\uffff")
                mask = self._font.getmask(letter)
                self._known[letter] = letter == " " or (bytes(mask) != bytes(lacking) and letter != "\uffff")
        return self._known[letter]
