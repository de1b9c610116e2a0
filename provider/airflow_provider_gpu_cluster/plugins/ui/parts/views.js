// The pages of the navigation entry: all jobs, and the clusters. They look like the tabs of Airflow's own pages.

import { Chakra, html, Router } from "../airflow.js";

const VIEWS = { jobs: ["Jobs", "?"], clusters: ["Clusters", "?view=clusters"] };

/** @param {{current: "jobs" | "clusters"}} props */
export function Views({ current }) {
  return html`<${Chakra.Flex} as="nav" aria-label="GPU pages" borderBottomWidth=${1} gap=${1} mb=${4}>
    ${Object.entries(VIEWS).map(([name, [label, to]]) => {
      const isHere = name === current;
      return html`<${Chakra.Link} key=${name} asChild borderBottomWidth=${2} color=${isHere ? "fg" : "fg.muted"}
          borderColor=${isHere ? "brand.solid" : "transparent"} fontWeight=${isHere ? "semibold" : "normal"} mb="-1px" px=${3} py=${2}>
        <${Router.Link} to=${to} aria-current=${isHere ? "page" : undefined}>${label}<//>
      <//>`;
    })}
  <//>`;
}
