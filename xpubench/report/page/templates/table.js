// Tables that the reader sorts, filters and pages through.

import { unpackJson } from "./data.js";
import { make, status } from "./dom.js";
import { NONE, number } from "./numbers.js";

const ROWS_A_PAGE = 100;

function intervalCell(value, digits) {
  const ends = value?.length > 1 ? `${number(value[1], digits)}–${number(value[2], digits)}` : null;
  const small = ends === null ? null : make("small", {}, ends);
  return make("td", { class: "number" }, number(value?.[0], digits), small);
}

// By a column's kind: (value, column, key of the row's run) to the cell.
const CELLS = {
  run: (value, _column, key) =>
    make("th", { scope: "row" }, make("a", { href: `#run-${encodeURIComponent(key)}` }, value)),
  title: (value) => make("th", { scope: "row" }, value),
  status: (value) => make("td", {}, value === null ? NONE : status(value)),
  number: (value, { digits }) => make("td", { class: "number" }, number(value, digits)),
  interval: (value, { digits }) => intervalCell(value, digits),
  date: (value) => make("td", { class: "date" }, value.slice(0, 10), make("small", {}, value.slice(11, 16))),
  long: (value) => make("td", { class: "text long" }, make("div", {}, value ?? NONE)),
  text: (value) => make("td", { class: "text" }, value ?? NONE),
};

const collator = new Intl.Collator("en", { numeric: true });

function order(a, b) {
  if (Array.isArray(a)) return a[0] - b[0];
  return typeof a === "number" ? a - b : collator.compare(a, b);
}

// What has no figure comes last, whichever way.
function sortedBy(indices, values, sign) {
  return indices.sort((a, b) => {
    const [one, other] = [values(a), values(b)];
    if (one === null || other === null) return (one === null) - (other === null);
    return sign * order(one, other);
  });
}

function pageButton(label, isPossible, turn) {
  const button = make("button", { type: "button" }, label);
  button.disabled = !isPossible;
  button.addEventListener("click", turn);
  return button;
}

class RunTable {
  // A row is [number of its panel, key of its run, ...cells].
  constructor(section, { columns, rows }) {
    this.section = section;
    this.columns = columns;
    this.rows = rows;
    this.names = Object.keys(columns);
    this.shown = this.names.filter((name) => !columns[name].hidden);
    this.texts = rows.map(([, ...cells]) =>
      cells
        .filter((one) => typeof one === "string")
        .join(" ")
        .toLowerCase(),
    );
    // What the reader chose.
    this.sort = null;
    this.isDescending = false;
    this.page = 0;
    this.chosen = {};
    this.words = [];
  }

  value(index, name) {
    return this.rows[index][this.names.indexOf(name) + 2];
  }

  setUp() {
    const form = this.section.querySelector("form");
    form.addEventListener("submit", (event) => event.preventDefault());
    const choosers = this.names.filter((name) => this.columns[name].filter).map((name) => this.chooser(name));
    form.append(this.search(), ...choosers.filter((one) => one !== null));
    const heads = this.shown.map((name) => this.header(name));
    this.section.querySelector("table").append(make("thead", {}, make("tr", {}, heads)), make("tbody"));
    this.show();
  }

  // The rows that the reader chose, in their order.
  selected() {
    let found = [...this.rows.keys()];
    for (const [name, value] of Object.entries(this.chosen))
      if (value !== "") found = found.filter((index) => this.value(index, name) === value);
    found = found.filter((index) => this.words.every((word) => this.texts[index].includes(word)));
    if (this.sort === null) return found;
    return sortedBy(found, (index) => this.value(index, this.sort), this.isDescending ? -1 : 1);
  }

  show() {
    const found = this.selected();
    const start = this.page * ROWS_A_PAGE;
    const visible = found.slice(start, start + ROWS_A_PAGE);
    this.section.querySelector("tbody").replaceChildren(...visible.map((index) => this.line(index)));
    this.section.querySelector(".count").textContent = this.countText(found.length, start, visible.length);
    const turns = [
      pageButton("Previous", this.page > 0, () => this.turn(-1)),
      pageButton("Next", start + ROWS_A_PAGE < found.length, () => this.turn(1)),
    ];
    this.section.querySelector(".pages").replaceChildren(...(found.length > ROWS_A_PAGE ? turns : []));
  }

  countText(count, start, visible) {
    const range = count > ROWS_A_PAGE ? `${number(start + 1, 0)} to ${number(start + visible, 0)} of ` : "";
    const all = count < this.rows.length ? `, chosen from ${number(this.rows.length, 0)}` : "";
    return `${range}${number(count, 0)} ${count === 1 ? "row" : "rows"}${all}`;
  }

  showFirst() {
    this.page = 0;
    this.show();
  }

  turn(by) {
    this.page += by;
    this.show();
    this.section.scrollIntoView();
  }

  line(index) {
    const cells = this.shown.map((name) => {
      const column = this.columns[name];
      return CELLS[column.kind](this.value(index, name), column, this.rows[index][1]);
    });
    return make("tr", {}, cells);
  }

  header(name) {
    const { label, kind } = this.columns[name];
    const button = make("button", { type: "button" }, label);
    const aligned = ["number", "interval"].includes(kind) ? { class: "number" } : {};
    const head = make("th", { scope: "col", "aria-sort": "none", ...aligned }, button);
    button.addEventListener("click", () => {
      this.isDescending = this.sort === name && !this.isDescending;
      this.sort = name;
      for (const other of this.section.querySelectorAll("thead th")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", this.isDescending ? "descending" : "ascending");
      this.showFirst();
    });
    return head;
  }

  field(name, label, control) {
    control.id = `${this.section.dataset.table}-${name}`;
    return make("div", {}, make("label", { for: control.id }, label), control);
  }

  search() {
    const control = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
    control.addEventListener("input", () => {
      this.words = control.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.showFirst();
    });
    return this.field("words", "Contains", control);
  }

  // Null where there is no choice.
  chooser(name) {
    const found = new Set([...this.rows.keys()].map((index) => this.value(index, name)));
    const values = [...found].filter((one) => one !== null).sort(collator.compare);
    if (values.length < 2) return null;
    const options = values.map((one) => make("option", { value: one }, one));
    const control = make("select", {}, make("option", { value: "" }, "all"), options);
    control.addEventListener("change", () => {
      this.chosen[name] = control.value;
      this.showFirst();
    });
    return this.field(name, this.columns[name].label, control);
  }
}

// Sets up a section's table; its rows.
export async function setUpTable(section) {
  const table = new RunTable(section, await unpackJson(`table-${section.dataset.table}`));
  table.setUp();
  return table.rows;
}
