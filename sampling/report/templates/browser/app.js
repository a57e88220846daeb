// Puts everything together: toolbar, list, what is opened, keys, and the address.

const KEYS = [
  ["j, ↓", "next row"], ["k, ↑", "row before"], ["J, →", "next problem"], ["K, ←", "problem before"], ["Enter", "read what is opened"],
  ["/", "search"], ["Esc", "back to the list"], ["m", "formulas or their source"], ["r", "rate steps"],
  ["1, 0, −", "rate the marked step, go to the next"], ["[, ]", "mark another step"], ["n", "next solution that is not rated"], ["d", "download ratings"], ["?", "this help"],
];

async function start() {
  if (!("DecompressionStream" in window)) throw new Error("this browser cannot unpack the page; one from 2023 or later can");
  const data = new Data(await unpack("index"));
  describeData(data);
  const sheets = data.kind === "sheets";
  rating.on = rating.peek = sheets;
  ratings.open(await nameOf(data));
  let state = readState(data), search = null, opened = 0;
  const list = new List($("list"), data, open);
  const phone = matchMedia("(max-width: 760px)");

  function set(change, push = false) {
    const listed = ["q", "only", "sort", "v"].some((key) => key in change && change[key] !== state[key]);
    state = { ...state, ...change };
    writeState(state, push);
    if ("q" in change && listed) find();
    else if (listed) fill();
    if ("v" in change) tally();
  }

  function open(row, push) {
    const problem = row.p !== undefined;
    set(problem ? { p: data.problems[row.p].id, s: "" } : { s: data.id(row.s), p: "" }, push);
    show();
    list.mark(state);
    if (push && phone.matches) $("detail").focus({ preventScroll: true });
  }

  async function show() {
    const s = state.s ? data.find(state.s) : undefined, p = state.p ? data.problemById.get(state.p) : undefined;
    const turn = ++opened, detail = $("detail");
    document.body.classList.toggle("reading", s !== undefined || p !== undefined);
    let view;
    if (s !== undefined) view = await solutionView(data, s, open);
    else if (p !== undefined) view = await problemView(data, p, open);
    else view = el("p", { class: "empty" }, state.s || state.p ? "What the link names is not on this page." : "Choose a problem or a solution: j and k go through the list, ? shows all keys.");
    if (turn !== opened) return; // something else was opened meanwhile
    detail.replaceChildren(...(phone.matches ? [turning()] : []), view);
    detail.scrollTop = 0;
    rating.step = 0;
    if (s !== undefined) showRatings(data, s);
    highlight(detail);
  }

  const turning = () => el("nav", { class: "turning" },
    el("button", { type: "button", class: "back", onclick: close }, "‹ List"),
    el("button", { type: "button", "aria-label": "Row before", onclick: () => list.move(-1) }, "↑"),
    el("button", { type: "button", "aria-label": "Next row", onclick: () => list.move(1) }, "↓"));

  function close() {
    set({ s: "", p: "" });
    show();
    $("list").focus();
  }

  function fill() {
    const matches = search && search.text ? search : null, shown = rows(data, state, matches);
    list.show(shown, state);
    const solutions = shown.filter((row) => row.s !== undefined).length;
    const problems = new Set(shown.map((row) => row.p ?? data.problemOf[row.s])).size;
    $("found").textContent = !shown.length ? "Nothing matches." : data.size ? `${count(solutions)} solutions of ${count(problems)} problems` : `${count(problems)} problems`;
    $("columns").replaceChildren(...columnsShown(data, state).map((v) => el("span", { class: "mini", title: data.verifiers[v].name }, data.verifiers[v].name)));
  }

  function find() {
    if (search) search.stopped = true;
    search = state.q.trim() ? new Search(data, state.q, searched) : null;
    $("searched").hidden = search === null;
    if (search) search.run(); else fill();
    highlight($("detail"));
  }

  function searched(which, share) {
    if (which !== search) return;
    $("searched").value = share;
    $("searched").hidden = share === 1;
    fill();
    if (share === 1 && !shownIn(list)) list.box.scrollTop = 0;
  }

  const shownIn = (of) => of.tops.at(-1) > of.box.scrollTop;

  function highlight(place) {
    if (!CSS.highlights) return;
    CSS.highlights.delete("match");
    const text = search?.text;
    if (!text) return;
    const walk = document.createTreeWalker(place, NodeFilter.SHOW_TEXT), ranges = [];
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

  const choice = (label, table, key) => offered(table, data).length > 1 && el("label", {}, el("span", {}, label), el("select", { "data-key": key, onchange: (event) => set({ [key]: event.target.value }) },
    ...offered(table, data).map((one) => el("option", { value: one }, table[one].label))));

  function toolbar() {
    $("said").textContent = data.said;
    if (!sheets) {
      const verifiers = Object.fromEntries([["", { label: "any verifier" }], ...data.verifiers.map((v) => [v.name, { label: v.name }])]);
      $("filters").append(...[choice("Show", FILTERS, "only"), choice("Sort", SORTS, "sort"), choice("By", verifiers, "v")].filter(Boolean));
    } else $("filters").append(choice("Show", { all: FILTERS.all, rated: FILTERS.rated, unrated: FILTERS.unrated }, "only"));
    if (!sheets && data.size) $("tools").append(el("button", { type: "button", id: "rate", "aria-pressed": "false", onclick: () => rate(!rating.on), title: "rate steps (r)" }, "✎ Rate"));
    $("tools").append(el("span", { id: "ratings", hidden: true },
      el("label", {}, el("span", {}, "Rater"), el("input", { type: "text", id: "rater", value: ratings.rater, size: 10, oninput: (event) => { ratings.rater = event.target.value.trim(); ratings.save(); } })),
      sheets ? null : el("label", { class: "check" }, el("input", { type: "checkbox", id: "peek", onchange: (event) => { rating.peek = event.target.checked; redraw(); } }), " scores"),
      el("button", { type: "button", id: "download", onclick: download }, "Download"),
      el("label", { class: "button" }, "Open …", el("input", { type: "file", id: "upload", accept: ".jsonl", onchange: upload })),
      el("span", { id: "progress", role: "status" })));
    $("tools").append(
      el("button", { type: "button", id: "mathematics-shown", "aria-pressed": "true", title: "formulas or their source (m)", onclick: mathematicsShown }, "∑"),
      el("button", { type: "button", title: "light or dark", "aria-label": "Light or dark", onclick: theme }, "◐"),
      el("button", { type: "button", title: "keys (?)", "aria-label": "Help", onclick: help }, "?"));
    $("query").addEventListener("input", (event) => { clearTimeout(toolbar.wait); toolbar.wait = setTimeout(() => set({ q: event.target.value }), 180); });
  }

  function controls() {
    for (const select of document.querySelectorAll("select[data-key]")) select.value = state[select.dataset.key];
    if ($("query") !== document.activeElement) $("query").value = state.q;
  }

  /** Says how many solutions each filter leaves, by the verifier that counts. */
  function tally() {
    for (const option of document.querySelectorAll("[data-key=only] option")) {
      if (["rated", "unrated"].includes(option.value)) continue;
      let left = 0;
      for (let s = 0; s < data.size; s++) left += passes(data, s, { ...state, only: option.value }) ? 1 : 0;
      option.textContent = `${FILTERS[option.value].label} (${count(left)})`;
    }
  }

  function redraw() { fill(); show(); }

  function rate(on) {
    rating.on = on;
    $("rate")?.setAttribute("aria-pressed", String(on));
    document.body.classList.toggle("rating-on", on);
    $("ratings").hidden = !on;
    rating.refresh();
    redraw();
  }

  rating.refresh = () => {
    const done = [...ratings.known.keys()].filter((id) => ratings.isRated(id)).length;
    $("progress").textContent = `${count(done)}${sheets ? ` of ${count(data.size)}` : ""} rated${ratings.kept ? "" : "; this browser keeps nothing: download before you close the page"}`;
    $("download").disabled = done === 0;
    list.inner.replaceChildren();
    list.paint();
  };

  async function download() {
    const written = await ratings.download(data);
    $("progress").textContent = `${count(written)} sheets in ratings.jsonl`;
  }

  async function upload(event) {
    const said = await ratings.upload(data, await event.target.files[0].text());
    event.target.value = "";
    redraw();
    rating.refresh();
    $("progress").textContent = said;
  }

  function mathematicsShown() {
    view.mathematics = !view.mathematics;
    $("mathematics-shown").setAttribute("aria-pressed", String(view.mathematics));
    show();
  }

  function theme() {
    const dark = getComputedStyle(document.documentElement).colorScheme === "dark" || (!document.documentElement.style.colorScheme && matchMedia("(prefers-color-scheme: dark)").matches);
    document.documentElement.style.colorScheme = dark ? "light" : "dark";
  }

  function help() {
    $("help").replaceChildren(el("h2", { id: "help-title" }, "Keys"), el("dl", {}, ...KEYS.flatMap(([keys, what]) => [el("dt", {}, keys), el("dd", {}, what)])),
      el("p", {}, "▲ incorrect, high score · ▽ correct, low score · ⚑ first error missed · ⚐ error seen where there is none · ★ selected by a rule · … cut off. High is 1/2 or more. The address of the page opens the same view again."),
      el("button", { type: "button", onclick: () => $("help").close() }, "Close"));
    $("help").showModal();
  }

  function nextUnrated() {
    const from = list.current, rowsThere = list.rows;
    for (let i = 1; i <= rowsThere.length; i++) {
      const at = (from + i + rowsThere.length) % rowsThere.length, s = rowsThere[at].s;
      if (s !== undefined && !ratings.isRated(data.id(s))) return list.select(at, false);
    }
  }

  const ACTS = {
    j: () => list.move(1), ArrowDown: () => list.move(1), k: () => list.move(-1), ArrowUp: () => list.move(-1),
    J: () => list.move(1, true), ArrowRight: () => list.move(1, true), K: () => list.move(-1, true), ArrowLeft: () => list.move(-1, true),
    "/": () => { $("query").focus(); $("query").select(); }, "?": help, m: mathematicsShown, Escape: () => (phone.matches ? close() : $("list").focus()),
    r: () => { if (!sheets && data.size) rate(!rating.on); }, n: nextUnrated, d: () => { if (!$("download").disabled) download(); },
    Enter: () => $("detail").focus(),
  };

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const at = event.target instanceof Element ? event.target : document.body;
    const typing = at.matches("input:not([type=checkbox]), select, textarea");
    if (typing) { if (event.key === "Escape") $("list").focus(); return; }
    const s = state.s ? data.find(state.s) : undefined, onButton = at.matches("button, summary, a");
    if (onButton && ["Enter", " "].includes(event.key)) return;
    const scrolls = at.closest("#detail, .scroll") && event.key.startsWith("Arrow");
    if (scrolls) return; // arrows scroll what is read
    if (rating.on && s !== undefined && ratingKey(data, s, event.key)) return event.preventDefault();
    if (ACTS[event.key]) { ACTS[event.key](); event.preventDefault(); }
  });

  function readAddress() {
    const before = state;
    state = readState(data);
    controls();
    if (state.q !== before.q) find(); else fill();
    list.reveal();
    show();
  }

  addEventListener("popstate", readAddress);
  addEventListener("hashchange", readAddress);
  toolbar();
  controls();
  if (state.q) find(); else fill();
  list.reveal();
  requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("painted")));
  setTimeout(tally, 50); // after the first painting
  if (sheets) {
    await ratings.seed(data);
    rate(true);
  }
  const first = data.size ? list.rows.findIndex((row) => row.s !== undefined) : 0;
  if (!state.s && !state.p && !phone.matches && first >= 0) list.select(first, false); else await show();
  list.reveal();
}

/** What the ratings of a page are kept under: its solutions. */
async function nameOf(data) {
  let hash = 0;
  for (let s = 0; s < data.size; s++) for (const c of `${data.id(s)} ${data.columns.characters[s]}`) hash = (Math.imul(hash, 31) + c.codePointAt(0)) | 0;
  return `${data.kind} ${data.size} ${hash}`;
}

start().catch((error) => {
  $("detail").replaceChildren(el("p", { class: "empty", role: "alert" }, `This page cannot be shown: ${error.message}`));
  console.error(error);
});
