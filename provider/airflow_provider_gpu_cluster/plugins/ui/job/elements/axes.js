// Scales of a plot with parallel axes. No React.

import { numberOf } from "./columns.js";

const MOST_WORDS = 12;
// From this ratio on, the small values of a linear axis cannot be told apart.
const LOG_FROM = 20;

/**
 * The scale of one axis.
 *
 * @param {object[]} rows @param {{of: (row: object) => any, isNumber: boolean}} column
 * @returns {{ticks: {at: number, value: any}[], place: (row: object) => number | null, isLog: boolean} | null}
 *   places go from 0 to 1; null for a column that cannot be an axis
 */
export function axisOf(rows, column) {
  return column.isNumber ? numeric(rows, column) : words(rows, column);
}

function numeric(rows, column) {
  const values = rows.map((row) => numberOf(column.of(row))).filter(Number.isFinite);
  if (!values.length) return null;
  const [low, high] = values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  const isLog = low > 0 && high / low >= LOG_FROM;
  const [to, from] = isLog ? [Math.log10, (at) => 10 ** at] : [(value) => value, (at) => at];
  const [start, end] = [to(low), to(high)];
  const at = (value) => (end === start ? 0.5 : (to(value) - start) / (end - start));
  const ticks = end === start ? [low] : [low, Number(from((start + end) / 2).toPrecision(3)), high];
  return {
    isLog,
    ticks: ticks.map((value) => ({ at: at(value), value })),
    place: (row) => {
      const value = numberOf(column.of(row));
      return Number.isFinite(value) ? at(value) : null;
    },
  };
}

function words(rows, column) {
  const found = [...new Set(rows.map(column.of).filter((value) => value !== undefined && value !== null).map(String))];
  if (!found.length || found.length > MOST_WORDS) return null;
  found.sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  const at = new Map(found.map((value, index) => [value, found.length === 1 ? 0.5 : index / (found.length - 1)]));
  return { isLog: false, ticks: found.map((value) => ({ at: at.get(value), value })), place: (row) => at.get(String(column.of(row))) ?? null };
}

/**
 * The path of an element's line; it has a gap where the element has no value.
 *
 * @param {object} row @param {{place: (row: object) => number | null}[]} axes @param {(index: number) => number} x @param {(place: number) => number} y
 */
export function lineOf(row, axes, x, y) {
  let isDrawing = false;
  return axes
    .map((axis, index) => {
      const place = axis.place(row);
      if (place === null) {
        isDrawing = false;
        return "";
      }
      const point = `${isDrawing ? "L" : "M"}${x(index).toFixed(1)} ${y(place).toFixed(1)}`;
      isDrawing = true;
      return point;
    })
    .join("");
}
