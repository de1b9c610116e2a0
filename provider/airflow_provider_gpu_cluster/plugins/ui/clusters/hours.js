// The use of the last hours, as a small drawing.

import { Chakra, html } from "../airflow.js";
import { useZone } from "../parts/time.js";
import { timeText } from "../parts/time_text.js";
import { fullHeightText, hourBars, hoursText } from "./hour_bars.js";

const SIZE = { width: 240, height: 40 };

/** @param {{hours: any[], gpus: number}} props */
export function Hours({ hours, gpus }) {
  const zone = useZone();
  const text = hoursText(hours);
  if (!hours.some((hour) => hour.gpu_hours > 0)) return html`<${Chakra.Text} color="fg.muted" fontSize="xs">${text}.<//>`;
  return html`<${Chakra.Box} as="figure" maxW="28rem">
    <${Chakra.Box} borderWidth=${1} borderRadius="sm" overflow="hidden">
      <svg role="img" aria-label=${text} viewBox=${`0 0 ${SIZE.width} ${SIZE.height}`} preserveAspectRatio="none" style=${{ display: "block", height: "3.5rem", width: "100%" }}>
        ${hourBars(hours, gpus, SIZE).map(
          ({ x, y, width, height, busyHeight, hour }) => html`<g key=${hour.begins_at}>
            <title>${`${timeText(hour.begins_at, zone)}: ${hour.gpu_hours.toFixed(2)} GPU-hours leased`}</title>
            <rect x=${x} y="0" width=${width} height=${SIZE.height} fill="transparent" />
            <rect x=${x} y=${y} width=${width} height=${height} fill="var(--chakra-colors-running-muted)" />
            <rect x=${x} y=${SIZE.height - busyHeight} width=${width} height=${busyHeight} fill="var(--chakra-colors-running-solid)" />
          </g>`,
        )}
      </svg>
    <//>
    <${Chakra.Flex} aria-hidden="true" color="fg.muted" fontSize="xs" justify="space-between">
      <span>${timeText(hours[0].begins_at, zone).slice(11, 16)}</span>
      <span>${fullHeightText(gpus)}</span>
      <span>now</span>
    <//>
    <${Chakra.Text} as="figcaption" color="fg.muted" fontSize="xs">${text}.<//>
  <//>`;
}
