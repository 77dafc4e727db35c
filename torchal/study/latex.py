"""A summary as tables in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torchal.study.numbers import MINUS, p_value
from torchal.study.summary import Comparison, Entry, ExperimentSummary, Summary
from torchal.study.words import difference, estimated, reached


def latex(summary: Summary) -> str:
    """Return a table for each experiment and one of all comparisons, for the package booktabs.

    Names stay as they are: those beyond Latin letters need LuaLaTeX or XeLaTeX, and a font that has them.
    """
    metric = summary.metric
    parts = ["% \\usepackage{booktabs}"]
    parts += [_experiment(one, metric) for one in summary.experiments]
    found = summary.comparisons.get(metric, [])
    if found:
        heads = ["A", "B", "Pairs", "A minus B", "p (Holm)", "Won / equal / lost"]
        rows = [
            [
                _tex(one.a),
                _tex(one.b),
                str(one.pairs),
                _tex_signed(one),
                _tex(p_value(one.p_holm)),
                f"{one.wins} / {one.ties} / {one.losses}",
            ]
            for one in found
        ]
        caption = f"Difference in the area of {metric} over pairs of the same experiment and seed."
        parts.append(_latex_table(heads, rows, caption))
    return "\n\n".join(parts) + "\n"


def _experiment(experiment: ExperimentSummary, metric: str) -> str:
    heads = ["Sampler", "Runs", f"Final {metric}", "Area", "Labels to target", "Seconds"]
    rows = [_latex_cells(name, experiment.entries[name], metric) for name in experiment.ordered]
    caption = f"{experiment.name}. Means with 95 % intervals."
    against = experiment.baseline
    if against is not None:
        heads.insert(4, f"Area minus {against}")
        for name, row in zip(experiment.ordered, rows, strict=True):
            found = experiment.entries[name].against.get(metric)
            row.insert(4, _tex_signed(found) if found else "")
        caption += f" Bold is better than {against} and italic worse (paired t-test, Holm, 5 %)."
    if experiment.full_data is not None:
        caption += f" With all training data: {experiment.full_data:.4f}."
    return _latex_table(heads, rows, caption)


def _latex_cells(sampler: str, entry: Entry, metric: str) -> list[str]:
    return [
        _tex(sampler),
        str(entry.runs),
        _tex(estimated(entry.final.get(metric))),
        _tex(estimated(entry.area.get(metric))),
        _tex(reached(entry.reached)),
        f"{sum(entry.seconds.values()):.2f}",
    ]


def _tex_signed(found: Comparison) -> str:
    """Return the difference in the font that says which is better."""
    font = {1: r"\mathbf", -1: r"\mathit", 0: r"\mathrm"}[found.verdict]
    return f"${font}{{{difference(found.difference).replace(MINUS, '-')}}}$".replace(" [", r"\;[").replace(", ", r",\,")


def _latex_table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    lines = [" & ".join(row) + r" \\" for row in rows]
    head = " & ".join(map(_tex, heads)) + r" \\"
    columns = "l" + "r" * (len(heads) - 1)
    body = "\n".join([r"\toprule", head, r"\midrule", *lines, r"\bottomrule"])
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{_tex(caption)}}}\n\\begin{{tabular}}{{{columns}}}\n{body}\n"
        "\\end{tabular}\n\\end{table}"
    )


_TEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "—": "---",
    MINUS: "$-$",
} | {sign: "\\" + sign for sign in "&%$#_{}"}


def _tex(text: str) -> str:
    """Return a text as LaTeX shows it: letters beyond what a font has are the writer's business."""
    shown = "".join(_TEX.get(letter, letter) for letter in re.sub(r"\s+", " ", text))
    return "{[}" + shown[1:] if shown.startswith("[") else shown  # which after the end of a row is a setting of it
