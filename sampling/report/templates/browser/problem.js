// One problem: how its answers are distributed, all its solutions, and the trees of searches.

const MOST_ROWS = 256;

async function problemView(data, p, open) {
  const view = el(
    "article",
    { class: "opened", "aria-label": `Problem ${data.problems[p].id}` },
    problemBox(data, p, open),
  );
  if (data.problems[p].count) {
    if (data.graded && !hidesScores()) view.append(answerTable(data, p));
    view.append(solutionTable(data, p, open));
  }
  if (data.problems[p].trees !== undefined && !hidesScores()) view.append(treeSection(data, await data.trees(p)));
  return view;
}

function answerTable(data, p) {
  const groups = new Map();
  for (const s of data.solutionsOf(p)) {
    const answer = data.answer(s),
      correct = data.columns.correct[s];
    const group = groups.get(answer) ?? groups.set(answer, { votes: 0, correct: 0 }).get(answer);
    group.votes++;
    group.correct += correct === true;
  }
  const sorted = [...groups].sort(([, a], [, b]) => b.votes - a.votes),
    total = data.problems[p].count;
  return el(
    "section",
    { "aria-label": "Answers" },
    el("h2", {}, "Answers, as they are written"),
    el(
      "table",
      { class: "answers" },
      el(
        "tbody",
        {},
        ...sorted
          .slice(0, 12)
          .map(([answer, { votes, correct }]) =>
            el(
              "tr",
              {},
              el("td", {}, verdict(correct > 0)),
              el(
                "td",
                { class: "text" },
                answer === null ? el("em", {}, "no answer") : typeset(el("span"), mathAnswer(answer)),
              ),
              el(
                "td",
                { class: "votes" },
                el(
                  "span",
                  { class: "track", "aria-hidden": "true" },
                  el("i", { class: correct ? "good" : "bad", style: { width: `${(100 * votes) / total}%` } }),
                ),
                `${votes} of ${total}`,
              ),
            ),
          ),
      ),
    ),
    sorted.length > 12 ? el("p", { class: "empty" }, `and ${sorted.length - 12} further answers`) : null,
  );
}

function solutionTable(data, p, open) {
  const all = data.solutionsOf(p),
    hidden = hidesScores(),
    verifiers = hidden ? [] : [...data.verifiers.keys()];
  const head = [
    hidden || !data.graded ? "rated" : "graded",
    "solution",
    ...(data.graded && !hidden ? ["answer"] : []),
    "steps",
    data.hasTokens ? "tokens" : "characters",
    ...verifiers.map((v) => data.verifiers[v].name),
  ];
  const row = (s) =>
    el(
      "tr",
      { onclick: () => open({ s }, true) },
      el("td", {}, data.graded && !hidden ? verdict(data.columns.correct[s]) : ratingSummary(data, s)),
      el("td", {}, el("button", { type: "button", class: "link" }, data.shortId(s)), marks(data, s, -1)),
      data.graded && !hidden ? el("td", {}, data.answer(s) ?? el("em", {}, "none")) : null,
      el("td", { class: "digits" }, `${data.columns.steps[s]}`),
      el("td", { class: "digits" }, count(data.lengths[s])),
      ...verifiers.map((v) => el("td", {}, bar(data.judged[v].score[s], 0.5, data.verifiers[v].name))),
    );
  return el(
    "section",
    { "aria-label": "Solutions of this problem" },
    el("h2", {}, `${count(all.length)} solutions`),
    el(
      "div",
      { class: "scroll", tabindex: 0 },
      el(
        "table",
        { class: "overview" },
        el("thead", {}, el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name)))),
        el("tbody", {}, ...all.slice(0, MOST_ROWS).map(row)),
      ),
    ),
    all.length > MOST_ROWS ? el("p", { class: "empty" }, `The first ${MOST_ROWS}; the list has all.`) : null,
  );
}
