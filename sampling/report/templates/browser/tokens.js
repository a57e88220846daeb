// The value after every token: a line, and the text in colours.

function tokenPanels(data, body) {
  return data.verifiers
    .filter((v) => body.tokens?.[v.name] || (v.kind === "token" && body.values[v.name]?.length > 1))
    .map((v) => {
      const values = body.values[v.name],
        pieces = cutTokens(body.tokens?.[v.name], values);
      const fall = deepestFall(pieces.map(([, value]) => value));
      return el(
        "section",
        { class: "tokens", "aria-label": `Values of ${v.name} after every token` },
        el("h3", {}, `${v.name} after every token`),
        el(
          "p",
          { class: "legend" },
          "incorrect ",
          ...[0, 0.2, 0.4, 0.6, 0.8, 1].map((x) => el("span", { style: { background: shade(x) } }, x.toFixed(1))),
          " correct",
          fall > 0
            ? ` · ▼ falls most here, from ${number(pieces[fall - 1][1], 2)} to ${number(pieces[fall][1], 2)}`
            : "",
        ),
        heatLine(
          pieces.map(([, value]) => value),
          fall,
          v.name,
        ),
        body.tokens?.[v.name] ? heatText(pieces, fall) : null,
      );
    });
}

/** Pairs of text and value; a character of several tokens has the value of the last of them. */
function cutTokens(tokens, values) {
  if (!tokens) return values.map((value) => ["", value]);
  const [text, lengths] = tokens;
  let at = 0;
  return lengths.map((length, i) => [text.slice(at, (at += length)), values[i]]).filter(([piece]) => piece);
}

/** The index of the value with the largest drop before it; 0 if none drops. */
function deepestFall(values) {
  let deepest = 0,
    found = 0;
  for (let i = 1; i < values.length; i++) {
    if (values[i - 1] - values[i] > deepest) {
      deepest = values[i - 1] - values[i];
      found = i;
    }
  }
  return found;
}

function heatLine(values, fall, name) {
  const SVG = "http://www.w3.org/2000/svg",
    width = 1000,
    height = 80,
    n = Math.max(1, values.length - 1);
  const draw = (tag, attributes) => {
    const made = document.createElementNS(SVG, tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const x = (i) => (i * width) / n,
    y = (v) => height - v * height;
  const svg = draw("svg", {
    viewBox: `0 -4 ${width} ${height + 8}`,
    preserveAspectRatio: "none",
    class: "line",
    role: "img",
    "aria-label": `${name}: from ${number(values[0], 2)} to ${number(values.at(-1), 2)} over ${values.length} tokens`,
  });
  svg.append(draw("line", { x1: 0, x2: width, y1: height / 2, y2: height / 2, class: "half" }));
  if (fall > 0) svg.append(draw("line", { x1: x(fall), x2: x(fall), y1: 0, y2: height, class: "fall" }));
  svg.append(draw("polyline", { points: values.map((v, i) => `${x(i).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }));
  return svg;
}

function heatText(pieces, fall) {
  return el(
    "pre",
    { class: "heat" },
    ...pieces.map(([text, value], i) => {
      const change = i ? ` (${value >= pieces[i - 1][1] ? "+" : ""}${number(value - pieces[i - 1][1])})` : "";
      // A line end alone has no width, so it could be neither seen nor pointed at.
      const shown = text.trim() ? text : text.replaceAll("\n", "↵\n");
      return el(
        "span",
        {
          class: i && i === fall ? "fall" : null,
          title: `${number(value)}${change}`,
          style: { background: shade(value) },
        },
        shown,
      );
    }),
  );
}
