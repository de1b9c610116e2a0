// Looks at a job again and again.

import { React } from "../airflow.js";
import { get, jobPath } from "../api.js";

const EVERY_MS = 5000;

/** @returns {{job: object | null, error: Error | null, how: "polling", outage: object | null}} */
export function useJob(address) {
  const [known, setKnown] = React.useState({ job: null, error: null });
  React.useEffect(() => {
    let timer = null;
    const leaving = new AbortController();
    setKnown({ job: null, error: null });
    async function look() {
      let isOver = false;
      try {
        if (!document.hidden) {
          const job = await get(jobPath(address), { signal: leaving.signal });
          isOver = job.is_final;
          setKnown({ job, error: null });
        }
      } catch (error) {
        if (leaving.signal.aborted) return;
        isOver = [401, 403].includes(error.status) || (error.status === 404 && !error.looksAgain);
        setKnown((before) => ({ ...before, error }));
      }
      if (!isOver && !leaving.signal.aborted) timer = setTimeout(look, EVERY_MS);
    }
    look();
    return () => {
      leaving.abort();
      clearTimeout(timer);
    };
  }, [address]);
  return { ...known, how: "polling", outage: null };
}
