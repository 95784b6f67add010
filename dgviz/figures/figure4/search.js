// Finding a weight by its name: a field above the map, and what it finds below the field.

const MOST_FOUND = 12;

class WeightSearch {
  constructor(field, list, onOpen) {
    Object.assign(this, { field, list, onOpen, names: [], found: [], at: 0 });
    field.addEventListener("input", () => this.find());
    field.addEventListener("focus", () => this.find());
    field.addEventListener("blur", () => this.show([]));
    field.addEventListener("keydown", (event) => this.byKey(event));
    list.addEventListener("pointerdown", (event) => {
      const option = event.target.closest("li");
      if (!option) return;
      event.preventDefault(); // the field keeps the focus until its list has been read
      this.open(option.textContent);
    });
  }

  focus() {
    this.field.focus();
    this.field.select();
  }

  find() {
    this.at = 0;
    this.show(this.field.value.trim() ? findNames(this.names, this.field.value, MOST_FOUND) : []);
  }

  show(found) {
    this.found = found;
    this.list.hidden = !found.length;
    this.field.setAttribute("aria-expanded", String(found.length > 0));
    this.list.replaceChildren(...found.map((name, i) => {
      const option = element("li", "", name);
      option.id = `f4-found-${i}`;
      option.setAttribute("role", "option");
      option.setAttribute("aria-selected", String(i === this.at));
      return option;
    }));
    if (found.length) this.field.setAttribute("aria-activedescendant", `f4-found-${this.at}`);
    else this.field.removeAttribute("aria-activedescendant");
  }

  byKey(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps && this.found.length) {
      this.at = (this.at + steps[event.key] + this.found.length) % this.found.length;
      this.show(this.found);
    } else if (event.key === "Enter" && this.found.length) this.open(this.found[this.at]);
    else if (event.key === "Escape") {
      this.field.value = "";
      this.show([]);
      this.field.blur();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  open(name) {
    this.field.value = "";
    this.show([]);
    this.field.blur();
    this.onOpen(name);
  }
}
