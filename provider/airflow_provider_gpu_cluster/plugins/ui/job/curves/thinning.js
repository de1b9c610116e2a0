// A curve with fewer points that looks the same: of each stretch of points the first, the lowest, the highest and the
// last are kept (M4: Jugel and others, "M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014).

/** @typedef {{at: number, x: number | null, y: number | null, t: number | null}} Point
 *  `y` is null where the value is not finite */

/** At most so many of the points, in their order.
 *  @param {Point[]} points @param {number} most @returns {Point[]} */
export function thinned(points, most) {
  if (points.length <= most) return points;
  const width = Math.ceil(points.length / Math.max(1, Math.floor(most / 4)));
  const kept = [];
  for (let start = 0; start < points.length; start += width) {
    const end = Math.min(start + width, points.length);
    let [low, high] = [start, start];
    for (let index = start + 1; index < end; index += 1) {
      const { y } = points[index];
      // A gap counts as the lowest, so that it is kept.
      if (points[low].y !== null && (y === null || y < points[low].y)) low = index;
      if (y !== null && (points[high].y === null || y > points[high].y)) high = index;
    }
    for (const index of [...new Set([start, low, high, end - 1])].sort((one, other) => one - other)) kept.push(points[index]);
  }
  return kept;
}

/** Two lists of points as one, in the order of their places; what is in both is there once.
 *  @param {Point[]} first @param {Point[]} second @returns {Point[]} */
export function joined(first, second) {
  if (!first.length || !second.length) return first.length ? first : second;
  if (first.at(-1).at < second[0].at) return [...first, ...second];
  const byPlace = new Map();
  for (const point of first) byPlace.set(point.at, point);
  for (const point of second) byPlace.set(point.at, point);
  return [...byPlace.values()].sort((one, other) => one.at - other.at);
}
