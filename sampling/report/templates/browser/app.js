// Puts everything together: toolbar, list, what is opened, keys, and the address.

async function start() {
  if (!("DecompressionStream" in window))
    throw new Error("this browser cannot unpack the page; one from 2024 or later can");
  const data = new Data(await unpack("index"));
  describeData(data);
  const sheets = data.kind === "sheets";
  rating.on = rating.peek = sheets;
  ratings.open(await nameOf(data));
  let state = readState(data),
    search = null,
    opened = 0;
  const list = new List($("list"), data, open);
  const phone = matchMedia("(max-width: 760px)");

  function set(change, push = false) {
    const listed = ["q", "only", "sort", "v"].some((key) => key in change && change[key] !== state[key]);
    state = { ...state, ...change };
    writeState(state, push);
    if ("q" in change && listed) find();
    else if (listed) fill();
    if ("v" in change) tallyFilters(data, state);
  }

  function open(row, push) {
    const problem = row.p !== undefined;
    set(problem ? { p: data.problems[row.p].id, s: "" } : { s: data.id(row.s), p: "" }, push);
    show();
    list.mark(state);
    if (push && phone.matches) $("detail").focus({ preventScroll: true });
  }

  async function show() {
    const s = state.s ? data.find(state.s) : undefined,
      p = state.p ? data.problemById.get(state.p) : undefined;
    const turn = ++opened,
      detail = $("detail");
    document.body.classList.toggle("reading", s !== undefined || p !== undefined);
    let view;
    if (s !== undefined) view = await solutionView(data, s, open);
    else if (p !== undefined) view = await problemView(data, p, open);
    else
      view = el(
        "p",
        { class: "empty" },
        state.s || state.p
          ? "What the link names is not on this page."
          : "Choose a problem or a solution: j and k go through the list, ? shows all keys.",
      );
    if (turn !== opened) return; // something else was opened meanwhile
    detail.replaceChildren(...(phone.matches ? [turning()] : []), view);
    detail.scrollTop = 0;
    rating.step = 0;
    if (s !== undefined) showRatings(data, s);
    highlight(detail, search?.text);
  }

  const turning = () =>
    el(
      "nav",
      { class: "turning" },
      el("button", { type: "button", class: "back", onclick: close }, "‹ List"),
      el("button", { type: "button", "aria-label": "Row before", onclick: () => list.move(-1) }, "↑"),
      el("button", { type: "button", "aria-label": "Next row", onclick: () => list.move(1) }, "↓"),
    );

  function close() {
    set({ s: "", p: "" });
    show();
    $("list").focus();
  }

  function fill() {
    const matches = search && search.text ? search : null,
      shown = rows(data, state, matches);
    list.show(shown, state);
    const solutions = shown.filter((row) => row.s !== undefined).length;
    const problems = new Set(shown.map((row) => row.p ?? data.problemOf[row.s])).size;
    $("found").textContent = !shown.length
      ? "Nothing matches."
      : data.size
        ? `${count(solutions)} solutions of ${count(problems)} problems`
        : `${count(problems)} problems`;
    $("columns").replaceChildren(
      ...columnsShown(data, state).map((v) =>
        el("span", { class: "mini", title: data.verifiers[v].name }, data.verifiers[v].name),
      ),
    );
  }

  function find() {
    if (search) search.stopped = true;
    search = state.q.trim() ? new Search(data, state.q, searched) : null;
    $("searched").hidden = search === null;
    if (search) search.run();
    else fill();
    highlight($("detail"), search?.text);
  }

  function searched(which, share) {
    if (which !== search) return;
    $("searched").value = share;
    $("searched").hidden = share === 1;
    fill();
    if (share === 1 && !shownIn(list)) list.box.scrollTop = 0;
  }

  const shownIn = (of) => of.tops.at(-1) > of.box.scrollTop;

  function controls() {
    for (const select of document.querySelectorAll("select[data-key]")) select.value = state[select.dataset.key];
    if ($("query") !== document.activeElement) $("query").value = state.q;
  }

  function redraw() {
    fill();
    show();
  }

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
    $("progress").textContent =
      `${count(done)}${sheets ? ` of ${count(data.size)}` : ""} rated${ratings.kept ? "" : "; this browser keeps nothing: download before you close the page"}`;
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

  function nextUnrated() {
    const from = list.current,
      rowsThere = list.rows;
    for (let i = 1; i <= rowsThere.length; i++) {
      const at = (from + i + rowsThere.length) % rowsThere.length,
        s = rowsThere[at].s;
      if (s !== undefined && !ratings.isRated(data.id(s))) return list.select(at, false);
    }
  }

  const ACTS = {
    j: () => list.move(1),
    ArrowDown: () => list.move(1),
    k: () => list.move(-1),
    ArrowUp: () => list.move(-1),
    J: () => list.move(1, true),
    ArrowRight: () => list.move(1, true),
    K: () => list.move(-1, true),
    ArrowLeft: () => list.move(-1, true),
    "/": () => {
      $("query").focus();
      $("query").select();
    },
    "?": help,
    m: mathematicsShown,
    Escape: () => (phone.matches ? close() : $("list").focus()),
    r: () => {
      if (!sheets && data.size) rate(!rating.on);
    },
    n: nextUnrated,
    d: () => {
      if (!$("download").disabled) download();
    },
    Enter: () => $("detail").focus(),
  };

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
    const at = event.target instanceof Element ? event.target : document.body;
    const typing = at.matches("input:not([type=checkbox]), select, textarea");
    if (typing) {
      if (event.key === "Escape") $("list").focus();
      return;
    }
    const s = state.s ? data.find(state.s) : undefined,
      onButton = at.matches("button, summary, a");
    if (onButton && ["Enter", " "].includes(event.key)) return;
    const scrolls = at.closest("#detail, .scroll") && event.key.startsWith("Arrow");
    if (scrolls) return; // arrows scroll what is read
    if (rating.on && s !== undefined && ratingKey(data, s, event.key)) return event.preventDefault();
    if (ACTS[event.key]) {
      ACTS[event.key]();
      event.preventDefault();
    }
  });

  function readAddress() {
    const before = state;
    state = readState(data);
    controls();
    if (state.q !== before.q) find();
    else fill();
    list.reveal();
    show();
  }

  addEventListener("popstate", readAddress);
  addEventListener("hashchange", readAddress);
  buildToolbar(data, { set, rate, redraw, download, upload, mathematicsShown });
  controls();
  if (state.q) find();
  else fill();
  list.reveal();
  requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("painted")));
  setTimeout(() => tallyFilters(data, state), 50); // after the first painting
  if (sheets) {
    await ratings.seed(data);
    rate(true);
  }
  const first = data.size ? list.rows.findIndex((row) => row.s !== undefined) : 0;
  if (!state.s && !state.p && !phone.matches && first >= 0) list.select(first, false);
  else await show();
  list.reveal();
}

/** What the ratings of a page are kept under: its solutions. */
async function nameOf(data) {
  let hash = 0;
  for (let s = 0; s < data.size; s++)
    for (const c of `${data.id(s)} ${data.columns.characters[s]}`) hash = (Math.imul(hash, 31) + c.codePointAt(0)) | 0;
  return `${data.kind} ${data.size} ${hash}`;
}

start().catch((error) => {
  $("detail").replaceChildren(
    el("p", { class: "empty", role: "alert" }, `This page cannot be shown: ${error.message}`),
  );
  console.error(error);
});
