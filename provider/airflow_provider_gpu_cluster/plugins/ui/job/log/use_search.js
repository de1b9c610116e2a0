// Searches a job's log: one pass from its start to its end, and from line to line on demand.

import { React } from "../../airflow.js";
import { get, jobPath } from "../../api.js";
import { begun, further, nextHit, resumed } from "./search_state.js";

const AT_ONCE = 500;

/**
 * @param {{address: object, attempt: number | null, stream: string, query: {q: string, isRegex: boolean, ignoreCase: boolean}, stop: number}} props
 *   `stop`: where the log ends for now
 * @returns {{found: import("./search_state.js").Found | null, current: number | null, error: string, isAsking: boolean, go: (way: "after" | "before", from: number, lineEnd: number) => Promise<number | null>}}
 */
export function useSearch({ address, attempt, stream, query, stop }) {
  const [state, setState] = React.useState({ found: null, current: null, error: "", isAsking: false });
  const known = React.useRef(null);
  const ask = React.useMemo(() => {
    const fixed = { attempt, stream: stream === "output" ? null : stream, q: query.q, is_regex: query.isRegex || null, ignore_case: query.ignoreCase || null };
    return (more, options) => get(jobPath(address, "log/search", { ...fixed, ...more }), options);
  }, [address, attempt, stream, query.q, query.isRegex, query.ignoreCase]);
  const set = (change) => setState((before) => ({ ...before, ...change }));

  // A new query begins anew; of a log that has grown, only what is new is searched.
  const asked = React.useRef(null);
  React.useEffect(() => {
    if (!query.q) {
      known.current = asked.current = null;
      setState({ found: null, current: null, error: "", isAsking: false });
      return undefined;
    }
    const leaving = new AbortController();
    if (asked.current !== ask || known.current === null) {
      asked.current = ask;
      known.current = null;
    } else {
      known.current = resumed(known.current, stop);
      if (known.current.isDone || known.current.isFull) return undefined;
    }
    (async () => {
      set({ isAsking: true, error: "", ...(known.current ? {} : { found: null, current: null }) });
      try {
        do {
          const answer = await ask({ place: known.current?.reached ?? null, limit: AT_ONCE }, { signal: leaving.signal });
          known.current = further(known.current ?? begun(answer.start), answer);
          set({ found: known.current });
        } while (!known.current.isDone && !known.current.isFull);
        set({ isAsking: false });
      } catch (failure) {
        if (!leaving.signal.aborted) set({ isAsking: false, error: failure.message });
      }
    })();
    return () => leaving.abort();
    // Every second of a running log would be too often.
  }, [ask, Math.floor(stop / (1 << 20))]);

  async function go(way, from, lineEnd) {
    // Just now, another query may still be the one that is known.
    const seen = asked.current === ask && known.current ? resumed(known.current, stop) : begun(0);
    const next = nextHit(seen, from, way, lineEnd);
    if (next?.line !== undefined) set({ current: next.line });
    if (next === null || next.line !== undefined) return next?.line ?? null;
    set({ error: "" });
    try {
      for (let place = next.ask; ; ) {
        const answer = await ask({ place, way, limit: 1 });
        if (answer.hits.length) {
          set({ current: answer.hits[0].line });
          return answer.hits[0].line;
        }
        if (answer.next === null) return null;
        place = answer.next;
      }
    } catch (failure) {
      set({ error: failure.message });
      return null;
    }
  }
  return { ...state, go };
}
