// Asks for a job's outputs, page by page.

import { React } from "../../airflow.js";
import { get, jobPath } from "../../api.js";

const PAGE = 100;
const TYPING_MS = 300;
const NOTHING = { outputs: null, totals: null, collected: [], next: null, error: "", isBusy: true };

/**
 * The outputs of a job, listed anew when the filter changes, when the job has another state, and on demand.
 *
 * @param {object} address @param {string} contains text that paths have @param {object} job
 */
export function useOutputs(address, contains, job) {
  const [list, setList] = React.useState(NOTHING);
  const [times, setTimes] = React.useState(0);
  const leaving = React.useRef(null);

  const ask = (after) => {
    leaving.current?.abort();
    const mine = (leaving.current = new AbortController());
    setList((before) => ({ ...before, isBusy: true, error: "" }));
    get(jobPath(address, "outputs", { after, contains, limit: PAGE }), { signal: mine.signal }).then(
      (page) =>
        setList((before) => ({
          outputs: after ? [...(before.outputs ?? []), ...page.outputs] : page.outputs,
          totals: page.totals ?? before.totals,
          collected: page.collected ?? before.collected,
          next: page.next,
          error: page.problem ?? "",
          isBusy: false,
        })),
      (failure) => mine.signal.aborted || setList((before) => ({ ...before, error: failure.message, isBusy: false })),
    );
  };

  React.useEffect(() => {
    const timer = setTimeout(() => ask(null), contains ? TYPING_MS : 0);
    return () => {
      clearTimeout(timer);
      leaving.current?.abort();
    };
  }, [address, contains, job.state, job.attempt, times]);

  return { ...list, hasMore: list.next !== null, more: () => ask(list.next), reload: () => setTimes(times + 1) };
}
