// The figures of the whole page, by their data-figure.

const MOST_POINTS = 2000;

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
// Of a comparison: [name, ratio, low, high, verdict, stacks] of each pair, sorted by the ratio.
pageFigures.ratios = async (holder) => {
  const all = await unpackJson("ratios");
  if (!all.length) return holder.append(make("p", { class: "note" }, "No pair has a next token latency."));
  const named = all.length <= 40;
  const width = innerWidth < 720 ? 24 : 60;
  const short = (text) => plain(text.length > width ? `${text.slice(0, width - 1)}…` : text);
  const height = named ? 70 + 40 * all.length : 480;
  const { whole, start } = plot("Next token latency, B / A", "with 95 % intervals; left of 1, B is faster", (color) => {
    const shade = { faster: color.ok, slower: color.bad };
    const shades = all.map((one) => shade[one[4]] ?? color.quiet);
    const range = (at) => all.map((one) => (one[2] === null ? 0 : Math.abs(one[at] - one[1])));
    return {
      data: [{
        mode: "markers", x: all.map((one) => one[1]), y: all.map((_, index) => index), marker: { size: 9, color: shades, symbol: all.map((one) => ({ faster: "triangle-left", slower: "triangle-right" })[one[4]] ?? "circle") },
        error_x: { type: "data", symmetric: false, array: range(3), arrayminus: range(2), color: color.quiet, ...ERRORS },
        text: all.map((one) => `${plain(one[0])}<br>${plain(one[5])}<br>${number(one[1], 3)} (${interval(one.slice(2, 4), 3)}), ${one[4]}`), hoverinfo: "text",
      }],
      layout: {
        height,
        xaxis: { title: "ratio" }, yaxis: { showgrid: false, autorange: "reversed", ...(named ? { tickvals: all.map((_, index) => index), ticktext: all.map((one) => `${short(one[0])}<br>${short(one[5])}`), tickfont: { color: color.ink } } : { visible: false }) },
        shapes: [{ type: "line", x0: 1, x1: 1, yref: "paper", y0: 0, y1: 1, line: { color: color.ink, width: 1 } }],
      },
    };
  }, true);
  whole.querySelector(".plot").style.height = `${height}px`;
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
