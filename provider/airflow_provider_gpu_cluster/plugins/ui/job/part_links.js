// From one part of an array whose elements are on several clusters to the others.

import { Chakra, html, Router } from "../airflow.js";

/** @param {{job: object}} props */
export function PartLinks({ job }) {
  const [query] = Router.useSearchParams();
  const to = (part) => {
    const search = new URLSearchParams(query);
    search.set("job_id", part.job_id);
    return { search: search.toString() };
  };
  const elements = job.array.parts.reduce((sum, part) => sum + part.count, 0);
  const clusters = new Set(job.array.parts.map((part) => part.conn_id)).size;
  return html`<${Chakra.Flex} as="nav" aria-label="Parts of the array" gap=${3} mb=${2} fontSize="sm" wrap="wrap">
    <span>${`Part of an array of ${elements} elements, in ${job.array.parts.length} parts on ${clusters === 1 ? "one cluster" : `${clusters} clusters`}:`}</span>
    ${job.array.parts.map((part) => {
      const text = `${part.first} to ${part.first + part.count - 1} on ${part.conn_id}`;
      return part.job_id === job.job_id
        ? html`<${Chakra.Text} key=${part.job_id} as="span" fontWeight="bold" aria-current="page">${text}<//>`
        : html`<${Chakra.Link} key=${part.job_id} as=${Router.Link} to=${to(part)} color="fg.info">${text}<//>`;
    })}
  <//>`;
}
