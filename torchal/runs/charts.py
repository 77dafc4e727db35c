"""Charts of learning curves, legible in print and for colour-blind readers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchal._checks import check_installed
from torchal.errors import ConfigError
from torchal.runs.curves import LearningCurve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's colours, dark ones first; a line's dash and marker tell it apart where colour does not.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES = ("-", "--", "-.", ":")
_IN_LEGEND = 6  # curves whose legend has room inside
_UNDATED: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".png": {}, ".svg": {"Date": None}}
"""Metadata of each format: without the time, so that the same curves make the same bytes."""


def look_of(number: int) -> dict[str, Any]:
    """Return the colour, dash and marker of the line with this number, as settings of matplotlib."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "marker": _MARKERS[number % len(_MARKERS)],
    }


def learning_curves(
    curves: Mapping[str, LearningCurve],
    *,
    title: str = "",
    ylabel: str = "test accuracy",
    full_data: float | None = None,
    xlabel: str = "labels",
) -> Figure:
    """Draw the mean of each curve with its 95 % band.

    Args:
        curves: by the name that the legend shows.
        title: what stands above the chart.
        ylabel: what the values are.
        xlabel: what they are drawn against.
        full_data: the value with all training data, drawn as a level line.

    Raises:
        ConfigError: there is no curve to draw, or no finite value in them.
    """
    check_installed("matplotlib", extra="experiments")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    if not curves:
        raise ConfigError("a chart needs at least one curve, got none")
    many = len(curves) > _IN_LEGEND
    figure = Figure(figsize=(9.6, 4.8) if many else (6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(curves.items()):
        look = look_of(number)
        n_runs = len(curve.values)
        label = f"{name} ({n_runs} seed{'s' if n_runs > 1 else ''})"
        every = max(1, len(curve.n_labeled) // 10)
        axes.plot(curve.n_labeled, curve.mean, **look, markevery=every, markersize=4.5, label=label)
        if np.isfinite(curve.lower).all():
            shade = 0.07 if many else 0.18
            axes.fill_between(curve.n_labeled, curve.lower, curve.upper, color=look["color"], alpha=shade, linewidth=0)
    if full_data is not None:
        axes.axhline(full_data, color="0.35", linewidth=1, linestyle=(0, (1, 2)), label="all training data")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.set_title("\n".join(textwrap.wrap(title.replace(",", ", "), 70)), fontsize=11 if len(title) <= 70 else 8)
    axes.set_ylim(_limits(curves, full_data))
    axes.xaxis.set_major_locator(MaxNLocator(integer=xlabel == "labels"))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    legend_title = "mean and 95 % interval" if any(len(c.values) > 1 for c in curves.values()) else None
    if many:  # beside the curves, which a long legend would cover
        axes.legend(frameon=False, title=legend_title, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    else:
        axes.legend(frameon=False, title=legend_title)
    return figure


def _limits(curves: Mapping[str, LearningCurve], full_data: float | None) -> tuple[float, float]:
    """Return a vertical range that shows all lines, and of the bands no more than leaves the lines readable."""
    lines = np.concatenate([curve.mean for curve in curves.values()] + ([] if full_data is None else [[full_data]]))
    lines = lines[np.isfinite(lines)]
    if not len(lines):
        raise ConfigError("the curves have no finite value to draw")
    bands = np.concatenate([np.concatenate([lines, curve.lower, curve.upper]) for curve in curves.values()])
    room = np.ptp(lines) or abs(lines[0]) or 1.0
    low, high = max(np.nanmin(bands), lines.min() - room / 4), min(np.nanmax(bands), lines.max() + room / 4)
    edge = 0.04 * ((high - low) or room)
    return float(low - edge), float(high + edge)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure in the format that the path's ending names: png, pdf or svg. The same figure makes the same bytes.

    Raises:
        ConfigError: the ending is none of these.
    """
    import matplotlib as mpl

    kind = path.suffix.lower()
    if kind not in _UNDATED:
        raise ConfigError(f"a chart is written as {', '.join(_UNDATED)}; got {path.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "torchal"}):
        figure.savefig(path, dpi=150, metadata=_UNDATED[kind])
    return path
