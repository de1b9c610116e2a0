// The elements of an array in the order in which they need attention. No React.

const ORDER = ["FAILED", "LOST", "CANCELLED", "UNKNOWN", "RUNNING", "QUEUED", "SUCCEEDED"];

const rank = (state) => (ORDER.includes(state) ? ORDER.indexOf(state) : ORDER.indexOf("UNKNOWN"));

/**
 * The state of each element, from what the cluster says now and what was told of each before.
 *
 * @param {number} size of the array
 * @param {[string, string | null][] | null | undefined} live state and reason of each element
 * @param {Map<number, object>} told rows by index
 * @returns {{index: number, state: string, reason: string | null}[]} in the order of the array
 */
export function statesOf(size, live, told) {
  return Array.from({ length: size }, (_, index) => {
    const [state, reason] = live?.[index] ?? [told.get(index)?.state ?? "UNKNOWN", told.get(index)?.reason ?? null];
    return { index, state, reason };
  });
}

/** Those that have ended badly first; else in their order. */
export const failedFirst = (states) => [...states].sort((one, other) => rank(one.state) - rank(other.state) || one.index - other.index);

/** How many are in each state, in the order of attention: [["FAILED", 2], ...]. */
export function countsOf(states) {
  const counts = new Map();
  for (const { state } of states) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].sort(([one], [other]) => rank(one) - rank(other));
}

/** Indexes of the elements that were in another state when they were last asked for.
 *  @param {{index: number, state: string}[]} states @param {Map<number, string>} seen states at that time */
export const outdated = (states, seen) => states.filter(({ index, state }) => seen.has(index) && seen.get(index) !== state).map(({ index }) => index);

/** The square to go to with a key, in a grid of so many columns; null if the key means nothing. */
export function stepOf(key, at, count, columns) {
  const steps = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: count - 1 };
  return key in steps ? Math.max(0, Math.min(count - 1, steps[key])) : null;
}
