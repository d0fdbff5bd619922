// Facts of a run by their names, in tables of two columns.

import { make } from "./dom.js";
import { NONE } from "./numbers.js";

// Each fact of a nested value by its dotted path.
export function flat(value, path = "") {
  const isObject = value !== null && typeof value === "object";
  if (isObject && Object.keys(value).length)
    return Object.entries(value).flatMap(([name, part]) => flat(part, path ? `${path}.${name}` : name));
  if (value === null || value === undefined) return [[path, NONE]];
  return [[path, isObject ? "none" : String(value)]];
}

export function factsTable(rows) {
  const lines = rows.map(([name, text]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, text)));
  return make("table", { class: "facts" }, make("tbody", {}, lines));
}

// Null where there is no fact.
export function foldedFacts(title, value) {
  if (value === null || value === undefined) return null;
  const rows = flat(value);
  return rows.length ? make("details", {}, make("summary", {}, title), factsTable(rows)) : null;
}
