// The tree of prefixes that a search has grown for one problem.

const STATES = {
  expanded: ["●", "expanded"],
  pruned: ["○", "pruned"],
  finished: ["◆", "finished"],
  cut: ["…", "cut off"],
  ahead: ["»", "sampled to look ahead"],
};
const OPEN_AT_MOST = 120; // nodes of a tree that is opened whole

function treeSection(data, trees) {
  const names = data.searches.filter((name) => trees[name]);
  const section = el("section", { class: "trees", "aria-label": "Search trees" }, el("h2", {}, "Search trees"));
  const place = el("div");
  const tabs = names.map((name) => el("button", { type: "button", role: "tab", onclick: () => show(name) }, name));
  function show(name) {
    tabs.forEach((tab, i) => tab.setAttribute("aria-selected", names[i] === name));
    place.replaceChildren(treeView(data, trees[name], name));
  }
  section.append(el("div", { class: "tabs", role: "tablist", "aria-label": "Searches" }, ...tabs), place);
  show(names.find((name) => trees[name].states.includes("expanded")) ?? names[0]);
  return section;
}

function treeView(data, tree, name) {
  const rules = Object.keys(tree.choices),
    kind = (rule) => rule.split("/").at(-1);
  const first = rules.find((rule) => kind(rule) === data.final_rule) ?? rules[0];
  const tally = {};
  for (const state of tree.states) tally[state] = (tally[state] ?? 0) + 1;
  const place = el("div");
  const state = { rule: first, pruned: true };
  const draw = () => place.replaceChildren(growTree(tree, tree.choices[state.rule] ?? -1, state.pruned, name));
  const pick = el(
    "select",
    {
      "aria-label": "Rule that chooses",
      onchange: (event) => {
        state.rule = event.target.value;
        draw();
      },
    },
    ...rules.map((rule) => el("option", { value: rule, selected: rule === first }, rule)),
  );
  const hide = el(
    "label",
    {},
    el("input", {
      type: "checkbox",
      checked: true,
      onchange: (event) => {
        state.pruned = event.target.checked;
        draw();
      },
    }),
    " pruned",
  );
  draw();
  return el(
    "div",
    {},
    el(
      "p",
      { class: "legend" },
      ...Object.keys(STATES)
        .filter((s) => tally[s])
        .map((s) => el("span", { class: `state ${s}` }, `${STATES[s][0]} ${count(tally[s])} ${STATES[s][1]}`)),
      el("span", { class: "state chosen" }, "★ chosen"),
      tree.strategy ? el("span", { class: "tag" }, tree.strategy) : null,
      ` ${count(tree.tokens_sampled)} tokens sampled, ${count(tree.finished)} finished solutions`,
    ),
    el(
      "p",
      { class: "controls" },
      rules.length ? el("label", {}, "chosen by ", pick) : "no rule chose a solution",
      hide,
    ),
    place,
  );
}

/** Children of every node, equal leaves of a parent as one with their number. */
function branches(tree, path, pruned) {
  const below = new Map(),
    merged = new Map();
  const leaf = (i) => tree.states[i] !== "expanded" && !path.has(i);
  const parents = new Set(tree.parents);
  tree.parents.forEach((parent, i) => {
    if (!pruned && tree.states[i] === "pruned") return;
    const siblings = below.get(parent) ?? below.set(parent, []).get(parent);
    const key = leaf(i) && !parents.has(i) ? `${parent} ${tree.states[i]} ${tree.texts[i].trim()}` : null;
    const same = key === null ? undefined : merged.get(key);
    if (same) same.times++;
    else {
      const node = { i, times: 1 };
      siblings.push(node);
      if (key !== null) merged.set(key, node);
    }
  });
  return below;
}

function growTree(tree, chosen, pruned, name) {
  const path = new Set();
  for (let i = chosen; i >= 0; i = tree.parents[i]) path.add(i);
  const below = branches(tree, path, pruned),
    small = [...below.values()].reduce((n, nodes) => n + nodes.length, 0) <= OPEN_AT_MOST;
  const solutions = new Map(tree.solutions.map(([i, id, answer, correct]) => [i, { id, answer, correct }]));
  const element = ({ i, times }, level) => {
    const children = below.get(i) ?? [],
      [glyph, word] = STATES[tree.states[i]],
      solution = solutions.get(i);
    const on = path.has(i),
      open = children.length > 0 && (small || on);
    const item = el("li", {
      role: "treeitem",
      "aria-level": level,
      "aria-expanded": children.length ? String(open) : null,
      tabindex: -1,
      class: `${tree.states[i]}${on ? " chosen" : ""}`,
    });
    item.append(
      el(
        "div",
        {
          class: "node",
          onclick: () => {
            if (children.length) toggle(item);
            focusItem(item);
          },
        },
        el("span", { class: "twisty", "aria-hidden": "true" }, children.length ? "▸" : ""),
        el(
          "span",
          { class: "state", role: "img", title: word, "aria-label": on ? `${word}, chosen` : word },
          on ? `★${glyph}` : glyph,
        ),
        typeset(el("span", { class: "text" }), tree.texts[i].trim().replace(/\n +/g, "\n") || "ends here"),
        times > 1 ? el("span", { class: "tag", title: "equal continuations" }, `×${times}`) : null,
        solution ? el("span", { class: "end" }, verdict(solution.correct), solution.answer ?? "no answer") : null,
        bar(tree.values[i], 0.5, "value"),
      ),
    );
    item.grow = () => item.append(el("ul", { role: "group" }, ...children.map((child) => element(child, level + 1))));
    if (open) item.grow();
    return item;
  };
  const root = el(
    "ul",
    { role: "tree", "aria-label": `Tree of ${name}`, class: "tree", onkeydown: treeKeys },
    ...(below.get(-1) ?? []).map((node) => element(node, 1)),
  );
  root.firstElementChild?.setAttribute("tabindex", 0);
  return root;
}

function toggle(item, open = item.getAttribute("aria-expanded") !== "true") {
  item.setAttribute("aria-expanded", String(open));
  const group = item.querySelector(":scope > ul");
  if (open && !group) item.grow();
  else if (group) group.hidden = !open;
}

function focusItem(item) {
  for (const other of item.closest("[role=tree]").querySelectorAll("[tabindex='0']"))
    other.setAttribute("tabindex", -1);
  item.setAttribute("tabindex", 0);
  item.focus({ preventScroll: false });
}

function treeKeys(event) {
  const item = event.target.closest("[role=treeitem]");
  if (!item) return;
  const open = item.getAttribute("aria-expanded"),
    visible = [...event.currentTarget.querySelectorAll("[role=treeitem]")].filter((one) => one.offsetParent);
  const go = (one) => {
    if (one) focusItem(one);
  };
  const acts = {
    ArrowDown: () => go(visible[visible.indexOf(item) + 1]),
    ArrowUp: () => go(visible[visible.indexOf(item) - 1]),
    ArrowRight: () => (open === "false" ? toggle(item, true) : go(item.querySelector("[role=treeitem]"))),
    ArrowLeft: () => (open === "true" ? toggle(item, false) : go(item.parentElement.closest("[role=treeitem]"))),
    Home: () => go(visible[0]),
    End: () => go(visible.at(-1)),
    Enter: () => open !== null && toggle(item),
    " ": () => open !== null && toggle(item),
  };
  if (!acts[event.key]) return;
  acts[event.key]();
  event.preventDefault();
  event.stopPropagation();
}
