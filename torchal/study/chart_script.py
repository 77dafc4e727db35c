"""The part of a page's script that draws: learning curves, and which classes were bought when.

It stands inside the function that `page_script` opens, and uses what is defined there: data, state, numbers as text.
"""

CURVES = """\
  const cache = new Map();
  const decode = (place) => {
    if (!cache.has(place)) {
      const [power, ...steps] = data.arrays[place];
      let sum = 0;
      cache.set(place, steps.map((step) => step === null ? null : Number((sum += step) + "e" + power)));
    }
    return cache.get(place);
  };
  const ticks = (low, high, most) => {
    const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => power * factor >= raw * (1 - 1e-9));
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), found = [];
    for (let k = Math.ceil(low / step - 1e-9); k <= Math.floor(high / step + 1e-9); k++) {
      found.push([k * step, fixed(k * step, digits)]);
    }
    return found;
  };
  const valueAt = (one, x) => {
    const exact = one.x.indexOf(x);
    if (exact >= 0) {
      return known(one.mean[exact]) ? [one.mean[exact], one.lower[exact], one.upper[exact], ""] : null;
    }
    const after = one.x.findIndex((value) => value > x), before = after - 1;
    if (before < 0 || !known(one.mean[before]) || !known(one.mean[after])) return null;
    const share = (x - one.x[before]) / (one.x[after] - one.x[before]);
    return [one.mean[before] + share * (one.mean[after] - one.mean[before]), null, null, "\\u2248\\u2009"];
  };
  const read = (entry) => {
    const band = entry.curves[state.metric][state.axis];
    if (!band) return null;
    const [x, mean, below, above = below] = band.map(decode);
    const lower = mean.map((value, i) => known(below[i]) ? value - below[i] : null);
    const upper = mean.map((value, i) => known(above[i]) ? value + above[i] : null);
    return {s: entry.s, x, mean, lower, upper};
  };
  const seriesOf = (chart) => {
    const series = chart.entries.filter((entry) => !state.hidden.has(entry.s)).map(read).filter(Boolean);
    if (!state.minus) return series;
    const base = chart.entries.find((entry) => entry.s === data.experiments[chart.e].baseline);
    const from = base && read(base);
    if (!from) return [];
    return series.map((one) => {
      const below = one.x.map((x) => valueAt(from, x)), none = one.x.map(() => null);
      const mean = one.mean.map((value, i) => known(value) && below[i] ? value - below[i][0] : null);
      return {...one, mean, lower: none, upper: none};
    });
  };
  const limits = (series, level) => {
    const lines = series.flatMap((one) => one.mean).concat([level]).filter(known);
    const ends = series.flatMap((one) => [...one.lower, ...one.upper]).filter(known).concat(lines);
    const least = Math.min(...lines), most = Math.max(...lines), room = most - least || Math.abs(least) || 1;
    const low = Math.max(Math.min(...ends), least - room / 2), high = Math.min(Math.max(...ends), most + room / 2);
    const edge = 0.04 * (high - low || room);
    return [low - edge, high + edge];
  };
  const curve = (one, across, down, shaded) => {
    const [colour, dash, marker] = data.looks[one.s];
    const there = one.mean.filter(known).length, every = Math.max(1, Math.ceil(there / 8));
    let line = "", dots = "", pen = false;
    const upper = [], lower = [];
    one.x.forEach((x, i) => {
      if (!known(x) || !known(one.mean[i])) { pen = false; return; }
      const at = across(x).toFixed(1) + " " + down(one.mean[i]).toFixed(1);
      line += (pen ? "L" : "M") + at;
      pen = true;
      if (i % every === 0) dots += "M" + at + data.markers[marker];
      if (known(one.lower[i]) && known(one.upper[i])) {
        upper.push(across(x).toFixed(1) + " " + down(one.upper[i]).toFixed(1));
        lower.unshift(across(x).toFixed(1) + " " + down(one.lower[i]).toFixed(1));
      }
    });
    const band = shaded && upper.length > 1 ? `<path class="band" d="M${upper.concat(lower).join("L")}z"/>` : "";
    return `<g class="k${colour}" data-s="${one.s}">${band}<path class="line" d="${line}"` +
      `${dash ? ` stroke-dasharray="${dash}"` : ""}/><path class="dot" d="${dots}"/></g>`;
  };
  const draw = (chart) => {
    chart.drawn = true;
    const box = chart.box, experiment = data.experiments[chart.e], series = seriesOf(chart);
    const base = experiment.baseline, axis = data.axes[state.axis];
    const metric = data.metrics[state.metric] +
      (state.minus && base !== null ? ", minus " + shortened(data.samplers[base], 20) : "");
    const places = [...new Set(series.flatMap((one) => one.x.filter((x, i) => known(x) && known(one.mean[i]))))];
    places.sort((a, b) => a - b);
    chart.view = null;
    if (!places.length) {
      const all = chart.entries.length && chart.entries.every((entry) => state.hidden.has(entry.s));
      box.innerHTML = all ? '<p class="quiet">All samplers are hidden.</p>' :
        `<p class="quiet">No values of <bdi>${escaped(metric)}</bdi> against ${axis} here.</p>`;
      return;
    }
    const level = state.metric === 0 && !state.minus ? experiment.full : null, [low, high] = limits(series, level);
    let start = places[0], end = places[places.length - 1];
    if (start === end) { start -= 1; end += 1; }
    const width = Math.max(260, Math.round(box.clientWidth)), top = 24, foot = 40, right = 12;
    const height = Math.round(Math.min(data.experiments.length > 1 ? 320 : 440, Math.max(236, width * 0.64)));
    const tall = height - top - foot, rows = ticks(low, high, height > 300 ? 6 : 4);
    const left = 14 + 7 * Math.max(...rows.map((row) => row[1].length)), wide = width - left - right;
    const across = (x) => (x - start) / (end - start) * wide, down = (y) => (high - y) / (high - low) * tall;
    const columns = ticks(start, end, Math.max(2, Math.floor(wide / 64)));
    let grid = "", words = "";
    for (const [value, text] of rows) {
      const y = (down(value) + top).toFixed(1);
      grid += `M${left} ${y}h${wide}`;
      words += `<text x="${left - 7}" y="${Number(y) + 4}" text-anchor="end">${text}</text>`;
    }
    for (const [value, text] of columns) {
      const x = across(value) + left, anchor = x > width - 20 ? "end" : "middle";
      words += `<text x="${(anchor === "end" ? width - 2 : x).toFixed(1)}" y="${top + tall + 17}"` +
        ` text-anchor="${anchor}">${text}</text>`;
    }
    words += `<text x="${left + wide / 2}" y="${height - 5}" text-anchor="middle">${axis}</text>` +
      `<text class="what" x="4" y="14">${escaped(shortened(metric, 40))}</text>`;
    const shaded = series.length <= 8;
    const lines = series.map((one) => curve(one, across, down, shaded)).reverse().join("");
    const full = known(level) ? `<path class="level" d="M0 ${down(level).toFixed(1)}h${wide}"/>` : "";
    box.innerHTML = `<svg viewBox="0 0 ${width} ${height}" aria-hidden="true">` +
      `<path class="grid" d="${grid}"/>${words}` +
      `<svg x="${left - 5}" y="${top}" width="${wide + 10}" height="${tall}">` +
      `<g transform="translate(5 0)">${full}${lines}</g></svg>` +
      `<g class="now" transform="translate(${left} ${top})"></g></svg>`;
    chart.view = {series, places, across, down, left, top, width, height, tall, start, end, wide};
    box.setAttribute("aria-label", `${experiment.name}: ${metric} against ${axis}. Arrow keys read the values.`);
  };
  const clear = (chart) => {
    const now = chart.box.querySelector(".now");
    if (now) now.replaceChildren();
    tip.hidden = true;
  };
  const readPlace = (chart, place, aloud) => {
    const view = chart.view, x = view.places[place], axis = data.axes[state.axis], names = data.samplers;
    chart.place = place;
    const less = data.lower.includes(state.metric) ? -1 : 1;
    const values = view.series.map((one) => [one.s, valueAt(one, x)]).filter((pair) => pair[1]);
    values.sort((a, b) => less * (b[1][0] - a[1][0]));
    const across = view.across(x).toFixed(1);
    const dots = values.map(([s, value]) =>
      `<path class="k${data.looks[s][0]} at" d="M${across} ${view.down(value[0]).toFixed(1)}${data.markers[0]}"/>`);
    chart.box.querySelector(".now").innerHTML =
      `<path class="cross" d="M${across} 0V${view.tall}"/>` + dots.reverse().join("");
    const title = amount(x) + " " + (axis === "labels" && x === 1 ? "label" : axis);
    const write = state.minus ? signed : decimal;
    const rows = values.map(([s, value]) => `<tr><td>${named(s)}</td><td>${value[3]}${write(value[0])}</td>` +
      `<td class="quiet">${interval(value[1], value[2], write)}</td></tr>`);
    const half = rows.length > 14 && innerWidth > 800 ? Math.ceil(rows.length / 2) : rows.length;
    const tables = [rows.slice(0, half), rows.slice(half)].filter((part) => part.length);
    const told = tables.map((part) => `<table>${part.join("")}</table>`).join("");
    showTip(`<b>${title}</b><div class="twice">${told}</div>`, chart.box, view.left + view.across(x), view.width);
    if (aloud) {
      const spoken = ([s, [mean, lower, upper, about]]) =>
        `${names[s]} ${about}${write(mean)} ${interval(lower, upper, write)}`.trim();
      live.textContent = `${title}: ${values.map(spoken).join("; ")}`;
    }
  };
  const listen = (chart) => {
    const box = chart.box;
    box.tabIndex = 0;
    box.setAttribute("role", "application");
    box.setAttribute("aria-roledescription", "chart");
    box.setAttribute("aria-label", data.experiments[chart.e].name);
    const point = (event) => {
      if (!chart.view) return;
      const edges = box.getBoundingClientRect(), view = chart.view;
      const at = (event.clientX - edges.left) * view.width / edges.width - view.left;
      const x = view.start + at / view.wide * (view.end - view.start);
      let best = 0;
      view.places.forEach((place, k) => {
        if (Math.abs(place - x) < Math.abs(view.places[best] - x)) best = k;
      });
      readPlace(chart, best, false);
    };
    box.addEventListener("pointermove", point);
    box.addEventListener("pointerdown", point);
    box.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") clear(chart); });
    box.addEventListener("blur", () => clear(chart));
    box.addEventListener("keydown", (event) => {
      if (event.key === "Escape") return clear(chart);
      if (!chart.view) return undefined;
      const last = chart.view.places.length - 1, here = chart.place === undefined ? null : Math.min(chart.place, last);
      const steps = {ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity};
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return undefined;
      event.preventDefault();
      const step = steps[event.key], from = here === null ? (step > 0 ? -1 : last + 1) : here;
      readPlace(chart, Math.min(last, Math.max(0, from + step)), true);
      return undefined;
    });
  };
"""

HEAT = """\
  const drawHeat = (heat) => {
    heat.drawn = true;
    const {box, entry, experiment} = heat, rounds = entry.rounds, classes = experiment.classes, pool = experiment.pool;
    const width = Math.max(260, Math.round(box.clientWidth)), side = classes.length > 16 ? 14 : 18, foot = 36;
    const left = Math.min(110, 12 + 7 * Math.max(...classes.map((one) => shortened(one, 14).length)));
    const beside = pool ? 40 : 0, wide = width - left - beside - 2, cell = wide / rounds.length;
    const most = Math.max(1, ...experiment.entries.flatMap((one) => one.rounds.flatMap((round) => round.slice(1))),
      ...(pool || []));
    const square = (x, y, w, share) => `<rect x="${x.toFixed(1)}" y="${y}" width="${w.toFixed(1)}"` +
      ` height="${side - 1}" fill-opacity="${(0.06 + 0.94 * share / most).toFixed(2)}"/>`;
    let inside = "";
    classes.forEach((one, row) => {
      inside += `<text class="class" x="${left - 6}" y="${row * side + side / 2 + 4}" text-anchor="end">` +
        `${escaped(shortened(one, 14))}</text>`;
      rounds.forEach((round, k) => { inside += square(left + k * cell, row * side, cell - 1, round[row + 1]); });
      if (pool) inside += square(width - beside + 8, row * side, beside - 10, pool[row]);
    });
    const tall = classes.length * side, last = rounds.length - 1, middle = left + wide / 2;
    const word = (x, anchor, text) =>
      `<text x="${x.toFixed(1)}" y="${tall + 14}" text-anchor="${anchor}">${text}</text>`;
    inside += word(left, "start", amount(rounds[0][0]));
    if (last) inside += word(left + wide, "end", amount(rounds[last][0]));
    if (wide > 140) inside += word(middle, "middle", "labels");
    if (pool) inside += word(width - beside / 2 + 3, "middle", "pool");
    box.innerHTML = `<svg viewBox="0 0 ${width} ${tall + 20}" aria-hidden="true">${inside}` +
      '<path class="frame now" d=""/></svg>';
    heat.view = {left, cell, side, width, tall, columns: rounds.length + (pool ? 1 : 0), beside};
    box.setAttribute("aria-label",
      `${data.samplers[entry.s]}: shares of the classes by labels. Arrow keys read the values.`);
  };
  const readCell = (heat, row, column, aloud) => {
    const {entry, experiment, view} = heat, pool = experiment.pool, rounds = entry.rounds;
    const percent = (share) => fixed(share / 10, 1) + " %", name = experiment.classes[row];
    heat.at = [row, column];
    const ofPool = column === rounds.length, x = ofPool ? view.width - view.beside + 8 : view.left + column * view.cell;
    const wide = ofPool ? view.beside - 10 : view.cell - 1, y = row * view.side;
    const frame = heat.box.querySelector(".now");
    frame.setAttribute("d", `M${x} ${y}h${wide}v${view.side - 1}h${-wide}z`);
    frame.style.stroke = "var(--text)";
    const beside = pool ? `the pool has ${percent(pool[row])}` : "";
    const title = ofPool ? "the pool" : `${amount(rounds[column][0])} labels`;
    const share = ofPool ? pool[row] : rounds[column][row + 1];
    const count = ofPool ? "" : `${fixed(rounds[column][0] * share / 1000, 1)} labels, `;
    const text = ofPool ? percent(share) : `${count}${percent(share)}${beside ? "; " + beside : ""}`;
    showTip(`<b>${title}</b><bdi>${escaped(shortened(name, 40))}</bdi>: ${text}`, heat.box, x + wide / 2, view.width);
    if (aloud) live.textContent = `${title}, ${name}: ${text}`;
  };
  const clearHeat = (heat) => {
    const frame = heat.box.querySelector(".now");
    if (frame) frame.setAttribute("d", "");
    tip.hidden = true;
  };
  const listenHeat = (heat) => {
    const box = heat.box, least = (value, most) => Math.min(most, Math.max(0, value));
    box.tabIndex = 0;
    box.setAttribute("role", "application");
    box.setAttribute("aria-roledescription", "chart");
    box.setAttribute("aria-label", data.samplers[heat.entry.s]);
    const point = (event) => {
      if (!heat.view) return;
      const edges = box.getBoundingClientRect(), view = heat.view, scale = view.width / edges.width;
      const x = (event.clientX - edges.left) * scale, y = (event.clientY - edges.top) * scale;
      const ofPool = view.beside && x > view.width - view.beside, rounds = heat.entry.rounds.length;
      const column = ofPool ? rounds : least(Math.floor((x - view.left) / view.cell), rounds - 1);
      readCell(heat, least(Math.floor(y / view.side), heat.experiment.classes.length - 1), column, false);
    };
    box.addEventListener("pointermove", point);
    box.addEventListener("pointerdown", point);
    box.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") clearHeat(heat); });
    box.addEventListener("blur", () => clearHeat(heat));
    box.addEventListener("keydown", (event) => {
      const steps = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]};
      if (event.key === "Escape") clearHeat(heat);
      if (!heat.view || !(event.key in steps)) return;
      event.preventDefault();
      const [down, right] = steps[event.key], [row, column] = heat.at || [0, right > 0 || down ? -1 + !right : 0];
      const to = [least(row + (heat.at ? down : 0), heat.experiment.classes.length - 1),
        least(column + right, heat.view.columns - 1)];
      readCell(heat, ...to, true);
    });
  };
"""
