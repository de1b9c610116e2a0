// How far a job is, with the latest of the values that it reports.

import { Chakra, html } from "../airflow.js";
import { numberText } from "../parts/number_text.js";
import { durationText } from "../parts/time_text.js";

/** @param {{progress: object | null, isFinal: boolean}} props */
export function ProgressLine({ progress, isFinal }) {
  if (!progress) return null;
  const { step, total, label, values, seconds_left: left } = progress;
  const hasBar = typeof step === "number" && typeof total === "number" && total > 0;
  return html`<${Chakra.Box} mt=${3}>
    ${hasBar && html`<${Chakra.Progress.Root} value=${step} max=${total} size="sm" colorPalette=${isFinal ? "gray" : "running"} aria-label="Progress" maxW="40rem">
      <${Chakra.Progress.Track}><${Chakra.Progress.Range} /><//>
    <//>`}
    <${Chakra.Flex} as="dl" fontSize="sm" columnGap=${4} rowGap=${1} wrap="wrap" mt=${1}>
      ${label && html`<${Value} name="Progress">${label}<//>`}
      ${!isFinal && typeof left === "number" && html`<${Value} name="Left">about ${durationText(left)}<//>`}
      ${Object.entries(values ?? {}).map(([name, value]) => html`<${Value} key=${name} name=${name}>${numberText(value)}<//>`)}
    <//>
  <//>`;
}

const Value = ({ name, children }) => html`<${Chakra.Flex} gap=${1} minW=${0}>
  <${Chakra.Text} as="dt" color="fg.muted">${name}<//><${Chakra.Text} as="dd" overflowWrap="anywhere">${children}<//>
<//>`;
