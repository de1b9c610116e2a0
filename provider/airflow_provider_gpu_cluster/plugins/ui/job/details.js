// The last view of a job: its attempts, what it runs, of which code, and who has done what with it.

import { Chakra, html, Router } from "../airflow.js";
import { StateChip } from "../parts/chip.js";
import { bytesText, countText, wordsText } from "../parts/number_text.js";
import { Empty, Notice } from "../parts/notice.js";
import { Section } from "../parts/section.js";
import { DataTable } from "../parts/table.js";
import { Duration, Time } from "../parts/time.js";
import { CodeText } from "./code_text.js";

/** @param {{address: object, job: object, live: object}} props */
export function Details({ job }) {
  const elsewhere = (job.earlier ?? []).filter((row) => row.job_id === job.job_id);
  const earlier = (job.earlier ?? []).filter((row) => row.job_id !== job.job_id);
  return html`<${Chakra.Box} pt=${3}>
    ${job.notes.map((note) => html`<${Notice} key=${note} status="warning">${note}<//>`)}
    <${Section} title="Attempts"><${DataTable} label="Attempts" columns=${attemptColumns(job)} rows=${[...job.attempts].reverse()} keyOf=${(row) => row.attempt} empty="Nothing was launched yet." /><//>
    <${Section} title="Command">
      ${job.command ? html`<${CodeText} label="Command" text=${job.command} />` : html`<${Empty}>Not known now.<//>`}
      ${job.script && html`<${Chakra.Box} as="details" mt=${2}><${Chakra.chakra.summary} cursor="pointer" fontSize="sm">The whole run.sh<//><${CodeText} label="run.sh" text=${job.script} /><//>`}
    <//>
    <${Section} title="Code and inputs"><${DataTable} label="Code and inputs" columns=${CODE} rows=${job.code} keyOf=${(row) => row.place} empty="No code or data was brought in." /><//>
    <${Section} title="Environment variables">
      ${job.env_names.length ? html`<${CodeText} label="Names of environment variables" text=${job.env_names.join("\n")} />` : html`<${Empty}>It was given none of its own.<//>`}
      <${Chakra.Text} color="fg.muted" fontSize="xs" mt=${1}>Names alone: values may be secret.<//>
    <//>
    <${Section} title="Audit trail"><${DataTable} label="Audit trail" columns=${ACTS} rows=${[...job.acts].reverse()} empty="Nothing is recorded." /><//>
    ${elsewhere.length > 0 && html`<${Section} title="On other clusters"><${DataTable} label="On other clusters" columns=${ELSEWHERE} rows=${elsewhere} keyOf=${(row) => row.conn_id} />
      <${Chakra.Text} color="fg.muted" fontSize="xs" mt=${1}>Logs, curves and outputs of its attempts there are shown from there.<//><//>`}
    ${earlier.length > 0 && html`<${Section} title="Earlier jobs of this task"><${DataTable} label="Earlier jobs" columns=${EARLIER} rows=${earlier} keyOf=${(row) => `${row.conn_id} ${row.job_id}`} /><//>`}
  <//>`;
}

const ATTEMPTS = [
  { name: "Attempt", of: (row) => row.attempt, isNumber: true },
  { name: "State", of: (row) => row.state && html`<${StateChip} state=${row.state} />` },
  { name: "Started", of: (row) => html`<${Time} at=${row.started_at} />` },
  { name: "Ran", of: (row) => row.started_at && (row.ended_at || row.state === "RUNNING") && html`<${Duration} start=${row.started_at} end=${row.ended_at} />` },
  { name: "Host", of: (row) => row.host },
  { name: "Why it ended", of: (row) => [wordsText(row.kind ?? row.reason), row.message].filter(Boolean).join(": "), wraps: true },
  { name: "Checkpoint", of: (row) => row.checkpoint },
  { name: "Exit", of: (row) => row.exit_code ?? (row.signal ? `signal ${row.signal}` : ""), isNumber: true },
];

/** The cluster of each, if they were on several. */
function attemptColumns(job) {
  if (job.attempts.every((row) => row.conn_id === job.conn_id)) return ATTEMPTS;
  const cluster = { name: "Cluster", of: (row) => (row.conn_id === job.conn_id ? row.conn_id : html`<${PlaceLink} connId=${row.conn_id}>${row.conn_id}<//>`) };
  return [ATTEMPTS[0], cluster, ...ATTEMPTS.slice(1)];
}

const CODE = [
  { name: "Place", of: (row) => row.place },
  { name: "Source", of: (row) => row.source, wraps: true },
  { name: "Version", of: (row) => row.commit ? `commit ${row.commit}` : row.checksum && `checksum ${row.checksum}`, wraps: true },
  { name: "Size", of: (row) => (row.files ? `${countText(row.files, "file")}, ${bytesText(row.bytes)}` : "") },
];

const ACTS = [
  { name: "When", of: (row) => html`<${Time} at=${row.at} empty=${row.at} />` },
  { name: "What", of: (row) => row.act },
  { name: "Attempt", of: (row) => row.attempt, isNumber: true },
  { name: "By", of: (row) => who(row), wraps: true },
  { name: "From", of: (row) => [row.host, row.address].filter(Boolean).join(" from ") },
  { name: "Details", of: (row) => row.details, wraps: true },
];

function who({ by, through, try_number: number }) {
  const means = [through, number && `try ${number}`].filter(Boolean).join(", ");
  return means ? `${by} (${means})` : by;
}

const EARLIER = [
  { name: "Job", of: (row) => html`<${PlaceLink} id=${row.job_id} connId=${row.conn_id}>${row.job_id}<//>` },
  { name: "State", of: (row) => html`<${StateChip} state=${row.state} />` },
  { name: "Submitted", of: (row) => html`<${Time} at=${row.submitted_at} />` },
];

const ELSEWHERE = [
  { name: "Cluster", of: (row) => html`<${PlaceLink} connId=${row.conn_id}>${row.conn_id}<//>` },
  { name: "Attempt", of: (row) => row.attempt, isNumber: true },
  // Its state may be older than that: the page there asks its cluster.
  { name: "Submitted", of: (row) => html`<${Time} at=${row.submitted_at} />` },
];

/** A link to an earlier job, or to the same job where it was before. */
function PlaceLink({ id = null, connId, children }) {
  const [query] = Router.useSearchParams();
  const search = new URLSearchParams(query);
  if (id) search.set("job_id", id);
  search.set("conn_id", connId);
  return html`<${Chakra.Link} as=${Router.Link} to=${{ search: search.toString() }} color="fg.info">${children}<//>`;
}
