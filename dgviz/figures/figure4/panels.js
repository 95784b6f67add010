// The six panels of Figure 4: axes, colour bars, canvases, crosshair and read-out.

const PANEL_HEIGHT = 320; // css pixels wanted
// Columns of panels, what each panel is called, and which array of the payload an entry map shows.
const FIGURE4 = {
  columns: [
    { id: "tuned", name: "Tuned delta", symbol: "D", panels: { b: "entries of D", e: "directions of D" } },
    { id: "repaired", name: "Repaired delta", symbol: "D*", panels: { c: "entries of D*", f: "directions of D*" } },
    { id: "discarded", name: "Discarded", symbol: "D − D*", panels: { d: "entries of D − D*", g: "directions of D − D*" } },
  ],
  entry: { b: "tuned", c: "repaired", d: "discarded" },
  spectrum: ["e", "f", "g"],
  read: [["b", "|D|"], ["c", "|D*|"], ["d", "|D − D*|"]],
  zooms: true,
};
const SCALE_NAMES = { linear: "linear", sqrt: "square-root", log: "log" };

// `hooks` are told of the user's hand: zoom({rows, columns}), back(), pick(direction), hover(direction or null).
class Panels {
  constructor(grid, readout, hooks, plan = FIGURE4) {
    this.grid = grid;
    this.hooks = hooks;
    this.plan = plan;
    this.readout = readout;
    this.panels = {};
    this.chips = {};
    this.wanted = PANEL_HEIGHT;
    this.hovered = null;
    this.maps = {}; // what each canvas shows: { codes, rows, rowBlocks, columnBlocks }
    plan.columns.forEach((column, index) => {
      grid.append(this.buildHead(column, index));
      for (const [id, title] of Object.entries(column.panels)) grid.append(this.buildPanel(id, title));
    });
    this.keys = ["k0", "k1"].map((area) => {
      const key = element("div", `key ${area}`);
      key.style.gridArea = area;
      grid.append(key);
      return key;
    });
    this.point(null);
  }

  buildHead(column, index) {
    const head = element("div", "head");
    head.style.gridArea = "h" + index;
    const name = element("span", "name", column.name);
    name.append(element("i", "", column.symbol));
    const fit = element("span", "chip fit"), energy = element("span", "chip energy");
    head.append(name, fit, energy);
    this.chips[column.id] = { fit, energy };
    return head;
  }

  buildPanel(id, title) {
    const figure = element("figure", "panel"), caption = element("figcaption");
    figure.dataset.panel = id;
    figure.dataset.row = id in this.plan.entry ? "entries" : "directions";
    figure.style.gridArea = id;
    const named = document.createTextNode(title);
    caption.append(element("b", "", `(${id[0]})`), named);
    const frame = element("div", "frame"), canvas = element("canvas");
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    const panel = {
      frame, canvas, caption, named,
      hairX: element("div", "hair x"), hairY: element("div", "hair y"), cut: element("i", "cut"), bracket: element("i", "bracket"), share: element("span", "share"), chosen: element("div", "chosen"), hovered: element("div", "hovered"), picked: element("div", "picked"),
      note: element("span", "note"), kept: element("span", "side kept"), dropped: element("span", "side dropped"), x: element("div", "xaxis"), y: element("div", "yaxis"),
    };
    frame.append(canvas, panel.hairX, panel.hairY, panel.cut, panel.bracket, panel.chosen, panel.hovered, panel.picked, panel.kept, panel.dropped, panel.note, panel.y);
    caption.append(panel.share);
    figure.append(caption, frame, panel.x);
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      this.point(id, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    });
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("blur", () => this.point(null));
    canvas.addEventListener("keydown", (event) => this.pointByKey(id, event));
    this.panels[id] = panel;
    if (id in this.plan.entry) { if (this.plan.zooms) this.wireZoom(id, canvas); }
    else canvas.addEventListener("click", (event) => this.pick(id, event.offsetX / canvas.clientWidth));
    return figure;
  }

  // A rectangle drawn on an entry map is what is looked at next; a double click goes back.
  wireZoom(id, canvas) {
    const at = (event) => {
      const box = canvas.getBoundingClientRect(), inside = (share) => Math.min(1, Math.max(0, share));
      return [inside((event.clientX - box.left) / box.width), inside((event.clientY - box.top) / box.height)];
    };
    let from = null;
    const drawn = (event) => {
      const to = at(event), { width, height } = this.panels[id];
      const large = Math.abs(to[0] - from[0]) * width > 4 && Math.abs(to[1] - from[1]) * height > 4;
      return large ? [[from[0], to[0]].sort((a, b) => a - b), [from[1], to[1]].sort((a, b) => a - b)] : null;
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button || !this.maps[id]) return;
      from = at(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => { if (from) this.showPicked(drawn(event)); });
    canvas.addEventListener("pointercancel", () => { from = null; this.showPicked(null); });
    canvas.addEventListener("pointerup", (event) => {
      if (!from) return;
      const picked = drawn(event);
      from = null;
      this.showPicked(null);
      if (picked) this.hooks.zoom({ rows: this.entriesOf(id, "row", picked[1]), columns: this.entriesOf(id, "column", picked[0]) });
    });
    canvas.addEventListener("dblclick", () => this.hooks.back());
  }

  showPicked(picked) {
    for (const id of Object.keys(this.plan.entry)) {
      const { style } = this.panels[id].picked;
      style.display = picked ? "block" : "none";
      if (!picked) continue;
      const [[left, right], [top, bottom]] = picked;
      Object.assign(style, { left: `${100 * left}%`, width: `${100 * (right - left)}%`, top: `${100 * top}%`, height: `${100 * (bottom - top)}%` });
    }
  }

  // First entry and one past the last of what two shares of a panel's side lie in.
  entriesOf(id, side, [low, high]) {
    const [first, end] = this.data.entries[side + "s"], length = end - first;
    const from = Math.min(length - 1, Math.floor(low * length));
    return [first + from, first + Math.min(length, Math.max(from + 1, Math.ceil(high * length)))];
  }

  // The first direction of a column of a map of directions.
  pick(id, share) {
    const map = this.maps[id];
    if (!map) return;
    const count = map.columnBlocks.lo.length;
    this.hooks.pick(map.columnBlocks.lo[Math.min(count - 1, Math.max(0, Math.floor(share * count)))] + 1);
  }

  // A line at one direction in every map of directions; null takes it away.
  mark(name, direction) {
    for (const id of this.plan.spectrum) {
      const map = this.maps[id], share = map && direction !== null ? columnOf(map.columnBlocks, direction - 1) : null;
      const { style } = this.panels[id][name];
      style.display = share === null ? "none" : "block";
      if (share !== null) style.left = `calc(${100 * share}% - 1px)`;
    }
  }

  // ---- layout: after new data, a new size or another theme ----------------------------------------------------

  layout(data, palette, logRanks) {
    Object.assign(this, { data, palette, logRanks, rank: null, pooled: null });
    const ratio = window.devicePixelRatio || 1, [m, n] = data.shape;
    for (const [id, panel] of Object.entries(this.panels)) {
      const rows = id in this.plan.entry ? data.tunedShape : data.directionsShape;
      Object.assign(panel.frame.style, { width: "", height: this.frameHeight(id, rows && rows[0], ratio) + "px" });
      if (this.inProportion && this.plan.zooms && id in this.plan.entry) this.fitProportion(panel.frame);
    }
    for (const panel of Object.values(this.panels)) {
      panel.x.style.width = panel.frame.style.width;
      Object.assign(panel, { width: panel.frame.clientWidth, height: panel.frame.clientHeight, top: panel.frame.offsetTop });
      panel.pixels = [Math.round(panel.height * ratio), Math.max(1, Math.round(panel.width * ratio))];
    }
    for (const [id, panel] of Object.entries(this.panels)) {
      const what = id in this.plan.entry ? `${m} rows by ${n} columns` : `${m} rows by ${data.s.length} directions`;
      panel.canvas.setAttribute("aria-label", `(${id[0]})${panel.named.data}, ${what}; arrow keys read values`);
      const { axes, entries } = data, entry = id in this.plan.entry;
      layLinearAxis(panel.y, entry && entries ? entries.rows : [0, m], panel.height, `${axes.rows} ↓`, false);
      if (entry) layLinearAxis(panel.x, entries ? entries.columns : [0, n], panel.width, `${axes.columns} →`, true);
    }
    const [[first]] = Object.entries(this.plan.entry), [second] = this.plan.spectrum;
    this.layKey(this.keys[0], this.panels[first], data.entries, "|entry|");
    this.layKey(this.keys[1], this.panels[second], data.spectrum, "s |u|");
    this.zoomed = Boolean(data.entries) && (data.entries.rows[1] - data.entries.rows[0] < m || data.entries.columns[1] - data.entries.columns[0] < n);
    this.grid.classList.toggle("zoomed", this.zoomed);
    this.paintEntries();
  }

  // As many rows as columns are as long as these are wide, so that the longer side fills what there is.
  fitProportion(frame) {
    const { rows, columns } = this.data.entries || { rows: [0, this.data.shape[0]], columns: [0, this.data.shape[1]] };
    const tall = (rows[1] - rows[0]) / (columns[1] - columns[0]), { clientWidth, clientHeight } = frame;
    if (tall * clientWidth > clientHeight) frame.style.width = `${Math.max(1, Math.round(clientHeight / tall))}px`;
    else frame.style.height = `${Math.max(1, Math.round(clientWidth * tall))}px`;
  }

  frameHeight(id, rows, ratio) {
    return panelHeight(this.wanted, rows, ratio, this.fitted);
  }

  layKey(key, { top, height }, scale, quantity) {
    key.replaceChildren();
    if (!scale) return;
    const bar = element("div", "bar"), numbers = element("div", "numbers");
    for (const node of [bar, numbers]) Object.assign(node.style, { top: top + "px", height: height + "px" });
    bar.style.background = barGradient(this.palette);
    const share = (position) => 1 - (position === 0 ? ZERO_SHARE / 2 : ZERO_SHARE + (1 - ZERO_SHARE) * position);
    layTicks(numbers, scale.ticks.map(([position, text]) => ({ share: share(position), text })), height, 13, false);
    const label = element("span", "label", `block ${scale.pooling === "rms" ? "rms" : "max"} of ${quantity}, ${SCALE_NAMES[scale.kind]} scale`);
    label.style.top = top + height / 2 + "px";
    key.append(bar, numbers, label);
  }

  layDirectionAxis({ x, cut, bracket, width, kept, dropped }, boundary, rank) {
    const p = this.data.s.length, inside = rank > 0 && rank < p;
    // On either side of the rank's line, where there is room; at the frame's end where there is none.
    const words = [[kept, `kept ${rank}`, rank > 0], [dropped, `dropped ${p - rank}`, rank < p]];
    for (const [side, text, there] of words) { side.textContent = text; side.style.display = there ? "block" : "none"; }
    const at = boundary * width;
    const start = Math.max(rank > 0 ? kept.offsetWidth + 4 : 0, Math.min(at, width - dropped.offsetWidth - 4));
    dropped.style.left = `${start + 2}px`;
    kept.style.right = `${Math.min(Math.max(width - at, rank < p ? width - start : 0) + 2, width - kept.offsetWidth - 2)}px`;
    x.replaceChildren(element("span", "label", "singular direction r, sorted"));
    // The boundary's own number first: those that would touch it give way.
    const ticks = inside ? [{ share: boundary, text: String(rank), className: "cut-label" }] : [];
    if (this.logRanks) {
      for (let r = 1; r <= p; r *= 10) ticks.push({ share: Math.log(r + 0.5) / Math.log(p + 1), text: String(r) });
    } else {
      for (const r of axisTicks(p, width / 70)) ticks.push({ share: r / p, text: String(r) });
    }
    layTicks(x, ticks, width, 34, true);
    cut.style.display = inside ? "block" : "none";
    cut.style.left = bracket.style.width = boundary * width + "px";
  }

  // Over the first map of directions, in the words of its bracket: what is kept.
  sayKept(text) {
    const [first] = this.plan.spectrum;
    this.panels[first].share.textContent = text;
  }

  // ---- drawing ------------------------------------------------------------------------------------------------

  paint(id, codes, rows, rowBlocks, columnBlocks) {
    this.maps[id] = { codes, rows, rowBlocks, columnBlocks };
    paintCodes(this.panels[id].canvas, codes, rows, this.palette);
  }

  blank(id) {
    delete this.maps[id];
    paintCodes(this.panels[id].canvas, new Uint8Array(1), 1, this.palette);
  }

  // The entries of another update in the place of the weight's own.
  showEntries(data) {
    this.data = data;
    this.paintEntries();
  }

  paintEntries() {
    for (const [id, name] of Object.entries(this.plan.entry)) {
      if (!this.data.entries || !this.data[name]) { this.blank(id); continue; }
      const [rows, columns] = this.data[name + "Shape"], [height, width] = this.panels[id].pixels;
      const rowBlocks = evenBlocks(rows, height), columnBlocks = evenBlocks(columns, width);
      const codes = this.poolEntries(this.data[name], rows, columns, rowBlocks, columnBlocks);
      this.paint(id, codes, rowBlocks.lo.length, rowBlocks, columnBlocks);
    }
  }

  poolEntries(codes, rows, columns, rowBlocks, columnBlocks) {
    if (this.data.entries.pooling === "rms") return poolSquares(codes, columns, rowBlocks, columnBlocks, this.data.entryValues);
    return poolRows(poolColumns(codes, rows, columns, columnBlocks), columnBlocks.lo.length, rowBlocks);
  }

  // (e), (f), (g): pooled once per rank, then split at it, so that (e) = (f) + (g) pixel by pixel.
  paintSpectrum(rank) {
    if (rank === this.rank) return;
    this.rank = rank;
    const [height, width] = this.panels.e.pixels;
    const blocks = columnBlocks(this.data.s.length, width, rank, this.logRanks), count = blocks.lo.length;
    for (const id of this.plan.spectrum) this.layDirectionAxis(this.panels[id], blocks.boundary / count, rank);
    if (!this.data.spectrum) { this.plan.spectrum.forEach((id) => this.blank(id)); return; }
    const [rows, p] = this.data.directionsShape, rowBlocks = evenBlocks(rows, height), drawn = rowBlocks.lo.length;
    const pooled = poolColumns(this.data.directions, rows, p, blocks, this.pooled);
    this.pooled = { blocks, pooled };
    const whole = poolRows(pooled, count, rowBlocks);
    const { kept, dropped } = splitColumns(whole, drawn, blocks.boundary);
    [whole, kept, dropped].forEach((codes, i) => this.paint(this.plan.spectrum[i], codes, drawn, rowBlocks, blocks));
    this.mark("chosen", this.data.direction ? this.data.direction.number : null);
    if (this.pointer) this.point(...this.pointer);
  }

  // (c) and (d) wait for the product at the new rank; until it comes they say which rank they show.
  showWaiting(rank) {
    const { entries, spectrum } = this.data;
    for (const [id, { note }] of Object.entries(this.panels)) {
      const present = id in this.plan.entry ? entries : spectrum;
      const stale = present && (id === "c" || id === "d") && entries.rank !== rank;
      note.textContent = !present ? "computing" : stale ? `rank ${entries.rank}, updating` : "";
      note.className = "note" + (present ? "" : " center");
      note.style.display = note.textContent ? "block" : "none";
    }
  }

  // ---- pointing -----------------------------------------------------------------------------------------------

  // The same row in all panels, the same column in the panels of a row: entries or directions.
  point(id, fx, fy) {
    this.pointer = id ? [id, fx, fy] : null;
    const map = id && this.maps[id], row = map ? this.rowAt(id, fy) : null;
    for (const [other, { hairX, hairY }] of Object.entries(this.panels)) {
      const same = map && (id in this.plan.entry) === (other in this.plan.entry);
      const share = map && this.maps[other] ? this.shareOfRow(other, row) : null;
      hairY.style.display = share === null ? "none" : "block";
      hairX.style.display = same ? "block" : "none";
      if (share !== null) hairY.style.top = `calc(${100 * share}% - .5px)`;
      if (same) hairX.style.left = `calc(${100 * fx}% - .5px)`;
    }
    const direction = map && !(id in this.plan.entry) ? this.blockAt(map, fx, fy).low + 1 : null;
    if (direction !== this.hovered) { this.hovered = direction; this.hooks.hover(direction); }
    this.readout.replaceChildren(...(map ? this.describe(id, fx, fy) : [element("span", "", this.invite())]));
  }

  invite() {
    if (!this.zoomed) return "Point at a panel to read values.";
    const { rows, columns } = this.data.entries, { axes } = this.data;
    return `Zoomed: ${axes.rows} ${rows[0]} to ${rows[1] - 1}, ${axes.columns.split(" (")[0]} ${columns[0]} to ${columns[1] - 1}; double-click or Escape goes back.`;
  }

  // Rows of the matrix, as a number that need not be whole, and where one lies in a panel; null outside.
  rowAt(id, fy) {
    const [first, end] = this.rowsOf(id);
    return first + fy * (end - first);
  }

  shareOfRow(id, row) {
    const [first, end] = this.rowsOf(id), share = (row - first) / (end - first);
    return share >= 0 && share <= 1 ? share : null;
  }

  rowsOf(id) {
    return id in this.plan.entry && this.data.entries ? this.data.entries.rows : [0, this.data.shape[0]];
  }

  blockAt(map, fx, fy) {
    const columns = map.codes.length / map.rows;
    const at = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    const i = at(fy, map.rows), j = at(fx, columns);
    return { i, j, columns, low: map.columnBlocks.lo[j], high: map.columnBlocks.hi[j] };
  }

  pointByKey(id, event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const map = this.maps[id];
    if (event.key === "Enter" && map && !(id in this.plan.entry)) this.pick(id, this.pointer ? this.pointer[1] : 0);
    if (!(event.key in moves) || !map) return;
    event.preventDefault();
    const columns = map.codes.length / map.rows, stride = event.shiftKey ? 10 : 1;
    const [, fx, fy] = this.pointer && this.pointer[0] === id ? this.pointer : [id, 0.5, 0.5];
    const shift = (share, count, by) => Math.min(1 - 0.5 / count, Math.max(0.5 / count, share + (by * stride) / count));
    this.point(id, shift(fx, columns, moves[event.key][0]), shift(fy, map.rows, moves[event.key][1]));
  }

  // Which block of the matrix a pixel shows, and the values there; codes stand for values to about 1 %.
  describe(id, fx, fy) {
    const { data } = this, map = this.maps[id], { i, j, columns, low, high } = this.blockAt(map, fx, fy);
    const value = (panel, values) => {
      const code = this.maps[panel].codes[i * columns + j];
      return (code === 255 ? "≥ " : code ? "≈ " : "") + formatNumber(values[code], 2);
    };
    const nodes = [], add = (label, text) => nodes.push(" · ", element("span", "", label + " "), element("b", "", text));
    if (id in this.plan.entry) {
      const rows = this.rangeOf(map.rowBlocks, i, data.tunedShape[0], data.entries.rows);
      const across = this.rangeOf(map.columnBlocks, j, data.tunedShape[1], data.entries.columns);
      const where = `${nameRange("output", rows, String)}, ${nameRange("input", across, (column) => nameColumn(column, data.axes))}`;
      if (rows[1] - rows[0] === 1 && across[1] - across[0] === 1 && data.tunedExact && this.plan.zooms) {
        return [where, " · ", ...this.sum((rows[0] - data.entries.rows[0]) * data.tunedShape[1] + across[0] - data.entries.columns[0])];
      }
      const how = data.entries.pooling === "rms" ? "rms " : "largest ";
      for (const [panel, symbol] of this.plan.read) if (this.maps[panel]) add(how + symbol, value(panel, data.entryValues));
      return [where, ...nodes];
    }
    const [from, end] = this.rangeOf(map.rowBlocks, i, data.directionsShape[0], [0, data.shape[0]]);
    add("s", formatNumber(data.s[low], 4) + (high - low > 1 ? ` to ${formatNumber(data.s[high - 1], 4)}` : ""));
    const { exact } = data.spectrum, sketched = exact !== null && low >= exact;
    add(sketched ? "s |u| of its neighbourhood, sketched" : "s |u|", value(id, data.spectrumValues));
    nodes.push(" · ", low < this.rank ? "kept" : "dropped");
    nodes.push(element("span", "", "; click it to learn more"));
    return [`${nameRange("output", [from, end], String)}, ${nameRange("direction", [low + 1, high + 1], String)}`, ...nodes];
  }

  // The rows or columns of the matrix that a block of a map stands for: first, and one past the last.
  rangeOf(blocks, index, cells, [first, end]) {
    const length = end - first, at = (cell) => first + Math.floor((cell * length) / cells);
    return [at(blocks.lo[index]), at(blocks.hi[index])];
  }

  // One entry, and the two parts that it is the sum of.
  sum(place) {
    const whole = this.data.tunedExact[place], kept = this.data.repairedExact[place];
    const parts = [["(b) ", whole], [" = (c) ", kept], [" + (d) ", whole - kept]];
    return parts.flatMap(([name, value]) => [element("span", "", name), element("b", "", formatSigned(value, 4))]);
  }
}

function nameRange(one, [low, high], name) {
  return high - low > 1 ? `${one}s ${name(low)} to ${name(high - 1)}` : `${one} ${name(low)}`;
}

// A whole number of device pixels per map row wherever the map is smaller than the panel.
// Where the height is `fitted` to the screen it is never more than wanted, and a row may be one pixel or two.
function panelHeight(height, rows, ratio, fitted) {
  const wanted = height * ratio;
  if (fitted) return (rows && 2 * rows < wanted ? rows * Math.floor(wanted / rows) : wanted) / ratio;
  return (rows && rows < wanted ? rows * Math.max(1, Math.round(wanted / rows)) : wanted) / ratio;
}

function layLinearAxis(host, [first, end], pixels, label, horizontal) {
  host.replaceChildren(element("span", "label", label));
  const length = end - first, ticks = axisTicks(length, horizontal ? pixels / 70 : 5);
  layTicks(host, ticks.map((value) => ({ share: value / length, text: String(first + value) })), pixels, horizontal ? 34 : 18, horizontal);
}
