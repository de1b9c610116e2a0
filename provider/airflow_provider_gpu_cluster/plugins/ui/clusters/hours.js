// The use of the last hours, as a small drawing.

import { Chakra, html } from "../airflow.js";
import { useZone } from "../parts/time.js";
import { timeText } from "../parts/time_text.js";
import { hourBars, hoursText } from "./hour_bars.js";

const SIZE = { width: 240, height: 40 };

/** @param {{hours: any[], gpus: number}} props */
export function Hours({ hours, gpus }) {
  const zone = useZone();
  const text = hoursText(hours);
  return html`<${Chakra.Box} as="figure" maxW="28rem">
    <svg role="img" aria-label=${text} viewBox=${`0 0 ${SIZE.width} ${SIZE.height}`} preserveAspectRatio="none" style=${{ display: "block", height: "3rem", width: "100%" }}>
      <line x1="0" x2=${SIZE.width} y1=${SIZE.height} y2=${SIZE.height} stroke="var(--chakra-colors-border)" vectorEffect="non-scaling-stroke" />
      ${hourBars(hours, gpus, SIZE).map(
        ({ x, y, width, height, busyHeight, hour }) => html`<g key=${hour.begins_at}>
          <title>${`${timeText(hour.begins_at, zone)}: ${hour.gpu_hours.toFixed(2)} GPU-hours leased`}</title>
          <rect x=${x} y="0" width=${width} height=${SIZE.height} fill="transparent" />
          <rect x=${x} y=${y} width=${width} height=${height} fill="var(--chakra-colors-running-muted)" />
          <rect x=${x} y=${SIZE.height - busyHeight} width=${width} height=${busyHeight} fill="var(--chakra-colors-running-solid)" />
        </g>`,
      )}
    </svg>
    <${Chakra.Text} as="figcaption" color="fg.muted" fontSize="xs">${text}.<//>
  <//>`;
}
