// The form of the page on choosing a strategy: leaves the rows of the table that fit, the best by our tables first.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("choosing");
  const body = document.querySelector("#choosing-table tbody");
  const said = document.getElementById("choosing-said");
  const data = JSON.parse(document.getElementById("choosing-data").textContent);
  const rows = new Map([...body.rows].map((row) => [row.dataset.name, row]));

  function seconds(strategy, pool) {
    if (strategy.cost === null) return null;
    const [fixed, base, a, b, c, d] = strategy.cost;
    return (
      fixed +
      base * (pool.rows / 8000) ** a * (pool.columns / 64) ** b * (pool.classes / 10) ** c * (pool.picks / 50) ** d
    );
  }

  // What was measured: up to 128 000 rows, 512 columns, 30 classes, 1 000 rows a batch.
  const isBeyond = (pool) => pool.rows > 128000 || pool.columns > 512 || pool.classes > 30 || pool.picks > 1000;

  function inWords(value) {
    if (value === null) return "not measured: as its members, or fits of the model";
    if (value < 0.01) return "less than 0.01";
    if (value >= 7200) return `about ${Math.round(value / 3600)} hours`;
    return value >= 100 ? `about ${Math.round(value)}` : `about ${Number(value.toPrecision(1))}`;
  }

  // The studies of what is special in a pool, and the one of its number of labels and its model.
  function studiesFor(asked) {
    const special = [];
    if (asked.noise) special.push("noise", "much_noise");
    if (asked.copies) special.push("copies");
    if (asked.rare) special.push("rare");
    if (asked.texts) special.push("texts");
    if (asked.labels < 10 * asked.classes || asked.model === "none") return { special, usual: ["first"] };
    return { special, usual: [asked.model === "network" || asked.model === "posterior" ? "network" : "linear"] };
  }

  function fits(strategy, asked) {
    if (asked.model === "none") return strategy.fromLabels !== 0;
    if (strategy.fromLabels === null && strategy.models.some((needed) => !needed.length)) return true;
    const has = data.models[asked.model];
    return strategy.models.some((needed) => needed.every((kind) => has.includes(kind)));
  }

  function verdict(strategy, studies, asked) {
    const told = [];
    let net = 0;
    let sets = 0;
    for (const key of studies) {
      const found = strategy.said[key];
      // what it earned by its first member says nothing once that has had its turn
      if (!found || (key === "first" && strategy.fromLabels && asked.labels >= strategy.fromLabels)) continue;
      const [better, worse, all] = found;
      told.push([`${data.studies[key].title}: above uniform on ${better} of ${all}, below on ${worse}`, data.studies[key].page]);
      net += better - worse;
      sets += all;
    }
    return { told, net: sets ? net / sets : 0, sets };
  }

  function asked() {
    const values = Object.fromEntries(new FormData(form));
    for (const name of ["labels", "classes", "rows", "columns", "picks", "seconds"]) values[name] = Number(values[name]);
    for (const name of ["rare", "copies", "noise", "texts"]) values[name] = form.elements[name].checked;
    return values;
  }

  function cell({ name, row, special, usual }) {
    const place = row.cells[1];
    const told = [...special.told, ...usual.told];
    place.textContent = told.length ? "" : "not in our studies of such a pool";
    if (name === "uniform") place.textContent = "what all others are compared with";
    told.forEach(([text, page], index) => {
      const link = document.createElement("a");
      link.href = `results/${page}.html`;
      link.textContent = text;
      place.append(...(index ? ["; ", link] : [link]));
    });
  }

  function update() {
    if (!form.checkValidity()) {
      said.textContent = "Give whole numbers; there are at least two classes.";
      return;
    }
    const pool = asked();
    const studies = studiesFor(pool);
    const kept = [];
    let slow = 0;
    let unfit = 0;
    for (const [name, strategy] of Object.entries(data.strategies)) {
      const row = rows.get(name);
      // before it reads a model, one that does so later takes what its first member takes
      const taken = strategy.fromLabels && pool.labels < strategy.fromLabels ? null : seconds(strategy, pool);
      row.hidden = true;
      if (!fits(strategy, pool)) unfit += 1;
      else if (taken !== null && taken > pool.seconds) slow += 1;
      else {
        const [special, usual] = [studies.special, studies.usual].map((keys) => verdict(strategy, keys, pool));
        kept.push({ name, row, taken, special, usual });
      }
    }
    // by what is special first; there and in the usual study: good, then uniform and what was not tried, then bad
    const isUniform = (one) => (one.name === "uniform" ? 0 : 1);
    const order = (one) => [-one.special.net, -one.usual.net, isUniform(one), one.usual.sets ? 0 : 1, one.taken ?? Infinity];
    kept.sort((one, other) => {
      const [a, b] = [order(one), order(other)];
      const first = a.findIndex((value, place) => value !== b[place]);
      return first < 0 ? one.name.localeCompare(other.name) : a[first] - b[first];
    });
    for (const one of kept) {
      one.row.hidden = false;
      cell(one);
      one.row.cells[2].textContent = `${inWords(one.taken)}${one.taken !== null && isBeyond(pool) ? ", extrapolated" : ""}`;
      body.append(one.row);
    }
    const counted = studies.special.length ? "special" : "usual";
    const good = kept.filter((one) => one[counted].net > 0).slice(0, 3);
    const names = good.map((one) => data.strategies[one.name].title);
    const first = names.length
      ? `Begin with ${names.length > 1 ? `${names.slice(0, -1).join(", ")} or ${names.at(-1)}` : names[0]}, and keep uniform sampling beside it.`
      : "Nothing in our tables beats uniform sampling here; try one on your own data.";
    const limits = pool.labels > 500 ? " Our tables end at 500 labels." : "";
    said.textContent = `${first} ${kept.length} strategies fit; ${unfit} need another model, ${slow} take longer.${limits}`;
  }

  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
});
