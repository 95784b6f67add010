// What one direction of the update does: a panel beside the figure, filled as the answers come.

class DirectionPanel {
  // `figure` has pick(number), where 0 closes, and decide(number, decision).
  constructor(host, figure) {
    this.host = host;
    this.figure = figure;
    host.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const { number } = this.direction;
      if (button.dataset.decision) this.figure.decide(number, button.dataset.decision);
      else this.figure.pick(button.dataset.step ? number + Number(button.dataset.step) : 0);
    });
  }

  // `number` is the direction that was asked for, of which there may be no answer yet.
  layout(data, number, rank) {
    const state = [number, data.direction, number <= rank, data.s];
    if (this.state && state.every((value, i) => value === this.state[i])) return;
    this.state = state;
    if (!this.asked || this.asked.number !== number) this.asked = { number, at: performance.now() };
    this.host.hidden = !number;
    if (!number) return;
    const answer = data.direction && data.direction.number === number ? data.direction : null;
    this.direction = answer || { number, problems: [], plan: null, moves: null, aligned: null, tokens: null };
    const p = data.s.length, focused = this.host.getRootNode().activeElement, held = focused && focused.dataset.held;
    this.host.replaceChildren(this.head(number, p), this.numbers(data, number, rank));
    if (this.direction.plan) this.host.append(this.decisions(this.direction.plan));
    for (const problem of this.direction.problems) this.host.append(element("p", "problem", problem));
    const { moves, aligned, tokens } = this.direction;
    if (aligned) this.host.append(...aligned.map((one) => this.overlap(one)));
    if (moves) this.host.append(this.moved(data, moves));
    if (tokens) this.host.append(this.vocabulary(tokens));
    if (!answer || answer.waiting) {
      const what = !moves ? "reading the direction" : !aligned ? "comparing with the singular vectors of base" : "reading the vocabulary of base";
      this.host.append(element("p", "waiting", `${what}, ${Math.round((performance.now() - this.asked.at) / 1000)} s ...`));
    }
    this.refocus(held);
  }

  refocus(held) {
    const again = held && this.host.querySelector(`[data-held="${held}"]`);
    if (again) again.focus();
  }

  head(number, p) {
    const head = element("div", "inspect-head");
    head.append(element("h2", "", `Direction ${number} of ${p}`));
    for (const [text, label, step, off] of [["‹", "Stronger direction", "-1", number <= 1], ["›", "Weaker direction", "1", number >= p], ["×", "Close", "", false]]) {
      const button = element("button", "", text);
      Object.assign(button, { type: "button", disabled: off, title: label });
      button.setAttribute("aria-label", label);
      button.dataset.held = label;
      if (step) button.dataset.step = step;
      head.append(button);
    }
    return head;
  }

  numbers(data, number, rank) {
    const list = element("dl", "facts"), sums = cumulativeEnergy(data.s), [first, second] = [sums[number - 1], sums[number]];
    const share = sums[data.s.length] > 0 ? (second - first) / sums[data.s.length] : 0;
    const facts = [
      ["singular value s", formatNumber(data.s[number - 1], 4) + (data.edge ? `, ${formatNumber(data.s[number - 1] / data.edge, 3)} × bulk edge` : "")],
      ["share of the energy", formatPercent(share)],
      ["at the τ you look at", number <= rank ? "kept" : "dropped"],
    ];
    for (const [name, text] of facts) list.append(element("dt", "", name), element("dd", "", text));
    return list;
  }

  decisions({ kept, alone, why }) {
    const box = element("div", "decide");
    const says = why ? `The plan ${why}.` : `In the plan: ${kept ? "kept" : "dropped"} ${alone ? "by itself" : "by the threshold"}`;
    box.append(element("p", "", says));
    const offers = alone ? [["leave", "Back to the threshold"]] : kept === null ? [] : kept ? [["drop", "Drop it alone"]] : [["keep", "Keep it alone"]];
    for (const [decision, text] of offers) {
      const button = element("button", "reset", text);
      button.type = "button";
      button.dataset.decision = decision;
      button.dataset.held = "decision";
      box.append(button);
    }
    return box;
  }

  overlap({ name, leading, left, right }) {
    const part = element("section"), what = name === "base" ? "the base weight" : `the update of ${name}`;
    part.append(element("h3", "", `Overlap with ${what}, its ${leading} leading directions`));
    const table = element("table", "overlap"), percent = (share) => formatPercent(share);
    const rows = [
      ["", "largest |cos|", "share inside"],
      ["u, outputs", `${left.cosine.toFixed(2)} with ${left.nearest}`, percent(left.share)],
      ["random u", `about ${left.chance_cosine.toFixed(2)}`, percent(left.chance_share)],
      ["v, inputs", `${right.cosine.toFixed(2)} with ${right.nearest}`, percent(right.share)],
      ["random v", `about ${right.chance_cosine.toFixed(2)}`, percent(right.chance_share)],
    ];
    for (const [i, cells] of rows.entries()) {
      const row = element("tr", i && i % 2 === 0 ? "chance" : "");
      row.append(...cells.map((text, j) => element((i && j) || !text ? "td" : "th", "", text)));
      table.append(row);
    }
    part.append(table);
    return part;
  }

  moved(data, { rows, columns }) {
    const part = element("section");
    const inputs = (column) => nameColumn(column, data.axes), named = (name) => ([index, share]) => [name(index), share, formatPercent(share)];
    part.append(element("h3", "", "What it moves most, with its share"), this.pair([["outputs", rows.map(named(String))], ["inputs", columns.map(named(inputs))]]));
    return part;
  }

  // Two lists of [name, length, number] side by side, each with a title and a bar behind every line; `scale` is the
  // length of a whole bar, by default that of a list's first.
  pair(lists, scale) {
    const pair = element("div", "moved");
    for (const [title, items] of lists) {
      const list = element("ol", ""), most = scale || (items.length ? items[0][1] : 1);
      list.setAttribute("aria-label", title);
      for (const [name, length, number, about] of items) {
        const item = element("li", ""), bar = element("i", "");
        bar.style.width = `${(100 * length) / (most || 1)}%`;
        if (about) item.title = about;
        item.append(bar, element("span", "", name), element("b", "", number));
        list.append(item);
      }
      const column = element("div", "");
      column.append(element("h4", "", title), list);
      pair.append(column);
    }
    return pair;
  }

  // The tokens at both ends of the vector that lies in the residual stream, or why there are none.
  vocabulary({ why, side, role, through, plus, minus, says, out }) {
    const part = element("section", out || why ? "" : "as-noise");
    part.append(element("h3", "", "Through the vocabulary of base"));
    if (why) { part.append(element("p", "note", why)); return part; }
    const told = (end) => end.map((token) => [token.text || `#${token.id}`, Math.abs(token.z), signed(token.z, 1), `token ${token.id}, z = ${signed(token.z, 2)}`]);
    const most = Math.max(...[...plus, ...minus].map((token) => Math.abs(token.z)));
    part.append(element("p", "note", `${side}, which it ${role}, against ${through}; z of the tokens`));
    part.append(this.pair([[`towards +${side}`, told(plus)], [`towards −${side}`, told(minus)]], most), element("p", "note", says));
    return part;
  }
}
