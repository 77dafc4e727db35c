"""Write all forms of a report into a folder."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from torchal._records import write_atomically
from torchal.errors import ConfigError
from torchal.study.csv_files import comparisons_csv, curves_csv, results_csv
from torchal.study.latex import latex
from torchal.study.markdown import markdown
from torchal.study.page import write_page
from torchal.study.summary import Summary

FORMS = ("html", "md", "csv", "tex", "charts")
"""What a report can be written as."""


def write_report(summary: Summary, folder: str | PathLike[str], *, forms: Sequence[str] = FORMS) -> list[Path]:
    """Write a summary as a page, as Markdown, as CSV files, as LaTeX, and as charts (PNG, SVG, PDF).

    Args:
        summary: what they say.
        folder: where to; made if it is not there. What a report of before wrote is written over.
        forms: some of html, md, csv, tex, charts.

    Returns:
        The files, the page first: `report.html`, `report.md`, `results.csv`, `curves.csv`, `comparisons.csv`,
        `tables.tex`, and the charts `curves`, `seconds`, `comparisons` and `ranks`, where there are two to compare.

    Raises:
        ConfigError: a form is none of these.
        MissingExtraError: charts are wanted, and matplotlib is not installed.
        OSError: a file cannot be written.
    """
    unknown = [form for form in forms if form not in FORMS]
    if unknown or not forms:
        raise ConfigError(
            f"a report is written as {', '.join(FORMS)}; got {', '.join(map(repr, unknown)) or 'nothing'}"
        )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    pictures: dict[str, Path] = {}
    written: list[Path] = []
    if "charts" in forms:
        from torchal.study.charts import write_charts

        pictures = write_charts(summary, target)
    texts = {
        "md": {"report.md": lambda: markdown(summary, pictures={what: file.name for what, file in pictures.items()})},
        "csv": {
            "results.csv": lambda: results_csv(summary),
            "curves.csv": lambda: curves_csv(summary),
            "comparisons.csv": lambda: comparisons_csv(summary),
        },
        "tex": {"tables.tex": lambda: latex(summary)},
    }
    if "html" in forms:
        write_page(target / "report.html", summary)
        written.append(target / "report.html")
    for form, files in texts.items():
        if form in forms:
            for name, text in files.items():
                write_atomically(target / name, text().encode("utf-8"))
                written.append(target / name)
    return [*written, *pictures.values()]
