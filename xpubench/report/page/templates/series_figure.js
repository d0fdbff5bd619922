// One series of a history: its figures in time, with the changes marked.

import { unpackJson } from "./data.js";
import { number } from "./numbers.js";
import { drawIn, errorBars, plain, plot } from "./plot.js";

// As many of the last changes have their words in the figure.
const MOST_LABELS = 12;

const ARROWS = { faster: "triangle-down", slower: "triangle-up", better: "triangle-up", worse: "triangle-down" };

function seriesTrace(points, unit, shades, color) {
  return {
    mode: "lines+markers",
    x: points.map((one) => one.created),
    y: points.map((one) => one.figure),
    line: { color: color.accent, width: 1.5 },
    marker: {
      size: points.map((one) => (shades[one.change] ? 12 : 7)),
      color: points.map((one) => shades[one.change] ?? color.accent),
      symbol: points.map((one) => ARROWS[one.change] ?? "circle"),
    },
    error_y: errorBars(points, (one) => one.figure, color),
    text: points.map((one) => `${plain(one.created)}<br>${number(one.figure)} ${plain(unit)}<br>${plain(one.words)}`),
    hoverinfo: "text",
  };
}

function changeLabel(point, shade) {
  const place = { x: point.created, y: point.figure, showarrow: false, yshift: 20 };
  return { ...place, text: plain(point.words), font: { size: 11, color: shade } };
}

export async function seriesFigure(holder) {
  const { name, unit, points } = (await unpackJson("series"))[Number(holder.dataset.series)];
  const figure = (color) => {
    const shades = { faster: color.ok, better: color.ok, slower: color.bad, worse: color.bad };
    const changed = points.filter((one) => shades[one.change]);
    return {
      data: [seriesTrace(points, unit, shades, color)],
      layout: {
        margin: { l: 8, r: 40, t: 28, b: 8 },
        xaxis: { type: "date", showgrid: false },
        yaxis: { title: unit },
        annotations: changed.slice(-MOST_LABELS).map((one) => changeLabel(one, shades[one.change])),
      },
    };
  };
  await drawIn(holder, plot(name, unit, figure, true));
}
