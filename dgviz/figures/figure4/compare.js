// Two updates of one weight side by side: A is any, B the threshold in view; what each keeps and drops, what differs.

const COMPARED = {
  columns: [
    { id: "a", name: "A", symbol: "", panels: { ca: "kept by A, entries", da: "dropped by A, entries", fa: "kept by A, directions", ga: "dropped by A, directions" } },
    { id: "b", name: "B", symbol: "", panels: { cb: "kept by B, entries", db: "dropped by B, entries", fb: "kept by B, directions", gb: "dropped by B, directions" } },
    { id: "between", name: "What differs", symbol: "", panels: { cx: "entries", fx: "directions" } },
  ],
  entry: { ca: "repairedA", da: "discardedA", cx: "between", cb: "repaired", db: "discarded" },
  spectrum: ["fa", "ga", "fb", "gb", "fx"],
  read: [["ca", "A keeps"], ["cb", "B keeps"], ["cx", "differs"]],
};

class ComparePanels extends Panels {
  constructor(grid, readout, hooks) {
    super(grid, readout, hooks, COMPARED);
    grid.classList.add("compared");
  }

  // What differs is drawn once, as high as the two rows beside it.
  frameHeight(id) {
    return id[1] === "x" ? 2 * this.wanted + 26 : this.wanted;
  }

  // Every direction's column stands once per rank that divides it, so that no pixel is of both sides.
  paintSpectrum(rank) {
    const first = this.data.compare.rank, { own } = this.data.compare;
    if (rank === this.rank) return;
    this.rank = rank;
    const { height, width } = this.panels.fa, ratio = window.devicePixelRatio || 1;
    const sides = own ? [[rank, "fb", "gb"]] : [[first, "fa", "ga"], [rank, "fb", "gb"]];
    const low = Math.min(first, rank), high = Math.max(first, rank), p = this.data.s.length;
    for (const [own, kept, dropped] of sides) {
      const blocks = columnBlocks(p, Math.max(1, Math.round(width * ratio)), own, this.logRanks);
      const share = blocks.boundary / blocks.lo.length;
      for (const id of [kept, dropped]) this.layDirectionAxis(this.panels[id], share, own);
      if (!this.data.spectrum) { [kept, dropped].forEach((id) => this.blank(id)); continue; }
      const drawn = this.pool(blocks, height * ratio), parts = splitColumns(drawn.codes, drawn.rows, blocks.boundary);
      this.paint(kept, parts.kept, drawn.rows, drawn.rowBlocks, blocks);
      this.paint(dropped, parts.dropped, drawn.rows, drawn.rowBlocks, blocks);
    }
    if (own) this.paintOwn();
    else this.paintBetween(low, high);
    this.nameBetween(low, high, first > rank);
    this.mark("chosen", this.data.direction ? this.data.direction.number : null);
    if (this.pointer) this.point(...this.pointer);
  }

  // The directions of an update that is no threshold's come drawn; none where it has singular vectors of its own.
  paintOwn() {
    const ratio = window.devicePixelRatio || 1, p = this.data.s.length;
    for (const [id, name] of [["fa", "directionsA"], ["ga", "restA"], ["fx", "directionsBetween"]]) {
      const panel = this.panels[id], blocks = columnBlocks(p, Math.max(1, Math.round(panel.width * ratio)), p, this.logRanks);
      this.layDirectionAxis(panel, 1, p);
      for (const side of [panel.kept, panel.dropped]) side.style.display = "none";
      if (!this.data.spectrum || !this.data[name]) { this.blank(id); continue; }
      const drawn = this.pool(blocks, panel.height * ratio, this.data[name]);
      this.paint(id, drawn.codes, drawn.rows, drawn.rowBlocks, blocks);
    }
  }

  pool(blocks, height, codes = this.data.directions) {
    const [rows, p] = this.data.directionsShape, rowBlocks = evenBlocks(rows, Math.round(height));
    const pooled = poolColumns(codes, rows, p, blocks);
    return { codes: poolRows(pooled, blocks.lo.length, rowBlocks), rows: rowBlocks.lo.length, rowBlocks };
  }

  // The directions from `low` on, up to `high`: those that one side keeps and the other drops.
  paintBetween(low, high) {
    const panel = this.panels.fx, ratio = window.devicePixelRatio || 1, p = this.data.s.length;
    const blocks = columnBlocks(p, Math.max(1, Math.round(panel.width * ratio)), high, this.logRanks);
    this.layDirectionAxis(panel, blocks.boundary / blocks.lo.length, high);
    for (const side of [panel.kept, panel.dropped]) side.style.display = "none";
    if (!this.data.spectrum || low === high) { this.blank("fx"); return; }
    const drawn = this.pool(blocks, panel.height * ratio), count = blocks.lo.length;
    const codes = drawn.codes.slice();
    for (let j = 0; j < count; j++) {
      if (blocks.lo[j] >= low && blocks.hi[j] <= high) continue;
      for (let i = 0; i < drawn.rows; i++) codes[i * count + j] = 0;
    }
    this.paint("fx", codes, drawn.rows, drawn.rowBlocks, blocks);
  }

  nameBetween(low, high, moreInA) {
    if (this.data.compare.own) {
      for (const id of ["cx", "fx"]) this.panels[id].caption.lastChild.data = "A − B, in size";
      return;
    }
    const more = moreInA ? "A" : "B", count = high - low;
    const text = count ? `${count} direction${count > 1 ? "s" : ""} only ${more} keeps` : "nothing: both keep the same";
    for (const id of ["cx", "fx"]) this.panels[id].caption.lastChild.data = text;
  }

  showWaiting(rank) {
    const { entries, spectrum, compare } = this.data;
    for (const [id, { note }] of Object.entries(this.panels)) {
      const present = id in this.plan.entry ? entries : spectrum;
      const follows = ["cb", "db", "cx", ...(compare.own ? ["fx"] : [])].includes(id);
      const stale = present && follows && (entries.rank !== rank || compare.other !== rank);
      const apart = present && compare.own && !this.data.directionsA && ["fa", "ga", "fx"].includes(id);
      note.textContent = !present ? "computing" : apart ? "A has directions of its own" : stale ? `rank ${entries.rank}, updating` : "";
      note.className = "note" + (apart ? " center still" : present ? "" : " center");
      note.style.display = note.textContent ? "block" : "none";
    }
  }

  // While the key is held B's panels show what A's do.
  blink(on) {
    for (const kind of "cdfg") {
      const from = this.maps[kind + (on ? "a" : "b")];
      if (from) paintCodes(this.panels[kind + "b"].canvas, from.codes, from.rows, this.palette);
    }
    this.panels.cb.frame.closest(".grid").classList.toggle("blinking", on);
  }
}

// A table of both updates and their difference; a dash stands for what an update has not, such as a tau.
function compareTable(data, tau) {
  const { compare } = data, sums = cumulativeEnergy(data.s), side = (at) => {
    const rank = rankAt(data.s, at), fit = data.law ? fitTriple(data.law, rank) : null;
    return { tau: at, rank, energy: energyKept(sums, rank) || 0, kept: fit && fit.repaired, dropped: fit && fit.discarded };
  };
  const given = compare.own && { tau: compare.tau, rank: compare.rank, energy: compare.own.energy, kept: compare.own.fits[0], dropped: compare.own.fits[1] };
  const a = given || side(compare.tau), b = side(tau), or = (value, text) => (value === null ? "–" : text(value)), fit = (value) => or(value, (it) => it.toFixed(1));
  const told = (it) => [or(it.tau, (at) => formatNumber(at, 4)), or(it.rank, String), formatPercent(it.energy), fit(it.kept), fit(it.dropped)];
  const fits = ["kept", "dropped"].map((part) => (a[part] === null || b[part] === null ? "" : signed(b[part] - a[part], 1)));
  const points = `${signed(100 * (b.energy - a.energy), 1)} points`;
  return [
    ["", "τ", "rank", "energy kept", "MP-fit of the kept", "of the dropped"],
    [`A: ${data.compare.label}`, ...told(a)],
    ["B: what you look at", ...told(b)],
    ["B against A", or(a.tau, (at) => `${formatNumber(b.tau / (at || 1), 3)} ×`), or(a.rank, (own) => signed(b.rank - own, 0)), points, ...fits],
  ];
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? "0" : (value < 0 ? "−" : "+") + text;
}
