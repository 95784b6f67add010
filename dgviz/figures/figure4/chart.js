// The charts of the spectrum elsewhere on the page: tau follows by Plotly.update, zoom kept, nothing sent.

const RIGHT_LABEL = 0.8; // a label right of its line needs the line to stand within this share of the axis

// Charts of this view, recognised by layout.meta (dgviz/figures/spectrum.py, histogram.py).
function findCharts(view) {
  return [...document.querySelectorAll(".js-plotly-plot")].filter((chart) => {
    const meta = chart.layout && chart.layout.meta;
    return meta && (meta.dgviz === "spectrum" || meta.dgviz === "histogram") && meta.view === view;
  });
}

function canMoveCharts() {
  return Boolean(window.Plotly && window.Plotly.update);
}

// Positions of the kept values worth drawing: all of the first thousand, then every so many, and the last one.
function keptPositions(rank) {
  const positions = [];
  const stride = Math.max(1, Math.ceil((rank - 1000) / 2000));
  for (let i = 0; i < rank; i += i < 1000 ? 1 : stride) positions.push(i);
  if (rank > 0 && positions[positions.length - 1] !== rank - 1) positions.push(rank - 1);
  return positions;
}

function moveTau(chart, data, tau, rank) {
  const label = `τ = ${formatNumber(tau, 4)}` + (tau === data.ruleTau && chart.layout.meta.rule ? ` (${data.rule})` : "");
  return (chart.layout.meta.dgviz === "spectrum" ? moveSpectrum : moveHistogram)(chart, data, tau, rank, label);
}

function moveSpectrum(chart, { s, edge }, tau, rank, label) {
  const { meta, yaxis } = chart.layout, [low, high] = yaxis.range;
  const level = (value) => (meta.log ? Math.log10(value) : value);
  const shown = !meta.log || tau > 0;
  // Labels stand side by side above their lines; where the lines are close both stand above the upper one.
  const near = edge && shown && Math.abs(level(tau) - level(edge)) < 0.08 * (high - low);
  const layout = {
    [`shapes[${meta.tau}].visible`]: shown,
    [`annotations[${meta.tau}].visible`]: shown,
    [`annotations[${meta.tau}].text`]: label,
    [`annotations[${meta.edge}].xshift`]: -Math.round(14 + 6.6 * label.length),
  };
  if (shown) {
    layout[`shapes[${meta.tau}].y0`] = tau;
    layout[`shapes[${meta.tau}].y1`] = tau;
    layout[`annotations[${meta.tau}].y`] = level(near ? Math.max(tau, edge) : tau);
  }
  if (edge) layout[`annotations[${meta.edge}].y`] = level(near ? Math.max(tau, edge) : edge);
  const kept = keptPositions(rank);
  const trace = { x: [kept.map((i) => i + 1)], y: [kept.map((i) => s[i])] };
  return window.Plotly.update(chart, trace, layout, [meta.kept_trace]);
}

function moveHistogram(chart, { s, edge }, tau, rank, label) {
  const { meta } = chart.layout, layout = {};
  // Labels are written away from each other: the right-hand line's to the right, while there is room.
  for (const [index, value] of [[meta.edge, edge || 0], [meta.tau, tau]]) {
    const outward = value === Math.max(tau, edge || 0) && value < RIGHT_LABEL * meta.end;
    layout[`annotations[${index}].xanchor`] = outward ? "left" : "right";
    layout[`annotations[${index}].xshift`] = outward ? 4 : -4;
  }
  Object.assign(layout, {
    [`shapes[${meta.tau}].x0`]: tau,
    [`shapes[${meta.tau}].x1`]: tau,
    [`shapes[${meta.tau}].visible`]: tau <= meta.end,
    [`annotations[${meta.tau}].x`]: tau,
    [`annotations[${meta.tau}].visible`]: tau <= meta.end,
    [`annotations[${meta.tau}].text`]: label,
  });
  const bars = (from, to) => histogramDensity(s, from, to, meta.end, meta.bins);
  const traces = { y: [bars(rank, s.length), bars(0, rank)] };
  return window.Plotly.update(chart, traces, layout, [meta.dropped_trace, meta.kept_trace]);
}
