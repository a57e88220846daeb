// Unpacks the index and the shards, and gives access to solutions by number.

const $ = (id) => document.getElementById(id);

/** Makes an element. Texts become text nodes, never markup. */
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") made.className = value;
    else if (key === "style") for (const [name, v] of Object.entries(value)) made.style.setProperty(name, v);
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

async function unpack(id) {
  const packed = atob(await packedText(id));
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** Shards come after the script in the page: one that is asked for early is waited for. */
async function packedText(id) {
  while (!$(id)?.nextSibling && document.readyState === "loading") await new Promise((done) => setTimeout(done, 20));
  return $(id).textContent;
}

const UNKNOWN = -2;
const FLAGS = { confident: 1, doubted: 2, missed: 4, alarm: 8 };
const SHARDS_KEPT = 16;

class Data {
  constructor(index) {
    Object.assign(this, index);
    const c = this.columns;
    this.size = c.id.length;
    this.problemOf = new Uint32Array(this.size);
    this.first = new Uint32Array(this.problems.length);
    let number = 0;
    this.problems.forEach((problem, p) => {
      this.first[p] = number;
      this.problemOf.fill(p, number, number + problem.count);
      number += problem.count;
    });
    this.problemById = new Map(this.problems.map((problem, p) => [problem.id, p]));
    this.hasTokens = c.tokens.length > 0 && c.tokens.every((n) => n !== null);
    this.lengths = this.hasTokens ? c.tokens : c.characters;
    this.chosenBy = new Map();
    for (const [p, problem] of this.problems.entries()) {
      for (const [rule, k] of Object.entries(problem.chosen ?? {})) {
        const s = this.first[p] + k;
        this.chosenBy.set(s, [...(this.chosenBy.get(s) ?? []), rule]);
      }
    }
    this.kept = new Map();
  }

  id(s) {
    const own = this.columns.id[s];
    return own[0] === "=" ? own.slice(1) : this.problems[this.problemOf[s]].id + own;
  }

  /** The id without that of the problem, where it begins with it. */
  shortId(s) {
    return this.columns.id[s].replace(/^=/, "");
  }

  answer(s) {
    const number = this.columns.predicted[s];
    return number < 0 ? null : this.answers[number];
  }

  /** The number of a solution with an id, or undefined. */
  find(id) {
    this.byId ??= new Map(Array.from({ length: this.size }, (_, s) => [this.id(s), s]));
    return this.byId.get(id);
  }

  solutionsOf(p) {
    return Array.from({ length: this.problems[p].count }, (_, k) => this.first[p] + k);
  }

  /** Correct solutions of a problem among those that are graded; of one without solutions, final answers of searches. */
  tally(p) {
    if (!this.problems[p].count) {
      const [correct, graded] = this.problems[p].searched ?? [0, 0];
      return { correct, graded, of: "searches" };
    }
    let correct = 0,
      graded = 0;
    for (const s of this.solutionsOf(p)) {
      correct += this.columns.correct[s] === true;
      graded += this.columns.correct[s] !== null;
    }
    return { correct, graded, of: "solutions" };
  }

  async shard(name) {
    const known = this.kept.get(name) ?? unpack(name);
    this.kept.delete(name);
    this.kept.set(name, known); // the most recent one comes last
    if (this.kept.size > SHARDS_KEPT) this.kept.delete(this.kept.keys().next().value);
    return known;
  }

  async body(s) {
    const p = this.problemOf[s];
    return (await this.shard(`s${this.problems[p].solutions}`))[p][s - this.first[p]];
  }

  async trees(p) {
    const number = this.problems[p].trees;
    return number === undefined ? {} : (await this.shard(`t${number}`))[p];
  }
}
