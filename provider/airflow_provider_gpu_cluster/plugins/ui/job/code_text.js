// Text as it is, in the letters of code, with a button that copies it.

import { Chakra, html } from "../airflow.js";

/** @param {{label: string, text: string}} props */
export const CodeText = ({ label, text }) => html`<${Chakra.Box} position="relative" minW=${0}>
  <${Chakra.chakra.pre} tabIndex=${0} role="region" aria-label=${label} dir="ltr" bg="bg.muted" borderRadius="md" fontFamily="mono" fontSize="xs"
    m=${0} maxH="24rem" overflow="auto" p=${3} pe=${12} whiteSpace="pre-wrap" overflowWrap="anywhere">${text}<//>
  ${globalThis.isSecureContext && html`<${Chakra.Button} aria-label=${`Copy: ${label}`} size="2xs" variant="surface" position="absolute" top=${2} insetEnd=${2}
    onClick=${() => navigator.clipboard.writeText(text)}>Copy<//>`}
<//>`;
