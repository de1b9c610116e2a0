// The GPUs of a host, one cell each: with everything about it, in words as well as in colour.

import { Chakra, html, Router } from "../airflow.js";
import { gpuText, jobTab, jobText, lookOf, memoryText, percentText, stateOf } from "./gpu_text.js";
import { squares } from "./squares.js";

/** @param {{gpus: any[], jobs: any[]}} props */
export function GpuCells({ gpus, jobs }) {
  return html`<${Chakra.SimpleGrid} as="ul" gap=${2} listStyleType="none" minChildWidth="11rem">
    ${gpus.map((gpu, place) => html`<${GpuCell} key=${place} gpu=${gpu} job=${jobs[gpu.job] ?? null} label=${gpuText(gpu, jobs)} />`)}
  <//>`;
}

function GpuCell({ gpu, job, label }) {
  const { word, palette, note } = lookOf(gpu);
  const isFree = gpu.state === "free" && !note;
  return html`<${Chakra.Box} as="li" aria-label=${label} data-state=${gpu.state} borderWidth=${1} borderStyle=${isFree ? "dashed" : "solid"}
      borderColor=${isFree ? "success.solid" : "border"} borderRadius="md" bg=${isFree ? undefined : "bg.muted"} minW=${0} p=${2}>
    <${Chakra.Flex} align="center" justify="space-between" gap=${2} wrap="wrap">
      <${Chakra.Text} fontSize="sm" fontWeight="bold">${gpu.index ?? "GPU"}<//>
      <${Chakra.Badge} borderRadius="full" colorPalette=${palette} color=${isFree ? `${palette}.contrast` : undefined} px=${2}
          variant=${isFree ? "solid" : "subtle"} whiteSpace="normal">${word}<//>
    <//>
    <${Chakra.Text} color="fg.muted" fontSize="xs" overflowWrap="anywhere">${gpu.type}<//>
    ${job && html`<${Chakra.Text} fontSize="sm" overflowWrap="anywhere"><${JobLink} job=${job} /><//>`}
    ${job?.user && html`<${Chakra.Text} color="fg.muted" fontSize="xs">${job.user}<//>`}
    ${note && html`<${Chakra.Text} fontSize="xs" overflowWrap="anywhere">${note}<//>`}
    ${gpu.used_by && html`<${Chakra.Text} fontSize="xs" overflowWrap="anywhere">${gpu.used_by}<//>`}
    <${Meter} label="Use" text=${percentText(gpu.percent)} share=${typeof gpu.percent === "number" ? gpu.percent / 100 : null} />
    <${Meter} label="Memory" text=${memoryText(gpu)} share=${gpu.memory_mb && typeof gpu.used_mb === "number" ? gpu.used_mb / gpu.memory_mb : null} />
  <//>`;
}

/** The task of a job, as a link where it may be seen. */
export function JobLink({ job }) {
  const text = jobText(job);
  if (!job.task) return html`<${Chakra.Text} as="span">${text}<//>`;
  return html`<${Chakra.Link} asChild color="fg.info"><${Router.Link} to=${jobTab(job.task)}>${text}<//><//>`;
}

function Meter({ label, text, share }) {
  if (!text) return null;
  return html`<${Chakra.Box} mt=${1}>
    <${Chakra.Flex} color="fg.muted" fontSize="xs" gap=${2} justify="space-between"><span>${label}</span><span>${text}</span><//>
    ${share !== null &&
    html`<${Chakra.Box} aria-hidden="true" bg="border" borderRadius="full" h="4px" overflow="hidden">
      <${Chakra.Box} bg="brand.solid" h="100%" w=${`${Math.round(100 * Math.min(1, Math.max(0, share)))}%`} />
    <//>`}
  <//>`;
}

/** What the squares of nodes mean. */
export const Legend = () => html`<${Chakra.Flex} aria-hidden="true" gap=${3} mb=${2} wrap="wrap">
  ${["free", "leased", "other", "down"].map(
    (state) => html`<${Chakra.Flex} key=${state} align="center" fontSize="xs" gap=${1}><${Squares} gpus=${[{ state }]} />${stateOf(state).word}<//>`,
  )}
<//>`;

/** The GPUs of a node as small squares: empty, full, half or crossed out. Plain elements, as there may be thousands. */
export function Squares({ gpus }) {
  const { width, height, shapes } = squares(gpus);
  return html`<svg aria-hidden="true" width=${width} height=${height} style=${{ display: "block", flexShrink: 0 }}>
    ${shapes.map(({ state, outline, filled }) => {
      const color = `var(--chakra-colors-${stateOf(state).palette}-solid)`;
      return html`<g key=${state} fill="none" stroke=${color} strokeWidth="1.5">
        <path d=${outline} strokeDasharray=${state === "free" ? "2 1.5" : undefined} />
        ${filled && html`<path d=${filled} fill=${color} />`}
      </g>`;
    })}
  </svg>`;
}
