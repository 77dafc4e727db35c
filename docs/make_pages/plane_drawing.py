"""Draws rounds on the plane as SVG: sharp at any size, a few kilobytes, and the same bytes for the same rounds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from contourpy import FillType, contour_generator
from torch import Tensor

from make_pages.plane import HALF_HEIGHT, HALF_WIDTH, N_CLASSES, SQUARE, Snapshot, make_plane
from torchal.study.looks import COLOURS

WIDTH, HEIGHT = 320, 220  # of a round, in the picture's units
_GAP, _TITLE = 8, 20
_INK, _LINE = "#20242b", "#9aa2ae"
_CLASS_COLOURS = tuple(COLOURS[place][0] for place in range(N_CLASSES))
_LINE_ENDS = (("round", 1.0), ("square", 0.85))  # the marks of the first two classes, and how wide; then triangles
_TINT = 0.13  # how strong the colour of a class is where it is predicted
_ASKED = (49, 34)  # places at which the model is asked for that


def draw_rounds(snapshots: Sequence[Snapshot], *, shaded: Sequence[bool], squares: bool, titles: bool = True) -> str:
    """Return a picture of rounds, side by side.

    Args:
        snapshots: the rounds.
        shaded: for each, whether the classes that the model predicts are the background.
        squares: whether the squares that are groups are drawn.
        titles: whether it says above which round is which.
    """
    top, width = _TITLE if titles else 0, len(snapshots) * (WIDTH + _GAP) - _GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 {width + 2} {top + HEIGHT + 2}" '
        f'width="{width + 2}" height="{top + HEIGHT + 2}">',
        f'<rect x="-1" y="-1" width="{width + 2}" height="{top + HEIGHT + 2}" fill="#fff"/>',
    ]
    for place, (snapshot, with_shades) in enumerate(zip(snapshots, shaded, strict=True)):
        left = place * (WIDTH + _GAP)
        if titles:
            parts.append(
                f'<text x="{left + WIDTH / 2:g}" y="13" text-anchor="middle" font-family="system-ui, sans-serif" '
                f'font-size="14" fill="{_INK}">round {snapshot.round}</text>'
            )
        parts.append(f'<g transform="translate({left} {top})">')
        parts += [*_shades(snapshot)] if with_shades else []
        parts += [_squares()] if squares else []
        parts += [*_points(snapshot), "</g>"]
        parts.append(
            f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="{_LINE}" '
            'stroke-opacity="0.6"/>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _places(points: Tensor) -> list[tuple[float, float]]:
    """Return where points (n, 2) of the plane lie in the picture of a round."""
    xs = (points[:, 0] + HALF_WIDTH) * (WIDTH / (2 * HALF_WIDTH))
    ys = (HALF_HEIGHT - points[:, 1]) * (HEIGHT / (2 * HALF_HEIGHT))
    return list(zip(xs.tolist(), ys.tolist(), strict=True))


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-0.", "-.").removeprefix("0") or "0"


def _marks(points: Tensor, label: int, radius: float, colour: str, opacity: float = 1.0) -> str:
    """Return a mark at each point: a class is told by its shape too. Discs and squares are the ends of lines."""
    places = [(round(x), round(y)) for x, y in _places(points)]
    if label < len(_LINE_ENDS):
        end, share = _LINE_ENDS[label]
        width, outline = _number(2 * radius * share), "h.01"
        look = f'stroke="{colour}" stroke-opacity="{opacity:g}" stroke-width="{width}" stroke-linecap="{end}"'
    else:
        side, height, base = (_number(share * radius) for share in (1.25, 2.1, 2.5))
        look, outline = f'fill="{colour}" fill-opacity="{opacity:g}"', f"m0-{side}l{side} {height}h-{base}z"
    return f'<path {look} d="{"".join(f"M{x} {y}{outline}" for x, y in places)}"/>'


def _points(snapshot: Snapshot) -> list[str]:
    """Return the pool, what is labeled, and the picks with their rings."""
    plane = make_plane()
    state = torch.zeros(len(plane.truth), dtype=torch.int64)
    state[snapshot.before], state[snapshot.picks] = 1, 2
    rings = "".join(
        f'<circle cx="{round(x)}" cy="{round(y)}" r="7.5" fill="#fff" stroke="{_INK}" stroke-width="2.4"/>'
        for x, y in _places(plane.inputs[snapshot.picks])
    )
    parts = ["", "", rings, ""]
    for label, colour in enumerate(_CLASS_COLOURS):
        pool, labeled, picks = (plane.inputs[(plane.truth == label) & (state == kind)] for kind in range(3))
        parts[0] += _marks(pool, label, 2.1, colour, opacity=0.45)
        parts[1] += _marks(labeled, label, 3, _INK)
        parts[3] += _marks(picks, label, 4, colour)
    return parts


def _shades(snapshot: Snapshot) -> list[str]:
    """Return the regions in which the model predicts each class."""
    axes = [
        torch.linspace(-half, half, n, dtype=torch.float64)
        for half, n in zip((HALF_WIDTH, HALF_HEIGHT), _ASKED, strict=True)
    ]
    probabilities = torch.as_tensor(snapshot.model.predict_proba(torch.cartesian_prod(*axes)))
    probabilities = probabilities.reshape(*_ASKED, -1).transpose(0, 1)
    first, *others = (_tint(label) for label in snapshot.model.classes_.tolist())
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{first}"/>']  # so that no gap is left between regions
    for column, tint in enumerate(others, 1):
        rivals = torch.cat([probabilities[..., :column], probabilities[..., column + 1 :]], dim=-1)
        parts.append(_region(axes, probabilities[..., column] - rivals.amax(dim=-1), tint))
    return parts


def _tint(label: int) -> str:
    """Return a light tone of the colour of a class."""
    colour = _CLASS_COLOURS[label]
    parts = (round(255 - _TINT * (255 - int(colour[at : at + 2], 16))) for at in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in parts)


def _region(axes: Sequence[Tensor], ahead: Tensor, colour: str) -> str:
    """Return the part of the plane where a function (y, x) is positive."""
    generator = contour_generator(x=axes[0].numpy(), y=axes[1].numpy(), z=ahead.numpy(), fill_type=FillType.OuterOffset)
    rings = []
    for points, offsets in zip(*generator.filled(0.0, float("inf")), strict=True):
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            places = dict.fromkeys((round(x), round(y)) for x, y in _places(torch.from_numpy(points[start:end])))
            (x, y), *rest = places
            steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise([(x, y), *rest])]
            rings.append(f"M{x} {y}l" + " ".join(f"{dx} {dy}" for dx, dy in steps) + "z")
    return f'<path fill="{colour}" fill-rule="evenodd" d="{"".join(rings)}"/>'


def _squares() -> str:
    """Return the lines between the squares that are groups."""
    width, height = SQUARE * WIDTH / (2 * HALF_WIDTH), SQUARE * HEIGHT / (2 * HALF_HEIGHT)
    lines = [f"M{_number(count * width)} 0v{HEIGHT}" for count in range(1, round(WIDTH / width))]
    lines += [f"M0 {_number(HEIGHT - count * height)}h{WIDTH}" for count in range(1, 1 + int(HEIGHT / height))]
    return f'<path fill="none" stroke="{_LINE}" d="{"".join(lines)}"/>'
