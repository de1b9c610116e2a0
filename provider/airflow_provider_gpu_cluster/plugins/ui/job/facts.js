// Facts of a job: where and when it runs, what it asked for, what it uses.

import { html } from "../airflow.js";
import { Facts, Section } from "../parts/section.js";
import { Duration, Time } from "../parts/time.js";

/** @param {{job: object}} props */
export function JobFacts({ job }) {
  const facts = [
    ["Attempt", job.attempt || null],
    ["Host", job.host],
    ["Submitted", job.submitted_at && html`<${Time} at=${job.submitted_at} />`],
    ["Started", job.started_at && html`<${Time} at=${job.started_at} />`],
    ["Ended", job.ended_at && html`<${Time} at=${job.ended_at} />`],
    ["Duration", job.started_at && html`<${Duration} start=${job.started_at} end=${job.ended_at} />`],
    ["Exit code", job.exit_code],
    ["Signal", job.signal],
    ["Connection", job.conn_id],
    ["Engine", job.engine],
    ["Directory", job.job_dir],
  ];
  return html`<${Section} title="Facts"><${Facts} facts=${facts} /><//>`;
}
