// What the charts of a job have in common: the cursor, the part that is shown, and where attempts begin.

import { React } from "../../airflow.js";
import { wordsText } from "../../parts/number_text.js";
import { cursorBus } from "./cursor_bus.js";

/** The cursor of all charts. */
export const useCursorBus = () => React.useMemo(cursorBus, []);

/** Where on a time axis attempts begin after the first.
 *  @param {object[]} sections @returns {{x: number, text: string}[]} */
export function attemptMarks(sections) {
  return sections
    .slice(1)
    .map(({ attempt, started_at, resumed_from }) => ({ x: Date.parse(started_at ?? "") / 1000, text: markText(attempt, resumed_from) }))
    .filter(({ x }) => Number.isFinite(x));
}

/** @param {number} attempt @param {string | null} resumedFrom the reason for which the attempt before ended */
export const markText = (attempt, resumedFrom) => `attempt ${attempt}${resumedFrom ? ` after ${wordsText(resumedFrom)}` : ""}`;
