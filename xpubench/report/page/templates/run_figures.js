// The figures of one run.

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
  const { counts, low_ms: low, high_ms: high, above } = histogram;
  const tail = above ? `; the last bar holds the ${number(above, 0)} above it too` : "";
  const width = (high - low) / counts.length;
  const x = counts.map((_, index) => low + (index + 0.5) * width);
  return plot("Distribution of the next token latency", `${number(statistic?.n, 0)} samples; the line is the median${tail}`, (color) => ({
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
