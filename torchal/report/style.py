"""How a page looks, and the few lines that sort and filter its table."""

CSS = """\
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
.map { overflow-x: auto; }
.map img { display: block; width: 100%; min-width: 560px; height: auto; border-radius: 6px; }
.map .night { display: none; }
@media screen and (prefers-color-scheme: dark) {
  .map .night { display: block; }
  .map .day.pair { display: none; }
}
.histogram { display: block; width: 100%; max-width: 560px; height: auto; font-size: 12px; }
.histogram text { fill: var(--quiet); }
.histogram .strong { fill: var(--text); }
.histogram .pool { fill: var(--guess); }
.histogram .axis { stroke: var(--edge); stroke-width: 1.5; }
.histogram .mean { stroke: var(--text); stroke-dasharray: 4 3; }
.histogram .ticks { stroke: var(--tick); stroke-width: 1.25; }
.legend { margin: 4px 0 0; font-size: 0.85rem; }
.key { display: inline-block; vertical-align: middle; margin: -2px 4px 0 0; }
.key.pool { width: 11px; height: 11px; background: var(--guess); border-radius: 2px; }
.key.tick { width: 2px; height: 11px; margin-left: 10px; background: var(--tick); }
table { border-collapse: collapse; width: 100%; font-size: 0.93rem; }
th { text-align: left; font-weight: 600; }
.classes { table-layout: fixed; }
.classes th, .classes td { padding: 2px 12px 2px 0; vertical-align: top; line-height: 1.3; }
.classes thead th { color: var(--quiet); font-weight: 400; font-size: 0.85rem; vertical-align: bottom; }
.classes tbody th { font-weight: 400; overflow-wrap: anywhere; }
.classes thead th:first-child { width: 22%; }
.classes td:last-child { padding-right: 0; }
.cell { display: flex; align-items: center; gap: 8px; }
.cell .track { flex: 1; min-width: 24px; }
.cell .count { min-width: 8.5ch; }
.track { display: block; height: 8px; border-radius: 4px; background: var(--track); overflow: hidden; }
.bar { display: block; height: 100%; border-radius: 4px; }
.bar.mine { background: var(--mine); }
.bar.guess { background: var(--guess); }
.count { font-size: 0.85rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
.controls { display: flex; flex-wrap: wrap; gap: 10px 20px; align-items: end; margin-bottom: 12px; }
.controls label { display: grid; gap: 2px; font-size: 0.85rem; color: var(--quiet); }
.controls input, .controls select {
  font: inherit; color: var(--text); background: var(--card); border: 1px solid var(--quiet); border-radius: 8px;
  padding: 6px 10px; min-width: 0; max-width: 100%;
}
.controls input[type="search"] { width: min(280px, 78vw); }
.controls select { width: auto; max-width: min(280px, 78vw); }
.controls input[type="range"] { padding: 0; border: 0; width: 130px; height: 38px; accent-color: var(--accent); }
.controls output { margin-left: auto; color: var(--quiet); font-size: 0.9rem; }
.box {
  overflow: auto; max-height: max(480px, 88vh); border: 1px solid var(--edge); border-radius: 8px; position: relative;
}
.questions { --side: 104px; }
.questions th, .questions td {
  padding: 10px 14px; vertical-align: top; border-bottom: 1px solid var(--edge); text-align: left;
}
.questions tbody tr:last-child > * { border-bottom: 0; }
.questions thead th {
  position: sticky; top: 0; z-index: 2; background: var(--card); white-space: nowrap; font-size: 0.85rem;
  box-shadow: inset 0 -1px var(--edge); border-bottom: 0;
}
.questions .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.questions tbody th { font-weight: 600; color: var(--quiet); }
.questions tbody tr:nth-child(even) { background: var(--stripe); }
.questions .what { min-width: 180px; }
.questions .what.reading { min-width: min(340px, 62vw); }
.questions .name { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 0.9em; }
.questions .name bdi { display: inline-block; min-width: 18ch; max-width: 26ch; overflow-wrap: anywhere; }
.questions .brief bdi { min-width: 0; white-space: nowrap; }
.questions button {
  all: unset; cursor: pointer; padding: 2px 0; font: inherit; border-radius: 4px; white-space: nowrap;
}
.questions button::after { content: " \\2195"; color: var(--quiet); opacity: 0.75; }
.questions [aria-sort="ascending"] button::after { content: " \\2191"; color: var(--accent); opacity: 1; }
.questions [aria-sort="descending"] button::after { content: " \\2193"; color: var(--accent); opacity: 1; }
.questions button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
#more {
  display: block; margin: 12px auto 0; padding: 8px 18px; font: inherit; color: var(--accent); cursor: pointer;
  background: var(--card); border: 1px solid var(--accent); border-radius: 8px;
}
@media screen {
  .later, .scripted .questions:not(.ready) tbody tr:nth-child(n+301) { display: none; }
}
.picture {
  display: block; width: var(--side); height: var(--side); object-fit: contain; background: var(--track);
  border-radius: 6px; box-shadow: 0 0 0 1px var(--edge);
}
.picture.tiny { image-rendering: pixelated; }
.picture.none {
  display: grid; place-items: center; text-align: center; padding: 6px; font-size: 0.8rem; line-height: 1.3;
  color: var(--quiet); border: 1px dashed var(--quiet);
}
.picture + .text { margin-top: 8px; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; max-width: 70ch; }
.file { overflow-wrap: anywhere; font-size: 0.85rem; color: var(--quiet); }
details > summary { cursor: pointer; }
details[open] > summary .more { display: none; }
details > summary .more { color: var(--accent); white-space: nowrap; }
details[open] > summary .less { color: var(--quiet); }
details:not([open]) > summary .less { display: none; }
details[open] > summary .short { display: none; }
.sure { display: block; width: 76px; margin-top: 4px; height: 6px; }
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
  .classes thead th:first-child { width: 28%; }
  .questions { --side: 88px; }
  .questions th, .questions td { padding: 8px 10px; }
  .questions .what { min-width: 108px; }
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
  .map img { min-width: 0; max-height: 130mm; object-fit: contain; }
  .histogram { max-width: 110mm; }
  .columns.two { grid-template-columns: minmax(0, 1fr); }
  .controls, #more, a.skip { display: none; }
  .questions { --side: 22mm; font-size: 8pt; }
  .questions th, .questions td { padding: 4px 6px; }
  .questions .what { min-width: 0; }
  .questions .what.reading { min-width: 62mm; }
  .questions thead th { position: static; white-space: normal; box-shadow: none; border-bottom: 1px solid #888; }
  .questions button::after { content: none; }
  tr, figure, .tiles, .classes { break-inside: avoid; }
  h2 { break-after: avoid; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

# Without it the page is whole, but for sorting, filtering and the size of the pictures. Browsers take seconds to lay
# out a table of thousands of rows, so that with it the first 300 are seen, and more where they are asked for; all are
# printed. It stands in the head, for the table is laid out while it is being read.
SCRIPT = """\
document.documentElement.classList.add("scripted");
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.questions"), body = table.tBodies[0], rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells], find = (id) => document.getElementById(id), step = 300;
  const search = find("search"), guess = find("guess"), side = find("side"), count = find("count"), more = find("more");
  const letters = new Intl.Collator("en", {numeric: true}), say = (number) => number.toLocaleString("en");
  let order = rows, most = step, texts = null;
  const value = (row, column) => {
    const cell = row.cells[column], given = cell.dataset.v;
    return given === undefined ? cell.textContent.trim() : given;
  };
  const show = () => {
    const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean);
    const read = (row) => [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
    if (words.length && !texts) texts = new Map(rows.map((row) => [row, read(row)]));
    let fitting = 0;
    for (const row of order) {
      const right = !guess || guess.selectedIndex < 1 || row.dataset.guess === guess.value;
      const fits = right && words.every((word) => texts.get(row).includes(word));
      fitting += fits;
      row.hidden = !fits;
      row.classList.toggle("later", fits && fitting > most);
    }
    count.textContent = say(fitting) + " of " + say(rows.length) + " rows" +
      (fitting > most ? ", the first " + say(most) + " shown" : "");
    more.hidden = fitting <= most;
    more.textContent = "Show " + say(Math.min(step, fitting - most)) + " more";
  };
  const sort = (head, column) => {
    const numeric = head.classList.contains("number"), now = head.getAttribute("aria-sort");
    const up = now ? now === "descending" : !numeric || column === 0;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = rows.map((row, place) => [value(row, column), place, row]);
    keyed.sort(([a, i], [b, j]) => {
      if (a === "" || b === "") return (a === "") - (b === "") || i - j;
      const first = numeric ? (Number(a) > Number(b)) - (Number(a) < Number(b)) : letters.compare(a, b);
      return (up ? first : -first) || i - j;
    });
    order = keyed.map((one) => one[2]);
    most = step;
    show();
    body.replaceChildren(...order);
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head, column));
  });
  heads[0].setAttribute("aria-sort", "ascending");
  const again = () => { most = step; show(); };
  search.addEventListener("input", again);
  if (guess) guess.addEventListener("change", again);
  if (side) side.addEventListener("input", () => table.style.setProperty("--side", side.value + "px"));
  more.addEventListener("click", () => { most += step; show(); });
  show();
  find("controls").hidden = false;
  table.classList.add("ready");
});
"""
