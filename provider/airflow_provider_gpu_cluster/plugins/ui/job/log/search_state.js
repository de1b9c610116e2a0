// What is known of a search through a log: the lines that were found, and how far it has got. No React.

/** @typedef {{line: number, offset: number, text: string}} Hit
 *  @typedef {{hits: number[], reached: number, isDone: boolean, isFull: boolean}} Found
 *    `hits`: where the lines begin that were found, in order; `reached`: up to where the log was searched from its start */

/** So many lines are remembered; a log may have millions. */
export const MOST_HITS = 5000;

/** @param {number} start where the log begins that is searched
 *  @returns {Found} */
export const begun = (start) => ({ hits: [], reached: start, isDone: false, isFull: false });

/** What is known after a further answer to the search from the start.
 *  @param {Found} found
 *  @param {{hits: Hit[], next: number | null, stop: number}} answer
 *  @returns {Found} */
export function further(found, answer) {
  const known = found.hits[found.hits.length - 1] ?? -1;
  const hits = [...found.hits, ...answer.hits.map(({ line }) => line).filter((line) => line > known)].slice(0, MOST_HITS);
  const isFull = hits.length >= MOST_HITS;
  return { ...found, hits, reached: isFull ? hits[hits.length - 1] : (answer.next ?? answer.stop), isDone: answer.next === null && !isFull, isFull };
}

/** The same, when the log has grown: the search goes on where it has ended, or before if the last line was not complete. */
export const resumed = (found, stop) => (found.isDone && stop > found.reached ? { ...found, isDone: false } : found);

/** Which line comes next.
 *  @param {Found} found
 *  @param {number} from place in the log; a line that begins there does not count
 *  @param {"after" | "before"} way
 *  @returns {{line: number} | {ask: number} | null} a line, or where to ask the cluster for one from, or that there is none */
export function nextHit(found, from, way, lineEnd = from + 1) {
  const { hits, reached, isDone } = found;
  if (way === "after") {
    const line = hits.find((one) => one > from);
    if (line !== undefined) return { line };
    return isDone ? null : { ask: Math.max(lineEnd, reached) };
  }
  const before = hits.filter((one) => one < from);
  if (from <= reached || isDone) return before.length ? { line: before[before.length - 1] } : null;
  return { ask: from };
}

/** "3 of 17", "17 lines", "no line", with a plus as long as there may be more.
 *  @param {Found} found
 *  @param {number | null} current the line where the reader is */
export function countText({ hits, isDone, isFull }, current = null) {
  const more = isDone ? "" : "+";
  const index = current === null ? -1 : hits.indexOf(current);
  if (!hits.length) return isDone ? "no line" : isFull ? "" : "searching";
  const count = `${hits.length.toLocaleString("en-US")}${more}`;
  if (index >= 0) return `${(index + 1).toLocaleString("en-US")} of ${count}`;
  return `${count} ${hits.length === 1 && !more ? "line" : "lines"}`;
}

/**
 * Where a text is in what is shown of a line, to mark it. Lines that an expression has found are marked as a whole: what
 * is quick on the cluster may take for ever in a browser.
 *
 * @param {string} text
 * @param {{q: string, isRegex: boolean, ignoreCase: boolean} | null} query
 * @returns {[number, number][]} begin and end of each, not more than a hundred
 */
export function marksIn(text, query) {
  if (!query?.q || query.isRegex) return [];
  const marks = [];
  for (const found of text.matchAll(new RegExp(query.q.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), query.ignoreCase ? "gi" : "g"))) {
    marks.push([found.index, found.index + found[0].length]);
    if (marks.length >= MOST_MARKS) break;
  }
  return marks;
}

const MOST_MARKS = 100;

/** Pieces of a line, cut where marks begin and end.
 *  @param {import("./ansi.js").Piece[]} pieces
 *  @param {[number, number][]} marks in the text of all of them
 *  @returns {(import("./ansi.js").Piece & {isFound?: boolean})[]} */
export function marked(pieces, marks) {
  if (!marks.length) return pieces;
  const cut = [];
  let at = 0;
  let next = 0;
  for (const piece of pieces) {
    const end = at + piece.text.length;
    let done = at;
    while (next < marks.length && marks[next][0] < end) {
      const [from, to] = [Math.max(marks[next][0], done), Math.min(marks[next][1], end)];
      if (from > done) cut.push({ ...piece, text: piece.text.slice(done - at, from - at) });
      if (to > from) cut.push({ ...piece, text: piece.text.slice(from - at, to - at), isFound: true });
      done = Math.max(done, to);
      if (marks[next][1] > end) break;
      next += 1;
    }
    if (done < end) cut.push({ ...piece, text: piece.text.slice(done - at) });
    at = end;
  }
  return cut;
}
