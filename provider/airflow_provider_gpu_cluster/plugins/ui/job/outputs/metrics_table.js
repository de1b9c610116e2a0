// The final metrics of a job, as its metrics.json has them.

import { html, React } from "../../airflow.js";
import { get, jobPath } from "../../api.js";
import { Empty, Notice } from "../../parts/notice.js";
import { countText, numberText } from "../../parts/number_text.js";
import { Section } from "../../parts/section.js";
import { DataTable } from "../../parts/table.js";
import { visible } from "./names.js";

const COLUMNS = [
  { name: "Metric", of: ([name]) => visible(name), wraps: true },
  { name: "Value", of: ([, value]) => (typeof value === "string" ? visible(value) : numberText(value)), isNumber: true },
];

/** @param {{address: object, job: object}} props */
export function MetricsTable({ address, job }) {
  const [found, setFound] = React.useState(null);
  const [error, setError] = React.useState("");
  React.useEffect(() => {
    const leaving = new AbortController();
    get(jobPath(address, "metrics"), { signal: leaving.signal }).then(
      (metrics) => [setFound(metrics), setError("")],
      (failure) => leaving.signal.aborted || setError(failure.message),
    );
    return () => leaving.abort();
  }, [address, job.state, job.attempt]);
  if (error) return html`<${Section} title="Final metrics"><${Notice} status="warning">${error}<//><//>`;
  const rows = Object.entries(found?.metrics ?? {});
  if (!found || !(rows.length || found.problem || job.is_final)) return null;
  const more = found.count - rows.length;
  return html`<${Section} title="Final metrics">
    ${found.problem && html`<${Notice} status="warning">${visible(found.problem)}<//>`}
    ${rows.length > 0 && html`<${DataTable} label="Final metrics" columns=${COLUMNS} rows=${rows} keyOf=${([name]) => name} />`}
    ${!rows.length && !found.problem && html`<${Empty}>The job has left no metrics.json.<//>`}
    ${more > 0 && html`<${Empty}>${countText(more, "more metric")} in metrics.json.<//>`}
  <//>`;
}
