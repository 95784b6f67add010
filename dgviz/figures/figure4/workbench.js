// The workbench: the model's map, and all of Figure 4 of one weight beside it, on one screen.

const BESIDES = 172, BESIDES_COMPARED = 222; // captions, axes and the line below the rows of panels

class Workbench extends Figure4 {
  constructor(root) {
    super(root);
    this.spectrum = new SpectrumPanel(this.el.spectrum, this);
    this.dressPanels();
    for (const [type, on] of [["keydown", true], ["keyup", false]]) document.addEventListener(type, this.listener(on));
    this.map = new ModelMap(this.el.map, (weight) => this.open(weight));
  }

  // B held: what A shows in B's place, to see what changes. Z held: noise in the update's place.
  listener(on) {
    const listen = (event) => {
      if (!this.root.isConnected) { document.removeEventListener(on ? "keydown" : "keyup", listen); return; }
      const typing = event.composedPath().some((node) => ["INPUT", "TEXTAREA"].includes(node.tagName));
      if (typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
      const compared = this.panels instanceof ComparePanels;
      if (event.key.toLowerCase() === "b" && compared) this.panels.blink(on);
      if (event.key.toLowerCase() === "z" && !compared && this.data && this.data.sigma) this.holdTwin(on);
    };
    return listen;
  }

  holdTwin(on) {
    this.twinHeld = on;
    if (on && this.data.twin === null) {
      this.el.said.textContent = "drawing noise of this shape ...";
      this.setStateValue("twin", { view: this.data.view });
      return;
    }
    this.showTwin();
  }

  // The update's own data, or that of its twin in (a) to (d), as long as the key is held.
  showTwin() {
    const { data } = this, on = Boolean(this.twinHeld) && data.twin !== null;
    if (on === Boolean(this.twinShown)) return;
    this.twinShown = on;
    const twin = { tuned: data.twinTuned, repaired: data.twinRepaired, discarded: data.twinDiscarded };
    const shown = on ? { ...data, ...twin, s: data.twinS, axis: data.s, entries: { ...data.entries, rank: data.twin } } : data;
    this.panels.data = shown;
    this.panels.paintEntries();
    this.spectrum.layout(shown, this.el["log-ranks"].checked);
    this.spectrum.follow(shown, this.tau, rankAt(shown.s, this.tau));
    this.root.classList.toggle("twin", on);
    if (on) this.el.said.textContent = "noise twin in (a) to (d): pure noise of this shape and sigma, seed 0";
    else this.follow();
  }

  open(weight) {
    this.opened = (this.opened || 0) + 1;
    this.setStateValue("opened", { weight, times: this.opened });
  }

  // Figure 4, or two thresholds compared: the panels are other ones.
  choosePanels(payload) {
    const compared = Boolean(payload.compare);
    this.root.classList.toggle("comparing", compared);
    if (compared === this.panels instanceof ComparePanels) return;
    this.el.grid.replaceChildren();
    this.el.grid.className = "grid";
    this.panels = compared ? new ComparePanels(this.el.grid, this.el.readout) : new Panels(this.el.grid, this.el.readout);
    this.dressPanels();
  }

  dressPanels() {
    this.panels.fitted = true;
    if (this.panels instanceof ComparePanels) return;
    for (const name of this.el.grid.querySelectorAll(".head .name")) name.firstChild.data = name.firstChild.data.split(" ")[0];
  }

  showTable() {
    const { table } = this.el, { data, tau } = this;
    table.hidden = !data.compare;
    table.replaceChildren();
    if (!data.compare) return;
    table.append(...compareTable(data, tau).map((cells, i) => {
      const row = element("tr");
      row.append(...cells.map((text, j) => element(i && j ? "td" : "th", "", text)));
      return row;
    }));
  }

  showNumbers(rank) {
    if (!this.data.compare) super.showNumbers(rank);
  }

  layout() {
    if (!this.data) return;
    this.showTable(); // its height is known before that of the panels
    const compared = Boolean(this.data.compare), rows = compared ? 4 : 2, between = compared ? BESIDES_COMPARED : BESIDES;
    const top = Math.max(0, Math.min(this.el.grid.getBoundingClientRect().top, 520));
    this.panels.wanted = Math.min(320, Math.max(compared ? 60 : 104, Math.floor((window.innerHeight - top - between) / rows)));
    if (this.spectrum) this.spectrum.layout(this.data, this.el["log-ranks"].checked);
    super.layout();
  }

  // What the colours of the two rows mean, in one line: beside the bars there is no room for it.
  sayScales() {
    const { entries, spectrum } = this.data, say = (scale, of) => (scale ? `${of} per block (${SCALE_NAMES[scale.kind]} scale)` : "");
    const parts = [say(entries, "upper row: largest |entry|"), say(spectrum, "lower row: largest s |u|")].filter(Boolean);
    this.el.scales.textContent = parts.join(" · ");
  }

  update(payload, setStateValue) {
    this.choosePanels(payload);
    super.update(payload, setStateValue);
    const ground = parseColour(getComputedStyle(this.root).getPropertyValue("--st-background-color"));
    this.twinShown = false;
    this.root.classList.remove("twin");
    this.showTwin();
    this.map.layout(payload.map, isDark(ground));
    this.sayScales();
  }

  follow() {
    super.follow();
    const { data, tau } = this, rank = rankAt(data.s, tau);
    if (this.spectrum) this.spectrum.follow(data, tau, rank);
    this.showTable();
    this.el.said.textContent = aboutTau(data.s, tau, data.edge, rank);
  }
}

// What is to be said of a tau at once: directions kept inside the bulk are like noise.
function aboutTau(s, tau, edge, rank) {
  if (!edge) return "";
  const above = rankAt(s, edge), share = energyKept(cumulativeEnergy(s), rank);
  if (rank > above) return `${rank - above} of the ${rank} kept stand below the bulk edge: like noise`;
  return `${formatNumber(tau / edge, 3)} × bulk edge, ${formatPercent(share)} of the energy`;
}

const benches = new WeakMap();

export default function ({ parentElement, data, setStateValue }) {
  let bench = benches.get(parentElement);
  if (!bench || !bench.root.isConnected) {
    if (bench) bench.destroy();
    bench = new Workbench(parentElement);
    benches.set(parentElement, bench);
  }
  bench.update(decodePayload(data), setStateValue);
  return () => { bench.destroy(); benches.delete(parentElement); };
}
