// The first view of a job: why it waits, the line of its life, its curves, and the facts.

import { Chakra, html } from "../airflow.js";
import { Section } from "../parts/section.js";
import { CurvesPanel } from "./curves/panel.js";
import { JobFacts } from "./facts.js";
import { LifeLine } from "./life/panel.js";
import { Metrics } from "./metrics.js";
import { QueueNotice } from "./queue_notice.js";
import { Resources } from "./resources.js";

/** @param {{address: object, job: object, live: object}} props */
export function Overview({ address, job, live }) {
  return html`<${Chakra.Box} pt=${3}>
    <${QueueNotice} queue=${job.queue} />
    <${LifeLine} address=${address} job=${job} live=${live} />
    <${CurvesPanel} address=${address} job=${job} live=${live} />
    <${JobFacts} job=${job} />
    <${Resources} job=${job} />
    <${Metrics} metrics=${job.metrics} />
    ${job.advice.length > 0 && html`<${Section} title="For the next one">
      <${Chakra.Box} as="ul" fontSize="sm" listStyleType="disc" ps=${5}>
        ${job.advice.map((sentence) => html`<li key=${sentence}>${sentence[0].toUpperCase()}${sentence.slice(1)}.</li>`)}
      <//>
    <//>`}
  <//>`;
}
