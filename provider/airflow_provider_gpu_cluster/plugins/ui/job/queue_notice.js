// Why a job waits, since when, at which place, and when it may start.

import { Chakra, html } from "../airflow.js";
import { Facts, Section } from "../parts/section.js";
import { Duration, Time } from "../parts/time.js";

/** @param {{queue: object | null}} props */
export function QueueNotice({ queue }) {
  if (!queue) return null;
  const facts = [
    ["Place in the queue", queue.place],
    ["Waits since", queue.since && html`<${Time} at=${queue.since} />`],
    ["Has waited", queue.since && html`<${Duration} start=${queue.since} />`],
    ["Expected start", queue.expected_start && html`<${Time} at=${queue.expected_start} relative />`],
  ];
  return html`<${Section} title="Waiting">
    ${queue.why && html`<${Chakra.Text} mb=${2} overflowWrap="anywhere" whiteSpace="pre-line">${queue.why[0].toUpperCase()}${queue.why.slice(1)}<//>`}
    <${Facts} facts=${facts} />
  <//>`;
}
