"""Draw what the explanations speak of, from the algorithm itself: a block of k-center."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from make_pages.files import write_if_new

_N_ROWS, _N_BEFORE = 600, 6
_BLUE, _ORANGE, _GREY, _LINE = "#0072b2", "#d55e00", "#9aa4b1", "#3b4350"


def write_explanation_pictures(docs: Path) -> None:
    """Write docs/explanation/block.svg."""
    figure = draw_block()
    text = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "torchal", "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    write_if_new(docs / "explanation" / "block.svg", text.getvalue())


def draw_block() -> Figure:
    """Draw the values of a pool when a block begins, and when it ends; and where its rows lie."""
    rows = _pool()
    centers, old = _greedy(rows, [0], _N_BEFORE)
    threshold = old.sort(descending=True).values[_N_ROWS // 8]
    in_block = old >= threshold
    picks: list[int] = []
    values = old.clone()
    while bool(values[in_block].max() >= threshold):
        best = int(torch.where(in_block, values, -1).argmax())
        picks.append(best)
        values = torch.minimum(values, torch.cdist(rows, rows[best : best + 1]).squeeze(1))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    order = old.argsort(descending=True)
    place = torch.arange(_N_ROWS)
    left.fill_between(place, old[order], color=_GREY, alpha=0.35, lw=0, label="when the block begins")
    left.plot(place, values[order], ".", ms=2.5, color=_BLUE, label="when it ends")
    left.axhline(float(threshold), color=_LINE, lw=1, ls="--")
    left.axvspan(0, int(in_block.sum()), color=_ORANGE, alpha=0.12, lw=0)
    left.annotate("threshold", (_N_ROWS, float(threshold)), ha="right", va="bottom", color=_LINE)
    left.annotate("the block", (int(in_block.sum()) + 4, 2.2), ha="left", va="center", color=_LINE, fontsize=9)
    left.set(xlabel="rows, by their values when the block begins", ylabel="distance to the nearest centre")
    left.legend(frameon=False, loc="upper right")
    right.scatter(*rows[~in_block].T, s=7, color=_GREY, lw=0, label="rows outside")
    right.scatter(*rows[in_block].T, s=12, color=_ORANGE, lw=0, label="rows of the block")
    right.scatter(*rows[centers].T, s=45, color=_LINE, marker="s", label="centres before")
    right.scatter(*rows[picks].T, s=70, facecolor="none", edgecolor=_BLUE, lw=2, label=f"{len(picks)} picks of it")
    right.set_axis_off()
    right.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 0.02), ncols=2, fontsize=8)
    return figure


def _pool() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    centers = torch.tensor([[0.0, 0.0], [3.0, 0.6], [1.2, 2.6], [4.2, 3.0]])
    spread = torch.tensor([0.8, 0.45, 0.7, 0.35])
    cluster = torch.randint(0, len(centers), (_N_ROWS,), generator=generator)
    return centers[cluster] + spread[cluster, None] * torch.randn(_N_ROWS, 2, generator=generator)


def _greedy(rows: Tensor, centers: list[int], n: int) -> tuple[list[int], Tensor]:
    """Return the centres with n more, each the farthest row, and the distance of each row to the nearest of all."""
    values = torch.cdist(rows, rows[centers]).amin(1)
    for _ in range(n):
        centers = [*centers, int(values.argmax())]
        values = torch.minimum(values, torch.cdist(rows, rows[centers[-1:]]).squeeze(1))
    return centers, values
