// Keys of a single letter can be switched off, and all are listed under "?".

const KEYS = [
  ["N, P", "next and previous weight", true],
  ["Ctrl-K, /", "find a weight on the map"],
  ["arrow keys", "on the map: move between cells; on τ: take in or drop one direction; on a panel: read values (Shift: ten)"],
  ["Enter", "on the map: open the weight; on (e) to (g): what does this direction do?"],
  ["Space", "on the map: select the cell, or take it out of the selection"],
  ["Home", "on τ: back to the rule"],
  ["B, held", "comparing: show A in B's place", true],
  ["Z, held", "pure noise in the update's place", true],
  ["Escape", "leave the zoom, the direction, the selection, in this order"],
  ["?", "this list", true],
];

function isTyping(event) {
  return event.composedPath().some((node) => ["INPUT", "TEXTAREA", "SELECT"].includes(node.tagName) || node.isContentEditable);
}

// A key of one character, no other key held: what speech recognition types by mistake.
function isSingleKey(event) {
  return event.key.length === 1 && event.key !== " " && !event.ctrlKey && !event.metaKey && !event.altKey;
}

// Before anybody else hears of it, the page's own shortcuts included; once for the whole page.
function guardKeys() {
  if (window.dgvizKeysGuarded) return;
  window.dgvizKeysGuarded = true;
  for (const type of ["keydown", "keyup"]) {
    window.addEventListener(type, (event) => {
      if (isChosen(KEYS_OFF, false) && isSingleKey(event) && !isTyping(event)) event.stopImmediatePropagation();
    }, true);
  }
}

class KeyHelp {
  constructor(dialog, button) {
    this.dialog = dialog;
    button.addEventListener("click", () => this.open());
    const list = element("dl", "");
    for (const [keys, what, single] of KEYS) list.append(element("dt", single ? "single" : "", keys), element("dd", "", what));
    const label = element("label", ""), box = element("input"), close = element("button", "reset", "Close");
    box.type = "checkbox";
    close.type = "button";
    label.append(box, " Keys of a single letter are on");
    box.addEventListener("change", () => choose(KEYS_OFF, !box.checked));
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.append(element("h2", "", "Keys"), list, label, close);
    this.box = box;
  }

  open() {
    this.box.checked = !isChosen(KEYS_OFF, false);
    if (!this.dialog.open) this.dialog.showModal();
  }
}
