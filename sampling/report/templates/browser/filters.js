// What the list shows, in which order, and how that is written in the address.

const DEFAULTS = { q: "", only: "all", sort: "order", v: "", s: "", p: "" };

const FILTERS = {
  all: { label: "all solutions", test: () => true },
  correct: { label: "correct", has: (d) => d.graded, test: (d, s) => d.columns.correct[s] === true },
  incorrect: { label: "incorrect", has: (d) => d.graded, test: (d, s) => d.columns.correct[s] === false },
  disagree: {
    label: "verifiers disagree",
    has: (d) => d.verifiers.length > 1,
    test: (d, s) => d.columns.disagree[s] === 1,
  },
  confident: { label: "incorrect, high score", has: (d) => d.graded && d.scored, flag: FLAGS.confident },
  doubted: { label: "correct, low score", has: (d) => d.graded && d.scored, flag: FLAGS.doubted },
  missed: { label: "first error missed", has: (d) => d.labelled && d.byStep, flag: FLAGS.missed },
  alarm: { label: "error seen where there is none", has: (d) => d.labelled && d.byStep, flag: FLAGS.alarm },
  labelled: { label: "with step labels", has: (d) => d.labelled, test: (d, s) => d.columns.error[s] !== UNKNOWN },
  cut: { label: "cut off", has: (d) => d.columns.cut.includes(1), test: (d, s) => d.columns.cut[s] === 1 },
  chosen: { label: "selected by a rule", has: (d) => d.chosenBy.size > 0, test: (d, s) => d.chosenBy.has(s) },
  rated: { label: "rated here", has: (d) => d.size > 0, test: (d, s) => ratings.isRated(d.id(s)) },
  unrated: { label: "not rated here", has: (d) => d.size > 0, test: (d, s) => !ratings.isRated(d.id(s)) },
};

const SORTS = {
  order: { label: "problem by problem", grouped: true },
  hard: { label: "hardest problems first", grouped: true, has: (d) => d.graded || d.searched },
  high: { label: "highest score first", has: (d) => d.scored, key: (d, s, v) => score(d, s, v, Math.max), down: true },
  low: { label: "lowest score first", has: (d) => d.scored, key: (d, s, v) => score(d, s, v, Math.min) },
  spread: {
    label: "largest disagreement first",
    has: (d) => d.verifiers.length > 1,
    key: (d, s) => d.columns.spread[s],
    down: true,
  },
  steps: { label: "most steps first", has: (d) => d.size > 0, key: (d, s) => d.columns.steps[s], down: true },
  long: { label: "longest first", has: (d) => d.size > 0, key: (d, s) => d.lengths[s], down: true },
  short: { label: "shortest first", has: (d) => d.size > 0, key: (d, s) => d.lengths[s] },
};

/** A verifier's score; of all verifiers the largest or smallest. Null without one. */
function score(data, s, v, among) {
  if (v >= 0) return data.judged[v].score[s];
  const known = data.judged.map((one) => one.score[s]).filter((x) => x !== null);
  return known.length ? among(...known) : null;
}

function describeData(data) {
  data.graded = data.columns.correct.some((c) => c !== null);
  data.searched = data.problems.some((problem) => problem.searched);
  data.scored = data.verifiers.length > 0;
  data.byStep = data.verifiers.some((v) => v.kind === "step");
  data.labelled = data.columns.error.some((e) => e !== UNKNOWN);
}

const offered = (table, data) => Object.keys(table).filter((key) => !table[key].has || table[key].has(data));

function passes(data, s, state) {
  const filter = FILTERS[state.only];
  if (filter.test) return filter.test(data, s);
  const v = verifierIndex(data, state);
  return v >= 0 ? (data.judged[v].flags[s] & filter.flag) > 0 : data.judged.some((one) => one.flags[s] & filter.flag);
}

/** The chosen verifier; -1 for any of them. */
const verifierIndex = (data, state) => data.verifiers.findIndex((v) => v.name === state.v);

/** Rows of the list: {p} for the head of a problem, {s} for a solution. `matches` is null or tells which match. */
function rows(data, state, matches) {
  const sort = SORTS[state.sort];
  const keep = (s) => passes(data, s, state) && (!matches || matches.solution(s));
  if (!sort.grouped) {
    const v = verifierIndex(data, state),
      found = [];
    for (let s = 0; s < data.size; s++) if (keep(s)) found.push({ s, key: sort.key(data, s, v) });
    const known = found.filter((row) => row.key !== null),
      sign = sort.down ? -1 : 1;
    known.sort((a, b) => sign * (a.key - b.key) || a.s - b.s);
    return [...known, ...found.filter((row) => row.key === null)];
  }
  const order = data.problems.map((_, p) => p);
  if (state.sort === "hard") {
    const ease = order.map((p) => {
      const t = data.tally(p);
      return t.graded ? t.correct / t.graded : 2;
    });
    order.sort((a, b) => ease[a] - ease[b] || a - b);
  }
  const found = [];
  for (const p of order) {
    const inside = data.solutionsOf(p).filter(keep);
    const bare = state.only === "all" && (!matches || matches.problem(p)); // a problem of a search may have no solutions
    if (inside.length || (bare && !data.problems[p].count)) found.push({ p }, ...inside.map((s) => ({ s })));
  }
  return found;
}

function readState(data) {
  const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  const state = {
    ...DEFAULTS,
    ...Object.fromEntries(
      Object.keys(DEFAULTS)
        .filter((k) => k in asked)
        .map((k) => [k, asked[k]]),
    ),
  };
  if (!offered(FILTERS, data).includes(state.only)) state.only = DEFAULTS.only;
  if (!offered(SORTS, data).includes(state.sort)) state.sort = DEFAULTS.sort;
  if (state.v && verifierIndex(data, state) < 0) state.v = "";
  return state;
}

function writeState(state, push) {
  const told = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
  const hash = `#${new URLSearchParams(told)}`;
  if (hash === (location.hash || "#")) return;
  history[push ? "pushState" : "replaceState"](null, "", hash);
}

const TOLD_EVERY = 200; // milliseconds

/**
 * Searches the index at once and the steps of all solutions shard by shard; `report` is called after each with the
 * matches so far and the share that was searched. `answer:` and `id:` search these alone.
 */
class Search {
  constructor(data, query, report) {
    const found = /^(answer|id):\s*(.*)$/i.exec(query.trim());
    this.field = found ? found[1].toLowerCase() : "";
    this.text = (found ? found[2] : query.trim()).toLowerCase();
    this.data = data;
    this.report = report;
    this.stopped = false;
    this.problems = new Uint8Array(data.problems.length);
    this.solutions = new Uint8Array(data.size);
  }

  async run() {
    const { data, text, field } = this,
      has = (value) => value !== null && value.toLowerCase().includes(text);
    const answers = data.answers.map((answer) => (field === "answer" ? answer.toLowerCase() === text : has(answer)));
    data.problems.forEach((problem, p) => {
      const reference = field !== "answer" && has(problem.answer);
      this.problems[p] =
        field === "answer" ? 0 : field === "id" ? has(problem.id) : has(problem.id) || has(problem.text) || reference;
    });
    for (let s = 0; s < data.size; s++) {
      const own = field !== "id" && data.columns.predicted[s] >= 0 && answers[data.columns.predicted[s]];
      this.solutions[s] = this.problems[data.problemOf[s]] || own || (field !== "answer" && has(data.id(s)));
    }
    if (field) return this.report(this, 1);
    this.report(this, 0);
    let told = performance.now();
    const shards = [...new Set(data.problems.map((p) => p.solutions).filter((n) => n !== undefined))];
    for (const [i, shard] of shards.entries()) {
      const bodies = await unpack(`s${shard}`);
      if (this.stopped) return;
      for (const [p, solutions] of Object.entries(bodies)) {
        solutions.forEach((body, k) => {
          const s = data.first[p] + k;
          if (!this.solutions[s]) this.solutions[s] = has(body.steps.join("\n"));
        });
      }
      const share = (i + 1) / shards.length;
      if (share === 1 || performance.now() - told > TOLD_EVERY) {
        this.report(this, share);
        told = performance.now();
      }
    }
    if (!shards.length) this.report(this, 1);
  }

  problem(p) {
    return this.problems[p] === 1;
  }

  solution(s) {
    return this.solutions[s] === 1;
  }
}
