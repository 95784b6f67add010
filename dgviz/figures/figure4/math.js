// Pure functions of Figure 4: no DOM, no state. Tested against Python through node (tests/test_figures.py).

// Number of singular values strictly above tau; s descends.
function rankAt(s, tau) {
  let low = 0, high = s.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (s[middle] > tau) low = middle + 1; else high = middle;
  }
  return low;
}

// A tau that keeps exactly `rank` values: half-way to the first dropped one, as the fixed-rank rule does.
// Where values tie across the boundary no such tau exists and the tie is dropped whole.
function tauForRank(s, rank) {
  const p = s.length;
  if (rank <= 0) return s[0];
  if (rank >= p) return s[p - 1] / 2;
  const middle = s[rank] + (s[rank - 1] - s[rank]) / 2;
  return middle < s[rank - 1] ? middle : s[rank];
}

// The nearest rank in the given direction (+1, -1) that some tau can reach, or the current one at the end.
function nextRank(s, rank, direction) {
  for (let k = rank + direction; k >= 0 && k <= s.length; k += direction) {
    if (rankAt(s, tauForRank(s, k)) === k) return k;
  }
  return rank;
}

// Sums of squares of the first k values, k = 0 ... p, scaled by s_1 so that nothing overflows.
function cumulativeEnergy(s) {
  const sums = new Float64Array(s.length + 1);
  const unit = s[0] || 1;
  for (let i = 0; i < s.length; i++) sums[i + 1] = sums[i] + (s[i] / unit) * (s[i] / unit);
  return sums;
}

// Share of the energy in the first `rank` values; null for a zero delta.
function energyKept(sums, rank) {
  const total = sums[sums.length - 1];
  return total > 0 ? sums[rank] / total : null;
}

// Kolmogorov distance between the law and a spectrum of p values, by default as many as the law has, whose law values, ascending, are `zeros` zeros
// followed by law[last], law[last - 1], ..., law[first] (s descends, so does law).
function lawDistance(law, zeros, first, last, p = law.length) {
  let distance = zeros / p, seen = zeros;
  for (let i = last; i >= first; i--) {
    distance = Math.max(distance, law[i] - seen / p);
    seen += 1;
    distance = Math.max(distance, seen / p - law[i]);
  }
  return distance;
}

// MP-fit of tuned, repaired and discarded delta when `rank` values are kept; sigma is fixed inside law. The discarded
// one over its own values too, without the zeros that stand for what is kept.
function fitTriple(law, rank) {
  const p = law.length;
  const score = (distance) => 100 * (1 - distance);
  return {
    tuned: score(lawDistance(law, 0, 0, p - 1)),
    repaired: score(lawDistance(law, p - rank, 0, rank - 1)),
    discarded: score(lawDistance(law, rank, rank, p - 1)),
    discardedOwn: rank < p ? score(lawDistance(law, 0, rank, p - 1, p - rank)) : null,
  };
}

// Which directions each pixel column shows: [lo, hi) per column, none straddling the kept rank, and `boundary`, the
// number of columns left of it. Linear: the columns partition the directions, and the even edge nearest to the rank
// moves onto it. Logarithmic: a direction may fill several columns, every direction is in at least one.
function columnBlocks(p, width, rank, logarithmic) {
  const columns = logarithmic ? width : Math.min(p, width);
  const lo = new Int32Array(columns), hi = new Int32Array(columns);
  const inside = rank > 0 && rank < p && columns > 1;
  if (!logarithmic) {
    const edges = new Int32Array(columns + 1);
    for (let j = 0; j <= columns; j++) edges[j] = Math.floor((j * p) / columns);
    let boundary = rank >= p ? columns : 0;
    if (inside) {
      boundary = edges.indexOf(rank);
      if (boundary < 0) {
        boundary = Math.min(columns - 1, Math.max(1, Math.round((rank * columns) / p)));
        edges[boundary] = rank;
      }
    }
    for (let j = 0; j < columns; j++) { lo[j] = edges[j]; hi[j] = edges[j + 1]; }
    return { lo, hi, boundary };
  }
  const start = (j) => Math.min(p, Math.floor(Math.exp((j / columns) * Math.log(p + 1)) + 1e-9) - 1);
  for (let j = 0; j < columns; j++) {
    lo[j] = Math.min(p - 1, start(j));
    hi[j] = Math.max(lo[j] + 1, j + 1 < columns ? start(j + 1) : p);
  }
  let boundary = rank >= p ? columns : 0;
  if (inside) {
    boundary = Math.round((columns * Math.log(rank + 1)) / Math.log(p + 1));
    boundary = Math.min(columns - 1, Math.max(1, boundary));
    for (let j = 0; j < columns; j++) {
      if (j < boundary) { lo[j] = Math.min(lo[j], rank - 1); hi[j] = Math.min(hi[j], rank); }
      else { lo[j] = Math.max(lo[j], rank); hi[j] = Math.max(hi[j], rank + 1); }
    }
    hi[boundary - 1] = rank;
    lo[boundary] = rank;
  }
  return { lo, hi, boundary };
}

// Maxima of a rows x p map within column blocks. `before` is {blocks, pooled} of the same map: blocks that did not
// change are taken over, and moving the rank changes two of several hundred.
function poolColumns(codes, rows, p, blocks, before) {
  const columns = blocks.lo.length;
  const usable = before && before.blocks.lo.length === columns && before.pooled.length === rows * columns;
  const pooled = usable ? before.pooled.slice() : new Uint8Array(rows * columns);
  for (let j = 0; j < columns; j++) {
    const lo = blocks.lo[j], hi = blocks.hi[j];
    if (usable && lo === before.blocks.lo[j] && hi === before.blocks.hi[j]) continue;
    for (let i = 0; i < rows; i++) {
      let best = 0;
      for (let r = i * p + lo, end = i * p + hi; r < end; r++) if (codes[r] > best) best = codes[r];
      pooled[i * columns + j] = best;
    }
  }
  return pooled;
}

// Even blocks of [0, length) for at most `limit` pixels, as {lo, hi}.
function evenBlocks(length, limit) {
  const count = Math.max(1, Math.min(length, limit));
  const lo = new Int32Array(count), hi = new Int32Array(count);
  for (let j = 0; j < count; j++) {
    lo[j] = Math.floor((j * length) / count);
    hi[j] = Math.floor(((j + 1) * length) / count);
  }
  return { lo, hi };
}

// Maxima of a map within row blocks.
function poolRows(codes, columns, blocks) {
  const count = blocks.lo.length;
  if (codes.length === count * columns) return codes;
  const pooled = new Uint8Array(count * columns);
  for (let i = 0; i < count; i++) {
    for (let r = blocks.lo[i]; r < blocks.hi[i]; r++) {
      for (let j = 0; j < columns; j++) {
        const code = codes[r * columns + j];
        if (code > pooled[i * columns + j]) pooled[i * columns + j] = code;
      }
    }
  }
  return pooled;
}

// The same two steps for root mean squares: `values` are the magnitudes of the codes, ascending.
function poolSquares(codes, columns, rowBlocks, columnBlocks, values) {
  const squares = values.map((value) => value * value), rows = rowBlocks.lo.length, count = columnBlocks.lo.length;
  const pooled = new Uint8Array(rows * count);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < count; j++) {
      let sum = 0;
      for (let r = rowBlocks.lo[i]; r < rowBlocks.hi[i]; r++) {
        for (let c = columnBlocks.lo[j]; c < columnBlocks.hi[j]; c++) sum += squares[codes[r * columns + c]];
      }
      const size = (rowBlocks.hi[i] - rowBlocks.lo[i]) * (columnBlocks.hi[j] - columnBlocks.lo[j]);
      pooled[i * count + j] = nearestCode(values, Math.sqrt(sum / size));
    }
  }
  return pooled;
}

function nearestCode(values, value) {
  if (!(value > 0)) return 0;
  let low = 1, high = values.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < value) low = middle + 1; else high = middle;
  }
  return low > 1 && value - values[low - 1] < values[low] - value ? low - 1 : low;
}

// A map of directions, each multiplied by its own gain; `values` are the magnitudes of the codes, ascending.
function gainColumns(codes, gains, values) {
  const p = gains.length, gained = new Uint8Array(codes.length);
  let last = 1, table = null;
  for (let r = 0; r < p; r++) {
    const gain = Math.abs(gains[r]);
    if (gain === 0) continue;
    if (gain !== last) table = gain === 1 ? null : Uint8Array.from(values, (value) => nearestCode(values, value * gain));
    last = gain;
    for (let at = r; at < codes.length; at += p) gained[at] = table ? table[codes[at]] : codes[at];
  }
  return gained;
}

// The column of a block list that shows a direction, from 0 on, and where its middle lies as a share of the width.
function columnOf(blocks, direction) {
  const count = blocks.lo.length;
  for (let j = 0; j < count; j++) if (blocks.lo[j] <= direction && direction < blocks.hi[j]) return (j + 0.5) / count;
  return null;
}

// Names that hold every word of a text, those first in which the words stand at the start of a component.
function findNames(names, text, most) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const ranked = [];
  names.forEach((name, order) => {
    const low = name.toLowerCase(), places = words.map((word) => low.indexOf(word));
    if (places.includes(-1)) return;
    const inside = words.filter((word) => !new RegExp(`(^|[._[])${word.replace(/[^a-z0-9]/g, "\\$&")}`).test(low)).length;
    ranked.push([inside, order, name]);
  });
  return ranked.sort((a, b) => a[0] - b[0] || a[1] - b[1]).slice(0, most).map(([, , name]) => name);
}

// A column of a convolution as input and place in its kernel; of any other matrix just its number.
function nameColumn(column, axes) {
  const { kernel } = axes;
  if (kernel.length < 2) return String(column);
  const parts = [];
  let rest = column;
  for (let i = kernel.length - 1; i >= 0; i--) { parts.unshift(rest % kernel[i]); rest = Math.floor(rest / kernel[i]); }
  return `${column} (${parts.join(", ")})`;
}

// A number with its sign, for sums that are to be read.
function formatSigned(value, digits) {
  return (value < 0 ? "−" : "+") + formatNumber(Math.abs(value), digits);
}

// The map left and right of a column boundary, zero elsewhere: kept and dropped directions.
function splitColumns(pooled, rows, boundary) {
  const columns = pooled.length / rows;
  const kept = new Uint8Array(pooled.length), dropped = new Uint8Array(pooled.length);
  for (let i = 0; i < rows; i++) {
    const row = i * columns;
    kept.set(pooled.subarray(row, row + boundary), row);
    dropped.set(pooled.subarray(row + boundary, row + columns), row + boundary);
  }
  return { kept, dropped };
}

// The least and the largest tau that are worth a place on an axis of the spectrum.
function tauRange(s, edge) {
  const high = s[0] * 1.03;
  const positive = s.filter((x) => x > s[0] * 1e-7);
  const smallest = positive.length ? positive[positive.length - 1] : 0;
  const low = edge ? Math.max(smallest * 0.95, edge / 20) : smallest * 0.95;
  return { low: Math.min(low, high), high };
}

// Numbers for an axis of 0 ... length: round steps of 1, 2 or 5, about `wanted` of them.
function axisTicks(length, wanted) {
  const rough = length / wanted;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = Math.max(1, [1, 2, 5, 10].map((m) => m * power).reduce((a, b) =>
    Math.abs(Math.log(b / rough)) < Math.abs(Math.log(a / rough)) ? b : a));
  const ticks = [];
  for (let value = 0; value <= length; value += step) ticks.push(value);
  return ticks;
}

// A number for a person: `digits` significant ones, an exponent only where needed, a true minus sign in it.
function formatNumber(value, digits) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return String(Number(value.toPrecision(digits)));
  return value.toExponential(Math.max(0, digits - 1)).replace(/\.?0+e/, "e").replace("e+", "e").replace("e-", "e−");
}

function formatPercent(share) {
  const percent = 100 * share;
  if (share > 0 && percent < 0.1) return "< 0.1 %";
  if (share < 1 && percent > 99.9) return "> 99.9 %";
  return percent.toFixed(1) + " %";
}
