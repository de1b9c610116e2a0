// What a job has asked for, beside what it has used.

import { html } from "../airflow.js";
import { Section } from "../parts/section.js";
import { DataTable } from "../parts/table.js";
import { resourceRows } from "./resource_rows.js";

const COLUMNS = [
  { name: "Resource", of: (row) => row.name },
  { name: "Asked for", of: (row) => row.asked },
  { name: "Used", of: (row) => row.used, wraps: true },
];

/** @param {{job: object}} props */
export function Resources({ job }) {
  const rows = resourceRows(job.resources);
  if (!rows.length) return null;
  return html`<${Section} title="Resources"><${DataTable} label="Resources" columns=${COLUMNS} rows=${rows} keyOf=${(row) => row.name} /><//>`;
}
