// Two thresholds on one weight side by side: what each keeps and drops, and the directions between them.

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
    const first = this.data.compare.rank;
    if (rank === this.rank) return;
    this.rank = rank;
    const { height, width } = this.panels.fa, ratio = window.devicePixelRatio || 1;
    const sides = [[first, "fa", "ga"], [rank, "fb", "gb"]];
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
    this.paintBetween(low, high);
    this.nameBetween(low, high, first > rank);
    this.mark("chosen", this.data.direction ? this.data.direction.number : null);
    if (this.pointer) this.point(...this.pointer);
  }

  pool(blocks, height) {
    const [rows, p] = this.data.directionsShape, rowBlocks = evenBlocks(rows, Math.round(height));
    const pooled = poolColumns(this.data.directions, rows, p, blocks);
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
    const more = moreInA ? "A" : "B", count = high - low;
    const text = count ? `${count} direction${count > 1 ? "s" : ""} only ${more} keeps` : "nothing: both keep the same";
    for (const id of ["cx", "fx"]) this.panels[id].caption.lastChild.data = text;
  }

  showWaiting(rank) {
    const { entries, spectrum, compare } = this.data;
    for (const [id, { note }] of Object.entries(this.panels)) {
      const present = id in this.plan.entry ? entries : spectrum;
      const stale = present && ["cb", "db", "cx"].includes(id) && (entries.rank !== rank || compare.between[1] !== rank);
      note.textContent = !present ? "computing" : stale ? `rank ${entries.rank}, updating` : "";
      note.className = "note" + (present ? "" : " center");
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

// A table of both thresholds and their difference.
function compareTable(data, tau) {
  const sums = cumulativeEnergy(data.s), sides = [data.compare.tau, tau].map((own) => {
    const rank = rankAt(data.s, own), fit = data.law ? fitTriple(data.law, rank) : null;
    return { tau: own, rank, energy: energyKept(sums, rank) || 0, kept: fit && fit.repaired, dropped: fit && fit.discarded };
  });
  const [a, b] = sides, fit = (value) => (value === null ? "n/a" : value.toFixed(1));
  const told = (side) => [formatNumber(side.tau, 4), String(side.rank), formatPercent(side.energy), fit(side.kept), fit(side.dropped)];
  const fits = a.kept === null ? ["", ""] : [signed(b.kept - a.kept, 1), signed(b.dropped - a.dropped, 1)];
  const points = `${signed(100 * (b.energy - a.energy), 1)} points`;
  return [
    ["", "τ", "rank", "energy kept", "MP-fit of the kept", "of the dropped"],
    [`A: ${data.compare.label}`, ...told(a)],
    ["B: what you look at", ...told(b)],
    ["B against A", `${formatNumber(b.tau / (a.tau || 1), 3)} ×`, signed(b.rank - a.rank, 0), points, ...fits],
  ];
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? "0" : (value < 0 ? "−" : "+") + text;
}
