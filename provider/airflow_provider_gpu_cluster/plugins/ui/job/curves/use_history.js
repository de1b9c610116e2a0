// The history of a job's progress or of its use: asked for once, and carried on live.

import { React } from "../../airflow.js";
import { get, jobPath } from "../../api.js";
import { emptyHistory, withCurves, withFirst, withProgress, withSlice, withUsage } from "./history.js";

const MOST_AT_ONCE = 8;
// Where nothing comes live, the history is asked for so often.
const EVERY_MS = 10_000;
const MORE_SLICES = 8;

/**
 * @param {object} address of the job
 * @param {"progress" | "usage"} what
 * @param {{x?: string | null, names?: string[] | null, job: object, live: object}} wanted `names`: of the curves to show;
 *   null for those that the cluster finds worth a look
 * @returns {{history: import("./history.js").History, isLoaded: boolean, error: Error | null, isReading: boolean, readMore: () => void}}
 */
export function useHistory(address, what, { x = null, names = null, job, live }) {
  const [known, setKnown] = React.useState({ history: emptyHistory(), isLoaded: false, error: null });
  const [isReading, setIsReading] = React.useState(false);
  const change = (step) => setKnown((before) => ({ ...before, history: step(before.history) }));
  const ask = async (query, signal) => {
    const answer = await get(jobPath(address, "curves", { what, x, ...query }), { signal });
    // One that was given up while it came is none.
    signal.throwIfAborted();
    return answer;
  };

  const wanted = React.useRef(names);
  wanted.current = names;
  const load = React.useCallback(
    async (signal) => {
      try {
        const [first, ...others] = batches(wanted.current ?? []);
        const answer = await ask({ name: first }, signal);
        setKnown((before) => ({ history: withFirst(before.history, answer), isLoaded: true, error: null }));
        for (const batch of others) {
          const more = await ask({ name: batch, x: answer.x, until: answer.until }, signal);
          change((history) => withCurves(history, more));
        }
      } catch (error) {
        if (!signal.aborted) setKnown((before) => ({ ...before, error }));
      }
    },
    [address, what, x],
  );
  const isFinal = job.is_final;
  // Another attempt may begin another file, and the last lines come with the end.
  React.useEffect(() => {
    const leaving = new AbortController();
    load(leaving.signal);
    return () => leaving.abort();
  }, [load, isFinal, job.attempt]);

  // Nor is what somebody has read of a large history thrown away again and again.
  const isKept = (Boolean(live?.subscribe) && live.how !== "polling") || known.history.slicesRead > 1;
  React.useEffect(() => {
    if (isFinal || isKept) return undefined;
    const leaving = new AbortController();
    const timer = setInterval(() => document.hidden || load(leaving.signal), EVERY_MS);
    return () => {
      clearInterval(timer);
      leaving.abort();
    };
  }, [load, isFinal, isKept]);

  const hasMore = React.useRef(false);
  hasMore.current = known.history.slicesRead > 1;
  React.useEffect(() => {
    if (!live?.subscribe) return undefined;
    const leaving = new AbortController();
    let soon = null;
    const catchUp = () => {
      soon ??= setTimeout(() => {
        soon = null;
        if (!hasMore.current) load(leaving.signal);
      }, EVERY_MS);
    };
    const stop = live.subscribe((message) => {
      if (message.type === what) change((history) => (what === "usage" ? withUsage : withProgress)(history, message.points ?? []));
      // What did not come is in the history.
      if (message.type === "back" || (message.type === what && message.skipped)) catchUp();
    });
    return () => {
      stop();
      clearTimeout(soon);
      leaving.abort();
    };
  }, [live?.subscribe, load]);

  // Curves that somebody has chosen since.
  const missing = known.isLoaded && names ? names.filter((name) => !known.history.curves.has(name)).slice(0, MOST_AT_ONCE) : [];
  React.useEffect(() => {
    if (!missing.length) return undefined;
    const leaving = new AbortController();
    (async () => {
      try {
        for (let slice = 0; slice < known.history.slicesRead; slice += 1) {
          const answer = await ask({ name: missing, x: known.history.x ?? x, slice, until: known.history.until }, leaving.signal);
          change((history) => withCurves(history, answer));
        }
      } catch (error) {
        if (!leaving.signal.aborted) setKnown((before) => ({ ...before, error }));
      }
    })();
    return () => leaving.abort();
  }, [load, JSON.stringify(missing)]);

  const reading = React.useRef(null);
  React.useEffect(() => () => reading.current?.abort(), [load]);
  async function readMore() {
    const { slicesRead, slices, until, curves } = known.history;
    reading.current = new AbortController();
    setIsReading(true);
    try {
      for (let slice = slicesRead; slice < Math.min(slices, slicesRead + MORE_SLICES); slice += 1) {
        for (const [number, batch] of batches([...curves.keys()]).entries()) {
          const answer = await ask({ name: batch, x: known.history.x ?? x, slice, until }, reading.current.signal);
          change((history) => (number === 0 ? withSlice : withCurves)(history, answer));
        }
      }
    } catch (error) {
      if (!reading.current.signal.aborted) setKnown((before) => ({ ...before, error }));
    }
    setIsReading(false);
  }
  return { ...known, isReading, readMore };
}

/** Names in lists that one request may have; one list, without names, if there are none. */
function batches(names) {
  const found = [];
  for (let from = 0; from < names.length; from += MOST_AT_ONCE) found.push(names.slice(from, from + MOST_AT_ONCE));
  return found.length ? found : [undefined];
}
