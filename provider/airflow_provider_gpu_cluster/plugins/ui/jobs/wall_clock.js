// Times of a clock on the wall in a time zone, as the fields of a form have them. No React.

/** The moment at which a clock in a zone shows a time such as "2026-01-31T13:05", as ISO 8601 in UTC; "" if it is none.
 *  Of a time that the clock shows twice, the first; of one that it leaps over, one as far behind the leap. */
export function momentOf(shown, zone) {
  const wanted = Date.parse(`${shown}Z`);
  if (!shown || Number.isNaN(wanted)) return "";
  // The offset before or after a change of the clock; only one of them leads to the time that is shown.
  const [early, late] = [wanted - DAY_MS, wanted + DAY_MS].map((near) => wanted - offset(near, zone));
  const right = [early, late].filter((moment) => moment + offset(moment, zone) === wanted);
  return new Date(right.length ? Math.min(...right) : early).toISOString();
}

/** What a clock in a zone shows at a moment, such as "2026-01-31T13:05"; "" if it is none. */
export function shownAt(moment, zone) {
  const time = Date.parse(moment);
  return Number.isNaN(time) ? "" : new Date(time + offset(time, zone)).toISOString().slice(0, 16);
}

const DAY_MS = 24 * 3600 * 1000;
const FIELDS = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };

/** By how many milliseconds a zone's clock is ahead of UTC at a moment. */
function offset(time, zone) {
  let format;
  try {
    format = new Intl.DateTimeFormat("en-US", { ...FIELDS, hourCycle: "h23", timeZone: zone });
  } catch {
    return 0; // a name that this browser does not know
  }
  const part = Object.fromEntries(format.formatToParts(time).map(({ type, value }) => [type, Number(value)]));
  const shown = Date.UTC(part.year, part.month - 1, part.day, part.hour, part.minute, part.second);
  return shown - Math.floor(time / 1000) * 1000;
}
