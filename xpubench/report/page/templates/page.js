// The page: its theme, figures and panels.

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

function setUpFigures() {
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      seen.unobserve(target);
      pageFigures[target.dataset.figure](target);
    }
  }, { rootMargin: "400px" });
  for (const holder of document.querySelectorAll("[data-figure]")) seen.observe(holder);
}

async function start() {
  setUpTheme();
  const places = new Map();
  for (const section of document.querySelectorAll("[data-table]"))
    for (const [place, key] of await setUpTable(section)) if (place !== null) places.set(key, place);
  setUpFigures();
  addEventListener("hashchange", () => route(places));
  route(places);
  root.dataset.ready = "true";
}
start();
