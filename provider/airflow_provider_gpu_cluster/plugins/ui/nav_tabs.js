// The two sides of the page in the navigation, as Airflow shows tabs.

import { Chakra, html, Router } from "./airflow.js";

const TABS = [
  { view: "jobs", label: "GPU jobs", search: "" },
  { view: "clusters", label: "GPU clusters", search: "?view=clusters" },
];

/** @param {{view: string}} props */
export function NavTabs({ view }) {
  const here = view === "job" ? "jobs" : view;
  return html`<${Chakra.Flex} as="nav" aria-label="GPU" borderBottomColor="border.emphasized" borderBottomWidth=${1} mb=${2}>
    ${TABS.map((tab) => {
      const isHere = tab.view === here;
      return html`<${Router.Link} key=${tab.view} to=${{ search: tab.search }} aria-current=${isHere ? "page" : undefined}>
        <${Chakra.Center} _hover=${{ color: "fg" }} borderBottomColor="border.info" borderBottomWidth=${isHere ? 3 : 0} color=${isHere ? "fg" : "fg.muted"}
            fontWeight="bold" height="40px" mb="-2px" pb=${isHere ? 0 : "3px"} px=${4}>${tab.label}<//>
      <//>`;
    })}
  <//>`;
}
