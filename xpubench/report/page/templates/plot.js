// Plotly, in the page's colors.

let plotting = null;
function plotly() {
  plotting ??= unpack("plotly").then((source) => {
    document.head.append(Object.assign(document.createElement("script"), { textContent: source }));
    return window.Plotly;
  });
  return plotting;
}

// Plotly reads some HTML in its texts.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

function colors() {
  const style = getComputedStyle(root);
  return Object.fromEntries(
    ["ground", "surface", "ink", "quiet", "line", "accent", "second", "ok", "bad", "part", "shade"].map((name) => [
      name,
      style.getPropertyValue(`--${name}`).trim(),
    ]),
  );
}

const live = new Map();
async function draw(element, figure) {
  live.set(element, figure);
  const Plotly = await plotly();
  const color = colors();
  const { data, layout } = figure(color);
  const axis = (own) => ({
    gridcolor: color.line, linecolor: color.line, zeroline: false, automargin: true, fixedrange: true, ...own,
    title: own?.title ? { text: own.title, font: { size: 12, color: color.quiet }, standoff: 8 } : undefined,
  });
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 8, r: 12, t: 8, b: 8 }, showlegend: false,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: color.quiet },
    hoverlabel: { bgcolor: color.surface, bordercolor: color.line, font: { color: color.ink } },
    ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
  };
  if (layout.xaxis2) Object.assign(whole, { xaxis2: axis(layout.xaxis2), yaxis2: axis(layout.yaxis2) });
  await Plotly.react(element, data, whole, { displayModeBar: false, responsive: true });
}

function redraw() {
  for (const [element, figure] of live) element.isConnected ? draw(element, figure) : live.delete(element);
}

function plot(caption, note, figure, wide) {
  const element = make("div", { class: "plot", role: "img", "aria-label": `${caption}. ${note}` });
  const whole = make("figure", wide ? { class: "wide" } : {}, make("figcaption", {}, caption, make("span", {}, ` ${note}`)), element);
  return { whole, start: () => draw(element, figure) };
}
