// The page: its theme, tables, figures and panel.

import { root } from "./dom.js";
import { limitFigure } from "./limit_figure.js";
import { setUpPanel } from "./panel.js";
import { redraw } from "./plot.js";
import { ratiosFigure } from "./ratios_figure.js";
import { seriesFigure } from "./series_figure.js";
import { setUpTable } from "./table.js";

// By the data-figure of their places.
const FIGURES = { limit: limitFigure, ratios: ratiosFigure, series: seriesFigure };

function setUpTheme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const show = () => {
    button.setAttribute("aria-pressed", String(isDark()));
    redraw();
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    show();
  });
  system.addEventListener("change", show);
  matchMedia("print").addEventListener("change", redraw);
  show();
}

// Each figure is drawn when the reader comes near it, and the others when the browser has time, so that a printed
// page has them all.
function setUpFigures() {
  const waiting = new Set(document.querySelectorAll("[data-figure]"));
  const draw = (holder) => {
    near.unobserve(holder);
    return waiting.delete(holder) ? FIGURES[holder.dataset.figure](holder) : null;
  };
  const seen = (entries) => entries.filter((one) => one.isIntersecting).forEach((one) => draw(one.target));
  const near = new IntersectionObserver(seen, { rootMargin: "400px" });
  const whenIdle = () =>
    requestIdleCallback(async () => {
      const [next] = waiting;
      if (next === undefined) return;
      await draw(next);
      whenIdle();
    });
  for (const holder of waiting) near.observe(holder);
  addEventListener("beforeprint", () => waiting.forEach(draw));
  whenIdle();
}

async function start() {
  setUpTheme();
  const places = new Map();
  for (const section of document.querySelectorAll("[data-table]"))
    for (const [place, key] of await setUpTable(section)) if (place !== null) places.set(key, place);
  setUpFigures();
  setUpPanel(places);
  root.dataset.ready = "true";
}

start();
