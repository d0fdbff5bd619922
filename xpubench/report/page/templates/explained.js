// The part of a run's panel that tells where its tokens' time goes.

import { make, scrolling } from "./dom.js";
import { batchFigure, depthFigure, ledgerFigure, PART_COLORS } from "./explained_figures.js";
import { factsTable } from "./facts.js";
import { number } from "./numbers.js";

function swatch(part) {
  return part ? make("span", { class: "swatch", style: `background:${PART_COLORS[part][0]}` }) : null;
}

// The parts in their order, then the sums, which have no color.
function ledgerTable({ parts, table: { columns, rows } }) {
  const heads = columns.map((text, index) => make("th", { scope: "col", class: index ? "number" : "" }, text));
  const lines = rows.map(([title, ...texts], index) => {
    const cells = texts.map((text) => make("td", { class: "number" }, text));
    const row = index < parts.length ? "" : "sum";
    return make("tr", { class: row }, make("th", { scope: "row" }, swatch(parts[index]?.[0]), title), cells);
  });
  const table = make("table", { class: "ledger" }, make("thead", {}, make("tr", {}, heads)), make("tbody", {}, lines));
  return scrolling("Parts of the token's time", table);
}

function verdictOf({ message, advice }) {
  if (message === null) return [];
  const lines = advice.map((text) => make("li", {}, text));
  return [make("p", { class: "verdict" }, message), lines.length ? make("ul", {}, lines) : null];
}

function operatorTable({ token, operators, other_operators: others, other_operators_us: rest }) {
  if (!operators.length) return null;
  const heads = ["Operator", "Part", "µs a token", "Calls"].map((text, index) =>
    make("th", { scope: "col", class: index > 1 ? "number" : "" }, text),
  );
  const rows = operators.map(([name, part, us, calls]) => [
    name,
    part,
    number(us, 1),
    number(calls, calls % 1 ? 1 : 0),
  ]);
  if (others) rows.push([`${number(others, 0)} others`, "", number(rest, 1), ""]);
  const lines = rows.map(([name, ...texts]) => {
    const cells = texts.map((text, index) => make("td", { class: index ? "number" : "" }, text));
    return make("tr", {}, make("th", { scope: "row" }, name), cells);
  });
  const table = make("table", {}, make("thead", {}, make("tr", {}, heads)), make("tbody", {}, lines));
  const label = `Operators of the ${token}`;
  return make("details", {}, make("summary", {}, label), scrolling(label, table));
}

// The nodes of the part and its figures, which are drawn once they are in the page; none for a run without an
// explanation or a curve over batches.
export function explainedPart(found, curve) {
  const nodes = [];
  const figures = [];
  if (found) {
    nodes.push(make("h3", {}, "Where the time goes"), ...verdictOf(found));
    if (found.ledgers.length) {
      const bars = ledgerFigure(found);
      bars.whole.classList.add("ledgers");
      figures.push(bars);
      nodes.push(bars.whole, ledgerTable(found));
    }
    nodes.push(factsTable(found.lines), ...found.ledgers.map(operatorTable));
  }
  const curves = [found?.depth?.length ? depthFigure(found.depth) : null, curve ? batchFigure(curve) : null].filter(
    (one) => one !== null,
  );
  if (curves.length) {
    const holder = make(
      "div",
      { class: "figures" },
      curves.map((one) => one.whole),
    );
    nodes.push(holder);
  }
  return { nodes: nodes.filter((one) => one !== null), figures: [...figures, ...curves] };
}
