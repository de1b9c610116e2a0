// The line of a job's life: staged, queued, each attempt, recoveries, collected; to scale.

import { Chakra, html, React } from "../../airflow.js";
import { lookOf } from "../../parts/chip.js";
import { Section } from "../../parts/section.js";
import { Time, useNow } from "../../parts/time.js";
import { durationText } from "../../parts/time_text.js";
import { Toggle } from "../curves/controls.js";
import { lineOf } from "./scale.js";

const PALETTES = { staging: "deferred", building: "restarting", queued: "queued", recovering: "up_for_retry", collecting: "scheduled" };
// Each kind has a form of its own as well, so that it is told without its colour.
const STRIPES = "repeating-linear-gradient(135deg, rgba(255, 255, 255, 0.45) 0 3px, transparent 3px 8px)";
const DOTS = "radial-gradient(rgba(255, 255, 255, 0.6) 1.5px, transparent 1.5px)";
const FORMS = { queued: { backgroundImage: STRIPES }, recovering: { backgroundImage: STRIPES }, staging: { backgroundImage: DOTS, backgroundSize: "6px 6px" }, building: { backgroundImage: DOTS, backgroundSize: "6px 6px" } };

/** @param {{address: object, job: object, live: object}} props */
export function LifeLine({ job }) {
  const parts = job.life ?? [];
  const lasts = parts.some(({ end }) => end === null);
  const now = useNow(lasts, 1000);
  const [isToScale, setIsToScale] = React.useState(false);
  const line = lineOf(parts, now);
  if (!line.placed.length) return null;
  const isCompressed = !line.isEven && !isToScale;
  const shown = isCompressed ? line.compressed : line.placed;
  const states = new Map((job.attempts ?? []).map(({ attempt, state }) => [attempt, state]));
  const paletteOf = ({ kind, attempt }) => PALETTES[kind] ?? lookOf(states.get(attempt)).palette;
  const actions = !line.isEven && html`<${Toggle} label="To scale" isOn=${isToScale} choose=${setIsToScale} />`;
  return html`<${Section} title=${`Life, ${durationText(Math.floor(line.seconds))}`} actions=${actions}>
    <${Chakra.Box} aria-hidden="true" position="relative" h="1.75rem" bg="bg.muted" borderRadius="sm" overflow="hidden">
      ${shown.map((part, index) => html`<${Bar} key=${index} part=${part} palette=${paletteOf(part)} />`)}
    <//>
    ${isCompressed && html`<${Chakra.Text} fontSize="xs" color="fg.muted" mt=${1}>Not to scale: short parts are drawn longer, so that they can be seen.<//>`}
    <${Chakra.Flex} as="ol" listStyleType="none" wrap="wrap" columnGap=${5} rowGap=${1} mt=${2} fontSize="sm" maxH=${line.placed.length > 12 ? "9rem" : undefined} overflowY="auto" aria-label="Parts of the job's life" tabIndex=${line.placed.length > 12 ? 0 : undefined}>
      ${line.placed.map(
        (part, index) => html`<${Chakra.Flex} as="li" key=${index} align="center" gap=${1.5} minW=${0} wrap="wrap">
          <${Chakra.Box} boxSize="0.75rem" borderRadius="2px" flexShrink=${0} bg=${`${paletteOf(part)}.solid`} style=${FORMS[part.kind]} aria-hidden="true" />
          <${Chakra.Text} as="span">${part.label}<//>
          <${Chakra.Text} as="span" color="fg.muted">${part.kind === "collecting" ? null : `${durationText(part.end === null ? Math.floor(part.seconds) : part.seconds)}${part.end === null ? " so far" : ""}, from `}<${Time} at=${part.start} /><//>
        <//>`,
      )}
    <//>
  <//>`;
}

function Bar({ part, palette }) {
  return html`<${Chakra.Box} position="absolute" top=${0} bottom=${0} bg=${`${palette}.solid`} color=${`${palette}.contrast`} title=${part.label}
      overflow="hidden" whiteSpace="nowrap" fontSize="xs" lineHeight="1.75rem"
      style=${{ left: `min(${100 * part.left}%, calc(100% - 4px))`, width: `max(3px, ${100 * part.width}%)`, ...FORMS[part.kind] }} borderRightWidth="1px" borderColor="bg">
    ${part.width > 0.15 && !FORMS[part.kind] ? html`<${Chakra.Text} as="span" px=${1}>${part.label}<//>` : null}
  <//>`;
}
