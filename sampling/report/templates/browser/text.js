// Shows texts: mathematics as MathML, GSM8K's calculator annotations small, values as colours.

const ENVIRONMENTS =
  /^(equation|align|aligned|alignat|gather|gathered|multline|split|array|cases|dcases|[pbvBV]?matrix|smallmatrix)\*?$/;
const OPENING = /\\[\\$]|\$\$|\$|\\\(|\\\[|\\begin\{([A-Za-z]+\*?)\}|\\boxed\s*\{|<<[^<>\n]*>>/g;

/** Splits a text into {text}, {tex, display, source} and {note}. Dollars before amounts are no mathematics. */
function segments(text) {
  const found = [];
  let begin = 0;
  const plain = (end) => {
    if (end > begin) found.push({ text: text.slice(begin, end) });
  };
  OPENING.lastIndex = 0;
  for (let match; (match = OPENING.exec(text));) {
    const at = match.index,
      mark = match[0];
    if (mark.startsWith("<<")) {
      plain(at);
      found.push({ note: mark });
    } else {
      const one = mathematics(text, at, mark, match[1]);
      if (!one) continue;
      plain(at);
      found.push({ tex: one.tex, display: one.display, source: text.slice(at, one.end) });
      OPENING.lastIndex = one.end;
    }
    begin = OPENING.lastIndex;
  }
  plain(text.length);
  return found;
}

/** The formula that begins with a mark, or null. */
function mathematics(text, at, mark, environment) {
  const after = at + mark.length;
  const until = (close, display) => {
    const end = text.indexOf(close, after);
    return end < 0 || !text.slice(after, end).trim()
      ? null
      : { tex: text.slice(after, end), display, end: end + close.length };
  };
  if (mark === "$$") return until("$$", true);
  if (mark === "\\[") return until("\\]", true);
  if (mark === "\\(") return until("\\)", false);
  if (environment) {
    const close = `\\end{${environment}}`,
      end = ENVIRONMENTS.test(environment) ? text.indexOf(close, after) : -1;
    return end < 0 ? null : { tex: text.slice(at, end + close.length), display: true, end: end + close.length };
  }
  if (mark.startsWith("\\boxed")) {
    for (let i = after, depth = 1; i < text.length; i++) {
      if (text[i] === "\\") i++;
      else if (text[i] === "{") depth++;
      else if (text[i] === "}" && --depth === 0) return { tex: text.slice(at, i + 1), display: false, end: i + 1 };
    }
    return null;
  }
  return mark === "$" ? inline(text, after) : null;
}

/** Text between two dollars, as Pandoc reads it: no space inside of either, no digit after; and no sentence in between. */
function inline(text, after) {
  if (/^\s/.test(text.slice(after, after + 1))) return null;
  for (let end = after; end < text.length; end++) {
    if (text[end] === "\\") end++;
    else if (text[end] === "\n" && text[end + 1] === "\n") return null;
    else if (text[end] === "$") {
      const tex = text.slice(after, end),
        words = tex.replace(/\\[a-z]*text[a-z]*\s*\{[^{}]*\}|\\[A-Za-z]+/g, " ");
      const amount = !tex || /\s$/.test(tex) || /^\d/.test(text.slice(end + 1, end + 2));
      return amount || /[A-Za-z]{2,}\s+[A-Za-z]{2,}/.test(words) ? null : { tex, display: false, end: end + 1 };
    }
  }
  return null;
}

let mathLibrary = null;

/** Runs the packed library; the page's policy allows this very text alone. */
function loadMath() {
  mathLibrary ??= unpack("mathematics").then((code) => {
    const script = document.createElement("script");
    script.textContent = code;
    document.head.append(script);
    return window.temml;
  });
  return mathLibrary;
}

const view = { mathematics: true };

/** Fills an element with a text; formulas follow as soon as the library is there. */
function typeset(element, text) {
  element.replaceChildren(text);
  const parts = segments(text);
  if (!parts.some((part) => part.note || (part.tex && view.mathematics))) return element;
  const build = (temml) =>
    element.replaceChildren(
      ...parts.map((part) => {
        if (part.text) return part.text.replaceAll("\\$", "$");
        if (part.note) return el("span", { class: "note", title: "calculator annotation" }, part.note);
        return temml ? formula(temml, part) : part.source;
      }),
    );
  if (parts.some((part) => part.tex) && view.mathematics) loadMath().then(build, () => {});
  else build(null);
  return element;
}

function formula(temml, part) {
  const made = el(part.display ? "div" : "span", { class: "math", title: part.source });
  try {
    temml.render(part.tex.trim(), made, {
      displayMode: part.display,
      throwOnError: true,
      trust: false,
      wrap: part.display ? "none" : "tex",
      maxExpand: 500,
      maxSize: [20, 20],
    });
  } catch {
    made.className = "tex"; // no formula that could be read: its source
    made.textContent = part.source;
  }
  return made;
}

const number = (value, digits = 3) =>
  value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
const count = (value) => value.toLocaleString("en-US");

/** Background of a value: orange below 1/2, blue above, none at 1/2. */
function shade(value) {
  const strength = Math.min(1, Math.abs(value - 0.5) * 2);
  return `color-mix(in srgb, var(${value < 0.5 ? "--low" : "--high"}) ${(48 * strength).toFixed(0)}%, transparent)`;
}

/** A bar from 0 to 1 with its number; a tick stands at the threshold. */
function bar(value, threshold, name) {
  if (value === null || value === undefined) return el("span", { class: "bar none", title: `${name}: no value` }, "–");
  const below = value < threshold,
    width = `${(100 * Math.min(1, Math.max(0, value))).toFixed(1)}%`;
  return el(
    "span",
    { class: `bar ${below ? "below" : "above"}`, title: `${name}: ${value.toFixed(4)}` },
    el(
      "span",
      { class: "track", "aria-hidden": "true" },
      el("i", { style: { width } }),
      el("b", { style: { left: `${100 * threshold}%` } }),
    ),
    el("span", { class: "digits" }, number(value, 2)),
  );
}

/** A bar's place where there are many: a number in colour, underlined below the threshold. */
function cell(value, threshold, name) {
  const known = value !== null && value !== undefined;
  return el(
    "span",
    {
      class: `cell${known && value < threshold ? " below" : ""}`,
      title: `${name}: ${known ? value.toFixed(4) : "no value"}`,
      style: known ? { background: shade(value) } : {},
    },
    number(value, 2),
  );
}

const VERDICTS = {
  true: { glyph: "✓", word: "correct", class: "good" },
  false: { glyph: "✗", word: "incorrect", class: "bad" },
  null: { glyph: "·", word: "not graded", class: "" },
};

function verdict(correct, words = false) {
  const { glyph, word, class: kind } = VERDICTS[correct];
  return el(
    "span",
    { class: `verdict ${kind}`, role: "img", "aria-label": word, title: word },
    words ? `${glyph} ${word}` : glyph,
  );
}
