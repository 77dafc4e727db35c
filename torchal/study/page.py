"""A page of what many runs come to: curves, tables, who beats whom, what it takes, and what was picked."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from torchal._records import write_atomically
from torchal.errors import DataError
from torchal.report.markup import clean, escape, name, plural
from torchal.report.shell import begin
from torchal.report.shell import warnings as warned
from torchal.study.answer import answer
from torchal.study.looks import Look, common_baseline, looks, sampler_order, swatches
from torchal.study.numbers import probability
from torchal.study.page_data import AXES, as_script_text, pack
from torchal.study.page_picks import picked_section
from torchal.study.page_script import SCRIPT
from torchal.study.page_style import CSS
from torchal.study.page_tables import (
    VERDICTS,
    brief,
    cost_table,
    penalty_table,
    results_table,
    sampler_name,
    wins_tables,
)
from torchal.study.summary import Summary
from torchal.study.svg import SHADED, critical_difference_svg, curves_svg

_FIRST = 5  # problems that are said at once


def write_page(path: str | PathLike[str], summary: Summary) -> None:
    """Write a report as one HTML file that needs no other and no network.

    Texts and names are shown as text, whatever is in them. It has light and dark colours, goes down to the width of a
    telephone, and can be printed. A sampler has the same colour, dash and marker everywhere. A script inside redraws
    the curves for another metric or axis, hides samplers, reads values at the mouse or by the arrow keys, sorts and
    filters; without scripts the page shows the main metric against labels, and all tables. The same summary makes the
    same bytes.

    50 experiments of 20 samplers with 20 places in each curve, 3 metrics and 3 axes make less than 5 MB.

    Args:
        path: the file to write; folders on the way are made.
        summary: what is reported.

    Raises:
        DataError: the summary contradicts itself: curves whose arrays differ in length, an entry under another name,
            a picture that is no `data:image/` address, classes without names.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> nothing = Summary("Digits", "", "", [], [], [], {}, None, None, [], ["runs/a"], [], [], [])
        >>> with tempfile.TemporaryDirectory() as there:
        ...     write_page(f"{there}/page.html", nothing)
        ...     "There is no run" in Path(there, "page.html").read_text()
        True
    """
    _check(summary)
    given = looks(sampler_order(summary), common_baseline(summary))
    runs = sum(entry.runs for one in summary.experiments for entry in one.entries.values())
    data = {}
    sections = {"made": ("How it was made", _made(summary))}
    if given and summary.metrics:
        data = {**pack(summary, given), "verdicts": [VERDICTS[sign] for sign in (-1, 0, 1)]}
        sections = {
            "curves": ("Learning curves", _curves(summary, given)),
            "table": ("Results", _table(summary, given)),
            "wins": ("Who is ahead of whom", _wins(summary, given)),
            "cost": ("Cost and seconds", _costs(summary, given)),
            "picked": ("What was picked", _picked(summary, given)),
            **sections,
        }
    sections = {key: (title, inside) for key, (title, inside) in sections.items() if inside}
    contents = "".join(f'<li><a href="#{key}">{title}</a></li>' for key, (title, _) in sections.items())
    parts = [
        begin(summary.title, css=CSS, script=SCRIPT, skip=("main", "To the results")),
        swatches(given),
        f'<header><h1>{name(summary.title)}</h1><p class="answer">{answer(summary, quote=_quote)}</p>'
        f'<p class="lead">{plural(len(summary.experiments), "experiment")}, {plural(len(given), "sampler")}, '
        f"{plural(runs, 'finished run')}. Written {escape(summary.written)}.</p>"
        f'<nav aria-label="On this page"><ul>{contents}</ul></nav></header>',
        '<main id="main">',
        warned(_first_of_all(summary)),
        *(
            f'<section class="card {key}" id="{key}"><h2 id="{key}-title">{title}</h2>{inside}</section>'
            for key, (title, inside) in sections.items()
        ),
        '</main><div id="tip" hidden></div><div id="live" class="unseen" aria-live="polite"></div>',
        "<footer><p>Written by torchal. This page is whole in itself and fetches nothing.</p></footer>",
        f'<script type="application/json" id="data">{as_script_text(data)}</script>' if data else "",
        "</body></html>\n",
    ]
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, "\n".join(part for part in parts if part).encode("utf-8"))


def _quote(text: str) -> str:
    return brief(text, 60)


def _check(summary: Summary) -> None:
    """Refuse what the page would draw wrongly."""
    for experiment in summary.experiments:
        n_classes = len(experiment.class_names)
        if experiment.pool_classes is not None and len(experiment.pool_classes) != n_classes:
            raise DataError(
                f"{experiment.folder}: pool_classes must be of {n_classes} classes, got {len(experiment.pool_classes)}"
            )
        for sampler, entry in experiment.entries.items():
            where = f"{experiment.folder}, {sampler}"
            if entry.sampler != sampler:
                raise DataError(f"{where}: the entry must be of that sampler, got one of {entry.sampler!r}")
            for metric, bands in entry.curves.items():
                for axis, band in bands.items():
                    sizes = [len(side) for side in (band.x, band.mean, band.lower, band.upper)]
                    if len(set(sizes)) > 1:
                        raise DataError(
                            f"{where}: the curve of {metric} against {axis} must have equally many x, mean, lower and "
                            f"upper, got {', '.join(map(str, sizes))}"
                        )
            if len(entry.classes) != len(entry.class_labels):
                raise DataError(
                    f"{where}: classes must be of as many rounds as class_labels, got {len(entry.classes)} and "
                    f"{len(entry.class_labels)}"
                )
            for counts in entry.classes:
                if len(counts) != n_classes:
                    raise DataError(f"{where}: classes must be of {n_classes} classes, got {len(counts)}")
            for row in (*entry.first, *entry.last):
                if row.picture is not None and not row.picture.startswith("data:image/"):
                    raise DataError(f"{where}: a picture must be a data:image/ address, got {row.picture[:40]!r}")


def _first_of_all(summary: Summary) -> list[str]:
    items = [f"{name(one.folder)} could not be read: {name(one.why)}" for one in summary.problems[:_FIRST]]
    if len(summary.problems) > _FIRST:
        items.append(f"{plural(len(summary.problems) - _FIRST, 'further folder')} could not be read")
    n = max(summary.n_unfinished, len(summary.unfinished))
    if n:
        items.append(
            f"{plural(n, 'run')} {'is' if n == 1 else 'are'} not finished, and no mean of the results has "
            f"{'it' if n == 1 else 'them'}{_for_example(summary.unfinished)}"
        )
    if summary.missing:
        items.append(f"Not all samplers have the same runs{_for_example(summary.missing)}")
    return [
        f'{item}. <a href="#made">All of it</a>' if place == len(items) - 1 else item
        for place, item in enumerate(items)
    ]


def _for_example(found: Sequence[str]) -> str:
    if not found:
        return ""
    return f": {name(found[0])}" + (f", and {plural(len(found) - 1, 'other')}" if len(found) > 1 else "")


def _menu(label: str, options: Sequence[tuple[str, str]], attributes: str) -> str:
    """Return a menu; nothing where there is no choice."""
    if len(options) < 2:
        return ""
    inside = "".join(f'<option value="{value}">{escape(text)}</option>' for value, text in options)
    return f"<label>{label}<select {attributes}>{inside}</select></label>"


def _metric_menu(summary: Summary) -> str:
    return _menu("Metric", [(str(k), one) for k, one in enumerate(summary.metrics)], 'data-control="metric"')


def _controls(*parts: str) -> str:
    inside = "".join(parts)
    return f'<div class="controls" hidden>{inside}</div>' if inside else ""


def _curves(summary: Summary, given: dict[str, Look]) -> str:
    drawn = {
        axis
        for one in summary.experiments
        for entry in one.entries.values()
        for bands in entry.curves.values()
        for axis in bands
    }
    axes = [(str(place), axis) for place, axis in enumerate(AXES) if axis in drawn]
    compared = any(one.baseline in one.entries and len(one.entries) > 1 for one in summary.experiments)
    figures = []
    for place, experiment in enumerate(summary.experiments):
        bands = {
            sampler: experiment.entries[sampler].curves[summary.metric]["labels"]
            for sampler in given
            if sampler in experiment.entries and "labels" in experiment.entries[sampler].curves.get(summary.metric, {})
        }
        picture = curves_svg(bands, given, metric=summary.metric, axis="labels", level=experiment.full_data)
        figures.append(
            f'<figure class="chart" data-e="{place}"><figcaption>{brief(experiment.name, 60)}</figcaption>'
            f'<div class="plot">{picture}</div></figure>'
        )
    legend = "".join(sampler_name(sampler, given) for sampler in given)
    if any(experiment.full_data is not None for experiment in summary.experiments):
        legend += (
            '<span class="level-key"><svg width="26" height="12" aria-hidden="true">'
            '<path class="level" d="M1 6H25"/></svg>all training data</span>'
        )
    shade = "There are no intervals, for there is one run of each."
    if _has_bands(summary):
        few = f"; they are drawn where at most {SHADED} samplers are shown" if len(given) > SHADED else ""
        shade = f"Bands are 95&nbsp;% intervals of the mean{few}."
    hint = (
        "A click on a sampler hides it everywhere, another shows it again. The mouse, a finger or, in a chart that has "
        "the focus, the arrow keys read values."
    )
    many = {1: " one", 2: " two", 4: " two"}.get(len(summary.experiments), "")
    return "".join(
        (
            f'<p class="quiet">The mean of the runs. {shade} Each chart has a vertical axis of its own, which fits the '
            "samplers that are shown.</p>",
            _controls(
                _metric_menu(summary),
                _menu("Against", axes, 'id="axis"'),
                _menu("Show", [("0", "values"), ("1", "difference to the baseline")], 'id="minus"') if compared else "",
            ),
            f'<div class="samplers" id="samplers" role="group" aria-label="Samplers">{legend}</div>',
            f'<p class="hint" hidden>{hint}</p>',
            f'<div class="charts{many}">{"".join(figures)}</div>',
        )
    )


def _has_bands(summary: Summary) -> bool:
    return any(
        end is not None
        for one in summary.experiments
        for entry in one.entries.values()
        for bands in entry.curves.values()
        for band in bands.values()
        for end in band.lower
    )


def _table(summary: Summary, given: dict[str, Look]) -> str:
    one = len(summary.experiments) == 1
    which = [("", "all"), *((str(place), each.name) for place, each in enumerate(summary.experiments))]
    kind = ' class="one-experiment"' if one else ""
    return "".join(
        (
            f'<p class="quiet">Values of <bdi class="metric-name">{escape(clean(summary.metric))}</bdi> in finished '
            "runs, with 95&nbsp;% intervals: at the end, and the area under the curve (its mean height). The area is "
            "compared with that of the experiment's baseline, over the seeds that both have; p is Holm's.</p>",
            _controls(
                _metric_menu(summary),
                "" if one else _menu("Experiment", which, 'id="which"'),
                '<label>Filter<input type="search" id="search" autocomplete="off"></label>',
                '<output id="count" aria-live="polite"></output>',
            ),
            f"<div{kind}>{results_table(summary, given)}</div>",
        )
    )


def _wins(summary: Summary, given: dict[str, Look]) -> str:
    parts = [
        '<p class="quiet">Over all experiments, paired by experiment and seed. In each cell: the difference, the '
        "p-value after Holm's correction, and wins / ties / losses of the row. ▲ and blue: the row is better, ▼ and "
        "orange: it is worse, at 5&nbsp;%.</p>",
        _controls(_metric_menu(summary)),
        wins_tables(summary, given),
    ]
    if summary.penalties is not None and summary.penalties.samplers:
        n = summary.penalties.experiments
        parts.append(
            '<h3 id="penalties-title">Penalty matrix</h3><p class="quiet">In how many of '
            f"{plural(n, 'experiment')} the row was ahead of the column: each gives the share of its rounds in which a "
            "paired t-test at 5&nbsp;% tells so. The lower the mean share of its column (of the experiments that have "
            "both), the more seldom a sampler is behind."
            f"</p>{penalty_table(summary.penalties, given)}"
        )
    return "".join((*parts, _ranks(summary)))


def _ranks(summary: Summary) -> str:
    title = f"<h3>Mean ranks by {name(summary.metric)}</h3>"
    ranking = summary.ranking
    if ranking is None:
        n, most = len(summary.experiments), max((len(one.entries) for one in summary.experiments), default=0)
        if n < 2:
            why = "ranks over several data sets need at least two experiments, and this is one"
        elif most < 2:
            why = "ranks need at least two samplers"
        else:
            why = "fewer than two experiments have finished runs of all samplers"
        return f'{title}<p class="quiet">There is no diagram of critical differences: {why}.</p>'
    left = ""
    if ranking.left_out:
        left = f" Left out, for they lack a sampler: {', '.join(map(name, ranking.left_out))}."
    told = (
        f"Friedman's test over {plural(ranking.blocks, 'experiment')}: {escape(probability(ranking.p)) or 'no p'}. "
        "A bar joins samplers whose mean ranks differ by less than the critical difference (Nemenyi, 5&nbsp;%)."
    )
    return (
        f'{title}<p class="quiet">{told}{left}</p><div class="wide" role="region" aria-label="Mean ranks" tabindex="0">'
        f"{critical_difference_svg(ranking)}</div>"
    )


def _costs(summary: Summary, given: dict[str, Look]) -> str:
    of = [("", "mean of all"), *((str(place), one.name) for place, one in enumerate(summary.experiments))]
    some = any(len(one.entries) < len(given) for one in summary.experiments)
    uneven = " Not all experiments have all samplers, so that means are not of the same experiments." if some else ""
    return "".join(
        (
            f'<p class="quiet">Of a run, the mean over runs{" and experiments" if len(of) > 2 else ""}.{uneven}</p>',
            _controls(_menu("Experiment", of, 'id="of"') if len(of) > 2 else ""),
            cost_table(summary, given),
        )
    )


def _picked(summary: Summary, given: dict[str, Look]) -> str:
    inside = picked_section(summary, given)
    if not inside:
        return ""
    return "".join(
        (
            '<p class="quiet">The stronger the blue, the larger is the share of a class among the labels bought '
            "by then; beside it, its share of the pool.</p>",
            inside,
        )
    )


def _made(summary: Summary) -> str:
    parts = []
    for title, items in (
        ("Notes", summary.notes),
        ("Versions", summary.versions),
        ("Folders that could not be read", [f"{one.folder}: {one.why}" for one in summary.problems]),
        ("Unfinished runs", summary.unfinished),
        ("Missing runs", summary.missing),
    ):
        if items:
            listed = "".join(f"<li>{name(item)}</li>" for item in items)
            scroll = ' class="long" tabindex="0"' if len(items) > 12 else ""
            parts.append(f"<h3>{title}</h3><ul{scroll}>{listed}</ul>")
    if summary.command:
        parts.append(f'<h3>Command</h3><pre tabindex="0"><code>{escape(summary.command)}</code></pre>')
    return "".join(parts)
