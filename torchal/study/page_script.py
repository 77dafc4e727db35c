"""The script of a report's page. Without it the page shows the main metric against labels, and everything else."""

from torchal.report.shell import SORTING
from torchal.study.chart_script import CURVES, HEAT

# as torchal.study.numbers writes them
_NUMBERS = """\
const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
const nothing = "\\u2013", minus = "\\u2212";
const fixed = (value, digits) => {
  const [whole, rest] = Math.abs(value).toFixed(digits).split(".");
  return (value < 0 ? minus : "") + whole.replace(/\\B(?=(\\d{3})+$)/g, ",") + (rest ? "." + rest : "");
};
const decimal = (value) => {
  if (!known(value)) return nothing;
  const size = Math.abs(value);
  if (size >= 1000) return fixed(value, 0);
  if (size >= 10) return fixed(value, size >= 100 ? 2 : 3);
  return fixed(value, size >= 1e-3 || size < 1e-8 ? 4 : 1 - Math.floor(Math.log10(size)));
};
const signed = (value) => {
  if (!known(value)) return nothing;
  const text = Math.abs(value) >= 1e-3 ? decimal(value) : fixed(value, 4);
  if (!/[1-9]/.test(text)) return "0.0000";
  return value < 0 ? text : "+" + text;
};
const interval = (lower, upper, write) => known(lower) && known(upper) ? `[${write(lower)}, ${write(upper)}]` : "";
const probability = (p) => {
  if (!known(p)) return "";
  return p < 1e-4 ? "p < 0.0001" : "p = " + p.toFixed(p >= 0.1 ? 2 : p >= 0.01 ? 3 : 4);
};
const amount = (value) => {
  if (!known(value)) return nothing;
  const size = Math.abs(value);
  return fixed(value, Number.isInteger(value) || size >= 1000 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
};
const escaped = (text) => text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`);
const shortened = (text, letters) => {
  const all = [...text];
  return all.length <= letters ? text : all.slice(0, letters - 5).join("") + "\\u2026" + all.slice(-4).join("");
};
"""

_BEGIN = """\
document.documentElement.classList.add("scripted");
document.addEventListener("DOMContentLoaded", () => {
  const find = (id) => document.getElementById(id), all = (what) => [...document.querySelectorAll(what)];
  if (!find("data")) return;  // there are no runs
  const data = JSON.parse(find("data").textContent), tip = find("tip"), live = find("live");
  const state = {metric: 0, axis: 0, minus: false, hidden: new Set()};
  const swatch = (s) =>
    `<svg class="swatch k${data.looks[s][0]}" aria-hidden="true"><use href="#w${s}"></use></svg>`;
  const brief = (s) => escaped(shortened(data.samplers[s], 24));
  const named = (s) => `<span class="sampler">${swatch(s)}<bdi>${brief(s)}</bdi></span>`;
  const showTip = (content, box, x, width) => {
    tip.innerHTML = content;
    tip.hidden = false;
    const edges = box.getBoundingClientRect(), size = tip.getBoundingClientRect();
    const at = edges.left + x * edges.width / width;
    let left = at + 16;
    if (left + size.width > innerWidth - 8) left = at - 16 - size.width;
    if (left < 8) left = Math.max(8, Math.min(innerWidth - 8 - size.width, at - size.width / 2));
    const covers = left < at + 12 && left + size.width > at - 12;
    let top = covers ? edges.top - size.height - 8 : edges.top + 12;
    if (covers && top < 8) top = edges.bottom + 8;
    tip.style.left = left + "px";
    tip.style.top = Math.max(8, Math.min(innerHeight - 8 - size.height, top)) + "px";
  };
"""

_TABLES = """\
  const flat = data.experiments.flatMap((experiment) => experiment.entries);
  const table = document.querySelector("table.results"), rows = table ? [...table.tBodies[0].rows] : [];
  const again = table ? sortable(table, () => {}) : () => {};
  const put = (cell, value, text, small) => {
    cell.dataset.v = known(value) ? value : "";
    cell.innerHTML = text + (small ? `<small>${small}</small>` : "");
  };
  const fillTable = () => {
    rows.forEach((row, place) => {
      const [...numbers] = flat[place].table[state.metric];
      [[0, decimal], [3, decimal], [6, signed]].forEach(([first, write], k) => {
        const [mean, lower, upper] = numbers.slice(first, first + 3);
        put(row.cells[4 + k], mean, write(mean), interval(lower, upper, write));
      });
      const [p, verdict] = numbers.slice(9), cell = row.cells[7], tested = known(p);
      cell.className = "verdict" + (known(verdict) ? " v" + verdict : "");
      if (known(verdict)) {
        const words = tested ? data.verdicts[verdict + 1] : "not tested";
        put(cell, verdict, `<b>${words}</b>`, escaped(probability(p)));
      } else {
        put(cell, null, "baseline" in row.dataset ? '<span class="quiet">baseline</span>' : nothing, "");
      }
    });
    again();
  };
  const filter = () => {
    const words = find("search").value.toLowerCase().split(/\\s+/).filter(Boolean), which = find("which");
    let shown = 0;
    for (const row of rows) {
      const text = (data.experiments[row.dataset.e].name + " " + data.samplers[row.dataset.s]).toLowerCase();
      const right = !which || !which.value || which.value === row.dataset.e;
      const fits = right && words.every((word) => text.includes(word));
      row.hidden = !fits;
      shown += fits && !state.hidden.has(Number(row.dataset.s));
    }
    find("count").textContent = shown.toLocaleString("en") + " of " + rows.length.toLocaleString("en") + " rows";
  };
  const fillCosts = (which) => {
    const means = data.samplers.map((_, s) => {
      const of = which === "" ? flat : data.experiments[which].entries, mine = of.filter((entry) => entry.s === s);
      const mean = (values) => {
        const there = values.filter(known);
        return there.length ? there.reduce((sum, value) => sum + value, 0) / there.length : null;
      };
      const phase = (k) => mean(mine.map((entry) => entry.seconds[k] === null ? 0 : entry.seconds[k]));
      const costs = [0, 1].map((k) => mean(mine.map((entry) => entry.cost[k])));
      return mine.length ? [data.phases.map((_, k) => phase(k)), ...costs] : null;
    });
    const sum = (values) => values.reduce((total, value) => total + value, 0);
    const longest = Math.max(...means.map((mean) => mean ? sum(mean[0]) : 0)) || 1;
    for (const row of document.querySelector("table.costs").tBodies[0].rows) {
      const mean = means[Number(row.dataset.s)];
      row.hidden = !mean;
      if (!mean) continue;
      const [seconds, labels, cost] = mean;
      row.cells[1].firstChild.innerHTML = seconds.map((value, k) =>
        `<span class="p${k % 6}" style="width:${(100 * value / longest).toFixed(2)}%"></span>`).join("");
      [seconds.length ? sum(seconds) : null, ...seconds, labels, cost].forEach((value, k) => {
        row.cells[2 + k].textContent = amount(value);
      });
    }
  };
"""

_START = """\
  const charts = all(".chart").map((figure) => {
    const e = Number(figure.dataset.e), entries = [...data.experiments[e].entries].sort((a, b) => a.s - b.s);
    return {e, entries, box: figure.querySelector(".plot"), drawn: false, seen: false, view: null};
  });
  const heats = all(".of-experiment").flatMap((details) => {
    const experiment = data.experiments[Number(details.dataset.e)];
    return [...details.querySelectorAll(".pick")].map((part) => {
      const entry = experiment.entries.find((one) => one.s === Number(part.dataset.s));
      return {box: part.querySelector(".heat"), entry, experiment, drawn: false, view: null};
    }).filter((heat) => heat.box);
  });
  const drawers = new Map(charts.map((one) => [one.box, [one, draw]]));
  heats.forEach((one) => drawers.set(one.box, [one, drawHeat]));
  const watch = new IntersectionObserver((changes) => {
    for (const change of changes) {
      const [one, drawer] = drawers.get(change.target);
      one.seen = change.isIntersecting;
      if (one.seen && !one.drawn) drawer(one);
    }
  }, {rootMargin: "300px"});
  charts.forEach(listen);
  heats.forEach(listenHeat);
  for (const box of drawers.keys()) watch.observe(box);
  const redraw = (which) => {
    for (const [one, drawer] of drawers.values()) {
      if (which && drawer !== which) continue;
      one.drawn = false;
      if (one.seen) drawer(one);
    }
    tip.hidden = true;
  };
  let width = null;
  new ResizeObserver(([change]) => {
    const now = matchMedia("print").matches ? width : Math.round(change.contentRect.width);
    if (width !== null && now !== width && now) redraw();
    width = now || width;
  }).observe(document.querySelector("main"));
  addEventListener("scroll", () => { tip.hidden = true; }, {passive: true});
  addEventListener("beforeprint", () => { for (const chart of charts) if (!chart.drawn) draw(chart); });

  const style = () => document.head.appendChild(document.createElement("style")), away = style(), dim = style();
  const legend = find("samplers"), buttons = [];
  const show = () => {
    buttons.forEach((button, s) => button.setAttribute("aria-pressed", String(!state.hidden.has(s))));
    away.textContent = [...state.hidden].map((s) => `[data-s="${s}"], [data-c="${s}"] { display: none !important; }`)
      .join("");
    filter();
    redraw(draw);
  };
  const button = (content, kind, click) => {
    const made = document.createElement("button");
    made.type = "button";
    made.className = kind;
    made.innerHTML = content;
    made.addEventListener("click", click);
    return made;
  };
  if (legend) {
    const spans = [...legend.querySelectorAll(".sampler")];
    spans.forEach((span, s) => {
      const made = button("", "", () => {
        if (!state.hidden.delete(s)) state.hidden.add(s);
        show();
      });
      made.setAttribute("aria-pressed", "true");
      span.replaceWith(made);
      made.append(span);
      const others = (on) => () => {
        dim.textContent = on && spans.length > 1 ? `.plot g[data-s]:not([data-s="${s}"]) { opacity: 0.18; }` : "";
      };
      made.addEventListener("pointerenter", others(true));
      made.addEventListener("focus", others(true));
      made.addEventListener("pointerleave", others(false));
      made.addEventListener("blur", others(false));
      buttons.push(made);
    });
    if (spans.length > 1) {
      const every = button("Show all", "plain", () => { state.hidden.clear(); show(); });
      const none = button("Hide all", "plain", () => { spans.forEach((_, s) => state.hidden.add(s)); show(); });
      legend.append(every, none);
    }
  }
  const choose = () => {
    for (const menu of all("[data-control=metric]")) menu.value = String(state.metric);
    for (const name of all(".metric-name")) name.textContent = data.metrics[state.metric];
    for (const part of all(".of-metric")) part.hidden = Number(part.dataset.m) !== state.metric;
  };
  for (const menu of all("[data-control=metric]")) {
    menu.addEventListener("change", () => {
      state.metric = Number(menu.value);
      choose();
      fillTable();
      redraw(draw);
    });
  }
  const on = (id, event, then) => { if (find(id)) find(id).addEventListener(event, () => then(find(id).value)); };
  on("minus", "change", (value) => { state.minus = value === "1"; redraw(draw); });
  on("axis", "change", (value) => { state.axis = Number(value); redraw(draw); });
  on("search", "input", filter);
  on("which", "change", filter);
  on("of", "change", fillCosts);
  choose();
  if (table) {
    fillTable();
    filter();
  }
  for (const controls of all(".controls, .hint")) controls.hidden = false;
});
"""

SCRIPT = SORTING + _NUMBERS + _BEGIN + CURVES + HEAT + _TABLES + _START
