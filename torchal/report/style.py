"""How the page of rows looks, and the few lines that sort and filter its table."""

from torchal.report.shell import BASE_CSS, SORTING

CSS = (
    BASE_CSS
    + """\
.map { overflow-x: auto; }
.map img { display: block; width: 100%; min-width: 520px; height: auto; border-radius: 6px; }
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
.classes { table-layout: fixed; }
.classes th, .classes td { padding: 2px 12px 2px 0; vertical-align: top; line-height: 1.3; }
.classes thead th { color: var(--quiet); font-weight: 400; font-size: 0.85rem; vertical-align: bottom; }
.classes tbody th { font-weight: 400; overflow-wrap: anywhere; }
.classes thead th:first-child { width: 22%; }
.classes td:last-child { padding-right: 0; }
.bar.mine { background: var(--mine); }
.bar.guess { background: var(--guess); }
.controls input[type="range"] { padding: 0; border: 0; width: 130px; height: 38px; accent-color: var(--accent); }
.sure { display: block; width: 76px; margin-top: 4px; height: 6px; }
.questions { --side: 104px; }
.questions .what { min-width: 180px; }
.questions .what.reading { min-width: min(340px, 62vw); }
.questions .name { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 0.9em; }
.questions .name bdi { display: inline-block; min-width: 18ch; max-width: 26ch; overflow-wrap: anywhere; }
.questions .brief bdi { min-width: 0; white-space: nowrap; }
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
@media (max-width: 600px) {
  .classes thead th:first-child { width: 28%; }
  .questions { --side: 88px; }
  .questions .what { min-width: 108px; }
}
@media print {
  #more { display: none; }
  .map img { min-width: 0; max-height: 130mm; object-fit: contain; }
  .histogram { max-width: 110mm; }
  .questions .what { min-width: 0; }
  .questions .what.reading { min-width: 62mm; }
  .questions { --side: 22mm; }
  .classes { break-inside: avoid; }
}
"""
)

# Without it the page is whole, but for sorting, filtering and the size of the pictures. Browsers take seconds to lay
# out a table of thousands of rows, so that with it the first 300 are seen, and more where they are asked for; all are
# printed. It stands in the head, for the table is laid out while it is being read.
SCRIPT = (
    SORTING
    + """\
document.documentElement.classList.add("scripted");
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.questions"), body = table.tBodies[0], rows = [...body.rows];
  const find = (id) => document.getElementById(id), step = 300;
  const search = find("search"), guess = find("guess"), side = find("side"), count = find("count"), more = find("more");
  const say = (number) => number.toLocaleString("en");
  let order = rows, most = step, texts = null;
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
  sortable(table, (sorted) => {
    order = sorted;
    most = step;
    show();
  });
  table.tHead.rows[0].cells[0].setAttribute("aria-sort", "ascending");
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
)
