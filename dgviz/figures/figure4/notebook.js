// The component in a notebook: the state of its model in the place of Streamlit's.

// The colour that stands behind an element: its own, or that of what holds it.
function groundOf(el) {
  for (let node = el; node; node = node.parentElement || (node.getRootNode() && node.getRootNode().host)) {
    const colour = getComputedStyle(node).backgroundColor;
    if (colour && colour !== "transparent" && !/, 0\)$/.test(colour)) return colour;
  }
  return "#ffffff";
}

// JupyterLab hands out an element before it is on the page: there it has no colours and no width yet.
function render({ model, el }) {
  let end = () => {}, frame = 0;
  const begin = () => {
    if (el.isConnected) end = show(model, el);
    else frame = requestAnimationFrame(begin);
  };
  begin();
  return () => {
    cancelAnimationFrame(frame);
    end();
  };
}

function show(model, el) {
  const ground = groundOf(el), dark = isDark(parseColour(ground)), host = document.createElement("div");
  const colours = {
    "background-color": ground,
    "text-color": dark ? "#e8eaed" : "#1a1a1a",
    "secondary-background-color": dark ? "#262a32" : "#f3f4f6",
    "primary-color": "#c6520d",
    "blue-color": "#4a7fd6",
    "violet-color": "#b45cc9",
    "red-color": "#c0392b",
    "font": "Helvetica, Arial, sans-serif",
    "base-radius": "6px",
  };
  for (const [name, value] of Object.entries(colours)) host.style.setProperty(`--st-${name}`, value);
  el.append(host);
  const root = host.attachShadow({ mode: "open" });
  root.innerHTML = `<style>${STYLE}</style>${MARKUP}`;
  const kept = model.get("states");
  const setStateValue = (name, value) => {
    if (!kept.includes(name)) return;
    model.set(name, value);
    model.save_changes();
  };
  let end = () => {};
  const draw = () => {
    const { buffer, byteOffset, byteLength } = model.get("payload");
    end = mount({ parentElement: root, data: new Uint8Array(buffer, byteOffset, byteLength), setStateValue });
  };
  model.on("change:payload", draw);
  draw();
  return () => {
    model.off("change:payload", draw);
    end();
  };
}

export default { render };
