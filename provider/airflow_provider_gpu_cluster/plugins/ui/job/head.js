// What one sees first: which job, how it stands, why, what to do about it, and what one can do to it.

import { Chakra, html, Router } from "../airflow.js";
import { StateChip, Tag } from "../parts/chip.js";
import { wordsText } from "../parts/number_text.js";
import { Notice, Spoken } from "../parts/notice.js";
import { Time } from "../parts/time.js";
import { Buttons } from "./buttons.js";
import { ElementLinks } from "./element_links.js";
import { PartLinks } from "./part_links.js";
import { ProgressLine } from "./progress_line.js";

/** @param {{address: object, job: object, live: object}} props */
export function Head({ address, job, live }) {
  const why = job.reason && wordsText(job.kind ?? job.reason);
  return html`<${Chakra.Box} as="header" mb=${4}>
    <${Chakra.Flex} align="center" gap=${3} wrap="wrap" mb=${2}>
      <${Chakra.Heading} as="h2" size="md" overflowWrap="anywhere" dir="ltr">${job.job_id}<//>
      <${StateChip} state=${job.state} />
      ${why && why !== job.state.toLowerCase() && html`<${Tag} palette=${job.state === "SUCCEEDED" ? "gray" : "failed"}>${why}<//>`}
      <${Chakra.Box} flex="1" />
      <${Buttons} address=${address} job=${job} refresh=${live.refresh} />
    <//>
    <${Spoken}>${`The job is ${job.state.toLowerCase()}.`}<//>
    <${ElementLinks} address=${address} job=${job} />
    ${job.array?.parts && html`<${PartLinks} job=${job} />`}
    ${address.connId && html`<${Notice} mb=${2}>This is what the job did on ${job.conn_id}. It may have gone on elsewhere. <${ToLatest} /><//>`}
    ${address.jobId && !address.connId && !job.array?.parts && html`<${Notice} mb=${2}>This is an earlier job of the task, from before it was cleared. <${ToLatest} /><//>`}
    ${job.headline && html`<${Chakra.Text} overflowWrap="anywhere" whiteSpace="pre-line" maxH="12rem" overflowY="auto" tabIndex=${job.headline.length > 600 ? 0 : undefined}>${job.headline}<//>`}
    ${job.remedy && html`<${Chakra.Text} color="fg.muted" overflowWrap="anywhere"><b>What to do:</b> ${job.remedy}<//>`}
    <${Outage} job=${job} live=${live} />
    ${job.idle && html`<${Notice} status="warning" mt=${3} mb=${0}>${job.idle}<//>`}
    <${ProgressLine} progress=${job.progress} isFinal=${job.is_final} />
    ${!job.may.read_log && html`<${Chakra.Text} color="fg.muted" fontSize="sm" mt=${2}>What the job printed and reported is for those who may read this DAG's task logs.<//>`}
  <//>`;
}

const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

/** That the cluster, or Airflow, cannot be asked now, since when, and how old that is which is shown. */
function Outage({ job, live }) {
  const error = live.outage?.error ?? job.error ?? live.error?.message;
  if (!error) return null;
  const since = live.outage?.since ?? job.error_since;
  return html`<${Notice} status="warning" title="What is shown may be out of date" mt=${3} mb=${0}>
    ${sentence(error)}${since && html` Since <${Time} at=${since} relative />.`}
    ${job.as_of ? html` What is shown is as of <${Time} at=${job.as_of} />.` : " The cluster has not told anything of this job since Airflow's API server was started."}
  <//>`;
}

function ToLatest() {
  const [query] = Router.useSearchParams();
  const rest = new URLSearchParams(query);
  rest.delete("job_id");
  rest.delete("conn_id");
  return html`<${Chakra.Link} as=${Router.Link} to=${{ search: rest.toString() }} textDecoration="underline">Show the latest<//>`;
}
