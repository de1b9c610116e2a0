// The second view of a job: attempts, what ran, and who has done what.

import { Chakra, html } from "../airflow.js";

/** @param {{address: object, job: object, live: object}} props */
export function Details({ job }) {
  return html`<${Chakra.Box} pt=${3} />`;
}
