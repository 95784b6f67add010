// Figure 4: state, controls and panels. Everything that follows tau does so here, without a message to Python.

const RELEASE_DELAY = 250; // ms without a change before tau is reported
const CHART_PERIOD = 60; // ms between two moves of the chart's tau line while dragging
const WATCH_PERIOD = 500; // ms between two looks at whether the chart was drawn anew
const PANEL_HEIGHT = 320; // css pixels wanted

const COLUMNS = [
  { id: "tuned", name: "Tuned delta", symbol: "D", panels: ["b", "e"] },
  { id: "repaired", name: "Repaired delta", symbol: "D*", panels: ["c", "f"] },
  { id: "discarded", name: "Discarded", symbol: "D − D*", panels: ["d", "g"] },
];
const ENTRY = { b: "tuned", c: "repaired", d: "discarded" };
const SPECTRUM = { e: "tuned", f: "repaired", g: "discarded" };
const SCALE_NAMES = { linear: "linear", sqrt: "square-root", log: "log" };

function decodePayload(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const body = bytes.slice(Math.ceil((4 + length) / 8) * 8);
  for (const { name, dtype, shape, offset } of header.arrays) {
    const size = shape.reduce((a, b) => a * b, 1);
    const Type = dtype === "float64" ? Float64Array : Uint8Array;
    header[name] = new Type(body.buffer, offset, size);
    header[name + "Shape"] = shape;
  }
  return header;
}

class Figure4 {
  constructor(root) {
    this.el = {};
    for (const node of root.querySelectorAll("[data-el]")) this.el[node.dataset.el] = node;
    this.root = root.querySelector(".f4");
    this.maps = {}; // panel -> { codes, rows, rowBlocks, columnBlocks }
    this.sent = [];
    this.buildGrid();
    this.wire();
    this.resizer = new ResizeObserver(() => this.layout());
    this.resizer.observe(this.el.grid);
    this.watch = setInterval(() => this.watchChart(), WATCH_PERIOD);
  }

  destroy() {
    this.resizer.disconnect();
    clearInterval(this.watch);
    clearTimeout(this.releaseTimer);
    clearTimeout(this.chartTimer);
  }

  // New values from Python. A tau the user has moved on from must not come back; one set by the page must.
  update(payload, setStateValue) {
    this.setStateValue = setStateValue;
    const moved = !this.data || payload.view !== this.data.view;
    const setByPage = !moved && payload.tau !== this.data.tau && !this.sent.includes(payload.tau);
    const sameSpectrum = this.data && !moved && this.data.s.length === payload.s.length;
    this.data = payload;
    if (moved || setByPage) {
      clearTimeout(this.releaseTimer);
      this.sent = [];
      this.tau = payload.tau;
    }
    if (!sameSpectrum) {
      this.range = sliderRange(payload.s, payload.edge);
      this.el["log-slider"].checked = payload.s[0] > 4 * (payload.edge || 0);
    }
    this.energy = cumulativeEnergy(payload.s);
    this.el.slider.disabled = !(this.range.high > 0);
    this.readTheme();
    this.layout();
  }

  // ---- building ---------------------------------------------------------------------------------------------

  buildGrid() {
    this.panels = {};
    this.chips = {};
    COLUMNS.forEach((column, index) => {
      const head = element("div", "head");
      head.style.gridArea = "h" + index;
      const name = element("span", "name", column.name);
      name.append(element("i", "", column.symbol));
      const energy = element("span", "chip energy"), fit = element("span", "chip fit");
      head.append(name, energy, fit);
      this.chips[column.id] = { energy, fit };
      this.el.grid.append(head);
      for (const id of column.panels) this.el.grid.append(this.buildPanel(id, column));
    });
    this.keys = ["k0", "k1"].map((area) => {
      const key = element("div", "key");
      key.style.gridArea = area;
      this.el.grid.append(key);
      return key;
    });
  }

  buildPanel(id, column) {
    const figure = element("figure", "panel");
    figure.dataset.panel = id;
    figure.style.gridArea = id;
    const what = id in ENTRY ? "entries of " : "directions of ";
    const caption = element("figcaption");
    caption.append(element("b", "", `(${id})`), what + column.symbol);
    const frame = element("div", "frame"), canvas = element("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    const panel = {
      figure, frame, canvas,
      hairX: element("div", "hair x"), hairY: element("div", "hair y"), cut: element("i", "cut"),
      note: element("span", "note"), x: element("div", "xaxis"), y: element("div", "yaxis"),
    };
    frame.append(canvas, panel.hairX, panel.hairY, panel.cut, panel.note, panel.y);
    figure.append(caption, frame, panel.x);
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      this.point(id, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("keydown", (event) => this.pointByKey(id, event));
    this.panels[id] = panel;
    return figure;
  }

  wire() {
    const { slider, number, rank, fewer, more, reset } = this.el;
    const logSlider = this.el["log-slider"];
    slider.addEventListener("input", () => this.setTau(tauAt(Number(slider.value), this.range, logSlider.checked)));
    slider.addEventListener("change", () => this.release());
    slider.addEventListener("keydown", (event) => this.slideByKey(event));
    number.addEventListener("change", () => {
      const value = Number(number.value.replace("−", "-").trim());
      const valid = number.value.trim() !== "" && Number.isFinite(value) && value >= 0;
      number.setAttribute("aria-invalid", String(!valid));
      number.title = valid ? "" : "τ is a number, 0 or larger";
      if (valid) { this.setTau(value); this.release(); }
    });
    rank.addEventListener("change", () => {
      const value = Number(rank.value.trim());
      const valid = rank.value.trim() !== "" && Number.isInteger(value) && value >= 0 && value <= this.data.s.length;
      rank.setAttribute("aria-invalid", String(!valid));
      rank.title = valid ? "" : `the rank is a whole number from 0 to ${this.data.s.length}`;
      if (valid) { this.setTau(tauForRank(this.data.s, value)); this.release(); }
    });
    fewer.addEventListener("click", () => this.step(-1));
    more.addEventListener("click", () => this.step(1));
    reset.addEventListener("click", () => { this.setTau(this.data.ruleTau); this.release(); });
    logSlider.addEventListener("change", () => this.showControls());
    this.el["log-ranks"].addEventListener("change", () => this.layout());
  }

  // ---- tau --------------------------------------------------------------------------------------------------

  setTau(tau) {
    this.tau = tau;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.follow(); });
  }

  step(direction) {
    const current = rankAt(this.data.s, this.tau);
    const next = nextRank(this.data.s, current, direction);
    if (next === current) return;
    this.setTau(tauForRank(this.data.s, next));
    this.release();
  }

  // step="any" leaves arrow keys without a step of their own.
  slideByKey(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20 };
    const { slider } = this.el;
    if (event.key in steps) slider.value = Number(slider.value) + steps[event.key] / 400;
    else if (event.key === "Home") slider.value = 0;
    else if (event.key === "End") slider.value = 1;
    else return;
    event.preventDefault();
    this.setTau(tauAt(Number(slider.value), this.range, this.el["log-slider"].checked));
    this.release();
  }

  release() {
    clearTimeout(this.releaseTimer);
    this.releaseTimer = setTimeout(() => {
      const last = this.sent.length ? this.sent[this.sent.length - 1] : this.data.tau;
      if (this.tau === last) return;
      this.sent.push(this.tau);
      this.setStateValue("released", { view: this.data.view, tau: this.tau });
      this.showWaiting();
    }, RELEASE_DELAY);
  }

  // Everything that depends on tau alone.
  follow() {
    this.showControls();
    this.showNumbers();
    this.paintSpectrum();
    this.showWaiting();
    this.scheduleChart();
    if (this.pointer) this.point(...this.pointer);
  }

  // ---- layout -----------------------------------------------------------------------------------------------

  readTheme() {
    const style = getComputedStyle(this.root);
    const ground = parseColour(style.getPropertyValue("--st-background-color"));
    this.palette = buildPalette(ground, isDark(ground));
  }

  // After new data or a new size: axes, colour bars, every panel.
  layout() {
    if (!this.data) return;
    this.ratio = window.devicePixelRatio || 1;
    const [m, n] = this.data.shape;
    for (const [id, panel] of Object.entries(this.panels)) {
      const rows = id in ENTRY ? this.data.tunedShape : this.data.directionsShape;
      panel.frame.style.height = this.panelHeight(rows && rows[0]) + "px";
      panel.canvas.setAttribute("aria-label",
        panel.figure.querySelector("figcaption").textContent + `, ${m} rows by ${id in ENTRY ? n : this.data.s.length}`);
      this.layAxis(panel.y, m, panel.frame.clientHeight, "rows (out)", false);
      if (id in ENTRY) this.layAxis(panel.x, n, panel.frame.clientWidth, "columns (in)", true);
    }
    this.layKey(this.keys[0], this.panels.b, this.data.entries, "|entry|");
    this.layKey(this.keys[1], this.panels.e, this.data.spectrum, "s|u|");
    this.paintEntries();
    this.follow();
  }

  // A whole number of device pixels per map row wherever the map is smaller than the panel.
  panelHeight(rows) {
    const wanted = PANEL_HEIGHT * this.ratio;
    return (rows && rows < wanted ? rows * Math.max(1, Math.round(wanted / rows)) : wanted) / this.ratio;
  }

  layAxis(host, length, pixels, label, horizontal) {
    host.replaceChildren(element("span", "label", label));
    const ticks = axisTicks(length, horizontal ? pixels / 70 : 5)
      .map((value) => ({ share: value / length, text: String(value) }));
    layTicks(host, ticks, pixels, horizontal ? 34 : 18, horizontal);
  }

  layDirectionAxis(panel, boundary) {
    const p = this.data.s.length, width = panel.frame.clientWidth, log = this.el["log-ranks"].checked;
    const rank = rankAt(this.data.s, this.tau);
    const share = (k) => (log ? Math.log(k + 1) / Math.log(p + 1) : k / p);
    panel.x.replaceChildren(element("span", "label", "singular direction r, sorted"));
    const ticks = [];
    if (rank > 0 && rank < p) ticks.push({ share: boundary, text: String(rank), className: "cut-label" });
    if (log) for (let r = 1; r <= p; r *= 10) ticks.push({ share: share(r - 0.5), text: String(r) });
    else for (const r of axisTicks(p, width / 70)) ticks.push({ share: share(r), text: String(r) });
    layTicks(panel.x, ticks, width, 34, true);
    panel.cut.style.display = rank > 0 && rank < p ? "block" : "none";
    panel.cut.style.left = boundary * width + "px";
  }

  layKey(key, panel, scale, quantity) {
    key.replaceChildren();
    if (!scale) return;
    const top = panel.frame.offsetTop, height = panel.frame.clientHeight;
    const bar = element("div", "bar");
    Object.assign(bar.style, { top: top + "px", height: height + "px", background: barGradient(this.palette) });
    key.append(bar);
    const place = (share) => top + height * (1 - (share === 0 ? ZERO_SHARE / 2 : ZERO_SHARE + (1 - ZERO_SHARE) * share));
    const ticks = scale.ticks.map(([share, text]) => ({ share: place(share) / height, text }));
    layTicks(key, ticks, height, 13, false);
    const label = element("span", "label", `block max of ${quantity}, ${SCALE_NAMES[scale.kind]} scale`);
    label.style.top = top + height / 2 + "px";
    key.append(label);
  }

  // ---- drawing ----------------------------------------------------------------------------------------------

  paint(id, codes, rows, rowBlocks, columnBlocks) {
    this.maps[id] = { codes, rows, rowBlocks, columnBlocks };
    paintCodes(this.panels[id].canvas, codes, rows, this.palette);
  }

  pixels(id) {
    const { frame } = this.panels[id];
    return [Math.round(frame.clientHeight * this.ratio), Math.round(frame.clientWidth * this.ratio)];
  }

  paintEntries() {
    for (const [id, name] of Object.entries(ENTRY)) {
      if (!this.data.entries) { this.blank(id); continue; }
      const [rows, columns] = this.data[name + "Shape"];
      const [height, width] = this.pixels(id);
      const rowBlocks = evenBlocks(rows, height), columnBlocks = evenBlocks(columns, width);
      const narrow = poolColumns(this.data[name], rows, columns, columnBlocks);
      const count = columnBlocks.lo.length;
      this.paint(id, poolRows(narrow, count, rowBlocks), rowBlocks.lo.length, rowBlocks, columnBlocks);
    }
  }

  // (e), (f), (g): pooled once per tau, then split at the kept rank, so that (e) = (f) + (g) pixel by pixel.
  paintSpectrum() {
    const rank = rankAt(this.data.s, this.tau);
    const [height, width] = this.pixels("e");
    const blocks = columnBlocks(this.data.s.length, Math.max(1, width), rank, this.el["log-ranks"].checked);
    const count = blocks.lo.length;
    for (const id of Object.keys(SPECTRUM)) this.layDirectionAxis(this.panels[id], blocks.boundary / count);
    if (!this.data.spectrum) { for (const id of Object.keys(SPECTRUM)) this.blank(id); return; }
    const [rows, p] = this.data.directionsShape;
    const rowBlocks = evenBlocks(rows, height);
    const whole = poolRows(poolColumns(this.data.directions, rows, p, blocks), count, rowBlocks);
    const drawn = rowBlocks.lo.length;
    const { kept, dropped } = splitColumns(whole, drawn, blocks.boundary);
    this.paint("e", whole, drawn, rowBlocks, blocks);
    this.paint("f", kept, drawn, rowBlocks, blocks);
    this.paint("g", dropped, drawn, rowBlocks, blocks);
  }

  blank(id) {
    delete this.maps[id];
    paintCodes(this.panels[id].canvas, new Uint8Array(1), 1, this.palette);
  }

  // ---- numbers ----------------------------------------------------------------------------------------------

  showControls() {
    const { slider, number, rank, reset } = this.el, { data } = this;
    const log = this.el["log-slider"].checked;
    if (document.activeElement !== slider || positionOf(this.tau, this.range, log) !== Number(slider.value)) {
      slider.value = positionOf(this.tau, this.range, log);
    }
    const kept = rankAt(data.s, this.tau);
    slider.setAttribute("aria-valuetext", `tau ${formatNumber(this.tau, 4)}, rank ${kept}`);
    number.value = formatNumber(this.tau, 5);
    number.setAttribute("aria-invalid", "false");
    rank.value = String(kept);
    rank.setAttribute("aria-invalid", "false");
    this.el.fewer.disabled = kept === 0;
    this.el.more.disabled = nextRank(data.s, kept, 1) === kept;
    reset.disabled = this.tau === data.ruleTau;
    reset.textContent = `Reset to ${data.rule}`;
    this.el.hint.textContent = `singular values at or below it are dropped · ${log ? "log" : "linear"} scale`;
    this.mark(this.el["marks-above"], data.edge, "edge", "bulk edge", log);
    this.mark(this.el["marks-below"], data.ruleTau, "rule", data.rule, log);
  }

  mark(host, value, className, text, log) {
    host.replaceChildren();
    if (!(value > 0) || value > this.range.high) return;
    const node = element("span", className, text);
    host.append(node);
    const at = positionOf(value, this.range, log) * host.clientWidth, half = node.offsetWidth / 2;
    const centre = Math.min(host.clientWidth - half, Math.max(half, at));
    node.style.left = centre + "px";
    node.style.setProperty("--at", `${at - centre + half}px`);
  }

  showNumbers() {
    const { data } = this, p = data.s.length, rank = rankAt(data.s, this.tau);
    const share = energyKept(this.energy, rank);
    const tile = (name, text, unit) => {
      this.el["tile-" + name].replaceChildren(text, ...(unit ? [element("small", "", " " + unit)] : []));
    };
    tile("rank", String(rank), `of ${p}`);
    tile("energy", share === null ? "n/a" : formatPercent(share));
    tile("tau", formatNumber(this.tau, 4), data.edge ? `${(this.tau / data.edge).toFixed(2)} × edge` : "");
    tile("edge", data.edge ? formatNumber(data.edge, 4) : "n/a");
    tile("sigma", data.sigma ? formatNumber(data.sigma, 4) : "n/a");
    const fit = data.law && fitTriple(data.law, rank);
    const energies = { tuned: share === null ? null : 1, repaired: share, discarded: share === null ? null : 1 - share };
    for (const { id } of COLUMNS) {
      const chips = this.chips[id];
      chips.fit.replaceChildren("MP-fit ", element("b", "", fit ? fit[id].toFixed(1) + " %" : "n/a"));
      chips.fit.title = fit
        ? "100 (1 − Kolmogorov distance to the Marchenko–Pastur law of the tuned delta's noise). "
          + `Pure noise of this size scores ${(100 * (1 - 5 / p)).toFixed(1)} or more; a rank-k matrix scores 100 k / p.`
        : `No MP-fit: ${data.noLaw}.`;
      chips.energy.textContent = "energy " + (energies[id] === null ? "n/a" : formatPercent(energies[id]));
      chips.energy.title = "Share of the tuned delta's sum of squared singular values.";
    }
  }

  // (c) and (d) wait for the product at the new rank; until then they say which rank they show.
  showWaiting() {
    const rank = rankAt(this.data.s, this.tau), { entries, spectrum } = this.data;
    const say = (id, text, centre, busy) => {
      const { note } = this.panels[id];
      note.style.display = text ? "block" : "none";
      note.className = "note" + (centre ? " center" : "") + (busy ? " busy" : "");
      note.textContent = text;
    };
    for (const id of Object.keys(ENTRY)) {
      const stale = entries && id !== "b" && entries.rank !== rank;
      say(id, !entries ? "computing" : stale ? `rank ${entries.rank}, updating` : "", !entries, true);
    }
    for (const id of Object.keys(SPECTRUM)) say(id, spectrum ? "" : "computing", true, true);
  }

  // ---- chart ------------------------------------------------------------------------------------------------

  scheduleChart() {
    if (this.chartTimer) return;
    const wait = Math.max(0, CHART_PERIOD - (performance.now() - (this.chartMoved || 0)));
    this.chartTimer = setTimeout(() => { this.chartTimer = 0; this.moveChart(); }, wait);
  }

  moveChart() {
    const charts = findCharts(this.data.view);
    if (charts.length && !canMoveCharts()) {
      if (!this.saidNo) { this.saidNo = true; this.setStateValue("follows", false); }
      return;
    }
    const { s, edge, rule, ruleTau } = this.data;
    for (const chart of charts) moveTau(chart, s, this.tau, rankAt(s, this.tau), edge, rule, ruleTau);
    this.chartMoved = performance.now();
    this.moved = { charts, tau: this.tau };
  }

  // Streamlit draws the chart anew after a change of theme or axis: then its tau line stands at the rule's tau again.
  watchChart() {
    if (!this.data || !this.moved) return;
    const charts = findCharts(this.data.view);
    if (charts.some((chart) => !this.moved.charts.includes(chart))) this.scheduleChart();
  }

  // ---- pointing ---------------------------------------------------------------------------------------------

  point(id, fx, fy) {
    this.pointer = id ? [id, fx, fy] : null;
    const map = id && this.maps[id];
    for (const [other, panel] of Object.entries(this.panels)) {
      const same = map && (id in ENTRY) === (other in ENTRY);
      panel.hairY.style.display = map ? "block" : "none";
      panel.hairX.style.display = same ? "block" : "none";
      if (map) panel.hairY.style.top = `calc(${100 * fy}% - .5px)`;
      if (same) panel.hairX.style.left = `calc(${100 * fx}% - .5px)`;
    }
    this.el.readout.replaceChildren(...(map ? this.describe(id, fx, fy) : [element("span", "", "Point at a panel to read values.")]));
  }

  pointByKey(id, event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const map = this.maps[id];
    if (!(event.key in moves) || !map) return;
    event.preventDefault();
    const columns = map.codes.length / map.rows, stride = event.shiftKey ? 10 : 1;
    const [, fx, fy] = this.pointer && this.pointer[0] === id ? this.pointer : [id, 0.5, 0.5];
    const shift = (f, count, by) => Math.min(1 - 0.5 / count, Math.max(0.5 / count, f + (by * stride) / count));
    this.point(id, shift(fx, columns, moves[event.key][0]), shift(fy, map.rows, moves[event.key][1]));
  }

  describe(id, fx, fy) {
    const map = this.maps[id], entry = id in ENTRY, [m, n] = this.data.shape;
    const columns = map.codes.length / map.rows;
    const i = Math.min(map.rows - 1, Math.max(0, Math.floor(fy * map.rows)));
    const j = Math.min(columns - 1, Math.max(0, Math.floor(fx * columns)));
    const mapRows = (entry ? this.data.tunedShape : this.data.directionsShape)[0];
    const span = (low, high, one, many) => (high - low > 1 ? `${many} ${low} to ${high - 1}` : `${one} ${low}`);
    const ends = (blocks, at, cells, length) =>
      [Math.floor((blocks.lo[at] * length) / cells), Math.floor((blocks.hi[at] * length) / cells)];
    const parts = [span(...ends(map.rowBlocks, i, mapRows, m), "row", "rows")];
    const values = entry ? this.data.entryValues : this.data.spectrumValues;
    const value = (panel) => {
      const code = this.maps[panel].codes[i * columns + j];
      return (code === 255 ? "≥ " : code ? "≈ " : "") + formatNumber(values[code], 2);
    };
    const nodes = [];
    const add = (label, text) => nodes.push(element("span", "", label + " "), element("b", "", text), " · ");
    if (entry) {
      parts.push(span(...ends(map.columnBlocks, j, this.data.tunedShape[1], n), "column", "columns"));
      nodes.push(parts.join(", "), " · ");
      for (const [panel, symbol] of [["b", "|D|"], ["c", "|D*|"], ["d", "|D − D*|"]]) add(symbol, value(panel));
    } else {
      const low = map.columnBlocks.lo[j], high = map.columnBlocks.hi[j], { s } = this.data;
      parts.push(span(low + 1, high + 1, "direction", "directions"));
      nodes.push(parts.join(", "), " · ");
      add("s", formatNumber(s[low], 4) + (high - low > 1 ? ` to ${formatNumber(s[high - 1], 4)}` : ""));
      add("s|u|", value("e"));
      nodes.push(element("span", "", low < rankAt(s, this.tau) ? "kept" : "dropped"), " · ");
    }
    nodes.pop();
    return nodes;
  }
}

const figures = new WeakMap();

export default function ({ parentElement, data, setStateValue }) {
  let figure = figures.get(parentElement);
  if (!figure || !figure.root.isConnected) {
    if (figure) figure.destroy();
    figure = new Figure4(parentElement);
    figures.set(parentElement, figure);
    figure.point(null);
  }
  figure.update(decodePayload(data), setStateValue);
  return () => { figure.destroy(); figures.delete(parentElement); };
}
