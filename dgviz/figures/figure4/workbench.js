// The workbench: the model's map, and all of Figure 4 of one weight beside it, on one screen.

const LINES_HEIGHT = 226; // what stands above, between and below the two rows of panels, but for panel (a)

class Workbench extends Figure4 {
  constructor(root) {
    super(root);
    this.spectrum = new SpectrumPanel(this.el.spectrum, this);
    this.panels.fitted = true;
    for (const name of this.el.grid.querySelectorAll(".head .name")) name.firstChild.data = name.firstChild.data.split(" ")[0];
    this.map = new ModelMap(this.el.map, (weight) => this.open(weight));
  }

  open(weight) {
    this.opened = (this.opened || 0) + 1;
    this.setStateValue("opened", { weight, times: this.opened });
  }

  layout() {
    if (!this.data) return;
    const top = this.root.getBoundingClientRect().top + (window.scrollY || 0);
    const room = window.innerHeight - Math.max(0, Math.min(top, 260)) - LINES_HEIGHT - this.el.spectrum.clientHeight;
    this.panels.wanted = Math.min(320, Math.max(104, Math.floor(room / 2)));
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
    super.update(payload, setStateValue);
    const ground = parseColour(getComputedStyle(this.root).getPropertyValue("--st-background-color"));
    this.map.layout(payload.map, isDark(ground));
    this.sayScales();
  }

  follow() {
    super.follow();
    const { data, tau } = this, rank = rankAt(data.s, tau);
    if (this.spectrum) this.spectrum.follow(data, tau, rank);
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
