// Chooses which of many numbers are shown.

import { Chakra, html, React } from "../../airflow.js";
import { countText } from "../../parts/number_text.js";
import { Toggle } from "./controls.js";

/** So many curves are shown at once, so that a page stays quick. */
export const MOST_SHOWN = 24;

/** @param {{metrics: import("./history.js").Name[], moreNames: number, shown: string[], choose: (names: string[]) => void}} props */
export function MetricPicker({ metrics, moreNames, shown, choose }) {
  const [search, setSearch] = React.useState("");
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = metrics.filter(({ name }) => words.every((word) => name.toLowerCase().includes(word)));
  const chosen = new Set(shown);
  const isFull = chosen.size >= MOST_SHOWN;
  const toggle = (name) => choose(chosen.has(name) ? shown.filter((one) => one !== name) : [...shown, name]);
  return html`<${Chakra.Box} as="fieldset" borderWidth="1px" borderRadius="md" p=${2} mb=${3} minW=${0}>
    <${Chakra.VisuallyHidden} as="legend">Metrics that are shown<//>
    <${Chakra.Flex} gap=${2} align="center" wrap="wrap" mb=${2}>
      <${Chakra.Input} size="sm" maxW="20rem" type="search" value=${search} onChange=${(event) => setSearch(event.target.value)} placeholder="Search metrics" aria-label="Search metrics" />
      <${Chakra.Text} fontSize="xs" color="fg.muted" role="status">${`${countText(found.length, "metric")}, ${shown.length} shown${isFull ? ` (at most ${MOST_SHOWN})` : ""}${moreNames ? `; ${countText(moreNames, "more name")} not listed` : ""}`}<//>
      <${Chakra.Button} size="xs" variant="ghost" disabled=${!found.length} onClick=${() => choose(found.slice(0, MOST_SHOWN).map(({ name }) => name))}>Show ${words.length ? "found" : "first"} ${Math.min(found.length, MOST_SHOWN)}<//>
      <${Chakra.Button} size="xs" variant="ghost" disabled=${!shown.length} onClick=${() => choose([])}>Show none<//>
    <//>
    <${Chakra.SimpleGrid} as="ul" listStyleType="none" minChildWidth="14rem" columnGap=${3} maxH="10rem" overflowY="auto" tabIndex=${found.length ? undefined : 0} aria-label="Metrics">
      ${found.map(
        ({ name }) => html`<${Chakra.Box} as="li" key=${name} minW=${0}>
          <${Toggle} label=${name} isOn=${chosen.has(name)} isDisabled=${isFull && !chosen.has(name)} choose=${() => toggle(name)} />
        <//>`,
      )}
    <//>
  <//>`;
}
