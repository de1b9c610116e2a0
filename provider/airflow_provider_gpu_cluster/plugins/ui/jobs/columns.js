// The columns of the list of jobs, and what they show of a row.

import { address, html } from "../airflow.js";
import { lookOf, MARKS } from "../parts/chip.js";
import { numberText, wordsText } from "../parts/number_text.js";
import { durationText, secondsBetween, timeText } from "../parts/time_text.js";
import { dagLink, jobLink, runJobsLink } from "./job_link.js";

/**
 * @typedef {{id: string, label: string, of: (row: any, context: {zone: string, now: number}) => any, first?: "ascending" | "descending",
 *   isSortable?: boolean, isNumber?: boolean, isNarrow?: boolean, isOfRun?: boolean}} Column
 *   `first` is the order after the first click; `isNarrow`: also on a narrow page; `isOfRun` is false for what all jobs of a run share
 */

/** @type {Column[]} */
export const COLUMNS = [
  { id: "task_id", label: "Job", of: taskCell, isSortable: true, isNarrow: true },
  { id: "state", label: "State", of: stateCell, isSortable: true, isNarrow: true },
  { id: "progress", label: "Progress", of: progressCell },
  { id: "dag_id", label: "DAG", of: (row) => link(dagLink(row), row.dag_id), isSortable: true, isOfRun: false },
  { id: "run_id", label: "Run", of: (row) => link(runJobsLink(row), row.run_id), isSortable: true, isOfRun: false },
  { id: "gpus", label: "GPUs", of: gpusCell, isSortable: true, isNumber: true, first: "descending" },
  { id: "submitted_at", label: "Submitted", of: submittedCell, isSortable: true, isNarrow: true, first: "descending" },
  { id: "started_at", label: "Duration", of: durationCell, isNumber: true },
  { id: "gpu_seconds", label: "GPU-hours", of: gpuHoursCell, isSortable: true, isNumber: true, first: "descending" },
  { id: "conn_id", label: "Cluster", of: (row) => html`<bdi>${row.conn_id}</bdi>`, isSortable: true },
  { id: "user", label: "User", of: (row) => html`<bdi>${row.user}</bdi>`, isSortable: true },
];

/** A link of Airflow's router, for `useLinks`. */
const link = (path, text, isBold = false) =>
  html`<a href=${address(path)} data-to=${path} title=${text} className=${isBold ? "bold" : ""}><bdi>${text}</bdi></a>`;

function taskCell(row) {
  const mapped = row.map_index >= 0 ? ` [${row.map_index}]` : "";
  const many = row.element_count ? html` <span className="muted">${row.element_count} elements</span>` : null;
  const earlier = row.is_latest === false ? html` <span className="tag" title="From before the task was cleared">earlier</span>` : null;
  return html`${link(jobLink(row), `${row.task_id}${mapped}`, true)}${many}${earlier}`;
}

// Why an attempt ran no further on its cluster: that is no end of the job.
const WENT = new Set(["withdrawn", "fenced", "expired"]);

function stateCell(row) {
  const told = WENT.has(row.kind) ? "went to another cluster" : wordsText(row.kind || row.reason);
  const why = row.is_latest === false && row.state === "UNKNOWN" ? "" : told;
  const { mark, word } = lookOf(row.state);
  return html`<span className="chip" data-state=${row.state}>
      <svg viewBox="0 0 24 24" aria-hidden="true"><path d=${MARKS[mark]} /></svg>${word}
    </span>${" "}
    ${why && why !== row.state.toLowerCase() && html`<span className="muted" title=${row.message ?? ""}>${why}</span>`}
    ${row.attempt > 1 && html`<span className="muted"> attempt ${row.attempt}</span>`}`;
}

function progressCell({ progress, metrics }) {
  if (progress && typeof progress.step === "number" && typeof progress.total === "number" && progress.total > 0) {
    const percent = Math.max(0, Math.min(100, Math.floor((100 * progress.step) / progress.total)));
    return html`<progress max="100" value=${percent} aria-label="Progress"></progress>${" "}<span className="muted">${percent} %</span>`;
  }
  const [name, value] = Object.entries(metrics ?? {}).find(([, found]) => typeof found === "number") ?? [];
  if (name) return html`<span className="muted"><bdi>${name.slice(0, 40)}</bdi> ${numberText(value)}</span>`;
  return progress && typeof progress.step === "number" ? html`<span className="muted">step ${numberText(progress.step)}</span>` : null;
}

function gpusCell(row) {
  if (row.gpus === null) return null;
  const each = row.element_count ? " each" : "";
  return html`${row.gpus}${row.gpu_type ? html` <span className="muted">${row.gpu_type}</span>` : null}${each}`;
}

function submittedCell(row, { zone }) {
  return html`<time dateTime=${row.submitted_at} title=${zone}>${timeText(row.submitted_at, zone)}</time>`;
}

function durationCell(row, { now }) {
  const isOver = Boolean(row.ended_at);
  const seconds = secondsBetween(row.started_at, isOver ? row.ended_at : now);
  if (seconds !== null) return durationText(isOver ? seconds : Math.floor(seconds));
  return row.state === "QUEUED" ? html`<span className="muted">waits ${durationText(Math.floor(secondsBetween(row.submitted_at, now) ?? 0))}</span>` : null;
}

function gpuHoursCell({ gpu_seconds: held, used_gpu_seconds: used }) {
  if (held === null) return null;
  const share = used === null || !held ? "" : `${Math.round((100 * used) / held)} % used`;
  return html`${hoursText(held / 3600)} ${share && html`<span className="muted">${share}</span>`}`;
}

/** Hours, with as many digits as say something. */
export const hoursText = (hours) =>
  hours >= 100 ? Math.round(hours).toLocaleString("en-US") : hours >= 10 ? hours.toFixed(1) : hours.toFixed(2);
