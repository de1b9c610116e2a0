// Facts of a job: where it runs, since when, and how it has ended.

import { html } from "../airflow.js";
import { bytesText, wordsText } from "../parts/number_text.js";
import { Facts, Section } from "../parts/section.js";
import { Duration, Time } from "../parts/time.js";

/** @param {{job: object}} props */
export function JobFacts({ job }) {
  const recovered = Object.entries(job.recovered).map(([reason, times]) => `${wordsText(reason)} (${times})`);
  const facts = [
    ["Attempt", job.attempt],
    ["Went on by itself after", recovered.join(", ")],
    ["Elements", job.array?.size],
    ["GPUs", job.gpus.length ? `${job.gpu_count} (${job.gpus.length === 1 ? "index" : "indexes"} ${job.gpus.join(", ")})` : job.gpu_count],
    [job.nodes.length > 1 ? "Nodes" : "Host", job.nodes.length > 1 ? job.nodes.join(", ") : job.host],
    ["Submitted", job.submitted_at && html`<${Time} at=${job.submitted_at} />`],
    ["Started", job.started_at && html`<${Time} at=${job.started_at} />`],
    ["Ended", job.ended_at && html`<${Time} at=${job.ended_at} />`],
    ["Ran", job.started_at && (job.ended_at || !job.is_final) && html`<${Duration} start=${job.started_at} end=${job.ended_at} />`],
    ["Exit code", job.exit_code],
    ["Signal", job.signal],
    ["Log", job.log_bytes ? bytesText(job.log_bytes) : null],
    ["Connection", job.conn_id],
    ["Engine", job.engine],
  ];
  return html`<${Section} title="Facts">
    <${Facts} facts=${facts} />
    <${Facts} mt=${3} facts=${[["Directory", job.job_dir]]} />
  <//>`;
}
