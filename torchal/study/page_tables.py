"""The tables of a report's page: results, who beats whom, and what it takes."""

from __future__ import annotations

from torchal.report.markup import escape, name, plural
from torchal.study.looks import Look, swatch
from torchal.study.numbers import NOTHING, amount, decimal, interval, is_number, probability, signed
from torchal.study.page_data import phases, table_numbers, table_order
from torchal.study.summary import Comparison, Entry, Estimate, ExperimentSummary, Penalties, Reached, Summary
from torchal.study.svg import shorten

_HEADS = (
    ("Experiment", ""),
    ("Sampler", ""),
    ("Runs", "number"),
    ("Labels", "number"),
    ("Final", "number"),
    ("Area", "number"),
    ("Area minus<br>baseline", "number"),
    ("Verdict", "number"),
    ("Labels to<br>target", "number"),
    ("Cost", "number"),
    ("Seconds", "number"),
)
_LETTERS = 24  # of a sampler's name,
_LETTERS_OF_HEAD = 14  # and at the head of a column
VERDICTS = {1: "▲ better", 0: f"{NOTHING} not significant", -1: "▼ worse"}


def brief(text: str, letters: int) -> str:
    """Return a name of at most so many letters as an element, which tells it whole."""
    short = shorten(text, letters)
    told = "" if short == text else f' title="{escape(text)}"'
    return f"<bdi{told}>{escape(short)}</bdi>"


def sampler_name(sampler: str, looks: dict[str, Look]) -> str:
    """Return a sampler's name beside a piece of its line."""
    drawn = swatch(list(looks).index(sampler), looks[sampler])
    return f'<span class="sampler">{drawn}{brief(sampler, _LETTERS)}</span>'


def results_table(summary: Summary, looks: dict[str, Look]) -> str:
    """Return a row for each sampler of each experiment, with the values of the main metric."""
    places = {sampler: place for place, sampler in enumerate(looks)}
    heads = "".join(f'<th scope="col"{_kind(kind)}>{title}</th>' for title, kind in _HEADS)
    rows = []
    for number, experiment in enumerate(summary.experiments):
        for entry in table_order(experiment):
            cells = [
                f"<td>{brief(experiment.name, _LETTERS)}</td>",
                f'<th scope="row">{sampler_name(entry.sampler, looks)}</th>',
                _runs(entry),
                _number(entry.labels, amount(entry.labels)),
                *_metric_cells(table_numbers(entry, summary.metric), is_baseline=entry.sampler == experiment.baseline),
                _reached(entry.reached),
                _number(entry.cost, amount(entry.cost)),
                _number(sum(entry.seconds.values()) if entry.seconds else None, None),
            ]
            base = " data-baseline" if entry.sampler == experiment.baseline else ""
            rows.append(f'<tr data-e="{number}" data-s="{places[entry.sampler]}"{base}>{"".join(cells)}</tr>')
    return (
        '<div class="box" role="region" aria-labelledby="table-title" tabindex="0"><table class="sheet results">'
        '<caption class="unseen">A row for each sampler of each experiment</caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _kind(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _number(value: float | None, text: str | None) -> str:
    if not is_number(value):
        return f'<td data-v="">{NOTHING}</td>'
    return f'<td data-v="{value:.6g}">{amount(value) if text is None else text}</td>'


def _runs(entry: Entry) -> str:
    going = f"<small>{entry.unfinished} unfinished</small>" if entry.unfinished else ""
    return f'<td data-v="{entry.runs}">{entry.runs}{going}</td>'


def _metric_cells(numbers: list[float | None], *, is_baseline: bool) -> list[str]:
    """Return the cells that hang on the metric, as the page's script writes them too."""
    cells = []
    for first, write in ((0, decimal), (3, decimal), (6, signed)):
        mean, lower, upper = numbers[first : first + 3]
        band = interval(Estimate(mean or 0.0, lower, upper), write)
        small = f"<small>{band}</small>" if band else ""
        cells.append(f"<td>{write(mean)}{small}</td>")
    p, verdict = numbers[9:]
    if verdict is None:
        text = '<span class="quiet">baseline</span>' if is_baseline else NOTHING
        return [*cells, f'<td class="verdict">{text}</td>']
    words = VERDICTS[int(verdict)] if is_number(p) else "not tested"
    small = f"<small>{escape(probability(p))}</small>" if is_number(p) else ""
    return [*cells, f'<td class="verdict v{int(verdict)}"><b>{words}</b>{small}</td>']


def _reached(reached: Reached | None) -> str:
    if reached is None:
        return f'<td data-v="">{NOTHING}</td>'
    value = "" if reached.median is None else f"{reached.median:.6g}"
    return (
        f'<td data-v="{value}">{amount(reached.median)}'
        f"<small>{reached.reached} of {reached.runs} to {decimal(reached.target)}</small></td>"
    )


def wins_tables(summary: Summary, looks: dict[str, Look]) -> str:
    """Return a matrix of comparisons for each metric that has any, row minus column."""
    parts = []
    for place, metric in enumerate(summary.metrics):
        pairs = summary.comparisons.get(metric, [])
        title = f'<h3 id="wins-{place}">Difference in area of {name(metric)}, row minus column</h3>'
        if pairs:
            body = _matrix(pairs, looks, f"wins-{place}")
        else:
            body = (
                f'<p class="quiet">No two samplers are compared by {name(metric)}: it takes two with paired runs.</p>'
            )
        parts.append(f'<div class="of-metric" data-m="{place}">{title}{body}</div>')
    return "".join(parts)


def _matrix(pairs: list[Comparison], looks: dict[str, Look], label: str) -> str:
    cells: dict[tuple[str, str], str] = {}
    for one in pairs:
        mean, lower, upper = one.difference.mean, one.difference.lower, one.difference.upper
        turned = Estimate(-mean, None if upper is None else -upper, None if lower is None else -lower)
        cells[one.a, one.b] = _pair(one.difference, one, one.verdict, (one.wins, one.ties, one.losses))
        cells[one.b, one.a] = _pair(turned, one, -one.verdict, (one.losses, one.ties, one.wins))
    names = [sampler for sampler in looks if any(sampler in (one.a, one.b) for one in pairs)]
    places = {sampler: place for place, sampler in enumerate(looks)}
    rows = []
    for row in names:
        inside = []
        for column in names:
            kind, content = ("same", "") if row == column else ("none", NOTHING)
            if (row, column) in cells:
                kind, content = cells[row, column].split("|", 1)
            inside.append(f'<td class="{kind}" data-c="{places[column]}">{content}</td>')
        head = f'<th scope="row">{sampler_name(row, looks)}</th>'
        rows.append(f'<tr data-s="{places[row]}">{head}{"".join(inside)}</tr>')
    return _square(names, looks, rows, label)


def _pair(difference: Estimate, one: Comparison, verdict: int, counts: tuple[int, int, int]) -> str:
    """Return the class of a cell and what is in it."""
    sign = {1: "▲ ", -1: "▼ "}.get(verdict, "")
    band = interval(difference, signed)
    told = f"{plural(one.pairs, 'pair')}{f', 95&nbsp;% {band}' if band else ''}"
    wins, ties, losses = counts
    p = escape(probability(one.p_holm)) or "not tested"
    return (
        f'v{verdict}|<span title="{told}">{sign}{signed(difference.mean)}</span>'
        f"<small>{p}</small><small>{wins} / {ties} / {losses}</small>"
    )


def _square(names: list[str], looks: dict[str, Look], rows: list[str], label: str) -> str:
    places = {sampler: place for place, sampler in enumerate(looks)}
    heads = "".join(
        f'<th scope="col" data-c="{places[sampler]}">{brief(sampler, _LETTERS_OF_HEAD)}</th>' for sampler in names
    )
    return (
        f'<div class="box" role="region" aria-labelledby="{label}" tabindex="0"><table class="sheet matrix">'
        f'<thead><tr><th scope="col"><span class="unseen">Sampler</span></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def penalty_table(penalties: Penalties, looks: dict[str, Look]) -> str:
    """Return the penalty matrix; the darker a cell, the more often the row is ahead of the column."""
    places = {sampler: place for place, sampler in enumerate(looks)}
    at = {sampler: place for place, sampler in enumerate(penalties.samplers)}
    names = [sampler for sampler in looks if sampler in at]
    shares = penalties.shares()
    rows = []
    for sampler in names:
        inside = []
        for other in names:
            value = penalties.matrix[at[sampler]][at[other]]
            if sampler == other:
                inside.append(f'<td class="same" data-c="{places[other]}"></td>')
                continue
            share = shares[at[sampler]][at[other]]
            if share is None:
                inside.append(f'<td data-c="{places[other]}">{NOTHING}</td>')
                continue
            inside.append(
                f'<td class="shade" data-c="{places[other]}" style="--share:{min(1.0, share):.2f}">'
                f"{f'{value:.2f}' if is_number(value) else NOTHING}</td>"
            )
        head = f'<th scope="row">{sampler_name(sampler, looks)}</th>'
        rows.append(f'<tr data-s="{places[sampler]}">{head}{"".join(inside)}</tr>')
    means = []
    for other in names:
        known = [shares[at[sampler]][at[other]] for sampler in names if sampler != other]
        values = [share for share in known if share is not None]
        mean = sum(values) / len(values) if values else 0.0
        means.append(f'<td class="mean" data-c="{places[other]}">{mean:.2f}</td>')
    rows.append(f'<tr class="means"><th scope="row">mean share of the column</th>{"".join(means)}</tr>')
    return _square(names, looks, rows, "penalties-title")


def cost_table(summary: Summary, looks: dict[str, Look]) -> str:
    """Return seconds by phase, labels and cost of a run of each sampler, averaged over the experiments that have it."""
    places = {sampler: place for place, sampler in enumerate(looks)}
    steps = phases(summary)
    rows = []
    means = {sampler: _means(summary.experiments, sampler, steps) for sampler in looks}
    longest = max((sum(seconds) for seconds, _, _ in means.values()), default=0.0) or 1.0
    for sampler, (seconds, labels, cost) in means.items():
        bars = "".join(
            f'<span class="p{place % 6}" style="width:{100 * value / longest:.2f}%"></span>'
            for place, value in enumerate(seconds)
        )
        numbers = "".join(
            f"<td>{amount(value)}</td>" for value in (sum(seconds) if steps else None, *seconds, labels, cost)
        )
        rows.append(
            f'<tr data-s="{places[sampler]}"><th scope="row">{sampler_name(sampler, looks)}</th>'
            f'<td class="bars"><span class="track">{bars}</span></td>{numbers}</tr>'
        )
    heads = "".join(
        f'<th scope="col" class="number"><span class="key p{place % 6}"></span>{name(step)}</th>'
        for place, step in enumerate(steps)
    )
    return (
        '<div class="box" role="region" aria-labelledby="cost-title" tabindex="0"><table class="sheet costs">'
        '<caption class="unseen">Seconds of a run by phase, labels and cost</caption>'
        '<thead><tr><th scope="col">Sampler</th><th scope="col" class="bars">Seconds by phase</th>'
        f'<th scope="col" class="number">All</th>{heads}<th scope="col" class="number">Labels</th>'
        f'<th scope="col" class="number">Cost</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _means(
    experiments: list[ExperimentSummary], sampler: str, steps: list[str]
) -> tuple[list[float], float | None, float | None]:
    entries = [one.entries[sampler] for one in experiments if sampler in one.entries]

    def mean(values: list[float]) -> float | None:
        known = [value for value in values if is_number(value)]
        return sum(known) / len(known) if known else None

    seconds = [mean([entry.seconds.get(step, 0.0) for entry in entries]) or 0.0 for step in steps]
    return seconds, mean([entry.labels for entry in entries]), mean([entry.cost for entry in entries])
