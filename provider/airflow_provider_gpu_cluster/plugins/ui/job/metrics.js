// The numbers of metrics.json.

import { html } from "../airflow.js";
import { numberText } from "../parts/number_text.js";
import { Facts, Section } from "../parts/section.js";

const MOST = 200;

/** @param {{metrics: any}} props */
export function Metrics({ metrics }) {
  if (metrics === null || metrics === undefined || typeof metrics !== "object") return null;
  const all = Object.entries(metrics);
  if (!all.length) return null;
  const facts = all.slice(0, MOST).map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value)?.slice(0, 200) : numberText(value)]);
  return html`<${Section} title="Final metrics">
    <${Facts} facts=${facts} />${all.length > MOST && ` and ${all.length - MOST} more, in metrics.json`}
  <//>`;
}
