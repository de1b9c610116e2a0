// Who waits for GPUs, in which order, and why; and who has some.

import { html } from "../airflow.js";
import { DataTable } from "../parts/table.js";
import { Time } from "../parts/time.js";
import { JobLink } from "./gpu_cells.js";

const JOB = { name: "Job", of: (job) => html`<${JobLink} job=${job} />`, wraps: true };
const USER = { name: "User", of: (job) => job.user ?? "" };
const GPUS = { name: "GPUs", of: (job) => `${job.gpus}${job.gpu_type ? ` ${job.gpu_type}` : ""}`, isNumber: true };
const WAITING = [
  { name: "Place", of: (job) => job.place ?? "", isNumber: true },
  JOB,
  USER,
  GPUS,
  { name: "Why it waits", of: (job) => job.why ?? "", wraps: true },
  { name: "Submitted", of: (job) => html`<${Time} at=${job.submitted_at} />` },
  { name: "Expected start", of: (job) => html`<${Time} at=${job.expected_at} />` },
];
const RUNNING = [
  JOB,
  USER,
  GPUS,
  { name: "Since", of: (job) => html`<${Time} at=${job.since} />` },
  { name: "Until at the latest", of: (job) => html`<${Time} at=${job.until} />` },
];

/** @param {{jobs: any[], label: string}} props */
export function QueueTable({ jobs, label }) {
  const columns = jobs.some((job) => job.expected_at) ? WAITING : WAITING.slice(0, -1);
  return html`<${DataTable} label=${label} columns=${columns} rows=${jobs} empty="Nobody waits." />`;
}

/** @param {{jobs: any[], label: string}} props */
export const RunningTable = ({ jobs, label }) => html`<${DataTable} label=${label} columns=${RUNNING} rows=${jobs} empty="No job has GPUs." />`;
