// Panel (a): singular values against rank and, on the same axis, their density under the law of pure noise. The line
// of tau goes through both and is the slider.

const SVG = "http://www.w3.org/2000/svg";
const RANKED_SHARE = 0.64; // of the width; the rest is the density's
const BINS = 44;
const MOST_DOTS = 60; // kept values are drawn one by one up to here

function shape(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

class SpectrumPanel {
  // `host` is empty; `figure` has tau: setTau, release, step, jump.
  constructor(host, figure) {
    this.host = host;
    this.figure = figure;
    this.svg = shape("svg", { class: "a", role: "img" });
    this.handle = element("div", "tau-handle");
    Object.assign(this.handle, { tabIndex: 0, title: "Drag, or use the arrow keys; double-click: back to the rule" });
    this.handle.setAttribute("role", "slider");
    this.handle.setAttribute("aria-label", "Threshold tau");
    this.handle.setAttribute("aria-orientation", "vertical");
    host.append(this.svg, this.handle);
    this.wire();
  }

  wire() {
    const drag = (event) => {
      if (!this.dragging) {
        const near = this.plot && event.target !== this.handle ? this.directionAt(event) : null;
        this.host.style.cursor = near ? "pointer" : "";
        this.figure.hover(near);
        return;
      }
      if (this.near && Math.hypot(event.clientX - this.start[0], event.clientY - this.start[1]) < 4) return;
      this.near = null; // a hand that moves moves tau; one that rests on a value asks for its direction
      const box = this.svg.getBoundingClientRect();
      this.figure.setTau(this.valueAt(event.clientY - box.top));
    };
    const begin = (event) => {
      if (!this.plot || event.button) return;
      this.near = event.target === this.handle ? null : this.directionAt(event);
      this.start = [event.clientX, event.clientY];
      this.dragging = true;
      this.host.setPointerCapture(event.pointerId);
      this.handle.focus({ preventScroll: true });
      drag(event);
      event.preventDefault();
    };
    const end = () => {
      if (!this.dragging) return;
      this.dragging = false;
      if (this.near) this.figure.pick(this.near);
      else this.figure.release();
    };
    this.host.addEventListener("pointerdown", begin);
    this.host.addEventListener("pointermove", drag);
    for (const name of ["pointerup", "pointercancel"]) this.host.addEventListener(name, end);
    this.host.addEventListener("pointerleave", () => this.figure.hover(null));
    this.host.addEventListener("dblclick", () => this.figure.jump(this.figure.data.ruleTau));
    this.handle.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: -1, ArrowRight: -1, ArrowDown: 1, ArrowLeft: 1, PageUp: -10, PageDown: 10 };
      if (event.key in steps) this.figure.step(Math.sign(steps[event.key]), Math.abs(steps[event.key]));
      else if (event.key === "Home") this.figure.jump(this.figure.data.ruleTau);
      else return;
      event.preventDefault();
    });
  }

  // The direction whose value is drawn where a pointer is, or null.
  directionAt(event) {
    const box = this.svg.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const { left, split, p, logRanks } = this.plot, share = (x - left - 6) / (split - 12 - left - 6);
    if (share < -0.02 || share > 1.02) return null;
    const inside = Math.min(1, Math.max(0, share));
    const rank = Math.round(logRanks ? Math.exp(inside * Math.log(Math.max(2, p))) : 1 + inside * (p - 1));
    const near = [rank - 1, rank, rank + 1].filter((r) => r >= 1 && r <= p && this.data.s[r - 1] > 0);
    const distance = (r) => Math.hypot(this.xOf(r) - x, this.yOf(this.data.s[r - 1]) - y);
    const [best] = near.sort((a, b) => distance(a) - distance(b));
    return best && distance(best) < 8 ? best : null;
  }

  // Rings around the direction that is open, the one that is pointed at, and those that the plan treats alone.
  mark(name, directions) {
    for (const ring of this.svg.querySelectorAll(`.${name}`)) ring.remove();
    if (!this.plot) return;
    for (const r of directions) {
      if (!(this.data.s[r - 1] > 0)) continue;
      const at = { cx: this.xOf(r), cy: this.yOf(this.data.s[r - 1]), r: 6.5, class: `ring ${name}` };
      this.svg.append(shape("circle", at));
    }
  }

  valueAt(y) {
    const { top, bottom, low, high } = this.plot;
    const share = Math.min(1, Math.max(0, (bottom - y) / (bottom - top)));
    return low * Math.pow(high / low, share);
  }

  yOf(value) {
    const { top, bottom, low, high } = this.plot;
    if (!(value > low)) return bottom;
    return bottom - (bottom - top) * Math.min(1, Math.log(value / low) / Math.log(high / low));
  }

  // After new data or a new size: everything but tau.
  layout(data, logRanks) {
    this.data = data;
    const width = this.host.clientWidth, height = this.host.clientHeight, p = data.s.length;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(shape("title", {}, `Singular values of the update against rank, and their density: ${p} values`));
    this.plot = null;
    if (!(data.s[0] > 0) || width < 80) {
      this.svg.append(shape("text", { x: width / 2, y: height / 2, class: "soft middle" }, "this update is exactly zero"));
      this.handle.style.display = "none";
      return;
    }
    this.handle.style.display = "";
    const own = data.axis || data.s, range = tauRange(own, data.edge); // a twin stands on its original's axis
    const low = Math.max(range.low, own[0] * 1e-6), high = Math.max(own[0], data.edge || 0) * 1.25;
    const left = 58, split = Math.round(left + (width - left - 8) * RANKED_SHARE), right = width - 8;
    this.plot = { top: 6, bottom: height - 36, low, high: Math.max(high, low * 2), left, split, right, p, logRanks };
    this.drawAxes();
    this.drawDensity(data);
    this.drawRanked(data);
    if (data.edge) this.drawEdge(data.edge);
    this.kept = shape("g", { class: "kept" });
    this.line = shape("line", { class: "tau", x1: left, x2: right });
    this.label = shape("text", { class: "tau-label end", x: split - 22 });
    this.svg.append(this.kept, this.line, this.label);
    if (data.compare && data.compare.tau !== null) {
      const y = this.yOf(data.compare.tau);
      const { tau, rank } = data.compare, words = `A: τ ${formatNumber(tau, 4)}${rank === null ? "" : ` keeps ${rank}`}`;
      this.svg.append(shape("line", { class: "tau-a", x1: left, x2: right, y1: y, y2: y }));
      this.svg.append(shape("text", { class: "tau-a-label end", x: right, y: y < 22 ? y + 14 : y - 6 }, words));
    }
  }

  xOf(rank) {
    const { left, split, p, logRanks } = this.plot, end = split - 12;
    const share = logRanks ? Math.log(rank) / Math.log(Math.max(2, p)) : (rank - 1) / Math.max(1, p - 1);
    return left + 6 + share * (end - left - 6);
  }

  drawAxes() {
    const { left, split, right, bottom, top, low, high, p, logRanks } = this.plot;
    const powers = Math.log10(high / low), steps = powers > 3 ? [1] : powers > 1.6 ? [1, 3] : [1, 2, 3, 5];
    let last = Infinity;
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const step of steps) {
        const value = step * Math.pow(10, power);
        if (value < low || value > high) continue;
        const y = this.yOf(value);
        if (last - y < 15) continue;
        last = y;
        this.svg.append(shape("line", { class: "grid-line", x1: left, x2: right, y1: y, y2: y }));
        this.svg.append(shape("text", { class: "soft end", x: left - 6, y: y + 4 }, formatNumber(value, 2)));
      }
    }
    const ranks = logRanks ? [1, 3, 10, 30, 100, 300, 1000, 3000, 10000].filter((r) => r <= p) : axisTicks(p, 6).map((r) => Math.max(1, r));
    let before = -Infinity;
    for (const rank of ranks) {
      const x = this.xOf(rank);
      if (x - before < 30) continue;
      before = x;
      this.svg.append(shape("text", { class: "soft middle", x, y: bottom + 15 }, String(rank)));
    }
    const density = right - split > 310 ? "density, and the Marchenko–Pastur law of pure noise" : "density, law of noise";
    const words = [["rank r", (left + split) / 2], [density, (split + right) / 2]];
    for (const [text, x] of words) this.svg.append(shape("text", { class: "soft middle", x, y: bottom + 31 }, text));
    const name = shape("text", { class: "soft middle", transform: `translate(12 ${(top + bottom) / 2}) rotate(-90)` }, "singular value s");
    this.svg.append(name);
  }

  drawRanked(data) {
    const points = [], { p } = this.plot, { s } = data;
    const stride = Math.max(1, Math.floor(p / 600));
    for (let i = 0; i < p; i += i < 200 ? 1 : stride) if (s[i] > 0) points.push(`${this.xOf(i + 1).toFixed(1)},${this.yOf(s[i]).toFixed(1)}`);
    this.svg.append(shape("polyline", { class: "ranked", points: points.join(" ") }));
  }

  // Per unit of ln s, bars and law alike, as shares of all p values.
  drawDensity(data) {
    const { split, right, low, high } = this.plot, { s, edge, live } = data;
    const width = Math.log(high / low) / BINS, counts = new Array(BINS).fill(0);
    const p = Math.min(...live);
    for (let i = 0; i < p; i++) {
      if (s[i] > low) counts[Math.min(BINS - 1, Math.floor(Math.log(s[i] / low) / width))] += 1 / (p * width);
    }
    const law = edge ? lawPerLog(edge, live, low) : [];
    const most = Math.max(...counts, ...law.map(([, density]) => density), 1e-12), room = right - split - 4;
    this.bars = counts.map((density, i) => {
      const value = low * Math.exp((i + 0.5) * width), y = this.yOf(low * Math.exp((i + 1) * width));
      const bar = shape("rect", {
        x: split, y, height: Math.max(1, this.yOf(low * Math.exp(i * width)) - y - 1), width: (density / most) * room, class: "bar",
      });
      this.svg.append(bar);
      return { bar, value };
    });
    if (law.length) {
      const points = law.map(([value, density]) => `${(split + (density / most) * room).toFixed(1)},${this.yOf(value).toFixed(1)}`);
      this.svg.append(shape("polyline", { class: "law", points: points.join(" ") }));
    }
  }

  drawEdge(edge) {
    const { left, right } = this.plot, y = this.yOf(edge);
    this.svg.append(shape("line", { class: "edge", x1: left, x2: right, y1: y, y2: y }));
    this.edgeLabel = shape("text", { class: "edge-label", x: left + 8 }, `bulk edge ${formatNumber(edge, 4)}`);
    this.svg.append(this.edgeLabel);
  }

  // All that depends on tau.
  follow(data, tau, rank) {
    if (!this.plot) return;
    const y = this.yOf(tau), { split } = this.plot;
    for (const name of ["y1", "y2"]) this.line.setAttribute(name, y);
    this.label.textContent = `τ ${formatNumber(tau, 4)} keeps ${rank} of ${data.s.length}`;
    this.label.setAttribute("y", y < 22 ? y + 16 : y - 7);
    if (data.edge) {
      const edge = this.yOf(data.edge), below = y < edge; // on the side where tau's line is not
      this.edgeLabel.setAttribute("y", below ? edge + 14 : edge - 5);
    }
    this.handle.style.transform = `translate(${split - 12}px, ${y - 12}px)`;
    this.handle.setAttribute("aria-valuenow", String(tau));
    this.handle.setAttribute("aria-valuemin", "0");
    this.handle.setAttribute("aria-valuemax", String(this.plot.high));
    this.handle.setAttribute("aria-valuetext", `tau ${formatNumber(tau, 4)}, keeps ${rank} of ${data.s.length}`);
    for (const { bar, value } of this.bars) bar.classList.toggle("above", value > tau);
    this.kept.replaceChildren();
    for (let i = 0; i < Math.min(rank, MOST_DOTS); i++) {
      this.kept.append(shape("circle", { cx: this.xOf(i + 1), cy: this.yOf(data.s[i]), r: 3.4 }));
    }
  }
}

// The law's density per unit of ln s, as [s, density], for noise of the shape `live` whose bulk ends at `edge`.
function lawPerLog(edge, live, low) {
  const beta = Math.min(...live) / Math.max(...live), root = Math.sqrt(beta), unit = edge / (1 + root);
  const first = 1 - root, last = 1 + root, points = [];
  const from = Math.max(first, low / unit);
  if (!(from < last)) return points;
  for (let i = 0; i <= 160; i++) {
    const y = from * Math.pow(last / from, i / 160);
    const inside = Math.max(0, (last * last - y * y) * (y * y - first * first));
    points.push([y * unit, Math.sqrt(inside) / (Math.PI * beta)]); // y f(y)
  }
  return points;
}
