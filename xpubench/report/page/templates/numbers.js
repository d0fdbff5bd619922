// Numbers as people read them.

import { CONSTANTS } from "./data.js";

export const NONE = CONSTANTS.none;

const formats = new Map();

function format(digits) {
  if (!formats.has(digits)) {
    const options = { minimumFractionDigits: digits, maximumFractionDigits: digits };
    formats.set(digits, new Intl.NumberFormat("en-US", options));
  }
  return formats.get(digits);
}

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

export const number = (value, digits = 2) => (isNumber(value) ? format(digits).format(value) : NONE);

export const interval = (ends, digits = 2) =>
  ends ? `${number(ends[0], digits)} to ${number(ends[1], digits)}` : NONE;

export const date = (text) => text.slice(0, 16).replace("T", " ");
