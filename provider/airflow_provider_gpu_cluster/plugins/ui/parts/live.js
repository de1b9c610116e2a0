// A job that changes by itself, for as long as somebody sees the page.

import { React } from "../airflow.js";
import { ApiError, apiAddress, get, jobPath } from "../api.js";
import { LiveLine } from "./live_line.js";

const NOTHING = { job: null, error: null, how: null, outage: null };
const NO_ANSWER = new ApiError(0, "Airflow does not answer.", true);

/**
 * A job, as it is now.
 *
 * @param {object} address of the job; the same object as long as it is the same job
 * @returns {{job: object | null, error: Error | null, how: "socket" | "events" | "polling" | null,
 *   outage: {error: string, since: string} | null, refresh: () => void,
 *   subscribe: (listener: (message: object) => void) => () => void,
 *   listen: (type: string, listener: (message: object) => void) => () => void}}
 *   `how` is how the page hears of changes; `subscribe` and `listen` return a function that ends it. What the job prints
 *   is sent only while somebody listens to "log".
 */
export function useLive(address) {
  const [known, setKnown] = React.useState(NOTHING);
  const listeners = React.useRef(new Set()).current;
  const line = React.useRef(null);

  const listen = React.useCallback((type, listener) => {
    const entry = { type, listener };
    listeners.add(entry);
    line.current?.ask(wishOf(listeners));
    return () => {
      listeners.delete(entry);
      line.current?.ask(wishOf(listeners));
    };
  }, [listeners]);
  const subscribe = React.useCallback((listener) => listen(null, listener), [listen]);

  React.useEffect(() => {
    setKnown(NOTHING);
    const onMessage = (message) => {
      setKnown((before) => changed(before, message));
      for (const { type, listener } of [...listeners]) if (type === null || type === message.type) listener(message);
    };
    const onHow = (how) => setKnown((before) => (before.how === how ? before : { ...before, how }));
    const current = new LiveLine(waysTo(address), { onMessage, onHow });
    line.current = current;
    current.ask(wishOf(listeners));
    const seen = () => (document.hidden ? current.close() : current.open());
    document.addEventListener("visibilitychange", seen);
    seen();
    return () => {
      document.removeEventListener("visibilitychange", seen);
      current.close();
      line.current = null;
    };
  }, [address, listeners]);

  const refresh = React.useCallback(() => {
    get(jobPath(address)).then(
      (job) => setKnown((before) => ({ ...before, job, error: null })),
      (error) => setKnown((before) => ({ ...before, error })),
    );
    line.current?.open();
  }, [address]);
  return { ...known, refresh, listen, subscribe };
}

const wishOf = (listeners) => ({ follow_log: [...listeners].some(({ type }) => type === "log") });

/** What is known after a message. */
export function changed(known, message) {
  switch (message.type) {
    case "job":
      return { ...known, job: message.job, error: null };
    case "outage":
      return { ...known, outage: { error: message.error, since: message.since } };
    case "back":
      return { ...known, outage: null };
    case "waiting":
      return { ...known, job: null, error: new ApiError(404, message.sentence, true) };
    case "gone":
      return { ...known, job: null, error: new ApiError(message.status, message.sentence) };
    case "failed":
      return { ...known, job: message.error.status === 404 ? null : known.job, error: message.error };
    default:
      return known;
  }
}

/** The ways in which a page can hear of a job. */
function waysTo(address) {
  return {
    socket({ wish, heard, failed }) {
      const socket = new WebSocket(apiAddress(jobPath(address, "live")).replace(/^http/, "ws"));
      const send = (asked) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(asked));
      socket.onopen = () => send(wish);
      socket.onmessage = ({ data }) => heard(JSON.parse(data));
      socket.onclose = failed;
      return { send, close: () => socket.close() };
    },
    events({ wish, heard, failed }) {
      const stream = new EventSource(apiAddress(jobPath(address, "events", wish.follow_log ? { follow_log: true } : {})));
      stream.onmessage = ({ data }) => heard(JSON.parse(data));
      stream.onerror = () => {
        // Its own tries know no pauses.
        stream.close();
        failed();
      };
      return { close: () => stream.close() };
    },
    async poll(tell) {
      try {
        tell({ type: "job", job: await get(jobPath(address)) });
      } catch (error) {
        tell({ type: "failed", error: error.status === 0 ? NO_ANSWER : error });
        return !([401, 403].includes(error.status) || (error.status === 404 && !error.looksAgain));
      }
      return true;
    },
  };
}
