// What one sees first: which job, how it stands, why, and what to do about it.

import { Chakra, html, React } from "../airflow.js";
import { StateChip } from "../parts/chip.js";
import { Notice, Spoken } from "../parts/notice.js";
import { Time } from "../parts/time.js";
import { ProgressLine } from "./progress_line.js";

/** @param {{address: object, job: object, live: object}} props */
export function Head({ address, job, live }) {
  const outage = live.outage?.error ?? job.error ?? live.error?.message;
  return html`<${Chakra.Box} as="header" mb=${4}>
    <${Chakra.Flex} align="center" gap=${3} wrap="wrap" mb=${2}>
      <${Chakra.Heading} as="h2" size="md" overflowWrap="anywhere" dir="ltr">${job.job_id}<//>
      <${StateChip} state=${job.state} />
    <//>
    <${Spoken}>${`The job is ${job.state}.`}<//>
    ${job.headline && html`<${Chakra.Text} overflowWrap="anywhere" whiteSpace="pre-line">${job.headline}<//>`}
    ${job.remedy && html`<${Chakra.Text} color="fg.muted" overflowWrap="anywhere">What to do: ${job.remedy}<//>`}
    ${outage && html`<${Notice} status="warning" title="The cluster cannot be asked now" mt=${3}>
      ${outage} ${job.as_of && html`What is shown is as of <${Time} at=${job.as_of} relative />.`}
    <//>`}
    ${job.idle && html`<${Notice} status="warning" mt=${3}>${job.idle}<//>`}
    <${ProgressLine} progress=${job.progress} isFinal=${job.is_final} />
  <//>`;
}
