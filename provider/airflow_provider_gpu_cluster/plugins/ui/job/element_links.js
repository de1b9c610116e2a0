// From an element of an array to the others, and to all of them.

import { Chakra, html, Router } from "../airflow.js";

/** @param {{address: object, job: object}} props */
export function ElementLinks({ address, job }) {
  const [query] = Router.useSearchParams();
  if (job.element === null || job.element === undefined) return null;
  const index = Number(job.element);
  const to = (element) => {
    const search = new URLSearchParams(query);
    if (element === null) search.delete("element");
    else search.set("element", element);
    return { search: search.toString() };
  };
  const count = job.element_count;
  return html`<${Chakra.Flex} as="nav" aria-label="Elements of the array" gap=${3} mb=${2} fontSize="sm" wrap="wrap">
    <${Step} to=${to(null)}>All elements<//>
    ${index > 0 && html`<${Step} to=${to(index - 1)}>← Element ${index - 1}<//>`}
    <${Chakra.Text} as="span" fontWeight="bold" aria-current="page">Element ${index}${count ? ` of ${count}` : ""}<//>
    ${(!count || index + 1 < count) && html`<${Step} to=${to(index + 1)}>Element ${index + 1} →<//>`}
  <//>`;
}

const Step = ({ to, children }) => html`<${Chakra.Link} as=${Router.Link} to=${to} color="fg.info">${children}<//>`;
