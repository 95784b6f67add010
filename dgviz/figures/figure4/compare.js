// Two sides of a comparison of one weight: what each keeps and drops, and what differs.

const COMPARED = {
  columns: [
    { id: "a", name: "A", symbol: "", panels: { ca: "kept by A, entries", da: "dropped by A, entries", fa: "kept by A, directions", ga: "dropped by A, directions" } },
    { id: "b", name: "B", symbol: "", panels: { cb: "kept by B, entries", db: "dropped by B, entries", fb: "kept by B, directions", gb: "dropped by B, directions" } },
    { id: "between", name: "What differs", symbol: "", panels: { cx: "entries", fx: "directions" } },
  ],
  entry: { ca: "repairedA", da: "discardedA", cx: "between", cb: "repairedB", db: "discardedB" },
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

  layout(data, palette, logRanks) {
    const own = data.compare.live ? { repairedB: data.repaired, repairedBShape: data.repairedShape, discardedB: data.discarded, discardedBShape: data.discardedShape } : {};
    super.layout({ ...data, ...own }, palette, logRanks);
  }

  showEntries(data) {
    const own = data.compare.live && data.repairedB === undefined ? { repairedB: data.repaired, discardedB: data.discarded } : {};
    super.showEntries({ ...this.data, ...data, ...own });
  }

  // What a side does to the directions: a cut keeps the first `cut` of them, a gain changes each; neither is null.
  sideOf(name, rank) {
    const { compare } = this.data, cuts = compare.cuts[name === "a" ? 0 : 1], of = name.toUpperCase();
    const codes = this.data[`directions${of}`] || this.data.directions;
    const rows = (this.data[`directions${of}Shape`] || this.data.directionsShape || [0])[0];
    if (name === "b" && compare.live) return { codes, rows, cut: rank, gain: null };
    const side = compare[name];
    if (!side) return { codes, rows, cut: null, gain: null };
    return { codes, rows, cut: cuts ? side.rank : null, gain: this.data[`gain${of}`] || null };
  }

  // Every direction's column stands once per rank that divides it, so that no pixel is of both sides.
  paintSpectrum(rank) {
    if (rank === this.rank) return;
    this.rank = rank;
    const sides = { a: this.sideOf("a", rank), b: this.sideOf("b", rank) };
    for (const [name, side] of Object.entries(sides)) this.paintSide(side, `f${name}`, `g${name}`);
    this.paintBetween(sides.a, sides.b);
    this.mark("chosen", this.data.direction ? this.data.direction.number : null);
    if (this.pointer) this.point(...this.pointer);
  }

  paintSide({ codes, rows, cut, gain }, kept, dropped) {
    const { width, height } = this.panels[kept], ratio = window.devicePixelRatio || 1, p = this.data.s.length;
    const blocks = columnBlocks(p, Math.max(1, Math.round(width * ratio)), cut === null ? p : cut, this.logRanks);
    const share = blocks.boundary / blocks.lo.length;
    for (const id of [kept, dropped]) {
      this.layDirectionAxis(this.panels[id], share, cut === null ? p : cut);
      if (cut === null) this.hideSides(id);
    }
    if (!this.data.spectrum || (cut === null && !gain)) { [kept, dropped].forEach((id) => this.blank(id)); return; }
    if (cut !== null) {
      const drawn = this.pool(codes, rows, blocks, height * ratio), parts = splitColumns(drawn.codes, drawn.rows, blocks.boundary);
      this.paint(kept, parts.kept, drawn.rows, drawn.rowBlocks, blocks);
      this.paint(dropped, parts.dropped, drawn.rows, drawn.rowBlocks, blocks);
      return;
    }
    for (const [id, gains] of [[kept, gain], [dropped, gain.map((one) => 1 - one)]]) this.paintGained(id, codes, rows, gains, blocks);
  }

  paintGained(id, codes, rows, gains, blocks) {
    const drawn = this.pool(gainColumns(codes, gains, this.data.spectrumValues), rows, blocks, this.panels[id].height * (window.devicePixelRatio || 1));
    this.paint(id, drawn.codes, drawn.rows, drawn.rowBlocks, blocks);
  }

  hideSides(id) {
    for (const side of [this.panels[id].kept, this.panels[id].dropped]) side.style.display = "none";
  }

  pool(codes, rows, blocks, height) {
    const rowBlocks = evenBlocks(rows, Math.round(height));
    const pooled = poolColumns(codes, rows, this.data.s.length, blocks);
    return { codes: poolRows(pooled, blocks.lo.length, rowBlocks), rows: rowBlocks.lo.length, rowBlocks };
  }

  // What B makes of every direction less what A does: of two cuts, those that one side keeps and the other drops.
  paintBetween(a, b) {
    const panel = this.panels.fx, ratio = window.devicePixelRatio || 1, p = this.data.s.length;
    const cuts = a.cut !== null && b.cut !== null, { same } = this.data.compare;
    const low = cuts ? Math.min(a.cut, b.cut) : 0, high = cuts && same ? Math.max(a.cut, b.cut) : p;
    const blocks = columnBlocks(p, Math.max(1, Math.round(panel.width * ratio)), high, this.logRanks);
    this.layDirectionAxis(panel, blocks.boundary / blocks.lo.length, high);
    this.hideSides("fx");
    this.nameBetween(same && cuts ? [low, high, a.cut > b.cut] : null);
    const gains = [a, b].map(({ cut, gain }) => (cut !== null ? Float64Array.from(this.data.s, (_, r) => (r < cut ? 1 : 0)) : gain));
    if (!this.data.spectrum || !same || gains.includes(null) || low === high) { this.blank("fx"); return; }
    if (!cuts) { this.paintGained("fx", a.codes, a.rows, gains[0].map((gain, r) => gains[1][r] - gain), blocks); return; }
    const drawn = this.pool(a.codes, a.rows, blocks, panel.height * ratio), count = blocks.lo.length;
    const codes = drawn.codes.slice();
    for (let j = 0; j < count; j++) {
      if (blocks.lo[j] >= low && blocks.hi[j] <= high) continue;
      for (let i = 0; i < drawn.rows; i++) codes[i * count + j] = 0;
    }
    this.paint("fx", codes, drawn.rows, drawn.rowBlocks, blocks);
  }

  // `cut` is [low, high, whether A keeps more] of two cuts, else null.
  nameBetween(cut) {
    let text = "B’s update minus A’s";
    if (cut) {
      const count = cut[1] - cut[0];
      text = count ? `${count} direction${count > 1 ? "s" : ""} only ${cut[2] ? "A" : "B"} keeps` : "nothing: both keep the same";
    }
    for (const id of ["cx", "fx"]) this.panels[id].named.data = text;
  }

  showWaiting(rank) {
    const { entries, compare } = this.data, live = compare.live ? [entries, entries && entries.rank] : [compare.b, rank];
    const sources = { a: [compare.a, rank], b: live, x: [compare.b, compare.live && compare.b ? compare.b.rank : rank] };
    for (const [id, { note }] of Object.entries(this.panels)) {
      const [there, own] = sources[id[1]], entry = id in this.plan.entry, why = entry ? "" : this.whyBlank(id[1]);
      const present = entry ? entries && there : this.data.spectrum && (id[1] === "b" && compare.live ? entries : compare.a);
      note.textContent = why || (!present ? "computing" : entry && own !== rank ? `rank ${own}, updating` : "");
      note.className = "note" + (why ? " center why" : present ? "" : " center");
      note.style.display = note.textContent ? "block" : "none";
    }
  }

  // Why the directions of a side, or of what differs, are not drawn; empty where they are.
  whyBlank(which) {
    const { compare } = this.data;
    const reasons = ["a", "b"].map((name) => (compare[name] && !(name === "b" && compare.live) ? compare[name].missing.directions : ""));
    if (which !== "x") return reasons[which === "a" ? 0 : 1] || "";
    return reasons.find(Boolean) || (compare.same ? "" : "two fine-tunes have directions of their own");
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

// A table of both sides and their difference, and why some of it is missing.
function compareTable(data, tau) {
  const { compare } = data, sums = cumulativeEnergy(data.s), rank = rankAt(data.s, tau), fit = data.law ? fitTriple(data.law, rank) : null;
  const looked = { tau, rank, energy: energyKept(sums, rank) || 0, fits: fit ? [fit.repaired, fit.discarded, fit.discardedOwn] : [null, null, null], missing: fit ? {} : { fits: data.noLaw } };
  const [a, b] = [compare.a, compare.live ? looked : compare.b], reasons = new Set();
  const told = (side, i) => {
    if (!side) return Array(8).fill("…");
    const { missing } = side, model = compare.model[i], name = "AB"[i];
    const cell = (value, text, what, why) => {
      if (value !== null && value !== undefined) return text(value);
      if (why) reasons.add(`${name}, ${what}: ${why}`);
      return "–";
    };
    const percent = (value) => value.toFixed(1);
    return [
      cell(side.tau, (value) => formatNumber(value, 4), "τ", missing.tau), cell(side.rank, String, "rank", missing.rank),
      formatPercent(side.energy), ...side.fits.map((value) => cell(value, percent, "MP-fit", missing.fits)),
      cell(model.energy, formatPercent, "whole model", model.why), cell(model.directions, String, "whole model", model.why),
    ];
  };
  const differ = (get, text) => (a && b && [get(a, 0), get(b, 1)].every((value) => typeof value === "number") ? text(get(b, 1), get(a, 0)) : "–");
  const points = (after, before) => `${signed(100 * (after - before), 1)} points`, model = (key) => (_, i) => compare.model[i][key];
  const rows = [
    ["", "τ", "rank", "energy kept", `MP-fit of the kept${data.law ? ` (noise of this shape ${data.noiseFit.toFixed(1)})` : ""}`, "of the dropped, with zeros", "without", "model: energy", "directions"],
    [`A: ${compare.labels[0]}`, ...told(a, 0)],
    [`B: ${compare.labels[1]}`, ...told(b, 1)],
    [
      "B against A", differ((side) => side.tau, (after, before) => `${formatNumber(after / (before || 1), 3)} ×`),
      differ((side) => side.rank, (after, before) => signed(after - before, 0)), differ((side) => side.energy, points),
      ...[0, 1, 2].map((i) => differ((side) => side.fits[i], (after, before) => signed(after - before, 1))),
      differ(model("energy"), points), differ(model("directions"), (after, before) => signed(after - before, 0)),
    ],
  ];
  for (const [i, { note }] of compare.model.entries()) if (note) reasons.add(`${"AB"[i]}, whole model: ${note}`);
  return { rows, reasons: [...reasons] };
}

function signed(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? "0" : (value < 0 ? "−" : "+") + text;
}
