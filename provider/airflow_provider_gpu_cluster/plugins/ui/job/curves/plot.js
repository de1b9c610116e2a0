// What a chart draws, in the form that uPlot takes: one list of x for all lines, and a list of values for each.

import { segmentsOf } from "./segments.js";
import { smoothed } from "./smoothing.js";

/**
 * @typedef {import("./thinning.js").Point} Point
 * @typedef {{name: string, label: string, attempt: number | null, look: number, isRaw: boolean, isLast: boolean}} Line
 *   `look`: number of its colour and dash; `isRaw`: it is drawn faintly, behind its smoothed one; `isLast`: it is of the
 *   latest attempt
 * @typedef {{data: (number | null | undefined)[][], lines: Line[], without: number, notAboveZero: number, borders: {x: number, attempt: number}[], points: number}} Plot
 */

/**
 * @param {{name: string, label: string, points: Point[]}[]} curves
 * @param {object[]} sections
 * @param {{over: "x" | "t" | "at", smoothing?: number, isLog?: boolean}} options
 * @returns {Plot}
 */
export function plotOf(curves, sections, { over, smoothing = 0, isLog = false }) {
  const columns = [];
  const lines = [];
  let [without, notAboveZero, count] = [0, 0, 0];
  const borders = new Map();
  curves.forEach(({ name, label, points }, look) => {
    const found = segmentsOf(points, sections, over);
    without += found.without;
    count += points.length;
    found.segments.forEach((segment, number) => {
      const isLast = number === found.segments.length - 1;
      const previous = found.segments[number - 1];
      if (previous && segment.attempt !== null && previous.attempt !== segment.attempt && !borders.has(segment.attempt)) borders.set(segment.attempt, segment.xs[0]);
      const raw = isLog ? segment.ys.map((y) => (y !== null && y <= 0 ? null : y)) : segment.ys;
      if (isLog) notAboveZero += segment.ys.filter((y) => y !== null && y <= 0).length;
      const line = { name, label, attempt: segment.attempt, look, isLast };
      if (smoothing > 0) {
        columns.push([segment.xs, raw]);
        lines.push({ ...line, isRaw: true });
      }
      columns.push([segment.xs, smoothed(raw, smoothing)]);
      lines.push({ ...line, isRaw: false });
    });
  });
  return { data: aligned(columns), lines, without, notAboveZero, borders: [...borders].map(([attempt, x]) => ({ x, attempt })), points: count };
}

/** Columns over one list of x; undefined where a column has no point, null where it has a gap. */
function aligned(columns) {
  const xs = [...new Set(columns.flatMap(([x]) => x))].sort((one, other) => one - other);
  const indexes = new Map(xs.map((x, index) => [x, index]));
  const values = columns.map(([x, y]) => {
    const column = new Array(xs.length).fill(undefined);
    x.forEach((value, index) => {
      column[indexes.get(value)] = y[index];
    });
    return column;
  });
  return [xs, ...values];
}

/** What each line has at a place: its own value there, or the nearest before; for a legend under a cursor.
 *  @param {Plot} plot @param {number} index @returns {(number | null)[]} */
export function valuesAt({ data, lines }, index) {
  return lines.map((_, line) => {
    const column = data[line + 1];
    for (let at = Math.min(index, column.length - 1); at >= 0; at -= 1) if (column[at] !== undefined) return isWithin(column, index) ? column[at] : null;
    return null;
  });
}

/** Whether a line has begun and not ended at a place. */
function isWithin(column, index) {
  for (let at = index; at < column.length; at += 1) if (column[at] !== undefined) return true;
  return false;
}

/** The places of at most so many rows of a table, from the first to the last. */
export function rowsOf(length, most) {
  if (length <= most) return Array.from({ length }, (_, index) => index);
  return Array.from({ length: most }, (_, row) => Math.round((row * (length - 1)) / (most - 1)));
}
