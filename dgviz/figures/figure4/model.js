// The map of the model: layers by modules, one button per cell.

const MOST_NUMBERED = 34; // layers up to which a cell has room for its number

class ModelMap {
  constructor(host, onOpen) {
    this.host = host;
    host.addEventListener("click", (event) => {
      const cell = event.target.closest("button");
      if (cell) onOpen(cell.dataset.weight);
    });
    host.addEventListener("keydown", (event) => this.moveByKey(event));
  }

  layout(map, dark) {
    this.host.replaceChildren();
    if (!map) return;
    const title = element("div", "map-title", map.title);
    const legend = element("div", "legend"), bar = element("span", "ramp");
    bar.style.background = `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map((share) => mapColour(share, dark)).join(",")})`;
    legend.append(element("span", "", map.low), bar, element("span", "", map.high));
    this.host.append(title, legend);
    this.buttons = [];
    for (const part of map.parts) this.host.append(this.layPart(part, dark, map.open));
    if (map.note) this.host.append(element("p", "map-note", map.note));
    const open = this.buttons.find((button) => button.getAttribute("aria-current")) || this.buttons[0];
    if (open) open.tabIndex = 0;
  }

  layPart(part, dark, open) {
    const table = element("div", "cells"), numbered = part.rows.length <= MOST_NUMBERED;
    table.style.gridTemplateColumns = `auto repeat(${part.columns.length}, minmax(0, 1fr))`;
    table.classList.toggle("small", !numbered);
    table.append(element("span", "corner"), ...part.columns.map(([name, whole]) => {
      const head = element("span", "column", name);
      head.title = whole;
      return head;
    }));
    const at = new Map(part.cells.map((cell) => [`${cell.row} ${cell.column}`, cell]));
    part.rows.forEach((row, i) => {
      table.append(element("span", "row", numbered || i % 5 === 0 ? row : ""));
      part.columns.forEach((_, j) => {
        const cell = at.get(`${i} ${j}`);
        table.append(cell ? this.layCell(cell, dark, numbered, open) : element("span", "none"));
      });
    });
    return table;
  }

  layCell(cell, dark, numbered, open) {
    const button = element("button", "cell", numbered ? cell.text : "");
    button.type = "button";
    button.tabIndex = -1;
    button.dataset.weight = cell.weight;
    button.title = cell.title;
    button.setAttribute("aria-label", cell.title.replaceAll("\n", ", "));
    if (cell.share === null) button.classList.add("unknown");
    else {
      button.style.background = mapColour(cell.share, dark);
      button.style.color = mapInk(cell.share, dark);
    }
    button.classList.toggle("overridden", cell.overridden);
    if (cell.names.includes(open)) button.setAttribute("aria-current", "true");
    this.buttons.push(button);
    return button;
  }

  moveByKey(event) {
    const moves = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    const from = event.target.closest("button");
    if (!(event.key in moves) || !from) return;
    event.preventDefault();
    const box = from.getBoundingClientRect(), [x, y] = moves[event.key];
    const middle = (rect) => [rect.left + rect.width / 2, rect.top + rect.height / 2];
    const [cx, cy] = middle(box);
    let best = null, nearest = Infinity;
    for (const button of this.buttons) {
      const [bx, by] = middle(button.getBoundingClientRect()), along = (bx - cx) * x + (by - cy) * y;
      const aside = Math.abs((bx - cx) * y) + Math.abs((by - cy) * x);
      if (along > 2 && along + 4 * aside < nearest) { nearest = along + 4 * aside; best = button; }
    }
    if (best) { from.tabIndex = -1; best.tabIndex = 0; best.focus(); }
  }
}

// One hue from pale to full: a blue, apart from the accent and from the maps' own colours.
function mapRgb(share, dark) {
  const [from, to] = dark ? [[36, 50, 74], [140, 190, 255]] : [[226, 237, 250], [13, 60, 120]];
  return from.map((c, i) => Math.round(c + (to[i] - c) * Math.min(1, Math.max(0, share))));
}

function mapColour(share, dark) {
  return `rgb(${mapRgb(share, dark).join(",")})`;
}

// Relative luminance as WCAG has it: the ink with the higher contrast, which is 4.58 at least.
function luminance(rgb) {
  const [r, g, b] = rgb.map((c) => (c <= 10.3 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function mapInk(share, dark) {
  return luminance(mapRgb(share, dark)) > 0.179 ? "#000" : "#fff";
}
