// One cluster: where a GPU is free, who has the others, who waits, and what is wrong.

import { Chakra, html, React } from "../airflow.js";
import { Tag } from "../parts/chip.js";
import { Busy, Empty, Notice } from "../parts/notice.js";
import { bytesText, countText } from "../parts/number_text.js";
import { Facts, Section } from "../parts/section.js";
import { Time } from "../parts/time.js";
import { GpuCells } from "./gpu_cells.js";
import { kindsText, usualNodes } from "./gpu_text.js";
import { Hours } from "./hours.js";
import { Nodes } from "./nodes.js";
import { QueueTable, RunningTable } from "./queue.js";
import { useCluster } from "./use_cluster.js";

/** @param {{connId: string, onLook: (cluster: any) => void}} props `onLook` hears what is known now */
export function ClusterCard({ connId, onLook }) {
  const { cluster, error, isBusy, test } = useCluster(connId);
  const id = React.useId();
  React.useEffect(() => {
    if (cluster) onLook(cluster);
  }, [cluster]);
  const isAsked = !error && (!cluster || cluster.is_up === null);
  return html`<${Chakra.Box} as="section" aria-labelledby=${id} borderWidth=${1} borderRadius="md" mb=${4} minW=${0} p=${4}>
    <${Chakra.Flex} align="center" gap=${2} mb=${2} wrap="wrap">
      <${Chakra.Heading} as="h2" id=${id} size="md" overflowWrap="anywhere">${connId}<//>
      ${cluster?.engine && html`<${Tag}>${cluster.engine}<//>`}
      ${cluster?.counts && cluster.is_up && html`<${FreeChip} counts=${cluster.counts} launcher=${cluster.launcher} />`}
      ${cluster?.host && html`<${Chakra.Text} color="fg.muted" fontSize="sm">${cluster.host}<//>`}
      <${Chakra.Spacer} />
      ${cluster?.may.test && html`<${Chakra.Button} size="xs" variant="outline" loading=${isBusy} loadingText="Testing" onClick=${test}>Test now<//>`}
    <//>
    ${error && html`<${Notice} status="error">${error}<//>`}
    ${isAsked && html`<${Busy} label=${`${connId} is being asked`} />`}
    ${cluster?.is_up === false && html`<${Outage} cluster=${cluster} />`}
    ${cluster?.fault && html`<${Notice} status="warning" title="Its GPUs are not known now">${cluster.fault}<//>`}
    ${cluster?.as_of && html`<${Known} cluster=${cluster} />`}
  <//>`;
}

/** The number that people look for. */
function FreeChip({ counts, launcher }) {
  if (launcher) return null;
  const palette = counts.free ? "success" : "queued";
  return html`<${Chakra.Badge} borderRadius="full" color=${`${palette}.contrast`} colorPalette=${palette} fontSize="sm" px=${2} variant="solid">
    ${counts.free} of ${countText(counts.gpus, "GPU")} free
  <//>`;
}

const Outage = ({ cluster }) => html`<${Notice} status="error" title="It cannot be asked">
  ${cluster.error} <${Chakra.Text} as="span" display="block" color="fg.muted">
    Since <${Time} at=${cluster.down_since} relative />${cluster.as_of ? html`; below is what was known then.` : "."}
  <//>
<//>`;

function Known({ cluster }) {
  const waiting = cluster.jobs.filter((job) => !job.is_running);
  const running = cluster.jobs.filter((job) => job.is_running);
  const counts = cluster.counts;
  const kinds = kindsText(usualNodes(cluster));
  return html`<${Chakra.Box} opacity=${cluster.is_up ? 1 : 0.8}>
    ${kinds && html`<${Chakra.Text} fontSize="sm" mb=${2}>${kinds}<//>`}
    <${Problems} cluster=${cluster} />
    ${cluster.launcher
      ? html`<${Empty}>Jobs go to ${cluster.launcher}, which alone knows the GPUs.<//>
          <${RunningTable} jobs=${running} label=${`Jobs that run on ${cluster.conn_id}`} />`
      : html`<${Gpus} cluster=${cluster} />`}
    ${counts?.waiting_jobs > 0 &&
    html`<${Section} title=${`Queue: ${countText(counts.waiting_jobs, "job")} for ${countText(counts.waiting_gpus, "GPU")}`} mt=${4}>
      <${QueueTable} jobs=${waiting} label=${`Queue of ${cluster.conn_id}`} />
      ${counts.waiting_jobs > waiting.length && html`<${Empty}>${countText(counts.waiting_jobs - waiting.length, "further job")} not listed.<//>`}
    <//>`}
    <${Chakra.Flex} gap=${8} mt=${4} wrap="wrap">
      ${cluster.hours.length > 0 && html`<${Chakra.Box} flex="1 1 16rem" minW=${0}><${Hours} hours=${cluster.hours} gpus=${counts?.gpus ?? 0} /><//>`}
      <${Chakra.Box} flex="2 1 16rem" minW=${0}><${Facts} facts=${factsOf(cluster)} /><//>
    <//>
  <//>`;
}

function Gpus({ cluster }) {
  if (cluster.partitions.length) return html`<${Nodes} cluster=${cluster} />`;
  return cluster.nodes.map((node, place) => html`<${GpuCells} key=${place} gpus=${node.gpus} jobs=${cluster.jobs} />`);
}

function Problems({ cluster }) {
  const { findings } = cluster;
  const told = [...cluster.problems, ...(findings?.warnings ?? [])].filter((text, place, all) => all.indexOf(text) === place);
  return html`
    ${findings?.error && html`<${Notice} status="error" title="The last test failed">${findings.error}<//>`}
    ${told.length > 0 &&
    html`<${Notice} status="warning" title=${told.length === 1 ? "" : countText(told.length, "warning")}>
      ${told.length === 1 ? told[0] : html`<${Chakra.List.Root} ps=${4}>${told.map((text) => html`<${Chakra.List.Item} key=${text}>${text}<//>`)}<//>`}
    <//>`}`;
}

const factsOf = ({ disk, root_dir: root, programs, findings }) => [
  ["Disk", disk && `${bytesText(disk.free)} of ${bytesText(disk.total)} free${root ? ` in ${root}` : ""}`],
  ...Object.entries(programs),
  ["Tested", findings && html`<${Time} at=${findings.at} />`],
];
