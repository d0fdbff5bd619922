// The page's elements. Every text from a record enters the page as a text node that `make` appends, or through
// `plain` of plot.js, and never as HTML.

export const root = document.documentElement;

export function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const status = (word) => make("span", { class: `status ${word.replace(/[^a-z]/g, "-")}` }, word);

export const note = (text) => make("p", { class: "note" }, text);

// A table that scrolls sideways on its own where it is wider than the page.
export const scrolling = (label, table) =>
  make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);
