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

// Each figure is drawn when the reader comes near it.
function setUpFigures() {
  const draw = ({ isIntersecting, target }) => {
    if (!isIntersecting) return;
    near.unobserve(target);
    FIGURES[target.dataset.figure](target);
  };
  const near = new IntersectionObserver((entries) => entries.forEach(draw), { rootMargin: "400px" });
  for (const holder of document.querySelectorAll("[data-figure]")) near.observe(holder);
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
