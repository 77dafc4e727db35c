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

  function inWords(value) {
    if (value === null) return "as its members, or fits of the model";
    if (value < 0.01) return "less than 0.01";
    if (value >= 7200) return `about ${Math.round(value / 3600)} hours`;
    return value >= 100 ? `about ${Math.round(value)}` : `about ${Number(value.toPrecision(1))}`;
  }

  // The studies that speak of such a pool, those nearest to it first.
  function studiesFor(asked) {
    const found = [];
    if (asked.noise) found.push("noise", "much_noise");
    if (asked.copies) found.push("copies");
    if (asked.rare) found.push("rare");
    if (asked.texts) found.push("texts");
    if (asked.labels < 10 * asked.classes || asked.model === "none") return [...found, "first"];
    return [...found, asked.model === "network" || asked.model === "posterior" ? "network" : "linear"];
  }

  function fits(strategy, asked) {
    if (asked.model === "none") return strategy.fromLabels !== 0;
    if (strategy.fromLabels === null && strategy.models.some((needed) => !needed.length)) return true;
    const has = data.models[asked.model];
    return strategy.models.some((needed) => needed.every((kind) => has.includes(kind)));
  }

  function verdict(strategy, studies) {
    const told = [];
    let net = 0;
    let sets = 0;
    for (const key of studies) {
      const found = strategy.said[key];
      if (!found) continue;
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

  function cell(row, verdictOf) {
    const place = row.cells[1];
    place.textContent = verdictOf.told.length ? "" : "not in our studies of such a pool";
    verdictOf.told.forEach(([text, page], index) => {
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
      const taken = seconds(strategy, pool);
      row.hidden = true;
      if (!fits(strategy, pool)) unfit += 1;
      else if (taken !== null && taken > pool.seconds) slow += 1;
      else kept.push({ name, row, taken, verdict: verdict(strategy, studies) });
    }
    // tried and good, then uniform and what was never tried here, then what was below
    const order = (one) => [one.verdict.sets ? -one.verdict.net : 0, one.verdict.sets ? 0 : 1, one.taken ?? Infinity];
    kept.sort((one, other) => {
      const [a, b] = [order(one), order(other)];
      return a[0] - b[0] || a[1] - b[1] || a[2] - b[2] || one.name.localeCompare(other.name);
    });
    for (const one of kept) {
      one.row.hidden = false;
      cell(one.row, one.verdict);
      one.row.cells[2].textContent = inWords(one.taken);
      body.append(one.row);
    }
    const good = kept.filter((one) => one.verdict.net > 0).slice(0, 3);
    const names = good.map((one) => data.strategies[one.name].title);
    const first = names.length
      ? `Begin with ${names.length > 1 ? `${names.slice(0, -1).join(", ")} or ${names.at(-1)}` : names[0]}, and keep uniform sampling beside it.`
      : "Nothing in our tables beats uniform sampling here; try one on your own data.";
    said.textContent = `${first} ${kept.length} strategies fit; ${unfit} need another model, ${slow} take longer.`;
  }

  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  update();
});
