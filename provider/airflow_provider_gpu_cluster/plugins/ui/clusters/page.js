// The clusters of this Airflow: where a GPU is free, and who has the others.

import { Chakra, html } from "../airflow.js";

export function ClustersPage() {
  return html`<${Chakra.Heading} size="md">Clusters<//>`;
}
