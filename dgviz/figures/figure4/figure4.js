// Figure 4: tau and its controls. Everything that follows tau does so here, without a message to Python.

const RELEASE_DELAY = 250; // ms without a change before tau is reported
const CHART_PERIOD = 60; // ms between two moves of the chart's tau line while dragging
const WATCH_PERIOD = 500; // ms between two looks at whether the chart was drawn anew
const ASK_PERIOD = 700; // ms between two questions for the lower row while it is being computed

function decodePayload(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length)));
  const body = bytes.slice(Math.ceil((4 + length) / 8) * 8);
  for (const { name, dtype, shape, offset } of header.arrays) {
    const Type = { float64: Float64Array, float32: Float32Array, uint8: Uint8Array }[dtype];
    header[name] = new Type(body.buffer, offset, shape.reduce((a, b) => a * b, 1));
    header[name + "Shape"] = shape;
  }
  return header;
}

class Figure4 {
  constructor(root) {
    this.el = {};
    for (const node of root.querySelectorAll("[data-el]")) this.el[node.dataset.el] = node;
    this.root = root.querySelector(".f4");
    this.panels = new Panels(this.el.grid, this.el.readout, FIGURE4, this.hooks());
    this.sent = [];
    this.wire();
    this.resizer = new ResizeObserver(() => this.layout());
    this.resizer.observe(this.el.grid);
    this.watch = setInterval(() => this.watchChart(), WATCH_PERIOD);
  }

  hooks() {
    return null;
  }

  destroy() {
    this.resizer.disconnect();
    clearInterval(this.watch);
    clearInterval(this.asking);
    clearTimeout(this.releaseTimer);
    clearTimeout(this.chartTimer);
    cancelAnimationFrame(this.frame);
  }

  // New values from Python. A tau the user has moved on from must not come back; one set by the page must.
  update(payload, setStateValue) {
    this.setStateValue = setStateValue;
    const moved = !this.data || payload.view !== this.data.view;
    const setByPage = !moved && payload.tau !== this.data.tau && !this.sent.includes(payload.tau);
    this.data = payload;
    if (moved || setByPage) {
      clearTimeout(this.releaseTimer);
      this.sent = [];
      this.tau = payload.tau;
    }
    if (moved) {
      this.range = sliderRange(payload.s, payload.edge);
      if (this.el["log-slider"]) this.el["log-slider"].checked = payload.s[0] > 4 * (payload.edge || 0);
      if (this.el.slider) this.el.slider.disabled = !(this.range.high > 0);
    }
    this.energy = cumulativeEnergy(payload.s);
    const ground = parseColour(getComputedStyle(this.root).getPropertyValue("--st-background-color"));
    this.palette = buildPalette(ground, isDark(ground));
    this.layout();
    this.askForRest();
  }

  // The figure itself asks until it has what it lacks: a question or an answer that is lost is asked again.
  askForRest() {
    clearInterval(this.asking);
    if (this.data.spectrum && this.data.entries && !(this.data.direction && this.data.direction.waiting)) return;
    this.asking = setInterval(() => {
      this.asked = (this.asked || 0) + 1;
      this.setStateValue("asked", { view: this.data.view, times: this.asked });
    }, ASK_PERIOD);
  }

  wire() {
    const { slider, number, rank, fewer, more, reset } = this.el;
    if (slider) this.wireSlider(slider);
    this.wireField(number, "τ is a number, 0 or larger", (value) => (value >= 0 ? value : null));
    this.wireField(rank, "the rank is a whole number from 0 to p", (value) => {
      const { s } = this.data;
      return Number.isInteger(value) && value >= 0 && value <= s.length ? tauForRank(s, value) : null;
    });
    fewer.addEventListener("click", () => this.step(-1));
    more.addEventListener("click", () => this.step(1));
    reset.addEventListener("click", () => this.jump(this.data.ruleTau));
    this.el["log-ranks"].addEventListener("change", () => this.layout());
  }

  wireSlider(slider) {
    slider.addEventListener("input", () => this.setTau(this.sliderTau()));
    slider.addEventListener("change", () => this.release());
    slider.addEventListener("keydown", (event) => this.slideByKey(event));
    this.el["log-slider"].addEventListener("change", () => { this.showMarks(); this.showControls(); });
  }

  // A text field whose number becomes a tau; anything else is marked and changes nothing.
  wireField(field, rule, toTau) {
    field.addEventListener("input", () => { this.typing = field; });
    field.addEventListener("blur", () => { this.typing = null; });
    field.addEventListener("change", () => {
      const text = field.value.replace("−", "-").trim(), value = Number(text);
      const tau = text !== "" && Number.isFinite(value) ? toTau(value) : null;
      field.setAttribute("aria-invalid", String(tau === null));
      field.title = tau === null ? rule : "";
      if (tau === null) return;
      this.typing = null;
      this.jump(tau);
    });
  }

  // ---- tau ----------------------------------------------------------------------------------------------------

  sliderTau() {
    return tauAt(Number(this.el.slider.value), this.range, this.el["log-slider"].checked);
  }

  setTau(tau) {
    this.tau = tau;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.follow(); });
  }

  jump(tau) {
    this.setTau(tau);
    this.release();
  }

  step(direction, times = 1) {
    const current = rankAt(this.data.s, this.tau);
    let next = current;
    for (let i = 0; i < times; i++) next = nextRank(this.data.s, next, direction);
    if (next !== current) this.jump(tauForRank(this.data.s, next));
  }

  // step="any" leaves arrow keys without a step of their own.
  slideByKey(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20, Home: -400, End: 400 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.el.slider.value = Number(this.el.slider.value) + steps[event.key] / 400;
    this.jump(this.sliderTau());
  }

  release() {
    clearTimeout(this.releaseTimer);
    this.releaseTimer = setTimeout(() => {
      const last = this.sent.length ? this.sent[this.sent.length - 1] : this.data.tau;
      if (this.tau === last) return;
      this.sent.push(this.tau);
      this.setStateValue("released", { view: this.data.view, tau: this.tau });
    }, RELEASE_DELAY);
  }

  // After new data or a new size.
  layout() {
    if (!this.data) return;
    this.panels.layout(this.data, this.palette, this.el["log-ranks"].checked);
    this.showMarks();
    this.follow();
  }

  // Everything that depends on tau alone.
  follow() {
    const rank = rankAt(this.data.s, this.tau);
    this.panels.paintSpectrum(rank);
    this.panels.showWaiting(rank);
    this.showControls();
    this.showNumbers(rank);
    this.scheduleChart();
  }

  // ---- controls and numbers -----------------------------------------------------------------------------------

  showControls() {
    const { slider, number, rank, reset, fewer, more, hint } = this.el, { data } = this;
    const kept = rankAt(data.s, this.tau);
    if (slider) this.showSlider(slider, hint, kept);
    for (const [field, text] of [[number, formatNumber(this.tau, 5)], [rank, String(kept)]]) {
      if (field === this.typing) continue;
      field.value = text;
      field.setAttribute("aria-invalid", "false");
    }
    fewer.disabled = nextRank(data.s, kept, -1) === kept;
    more.disabled = nextRank(data.s, kept, 1) === kept;
    reset.disabled = this.tau === data.ruleTau;
    reset.textContent = `Reset to ${data.rule}`;
  }

  showSlider(slider, hint, kept) {
    const log = this.el["log-slider"].checked;
    slider.value = positionOf(this.tau, this.range, log);
    slider.style.setProperty("--share", slider.value);
    slider.setAttribute("aria-valuetext", `tau ${formatNumber(this.tau, 4)}, rank ${kept}`);
    hint.textContent = `singular values at or below it are dropped · ${log ? "log" : "linear"} scale`;
  }

  showMarks() {
    if (!this.el.slider) return;
    const log = this.el["log-slider"].checked, { edge, ruleTau, rule } = this.data;
    // The edge above the track, the rule below: their names never meet, however close the values.
    const marks = [["above", edge, "edge", "bulk edge"], ["below", ruleTau, "rule", rule]];
    for (const [side, value, className, text] of marks) {
      const host = this.el["marks-" + side];
      host.replaceChildren();
      if (!(value > 0) || value > this.range.high) continue;
      const node = element("span", className, text);
      host.append(node);
      const at = positionOf(value, this.range, log) * host.clientWidth, half = node.offsetWidth / 2;
      const centre = Math.min(host.clientWidth - half, Math.max(half, at));
      node.style.left = centre + "px";
      node.style.setProperty("--at", `${at - centre + half}px`);
    }
  }

  showNumbers(rank) {
    const { data } = this, p = data.s.length, share = energyKept(this.energy, rank);
    const tile = (name, text, unit) => {
      if (this.el["tile-" + name]) this.el["tile-" + name].replaceChildren(text, ...(unit ? [element("small", "", " " + unit)] : []));
    };
    tile("rank", String(rank), `of ${p}`);
    tile("energy", share === null ? "n/a" : formatPercent(share));
    tile("tau", formatNumber(this.tau, 4), data.edge ? `${formatNumber(this.tau / data.edge, 3)} × edge` : "");
    tile("edge", data.edge ? formatNumber(data.edge, 4) : "n/a");
    tile("sigma", data.sigma ? formatNumber(data.sigma, 4) : "n/a");
    const fit = data.law ? fitTriple(data.law, rank) : null;
    const energies = { tuned: 1, repaired: share, discarded: 1 - share };
    for (const [id, chips] of Object.entries(this.panels.chips)) {
      chips.fit.replaceChildren("MP-fit ", element("b", "", fit ? fit[id].toFixed(1) + " %" : "n/a"));
      chips.fit.dataset.kind = !fit ? "" : fit[id] > data.noiseFit - 10 ? "noise" : fit[id] < 60 ? "structured" : "";
      chips.fit.title = fit
        ? "100 (1 − Kolmogorov distance to the Marchenko–Pastur law of the tuned delta's noise). "
          + `Noise of independent entries of this shape usually scores ${data.noiseFit.toFixed(1)} %; rank k kept above the bulk scores 100 k / p.`
        : `No MP-fit: ${data.noLaw}.`;
      chips.energy.replaceChildren(element("span", "word", "energy "), share === null ? "n/a" : formatPercent(energies[id]));
      chips.energy.title = "Share of the tuned delta's sum of squared singular values.";
    }
  }

  // ---- the charts of the spectrum ------------------------------------------------------------------------------

  scheduleChart() {
    if (this.chartTimer) return;
    const wait = Math.max(0, CHART_PERIOD - (performance.now() - (this.chartMoved || 0)));
    this.chartTimer = setTimeout(() => { this.chartTimer = 0; this.moveCharts(); }, wait);
  }

  moveCharts() {
    this.charts = findCharts(this.data.view);
    if (this.charts.length && !canMoveCharts()) {
      if (!this.saidNo) { this.saidNo = true; this.setStateValue("follows", false); }
      return;
    }
    for (const chart of this.charts) moveTau(chart, this.data, this.tau, rankAt(this.data.s, this.tau));
    this.chartMoved = performance.now();
  }

  // Streamlit draws the chart anew after a change of theme or axes: then its tau line stands at the rule's tau again.
  watchChart() {
    if (this.data && findCharts(this.data.view).some((chart) => !(this.charts || []).includes(chart))) this.scheduleChart();
  }
}
