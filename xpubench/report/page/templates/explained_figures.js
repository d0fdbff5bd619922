// The figures of where a token's time goes: its parts, and its growth with the context and the batch.

import { isNumber, number } from "./numbers.js";
import { errorBars, nameAxis, plain, plot } from "./plot.js";

// The same on both grounds and on paper: the color of each part, and of a text on it.
export const PART_COLORS = {
  weights: ["#0072b2", "#fff"],
  kv_cache: ["#7cc8f2", "#000"],
  attention: ["#d27fb0", "#000"],
  other_kernels: ["#12a37a", "#000"],
  unknown_kernels: ["#9a9a9a", "#000"],
  launches: ["#f2e14c", "#000"],
  stack: ["#e69f00", "#000"],
  host: ["#d9601a", "#000"],
  synchronization: ["#7654c4", "#fff"],
  collectives: ["#8a5a2b", "#fff"],
  waiting: ["#c9a27a", "#000"],
  idle: ["#d5d9de", "#000"],
};

const percent = (share) => `${number(100 * share, 1)} %`;

function partTrace([name, title], ledgers, color) {
  const [fill, ink] = PART_COLORS[name];
  const shares = ledgers.map(({ shares: all }) => all[name] ?? 0);
  return {
    type: "bar",
    orientation: "h",
    name: title,
    y: ledgers.map(({ token }) => token),
    x: shares.map((share) => 100 * share),
    width: 0.62,
    marker: {
      color: fill,
      opacity: ledgers.map(({ refused }) => (refused ? 0.45 : 1)),
      line: { color: color.ground, width: 1.5 },
    },
    text: shares.map((share) => `${title}<br>${percent(share)}`),
    textposition: "inside",
    insidetextanchor: "middle",
    textangle: 0,
    insidetextfont: { color: ink, size: 12 },
    hovertext: ledgers.map(
      ({ token, wall_ms: wall }, index) =>
        `${token}: ${title}<br>${number(shares[index] * wall)} ms, ${percent(shares[index])}`,
    ),
    hoverinfo: "text",
  };
}

// One stacked bar for each token, in percent of its latency. The table of the parts is the legend.
export function ledgerFigure({ ledgers, parts }) {
  const order = [...ledgers].reverse();
  const sums = ledgers.map(({ shares }) => Object.values(shares).reduce((sum, share) => sum + share, 0));
  const end = 100 * Math.max(1, ...sums);
  const figure = (color) => ({
    data: parts.map((part) => partTrace(part, order, color)),
    layout: {
      barmode: "stack",
      uniformtext: { mode: "hide", minsize: 11 },
      xaxis: { title: "% of the token's latency", range: [0, 1.01 * end], showgrid: false },
      yaxis: nameAxis(color),
      shapes: [
        {
          type: "line",
          x0: 100,
          x1: 100,
          yref: "paper",
          y0: 0,
          y1: 1,
          line: { color: color.ink, width: 1, dash: "dot" },
        },
      ],
    },
  });
  const walls = ledgers.map(({ token, wall_ms: wall }) => `${token} ${number(wall)} ms`).join(", ");
  const faint = ledgers.some(({ refused }) => refused) ? "; a pale bar was refused" : "";
  const remark = `${walls}; the dotted line is the latency without the profiler${faint}`;
  return plot("Parts of the token's time", remark, figure, true);
}

function lineOf(points, x, color, dash) {
  return {
    mode: "lines+markers",
    x,
    line: { color, width: 1.75, dash },
    marker: { color, size: 8 },
    cliponaxis: false,
    hoverinfo: "text",
  };
}

export function depthFigure(points) {
  const figure = (color) => ({
    data: [
      {
        ...lineOf(
          points,
          points.map((one) => one.depth),
          color.accent,
          "solid",
        ),
        y: points.map((one) => one.ms),
        error_y: errorBars(points, (one) => one.ms, color),
        hovertext: points.map((one) => `${number(one.depth, 0)} tokens: ${number(one.ms)} ms`),
      },
    ],
    layout: {
      xaxis: { title: "tokens of context", rangemode: "tozero", showgrid: false },
      yaxis: { title: "ms", rangemode: "tozero" },
    },
  });
  return plot("Next token latency by depth", "the median and the range of its samples", figure);
}

export function batchFigure({ points, message }) {
  const sizes = points.map((one) => one.batch_size);
  const intervals = points.map((one) => ({ ...one, low: one.ci95?.[0] ?? null, high: one.ci95?.[1] ?? null }));
  const figure = (color) => {
    const least = points.filter((one) => isNumber(one.least_ms));
    return {
      data: [
        {
          ...lineOf(points, sizes, color.accent, "solid"),
          name: "measured",
          y: points.map((one) => one.next_token_ms),
          error_y: errorBars(intervals, (one) => one.next_token_ms, color),
          hovertext: points.map(
            (one) => `batch ${one.batch_size}: ${number(one.next_token_ms)} ms, ${number(one.tokens_per_s)} tokens/s`,
          ),
        },
        {
          ...lineOf(
            least,
            least.map((one) => one.batch_size),
            color.second,
            "dash",
          ),
          name: plain("at the measured bandwidth"),
          y: least.map((one) => one.least_ms),
          hovertext: least.map((one) => `batch ${one.batch_size}: at least ${number(one.least_ms)} ms`),
        },
      ],
      layout: {
        showlegend: true,
        legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { color: color.ink } },
        xaxis: { title: "batch size", type: "log", tickvals: sizes, ticktext: sizes.map(String), showgrid: false },
        yaxis: { title: "ms", rangemode: "tozero" },
      },
    };
  };
  const remark = "of runs that differ in nothing else, and the time in which the bytes of a step can be read";
  return plot("Next token latency by batch", `${remark}: ${message}`, figure);
}
