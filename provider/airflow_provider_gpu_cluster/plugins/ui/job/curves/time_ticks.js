// The texts of a time axis, in the time zone that is chosen in Airflow.

import { timeText } from "../../parts/time_text.js";

/** Texts of ticks: the time of day as exactly as their distance asks for, and the date where it begins or changes.
 *  @param {number[]} ticks in seconds since the epoch @param {number} distance of two ticks, in seconds @param {string} zone */
export function timeTicks(ticks, distance, zone) {
  let before = "";
  return ticks.map((tick) => {
    if (tick === null || tick === undefined) return "";
    const [date, time] = timeText(Math.round(1000 * tick), zone).split(" ");
    const isNew = date !== before;
    before = date;
    if (distance >= 86400) return date;
    const text = distance < 60 ? time : time.slice(0, 5);
    return isNew ? `${text}\n${date}` : text;
  });
}
