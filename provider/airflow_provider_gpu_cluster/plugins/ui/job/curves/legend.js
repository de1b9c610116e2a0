// The names of a chart's lines, with their values under the cursor.

import { Chakra, html } from "../../airflow.js";
import { lookOf } from "./palette.js";

/** @param {{plot: import("./plot.js").Plot, values: (number | null)[], unit: object, isDark: boolean}} props */
export function Legend({ plot, values, unit, isDark }) {
  const entries = new Map();
  plot.lines.forEach((line, index) => {
    if (line.isRaw) return;
    const entry = entries.get(line.name) ?? { ...line, texts: [] };
    const value = values[index];
    // Of several attempts at one step, each has its value.
    if (value !== null && value !== undefined) entry.texts.push(unit.text(value));
    entries.set(line.name, entry);
  });
  return html`<${Chakra.Flex} as="ul" listStyleType="none" wrap="wrap" columnGap=${4} fontSize="xs" maxH="6rem" overflowY="auto" tabIndex=${entries.size > 12 ? 0 : undefined} aria-label="Lines of the chart">
    ${[...entries.values()].map(
      ({ name, label, look, texts }) => html`<${Chakra.Flex} as="li" key=${name} align="center" gap=${1} minW=${0}>
        <${Swatch} look=${look} isDark=${isDark} />
        <${Chakra.Text} as="span" overflowWrap="anywhere" dir="auto">${label}<//>
        <${Chakra.Text} as="span" color="fg.muted" fontVariantNumeric="tabular-nums" whiteSpace="nowrap">${texts.slice(-3).join(" / ")}<//>
      <//>`,
    )}
  <//>`;
}

function Swatch({ look, isDark }) {
  const { color, dash } = lookOf(look, isDark);
  return html`<svg width="28" height="8" aria-hidden="true" focusable="false" style=${{ flexShrink: 0 }}>
    <line x1="0" y1="4" x2="28" y2="4" stroke=${color} strokeWidth="2.5" strokeDasharray=${dash.join(" ") || undefined} />
  </svg>`;
}
