// The jobs of a query, asked for again as long as somebody looks.

import { React } from "../airflow.js";
import { get, withQuery } from "../api.js";
import { useLiveRows } from "./live_rows.js";
import { apiQuery } from "./query.js";

const AGAIN_MS = 15_000;
const AFTER_FAILURE_MS = 5_000;

/**
 * @param {import("./query.js").JobsQuery} query
 * @param {{dag_id?: string, run_id?: string}} fixed what the query cannot change, such as the run of a tab
 * @returns {{answer: any, error: Error | null, isAsking: boolean}} `answer` is the last one there was, also while it is asked anew
 */
export function useJobs(query, fixed) {
  const asked = JSON.stringify([query, fixed]);
  const [found, setFound] = React.useState({ asked: "", answer: null, error: null });
  React.useEffect(() => {
    const giveUp = new AbortController();
    let timer;
    const later = (ms) => {
      timer = setTimeout(() => (document.hidden ? later(ms) : look()), ms);
    };
    const look = async () => {
      try {
        const path = withQuery("jobs", { ...apiQuery(query, Date.now()), ...fixed });
        const answer = await get(path, { signal: giveUp.signal });
        setFound({ asked, answer, error: null });
        later(AGAIN_MS);
      } catch (error) {
        if (giveUp.signal.aborted) return;
        setFound((before) => ({ ...before, asked, error }));
        // Who may not look may not look in five seconds either.
        if (!(error.status >= 400 && error.status < 500)) later(AFTER_FAILURE_MS);
      }
    };
    look();
    return () => {
      giveUp.abort();
      clearTimeout(timer);
    };
  }, [asked]);
  const jobs = useLiveRows(found.answer?.jobs ?? NONE);
  const answer = React.useMemo(() => found.answer && { ...found.answer, jobs }, [found.answer, jobs]);
  return { answer, error: found.error, isAsking: found.asked !== asked };
}

const NONE = [];
