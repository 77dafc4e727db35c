"""The page of all measured tables: what lies in benchmarks/results, as it is."""

from __future__ import annotations

import re
from pathlib import Path

from make_pages.files import write_if_new

ROOT = Path(__file__).parents[2]
_INTRODUCTION = """\
% Made by docs/make_pages/results.py from benchmarks/results.
# Speed

Every table as its command wrote it, with machine, versions and date. `python -m benchmarks.run` measures the kernels
beside their alternatives on your machine, `make gpu` those that run on a GPU; [What it costs](../explanation/cost.md)
has the counts behind them. Figures of one table compare; those of two, of other machines or days, may not.
"""
_TITLES = (
    (r"gpu-(.+)-(\d{4}-\d\d-\d\d)", "On a GPU: {0}, {1}"),
    (r"ranks-(.+)-(\d{4}-\d\d-\d\d)", "On several ranks: {1}"),
    (r"hundred_million-(.+)-(\d{4}-\d\d-\d\d)", "100 million rows from a disk: {1}"),
)


def write_results_pages(docs: Path) -> None:
    """Write docs/results/speed.md."""
    write_if_new(docs / "results" / "speed.md", speed_page(ROOT / "benchmarks" / "results"))


def speed_page(folder: Path) -> str:
    """Return the page of the tables in a folder, each under a title made of its file's name."""
    tables = sorted(folder.glob("*.md"), key=lambda path: [_place(path.stem), path.stem])
    parts = [f"## {title_of(table.stem)}\n\n{table.read_text(encoding='utf-8').strip()}" for table in tables]
    return "\n\n".join([_INTRODUCTION.strip(), *parts]) + "\n"


def title_of(name: str) -> str:
    """Return the title of a table by its file's name.

    Example:
        >>> title_of("gpu-nvidia-h200-2026-11-27")
        'On a GPU: NVIDIA H200, 2026-11-27'
    """
    for pattern, title in _TITLES:
        found = re.fullmatch(pattern, name)
        if found:
            return title.format(found[1].replace("-", " ").upper(), *found.groups()[1:])
    return name.replace("-", " ").replace("_", " ").capitalize()


def _place(name: str) -> int:
    return next((place for place, (pattern, _) in enumerate(_TITLES) if re.fullmatch(pattern, name)), len(_TITLES))
