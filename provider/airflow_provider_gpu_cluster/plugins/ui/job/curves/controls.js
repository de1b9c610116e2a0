// How the curves are drawn: over what, how smooth, on which scale.

import { Chakra, html, React } from "../../airflow.js";

/** @param {{options: {value: string, label: string}[], value: string, choose: (value: string) => void, label: string}} props */
export function Choice({ options, value, choose, label }) {
  const id = React.useId();
  return html`<${Chakra.Flex} align="center" gap=${2}>
    <${Chakra.chakra.label} htmlFor=${id} fontSize="sm">${label}<//>
    <${Chakra.NativeSelect.Root} size="sm" width="auto">
      <${Chakra.NativeSelect.Field} id=${id} value=${value} onChange=${(event) => choose(event.target.value)}>
        ${options.map((one) => html`<option key=${one.value} value=${one.value}>${one.label}</option>`)}
      <//>
      <${Chakra.NativeSelect.Indicator} />
    <//>
  <//>`;
}

/** @param {{value: number, choose: (value: number) => void}} props */
export function Smoothing({ value, choose }) {
  const id = React.useId();
  return html`<${Chakra.Flex} align="center" gap=${2}>
    <${Chakra.chakra.label} htmlFor=${id} fontSize="sm">Smoothing<//>
    <input id=${id} type="range" min="0" max="0.99" step="0.01" value=${value} onChange=${(event) => choose(Number(event.target.value))} style=${{ width: "7rem" }} />
    <${Chakra.Text} as="span" fontSize="sm" color="fg.muted" fontVariantNumeric="tabular-nums" minW="2.2em">${value.toFixed(2)}<//>
  <//>`;
}

/** @param {{isOn: boolean, choose: (isOn: boolean) => void, label: string, isDisabled?: boolean}} props */
export function Toggle({ isOn, choose, label, isDisabled = false }) {
  return html`<${Chakra.Checkbox.Root} size="sm" checked=${isOn} disabled=${isDisabled} onCheckedChange=${({ checked }) => choose(checked === true)} minW=${0}>
    <${Chakra.Checkbox.HiddenInput} />
    <${Chakra.Checkbox.Control} />
    <${Chakra.Checkbox.Label} fontWeight="normal" overflowWrap="anywhere" dir="auto">${label}<//>
  <//>`;
}
