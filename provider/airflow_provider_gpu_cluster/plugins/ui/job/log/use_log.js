// Holds the part of a job's log that is looked at: asks for windows of it, and takes what comes live.

import { React } from "../../airflow.js";
import { get, jobPath } from "../../api.js";
import { endOf, extended, grown, isSameLog, MOST_ROWS, countOf, opened, preceded, startOf } from "./windows.js";

const FLUSH_MS = 100;
const POLL_MS = 2000;
const MOST_LINES = 2000;
/** What came meanwhile is fetched up to this many bytes; beyond, the end is opened anew. */
const MOST_BEHIND_BYTES = 2 << 20;

/**
 * @param {{address: object, live: object, attempt: number | null, stream: string, follows: boolean}} props
 *   `follows`: what comes is shown at once; otherwise it is counted when there is no room for it
 * @returns {{held: import("./windows.js").Held | null, error: string, isBusy: boolean, unseen: number, open: Function, before: Function, after: Function, seen: Function}}
 */
export function useLog({ address, live, attempt, stream, follows }) {
  const [state, setState] = React.useState({ held: null, error: "", isBusy: true, unseen: 0 });
  const now = React.useRef({});
  now.current = { ...now.current, held: state.held, follows };
  const source = React.useMemo(() => ({ path: (part, query) => jobPath(address, part, { attempt, stream: stream === "output" ? null : stream, ...query }) }), [address, attempt, stream]);

  const logic = React.useMemo(() => {
    let asking = null;
    const set = (change) => setState((before) => ({ ...before, ...change(before) }));
    const hold = (held, more = {}) => {
      now.current.held = held;
      set(() => ({ held, error: "", ...more }));
    };
    const fetchWindow = (query) => get(source.path("log", { most_lines: MOST_LINES, ...query }), { signal: asking.signal });

    /** Do one thing at a time. What a reader asks for takes the place of a look for news; what `takesPlace`, of anything. */
    async function alone(work, { takesPlace = false, isLook = false } = {}) {
      if (asking && !takesPlace && (isLook || !asking.isLook)) return undefined;
      asking?.abort();
      const mine = (asking = Object.assign(new AbortController(), { isLook }));
      if (!isLook) set(() => ({ isBusy: true }));
      try {
        return await work();
      } catch (failure) {
        if (!mine.signal.aborted) set(() => ({ error: failure.message }));
        return undefined;
      } finally {
        if (asking === mine) {
          asking = null;
          set(() => ({ isBusy: false }));
        }
      }
    }

    const open = (query) => alone(async () => {
      const window = await fetchWindow(query);
      hold(opened(window), { unseen: 0 });
      return window;
    }, { takesPlace: true });
    const before = () => alone(async () => {
      const { held } = now.current;
      if (!held || startOf(held) <= held.start) return;
      const window = await fetchWindow({ place: startOf(held), way: "before" });
      if (isSameLog(held, window)) hold(preceded(now.current.held, window));
      else hold(opened(window), { unseen: 0 });
    });
    const after = (isLook = false) => alone(async () => {
      for (;;) {
        const { held, follows: shows } = now.current;
        if (!held) return;
        const window = await fetchWindow({ place: endOf(held), way: "after" });
        if (!isSameLog(held, window) || (shows && window.stop - endOf(held) > MOST_BEHIND_BYTES)) {
          hold(opened(await fetchWindow({ way: "before" })), { unseen: 0 });
          return;
        }
        const next = extended(held, window);
        hold(next === held ? grown(held, window) : next);
        if (held.atEnd && !shows) count(window);
        if (window.at_end || !shows || next === held) return;
      }
    }, { isLook });

    const count = ({ lines }) => set(({ unseen }) => ({ unseen: unseen + lines.length }));

    /** Take what has come live behind what is held. For a reader who is elsewhere nothing is dropped, and it is counted. */
    function take(window) {
      const { held, follows: shows } = now.current;
      const hasRoom = shows || countOf(held) + window.lines.length <= MOST_ROWS;
      hold(hasRoom ? extended(held, window) : grown(held, window));
      if (!shows) count(window);
    }

    let waiting = [];
    let timer = null;
    function flush() {
      timer = null;
      const windows = waiting;
      waiting = [];
      for (const window of windows) {
        const { held } = now.current;
        if (!held) return;
        if (!isSameLog(held, window) && held.blocks.length) open({ way: "before" });
        else if (window.offset === endOf(held) && held.atEnd) take(window);
        else if (window.end > endOf(held) && held.atEnd && now.current.follows) after(true);
        else {
          if (window.offset > endOf(held)) count(window);
          hold(grown(held, window));
        }
      }
    }
    function heard(window) {
      waiting.push(window);
      timer ??= setTimeout(flush, FLUSH_MS);
    }
    return { open, before, after, heard, seen: () => set(() => ({ unseen: 0 })), stop: () => (asking?.abort(), clearTimeout(timer)) };
  }, [source]);

  React.useEffect(() => {
    now.current.held = null;
    setState({ held: null, error: "", isBusy: true, unseen: 0 });
    return logic.stop;
  }, [logic]);

  // Only of the newest log comes anything live.
  const isNewest = attempt === null && stream === "output";
  const isPushed = isNewest && ["socket", "events"].includes(live?.how);
  React.useEffect(() => (isPushed ? live.listen("log", logic.heard) : undefined), [isPushed, live?.listen, logic]);
  const grows = state.held?.grows ?? false;
  React.useEffect(() => {
    if (isPushed || !grows) return undefined;
    const timer = setInterval(() => document.hidden || !now.current.held?.atEnd || logic.after(true), POLL_MS);
    return () => clearInterval(timer);
  }, [isPushed, grows, logic]);
  return { ...state, ...logic };
}
