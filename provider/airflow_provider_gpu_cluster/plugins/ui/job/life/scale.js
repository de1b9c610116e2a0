// Where the parts of a job's life are on a line. No React.

/** A part that takes less than this share of the line can hardly be seen. */
const HARDLY_SEEN = 0.01;

/**
 * @typedef {{kind: string, attempt: number, start: string, end: string | null, label: string}} Part as the API tells it
 * @typedef {Part & {seconds: number, left: number, width: number}} Placed `left` and `width` are shares of the line
 *
 * @param {Part[]} parts in their order
 * @param {number} now milliseconds since the epoch: the end of what lasts
 * @returns {{placed: Placed[], seconds: number, isEven: boolean, compressed: Placed[]}} `placed`: to scale; `compressed`:
 *   short parts are drawn longer; `isEven`: to scale, all of them can be seen
 */
export function lineOf(parts, now) {
  const spans = parts
    .map((part) => ({ part, from: Date.parse(part.start), to: part.end === null ? now : Date.parse(part.end) }))
    .filter(({ from, to }) => Number.isFinite(from) && Number.isFinite(to))
    .map(({ part, from, to }) => ({ part, from, to: Math.max(from, to) }));
  if (!spans.length) return { placed: [], seconds: 0, isEven: true, compressed: [] };
  const begin = Math.min(...spans.map(({ from }) => from));
  const total = Math.max(1, Math.max(...spans.map(({ to }) => to)) - begin);
  const placed = spans.map(({ part, from, to }) => ({ ...part, seconds: (to - from) / 1000, left: (from - begin) / total, width: (to - from) / total }));
  const isEven = placed.every(({ width, kind }) => width >= HARDLY_SEEN || kind === "collecting");
  return { placed, seconds: total / 1000, isEven, compressed: isEven ? placed : compressed(spans, placed, begin) };
}

/** The same with the roots of all lengths, those of gaps between parts as well, so that short ones are seen. */
function compressed(spans, placed, begin) {
  const borders = [...new Set(spans.flatMap(({ from, to }) => [from, to]))].sort((one, other) => one - other);
  const places = new Map([[begin, 0]]);
  let sum = 0;
  borders.forEach((border, index) => {
    if (index > 0) sum += Math.sqrt(border - borders[index - 1]);
    places.set(border, sum);
  });
  const whole = sum || 1;
  return placed.map((part, index) => {
    const [left, right] = [places.get(spans[index].from) / whole, places.get(spans[index].to) / whole];
    return { ...part, left, width: right - left };
  });
}
