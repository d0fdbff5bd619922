// Figures drawn by Plotly, in the page's colors.

import { unpack } from "./data.js";
import { make, root } from "./dom.js";

const COLORS = ["ground", "surface", "ink", "quiet", "line", "accent", "second", "ok", "bad", "part", "shade"];

let loading = null;
function plotly() {
  loading ??= unpack("plotly").then((source) => {
    document.head.append(Object.assign(document.createElement("script"), { textContent: source }));
    return window.Plotly;
  });
  return loading;
}

// Plotly reads some HTML in its texts.
export const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

function colors() {
  const style = getComputedStyle(root);
  return Object.fromEntries(COLORS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

// An axis of names instead of numbers.
export const nameAxis = (color) => ({ showgrid: false, tickfont: { color: color.ink } });

function axisOf(own, color) {
  const title = own?.title ? { text: own.title, font: { size: 12, color: color.quiet }, standoff: 8 } : undefined;
  const shared = { gridcolor: color.line, linecolor: color.line, zeroline: false, automargin: true, fixedrange: true };
  return { ...shared, ...own, title };
}

function layoutOf(own, color) {
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 8, r: 12, t: 8, b: 8 },
    showlegend: false,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color.quiet },
    hoverlabel: { bgcolor: color.surface, bordercolor: color.line, font: { color: color.ink } },
    ...own,
  };
  // The first pair of axes is there even where a figure says nothing of it.
  for (const name of ["xaxis", "yaxis", "xaxis2", "yaxis2"])
    if (name in own || !name.endsWith("2")) whole[name] = axisOf(own[name], color);
  return whole;
}

const live = new Map();
async function draw(element, figure) {
  live.set(element, figure);
  const Plotly = await plotly();
  const color = colors();
  const { data, layout } = figure(color);
  await Plotly.react(element, data, layoutOf(layout, color), { displayModeBar: false, responsive: true });
}

export function redraw() {
  for (const [element, figure] of live)
    if (element.isConnected) draw(element, figure);
    else live.delete(element);
}

// A figure whose data and layout `figure(color)` makes; `start` draws it once it is in the page.
export function plot(caption, remark, figure, wide = false) {
  const element = make("div", { class: "plot", role: "img", "aria-label": `${caption}. ${remark}` });
  const title = make("figcaption", {}, caption, make("span", {}, ` ${remark}`));
  const whole = make("figure", wide ? { class: "wide" } : {}, title, element);
  return { whole, start: () => draw(element, figure) };
}

// Draws the figure in a holder that the page has for it.
export async function drawIn(holder, { whole, start }) {
  holder.replaceChildren(...whole.childNodes);
  await start();
}

// Error bars from each point's `low` to its `high` around the figure `of(point)`, none where it has no interval.
export function errorBars(points, of, color) {
  const range = (end) => points.map((one) => (one.low === null ? 0 : Math.abs(one[end] - of(one))));
  const ends = { array: range("high"), arrayminus: range("low") };
  return { type: "data", symmetric: false, ...ends, color: color.quiet, thickness: 1.5, width: 4 };
}
