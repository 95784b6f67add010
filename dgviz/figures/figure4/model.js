// The map of the model: layers by modules, one button per cell.

const MOST_NUMBERED = 34; // layers up to which a cell has room for its number

const CURVED_FROM = 12; // layers from which a curve over the depth says more than its cells

const ORDERS = { layers: "layers × modules", fit: "worst fit first", between: "B − A" };

// `figure` has open(weight), tellSelected(names) and tellOrder(order).
class ModelMap {
  constructor(host, figure) {
    Object.assign(this, { host, figure, selected: new Set(), names: [], cells: [] });
    host.addEventListener("click", (event) => this.click(event));
    host.addEventListener("keydown", (event) => this.moveByKey(event));
    host.addEventListener("pointerdown", (event) => { this.from = event.button ? null : this.cellAt(event.target); this.dragged = false; });
    host.addEventListener("pointerover", (event) => this.drag(event));
    host.addEventListener("pointerup", () => {
      if (this.dragged) this.tell();
      this.from = null;
    });
  }

  layout(map, dark) {
    const focused = this.host.getRootNode().activeElement, held = focused && this.host.contains(focused) ? focused.dataset.held : "";
    const { scrollTop } = this.host;
    this.host.replaceChildren();
    this.cells = [];
    if (!map) return;
    this.map = map;
    const order = this.layOrder(map), title = element("div", "map-title", map.title);
    const legend = element("div", "legend"), bar = element("span", "ramp");
    const stops = map.diverging ? [-1, -0.5, 0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1];
    bar.style.background = `linear-gradient(to right, ${stops.map((share) => cssColour(cellRgb(share, dark, map.diverging))).join(",")})`;
    legend.append(element("span", "", map.low), bar, element("span", "", map.high));
    this.host.append(title, order, legend);
    for (const part of map.parts) this.host.append(this.layPart(part, dark, map));
    if (map.strip && map.strip.length) this.host.append(this.layStrip(map, dark));
    this.host.append(this.layMeanings(), this.chosen = element("div", "chosen-cells"));
    if (map.note) this.host.append(element("p", "map-note", map.note));
    const open = this.cells.find(({ button }) => button.getAttribute("aria-current")) || this.cells[0];
    if (open) open.button.tabIndex = 0;
    if (map.order !== "fit") this.names = [...new Set(this.cells.flatMap(({ cell }) => cell.names))];
    if (this.selected.size) this.selected = new Set(this.names.filter((name) => this.selected.has(name)));
    this.showSelected();
    this.host.scrollTop = scrollTop;
    const again = held && [...this.host.querySelectorAll("[data-held]")].find((node) => node.dataset.held === held);
    if (again) again.focus({ preventScroll: true });
  }

  layOrder(map) {
    const select = element("select", "order");
    select.setAttribute("aria-label", "Order of the map");
    select.dataset.held = "order";
    for (const name of map.orders) {
      const option = element("option", "", ORDERS[name]);
      option.value = name;
      select.append(option);
    }
    select.value = map.order;
    select.addEventListener("change", () => this.figure.tellOrder(select.value));
    return select;
  }

  layPart(part, dark, map) {
    const table = element("div", "cells"), numbered = part.rows.length <= MOST_NUMBERED || map.order === "fit";
    table.style.gridTemplateColumns = `${map.order === "fit" ? "minmax(0, 1fr) 56px" : `auto repeat(${part.columns.length}, minmax(0, 1fr))`}`;
    table.classList.toggle("small", !numbered);
    table.append(element("span", "corner"), ...part.columns.map(([name, whole], j) => this.layHead("column", name, `every ${whole}`, part, "column", j)));
    if (part.heads && part.rows.length >= CURVED_FROM) table.append(element("span", "corner"), ...part.columns.map((_, j) => this.layCurve(part, j, map)));
    const at = new Map(part.cells.map((cell) => [`${cell.row} ${cell.column}`, cell]));
    part.rows.forEach((row, i) => {
      table.append(this.layHead("row", numbered || i % 5 === 0 ? row : "", `layer ${row}`, part, "row", i));
      part.columns.forEach((_, j) => {
        const cell = at.get(`${i} ${j}`);
        table.append(cell ? this.layCell(cell, part, dark, numbered, map) : element("span", "none"));
      });
    });
    return table;
  }

  // A module's values from the first layer, at the left, to the last.
  layCurve(part, column, map) {
    const svg = shape("svg", { class: "curve", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" });
    svg.append(shape("polyline", { points: depthCurve(part, column, map.diverging) }));
    return svg;
  }

  // Every matrix of the open cell, where it has several: experts side by side, one click each.
  layStrip(map, dark) {
    const strip = element("div", "strip"), list = element("div", "experts");
    strip.append(element("span", "", `${map.strip.length} matrices of this cell`), list);
    for (const { weight, share, title } of map.strip) {
      const button = element("button", "expert");
      Object.assign(button, { type: "button", title });
      button.setAttribute("aria-label", title.replaceAll("\n", ", "));
      button.dataset.held = `expert ${weight}`;
      if (share === null) button.classList.add("unknown");
      else button.style.background = cssColour(cellRgb(share, dark, false));
      if (this.figure.data && this.figure.data.weight === weight) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => this.figure.open(weight));
      list.append(button);
    }
    return strip;
  }

  // A module's or a layer's name: a click selects what it stands for.
  layHead(className, text, what, part, side, index) {
    const own = () => part.cells.filter((cell) => cell[side] === index).flatMap((cell) => cell.names);
    if (!part.heads) return element("span", className, text);
    const head = element("button", className, text);
    Object.assign(head, { type: "button", title: `Select ${what}`, tabIndex: -1 });
    head.setAttribute("aria-label", `Select ${what}`);
    head.dataset.held = `${className} ${what}`;
    head.addEventListener("click", (event) => { this.select(own(), event.shiftKey || event.ctrlKey || event.metaKey); this.tell(); });
    return head;
  }

  layMeanings() {
    const list = element("p", "meanings"), has = (name) => this.cells.some(({ button }) => button.classList.contains(name));
    if (has("overridden")) list.append(element("i", "mark overridden"), "override in the plan ");
    if (has("unknown")) list.append(element("i", "mark unknown"), "not scanned yet");
    return list;
  }

  layCell(cell, part, dark, numbered, map) {
    const button = element("button", "cell", numbered ? cell.text : "");
    button.type = "button";
    button.tabIndex = -1;
    button.dataset.weight = cell.weight;
    button.dataset.held = cell.weight;
    button.title = cell.title;
    button.setAttribute("aria-label", cell.title.replaceAll("\n", ", "));
    if (cell.share === null) button.classList.add("unknown");
    else {
      const rgb = cellRgb(cell.share, dark, map.diverging);
      button.style.background = cssColour(rgb);
      button.style.color = inkOn(rgb);
    }
    button.classList.toggle("overridden", cell.overridden);
    if (cell.names.includes(map.open)) button.setAttribute("aria-current", "true");
    this.cells.push({ cell, button, part });
    return button;
  }

  // ---- selecting ----------------------------------------------------------------------------------------------

  cellAt(node) {
    return this.cells.find(({ button }) => button === node) || null;
  }

  click(event) {
    const own = this.cellAt(event.target.closest("button"));
    if (!own || this.dragged) return;
    if (event.shiftKey || event.ctrlKey || event.metaKey) { this.toggle(own.cell); return; }
    this.figure.open(own.cell.weight);
  }

  // From the cell where the button went down to the one that is reached: the rectangle between them.
  drag(event) {
    const to = this.from && event.buttons & 1 ? this.cellAt(event.target) : null;
    if (!to || to.part !== this.from.part || (to === this.from && !this.dragged)) return;
    this.dragged = true;
    const within = (side, cell) => {
      const [low, high] = [this.from.cell[side], to.cell[side]].sort((a, b) => a - b);
      return low <= cell[side] && cell[side] <= high;
    };
    const inside = to.part.cells.filter((cell) => within("row", cell) && within("column", cell));
    this.select(inside.flatMap((cell) => cell.names));
  }

  toggle(cell) {
    const there = cell.names.every((name) => this.selected.has(name));
    if (there) this.select([...this.selected].filter((name) => !cell.names.includes(name)));
    else this.select(cell.names, true);
    this.tell();
  }

  select(names, more = false) {
    this.selected = new Set(more ? [...this.selected, ...names] : names);
    this.showSelected();
    if (!names.length) this.tell();
  }

  tell() {
    this.figure.tellSelected([...this.selected]);
  }

  showSelected() {
    for (const { cell, button } of this.cells) {
      button.classList.toggle("selected", cell.names.length > 0 && cell.names.every((name) => this.selected.has(name)));
    }
    const { size } = this.selected;
    this.chosen.replaceChildren();
    if (!size) return;
    const clear = element("button", "reset", "Clear");
    clear.type = "button";
    clear.addEventListener("click", () => this.select([]));
    this.chosen.append(element("span", "", `${size} weight${size > 1 ? "s" : ""} selected, for the plan`), clear);
  }

  moveByKey(event) {
    const moves = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    const from = event.target.closest("button.cell");
    if (from && event.key === " ") { event.preventDefault(); this.toggle(this.cellAt(from).cell); return; }
    if (!(event.key in moves) || !from) return;
    event.preventDefault();
    const box = from.getBoundingClientRect(), [x, y] = moves[event.key];
    const middle = (rect) => [rect.left + rect.width / 2, rect.top + rect.height / 2];
    const [cx, cy] = middle(box);
    let best = null, nearest = Infinity;
    for (const { button } of this.cells) {
      const [bx, by] = middle(button.getBoundingClientRect()), along = (bx - cx) * x + (by - cy) * y;
      const aside = Math.abs((bx - cx) * y) + Math.abs((by - cy) * x);
      if (along > 2 && along + 4 * aside < nearest) { nearest = along + 4 * aside; best = button; }
    }
    if (best) { from.tabIndex = -1; best.tabIndex = 0; best.focus(); }
  }
}

// The points of a module's curve in a box of 100 by 24; what is not known has none.
function depthCurve(part, column, diverging) {
  const last = part.rows.length - 1, shown = part.cells.filter((cell) => cell.column === column && cell.share !== null);
  const points = shown.sort((one, other) => other.row - one.row).map(({ row, share }) => {
    const height = Math.min(1, Math.max(0, diverging ? (share + 1) / 2 : share));
    return `${((100 * (last - row)) / last).toFixed(1)},${(23 - 22 * height).toFixed(1)}`;
  });
  return points.join(" ");
}

// One hue from pale to full: a blue, apart from the accent and from the maps' own colours.
function mapRgb(share, dark) {
  const [from, to] = dark ? [[36, 50, 74], [140, 190, 255]] : [[226, 237, 250], [13, 60, 120]];
  return from.map((c, i) => Math.round(c + (to[i] - c) * Math.min(1, Math.max(0, share))));
}

// Two hues from a grey middle, told apart by all eyes: what is smaller in B, and what is larger.
function divergingRgb(share, dark) {
  const middle = dark ? [52, 56, 64] : [240, 241, 243], low = dark ? [226, 212, 110] : [120, 104, 0], high = dark ? [140, 190, 255] : [13, 60, 120];
  const end = share < 0 ? low : high, size = Math.min(1, Math.abs(share));
  return middle.map((c, i) => Math.round(c + (end[i] - c) * size));
}

function cellRgb(share, dark, diverging) {
  return diverging ? divergingRgb(share, dark) : mapRgb(share, dark);
}

function cssColour(rgb) {
  return `rgb(${rgb.join(",")})`;
}

// Relative luminance as WCAG has it: the ink with the higher contrast, which is 4.58 at least.
function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => (c <= 10.3 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function inkOn(rgb) {
  return luminance(rgb) > 0.179 ? "#000" : "#fff";
}
