// One solution: its facts, and its steps with the verifiers' values, labels and first errors.

function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el(
    "dl",
    { class: "facts" },
    ...known.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))),
  );
}

function problemBox(data, p, open) {
  const problem = data.problems[p];
  return el(
    "section",
    { class: "given", "aria-label": "Problem" },
    el(
      "div",
      { class: "crumbs" },
      el(
        "button",
        { type: "button", class: "link", title: "all solutions of this problem", onclick: () => open({ p }, true) },
        problem.id,
      ),
    ),
    problem.text
      ? typeset(el("div", { class: "text" }), problem.text)
      : el("p", { class: "empty" }, "The text of this problem is not in the records."),
    problem.answer === null
      ? null
      : el(
          "p",
          { class: "reference" },
          "Reference answer ",
          typeset(el("strong", { class: "text" }), mathAnswer(problem.answer)),
        ),
  );
}

/** An answer in LaTeX without dollars is given some. */
const mathAnswer = (answer) => (/[\\^_]/.test(answer) && !answer.includes("$") ? `$${answer}$` : answer);

/** Builds the view of a solution. */
async function solutionView(data, s, open) {
  const body = await data.body(s),
    p = data.problemOf[s],
    c = data.columns,
    hidden = hidesScores();
  const answer = data.answer(s),
    length = c.tokens[s] === null ? `${count(c.characters[s])} characters` : `${count(c.tokens[s])} tokens`;
  const view = el("article", { class: "opened", "aria-label": `Solution ${data.id(s)}` }, problemBox(data, p, open));
  const summary = el(
    "header",
    { class: "summary" },
    el(
      "h2",
      {},
      el("span", { class: "id" }, `Solution ${data.shortId(s)}`),
      !hidden && c.correct[s] !== null ? verdict(c.correct[s], true) : null,
      c.cut[s] ? el("span", { class: "tag" }, "cut off") : null,
    ),
    answer === null || hidden
      ? null
      : el("p", {}, "Final answer ", typeset(el("strong", { class: "text" }), mathAnswer(answer))),
  );
  const chosen = hidden ? [] : (data.chosenBy.get(s) ?? []);
  if (chosen.length)
    summary.append(
      el("p", { class: "chosen" }, "★ selected by ", ...chosen.map((rule) => el("span", { class: "tag" }, rule))),
    );
  if (!hidden && data.verifiers.length) summary.append(scoreTable(data, s));
  summary.append(
    facts([
      ["steps", `${c.steps[s]}`],
      ["length", length],
      ["disagreement", !hidden && c.spread[s] !== null ? number(c.spread[s], 2) : null],
      ...Object.entries(body.facts ?? {}).map(([key, value]) => [key, String(value)]),
    ]),
  );
  view.append(summary, stepList(data, s, body));
  if (!hidden) view.append(...tokenPanels(data, body));
  return view;
}

function scoreTable(data, s) {
  return el(
    "div",
    {
      class: data.verifiers.length > 3 ? "scores many" : "scores",
      role: "group",
      "aria-label": "Scores of the solution",
    },
    ...data.verifiers.map((v, i) => {
      const value = data.judged[i].score[s],
        flags = data.judged[i].flags[s];
      const odd = flags & FLAGS.confident ? "incorrect, high score" : flags & FLAGS.doubted ? "correct, low score" : "";
      return el(
        "div",
        {},
        el("span", { class: "name", title: `${HOW[v.how]} of its values` }, v.name),
        bar(value, 0.5, v.name),
        odd ? el("span", { class: "tag warn" }, odd) : null,
      );
    }),
  );
}

const HOW = { prod: "product", min: "minimum", last: "last", mean: "mean", max: "maximum" };

function stepList(data, s, body) {
  const hidden = hidesScores(),
    error = hidden ? UNKNOWN : data.columns.error[s];
  const verifiers = hidden ? [] : [...data.verifiers.keys()].filter((v) => data.verifiers[v].kind === "step");
  const narrow = verifiers.length > 3,
    kind = narrow ? "steps narrow" : verifiers.length ? "steps" : "steps plain";
  const list = el("ol", { class: kind, style: { "--columns": verifiers.length } });
  if (verifiers.length) {
    list.append(
      el(
        "li",
        { class: "names", "aria-hidden": "true" },
        el("span"),
        el("span"),
        ...verifiers.map((v) => el("span", { class: "name", title: data.verifiers[v].name }, data.verifiers[v].name)),
      ),
    );
  }
  body.steps.forEach((step, i) => {
    const seen = verifiers.filter((v) => data.judged[v].predicted[s] === i).map((v) => data.verifiers[v].name);
    const item = el(
      "li",
      { class: `step${i === error ? " error" : ""}${seen.length ? " predicted" : ""}`, "data-step": i },
      el("span", { class: "number", "aria-label": `Step ${i + 1}` }, `${i + 1}`),
      el(
        "div",
        { class: "what" },
        typeset(el("div", { class: "text" }), step),
        el(
          "div",
          { class: "signs" },
          !hidden && body.labels ? stepLabel(body.labels[i]) : null,
          i === error ? el("span", { class: "sign labelled" }, "✗ first error by the labels") : null,
          ...seen.map((name) => el("span", { class: "sign guess" }, `⚑ first error by ${name}`)),
        ),
      ),
      ...verifiers.map((v) =>
        el(
          "span",
          { class: "value" },
          el("span", { class: "name phone" }, data.verifiers[v].name),
          (narrow ? cell : bar)(
            body.values[data.verifiers[v].name]?.[i],
            data.verifiers[v].threshold,
            data.verifiers[v].name,
          ),
        ),
      ),
    );
    if (rating.on) item.querySelector(".what").append(ratingControls(data, s, i, body.steps.length));
    list.append(item);
  });
  const said = hidden
    ? []
    : verifiers
        .filter((v) => error !== UNKNOWN && data.judged[v].predicted[s] !== UNKNOWN)
        .map((v) => outcome(data, s, v, error));
  return el(
    "section",
    { class: "solution", "aria-label": "Steps" },
    rating.on ? ratingHead(data, s, body) : null,
    list,
    said.length ? el("p", { class: "outcomes" }, said.join(" ")) : null,
  );
}

/** Says how a verifier's first error compares with the labelled one. */
function outcome(data, s, v, error) {
  const { name, threshold } = data.verifiers[v],
    predicted = data.judged[v].predicted[s];
  const below = `(first value below ${number(threshold, 2)})`;
  if (predicted === error)
    return error < 0 ? `${name}: rightly sees no error.` : `${name}: finds the first error ${below}.`;
  if (error < 0) return `${name}: sees an error at step ${predicted + 1} ${below}, where the labels have none.`;
  if (predicted < 0)
    return `${name}: misses the error at step ${error + 1}, no value is below ${number(threshold, 2)}.`;
  return `${name}: takes step ${predicted + 1} for the first error ${below}; it is step ${error + 1}.`;
}

function stepLabel(label) {
  if (!label) return null;
  if (label.rating !== undefined) {
    const [glyph, word, kind] = {
      1: ["✓", "correct", "good"],
      0: ["○", "neutral", ""],
      "-1": ["✗", "incorrect", "bad"],
    }[label.rating];
    return el("span", { class: `sign ${kind}`, title: "label of this step" }, `${glyph} ${word}`);
  }
  if (label.n !== undefined) {
    return el(
      "span",
      {
        class: `sign rollouts ${label.k ? "good" : "bad"}`,
        title: `${label.k} of ${label.n} rollouts from here reached the correct answer`,
      },
      el(
        "span",
        { class: "track", "aria-hidden": "true" },
        el("i", { style: { width: `${(100 * label.k) / label.n}%` } }),
      ),
      `${label.k} of ${label.n} rollouts`,
    );
  }
  return el(
    "span",
    { class: `sign ${label.value > 0 ? "good" : "bad"}`, title: "label of this step" },
    `label ${number(label.value, 2)}`,
  );
}
