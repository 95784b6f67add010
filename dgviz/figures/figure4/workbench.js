// The workbench: the model's map, and all of Figure 4 of one weight beside it, on one screen.

const PICTURE_SCALE = 3; // 300 dots per inch where the figure is printed a page wide
const BESIDES = 172, BESIDES_COMPARED = 222; // captions, axes and the line below the rows of panels
const SHORT_SCREEN = 760, SAVED = 32; // where the axes of panels compared go without names

class Workbench extends Figure4 {
  constructor(root) {
    super(root);
    guardKeys();
    this.windows = []; // parts of the weight that a zoom goes back to
    this.spectrum = new SpectrumPanel(this.el.spectrum, this);
    this.dressPanels();
    for (const [type, on] of [["keydown", true], ["keyup", false]]) document.addEventListener(type, this.listener(on));
    this.map = new ModelMap(this.el.map, this);
    this.search = new WeightSearch(this.el.search, this.el.found, (weight) => this.open(weight));
    this.inspect = new DirectionPanel(this.el.inspect, this);
    this.help = new KeyHelp(this.el.help, this.el.keys);
    this.el.pooling.addEventListener("change", () => this.setStateValue("pooling", { pooling: this.el.pooling.value }));
    this.el.drawer.addEventListener("click", () => this.openDrawer(!this.el.nav.classList.contains("open")));
    this.el.tabs.addEventListener("click", (event) => { if (event.target.dataset.tab) this.turnTo(event.target.dataset.tab); });
    this.el.grid.dataset.tab = "entries";
  }

  // Below the width at which map and figure stand side by side.
  openDrawer(on) {
    this.el.nav.classList.toggle("open", on);
    this.el.drawer.setAttribute("aria-expanded", String(on));
  }

  turnTo(tab) {
    this.el.grid.dataset.tab = tab;
    for (const button of this.el.tabs.children) button.setAttribute("aria-pressed", String(button.dataset.tab === tab));
    this.layout();
  }

  hooks() {
    return {
      zoom: (window) => this.zoom(window),
      back: () => this.zoomOut(),
      pick: (number) => this.pick(number),
      hover: (number) => this.spectrum.mark("hovered", number ? [number] : []),
    };
  }

  // ---- a part of the weight -----------------------------------------------------------------------------------

  zoom(window) {
    const { rows, columns } = this.data.entries;
    this.windows.push({ weight: this.data.weight, rows, columns });
    this.setStateValue("window", { weight: this.data.weight, ...window });
  }

  zoomOut() {
    if (!this.panels.zoomed) return false;
    const last = this.windows.pop();
    const own = last && last.weight === this.data.weight ? last : { rows: null, columns: null };
    this.setStateValue("window", { weight: this.data.weight, rows: own.rows, columns: own.columns });
    return true;
  }

  // ---- one direction ------------------------------------------------------------------------------------------

  pick(number) {
    this.picked = { weight: this.data.weight, number: Math.min(this.data.s.length, Math.max(0, number)) };
    this.setStateValue("direction", this.picked);
    this.layout();
    if (number) this.el.inspect.scrollIntoView({ block: "nearest" });
  }

  hover(number) {
    if (this.hovered === number) return;
    this.hovered = number;
    this.panels.mark("hovered", number);
    this.spectrum.mark("hovered", number ? [number] : []);
  }

  decide(number, decision) {
    this.decisions = (this.decisions || 0) + 1;
    this.setStateValue("decided", { weight: this.data.weight, number, decision, times: this.decisions });
  }

  pickedNumber() {
    if (this.picked && this.picked.weight === this.data.weight) return this.picked.number;
    return this.data.direction ? this.data.direction.number : 0;
  }

  showDirection(rank) {
    const number = this.pickedNumber();
    this.el.places.classList.toggle("inspecting", number > 0);
    this.inspect.layout(this.data, number, rank);
    this.spectrum.mark("chosen", number ? [number] : []);
    this.spectrum.mark("alone", [...this.data.alone.kept, ...this.data.alone.dropped]);
    this.panels.mark("chosen", number || null);
  }

  // ---- keys ---------------------------------------------------------------------------------------------------

  // B held: what A shows in B's place, to see what changes. Z held: noise in the update's place.
  listener(on) {
    const listen = (event) => {
      if (!this.root.isConnected) { document.removeEventListener(on ? "keydown" : "keyup", listen); return; }
      if (on && (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        this.find();
        return;
      }
      if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey || event.repeat || !this.data) return;
      const compared = this.panels instanceof ComparePanels, key = event.key.toLowerCase();
      if (key === "b" && compared) this.panels.blink(on);
      if (key === "z" && this.data.sigma) this.holdTwin(on);
      if (!on || this.el.help.open) return;
      if (key === "?") this.help.open();
      if (key === "/") { event.preventDefault(); this.find(); }
      if (key === "escape") this.leave();
    };
    return listen;
  }

  find() {
    this.openDrawer(true);
    this.search.focus();
  }

  leave() {
    if (this.zoomOut()) return;
    if (this.pickedNumber()) this.pick(0);
    else if (this.map.selected.size) this.map.select([]);
    else this.openDrawer(false);
  }

  holdTwin(on) {
    const { compare } = this.data;
    if (on && compare && !(compare.same && compare.cuts.every(Boolean))) {
      this.el.said.textContent = "the noise twin stands beside two thresholds on one update only";
      return;
    }
    this.twinHeld = on;
    if (on && this.data.twin === null) {
      this.el.said.textContent = "drawing noise of this shape ...";
      this.setStateValue("twin", { view: this.data.view });
      return;
    }
    this.showTwin();
  }

  // The update's own data, or that of its twin in (a) to (d) or in the entries compared, while the key is held.
  showTwin() {
    const { data } = this, on = Boolean(this.twinHeld) && data.twin !== null;
    if (on === Boolean(this.twinShown)) return;
    this.twinShown = on;
    const shown = on ? twinOf(data) : data;
    this.panels.showEntries(shown);
    this.spectrum.layout(shown, this.el["log-ranks"].checked);
    this.spectrum.follow(shown, this.tau, rankAt(shown.s, this.tau));
    this.root.classList.toggle("twin", on);
    if (on) this.el.said.textContent = `noise twin in ${data.compare ? "(a) and all entries, what differs too" : "(a) to (d)"}: pure noise of this shape and sigma, seed 0`;
    else this.follow();
  }

  open(weight) {
    this.opened = (this.opened || 0) + 1;
    this.setStateValue("opened", { weight, times: this.opened });
    this.openDrawer(false);
  }

  // What was selected on the map, for the plan; and how its cells are to be ordered.
  tellSelected(names) {
    this.selections = (this.selections || 0) + 1;
    this.setStateValue("selected", { names, times: this.selections });
  }

  tellOrder(order) {
    this.setStateValue("order", { order });
  }

  // Figure 4, or two thresholds compared: the panels are other ones.
  choosePanels(payload) {
    const compared = Boolean(payload.compare);
    this.root.classList.toggle("comparing", compared);
    if (compared === this.panels instanceof ComparePanels) return;
    this.el.grid.replaceChildren();
    this.el.grid.className = "grid";
    this.panels = new (compared ? ComparePanels : Panels)(this.el.grid, this.el.readout, this.hooks());
    this.dressPanels();
  }

  dressPanels() {
    this.panels.fitted = true;
    if (this.panels instanceof ComparePanels) return;
    for (const name of this.el.grid.querySelectorAll(".head .name")) name.firstChild.data = name.firstChild.data.split(" ")[0];
  }

  showTable() {
    const { table, reasons } = this.el, { data, tau } = this;
    table.hidden = reasons.hidden = !data.compare;
    table.replaceChildren();
    if (!data.compare) return;
    const told = compareTable(data, tau);
    reasons.textContent = told.reasons.length ? `–  ${told.reasons.join(" · ")}` : "";
    reasons.hidden = !told.reasons.length;
    table.append(...told.rows.map((cells, i) => {
      const row = element("tr");
      row.append(...cells.map((text, j) => element((i && j) || !text ? "td" : "th", "", text)));
      return row;
    }));
  }

  showNumbers(rank) {
    if (!this.data.compare) super.showNumbers(rank);
  }

  layout() {
    if (!this.data) return;
    this.showTable(); // its height is known before that of the panels
    this.showDirection(rankAt(this.data.s, this.tau)); // so is the room it leaves to the figure
    const tabbed = this.el.tabs.offsetHeight > 0, compared = Boolean(this.data.compare), rows = (compared ? 4 : 2) / (tabbed ? 2 : 1), between = compared ? BESIDES_COMPARED - SAVED * (window.innerHeight <= SHORT_SCREEN) : BESIDES;
    const top = Math.max(0, Math.min(this.el.grid.getBoundingClientRect().top, 520));
    this.panels.wanted = Math.min(320, Math.max(compared ? 36 : 104, Math.floor((window.innerHeight - top - between) / rows)));
    if (this.spectrum) this.spectrum.layout(this.data, this.el["log-ranks"].checked);
    super.layout();
    this.showDirection(rankAt(this.data.s, this.tau));
  }

  // What the colours of the two rows mean, in one line: beside the bars there is no room for it.
  sayScales() {
    const { entries, spectrum } = this.data;
    const parts = [entries && `(b) to (d): ${SCALE_NAMES[entries.kind]} scale`, spectrum && `(e) to (g): largest s |u|, ${SCALE_NAMES[spectrum.kind]} scale`];
    this.el.pooling.value = entries ? entries.pooling : this.el.pooling.value;
    for (const choice of ["pooling-choice", "proportion-choice"]) this.el[choice].hidden = Boolean(this.data.compare);
    this.el.scales.textContent = parts.filter(Boolean).join(" · ");
  }

  update(payload, setStateValue) {
    this.choosePanels(payload);
    super.update(payload, setStateValue);
    const ground = parseColour(getComputedStyle(this.root).getPropertyValue("--st-background-color"));
    this.twinShown = false;
    this.root.classList.remove("twin");
    this.showTwin();
    this.map.layout(payload.map, isDark(ground));
    if (this.map.names.length) this.search.names = this.map.names;
    this.sayScales();
    if (payload.picture && payload.picture.number !== this.pictured) this.savePicture(payload.picture);
  }

  // The static figure as pixels; said once it is there, so that it is not sent again.
  async savePicture({ number, name, svg }) {
    this.pictured = number;
    const image = new Image(), link = element("a");
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
    await image.decode();
    const canvas = element("canvas");
    Object.assign(canvas, { width: PICTURE_SCALE * image.width, height: PICTURE_SCALE * image.height });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    Object.assign(link, { href: canvas.toDataURL("image/png"), download: name });
    link.click();
    this.setStateValue("pictured", { number });
  }

  follow() {
    super.follow();
    const { data, tau } = this, rank = rankAt(data.s, tau);
    if (this.spectrum) this.spectrum.follow(data, tau, rank);
    this.showTable();
    this.showDirection(rank);
    this.el.said.textContent = aboutTau(data.s, tau, data.edge, rank);
  }
}

// The payload with its noise twin in the update's place: what A and B keep of it and what differs, where they stand.
function twinOf(data) {
  const twin = { tuned: data.twinTuned, repaired: data.twinRepaired, discarded: data.twinDiscarded };
  if (data.compare) Object.assign(twin, { repairedB: data.twinRepaired, discardedB: data.twinDiscarded, repairedA: data.twinRepairedA, discardedA: data.twinDiscardedA, between: data.twinBetween });
  return { ...data, ...twin, s: data.twinS, axis: data.s, tunedExact: undefined, entries: { ...data.entries, rank: data.twin } };
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
