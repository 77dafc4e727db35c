"""Charts of a summary for print: PNG, SVG, PDF."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from torchal._checks import check_installed
from torchal.runs.charts import look_of, save
from torchal.study.looks import sampler_order
from torchal.study.summary import ExperimentSummary, Ranking, Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PANELS = 24  # on a page
_FEW = 6  # experiments with bars of their own
_WIDE = 30  # letters of a name beside a row


def small_multiples(
    summary: Summary,
    *,
    metric: str | None = None,
    against: str = "labels",
    experiments: Sequence[ExperimentSummary] | None = None,
) -> Figure:
    """Draw the curves of all experiments, one panel each, with one legend.

    Args:
        summary: what is drawn.
        metric: which; the main one where None.
        against: labels, cost or seconds.
        experiments: some of the summary's; the first 24 where None.
    """
    check_installed("matplotlib", extra="experiments")
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    metric = metric or summary.metric
    shown = list(summary.experiments[:_MOST_PANELS] if experiments is None else experiments)
    samplers = sampler_order(summary)
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(max(5.2, 3.6 * columns), 2.9 * rows + 0.9), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    drawn: dict[str, Any] = {}
    for axes, experiment in zip(panels.flat, shown, strict=False):
        for name in experiment.ordered:
            band = experiment.entries[name].curves.get(metric, {}).get(against)
            if band is None:
                continue
            look = look_of(samplers.index(name))
            every = max(1, len(band.x) // 8)
            (line,) = axes.plot(band.x, band.mean, **look, markevery=every, markersize=3.6, linewidth=1.4)
            drawn.setdefault(name, line)
            if None not in band.lower:
                axes.fill_between(band.x, band.lower, band.upper, color=look["color"], alpha=0.1, linewidth=0)
        if experiment.full_data is not None and metric == summary.metric:
            drawn["all training data"] = axes.axhline(
                experiment.full_data, color="0.35", linewidth=1, linestyle=(0, (1, 2))
            )
        axes.set_title(_wrapped(experiment.name, 38), fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=against == "labels"))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel(against, fontsize=9)
    if len(shown) < len(summary.experiments) and experiments is None:
        figure.suptitle(f"{len(shown)} of {len(summary.experiments)} experiments", fontsize=9)
    figure.supylabel(f"test {metric.replace('_', ' ')}", fontsize=9)
    order = [name for name in (*samplers, "all training data") if name in drawn]
    across = max(1, min(len(order), int(columns * 3.6 / 1.7)))
    figure.legend(
        [drawn[name] for name in order],
        [_in_legend(name) for name in order],
        loc="outside lower center",
        ncols=across,
        frameon=False,
        fontsize=8,
    )
    return figure


def _wrapped(text: str, width: int) -> str:
    """Return a text in at most three lines, with no sign in it that would begin a formula."""
    return "\n".join(textwrap.wrap(text, width)[:3]).replace("$", r"\$")


def _short(text: str) -> str:
    """Return the beginning of a name, with no sign in it that would begin a formula."""
    return (text if len(text) <= _WIDE else text[: _WIDE - 1] + "…").replace("$", r"\$")


def _in_legend(text: str) -> str:
    """Return the beginning of a name; one with an underscore in front would not be shown."""
    return " " + _short(text) if text.startswith("_") else _short(text)


def critical_difference(ranking: Ranking) -> Figure:
    """Draw mean ranks on a line, with a bar over those that the test does not tell apart.

    Reference:
        Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, Figure 1.
    """
    check_installed("matplotlib", extra="experiments")
    from matplotlib.figure import Figure

    names = list(ranking.mean_ranks)
    ranks = np.array(list(ranking.mean_ranks.values()))
    half = math.ceil(len(names) / 2)
    step = 0.32
    top = 0.5 + 0.16 * len(ranking.cliques)
    figure = Figure(figsize=(7.2, 1.4 + top + step * half), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(1 - 0.02 * len(names), len(names) * 1.02)
    axes.set_ylim(top + step * (half + 0.5), -0.9)
    axes.axis("off")
    axes.plot([1, len(names)], [0, 0], color="black", linewidth=1)
    for tick in range(1, len(names) + 1):
        axes.plot([tick, tick], [0, -0.08], color="black", linewidth=1)
        axes.text(tick, -0.14, str(tick), ha="center", va="bottom", fontsize=8)
    for place, (name, rank) in enumerate(zip(names, ranks, strict=True)):
        is_left = place < half
        row = place if is_left else len(names) - 1 - place
        height, edge = top + step * (row + 0.5), 1.0 if is_left else float(len(names))
        axes.plot([rank, rank, edge], [0, height, height], color="0.25", linewidth=0.9)
        text = f"{_short(name)}  {rank:.2f}"
        axes.text(edge, height - 0.03, text, ha="left" if is_left else "right", va="bottom", fontsize=8.5)
    for level, clique in enumerate(ranking.cliques):
        ends = [ranking.mean_ranks[clique[0]] - 0.03, ranking.mean_ranks[clique[-1]] + 0.03]
        axes.plot(ends, [0.22 + 0.16 * level] * 2, color="#D55E00", linewidth=3.4, solid_capstyle="round")
    wide = ranking.critical_difference
    axes.plot([1, min(1 + wide, len(names))], [-0.62, -0.62], color="black", linewidth=1.2)
    more = "" if 1 + wide <= len(names) else ", wider than the scale"
    axes.text(1, -0.68, f"critical difference {wide:.2f}{more}", ha="left", va="bottom", fontsize=8)
    return figure


def comparison_matrix(summary: Summary) -> Figure:
    """Draw the difference of each pair of samplers over all experiments: row minus column, bold where it is shown."""
    check_installed("matplotlib", extra="experiments")
    from matplotlib.figure import Figure

    found = summary.comparisons[summary.metric]
    names = [name for name in sampler_order(summary) if any(name in (one.a, one.b) for one in found)]
    values = np.full((len(names), len(names)), np.nan)
    shown = np.zeros((len(names), len(names)), dtype=bool)
    for one in found:
        i, j = names.index(one.a), names.index(one.b)
        values[i, j], values[j, i] = one.difference.mean, -one.difference.mean
        shown[i, j] = shown[j, i] = one.verdict != 0
    side = max(3.4, 0.52 * len(names) + 1.8)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    most = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 1.0
    colours = "PuOr_r" if summary.metric in summary.lower_is_better else "PuOr"
    axes.imshow(values, cmap=colours, vmin=-(most or 1.0), vmax=most or 1.0)
    for i in range(len(names)):
        for j in range(len(names)):
            if math.isfinite(values[i, j]):
                weight = "bold" if shown[i, j] else "normal"
                ink = "white" if abs(values[i, j]) > 0.7 * (most or 1.0) else "black"
                axes.text(
                    j, i, f"{values[i, j]:+.3f}", ha="center", va="center", fontsize=7.5, weight=weight, color=ink
                )
    labels = [_short(name) for name in names]
    axes.set_xticks(range(len(names)), labels, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_title(f"area of {summary.metric}: row minus column (bold: p < 0.05, Holm)", fontsize=9)
    axes.spines[:].set_visible(False)
    return figure


def seconds_bars(summary: Summary) -> Figure:
    """Draw the mean seconds of a run by phase, a bar for each sampler: a panel for each experiment.

    Of more than six experiments there is one panel, of the means over those that a sampler has runs of.
    """
    check_installed("matplotlib", extra="experiments")
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = _seconds_of(summary)
    phases = list(dict.fromkeys(phase for bars in shown.values() for seconds in bars.values() for phase in seconds))
    columns = min(2, len(shown))
    rows = math.ceil(len(shown) / columns)
    most = max((len(bars) for bars in shown.values()), default=1)
    figure = Figure(figsize=(max(6.4, 5.0 * columns), (0.8 + 0.22 * most) * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes, (title, bars) in zip(panels.flat, shown.items(), strict=False):
        left = np.zeros(len(bars))
        for number, phase in enumerate(phases):
            wide = np.array([seconds.get(phase, 0.0) for seconds in bars.values()])
            axes.barh(range(len(bars)), wide, left=left, color=look_of(number)["color"], height=0.72)
            left += wide
        for place, total in enumerate(left):
            axes.text(total, place, f" {total:.3g}", va="center", fontsize=7.5)
        axes.set_yticks(range(len(bars)), [_short(name) for name in bars], fontsize=7.5)
        axes.invert_yaxis()
        axes.set_xlim(0, max(1e-9, float(left.max(initial=0.0))) * 1.15)
        axes.set_title(_wrapped(title, 50), fontsize=9)
        axes.tick_params(labelsize=7.5)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    for axes in panels[-1]:
        axes.set_xlabel("mean seconds of a run", fontsize=8)
    keys = [Patch(color=look_of(number)["color"], label=phase) for number, phase in enumerate(phases)]
    figure.legend(handles=keys, loc="outside lower center", ncols=max(1, len(keys)), frameon=False, fontsize=8)
    return figure


def _seconds_of(summary: Summary) -> dict[str, dict[str, dict[str, float]]]:
    """Return the seconds of each bar by phase: for each panel, and each sampler in it."""
    if len(summary.experiments) <= _FEW:
        return {one.name: {name: one.entries[name].seconds for name in one.ordered} for one in summary.experiments}
    means: dict[str, dict[str, float]] = {}
    for name in sampler_order(summary):
        own = [one.entries[name].seconds for one in summary.experiments if name in one.entries]
        phases = dict.fromkeys(phase for seconds in own for phase in seconds)
        means[name] = {phase: sum(seconds.get(phase, 0.0) for seconds in own) / len(own) for phase in phases}
    return {f"mean of {len(summary.experiments)} experiments": means}


def write_charts(summary: Summary, folder: Path, *, formats: Sequence[str] = ("png", "svg", "pdf")) -> dict[str, Path]:
    """Write all charts into a folder; return, by what it shows, the first file of each.

    `curves.pdf` has a page for each score model, as the chart of Google's Active Learning Playground had.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    charts: dict[str, tuple[str, Callable[[], Figure]]] = {}
    charts["learning curves"] = ("curves", lambda: small_multiples(summary))
    charts["seconds"] = ("seconds", lambda: seconds_bars(summary))
    if summary.comparisons.get(summary.metric):
        charts["each against each"] = ("comparisons", lambda: comparison_matrix(summary))
    ranking = summary.ranking
    if ranking is not None:
        charts["critical difference"] = ("ranks", lambda: critical_difference(ranking))
    folder.mkdir(parents=True, exist_ok=True)
    pages = pages_of(summary)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for the letter
        for name, draw in charts.values():
            figure = _arranged(draw())
            for one in formats:
                if (name, one) != ("curves", "pdf"):
                    save(figure, folder / f"{name}.{one}")
                elif len(pages) == 1:
                    save(figure, folder / "curves.pdf")
        if "pdf" in formats and len(pages) > 1:
            with PdfPages(folder / "curves.pdf", metadata={"CreationDate": None}) as file:
                for page in pages:
                    file.savefig(small_multiples(summary, experiments=page))
    return {what: folder / f"{name}.{formats[0]}" for what, (name, _) in charts.items()}


def _arranged(figure: Figure) -> Figure:
    """Return a figure whose parts have found their places, so that not every format looks for them again."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def pages_of(summary: Summary) -> list[list[ExperimentSummary]]:
    """Return the experiments of each score model, no more on a page than can be read."""
    by_model: dict[str, list[ExperimentSummary]] = {}
    for one in summary.experiments:
        by_model.setdefault(one.model, []).append(one)
    return [
        same[start : start + _MOST_PANELS] for same in by_model.values() for start in range(0, len(same), _MOST_PANELS)
    ]
