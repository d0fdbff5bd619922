// The next token latencies of two directories: each pair's ratio, in order of the ratio.

import { unpackJson } from "./data.js";
import { note } from "./dom.js";
import { interval, number } from "./numbers.js";
import { drawIn, errorBars, nameAxis, plain, plot } from "./plot.js";

// With more pairs than these, their names have no place.
const MOST_NAMED = 40;

const SHAPES = { faster: "triangle-left", slower: "triangle-right" };

function ratioText({ name, stacks, ratio, low, high, verdict }) {
  const figures = `${number(ratio, 3)} (${interval([low, high], 3)}), ${verdict}`;
  return `${plain(name)}<br>${plain(stacks)}<br>${figures}`;
}

function ratioNames(pairs, color) {
  if (pairs.length > MOST_NAMED) return { visible: false };
  const width = innerWidth < 720 ? 24 : 60;
  const short = (text) => plain(text.length > width ? `${text.slice(0, width - 1)}…` : text);
  const ticktext = pairs.map((one) => `${short(one.name)}<br>${short(one.stacks)}`);
  return { ...nameAxis(color), tickvals: pairs.map((_, index) => index), ticktext };
}

export async function ratiosFigure(holder) {
  const pairs = await unpackJson("ratios");
  if (!pairs.length) return holder.append(note("No pair has a next token latency."));
  const height = pairs.length > MOST_NAMED ? 480 : 70 + 40 * pairs.length;
  const figure = (color) => {
    const shades = { faster: color.ok, slower: color.bad };
    return {
      data: [
        {
          mode: "markers",
          x: pairs.map((one) => one.ratio),
          y: pairs.map((_, index) => index),
          marker: {
            size: 9,
            color: pairs.map((one) => shades[one.verdict] ?? color.quiet),
            symbol: pairs.map((one) => SHAPES[one.verdict] ?? "circle"),
          },
          error_x: errorBars(pairs, (one) => one.ratio, color),
          text: pairs.map(ratioText),
          hoverinfo: "text",
        },
      ],
      layout: {
        height,
        xaxis: { title: "ratio" },
        yaxis: { showgrid: false, autorange: "reversed", ...ratioNames(pairs, color) },
        shapes: [{ type: "line", x0: 1, x1: 1, yref: "paper", y0: 0, y1: 1, line: { color: color.ink, width: 1 } }],
      },
    };
  };
  const drawn = plot("Next token latency, B / A", "with 95 % intervals; left of 1, B is faster", figure, true);
  drawn.whole.querySelector(".plot").style.height = `${height}px`;
  await drawIn(holder, drawn);
}
