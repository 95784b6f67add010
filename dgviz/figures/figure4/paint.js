// Colours and canvases of Figure 4.

// The magma map at tenths (Smith & van der Walt, CC0); perceptually uniform, its lightness rises throughout.
const MAGMA = [
  [0, 0, 4], [20, 14, 54], [59, 15, 112], [100, 26, 128], [140, 41, 129], [183, 55, 121],
  [222, 73, 104], [247, 112, 92], [254, 159, 109], [254, 207, 146], [252, 253, 191],
];

function magma(t) {
  const at = Math.min(9.999, Math.max(0, t * 10)), i = Math.floor(at), f = at - i;
  return [0, 1, 2].map((c) => Math.round(MAGMA[i][c] * (1 - f) + MAGMA[i + 1][c] * f));
}

// 256 colours. Code 0, exactly zero, is the page's own ground; code 1 already stands off from it, in both themes.
function buildPalette(ground, dark) {
  const colours = [ground];
  for (let code = 1; code < 256; code++) {
    const t = (code - 1) / 254;
    colours.push(magma(dark ? 0.12 + 0.88 * t : 1 - 0.94 * t));
  }
  const words = new Uint32Array(256);
  // ImageData is RGBA in memory, so little-endian words are ABGR.
  colours.forEach(([r, g, b], code) => { words[code] = (255 << 24) | (b << 16) | (g << 8) | r; });
  return { words, colours };
}

function parseColour(text) {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = "#808080";
  probe.fillStyle = text.trim() || "#808080";
  probe.fillRect(0, 0, 1, 1);
  return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

function isDark([r, g, b]) {
  return 0.2126 * r + 0.7152 * g + 0.0722 * b < 128;
}

// Codes onto a canvas, one canvas pixel per code; the style sheet scales it by whole pixels without smoothing.
function paintCodes(canvas, codes, rows, palette) {
  const columns = codes.length / rows;
  if (canvas.width !== columns || canvas.height !== rows) { canvas.width = columns; canvas.height = rows; }
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < codes.length; i++) pixels[i] = palette.words[codes[i]];
  context.putImageData(image, 0, 0);
}

const ZERO_SHARE = 0.05; // the foot of a colour bar: the colour of exactly zero

function barGradient(palette) {
  const css = (c) => `rgb(${c.join(",")})`;
  const stops = [`${css(palette.colours[0])} 0 ${100 * ZERO_SHARE}%`];
  for (let i = 0; i <= 32; i++) {
    const code = 1 + Math.round((254 * i) / 32);
    stops.push(`${css(palette.colours[code])} ${(100 * (ZERO_SHARE + ((1 - ZERO_SHARE) * i) / 32)).toFixed(2)}%`);
  }
  return `linear-gradient(to top, ${stops.join(",")})`;
}

// A child element with class and text.
function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

// Tick labels along an axis; those nearer than `gap` pixels to an earlier one are left out.
function layTicks(host, ticks, length, gap, horizontal) {
  const placed = [];
  for (const { share, text, className } of ticks) {
    const at = share * length;
    if (placed.some((other) => Math.abs(other - at) < gap)) continue;
    placed.push(at);
    const node = element("span", "tick " + (className || ""), text);
    node.style[horizontal ? "left" : "top"] = `${at}px`;
    host.append(node);
  }
}
