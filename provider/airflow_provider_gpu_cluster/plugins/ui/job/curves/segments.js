// A curve as stretches that can be drawn as lines from left to right: one for each attempt, and a new one where x starts
// over within an attempt.

const STARTS_OVER = 0.1;

/**
 * @typedef {import("./thinning.js").Point} Point
 * @typedef {{attempt: number | null, xs: number[], ys: (number | null)[], points: Point[]}} Segment
 */

/**
 * @param {Point[]} points in the order in which they were written
 * @param {{attempt: number, at: number | null}[]} sections
 * @param {"x" | "t" | "at"} over what they are drawn over
 * @returns {{segments: Segment[], without: number}} `without`: how many points do not say what they are drawn over
 */
export function segmentsOf(points, sections, over) {
  const begins = sections.filter(({ at }) => at !== null).sort((one, other) => one.at - other.at);
  const segments = [];
  let without = 0;
  let current = null;
  let next = 0;
  let attempt = null;
  points.forEach((point, index) => {
    const x = point[over];
    if (x === null || x === undefined) {
      without += 1;
      return;
    }
    let isNew = current === null;
    while (next < begins.length && begins[next].at <= point.at) {
      attempt = begins[next].attempt;
      next += 1;
      isNew = true;
    }
    if (!isNew && over === "x" && startsOver(current, x, points[index + 1]?.x)) isNew = true;
    if (isNew) {
      current = { attempt, points: [], most: -Infinity, least: Infinity };
      segments.push(current);
    }
    current.points.push(point);
    current.most = Math.max(current.most, x);
    current.least = Math.min(current.least, x);
  });
  return { segments: segments.map((segment) => sortedSegment(segment, over)), without };
}

/** Whether x goes back, and stays there: a line or two out of order start nothing. */
function startsOver({ most, least, points }, x, next) {
  if (points.length < 2) return false;
  const border = most - STARTS_OVER * (most - least);
  return x < border && (next === undefined || next === null || (next < border && next >= x));
}

function sortedSegment({ attempt, points }, over) {
  const sorted = points.every((point, index) => index === 0 || points[index - 1][over] <= point[over])
    ? points
    : [...points].sort((one, other) => one[over] - other[over]);
  // A chart draws one value for each x: of several lines about one, the last counts.
  const kept = sorted.filter((point, index) => index + 1 === sorted.length || sorted[index + 1][over] !== point[over]);
  return { attempt, xs: kept.map((point) => point[over]), ys: kept.map(({ y }) => y), points: kept };
}

/** The index of the value nearest to one in a rising list; -1 if it is empty. */
export function nearestIndex(values, value) {
  let [low, high] = [0, values.length - 1];
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] <= value) low = middle;
    else high = middle;
  }
  return Math.abs(values[high] - value) < Math.abs(values[low] - value) ? high : low;
}
