// The figures of one run.

import { CONSTANTS } from "./data.js";
import { isNumber, number } from "./numbers.js";
import { nameAxis, plain, plot } from "./plot.js";

const PANEL_ERRORS = { type: "data", thickness: 1.5, width: 6 };

// Horizontal bars of [name, value, whether it is the run's own].
function bars(rows, unit, digits, color) {
  const found = rows.filter(([, value]) => isNumber(value)).reverse();
  return {
    data: [
      {
        type: "bar",
        orientation: "h",
        x: found.map(([, value]) => value),
        y: found.map(([name]) => plain(name)),
        width: 0.55,
        marker: { color: found.map(([, , own]) => (own ? color.accent : color.line)) },
        text: found.map(([, value]) => `${number(value, digits)} ${unit}`),
        textposition: "auto",
        insidetextanchor: "end",
        hoverinfo: "none",
        cliponaxis: false,
        insidetextfont: { color: found.map(([, , own]) => (own ? color.ground : color.ink)) },
        outsidetextfont: { color: color.ink },
      },
    ],
    layout: { xaxis: { title: unit, rangemode: "tozero" }, yaxis: nameAxis(color) },
  };
}

export function tokensFigure(tokens, iterations) {
  // The first new token is no next token.
  const x = tokens.median.map((_, index) => 2 + index * tokens.every);
  const thinned = tokens.every > 1 ? `; each point stands for ${tokens.every} tokens` : "";
  const remark = `ms over ${iterations} iterations: median, and from the least to the largest${thinned}`;
  const bound = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
  const figure = (color) => ({
    data: [
      { ...bound, y: tokens.low },
      { ...bound, y: tokens.high, fill: "tonexty", fillcolor: color.shade },
      {
        x,
        y: tokens.median,
        mode: "lines",
        line: { color: color.accent, width: 1.75 },
        hovertemplate: "token %{x}: %{y:.2f} ms<extra></extra>",
      },
    ],
    layout: { xaxis: { title: "new token", showgrid: false }, yaxis: { title: "ms", rangemode: "tozero" } },
  });
  return plot("Next token latency by token", remark, figure, true);
}

export function distributionFigure(histogram, statistic) {
  const { counts, low_ms: low, high_ms: high, above } = histogram;
  const width = (high - low) / counts.length;
  const x = counts.map((_, index) => low + (index + 0.5) * width);
  const tail = above ? `; the last bar holds the ${number(above, 0)} above it too` : "";
  const remark = `${number(statistic?.n, 0)} samples; the line is the median${tail}`;
  const figure = (color) => {
    const line = { type: "line", yref: "paper", y0: 0, y1: 1, line: { color: color.second, width: 2 } };
    const marker = { color: color.accent, line: { color: color.ground, width: 0.5 } };
    return {
      data: [{ type: "bar", x, y: counts, width, marker, hovertemplate: "%{x:.2f} ms: %{y}<extra></extra>" }],
      layout: {
        bargap: 0,
        xaxis: { title: "ms", showgrid: false },
        yaxis: { title: "tokens" },
        shapes: statistic ? [{ ...line, x0: statistic.median, x1: statistic.median }] : [],
      },
    };
  };
  return plot("Distribution of the next token latency", remark, figure);
}

function latencyTrace(name, statistic, index, color) {
  const { median, ci95: ends } = statistic;
  return {
    type: "bar",
    orientation: "h",
    x: [median],
    y: [name],
    width: 0.6,
    marker: { color: color.accent },
    hoverinfo: "none",
    text: [`${number(median)} ms`],
    textposition: "inside",
    insidetextanchor: "start",
    insidetextfont: { color: color.ground },
    xaxis: index ? "x2" : "x",
    yaxis: index ? "y2" : "y",
    error_x: ends && {
      ...PANEL_ERRORS,
      symmetric: false,
      array: [ends[1] - median],
      arrayminus: [median - ends[0]],
      color: color.second,
      thickness: 2,
    },
  };
}

export function latenciesFigure(summary) {
  const found = [
    ["First token", summary.first_token_ms],
    ["Next token", summary.next_token_ms],
  ].filter(([, statistic]) => statistic);
  const second = (color) => ({
    grid: { rows: 2, columns: 1, pattern: "independent", ygap: 0.5 },
    xaxis2: { title: "ms", rangemode: "tozero" },
    yaxis2: nameAxis(color),
  });
  const figure = (color) => ({
    data: found.map(([name, statistic], index) => latencyTrace(name, statistic, index, color)),
    layout: {
      ...(found.length > 1 ? second(color) : {}),
      xaxis: { rangemode: "tozero" },
      yaxis: nameAxis(color),
    },
  });
  return plot(
    "First and next token latency",
    "ms, with the 95 % interval of the median; each has its own scale",
    figure,
  );
}

export function bandwidthFigure(summary) {
  // With drafted tokens a step takes longer than a token.
  const stepMs = summary.next_token_ms.median * (summary.tokens_per_step ?? 1);
  const reached = isNumber(summary.mbu_measured)
    ? summary.mbu_measured * summary.bandwidth_measured_gb_per_s
    : summary.step_bytes / stepMs / 1e6;
  const rows = [
    ["reached", reached, true],
    ["measured", summary.bandwidth_measured_gb_per_s],
    ["data sheet", summary.bandwidth_datasheet_gb_per_s],
  ];
  const ceiling = summary.ceiling_of === "device" ? "the most that the device has shown" : "what its process measured";
  const ends = summary.mbu_measured_interval?.map((end) => number(100 * end, 1)).join(" to ");
  const between = ends ? ` (${ends})` : "";
  const share = isNumber(summary.mbu_measured)
    ? `${number(100 * summary.mbu_measured, 1)} %${between} of ${ceiling}; `
    : "";
  const remark = `${share}weights and KV cache over the next token latency`;
  return plot("Bandwidth while decoding", remark, (color) => bars(rows, "GB/s", 1, color));
}

// Null where neither a peak nor a plan is known.
export function memoryFigure(plan, summary) {
  const gb = (value) => (isNumber(value) ? value / 1e9 : null);
  const rows = [
    ["peak, device", gb(summary.peak_device_bytes), true],
    ["peak, host", gb(summary.peak_host_bytes), true],
    ["planned peak", gb(plan?.peak_bytes)],
    ["weights", gb(plan?.weight_bytes)],
    ["KV cache", gb(plan?.kv_cache_bytes)],
  ];
  if (rows.every(([, value]) => value === null)) return null;
  return plot("Memory", "GB, measured and planned", (color) => bars(rows, "GB", 2, color));
}

function publishedError({ acc, n }) {
  return isNumber(n) && n > 0 ? Math.sqrt((acc * (1 - acc)) / n) : null;
}

export function accuracyFigure({ acc, acc_stderr: error, reference }) {
  const rows = [{ name: "this run", share: acc, error, own: true }];
  if (isNumber(reference?.acc))
    rows.unshift({ name: "published", share: reference.acc, error: publishedError(reference), own: false });
  const figure = (color) => ({
    data: [
      {
        mode: "markers",
        x: rows.map((one) => 100 * one.share),
        y: rows.map((one) => one.name),
        marker: { size: 11, color: rows.map((one) => (one.own ? color.accent : color.quiet)) },
        error_x: {
          ...PANEL_ERRORS,
          array: rows.map((one) => 100 * CONSTANTS.z95 * (one.error ?? 0)),
          color: color.quiet,
        },
        hovertemplate: "%{x:.2f} %<extra></extra>",
      },
    ],
    layout: { xaxis: { title: "%" }, yaxis: { ...nameAxis(color), range: [-0.6, rows.length - 0.4] } },
  });
  return plot("Accuracy", "%, with 95 % intervals of the items' sampling", figure);
}
