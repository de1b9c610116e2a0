// The clusters of this Airflow: where a GPU is free, and who has the others.

import { Chakra, html, React } from "../airflow.js";
import { Busy, Empty, Notice, Spoken } from "../parts/notice.js";
import { ClusterCard } from "./card.js";
import { summaryText } from "./gpu_text.js";
import { useClusters } from "./use_cluster.js";

const SPOKEN_EVERY_MS = 60_000;

export function ClustersPage() {
  const { clusters, error } = useClusters();
  const [looks, setLooks] = React.useState({});
  const onLook = React.useCallback((cluster) => setLooks((before) => ({ ...before, [cluster.conn_id]: cluster })), []);
  const summary = clusters ? summaryText(clusters.map((one) => looks[one.conn_id] ?? one)) : "";
  const spoken = useSeldom(summary);
  return html`<${Chakra.Box}>
    ${error && html`<${Notice} status="error">${error}<//>`}
    ${!clusters && !error && html`<${Busy} label="The clusters are looked up" />`}
    ${clusters?.length === 0 && html`<${Empty}>There is no connection of type GPU cluster that you may see, and none of your DAGs has jobs on one.<//>`}
    ${summary && html`<${Chakra.Heading} as="h1" size="lg" mb=${4}>${summary}<//>`}
    <${Spoken}>${spoken}<//>
    ${clusters?.map(({ conn_id: connId }) => html`<${ClusterCard} key=${connId} connId=${connId} onLook=${onLook} />`)}
  <//>`;
}

/** A text that changes at most once a minute, for who hears it. */
function useSeldom(text) {
  const [spoken, setSpoken] = React.useState("");
  const at = React.useRef(0);
  React.useEffect(() => {
    const timer = setTimeout(() => {
      at.current = Date.now();
      setSpoken(text);
    }, Math.max(1000, at.current + SPOKEN_EVERY_MS - Date.now()));
    return () => clearTimeout(timer);
  }, [text]);
  return spoken;
}
