// Ratings of steps: kept in this browser, downloaded as a file that HumanRatings reads, and opened again.

const ratings = {
  known: new Map(), // id → {ratings, remarks: {step: text}, remark}
  rater: "",
  changed: false, // since the last download
  kept: true, // by the browser's storage

  open(name) {
    this.name = `stepverify ratings ${name}`;
    try {
      const stored = JSON.parse(localStorage.getItem(this.name) ?? "null");
      if (stored) {
        this.known = new Map(stored.known);
        this.rater = stored.rater;
      }
    } catch {
      this.kept = false;
    }
    addEventListener("beforeunload", (event) => {
      if (this.changed && !this.kept) event.preventDefault();
    });
  },

  save() {
    this.changed = true;
    try {
      localStorage.setItem(this.name, JSON.stringify({ known: [...this.known], rater: this.rater }));
    } catch {
      this.kept = false;
    }
  },

  of(id, steps) {
    return (
      this.known.get(id) ?? this.known.set(id, { ratings: Array(steps).fill(null), remarks: {}, remark: "" }).get(id)
    );
  },

  isRated(id) {
    const one = this.known.get(id);
    return (
      one !== undefined &&
      (one.ratings.some((r) => r !== null) || one.remark !== "" || Object.keys(one.remarks).length > 0)
    );
  },

  numRated(id) {
    return this.known.get(id)?.ratings.filter((r) => r !== null).length ?? 0;
  },

  rate(id, steps, step, value) {
    const one = this.of(id, steps);
    one.ratings[step] = one.ratings[step] === value ? null : value;
    this.save();
  },

  remark(id, steps, step, text) {
    const one = this.of(id, steps);
    if (step === null) one.remark = text;
    else if (text) one.remarks[step] = text;
    else delete one.remarks[step];
    this.save();
  },

  /** Takes over what sheets hold already; what was rated in this browser stays. */
  async seed(data) {
    for (let s = 0; s < data.size; s++) {
      const body = await data.body(s),
        id = data.id(s);
      if (!this.known.has(id) && body.ratings.some((r) => r !== null))
        this.known.set(id, this.fromSheet(body.ratings, body.meta));
    }
  },

  fromSheet(values, meta) {
    const remarks = Object.fromEntries(
      (meta?.step_remarks ?? []).map((text, i) => [i, text]).filter(([, text]) => text),
    );
    return { ratings: [...values], remarks, remark: meta?.remark ?? "" };
  },

  /** One rating sheet a line, in the order of the page; those without a rating or remark are left out. */
  async lines(data) {
    const found = [];
    for (let s = 0; s < data.size; s++) {
      const id = data.id(s);
      if (!this.isRated(id)) continue;
      const one = this.known.get(id),
        body = await data.body(s),
        problem = data.problems[data.problemOf[s]];
      const meta = { ...body.meta };
      if (one.remark) meta.remark = one.remark;
      if (Object.keys(one.remarks).length) meta.step_remarks = body.steps.map((_, i) => one.remarks[i] ?? "");
      if (this.rater) meta.rater = this.rater;
      const sheet = {
        id,
        problem_id: problem.id,
        problem: problem.text,
        steps: body.steps,
        ratings: one.ratings,
        meta,
      };
      found.push(JSON.stringify(problem.answer === null ? sheet : { ...sheet, answer: problem.answer }));
    }
    return found;
  },

  async download(data) {
    const lines = await this.lines(data);
    const url = URL.createObjectURL(
      new Blob([lines.map((line) => `${line}\n`).join("")], { type: "application/jsonl" }),
    );
    el("a", { href: url, download: "ratings.jsonl" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
    this.changed = false;
    return lines.length;
  },

  /** Opens a file of sheets. Returns what was done, in words. */
  async upload(data, text) {
    let taken = 0,
      foreign = 0,
      broken = 0;
    for (const [i, line] of text
      .replace(/^\uFEFF/, "")
      .split("\n")
      .entries()) {
      if (!line.trim()) continue;
      let sheet;
      try {
        sheet = JSON.parse(line);
      } catch {
        broken = i + 1;
        break;
      }
      const s = data.find(sheet.id),
        body = s === undefined ? null : await data.body(s);
      const fits =
        body &&
        JSON.stringify(body.steps) === JSON.stringify(sheet.steps) &&
        sheet.ratings?.length === body.steps.length &&
        sheet.ratings.every((r) => [1, 0, -1, null].includes(r));
      if (fits) {
        this.known.set(sheet.id, this.fromSheet(sheet.ratings, sheet.meta));
        taken++;
      } else foreign++;
    }
    this.save();
    return `${count(taken)} sheets opened${foreign ? `; ${count(foreign)} left out: not on this page, or with other steps` : ""}${broken ? `; line ${broken} is not JSON, nothing after it was read` : ""}.`;
  },
};

/** What stands for a verdict in the list of a page that has none. */
function ratingSummary(data, s) {
  const rated = ratings.numRated(data.id(s)),
    all = data.columns.steps[s];
  const [glyph, word] =
    rated === all && all
      ? ["●", "rated"]
      : ratings.isRated(data.id(s))
        ? ["◐", `${rated} of ${all} steps rated`]
        : ["○", "not rated"];
  return el("span", { class: "verdict", role: "img", "aria-label": word, title: word }, glyph);
}
