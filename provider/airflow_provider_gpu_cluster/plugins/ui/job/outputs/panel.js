// What a job has written into its outputs: a list with sizes and checksums, previews, downloads, and its final metrics.

import { Chakra, html, React } from "../../airflow.js";
import { Busy, Empty, Notice, Spoken } from "../../parts/notice.js";
import { bytesText, countText } from "../../parts/number_text.js";
import { Section } from "../../parts/section.js";
import { DataTable } from "../../parts/table.js";
import { Time } from "../../parts/time.js";
import { MetricsTable } from "./metrics_table.js";
import { shortened, visible, whyNot } from "./names.js";
import { DownloadLink, PreviewDialog } from "./preview.js";
import { Sha256 } from "./sha256.js";
import { useOutputs } from "./use_outputs.js";

/** @param {{address: object, job: object, live: object}} props */
export function OutputsPanel({ address, job }) {
  return html`<${Chakra.Box} pt=${3}>
    ${!job.array && html`<${MetricsTable} address=${address} job=${job} />`}
    <${OutputList} address=${address} job=${job} />
  <//>`;
}

function OutputList({ address, job }) {
  const [contains, setContains] = React.useState("");
  const [shown, setShown] = React.useState(null);
  const list = useOutputs(address, contains, job);
  const { outputs, totals, collected, error, isBusy, hasMore, more, reload } = list;
  const columns = [
    { name: "Output", of: (output) => html`<${Name} output=${output} onOpen=${() => setShown(output)} />`, wraps: true },
    { name: "Size", of: (output) => (["file", "collected"].includes(output.kind) ? bytesText(output.size) : ""), isNumber: true },
    { name: "Modified", of: (output) => html`<${Time} at=${output.modified_at} />` },
    { name: "SHA-256", of: (output) => (output.kind === "file" || output.sha256) && html`<${Sha256} address=${address} output=${output} />` },
    { name: "Download", of: (output) => output.kind === "file" && html`<${DownloadLink} address=${address} output=${output} />` },
  ];
  const actions = html`<${Chakra.Flex} gap=${2} wrap="wrap">
    <${Chakra.Input} aria-label="Show only outputs whose path has this text" placeholder="Filter paths" size="sm" w="14rem" value=${contains}
      onChange=${(event) => setContains(event.target.value)} />
    <${Chakra.Button} size="sm" variant="outline" onClick=${reload}>Look again<//>
  <//>`;
  return html`<${Section} title="Outputs" actions=${actions}>
    ${collected.map((one) => html`<${Collected} key=${`${one.task_id} ${one.map_index}`} collected=${one} />`)}
    ${error && html`<${Notice} status="warning">${error}<//>`}
    <${Spoken}>${isBusy || !totals ? "" : sumText(totals, contains)}<//>
    ${totals && html`<${Chakra.Text} color="fg.muted" fontSize="sm" mb=${2}>${sumText(totals, contains)}<//>`}
    ${outputs !== null && html`<${DataTable} label="Outputs" columns=${columns} rows=${outputs} keyOf=${(output) => output.path_base64 ?? output.path}
        empty=${contains ? "No output has this text in its path." : "The job has written no outputs so far."} />`}
    ${isBusy && html`<${Busy} label="The outputs are listed." />`}
    ${hasMore && !isBusy && html`<${Chakra.Button} mt=${2} size="sm" variant="outline" onClick=${more}>Show more<//>`}
    <${PreviewDialog} address=${address} output=${shown} onClose=${() => setShown(null)} />
  <//>`;
}

const sumText = ({ files, bytes, is_whole: isWhole }, contains) =>
  `${isWhole ? "" : "More than "}${countText(files, "file")}, ${bytesText(bytes)}${contains ? " with this text in the path" : ""}`;

function Name({ output, onOpen }) {
  const name = shortened(visible(output.path) || "(all outputs)", 160);
  const why = whyNot(output);
  if (why) {
    return html`<${Chakra.Text} as="span" dir="ltr">${name}<//><${Chakra.Text} as="span" color="fg.muted" display="block" fontSize="xs">${why}<//>`;
  }
  return html`<${Chakra.Button} variant="plain" color="fg.info" h="auto" minW=${0} p=${0} fontSize="sm" fontWeight="normal" textAlign="start" whiteSpace="normal"
      overflowWrap="anywhere" dir="ltr" title=${output.target ? `a link to ${visible(output.target)}` : undefined} onClick=${onOpen}>${name}<//>`;
}

const Collected = ({ collected }) => html`<${Chakra.Text} fontSize="sm" mb=${2} overflowWrap="anywhere">
  ${countText(collected.files, "file")} collected by task ${collected.task_id}${collected.map_index >= 0 ? ` [${collected.map_index}]` : ""} to
  ${" "}<${Chakra.Code} size="sm">${visible(collected.destination)}<//>, <${Time} at=${collected.at} />
<//>`;
