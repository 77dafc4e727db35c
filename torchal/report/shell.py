"""What all pages share: that they fetch nothing, how they look, and how their tables are sorted."""

from __future__ import annotations

from torchal.report.markup import escape

# Nothing is fetched, whatever is in a row: the pictures are in the page, and so is the one script.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def begin(title: str, *, css: str, script: str, skip: tuple[str, str]) -> str:
    """Return a page's beginning up to what is seen first: a link past the head, by the id of its target and its text.

    Example:
        >>> begin("A <b>", css="", script="", skip=("rows", "To the rows")).splitlines()[8]
        '<title>A &lt;b&gt;</title>'
    """
    target, text = skip
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n<script>\n{script}</script>\n</head>\n<body>\n"
        f'<a class="skip" href="#{target}">{text}</a>\n'
    )


def warnings(items: list[str]) -> str:
    """Return the box of what the reader should know first, or nothing; the items are HTML."""
    if not items:
        return ""
    listed = "".join(f"<li>{item}</li>" for item in items)
    return f'<section class="card warnings"><h2>To know first</h2><ul>{listed}</ul></section>'


BASE_CSS = """\
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --edge: #dfe3e8; --text: #1c2026; --quiet: #59616d;
  --accent: #0b5fa5; --mine: #0072b2; --guess: #8a94a3; --track: #eceff3; --stripe: #f8f9fb;
  --warn-ground: #fff6e0; --warn-edge: #e0b13c; --warn-text: #533c00; --tick: #b3400a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #121418; --card: #181b20; --edge: #32373f; --text: #e9ebef; --quiet: #a6adb8;
    --accent: #7cc0f5; --mine: #3f9fdc; --guess: #727b89; --track: #262a31; --stripe: #1d2026;
    --warn-ground: #2e2610; --warn-edge: #8a6d1f; --warn-text: #f5e3b0; --tick: #ff9a63;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif;
}
body > * { max-width: 1200px; margin-inline: auto; padding-inline: 24px; }
header { padding-block: 32px 8px; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { margin: 0 0 12px; font-size: 1.1rem; line-height: 1.3; }
p { margin: 0 0 8px; max-width: 75ch; overflow-wrap: anywhere; }
.lead { margin-top: 6px; color: var(--quiet); }
.quiet, small { color: var(--quiet); }
small { font-size: 0.85em; }
a { color: var(--accent); }
a.skip { position: absolute; left: -9999px; }
a.skip:focus { left: 16px; top: 16px; width: auto; padding: 8px 12px; background: var(--card); z-index: 9; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.card {
  margin-block: 16px; padding: 20px 24px; background: var(--card); border: 1px solid var(--edge);
  border-radius: 12px; min-width: 0;
}
.warnings { background: var(--warn-ground); border-color: var(--warn-edge); color: var(--warn-text); }
.warnings ul, .notes ul { margin: 0; padding-left: 1.2em; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 16px; margin: 16px 0; }
.tiles div { padding: 14px 18px; background: var(--card); border: 1px solid var(--edge); border-radius: 12px; }
.tiles dt { color: var(--quiet); font-size: 0.9rem; }
.tiles dd { margin: 0; font-size: 1.7rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.columns { display: grid; grid-template-columns: minmax(0, 1fr); gap: 16px; align-items: start; }
.columns .card { margin: 0; }
.columns > .stack { display: grid; gap: 16px; min-width: 0; }
@media (min-width: 960px) { .columns.two { grid-template-columns: minmax(0, 1.75fr) minmax(0, 1fr); } }
figure { margin: 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.93rem; }
th { text-align: left; font-weight: 600; }
.controls { display: flex; flex-wrap: wrap; gap: 10px 20px; align-items: end; margin-bottom: 12px; }
.controls label { display: grid; gap: 2px; font-size: 0.85rem; color: var(--quiet); }
.controls input, .controls select {
  font: inherit; color: var(--text); background: var(--card); border: 1px solid var(--quiet); border-radius: 8px;
  padding: 6px 10px; min-width: 0; max-width: 100%;
}
.controls input[type="search"] { width: min(280px, 78vw); }
.controls select { width: auto; max-width: min(280px, 78vw); }
.controls output { margin-left: auto; color: var(--quiet); font-size: 0.9rem; }
.box {
  overflow: auto; max-height: max(480px, 88vh); border: 1px solid var(--edge); border-radius: 8px; position: relative;
}
.cell { display: flex; align-items: center; gap: 8px; }
.cell .track { flex: 1; min-width: 24px; }
.cell .count { min-width: 8.5ch; }
.track { display: block; height: 8px; border-radius: 4px; background: var(--track); overflow: hidden; }
.bar { display: block; height: 100%; border-radius: 4px; }
.count { font-size: 0.85rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
.sheet th, .sheet td {
  padding: 10px 14px; vertical-align: top; border-bottom: 1px solid var(--edge); text-align: left;
}
.sheet tbody tr:last-child > * { border-bottom: 0; }
.sheet thead th {
  position: sticky; top: 0; z-index: 2; background: var(--card); white-space: nowrap; font-size: 0.85rem;
  box-shadow: inset 0 -1px var(--edge); border-bottom: 0;
}
.sheet .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.sheet tbody th { font-weight: 600; color: var(--quiet); }
.sheet tbody tr:nth-child(even) { background: var(--stripe); }
.sheet button {
  all: unset; cursor: pointer; padding: 2px 0; font: inherit; border-radius: 4px; white-space: nowrap;
}
.sheet button::after { content: " \\2195"; color: var(--quiet); opacity: 0.75; }
.sheet [aria-sort="ascending"] button::after { content: " \\2191"; color: var(--accent); opacity: 1; }
.sheet [aria-sort="descending"] button::after { content: " \\2193"; color: var(--accent); opacity: 1; }
.sheet button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
details > summary { cursor: pointer; }
details[open] > summary .more { display: none; }
details > summary .more { color: var(--accent); white-space: nowrap; }
details[open] > summary .less { color: var(--quiet); }
details:not([open]) > summary .less { display: none; }
details[open] > summary .short { display: none; }
pre { margin: 0; padding: 12px 14px; overflow: auto; background: var(--track); border-radius: 8px; font-size: 0.88rem; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.notes h3 { margin: 16px 0 6px; font-size: 0.95rem; }
footer { padding-block: 8px 40px; color: var(--quiet); font-size: 0.85rem; }
@media (max-width: 600px) {
  body > * { padding-inline: 14px; }
  header { padding-top: 20px; }
  h1 { font-size: 1.45rem; }
  .card { padding: 14px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; }
  .tiles div { padding: 10px 14px; }
  .tiles dd { font-size: 1.35rem; }
  .sheet th, .sheet td { padding: 8px 10px; }
  .controls output { margin-left: 0; }
}
@media print {
  :root {
    color-scheme: light;
    --ground: #fff; --card: #fff; --edge: #ccc; --text: #000; --quiet: #444; --track: #eee; --stripe: #fff;
    --accent: #000; --mine: #0072b2; --guess: #888; --tick: #b3400a;
    --warn-ground: #fff; --warn-edge: #888; --warn-text: #000;
  }
  body { font-size: 10pt; }
  body > * { max-width: none; padding-inline: 0; }
  .card, .tiles div { border-color: #ccc; }
  .card { padding: 10px 0; border: 0; }
  .box { overflow: visible; max-height: none; border: 0; }
  .columns.two { grid-template-columns: minmax(0, 1fr); }
  .controls, a.skip { display: none; }
  .sheet { font-size: 8pt; }
  .sheet th, .sheet td { padding: 4px 6px; }
  .sheet thead th { position: static; white-space: normal; box-shadow: none; border-bottom: 1px solid #888; }
  .sheet button::after { content: none; }
  tr, figure, .tiles { break-inside: avoid; }
  h2 { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# Gives the heads of a table buttons that sort it; what is sorted is told before it is shown. Returns what sorts anew,
# for when values have changed. A click on a column of numbers sorts the largest first, but for the first column.
SORTING = """\
const sortable = (table, sorted) => {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const letters = new Intl.Collator("en", {numeric: true});
  const value = (row, column) => {
    const cell = row.cells[column], given = cell.dataset.v;
    return given === undefined ? cell.textContent.trim() : given;
  };
  const sort = (head, column, up) => {
    const numeric = head.classList.contains("number");
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = rows.map((row, place) => [value(row, column), place, row]);
    keyed.sort(([a, i], [b, j]) => {
      if (a === "" || b === "") return (a === "") - (b === "") || i - j;
      const first = numeric ? (Number(a) > Number(b)) - (Number(a) < Number(b)) : letters.compare(a, b);
      return (up ? first : -first) || i - j;
    });
    const order = keyed.map((one) => one[2]);
    sorted(order);
    body.replaceChildren(...order);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const now = head.getAttribute("aria-sort"), least = column === 0 || !head.classList.contains("number");
      sort(head, column, now ? now === "descending" : least);
    });
  });
  return () => {
    const column = heads.findIndex((head) => head.hasAttribute("aria-sort"));
    if (column >= 0) sort(heads[column], column, heads[column].getAttribute("aria-sort") === "ascending");
  };
};
"""
