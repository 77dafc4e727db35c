"""What was picked, as a part of a report's page: the balance of the classes, and the first and last rows."""

from __future__ import annotations

from torchal.report.markup import clean, escape, name, percent, plural
from torchal.study.looks import Look
from torchal.study.numbers import decimal
from torchal.study.page_data import rounds, shown_classes, table_order
from torchal.study.page_tables import brief, sampler_name
from torchal.study.summary import Entry, Example, ExperimentSummary, Summary

_SHORT = 160  # letters of a text
_TINY = 64  # pixels; pictures with fewer are shown with square ones


def picked_section(summary: Summary, looks: dict[str, Look]) -> str:
    """Return for each experiment that says what was picked a part that opens; the first is open."""
    parts: list[str] = []
    for place, experiment in enumerate(summary.experiments):
        entries = [
            entry
            for entry in table_order(experiment)
            if entry.classes or entry.first or entry.last or entry.sole is not None
        ]
        if not entries:
            continue
        table = _shares_table(experiment, entries, looks)
        blocks = "".join(_block(entry, looks) for entry in entries)
        opened = "" if parts else " open"
        parts.append(
            f'<details class="of-experiment" data-e="{place}"{opened}><summary>{brief(experiment.name, 90)}</summary>'
            f'<div class="picks">{blocks}</div>{table}</details>'
        )
    return "".join(parts)


def _says_something(entry: Entry) -> bool:
    return bool(entry.classes or entry.first or entry.last) or entry.sole is not None


def _block(entry: Entry, looks: dict[str, Look]) -> str:
    place = list(looks).index(entry.sampler)
    heat = '<div class="heat"></div>' if entry.classes else ""
    first, last = (_batch(title, rows) for title, rows in (("First batch", entry.first), ("Last batch", entry.last)))
    title = sampler_name(entry.sampler, looks)
    return f'<section class="pick" data-s="{place}"><h3>{title}</h3>{_told(entry)}{heat}{first}{last}</section>'


def _told(entry: Entry) -> str:
    """Return what the picks are like in figures."""
    said = []
    if entry.sole is not None:
        said.append(f"{percent(entry.sole)} of its rows no other sampler picked")
    if entry.divergence is not None:
        said.append(f"its classes are {decimal(entry.divergence)} nats from the pool&#x27;s")
    return f'<p class="quiet legend">{"; ".join(said)}.</p>' if said else ""


def _batch(title: str, rows: list[Example]) -> str:
    if not rows:
        return ""
    kind = "texts" if any(row.text is not None for row in rows) else "pictures"
    items = "".join(f"<li>{_example(row)}</li>" for row in rows)
    beside = f' style="--n:{min(8, max(5, len(rows)))}"' if kind == "pictures" else ""
    return f'<h4>{title}</h4><ul class="{kind}"{beside}>{items}</ul>'


def _example(row: Example) -> str:
    if row.picture is not None:
        tiny = ' class="tiny"' if max(row.width, row.height) <= _TINY else ""
        size = f' width="{row.width}" height="{row.height}"' if row.width and row.height else ""
        return f'<img{tiny} src="{escape(row.picture)}"{size} alt=""><small>{name(row.label)}</small>'
    text = clean(row.text or "")
    if len(text) > _SHORT:
        text = text[:_SHORT].rstrip() + " …"
    return f'<span class="text" dir="auto">{escape(text)}</span><small>{name(row.label)}</small>'


def _shares_table(experiment: ExperimentSummary, entries: list[Entry], looks: dict[str, Look]) -> str:
    """Return the classes' shares of the labels after the last round, in percent, beside the pool's."""
    counted = [entry for entry in entries if entry.classes]
    if not counted:
        return ""
    shown, n_others = shown_classes(experiment)
    names = [experiment.class_names[place] for place in shown]
    heads = "".join(f'<th scope="col" class="number">{brief(one, 14)}</th>' for one in names)
    if n_others:
        heads += f'<th scope="col" class="number">{plural(n_others, "other")}</th>'
    rows = []
    if experiment.pool_classes is not None:
        total = sum(experiment.pool_classes) or 1
        kept = [experiment.pool_classes[place] for place in shown]
        shares = [count / total for count in kept + ([total - sum(kept)] if n_others else [])]
        rows.append(f'<tr><th scope="row">the pool</th><td>{total:,}</td>{_percents(shares)}</tr>')
    places = {sampler: place for place, sampler in enumerate(looks)}
    for entry in counted:
        labels, *shares = rounds(entry, shown, n_others)[-1]
        rows.append(
            f'<tr data-s="{places[entry.sampler]}"><th scope="row">{sampler_name(entry.sampler, looks)}'
            f"</th><td>{labels:,.0f}</td>{_percents([share / 1000 for share in shares])}</tr>"
        )
    told = escape(f"Shares of the classes, {experiment.name}")
    return (
        "<details><summary>The classes' shares after the last round in percent</summary>"
        f'<div class="box" role="region" aria-label="{told}" tabindex="0"><table class="sheet shares">'
        f'<thead><tr><th scope="col">Sampler</th><th scope="col" class="number">Rows</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _percents(shares: list[float]) -> str:
    return "".join(f"<td>{100 * share:.1f}</td>" for share in shares)
