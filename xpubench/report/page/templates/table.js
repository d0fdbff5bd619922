// Tables that are sorted, filtered and paged.

const ROWS = 100;

const status = (word) => make("span", { class: `status ${word.replace(/[^a-z]/g, "-")}` }, word);

function cell(column, value, key) {
  if (column.kind === "run")
    return make("th", { scope: "row" }, make("a", { href: `#run-${encodeURIComponent(key)}` }, value));
  if (column.kind === "title") return make("th", { scope: "row" }, value);
  if (column.kind === "status") return make("td", {}, value === null ? NONE : status(value));
  if (column.kind === "number") return make("td", { class: "number" }, number(value, column.digits));
  if (column.kind === "interval") {
    const ends = value !== null && value.length > 1 ? make("small", {}, `${number(value[1], column.digits)}–${number(value[2], column.digits)}`) : null;
    return make("td", { class: "number" }, number(value?.[0] ?? null, column.digits), ends);
  }
  if (column.kind === "date") return make("td", { class: "date" }, value.slice(0, 10), make("small", {}, value.slice(11, 16)));
  return make("td", { class: column.kind === "long" ? "text long" : "text" }, value ?? NONE);
}

const collator = new Intl.Collator("en", { numeric: true });
function order(a, b) {
  if (Array.isArray(a)) return a[0] - b[0];
  return typeof a === "number" ? a - b : collator.compare(a, b);
}

// A row is [panel's number, key, ...cells]; a state is what the reader chose.
async function setUpTable(section) {
  const { columns, rows } = await unpackJson(`table-${section.dataset.table}`);
  const [form, count, table, pages] = ["form", ".count", "table", ".pages"].map((what) => section.querySelector(what));
  const names = Object.keys(columns);
  const place = (name) => names.indexOf(name) + 2;
  const shown = names.filter((name) => !columns[name].hidden);
  const state = { sort: null, descending: false, page: 0, chosen: {}, words: "" };
  const texts = rows.map((row) => row.slice(1).filter((one) => typeof one === "string").join(" ").toLowerCase());

  function select() {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    let found = rows.map((row, index) => index);
    for (const [name, value] of Object.entries(state.chosen))
      if (value !== "") found = found.filter((index) => rows[index][place(name)] === value);
    if (words.length) found = found.filter((index) => words.every((word) => texts[index].includes(word)));
    if (state.sort !== null) {
      const at = place(state.sort);
      const sign = state.descending ? -1 : 1;
      found.sort((a, b) => {
        const [one, other] = [rows[a][at], rows[b][at]];
        if (one === null || other === null) return (one === null) - (other === null);
        return sign * order(one, other);
      });
    }
    return found;
  }

  function header(name) {
    const button = make("button", { type: "button" }, columns[name].label);
    const aligned = ["number", "interval"].includes(columns[name].kind) ? { class: "number" } : {};
    const head = make("th", { scope: "col", "aria-sort": "none", ...aligned }, button);
    button.addEventListener("click", () => {
      state.descending = state.sort === name ? !state.descending : false;
      state.sort = name;
      state.page = 0;
      for (const other of table.tHead.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
      show();
    });
    return head;
  }

  function turn(label, by, possible) {
    const button = make("button", { type: "button" }, label);
    button.disabled = !possible;
    button.addEventListener("click", () => {
      state.page += by;
      show();
      section.scrollIntoView();
    });
    return button;
  }

  function show() {
    const found = select();
    const start = state.page * ROWS;
    const visible = found.slice(start, start + ROWS);
    table.tBodies[0].replaceChildren(
      ...visible.map((index) =>
        make("tr", {}, shown.map((name) => cell(columns[name], rows[index][place(name)], rows[index][1]))),
      ),
    );
    const range = found.length > ROWS ? `${number(start + 1, 0)} to ${number(start + visible.length, 0)} of ` : "";
    const all = found.length < rows.length ? `, chosen from ${number(rows.length, 0)}` : "";
    count.textContent = `${range}${number(found.length, 0)} ${found.length === 1 ? "row" : "rows"}${all}`;
    const more = start + ROWS < found.length;
    pages.replaceChildren(...(found.length > ROWS ? [turn("Previous", -1, state.page > 0), turn("Next", 1, more)] : []));
  }

  function field(name, label, control) {
    control.id = `${section.dataset.table}-${name}`;
    return make("div", {}, make("label", { for: control.id }, label), control);
  }

  function chooser(name) {
    const values = [...new Set(rows.map((row) => row[place(name)]))].filter((one) => one !== null).sort(collator.compare);
    if (values.length < 2) return null;
    const control = make("select", {}, make("option", { value: "" }, "all"), values.map((one) => make("option", { value: one }, one)));
    control.addEventListener("change", () => {
      state.chosen[name] = control.value;
      state.page = 0;
      show();
    });
    return field(name, columns[name].label, control);
  }

  const words = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  words.addEventListener("input", () => {
    state.words = words.value;
    state.page = 0;
    show();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.append(...[field("words", "Contains", words), ...names.filter((name) => columns[name].filter).map(chooser)].filter(Boolean));
  table.append(make("thead", {}, make("tr", {}, shown.map(header))), make("tbody"));
  show();
  return rows;
}
