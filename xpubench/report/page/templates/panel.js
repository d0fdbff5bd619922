// The panel of one run.

import { CONSTANTS, unpackJson } from "./data.js";
import { make, scrolling, status } from "./dom.js";
import { explainedPart } from "./explained.js";
import { factsTable, foldedFacts } from "./facts.js";
import { date, interval, isNumber, NONE, number } from "./numbers.js";
import {
  accuracyFigure,
  bandwidthFigure,
  distributionFigure,
  latenciesFigure,
  memoryFigure,
  tokensFigure,
} from "./run_figures.js";

const STATISTICS = ["median", "95 % interval", "mean", "stdev", "p50", "p90", "p99", "samples"];

function statisticCells(one) {
  const texts = [one.mean, one.stdev, one.p50, one.p90, one.p99].map((value) => number(value));
  return [number(one.median), interval(one.ci95), ...texts, number(one.n, 0)];
}

function latencyTable(summary) {
  const rows = [
    ["First token", summary.first_token_ms],
    ["Next token", summary.next_token_ms],
    ["End to end", summary.end_to_end_ms],
  ].filter(([, statistic]) => statistic);
  const heads = STATISTICS.map((name) => make("th", { scope: "col", class: "number" }, name));
  const lines = rows.map(([name, statistic]) => {
    const cells = statisticCells(statistic).map((text) => make("td", { class: "number" }, text));
    return make("tr", {}, make("th", { scope: "row" }, name), cells);
  });
  const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Latency, ms"), heads));
  return scrolling("Latencies", make("table", {}, head, make("tbody", {}, lines)));
}

function promptRate(summary) {
  const rate = number(summary.prompt_tokens_per_s);
  if (!isNumber(summary.prompt_share_of_peak)) return rate;
  const share = number(100 * summary.prompt_share_of_peak, 1);
  return `${rate} (${share} % of ${number(summary.peak_tflop_per_s)} TFLOP/s in matrix products)`;
}

function latencyFacts(summary) {
  return [
    ["prompt, tokens/s", promptRate(summary)],
    ["tokens/s", number(summary.tokens_per_s)],
    ["perturbation", `${number(summary.perturbation, 3)} (every token stamped / only the ends)`],
    ["load", `${number(summary.load_s)} s`],
  ];
}

function publishedText(published) {
  if (!published) return "no figure for this model and task";
  const share = isNumber(published.acc) ? number(100 * published.acc) : NONE;
  return `${share} % (${published.source ?? "no source"})`;
}

function accuracyFacts(accuracy) {
  const error = number(100 * accuracy.acc_stderr);
  return [
    ["accuracy", isNumber(accuracy.acc) ? `${number(100 * accuracy.acc)} % ± ${error} (standard error)` : NONE],
    ["published", publishedText(accuracy.reference)],
    ["perplexity", number(accuracy.perplexity)],
    ["items", `${number(accuracy.n, 0)}${accuracy.partial ? ", a part of the task" : ""}`],
  ];
}

function runFacts({ run, summary, accuracy, divergence, text }) {
  return factsTable([
    ...(accuracy ? accuracyFacts(accuracy) : []),
    ...(summary ? latencyFacts(summary) : []),
    ["made", `${date(run.created)} UTC`],
    ["device", run.device_name],
    ["record", `${run.directory}/${run.file}`],
    ...(divergence ? [["divergence", divergence]] : []),
    ...(text ? [["text", text]] : []),
  ]);
}

function failureBox(failure) {
  const log = failure.log_tail
    ? make("pre", { tabindex: "0", "aria-label": "End of the log" }, failure.log_tail)
    : null;
  return [make("h3", {}, "Failure"), make("p", {}, status(failure.class), ` ${failure.message}`), log];
}

function warningList(warnings) {
  const lines = warnings.map((text) => make("li", {}, text));
  return [make("h3", {}, "Warnings"), make("ul", { class: "warnings" }, lines)];
}

function figuresOf({ tokens, next_tokens: nextTokens, histogram, summary, plan, accuracy }) {
  return [
    tokens ? tokensFigure(tokens, nextTokens.length) : null,
    histogram ? distributionFigure(histogram, summary?.next_token_ms) : null,
    summary ? latenciesFigure(summary) : null,
    summary?.next_token_ms && isNumber(summary.step_bytes) ? bandwidthFigure(summary) : null,
    summary ? memoryFigure(plan, summary) : null,
    isNumber(accuracy?.acc) ? accuracyFigure(accuracy) : null,
  ].filter((figure) => figure !== null);
}

function bodyOf(data, explained, figures) {
  const parts = [
    data.failure ? failureBox(data.failure) : null,
    data.warnings.length ? warningList(data.warnings) : null,
    data.summary ? [make("h3", {}, "Latency"), latencyTable(data.summary)] : null,
    runFacts(data),
    explained.nodes,
    make(
      "div",
      { class: "figures" },
      figures.map((one) => one.whole),
    ),
    make("h3", {}, "Behind it"),
    foldedFacts("Environment", data.environment),
    foldedFacts("What was asked", data.spec),
    foldedFacts("What was loaded", data.runtime),
    foldedFacts("Checks", data.checks),
    foldedFacts("Plan", data.plan),
    foldedFacts("Bandwidth", data.bandwidth),
  ];
  return make("div", { class: "body" }, parts.flat());
}

function headOf(run, close) {
  const device = run.ranks > 1 ? `${run.ranks} x ${run.device}` : run.device;
  const words = [run.runtime, device, run.precision, run.workload].join(" · ");
  const line = make("div", {}, status(run.status), make("span", { class: "quiet" }, ` ${words}`));
  return make("header", {}, make("div", {}, make("h2", { id: "panel-title" }, run.model), line), close);
}

async function openPanel(dialog, place) {
  const block = await unpackJson(`panels-${Math.floor(place / CONSTANTS.block)}`);
  const data = block[place % CONSTANTS.block];
  const close = make("button", { type: "button", autofocus: "" }, "Close");
  close.addEventListener("click", () => dialog.close());
  const curves = await unpackJson("batches");
  const explained = explainedPart(
    data.explanation,
    curves.find(({ keys }) => keys.includes(data.run.key)),
  );
  const figures = figuresOf(data);
  dialog.replaceChildren(headOf(data.run, close), bodyOf(data, explained, figures));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  for (const one of [...explained.figures, ...figures]) await one.start();
}

// Opens the panel that the address names; `places` has each run's number by its key.
function route(dialog, places) {
  if (!location.hash.startsWith("#run-")) return;
  let key = "";
  try {
    key = decodeURIComponent(location.hash.slice("#run-".length));
  } catch {
    return;
  }
  if (places.has(key)) openPanel(dialog, places.get(key));
}

export function setUpPanel(places) {
  const dialog = document.getElementById("panel");
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    if (location.hash.startsWith("#run-")) history.replaceState(null, "", location.href.split("#")[0]);
  });
  addEventListener("hashchange", () => route(dialog, places));
  route(dialog, places);
}
