// The controls by which people rate steps.

const RATINGS = [
  [1, "✓", "correct", "good"],
  [0, "○", "neutral", ""],
  [-1, "✗", "incorrect", "bad"],
];

const rating = { on: false, peek: false, step: 0, refresh: () => {} };

/** Scores and labels would influence people who rate. */
const hidesScores = () => rating.on && !rating.peek;

function ratingHead(data, s, body) {
  const id = data.id(s),
    one = ratings.known.get(id);
  const remark = el("input", {
    type: "text",
    value: one?.remark ?? "",
    placeholder: "Remark on this solution",
    "aria-label": "Remark on this solution",
    maxlength: 2000,
    oninput: (event) => {
      ratings.remark(id, body.steps.length, null, event.target.value.trim());
      rating.refresh();
    },
  });
  return el(
    "div",
    { class: "rating-head" },
    el(
      "p",
      {},
      "Rate each step: ",
      ...RATINGS.map(([value, glyph, word]) => `${glyph} ${word} (${String(value).replace("-", "−")})`).join(", "),
      ". Keys 1, 0 and − rate the marked step.",
    ),
    remark,
  );
}

function ratingControls(data, s, step, steps) {
  const id = data.id(s),
    current = ratings.known.get(id)?.ratings[step] ?? null;
  const buttons = RATINGS.map(([value, glyph, word, kind]) =>
    el(
      "button",
      {
        type: "button",
        class: `rate ${kind}`,
        "aria-pressed": String(current === value),
        "data-value": value,
        title: `${word}; again takes it back`,
        onclick: () => {
          rating.step = step;
          rateStep(data, s, step, steps, value);
        },
      },
      `${glyph} ${word}`,
    ),
  );
  const text = ratings.known.get(id)?.remarks[step] ?? "";
  const remark = el("input", {
    type: "text",
    class: "remark",
    value: text,
    placeholder: "Remark",
    "aria-label": `Remark on step ${step + 1}`,
    maxlength: 2000,
    oninput: (event) => {
      ratings.remark(id, steps, step, event.target.value.trim());
      rating.refresh();
    },
  });
  return el(
    "div",
    { class: "rating" },
    el("div", { class: "rates", role: "group", "aria-label": `Rating of step ${step + 1}` }, ...buttons),
    remark,
  );
}

function rateStep(data, s, step, steps, value) {
  ratings.rate(data.id(s), steps, step, value);
  showRatings(data, s);
  rating.refresh();
}

/** Shows the ratings of the open solution, and which step the keys rate. */
function showRatings(data, s) {
  const values = ratings.known.get(data.id(s))?.ratings ?? [];
  for (const item of document.querySelectorAll("#detail .step")) {
    const step = Number(item.dataset.step);
    item.classList.toggle("now", rating.on && step === rating.step);
    for (const button of item.querySelectorAll(".rate"))
      button.setAttribute("aria-pressed", String(values[step] === Number(button.dataset.value)));
  }
}

function moveStep(data, s, by) {
  rating.step = Math.min(data.columns.steps[s] - 1, Math.max(0, rating.step + by));
  showRatings(data, s);
  document.querySelector("#detail .step.now")?.scrollIntoView({ block: "nearest" });
}

/** The keys while rating; returns whether one was meant. */
function ratingKey(data, s, key) {
  const value = { 1: 1, 0: 0, "-": -1, "−": -1 }[key],
    steps = data.columns.steps[s];
  if (value !== undefined) {
    rateStep(data, s, rating.step, steps, value);
    moveStep(data, s, 1);
  } else if (key === "]") moveStep(data, s, 1);
  else if (key === "[") moveStep(data, s, -1);
  else return false;
  return true;
}
