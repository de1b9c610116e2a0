// Asks for the elements of an array: all once, and then those that have another state.

import { React } from "../../airflow.js";
import { get, jobPath } from "../../api.js";
import { outdated, statesOf } from "./order.js";

const PAUSE_MS = 3000;
const MOST_AT_ONCE = 100;
const EVERY_MS = 15000;

/**
 * @param {object} address @param {object} job
 * @returns {{told: Map<number, object>, states: object[], size: number, error: string, isBusy: boolean}}
 */
export function useElements(address, job) {
  const [told, setTold] = React.useState(new Map());
  const [error, setError] = React.useState("");
  const [isBusy, setBusy] = React.useState(true);
  const [tick, setTick] = React.useState(0);
  const lookedAt = React.useRef(0);
  const live = job.elements;
  const size = job.array?.size ?? 0;
  const states = React.useMemo(() => statesOf(size, live, told), [size, live, told]);

  // The cluster's records may say something else than its status for long, so only what has changed is asked for again.
  const seen = React.useRef(new Map());
  const now = React.useRef(states);
  now.current = states;
  const add = (rows) => {
    if (live) for (const { index } of rows) seen.current.set(index, now.current[index]?.state);
    setTold((before) => new Map([...before, ...rows.map((row) => [row.index, row])]));
  };

  React.useEffect(() => {
    const leaving = new AbortController();
    async function all() {
      try {
        for (let offset = 0; offset !== null; ) {
          const page = await get(jobPath(address, "elements", { offset }), { signal: leaving.signal });
          if (leaving.signal.aborted) return;
          add(page.elements);
          offset = page.next;
        }
        setError("");
      } catch (failure) {
        if (!leaving.signal.aborted) setError(failure.message);
      }
      lookedAt.current = Date.now();
      if (!leaving.signal.aborted) setBusy(false);
    }
    all();
    return () => leaving.abort();
  }, [address]);

  // Somebody who looks at a table of running elements wants their progress, too, but not at every step.
  const changed = outdated(states, seen.current);
  const running = states.filter(({ state }) => state === "RUNNING").map(({ index }) => index);
  const isDue = tick > 0 && running.length > 0;
  const wanted = [...new Set([...changed, ...(isDue ? running : [])])].slice(0, MOST_AT_ONCE);
  const key = wanted.join(",");
  React.useEffect(() => {
    if (isBusy || !key || document.hidden) return undefined;
    const leaving = new AbortController();
    const timer = setTimeout(
      () => {
        lookedAt.current = Date.now();
        get(jobPath(address, "elements", { index: wanted, limit: MOST_AT_ONCE }), { signal: leaving.signal }).then(
          (page) => [add(page.elements), setTick(0)],
          () => setTick(0),
        );
      },
      Math.max(0, lookedAt.current + PAUSE_MS - Date.now()),
    );
    return () => {
      clearTimeout(timer);
      leaving.abort();
    };
  }, [address, key, isBusy, isDue]);
  React.useEffect(() => {
    if (job.is_final) return undefined;
    const timer = setInterval(() => document.hidden || setTick((before) => before + 1), EVERY_MS);
    return () => clearInterval(timer);
  }, [job.is_final]);

  return { told, states, size, error, isBusy };
}
