"""The page on choosing a strategy: what the committed tables say, and a form that narrows the list by them."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.cost import Size
from make_pages.evidence import STUDIES, Verdict, costs, half_widths, how_far_off, verdicts
from make_pages.files import write_if_new
from make_pages.strategies import Page, strategy_pages
from make_pages.strategy_needs import WORDS

MODELS = {
    "none": ("none yet, or no label yet", ()),
    "decision": ("decision values only, as a linear SVM", ("HasDecisionFunction",)),
    "probabilities": ("probabilities, as a random forest", ("HasProbabilities",)),
    "logistic": ("logistic regression", ("HasDecisionFunction", "HasProbabilities", "HasLastLayer")),
    "network": ("a network", ("HasDecisionFunction", "HasProbabilities", "HasLastLayer")),
    "posterior": ("a network with dropout, or an ensemble", tuple(kind.__name__ for kind in WORDS)),
}
"""What people fit, and which capabilities it has."""

_SIZES = ((10_000, 512), (100_000, 512), (1_000_000, 512))


def write_choosing(docs: Path) -> None:
    """Write docs/choosing_form.html, which the page includes."""
    write_if_new(docs / "choosing_form.html", form())


def data() -> dict[str, Any]:
    """Return what the form works from: of each strategy its needs, its cost and what each study says of it."""
    said, cost = verdicts(), costs()
    strategies = {
        page.name: {
            "title": page.title,
            "models": [sorted(kind.__name__ for kind in kinds) for kinds in page.needs.models],
            "fromLabels": page.needs.from_labels,
            "validation": page.needs.validation,
            "fits": page.needs.clones,
            "cost": None if page.name not in cost else [*cost[page.name][:2], *cost[page.name].powers],
            "said": {key: list(found[page.name]) for key, found in said.items() if page.name in found},
        }
        for page in strategy_pages()
    }
    return {
        "strategies": strategies,
        "models": {key: list(has) for key, (_, has) in MODELS.items()},
        "studies": {key: {"title": study.title, "page": study.page} for key, study in STUDIES.items()},
    }


def form() -> str:
    """Return the form and the table that it narrows, as HTML. Without a script the table is whole."""
    models = "".join(
        f'<option value="{key}"{" selected" * (key == "logistic")}>{text}</option>' for key, (text, _) in MODELS.items()
    )
    numbers = "".join(
        f'<label>{text} <input type="number" name="{name}" value="{value}" min="{least}" step="1" required></label>'
        for name, text, value, least in (
            ("labels", "labels so far", 200, 0),
            ("classes", "classes", 10, 2),
            ("rows", "rows of the pool", 50_000, 1),
            ("columns", "columns (features)", 512, 1),
            ("picks", "rows a batch", 50, 1),
            ("seconds", "seconds a batch may take", 60, 1),
        )
    )
    boxes = "".join(
        f'<label class="box"><input type="checkbox" name="{name}"> {text}</label>'
        for name, text in (
            ("rare", "a rare class matters"),
            ("copies", "rows come in near copies"),
            ("noise", "a label in five or more is wrong"),
            ("texts", "documents"),
        )
    )
    rows = "".join(_row(page, verdicts()) for page in strategy_pages())
    return (
        '<form id="choosing" class="choosing" autocomplete="off" hidden>\n'
        f'<label>model <select name="model">{models}</select></label>{numbers}{boxes}\n</form>\n'
        '<p id="choosing-said" class="choosing-said" role="status" aria-live="polite"></p>\n'
        '<div class="pst-scrollable-table-container" tabindex="0"><table class="table" id="choosing-table">\n'
        '<thead><tr><th scope="col">strategy</th><th scope="col">what our tables say</th>'
        '<th scope="col">seconds a batch</th></tr></thead>\n'
        f"<tbody>{rows}</tbody>\n</table></div>\n"
        f'<script type="application/json" id="choosing-data">{json.dumps(data(), sort_keys=True)}</script>\n'
        '<script src="_static/choosing.js" defer></script>\n'
    )


def _row(page: Page, said: Mapping[str, Mapping[str, Verdict]]) -> str:
    told = "; ".join(
        f"{STUDIES[key].title}: above uniform on {found[page.name].better} of {found[page.name].sets}, "
        f"below on {found[page.name].worse}"
        for key, found in said.items()
        if page.name in found
    )
    told = told or ("the baseline" if page.name == "uniform" else "not in our studies")
    return (
        f'<tr data-name="{page.name}"><th scope="row"><a href="strategies/{page.name}.html">'
        f"{html.escape(page.title)}</a></th><td>{told}</td><td></td></tr>\n"
    )


def evidence_table() -> str:
    """Return what the studies say, as a table in Markdown: a line for each strategy that is in one."""
    said = verdicts()
    names = sorted({name for found in said.values() for name in found})
    head = (
        "| strategy | " + " | ".join(f"[{study.title}](results/{study.page}.md)" for study in STUDIES.values()) + " |"
    )
    lines = [head, "|---" * (len(STUDIES) + 1) + "|"]
    for name in names:
        cells = [_cell(said[key].get(name)) for key in STUDIES]
        lines.append(f"| [`{name}`](strategies/{name}.md) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(verdict: Verdict | None) -> str:
    return "" if verdict is None else f"+{verdict.better} −{verdict.worse} of {verdict.sets}"  # noqa: RUF001


def intervals_text() -> str:
    """Return how wide the intervals of ten pairs are, in the studies."""
    lines = ["| study | median | nine in ten are between |", "|---|---|---|"]
    for key, study in STUDIES.items():
        median, low, high = half_widths(key)
        lines.append(f"| {study.title} | ± {median:.3f} | ± {low:.3f} and ± {high:.3f} |")
    return (
        "How far Student's 95 % interval of ten paired differences in area reaches to either side, in the studies of "
        "this site:\n\n" + "\n".join(lines)
    )


def cost_table() -> str:
    """Return the seconds of a batch by the fitted formulas, as a table in Markdown."""
    off = how_far_off()
    lines = ["| strategy | " + " | ".join(f"{rows:,} rows".replace(",", " ") for rows, _ in _SIZES) + " |"]
    lines.append("|---" * (len(_SIZES) + 1) + "|")
    for name, cost in costs().items():
        cells = [_seconds(cost.at(Size(rows, columns, classes=10, picks=100))) for rows, columns in _SIZES]
        lines.append(f"| [`{name}`](../strategies/{name}.md) | " + " | ".join(cells) + " |")
    within = sum(1 / 1.5 <= one <= 1.5 for one in off)
    return (
        "Seconds of one core for a batch of 100 of ten classes, with 512 columns, features and probabilities being "
        "there already. They follow from formulas fitted to pools of 1 000 to 128 000 rows "
        "(`python -m benchmarks.cost`), so a million rows is an extrapolation, and may be far off. "
        f"On a pool that none was fitted to, {within} of {len(off)} are within a factor of 1.5 of the clock.\n\n"
        + "\n".join(lines)
    )


def _seconds(seconds: float) -> str:
    if seconds < 0.0095:
        return "< 0.01"
    if seconds < 100:
        return f"{seconds:.2g}"
    return f"{seconds:,.0f}".replace(",", " ") if seconds < 10_000 else "hours"
