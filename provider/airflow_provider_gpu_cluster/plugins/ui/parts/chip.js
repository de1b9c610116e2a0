// The state of a job, as Airflow shows states: its sizes, its colours, an icon beside the word.

import { Chakra, html } from "../airflow.js";

/** Drawings on a square of 24, each one line. */
export const MARKS = {
  tick: "M5 13l4 4L19 7",
  cross: "M6 6l12 12M18 6L6 18",
  play: "M8 5l11 7-11 7z",
  clock: "M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M12 7v5l3 3",
  bar: "M5 12h14M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18",
  question: "M9 9a3 3 0 1 1 4 3c-1 .5-1 1-1 2M12 18v.5",
};
// On Airflow's own cyan and orange, white letters have too little contrast (3.6 and 3.2 to 1): these are the next darker shades.
const LOOKS = {
  QUEUED: { palette: "queued", mark: "clock", word: "Queued" },
  RUNNING: { palette: "running", solid: "cyan.700", mark: "play", word: "Running" },
  SUCCEEDED: { palette: "success", mark: "tick", word: "Succeeded" },
  FAILED: { palette: "failed", mark: "cross", word: "Failed" },
  CANCELLED: { palette: "skipped", mark: "bar", word: "Cancelled" },
  LOST: { palette: "upstream_failed", solid: "orange.700", mark: "question", word: "Lost" },
  UNKNOWN: { palette: "none", mark: "question", word: "Unknown" },
};

/** Airflow's colour palette of a job's state, the colour of its chip, its mark, and its word.
 *  @param {string | null | undefined} state */
export function lookOf(state) {
  const look = LOOKS[state] ?? { palette: "none", mark: "question", word: state ? String(state) : "No state" };
  return { solid: `${look.palette}.solid`, ...look };
}

/** All states, in the order of a job's life. */
export const STATES = Object.keys(LOOKS);

/** A small drawing beside a word; it says nothing that the word does not. */
export function Mark({ name, size = "1em" }) {
  return html`<${Chakra.Icon} boxSize=${size} aria-hidden="true">
    <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="2.5" strokeLinecap="round" strokeLinejoin="round">
      <path d=${MARKS[name] ?? ""} />
    </svg>
  <//>`;
}

/** The state of a job.
 *  @param {{state: string | null | undefined}} props others go to Chakra's Badge */
export function StateChip({ state, children, ...others }) {
  const { palette, solid, mark, word } = lookOf(state);
  return html`<${Chakra.Badge} bg=${solid} borderRadius="full" color=${`${palette}.contrast`} colorPalette=${palette} data-state=${state ?? ""}
      fontSize="sm" px=${2} py=${1} variant="solid" whiteSpace="nowrap" ...${others}>
    <${Mark} name=${mark} />${word}${children}
  <//>`;
}

/** A neutral word in a chip's form, such as a GPU's type.
 *  @param {{palette?: string}} props */
export const Tag = ({ palette = "gray", children, ...others }) =>
  html`<${Chakra.Badge} borderRadius="full" colorPalette=${palette} fontSize="xs" px=${2} variant="subtle" ...${others}>${children}<//>`;
