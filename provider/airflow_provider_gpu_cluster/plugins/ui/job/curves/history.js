// What is known of one history of a job, of its progress or of its use: put together from the answers of `curves` and
// from what comes live. No React; a `History` never changes, each step returns the next one.

import { flatNumbers, usageNumbers } from "./flat_numbers.js";
import { joined, thinned } from "./thinning.js";

/** So many points a curve has at most, and so many names are kept. */
export const MOST_POINTS = 2000;
const KEPT_POINTS = 1600;
const MOST_NAMES = 200;

/**
 * @typedef {import("./thinning.js").Point} Point
 * @typedef {{name: string, count: number, least: number | null, most: number | null, last: number | string | null, is_rising: boolean}} Name
 * @typedef {{names: Name[], moreNames: number, x: string | null, times: string, withinS: number | null,
 *   curves: Map<string, Point[]>, sections: object[], slicesRead: number, slices: number, until: number, liveFrom: number,
 *   lines: number, badLines: number, leftOutBytes: number, problem: string}} History
 */

/** @returns {History} before anything was read */
export const emptyHistory = () => ({
  names: [], moreNames: 0, x: null, times: "none", withinS: null, curves: new Map(), sections: [], slicesRead: 0, slices: 1,
  until: 0, liveFrom: 0, lines: 0, badLines: 0, leftOutBytes: 0, problem: "",
});

const pointsOf = ({ at, x, y, t }) => at.map((place, index) => ({ at: place, x: x[index] ?? null, y: y[index], t: t[index] }));

/** With the answer about the first slice, which begins the history anew; only of curves that were not asked for the
 *  points stay as they were. @param {History} history @param {object} answer @returns {History} */
export function withFirst(history, answer) {
  const isSame = history.x === answer.x && history.liveFrom === answer.live_from;
  const curves = new Map(isSame ? history.curves : []);
  for (const curve of answer.curves) curves.set(curve.name, pointsOf(curve));
  return {
    names: answer.names,
    moreNames: answer.more_names,
    x: answer.x,
    times: answer.times,
    withinS: answer.within_s,
    curves,
    sections: answer.sections,
    slicesRead: 1,
    slices: answer.slices,
    until: answer.until,
    liveFrom: answer.live_from,
    lines: answer.lines,
    badLines: answer.bad_lines,
    leftOutBytes: answer.left_out_bytes,
    problem: answer.problem,
  };
}

/** With further curves of the same history. @param {History} history @param {object} answer @returns {History} */
export function withCurves(history, answer) {
  if (answer.x !== history.x || answer.live_from !== history.liveFrom) return history;
  const curves = new Map(history.curves);
  for (const curve of answer.curves) curves.set(curve.name, thinned(joined(curves.get(curve.name) ?? [], pointsOf(curve)), MOST_POINTS));
  return { ...history, curves };
}

/** With one more slice of the same history. @param {History} history @param {object} answer @returns {History} */
export function withSlice(history, answer) {
  const curves = new Map(history.curves);
  for (const curve of answer.curves) {
    curves.set(curve.name, thinned(joined(curves.get(curve.name) ?? [], pointsOf(curve)), MOST_POINTS));
  }
  const names = new Map(history.names.map((name) => [name.name, name]));
  for (const name of answer.names) {
    const before = names.get(name.name);
    if (before) names.set(name.name, { ...before, count: before.count + name.count, least: lower(before.least, name.least), most: higher(before.most, name.most), is_rising: before.is_rising && name.is_rising });
    else if (names.size < MOST_NAMES) names.set(name.name, name);
  }
  return {
    ...history,
    curves,
    names: [...names.values()],
    slicesRead: Math.max(history.slicesRead, answer.slice + 1),
    lines: history.lines + answer.lines,
    badLines: history.badLines + answer.bad_lines,
  };
}

/** With lines of PROGRESS_FILE that have come meanwhile: `{at, t, attempt, values}`, `at` in the file that is written to.
 *  @param {History} history @param {object[]} lines @returns {History} */
export function withProgress(history, lines) {
  const news = lines.filter((line) => history.liveFrom + line.at >= history.until);
  if (!news.length) return history;
  const rows = news.map((line) => ({ at: history.liveFrom + line.at, t: line.t ?? null, attempt: line.attempt ?? null, numbers: flatNumbers(line.values ?? {}) }));
  const until = Math.max(...rows.map(({ at }) => at + 1));
  return { ...withRows(history, rows), until, lines: history.lines + news.length, sections: withAttempts(history.sections, rows) };
}

/** With samples of the job's use that have come meanwhile, as lines of usage.jsonl.
 *  @param {History} history @param {object[]} samples @returns {History} */
export function withUsage(history, samples) {
  const last = Math.max(-Infinity, ...[...history.curves.values()].map((points) => points.at(-1)?.at ?? -Infinity));
  const rows = samples
    .filter(({ t }) => Number.isFinite(t) && Math.trunc(1000 * t) > last)
    .map((sample) => ({ at: Math.trunc(1000 * sample.t), t: sample.t, attempt: null, numbers: usageNumbers(sample) }));
  if (!rows.length) return history;
  const known = new Set(rows.flatMap(({ numbers }) => numbers.map(([name]) => name)).filter(isShownUse));
  const curves = new Map(history.curves);
  for (const name of known) if (!curves.has(name)) curves.set(name, []);
  return withRows({ ...history, curves }, rows);
}

/** Whether a curve of use is shown unless somebody asks for more. */
export const isShownUse = (name) => ["percent", "memory_bytes", "cpus"].includes(name.slice(name.lastIndexOf("/") + 1));

function withRows(history, rows) {
  const curves = new Map(history.curves);
  const names = new Map(history.names.map((name) => [name.name, { ...name }]));
  const added = new Map();
  let { moreNames } = history;
  for (const { at, t, numbers } of rows) {
    const x = numbers.find(([name]) => name === history.x)?.[1];
    for (const [name, number] of numbers) {
      const y = Number.isFinite(number) ? number : null;
      if (!names.has(name)) {
        if (names.size >= MOST_NAMES) {
          moreNames += added.has(name) ? 0 : 1;
          added.set(name, added.get(name) ?? null);
          continue;
        }
        names.set(name, { name, count: 0, least: null, most: null, last: null, is_rising: true });
      }
      const told = names.get(name);
      told.is_rising = told.is_rising && y !== null && (told.count === 0 || typeof told.last !== "number" || number >= told.last);
      told.count += 1;
      told.least = lower(told.least, y);
      told.most = higher(told.most, y);
      told.last = y === null ? String(number) : number;
      if (!curves.has(name)) continue;
      if (!added.get(name)) added.set(name, []);
      // Curves that were asked for later may have the line already.
      if (at <= (curves.get(name).at(-1)?.at ?? -1)) continue;
      added.get(name).push({ at, x: Number.isFinite(x) ? x : null, y, t });
    }
  }
  for (const [name, points] of added) {
    if (points === null) continue;
    const all = [...curves.get(name), ...points];
    curves.set(name, all.length > MOST_POINTS ? thinned(all, KEPT_POINTS) : all);
  }
  return { ...history, curves, names: [...names.values()], moreNames };
}

function withAttempts(sections, rows) {
  const found = [...sections];
  for (const { at, attempt } of rows) {
    if (attempt !== null && attempt > Math.max(0, ...found.map((one) => one.attempt))) {
      found.push({ attempt, at, started_at: null, ended_at: null, reason: null, resumed_from: null });
    }
  }
  return found;
}

const lower = (one, other) => (one === null ? other : other === null ? one : Math.min(one, other));
const higher = (one, other) => (one === null ? other : other === null ? one : Math.max(one, other));

/** Names over which others can be drawn: what is usually one, and what never falls.
 *  @param {History} history @returns {string[]} */
export function namesForX(history) {
  return history.names.filter(({ name, is_rising }) => is_rising || USUAL_X.includes(name)).map(({ name }) => name);
}

export const USUAL_X = ["step", "global_step", "iteration", "iter", "epoch", "batch", "_step"];
const NO_METRICS = new Set([...USUAL_X, "total", "time", "timestamp", "_timestamp", "wall_time", "ts"]);

/** Names that are worth a curve, the most recent first. @param {History} history @returns {Name[]} */
export const metricsOf = (history) => history.names.filter(({ name }) => !NO_METRICS.has(name) && name !== history.x);
