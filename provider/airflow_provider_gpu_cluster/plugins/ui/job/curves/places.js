// From a step to the moment at which it was reached, and back, so that charts over steps and charts over time show the
// same place of a job under the cursor.

import { nearestIndex } from "./segments.js";

/** @param {import("./thinning.js").Point[]} points of a curve, in the order in which they were written */
export function placesOf(points) {
  const known = points.filter(({ x, t }) => x !== null && t !== null);
  const byTime = [...known].sort((one, other) => one.t - other.t);
  // Of a step that several attempts have reached, the last one counts.
  const last = new Map(known.map((point) => [point.x, point]));
  const byX = [...last.values()].sort((one, other) => one.x - other.x);
  const [ts, xs] = [byTime.map(({ t }) => t), byX.map(({ x }) => x)];
  return {
    /** @param {number} x @returns {number | null} */
    timeOf: (x) => byX[nearestIndex(xs, x)]?.t ?? null,
    /** @param {number} t @returns {number | null} */
    xOf: (t) => byTime[nearestIndex(ts, t)]?.x ?? null,
  };
}
