// Every text from a record enters the page as a text node (see `make`) or through `plain`, never as HTML.

const NONE = "–";
const root = document.documentElement;

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

async function unpack(name) {
  const bytes = Uint8Array.from(atob(document.getElementById(`data-${name}`).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
const unpackJson = async (name) => JSON.parse(await unpack(name));

// ---- numbers

const formats = [0, 1, 2, 3].map(
  (digits) => new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }),
);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const number = (value, digits = 2) => (isNumber(value) ? formats[digits].format(value) : NONE);
const interval = (ends, digits = 2) => (ends ? `${number(ends[0], digits)} to ${number(ends[1], digits)}` : NONE);
const date = (text) => text.slice(0, 16).replace("T", " ");
