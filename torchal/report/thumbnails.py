"""Small pictures that a page carries in itself."""

from __future__ import annotations

import base64
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from torchal.errors import DataError, ShapeError

_AS_IT_IS = 64  # pixels; pictures that are so small keep every one


@dataclass(frozen=True)
class Thumbnail:
    """A small picture.

    Attributes:
        uri: the picture itself, as a `data:` URI.
        width, height: in pixels.
    """

    uri: str
    width: int
    height: int


def thumbnail(path: Path, *, side: int = 256) -> Thumbnail:
    """Read a picture and scale it down, the right way up, to at most so many pixels a side; none is scaled up.

    Small pictures and those with transparent parts become PNG, others JPEG. Of more than one frame, the first is shown.

    Raises:
        DataError: there is no such file, or it is no picture that Pillow can read, damaged, or too large to unpack.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (1000, 500)).save(f"{folder}/a.png")
        ...     small = thumbnail(Path(folder, "a.png"))
        >>> small.width, small.height, small.uri[:22]
        (256, 128, 'data:image/jpeg;base64')
    """
    try:
        if not path.is_file():  # a pipe would be waited for
            raise DataError("there is no such file")
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")  # of odd metadata, which is not shown
            with Image.open(file) as image:
                return encoded(image, side=side)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("it begins like no picture") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except Exception as error:  # on damaged bytes the decoders raise OSError, SyntaxError, struct.error, and more
        raise DataError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error


def image_of(pixels: NDArray[Any], *, low: float, high: float) -> Image.Image:
    """Return numbers as an image in grey or in colour.

    Args:
        pixels: the image.
        low: what is black; numbers below are cut off.
        high: what is white.

    Shapes:
        pixels: (C, H, W) with 1 or 3 channels, or (H, W).

    Raises:
        ShapeError: pixels has another shape.

    Example:
        >>> image_of(np.array([[[0.0, 1.0]]]), low=0.0, high=1.0).size
        (2, 1)
    """
    planes = pixels[None] if pixels.ndim == 2 else pixels
    if planes.ndim != 3 or planes.shape[0] not in (1, 3) or 0 in planes.shape:
        raise ShapeError(f"an image must be (H, W), (1, H, W) or (3, H, W), got {pixels.shape}")
    scaled = (np.nan_to_num(planes.astype(np.float64), nan=low) - low) / ((high - low) or 1.0)
    bright = (255 * scaled.clip(0, 1)).round().astype(np.uint8)
    return Image.fromarray(bright[0] if len(bright) == 1 else np.moveaxis(bright, 0, -1))


def encoded(image: Image.Image, *, side: int = 256) -> Thumbnail:
    """Return an image scaled down, the right way up, to at most so many pixels a side; none is scaled up."""
    if max(image.size) > side:
        image.draft("RGB" if image.mode != "L" else "L", (side, side))  # a JPEG is then unpacked at a part of its size
    pixels = _eight_bits(ImageOps.exif_transpose(image))
    pixels.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    if pixels.mode in ("RGBA", "LA") or max(pixels.size) <= _AS_IT_IS:
        kind = "png"
        pixels.save(buffer, "PNG", optimize=True)
    else:
        kind = "jpeg"
        pixels.save(buffer, "JPEG", quality=82, optimize=True)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{kind};base64,{content}", *pixels.size)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image in grey or in colour, transparent or not, with eight bits a channel and nothing but pixels."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):  # Pillow would clip instead of scale
        values = np.asarray(image, dtype=np.float64)
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 0.0)
        if image.mode.startswith("I;16"):
            low, high = 0.0, 65535.0
        grey = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
        return Image.fromarray((255 * grey).round().astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        mode = "LA" if image.mode in ("L", "LA") else "RGBA"
    else:
        mode = "L" if image.mode in ("1", "L") else "RGB"
    pixels = image.convert(mode)
    pixels.info.clear()  # profiles and comments are large, and would be written too
    return pixels
