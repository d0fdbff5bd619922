// The panel of one run.

const BLOCK = 64;

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
