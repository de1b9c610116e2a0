// Times and durations as text. No React, no page: `time.js` puts them on one.

const PARTS = { year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" };
const formats = new Map();

function formatOf(zone) {
  if (!formats.has(zone)) {
    let format;
    try {
      format = new Intl.DateTimeFormat("en-GB", { ...PARTS, hourCycle: "h23", timeZone: zone });
    } catch {
      format = formatOf("UTC"); // a name that this browser does not know
    }
    formats.set(zone, format);
  }
  return formats.get(zone);
}

/** A time as Airflow writes it, such as "2026-01-31 13:05:09"; "" if it is none.
 *  @param {string | number | null | undefined} time ISO 8601, or milliseconds since the epoch
 *  @param {string} zone name of a time zone */
export function timeText(time, zone = "UTC") {
  const date = dateOf(time);
  if (date === null) return "";
  const parts = Object.fromEntries(formatOf(zone).formatToParts(date).map(({ type, value }) => [type, value]));
  return `${parts.year}-${parts.month}-${parts.day} ${parts.hour}:${parts.minute}:${parts.second}`;
}

/** A duration in words of at most two units, such as "2 h 05 min"; "" if it is none.
 *  @param {number | null | undefined} seconds */
export function durationText(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "";
  const whole = Math.max(0, Math.floor(seconds));
  if (seconds < 10) return seconds > 0 && seconds !== whole ? `${Math.max(seconds, 0).toFixed(1)} s` : `${whole} s`;
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
  return `${Math.floor(whole / 86400)} d ${two(Math.floor(whole / 3600) % 24)} h`;
}

/** Seconds between two times; null if one is none.
 *  @param {string | number | null | undefined} start
 *  @param {string | number | null | undefined} end */
export function secondsBetween(start, end) {
  const [from, to] = [dateOf(start), dateOf(end)];
  return from === null || to === null ? null : (to - from) / 1000;
}

/** How long ago a time was, or in how long it will be: "3 min 20 s ago", "in 2 h 05 min".
 *  @param {string | number | null | undefined} time
 *  @param {number} now milliseconds since the epoch */
export function relativeText(time, now = Date.now()) {
  const seconds = secondsBetween(time, now);
  if (seconds === null) return "";
  if (Math.abs(seconds) < 1) return "now";
  const whole = Math.floor(Math.abs(seconds));
  return seconds > 0 ? `${durationText(whole)} ago` : `in ${durationText(whole)}`;
}

function dateOf(time) {
  if (time === null || time === undefined || time === "") return null;
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? null : date;
}

const two = (number) => String(number).padStart(2, "0");
