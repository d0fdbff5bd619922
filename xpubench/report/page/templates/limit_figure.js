// Each run's next token latency against the least that the measured bandwidth allows.

import { unpackJson } from "./data.js";
import { note } from "./dom.js";
import { number } from "./numbers.js";
import { drawIn, plain, plot } from "./plot.js";

const MOST_POINTS = 2000;
const SYMBOLS = ["circle", "diamond", "square", "triangle-up", "x", "cross"];
const SYMBOL_COLORS = ["accent", "second", "ok", "part", "bad", "quiet"];
// Lines of a latency that is so many times the limit.
const GUIDES = [
  [1, "the limit"],
  [2, "50 %"],
  [10, "10 %"],
];

// 1, 2, 5, 10, … over the range of a logarithmic axis.
function ticks([low, high]) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high) + 1; power++)
    found.push(...[1, 2, 5].map((digit) => digit * 10 ** power));
  const inside = found.filter((one) => one >= low / 2 && one <= high * 2);
  return { tickvals: inside, ticktext: inside.map((one) => String(Number(one.toPrecision(1)))) };
}

function guide(factor, name, ends, color) {
  return {
    x: ends,
    y: ends.map((x) => x * factor),
    mode: "lines+text",
    text: ["", name],
    textposition: "middle right",
    textfont: { color: color.quiet, size: 11 },
    line: { color: factor === 1 ? color.ink : color.quiet, width: 1, dash: factor === 1 ? "solid" : "dot" },
    hoverinfo: "skip",
    showlegend: false,
    cliponaxis: false,
  };
}

function hoverText({ model, runtime, precision, least_ms: least, measured_ms: measured }) {
  const share = number((100 * least) / measured, 1);
  const figures = `${number(measured)} ms, ${share} % of the bandwidth`;
  return `${plain(model)}<br>${plain(runtime)}, ${plain(precision)}<br>${figures}`;
}

function runtimeTrace(runtime, index, points, color) {
  const place = index % SYMBOLS.length;
  return {
    mode: "markers",
    name: plain(runtime),
    x: points.map((one) => one.least_ms),
    y: points.map((one) => one.measured_ms),
    customdata: points.map((one) => one.key),
    text: points.map(hoverText),
    hoverinfo: "text",
    marker: { size: 9, opacity: 0.85, symbol: SYMBOLS[place], color: color[SYMBOL_COLORS[place]] },
  };
}

export async function limitFigure(holder) {
  const all = await unpackJson("limit");
  if (!all.length) return holder.append(note("No run has both a next token latency and a measured bandwidth."));
  const step = Math.ceil(all.length / MOST_POINTS);
  const points = all.filter((_, index) => index % step === 0);
  const least = points.map((one) => one.least_ms);
  const ends = [Math.min(...least) / 1.5, Math.max(...least) * 1.5];
  const runtimes = [...new Set(points.map((one) => one.runtime))].sort();
  const shown = step > 1 ? ` ${number(points.length, 0)} of ${number(all.length, 0)} runs are drawn.` : "";
  const remark =
    "is a point. Across: the least time in which the weights and the KV cache can be read at the measured bandwidth.";
  const figure = (color) => ({
    data: [
      ...GUIDES.map(([factor, name]) => guide(factor, name, ends, color)),
      ...runtimes.map((runtime, index) => {
        const own = points.filter((one) => one.runtime === runtime);
        return runtimeTrace(runtime, index, own, color);
      }),
    ],
    layout: {
      showlegend: true,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: color.ink } },
      margin: { l: 8, r: 64, t: 8, b: 8 },
      xaxis: { title: "at the measured bandwidth, ms", type: "log", ...ticks(ends) },
      yaxis: { title: "measured, ms", type: "log", ...ticks([ends[0], 10 * ends[1]]) },
    },
  });
  await drawIn(holder, plot("Each run", remark + shown, figure, true));
  holder.querySelector(".plot").on("plotly_click", ({ points: [one] }) => {
    if (one?.customdata) location.hash = `#run-${encodeURIComponent(one.customdata)}`;
  });
}
