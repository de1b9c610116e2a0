// Looks at a job again and again.

import { React } from "../airflow.js";
import { get, jobPath } from "../api.js";

const EVERY_MS = 5000;

/** @returns {{job: object | null, error: Error | null, how: "polling", outage: object | null, refresh: () => void}} */
export function useJob(address) {
  const [known, setKnown] = React.useState({ job: null, error: null });
  const [round, setRound] = React.useState(0);
  React.useEffect(() => setKnown({ job: null, error: null }), [address]);
  React.useEffect(() => {
    let timer = null;
    const leaving = new AbortController();
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
        // A cleared task has no job until it has launched the next one.
        setKnown((before) => ({ job: error.status === 404 ? null : before.job, error }));
      }
      if (!isOver && !leaving.signal.aborted) timer = setTimeout(look, EVERY_MS);
    }
    look();
    return () => {
      leaving.abort();
      clearTimeout(timer);
    };
  }, [address, round]);
  return { ...known, how: "polling", outage: null, refresh: () => setRound((before) => before + 1) };
}
