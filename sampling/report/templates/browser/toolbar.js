// What stands above the list: search, filters, and the tools for rating and reading; and the help.

const KEYS = [
  ["j, ↓", "next row"],
  ["k, ↑", "row before"],
  ["J, →", "next problem"],
  ["K, ←", "problem before"],
  ["Enter", "read what is opened"],
  ["/", "search"],
  ["Esc", "back to the list"],
  ["m", "formulas or their source"],
  ["r", "rate steps"],
  ["1, 0, −", "rate the marked step, go to the next"],
  ["[, ]", "mark another step"],
  ["n", "next solution that is not rated"],
  ["d", "download ratings"],
  ["?", "this help"],
];

/** One choice of a table; nothing where there is none to make. */
function choice(data, label, table, key, set) {
  const keys = offered(table, data);
  const change = (event) => set({ [key]: event.target.value });
  if (keys.length < 2) return null;
  const options = keys.map((one) => el("option", { value: one }, table[one].label));
  return el("label", {}, el("span", {}, label), el("select", { "data-key": key, onchange: change }, ...options));
}

function filterChoices(data, set) {
  const named = data.verifiers.map((v) => [v.name, { label: v.name }]);
  const verifiers = Object.fromEntries([["", { label: "any verifier" }], ...named]);
  const { all, rated, unrated } = FILTERS;
  return data.kind === "sheets"
    ? [choice(data, "Show", { all, rated, unrated }, "only", set)]
    : [
        choice(data, "Show", FILTERS, "only", set),
        choice(data, "Sort", SORTS, "sort", set),
        choice(data, "By", verifiers, "v", set),
      ];
}

function ratingTools(data, acts) {
  const name = (event) => {
    ratings.rater = event.target.value.trim();
    ratings.save();
  };
  const peek = (event) => {
    rating.peek = event.target.checked;
    acts.redraw();
  };
  return el(
    "span",
    { id: "ratings", hidden: true },
    el(
      "label",
      {},
      el("span", {}, "Rater"),
      el("input", { type: "text", id: "rater", value: ratings.rater, size: 10, oninput: name }),
    ),
    data.kind === "sheets"
      ? null
      : el("label", { class: "check" }, el("input", { type: "checkbox", id: "peek", onchange: peek }), " scores"),
    el("button", { type: "button", id: "download", onclick: acts.download }, "Download"),
    el(
      "label",
      { class: "button" },
      "Open …",
      el("input", { type: "file", id: "upload", accept: ".jsonl", onchange: acts.upload }),
    ),
    el("span", { id: "progress", role: "status" }),
  );
}

/** Fills the toolbar; `acts` says what its tools do. */
function buildToolbar(data, acts) {
  const button = (label, properties) => el("button", { type: "button", ...properties }, label);
  const rate = { id: "rate", "aria-pressed": "false", title: "rate steps (r)", onclick: () => acts.rate(!rating.on) };
  const formulas = { id: "mathematics-shown", "aria-pressed": "true", title: "formulas or their source (m)" };
  $("said").textContent = data.said;
  $("filters").append(...filterChoices(data, acts.set).filter(Boolean));
  $("tools").append(
    ...(data.kind === "report" && data.size ? [button("✎ Rate", rate)] : []),
    ratingTools(data, acts),
    button("∑", { ...formulas, onclick: acts.mathematicsShown }),
    button("◐", { title: "light or dark", "aria-label": "Light or dark", onclick: theme }),
    button("?", { title: "keys (?)", "aria-label": "Help", onclick: help }),
  );
  let waiting = 0;
  $("query").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => acts.set({ q: event.target.value }), 180);
  });
}

/** Says how many solutions each filter leaves, by the verifier that counts. */
function tallyFilters(data, state) {
  for (const option of document.querySelectorAll("[data-key=only] option")) {
    if (["rated", "unrated"].includes(option.value)) continue;
    const asked = { ...state, only: option.value };
    let left = 0;
    for (let s = 0; s < data.size; s++) left += passes(data, s, asked) ? 1 : 0;
    option.textContent = `${FILTERS[option.value].label} (${count(left)})`;
  }
}

function theme() {
  const dark =
    getComputedStyle(document.documentElement).colorScheme === "dark" ||
    (!document.documentElement.style.colorScheme && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
}

function help() {
  $("help").replaceChildren(
    el("h2", { id: "help-title" }, "Keys"),
    el("dl", {}, ...KEYS.flatMap(([keys, what]) => [el("dt", {}, keys), el("dd", {}, what)])),
    el(
      "p",
      {},
      "▲ incorrect, high score · ▽ correct, low score · ⚑ first error missed · ⚐ error seen where there is none · ★ selected by a rule · … cut off. High is 1/2 or more. The address of the page opens the same view again.",
    ),
    el("button", { type: "button", onclick: () => $("help").close() }, "Close"),
  );
  $("help").showModal();
}

/** Marks a text in what is opened. */
function highlight(place, text) {
  if (!CSS.highlights) return;
  CSS.highlights.delete("match");
  if (!text) return;
  const walk = document.createTreeWalker(place, NodeFilter.SHOW_TEXT),
    ranges = [];
  while (walk.nextNode()) {
    const here = walk.currentNode.data.toLowerCase();
    for (let at = here.indexOf(text); at >= 0; at = here.indexOf(text, at + text.length)) {
      const range = new Range();
      range.setStart(walk.currentNode, at);
      range.setEnd(walk.currentNode, Math.min(at + text.length, walk.currentNode.length));
      ranges.push(range);
    }
  }
  CSS.highlights.set("match", new Highlight(...ranges));
}
