// The first view of a job: the line of its life, its curves, and the facts.

import { Chakra, html } from "../airflow.js";
import { CurvesPanel } from "./curves/panel.js";
import { JobFacts } from "./facts.js";
import { LifeLine } from "./life/panel.js";

/** @param {{address: object, job: object, live: object}} props */
export function Overview({ address, job, live }) {
  return html`<${Chakra.Box} pt=${3}>
    <${LifeLine} address=${address} job=${job} live=${live} />
    <${CurvesPanel} address=${address} job=${job} live=${live} />
    <${JobFacts} job=${job} />
  <//>`;
}
