// A square for each element, those that have failed first. Arrow keys go from one to the next; a square leads to its element.

import { Chakra, html, React } from "../../airflow.js";
import { lookOf } from "../../parts/chip.js";
import { wordsText } from "../../parts/number_text.js";
import { stepOf } from "./order.js";

// Beside the colour, which not everybody tells apart.
const SIGNS = { FAILED: "✕", LOST: "?", CANCELLED: "–", UNKNOWN: "?", RUNNING: "▸", QUEUED: "…", SUCCEEDED: "✓" };
const STYLE = {
  "& a": {
    alignItems: "center", borderRadius: "sm", bg: "none.solid", color: "none.contrast", display: "inline-flex", fontSize: "xs", fontVariantNumeric: "tabular-nums",
    gap: "0.15rem", h: "1.5rem", justifyContent: "center", minW: "2.75rem", px: "0.25rem", textDecoration: "none",
  },
  "& a:focus-visible": { outline: "2px solid", outlineColor: "fg", outlineOffset: "2px" },
  ...Object.fromEntries(
    Object.keys(SIGNS).map((state) => [`& a[data-state=${state}]`, { bg: `${lookOf(state).palette}.solid`, color: `${lookOf(state).palette}.contrast` }]),
  ),
};

/** @param {{states: {index: number, state: string, reason: string | null}[], linkOf: (index: number) => string, onOpen: (index: number) => void}} props */
export const Squares = React.memo(function Squares({ states, linkOf, onOpen }) {
  const [current, setCurrent] = React.useState(null);
  const box = React.useRef(null);
  const place = Math.max(0, states.findIndex(({ index }) => index === current));

  function press(event) {
    const links = [...box.current.querySelectorAll("a")];
    const at = links.indexOf(event.target.closest("a"));
    const columns = links.filter(({ offsetTop }) => offsetTop === links[0].offsetTop).length;
    const next = at < 0 ? null : stepOf(event.key, at, links.length, columns);
    if (next === null) return;
    event.preventDefault();
    links[next].focus();
    setCurrent(states[next].index);
  }
  function open(event) {
    const link = event.target.closest("a");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
    event.preventDefault();
    onOpen(Number(link.dataset.index));
  }

  return html`<${Chakra.Flex} as="ul" ref=${box} aria-label="Elements, those that have failed first" css=${STYLE} gap="3px" listStyleType="none" maxH="16rem"
      onClick=${open} onKeyDown=${press} overflowY="auto" p="3px" wrap="wrap">
    ${states.map(
      ({ index, state, reason }, at) => html`<li key=${index}><a href=${linkOf(index)} data-index=${index} data-state=${state} tabIndex=${at === place ? 0 : -1}
          aria-label=${`Element ${index}: ${lookOf(state).word}${reason ? `, ${wordsText(reason)}` : ""}`}
          title=${`${index}: ${lookOf(state).word}${reason ? `, ${wordsText(reason)}` : ""}`}><span aria-hidden="true">${SIGNS[state] ?? "?"}</span>${index}</a></li>`,
    )}
  <//>`;
});
