// Times on a page, in the time zone that is chosen in Airflow.

import { Chakra, html, React } from "../airflow.js";
import { durationText, relativeText, secondsBetween, timeText } from "./time_text.js";

/** The time zone that is chosen in Airflow; the page follows when somebody chooses another. */
export const useZone = () => React.useSyncExternalStore(onZone, zone);

function onZone(changed) {
  // Airflow tells its own page by "local-storage"; a browser tells its other pages by "storage".
  for (const name of ["storage", "local-storage"]) globalThis.addEventListener(name, changed);
  return () => {
    for (const name of ["storage", "local-storage"]) globalThis.removeEventListener(name, changed);
  };
}

function zone() {
  try {
    const chosen = JSON.parse(localStorage.getItem("timezone") ?? "null");
    if (typeof chosen === "string") return chosen;
  } catch {
    // Nothing is stored, or nothing may be.
  }
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}

/** The present time in milliseconds, which goes on every `everyMs` while `isOn`. */
export function useNow(isOn = true, everyMs = 1000) {
  const [now, setNow] = React.useState(() => Date.now());
  React.useEffect(() => {
    if (!isOn) return undefined;
    setNow(Date.now());
    const timer = setInterval(() => document.hidden || setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [isOn, everyMs]);
  return now;
}

/** A time. `relative` says also how long ago it was; `empty` stands for none.
 *  @param {{at: string | number | null | undefined, relative?: boolean, empty?: string}} props */
export function Time({ at, relative = false, empty = "" }) {
  const name = useZone();
  const now = useNow(relative);
  const text = timeText(at, name);
  if (!text) return empty;
  const ago = relativeText(at, now);
  return html`<${Chakra.chakra.time} dateTime=${new Date(at).toISOString()} title=${`${name}, ${ago}`} whiteSpace="nowrap">
    ${text}${relative && html`<${Chakra.Text} as="span" color="fg.muted"> (${ago})<//>`}
  <//>`;
}

/** How long something took, or has taken so far.
 *  @param {{start: string | number | null | undefined, end?: string | number | null}} props */
export function Duration({ start, end = null }) {
  const now = useNow(end === null);
  const seconds = secondsBetween(start, end ?? now);
  return html`<${Chakra.Text} as="span" whiteSpace="nowrap">${seconds === null ? "" : durationText(end === null ? Math.floor(seconds) : seconds)}<//>`;
}
