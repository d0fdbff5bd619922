"use strict";
// Every text from a record enters the page as a text node (see `make`) or through `plain`, never as HTML.
(() => {
  const ROWS = 100;
  const BLOCK = 64;
  const MOST_POINTS = 2000;
  const NONE = "–";
  const root = document.documentElement;

  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
    element.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return element;
  }

  async function unpack(name) {
    const bytes = Uint8Array.from(atob(document.getElementById(`data-${name}`).textContent), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  }
  const unpackJson = async (name) => JSON.parse(await unpack(name));

  // ---- numbers

  const formats = [0, 1, 2, 3].map(
    (digits) => new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
  );
  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  const number = (value, digits = 2) => (isNumber(value) ? formats[digits].format(value) : NONE);
  const interval = (ends, digits = 2) => (ends ? `${number(ends[0], digits)} to ${number(ends[1], digits)}` : NONE);
  const date = (text) => text.slice(0, 16).replace("T", " ");

  // ---- tables

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
      count.textContent = `${range}${number(found.length, 0)} rows${all}`;
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

  // ---- figures

  let plotting = null;
  function plotly() {
    plotting ??= unpack("plotly").then((source) => {
      document.head.append(Object.assign(document.createElement("script"), { textContent: source }));
      return window.Plotly;
    });
    return plotting;
  }

  // Plotly reads some HTML in its texts.
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

  function colors() {
    const style = getComputedStyle(root);
    return Object.fromEntries(
      ["ground", "surface", "ink", "quiet", "line", "accent", "second", "ok", "bad", "part", "shade"].map((name) => [
        name,
        style.getPropertyValue(`--${name}`).trim(),
      ]),
    );
  }

  const live = new Map();
  async function draw(element, figure) {
    live.set(element, figure);
    const Plotly = await plotly();
    const color = colors();
    const { data, layout } = figure(color);
    const axis = (own) => ({
      gridcolor: color.line, linecolor: color.line, zeroline: false, automargin: true, fixedrange: true, ...own,
      title: own?.title ? { text: own.title, font: { size: 12, color: color.quiet }, standoff: 8 } : undefined,
    });
    const whole = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 8, r: 12, t: 8, b: 8 }, showlegend: false,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color.quiet },
      hoverlabel: { bgcolor: color.surface, bordercolor: color.line, font: { color: color.ink } },
      ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    };
    if (layout.xaxis2) Object.assign(whole, { xaxis2: axis(layout.xaxis2), yaxis2: axis(layout.yaxis2) });
    await Plotly.react(element, data, whole, { displayModeBar: false, responsive: true });
  }

  function redraw() {
    for (const [element, figure] of live) element.isConnected ? draw(element, figure) : live.delete(element);
  }

  function plot(caption, note, figure, wide) {
    const element = make("div", { class: "plot", role: "img", "aria-label": `${caption}. ${note}` });
    const whole = make("figure", wide ? { class: "wide" } : {}, make("figcaption", {}, caption, make("span", {}, ` ${note}`)), element);
    return { whole, start: () => draw(element, figure) };
  }

  function bars(rows, unit, digits, color) {
    const found = rows.filter(([, value]) => isNumber(value)).reverse();
    return {
      data: [{
        type: "bar", orientation: "h", x: found.map(([, value]) => value), y: found.map(([name]) => plain(name)), width: 0.55,
        marker: { color: found.map(([, , main]) => (main ? color.accent : color.line)) },
        text: found.map(([, value]) => `${number(value, digits)} ${unit}`), textposition: "auto", insidetextanchor: "end",
        hoverinfo: "none", cliponaxis: false,
        insidetextfont: { color: found.map(([, , main]) => (main ? color.ground : color.ink)) }, outsidetextfont: { color: color.ink },
      }],
      layout: { xaxis: { title: unit, rangemode: "tozero" }, yaxis: { showgrid: false, tickfont: { color: color.ink } } },
    };
  }

  function tokenSeries(tokens, iterations) {
    const x = tokens.median.map((_, index) => 2 + index * tokens.every);
    const note = `ms over ${iterations} iterations: median, and from the least to the largest` +
      (tokens.every > 1 ? `; each point stands for ${tokens.every} tokens` : "");
    return plot("Next token latency by token", note, (color) => ({
      data: [
        { x, y: tokens.low, mode: "lines", line: { width: 0 }, hoverinfo: "skip" },
        { x, y: tokens.high, mode: "lines", line: { width: 0 }, fill: "tonexty", fillcolor: color.shade, hoverinfo: "skip" },
        { x, y: tokens.median, mode: "lines", line: { color: color.accent, width: 1.75 }, hovertemplate: "token %{x}: %{y:.2f} ms<extra></extra>" },
      ],
      layout: { xaxis: { title: "new token", showgrid: false }, yaxis: { title: "ms", rangemode: "tozero" } },
    }), true);
  }

  function distribution(histogram, statistic) {
    const { counts, low_ms: low, high_ms: high } = histogram;
    const width = (high - low) / counts.length;
    const x = counts.map((_, index) => low + (index + 0.5) * width);
    return plot("Distribution of the next token latency", `${number(statistic?.n, 0)} samples; the line is the median`, (color) => ({
      data: [{ type: "bar", x, y: counts, width, marker: { color: color.accent, line: { color: color.ground, width: 0.5 } }, hovertemplate: "%{x:.2f} ms: %{y}<extra></extra>" }],
      layout: {
        bargap: 0, xaxis: { title: "ms", showgrid: false }, yaxis: { title: "tokens" },
        shapes: statistic ? [{ type: "line", x0: statistic.median, x1: statistic.median, yref: "paper", y0: 0, y1: 1, line: { color: color.second, width: 2 } }] : [],
      },
    }));
  }

  function latencyBars(summary) {
    const found = [["First token", summary.first_token_ms], ["Next token", summary.next_token_ms]].filter(([, one]) => one);
    const trace = ([name, one], index, color) => ({
      type: "bar", orientation: "h", x: [one.median], y: [name], width: 0.6, marker: { color: color.accent }, hoverinfo: "none",
      text: [`${number(one.median)} ms`], textposition: "inside", insidetextanchor: "start", insidetextfont: { color: color.ground },
      xaxis: index ? "x2" : "x", yaxis: index ? "y2" : "y",
      error_x: one.ci95 ? { type: "data", symmetric: false, array: [one.ci95[1] - one.median], arrayminus: [one.median - one.ci95[0]], color: color.second, thickness: 2, width: 6 } : undefined,
    });
    return plot("First and next token latency", "ms, with the 95 % interval of the median; each has its own scale", (color) => ({
      data: found.map((one, index) => trace(one, index, color)),
      layout: {
        ...(found.length > 1 ? { grid: { rows: 2, columns: 1, pattern: "independent", ygap: 0.5 }, xaxis2: { title: "ms", rangemode: "tozero" }, yaxis2: { showgrid: false, tickfont: { color: color.ink } } } : {}),
        xaxis: { rangemode: "tozero" }, yaxis: { showgrid: false, tickfont: { color: color.ink } },
      },
    }));
  }

  function bandwidth(summary) {
    const reached = summary.step_bytes / summary.next_token_ms.median / 1e6;
    const share = isNumber(summary.mbu_measured) ? `${number(100 * summary.mbu_measured, 1)} % of what was measured` : "";
    return plot("Bandwidth while decoding", `${share}; weights and KV cache over the next token latency`, (color) =>
      bars([["reached", reached, true], ["measured", summary.bandwidth_measured_gb_per_s], ["data sheet", summary.bandwidth_datasheet_gb_per_s]], "GB/s", 1, color));
  }

  function memory(plan, summary) {
    const gb = (value) => (isNumber(value) ? value / 1e9 : null);
    const rows = [
      ["peak, device", gb(summary.peak_device_bytes), true], ["peak, host", gb(summary.peak_host_bytes), true],
      ["planned peak", gb(plan?.peak_bytes)], ["weights", gb(plan?.weight_bytes)], ["KV cache", gb(plan?.kv_cache_bytes)],
    ];
    return rows.some(([, value]) => value !== null) ? plot("Memory", "GB, measured and planned", (color) => bars(rows, "GB", 2, color)) : null;
  }

  function accuracyFigure(found) {
    const rows = [];
    if (isNumber(found.reference?.acc)) {
      const share = found.reference.acc;
      const error = isNumber(found.reference.n) && found.reference.n > 0 ? Math.sqrt((share * (1 - share)) / found.reference.n) : null;
      rows.push(["published", share, error, false]);
    }
    rows.push(["this run", found.acc, found.acc_stderr, true]);
    return plot("Accuracy", "%, with 95 % intervals of the items' sampling", (color) => ({
      data: [{
        mode: "markers", x: rows.map(([, share]) => 100 * share), y: rows.map(([name]) => name),
        marker: { size: 11, color: rows.map(([, , , main]) => (main ? color.accent : color.quiet)) },
        error_x: { type: "data", array: rows.map(([, , error]) => 196 * (error ?? 0)), color: color.quiet, thickness: 1.5, width: 6 },
        hovertemplate: "%{x:.2f} %<extra></extra>",
      }],
      layout: { xaxis: { title: "%" }, yaxis: { showgrid: false, range: [-0.6, rows.length - 0.4], tickfont: { color: color.ink } } },
    }));
  }

  // ---- the panel of a run

  function flat(value, path = "") {
    if (value !== null && typeof value === "object" && Object.keys(value).length)
      return Object.entries(value).flatMap(([name, part]) => flat(part, path ? `${path}.${name}` : name));
    const text = value === null || value === undefined ? NONE : typeof value === "object" ? "none" : String(value);
    return [[path, text]];
  }

  function facts(rows) {
    return make("table", { class: "facts" }, make("tbody", {}, rows.map(([name, text]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, text)))));
  }

  const folded = (title, rows) => (rows.length ? make("details", {}, make("summary", {}, title), facts(rows)) : null);

  function latencyTable(summary) {
    const columns = ["median", "95 % interval", "mean", "stdev", "p50", "p90", "p99", "samples"];
    const rows = [["First token", summary.first_token_ms], ["Next token", summary.next_token_ms], ["End to end", summary.end_to_end_ms]].filter(([, one]) => one);
    const numbers = (one) => [number(one.median), interval(one.ci95), number(one.mean), number(one.stdev), number(one.p50), number(one.p90), number(one.p99), number(one.n, 0)];
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Latencies" }, make("table", {},
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Latency, ms"), columns.map((name) => make("th", { scope: "col", class: "number" }, name)))),
      make("tbody", {}, rows.map(([name, one]) => make("tr", {}, make("th", { scope: "row" }, name), numbers(one).map((text) => make("td", { class: "number" }, text)))))));
  }

  function summaryFacts(data) {
    const { run, summary, accuracy, divergence } = data;
    const rows = [["made", `${date(run.created)} UTC`], ["device", run.device_name], ["record", `${run.directory}/${run.file}`]];
    if (summary) {
      rows.unshift(["tokens/s", number(summary.tokens_per_s)], ["perturbation", `${number(summary.perturbation, 3)} (every token stamped / only the ends)`]);
      rows.push(["load", `${number(summary.load_s)} s`]);
    }
    if (accuracy) {
      const published = accuracy.reference;
      rows.unshift(
        ["accuracy", isNumber(accuracy.acc) ? `${number(100 * accuracy.acc)} % ± ${number(100 * accuracy.acc_stderr)} (standard error)` : NONE],
        ["published", published ? `${isNumber(published.acc) ? number(100 * published.acc) : NONE} % (${published.source ?? "no source"})` : "no figure for this model and task"],
        ["perplexity", number(accuracy.perplexity)],
        ["items", `${number(accuracy.n, 0)}${accuracy.partial ? ", a part of the task" : ""}`],
      );
    }
    if (divergence) rows.push(["divergence", `from ${divergence.reference}: top-1 agreement ${number(100 * divergence.top1_agreement, 1)} %, mean KL ${divergence.mean_kl === null ? "hidden by the runtime" : `${divergence.mean_kl.toExponential(1)} nats`}`]);
    if (data.text) rows.push(["text", data.text]);
    return facts(rows);
  }

  function failureBox(failure) {
    return [make("h3", {}, "Failure"), make("p", {}, status(failure.class), ` ${failure.message}`),
      failure.log_tail ? make("pre", { tabindex: "0", "aria-label": "End of the log" }, failure.log_tail) : null];
  }

  function figuresOf(data) {
    const { summary, accuracy } = data;
    return [
      data.tokens ? tokenSeries(data.tokens, data.next_tokens.length) : null,
      data.histogram ? distribution(data.histogram, summary?.next_token_ms) : null,
      summary ? latencyBars(summary) : null,
      summary?.next_token_ms && isNumber(summary.step_bytes) ? bandwidth(summary) : null,
      summary ? memory(data.plan, summary) : null,
      isNumber(accuracy?.acc) ? accuracyFigure(accuracy) : null,
    ].filter(Boolean);
  }

  const dialog = document.getElementById("panel");

  async function openPanel(place) {
    const data = (await unpackJson(`panels-${Math.floor(place / BLOCK)}`))[place % BLOCK];
    const { run } = data;
    const close = make("button", { type: "button", autofocus: "" }, "Close");
    close.addEventListener("click", () => dialog.close());
    const figures = figuresOf(data);
    const body = [
      data.failure ? failureBox(data.failure) : null,
      data.warnings.length ? [make("h3", {}, "Warnings"), make("ul", { class: "warnings" }, data.warnings.map((text) => make("li", {}, text)))] : null,
      data.summary ? [make("h3", {}, "Latency"), latencyTable(data.summary)] : null,
      summaryFacts(data),
      make("div", { class: "figures" }, figures.map((one) => one.whole)),
      make("h3", {}, "Behind it"),
      folded("Environment", flat(data.environment)), folded("What was asked", flat(data.spec)), folded("What was loaded", flat(data.runtime)),
      folded("Checks", flat(data.checks)), data.plan ? folded("Plan", flat(data.plan)) : null, data.bandwidth ? folded("Bandwidth", flat(data.bandwidth)) : null,
    ];
    dialog.replaceChildren(
      make("header", {}, make("div", {}, make("h2", { id: "panel-title" }, run.model), make("div", {}, status(run.status),
        make("span", { class: "quiet" }, ` ${[run.runtime, `${run.ranks > 1 ? `${run.ranks} x ` : ""}${run.device}`, run.precision, run.workload].join(" · ")}`))), close),
      make("div", { class: "body" }, body.flat().filter(Boolean)),
    );
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    for (const one of figures) await one.start();
  }

  function route(places) {
    if (!location.hash.startsWith("#run-")) return;
    let key = "";
    try { key = decodeURIComponent(location.hash.slice(5)); } catch { return; }
    if (places.has(key)) openPanel(places.get(key));
  }

  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    if (location.hash.startsWith("#run-")) history.replaceState(null, "", location.href.split("#")[0]);
  });

  // ---- figures of the whole page, by their data-figure

  // 1, 2, 5, 10, … over the range of a logarithmic axis.
  function ticks(values) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1; power++) found.push(...[1, 2, 5].map((digit) => digit * 10 ** power));
    const inside = found.filter((one) => one >= low / 2 && one <= high * 2);
    return { tickvals: inside, ticktext: inside.map((one) => String(Number(one.toPrecision(1)))) };
  }

  const GUIDES = [[1, "the limit"], [2, "50 %"], [10, "10 %"]];
  const pageFigures = {
    async limit(holder) {
      const all = await unpackJson("limit");
      if (!all.length) return holder.append(make("p", { class: "note" }, "No run has both a next token latency and a measured bandwidth."));
      const step = Math.ceil(all.length / MOST_POINTS);
      const points = all.filter((_, index) => index % step === 0);
      const shown = step > 1 ? ` ${number(points.length, 0)} of ${number(all.length, 0)} runs are drawn.` : "";
      const ends = [Math.min(...points.map((one) => one[4])) / 1.5, Math.max(...points.map((one) => one[4])) * 1.5];
      const symbols = ["circle", "diamond", "square", "triangle-up", "x", "cross"];
      const { whole, start } = plot("Each run", `is a point. Across: the least time in which the weights and the KV cache can be read at the measured bandwidth.${shown}`, (color) => ({
        data: [
          ...GUIDES.map(([factor, name]) => ({ x: ends, y: ends.map((x) => x * factor), mode: "lines+text", text: ["", name], textposition: "middle right", textfont: { color: color.quiet, size: 11 }, line: { color: factor === 1 ? color.ink : color.quiet, width: 1, dash: factor === 1 ? "solid" : "dot" }, hoverinfo: "skip", showlegend: false, cliponaxis: false })),
          ...[...new Set(points.map((one) => one[2]))].sort().map((runtime, index) => {
            const mine = points.filter((one) => one[2] === runtime);
            return {
              mode: "markers", name: plain(runtime), x: mine.map((one) => one[4]), y: mine.map((one) => one[5]), customdata: mine.map((one) => one[0]),
              text: mine.map((one) => `${plain(one[1])}<br>${plain(one[2])}, ${plain(one[3])}<br>${number(one[5])} ms, ${number((100 * one[4]) / one[5], 1)} % of the bandwidth`),
              hoverinfo: "text", marker: { size: 9, opacity: 0.85, symbol: symbols[index % symbols.length], color: [color.accent, color.second, color.ok, color.part, color.bad, color.quiet][index % 6] },
            };
          }),
        ],
        layout: {
          showlegend: true, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: color.ink } }, margin: { l: 8, r: 64, t: 8, b: 8 },
          xaxis: { title: "at the measured bandwidth, ms", type: "log", ...ticks(ends) }, yaxis: { title: "measured, ms", type: "log", ...ticks([ends[0], 10 * ends[1]]) },
        },
      }), true);
      holder.replaceChildren(...whole.childNodes);
      await start();
      holder.querySelector(".plot").on("plotly_click", ({ points: [one] }) => {
        if (one?.customdata) location.hash = `#run-${encodeURIComponent(one.customdata)}`;
      });
    },
  };

  const ERRORS = { thickness: 1.5, width: 4 };
  // Of a comparison: [name, ratio, low, high, verdict] of each pair, sorted by the ratio.
  pageFigures.ratios = async (holder) => {
    const all = await unpackJson("ratios");
    if (!all.length) return holder.append(make("p", { class: "note" }, "No pair has a next token latency."));
    const named = all.length <= 40;
    const width = innerWidth < 720 ? 18 : 60;
    const { whole, start } = plot("Next token latency, B / A", "with 95 % intervals; left of 1, B is faster", (color) => {
      const shade = { faster: color.ok, slower: color.bad };
      const shades = all.map((one) => shade[one[4]] ?? color.quiet);
      const range = (at) => all.map((one) => (one[2] === null ? 0 : Math.abs(one[at] - one[1])));
      return {
        data: [{
          mode: "markers", x: all.map((one) => one[1]), y: all.map((_, index) => index), marker: { size: 9, color: shades, symbol: all.map((one) => ({ faster: "triangle-left", slower: "triangle-right" })[one[4]] ?? "circle") },
          error_x: { type: "data", symmetric: false, array: range(3), arrayminus: range(2), color: color.quiet, ...ERRORS },
          text: all.map((one) => `${plain(one[0])}<br>${number(one[1], 3)} (${interval(one.slice(2, 4), 3)}), ${one[4]}`), hoverinfo: "text",
        }],
        layout: {
          height: named ? 70 + 26 * all.length : 480,
          xaxis: { title: "ratio" }, yaxis: { showgrid: false, autorange: "reversed", ...(named ? { tickvals: all.map((_, index) => index), ticktext: all.map((one) => plain(one[0].length > width ? `${one[0].slice(0, width - 1)}…` : one[0])), tickfont: { color: color.ink } } : { visible: false }) },
          shapes: [{ type: "line", x0: 1, x1: 1, yref: "paper", y0: 0, y1: 1, line: { color: color.ink, width: 1 } }],
        },
      };
    }, true);
    whole.querySelector(".plot").style.height = `${named ? 70 + 26 * all.length : 480}px`;
    holder.replaceChildren(...whole.childNodes);
    await start();
  };

  // Of a history: one series' [time, figure, low, high, change, words] by point.
  pageFigures.series = async (holder) => {
    const { name, unit, points } = (await unpackJson("series"))[Number(holder.dataset.series)];
    const { whole, start } = plot(name, unit, (color) => {
      const shade = { faster: color.ok, better: color.ok, slower: color.bad, worse: color.bad };
      const changed = points.filter((one) => shade[one[4]]);
      const range = (at) => points.map((one) => (one[2] === null ? 0 : Math.abs(one[at] - one[1])));
      return {
        data: [{
          mode: "lines+markers", x: points.map((one) => one[0]), y: points.map((one) => one[1]), line: { color: color.accent, width: 1.5 },
          marker: { size: points.map((one) => (shade[one[4]] ? 12 : 7)), color: points.map((one) => shade[one[4]] ?? color.accent), symbol: points.map((one) => ({ faster: "triangle-down", slower: "triangle-up", better: "triangle-up", worse: "triangle-down" })[one[4]] ?? "circle") },
          error_y: { type: "data", symmetric: false, array: range(3), arrayminus: range(2), color: color.quiet, ...ERRORS },
          text: points.map((one) => `${plain(one[0])}<br>${number(one[1])} ${plain(unit)}<br>${plain(one[5])}`), hoverinfo: "text",
        }],
        layout: {
          margin: { l: 8, r: 40, t: 28, b: 8 }, xaxis: { type: "date", showgrid: false }, yaxis: { title: unit },
          annotations: changed.slice(-12).map((one) => ({ x: one[0], y: one[1], text: plain(one[5]), showarrow: false, yshift: 20, font: { size: 11, color: shade[one[4]] } })),
        },
      };
    }, true);
    holder.replaceChildren(...whole.childNodes);
    await start();
  };

  // ---- the page

  function setUpTheme() {
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
    const show = () => {
      button.setAttribute("aria-pressed", String(isDark()));
      redraw();
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      show();
    });
    system.addEventListener("change", show);
    matchMedia("print").addEventListener("change", redraw);
    show();
  }

  function setUpFigures() {
    const seen = new IntersectionObserver((entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        pageFigures[target.dataset.figure](target);
      }
    }, { rootMargin: "400px" });
    for (const holder of document.querySelectorAll("[data-figure]")) seen.observe(holder);
  }

  async function start() {
    setUpTheme();
    const places = new Map();
    for (const section of document.querySelectorAll("[data-table]"))
      for (const [place, key] of await setUpTable(section)) if (place !== null) places.set(key, place);
    setUpFigures();
    addEventListener("hashchange", () => route(places));
    route(places);
    root.dataset.ready = "true";
  }
  start();
})();
