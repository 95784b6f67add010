// Figure 4: tau and its controls. Everything that follows tau does so here, without a message to Python.

const STEP_DELAY = 250; // ms without a step before tau is reported: a key that is held makes many
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
    this.panels = new Panels(this.el.grid, this.el.readout, this.hooks());
    this.sent = [];
    this.wire();
    this.resizer = new ResizeObserver(() => this.layout());
    this.resizer.observe(this.el.grid);
  }

  destroy() {
    this.resizer.disconnect();
    clearInterval(this.asking);
    clearTimeout(this.releaseTimer);
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
    this.energy = cumulativeEnergy(payload.s);
    const ground = parseColour(getComputedStyle(this.root).getPropertyValue("--st-background-color"));
    this.palette = buildPalette(ground, isDark(ground));
    this.layout();
    this.askForRest();
  }

  // The figure itself asks until it has what it lacks: a question or an answer that is lost is asked again.
  askForRest() {
    clearInterval(this.asking);
    const compared = !this.data.compare || this.data.compare.a;
    if (this.data.spectrum && this.data.entries && compared && !(this.data.direction && this.data.direction.waiting)) return;
    this.asking = setInterval(() => {
      this.asked = (this.asked || 0) + 1;
      this.setStateValue("asked", { view: this.data.view, times: this.asked });
    }, ASK_PERIOD);
  }

  wire() {
    const { number, rank, fewer, more, reset } = this.el;
    this.wireField(number, "τ is a number, 0 or larger", (value) => (value >= 0 ? value : null));
    this.wireField(rank, "the rank is a whole number from 0 to p", (value) => {
      const { s } = this.data;
      return Number.isInteger(value) && value >= 0 && value <= s.length ? tauForRank(s, value) : null;
    });
    fewer.addEventListener("click", () => this.step(-1));
    more.addEventListener("click", () => this.step(1));
    reset.addEventListener("click", () => this.jump(this.data.ruleTau));
    for (const name of ["log-ranks", "in-proportion"]) rememberBox(this.el[name], `dgviz-${name}`, () => this.layout());
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

  setTau(tau) {
    this.tau = tau;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => { this.frame = 0; this.follow(); });
  }

  jump(tau, delay = 0) {
    this.setTau(tau);
    this.release(delay);
  }

  step(direction, times = 1) {
    const current = rankAt(this.data.s, this.tau);
    let next = current;
    for (let i = 0; i < times; i++) next = nextRank(this.data.s, next, direction);
    if (next !== current) this.jump(tauForRank(this.data.s, next), STEP_DELAY);
  }

  release(delay = 0) {
    clearTimeout(this.releaseTimer);
    this.releaseTimer = setTimeout(() => {
      const last = this.sent.length ? this.sent[this.sent.length - 1] : this.data.tau;
      if (this.tau === last) return;
      this.sent.push(this.tau);
      this.setStateValue("released", { view: this.data.view, tau: this.tau });
    }, delay);
  }

  // After new data or a new size.
  layout() {
    if (!this.data) return;
    this.panels.inProportion = this.el["in-proportion"].checked;
    this.panels.layout(this.data, this.palette, this.el["log-ranks"].checked);
    this.follow();
  }

  // Everything that depends on tau alone.
  follow() {
    const rank = rankAt(this.data.s, this.tau);
    this.panels.paintSpectrum(rank);
    this.panels.showWaiting(rank);
    this.showControls();
    this.showNumbers(rank);
  }

  // ---- controls and numbers -----------------------------------------------------------------------------------

  showControls() {
    const { number, rank, reset, fewer, more } = this.el, { data } = this;
    const kept = rankAt(data.s, this.tau);
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

  showNumbers(rank) {
    const { data } = this, share = energyKept(this.energy, rank);
    const fit = data.law ? fitTriple(data.law, rank) : null;
    const energies = { tuned: 1, repaired: share, discarded: 1 - share };
    this.panels.sayKept(`${rank} of ${data.s.length}${share === null ? "" : `, ${formatPercent(share)} of the energy`}`);
    for (const [id, chips] of Object.entries(this.panels.chips)) {
      const own = id === "discarded" && fit && fit.discardedOwn !== null ? ` own ${fit.discardedOwn.toFixed(1)}` : "";
      chips.fit.replaceChildren(own ? "Fit " : "MP-fit ", element("b", "", fit ? fit[id].toFixed(1) : "n/a"));
      if (fit) chips.fit.append(`${own} noise ${data.noiseFit.toFixed(1)}`);
      chips.fit.dataset.kind = !fit ? "" : fit[id] > data.noiseFit - 10 ? "noise" : fit[id] < 60 ? "structured" : "";
      chips.fit.title = fit
        ? "100 (1 − Kolmogorov distance to the Marchenko–Pastur law of the tuned delta's noise). "
          + `Noise of independent entries of this shape usually scores ${data.noiseFit.toFixed(1)} %; rank k kept above the bulk scores 100 k / p. `
          + "The first number is over all p values, of which those kept are zero in the discarded delta; own: over its own values only."
        : `No MP-fit: ${data.noLaw}.`;
      chips.energy.replaceChildren(element("span", "word", "energy "), share === null ? "n/a" : formatPercent(energies[id]));
      chips.energy.title = "Share of the tuned delta's sum of squared singular values.";
    }
  }
}
