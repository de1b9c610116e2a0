// Rows of the list that change by themselves, over one socket for all that is shown and may still change.

import { React } from "../airflow.js";
import { apiAddress } from "../api.js";
import { rowKey } from "./job_link.js";

const FINAL = new Set(["SUCCEEDED", "FAILED", "CANCELLED", "LOST"]);
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/** The same rows, each as it is now.
 *  @param {any[]} rows */
export function useLiveRows(rows) {
  const [changed, setChanged] = React.useState(new Map());
  const watched = rows.filter((row) => !FINAL.has(row.state)).map((row) => row.job_id);
  const names = JSON.stringify(watched);
  React.useEffect(() => {
    setChanged(new Map());
    if (!watched.length) return undefined;
    return listen(watched, (fresh) => setChanged((before) => new Map([...before, ...fresh.map((row) => [rowKey(row), row])])));
  }, [names]);
  return React.useMemo(() => (changed.size ? rows.map((row) => changed.get(rowKey(row)) ?? row) : rows), [rows, changed]);
}

/** Hears of rows until the function that it returns is called; says nothing to a page that nobody sees. */
function listen(jobs, onRows) {
  let socket = null;
  let timer = null;
  let pause = FIRST_PAUSE_MS;
  let isOver = false;

  function open() {
    timer = null;
    if (isOver || socket || document.hidden) return;
    socket = new WebSocket(apiAddress("jobs/live").replace(/^http/, "ws"));
    socket.onopen = () => socket.send(JSON.stringify({ jobs }));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      pause = FIRST_PAUSE_MS;
      if (message.type === "rows") onRows(message.rows);
    };
    socket.onclose = () => {
      socket = null;
      if (isOver || document.hidden) return;
      // The list is asked for again and again in any case.
      timer = setTimeout(open, pause * (0.5 + Math.random()));
      pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
    };
  }

  function seen() {
    if (document.hidden) socket?.close();
    else if (timer === null) open();
  }

  document.addEventListener("visibilitychange", seen);
  open();
  return () => {
    isOver = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
    socket?.close();
  };
}
