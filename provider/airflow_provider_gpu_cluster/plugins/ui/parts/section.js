// A part of a page with a heading.

import { Chakra, html, React } from "../airflow.js";

/** @param {{title: string, actions?: any, children: any}} props `actions` stand beside the heading */
export function Section({ title, actions = null, children, ...others }) {
  const id = React.useId();
  return html`<${Chakra.Box} as="section" aria-labelledby=${id} mb=${6} minW=${0} ...${others}>
    <${Chakra.Flex} align="center" justify="space-between" gap=${2} mb=${2} wrap="wrap">
      <${Chakra.Heading} as="h3" id=${id} size="sm">${title}<//>
      ${actions}
    <//>
    ${children}
  <//>`;
}

/** What is known of a thing, each with its label as in the head of Airflow's pages; what is empty is left out.
 *  @param {{facts: [string, any][]}} props */
export function Facts({ facts, ...others }) {
  const known = facts.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false);
  return html`<${Chakra.SimpleGrid} as="dl" columnGap=${6} rowGap=${3} minChildWidth="10rem" ...${others}>
    ${known.map(
      ([label, value]) => html`<${Chakra.Box} key=${label} minW=${0}>
        <${Chakra.Text} as="dt" color="fg.muted" fontSize="xs" fontWeight="bold">${label}<//>
        <${Chakra.Box} as="dd" fontSize="sm" overflowWrap="anywhere">${value}<//>
      <//>`,
    )}
  <//>`;
}
