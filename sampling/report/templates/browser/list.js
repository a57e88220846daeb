// The list: only the rows in view are elements, whatever their number.

const HEIGHTS = { problem: 54, solution: 34, flat: 54 };
const BEYOND = 8; // rows above and below the view

class List {
  constructor(box, data, open) {
    this.box = box;
    this.data = data;
    this.open = open;
    this.inner = el("div", { class: "inner", role: "presentation" });
    box.replaceChildren(this.inner);
    this.rows = [];
    this.tops = new Float64Array(1);
    this.current = -1;
    box.addEventListener("scroll", () => this.paint(), { passive: true });
    new ResizeObserver(() => this.paint()).observe(box);
    this.inner.addEventListener("click", (event) => {
      const row = event.target.closest("[data-row]");
      if (row) this.select(Number(row.dataset.row), true);
    });
  }

  show(rows, state) {
    this.rows = rows;
    this.state = state;
    this.flat = !SORTS[state.sort].grouped;
    this.tops = new Float64Array(rows.length + 1);
    rows.forEach((row, i) => {
      this.tops[i + 1] = this.tops[i] + this.height(row);
    });
    this.inner.style.height = `${this.tops[rows.length]}px`;
    this.mark(state);
    this.inner.replaceChildren();
    this.paint();
  }

  height(row) {
    return row.p !== undefined ? HEIGHTS.problem : this.flat ? HEIGHTS.flat : HEIGHTS.solution;
  }

  /** Finds the row of what is open. */
  mark(state) {
    const s = state.s ? this.data.find(state.s) : undefined;
    const p = state.p && s === undefined ? this.data.problemById.get(state.p) : undefined;
    this.current = this.rows.findIndex((row) => (s !== undefined ? row.s === s : p !== undefined && row.p === p));
    this.paint();
  }

  /** The last row that begins above a height. */
  at(height) {
    let low = 0,
      high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.tops[middle + 1] <= height) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  paint() {
    const { scrollTop, clientHeight } = this.box;
    const from = Math.max(0, this.at(scrollTop) - BEYOND),
      to = Math.min(this.rows.length, this.at(scrollTop + clientHeight) + BEYOND + 1);
    const there = new Map([...this.inner.children].map((child) => [Number(child.dataset.row), child]));
    for (const [i, child] of there) if (i < from || i >= to) child.remove();
    for (let i = from; i < to; i++) {
      const row = there.get(i) ?? this.inner.appendChild(this.element(i));
      const selected = i === this.current;
      row.classList.toggle("current", selected);
      row.setAttribute("aria-selected", selected);
    }
    const active = this.current >= from && this.current < to ? `row${this.current}` : "";
    if (active) this.box.setAttribute("aria-activedescendant", active);
    else this.box.removeAttribute("aria-activedescendant");
  }

  element(i) {
    const row = this.rows[i];
    const made = el("div", {
      id: `row${i}`,
      "data-row": i,
      role: "option",
      "aria-posinset": i + 1,
      "aria-setsize": this.rows.length,
      class: row.p !== undefined ? "problem" : this.flat ? "solution flat" : "solution",
      style: { top: `${this.tops[i]}px`, height: `${this.height(row)}px` },
    });
    made.append(...(row.p !== undefined ? this.problem(row.p) : this.solution(row.s)));
    return made;
  }

  problem(p) {
    const problem = this.data.problems[p],
      { correct, graded, of } = this.data.tally(p);
    const share =
      graded && !hidesScores()
        ? el(
            "span",
            { class: "share", title: `${correct} of ${graded} ${of} are correct` },
            el(
              "span",
              { class: "track", "aria-hidden": "true" },
              el("i", { style: { width: `${(100 * correct) / graded}%` } }),
            ),
            `${correct} of ${graded} ✓`,
          )
        : null;
    return [
      el("span", { class: "first" }, problem.text || problem.id),
      el("span", { class: "second" }, el("span", { class: "id" }, problem.id), share),
    ];
  }

  solution(s) {
    const { data } = this,
      v = verifierIndex(data, this.state),
      answer = data.answer(s);
    const shown = columnsShown(data, this.state);
    const cells = [
      data.graded && !hidesScores() ? verdict(data.columns.correct[s]) : ratingSummary(data, s),
      el("span", { class: "id" }, data.shortId(s)),
      data.graded || answer !== null
        ? el("span", { class: "answer", title: answer ?? "no answer" }, answer ?? "no answer")
        : el("span", { class: "answer" }, `${data.columns.steps[s]} steps`),
      marks(data, s, v),
      ...shown.map((w) => mini(data.judged[w].score[s], data.verifiers[w].name)),
    ];
    if (!this.flat) return cells;
    return [
      el("span", { class: "cells" }, ...cells),
      el(
        "span",
        { class: "second" },
        el("span", { class: "id" }, data.problems[data.problemOf[s]].id),
        el("span", { class: "snippet" }, data.problems[data.problemOf[s]].text),
      ),
    ];
  }

  select(i, push) {
    if (i < 0 || i >= this.rows.length) return;
    this.current = i;
    this.reveal();
    this.open(this.rows[i], push);
  }

  /** Scrolls the current row into view. */
  reveal() {
    if (this.current < 0) return;
    const top = this.tops[this.current],
      bottom = this.tops[this.current + 1],
      { scrollTop, clientHeight } = this.box;
    if (top < scrollTop) this.box.scrollTop = top;
    else if (bottom > scrollTop + clientHeight) this.box.scrollTop = bottom - clientHeight;
    this.paint();
  }

  /** Moves by rows, or, with `problems`, to the next row of another problem. */
  move(step, problems = false) {
    const of = (row) => row.p ?? this.data.problemOf[row.s];
    let i = this.current < 0 ? (step > 0 ? 0 : this.rows.length - 1) : this.current + step;
    if (problems && this.current >= 0) {
      const own = of(this.rows[this.current]);
      while (i >= 0 && i < this.rows.length && of(this.rows[i]) === own) i += step;
      if (step < 0) while (i > 0 && of(this.rows[i - 1]) === of(this.rows[i])) i--;
    }
    this.select(i, false);
  }
}

/** The verifiers whose scores are in the list. */
const columnsShown = (data, state) =>
  hidesScores() ? [] : state.v ? [verifierIndex(data, state)] : [...data.verifiers.keys()].slice(0, 3);

/** Small signs of what is odd about a solution. */
function marks(data, s, v) {
  const flags = hidesScores()
    ? 0
    : v >= 0
      ? data.judged[v].flags[s]
      : data.judged.reduce((all, one) => all | one.flags[s], 0);
  const said = [
    flags & FLAGS.confident && ["▲", "incorrect, with a high score"],
    flags & FLAGS.doubted && ["▽", "correct, with a low score"],
    flags & FLAGS.missed && ["⚑", "the labelled first error was missed"],
    flags & FLAGS.alarm && ["⚐", "an error was seen where there is none"],
    data.columns.cut[s] && ["…", "cut off"],
    data.chosenBy.has(s) && !hidesScores() && ["★", `selected by ${(data.chosenBy.get(s) ?? []).join(", ")}`, "star"],
    ratings.isRated(data.id(s)) && data.graded && !hidesScores() && ["✎", "rated here"],
  ].filter(Boolean);
  return el(
    "span",
    { class: "marks" },
    ...said.map(([glyph, title, kind]) => el("span", { class: kind, role: "img", title, "aria-label": title }, glyph)),
  );
}

function mini(value, name) {
  const known = value !== null;
  return el(
    "span",
    { class: "mini", title: `${name}: ${number(value)}`, style: known ? { background: shade(value) } : {} },
    known ? value.toFixed(2).replace(/^0/, "") : "–",
  );
}
