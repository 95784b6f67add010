// What the browser remembers of somebody's choices, in its own storage; where that is refused nothing is.

const KEYS_OFF = "dgviz-single-keys-off";

function isChosen(name, otherwise) {
  try {
    return { 1: true, 0: false }[localStorage.getItem(name)] ?? otherwise;
  } catch {
    return otherwise;
  }
}

function choose(name, on) {
  try {
    localStorage.setItem(name, on ? "1" : "0");
  } catch {
    return false;
  }
  return true;
}

// A box that is ticked as it was left, whichever weight is looked at.
function rememberBox(box, name, changed) {
  box.checked = isChosen(name, box.checked);
  box.addEventListener("change", () => { choose(name, box.checked); changed(); });
}
