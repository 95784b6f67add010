// The spectrum chart elsewhere on the page: its tau line follows by Plotly.update, zoom kept, nothing sent.

// Charts of this view, recognised by layout.meta (dgviz/figures/spectrum.py).
function findCharts(view) {
  return [...document.querySelectorAll(".js-plotly-plot")].filter((chart) => {
    const meta = chart.layout && chart.layout.meta;
    return meta && meta.dgviz === "spectrum" && meta.view === view;
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

function moveTau(chart, s, tau, rank, edge, rule, ruleTau) {
  const meta = chart.layout.meta, log = meta.log;
  const [low, high] = chart.layout.yaxis.range;
  const level = (value) => (log ? Math.log10(value) : value);
  const shown = !log || tau > 0;
  // Labels stand side by side above their lines; where the lines are close both stand above the upper one.
  const near = edge && shown && Math.abs(level(tau) - level(edge)) < 0.08 * (high - low);
  const upper = Math.max(tau, edge || 0);
  const named = rule && tau === ruleTau ? ` (${rule})` : "";
  const layout = {
    [`shapes[${meta.tau}].visible`]: shown,
    [`annotations[${meta.tau}].visible`]: shown,
    [`annotations[${meta.tau}].text`]: `τ = ${formatNumber(tau, 4)}${named}`,
  };
  if (shown) {
    layout[`shapes[${meta.tau}].y0`] = tau;
    layout[`shapes[${meta.tau}].y1`] = tau;
    layout[`annotations[${meta.tau}].y`] = level(near ? upper : tau);
  }
  if (edge) layout[`annotations[${meta.edge}].y`] = level(near ? upper : edge);
  const kept = keptPositions(rank);
  const trace = { x: [kept.map((i) => i + 1)], y: [kept.map((i) => s[i])] };
  return window.Plotly.update(chart, trace, layout, [meta.kept_trace]);
}
