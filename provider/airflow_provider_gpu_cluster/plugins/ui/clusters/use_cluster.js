// One cluster, asked for again and again while somebody looks. What has not changed is not sent again.

import { React } from "../airflow.js";
import { apiAddress, ApiError, get, post } from "../api.js";
import { merged } from "./merged.js";

const EVERY_MS = 15_000;
const SOON_MS = 2_000;
const MOST_MS = 120_000;

/** How long to wait for the next look. @param {{failures: number, isKnown: boolean}} state */
export const pauseOf = ({ failures, isKnown }) =>
  failures ? Math.min(MOST_MS, EVERY_MS * 2 ** (failures - 1)) : isKnown ? EVERY_MS : SOON_MS;

/** The clusters that may be seen, with what is known of them already; null until that is known. */
export function useClusters() {
  const [found, setFound] = React.useState({ clusters: null, error: "" });
  React.useEffect(() => {
    get("clusters").then(
      ({ clusters }) => setFound({ clusters, error: "" }),
      (failure) => setFound({ clusters: null, error: failure.message }),
    );
  }, []);
  return found;
}

/**
 * A cluster as it is now.
 *
 * @returns {{cluster: any, error: string, isBusy: boolean, test: () => void}} `error` says why Airflow itself does not tell it;
 *   `test` has it checked now, during which `isBusy` is true
 */
export function useCluster(connId) {
  const [cluster, setCluster] = React.useState(null);
  const [error, setError] = React.useState("");
  const [isBusy, setBusy] = React.useState(false);
  const path = `clusters/${encodeURIComponent(connId)}`;
  const tag = React.useRef(null);

  React.useEffect(() => {
    const abort = new AbortController();
    let timer;
    let failures = 0;
    let isKnown = false;
    async function look() {
      clearTimeout(timer);
      // Nothing is asked for a page that nobody sees; it goes on when somebody does.
      if (document.hidden) return;
      try {
        const answer = await asked(path, tag, abort.signal);
        if (answer) {
          isKnown = answer.is_up !== null;
          setCluster((before) => merged(before, answer));
        }
        failures = 0;
        setError("");
      } catch (failure) {
        if (failure.name === "AbortError") return;
        setError(failure.message);
        if (failure.status === 403 || failure.status === 401) return;
        failures += 1;
      }
      if (!abort.signal.aborted) timer = setTimeout(look, pauseOf({ failures, isKnown }));
    }
    const seen = () => document.hidden || look();
    document.addEventListener("visibilitychange", seen);
    look();
    return () => {
      abort.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [path]);

  async function test() {
    setBusy(true);
    try {
      const answer = await post(`${path}/check`);
      setCluster((before) => merged(before, answer));
      tag.current = null;
      setError("");
    } catch (failure) {
      setError(failure.message);
    } finally {
      setBusy(false);
    }
  }

  return { cluster, error, isBusy, test };
}

/** The answer, or null if it is still the last one. */
async function asked(path, tag, signal) {
  const headers = tag.current ? { "If-None-Match": tag.current } : {};
  let response;
  try {
    response = await fetch(apiAddress(path), { credentials: "same-origin", headers, signal });
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    throw new ApiError(0, "Airflow does not answer.");
  }
  if (response.status === 304) return null;
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, typeof answer.detail === "string" ? answer.detail : `Airflow answers ${response.status}.`);
  tag.current = response.headers.get("ETag");
  return answer;
}
