// The rows of a log.

import { Chakra, html, React } from "../../airflow.js";
import { piecesOf } from "./ansi.js";
import { coloursOf } from "./colours.js";
import { marked, marksIn } from "./search_state.js";

/** How the rows look, by the classes that they have: in light and dark each its own colours. */
export const ROWS_CSS = {
  "& .line": { display: "flex", unicodeBidi: "isolate", minHeight: "1.5em", scrollMarginBlock: "4em" },
  "& .line:hover": { background: "var(--chakra-colors-bg-emphasized)" },
  "& .line.found": { background: "var(--log-found-line)" },
  "& .line.chosen": { boxShadow: "inset 3px 0 0 var(--chakra-colors-border-info, #2563eb)", background: "var(--log-chosen-line)" },
  "& .place": { flex: "none", width: "1.75em", userSelect: "none", textAlign: "center", textDecoration: "none", color: "var(--chakra-colors-fg-muted)" },
  "& .place::before": { content: '"#"', opacity: 0 },
  "& .line:hover .place::before, & .place:focus-visible::before, & .line.chosen .place::before": { opacity: 1 },
  "& .line.piece .place::before": { content: '"\\21AA"', opacity: 1 },
  "& .text": { flex: 1, minWidth: 0, paddingInlineEnd: "1em", tabSize: 8 },
  "& .ink": { color: "var(--light)", background: "var(--light-ground)" },
  ".dark & .ink": { color: "var(--dark)", background: "var(--dark-ground)" },
  "& .mark": { border: "1px dotted", borderRadius: "2px", fontSize: "0.85em", color: "#9a3412" },
  ".dark & .mark": { color: "#fdba74" },
  "& mark": { background: "#fde047", color: "#18181b", borderRadius: "2px" },
  "& .chosen mark": { background: "#f97316", color: "#18181b" },
  "--log-found-line": "rgba(234, 179, 8, 0.12)",
  "--log-chosen-line": "rgba(37, 99, 235, 0.12)",
};

/** Rows that lie next to each other. Each is drawn anew only when it, or what is searched for, has changed.
 *  @param {{block: import("./windows.js").Block, query: object | null, found: Set<number> | null, chosen: number | null, hrefOf: (place: number) => string}} props */
export const Block = React.memo(function Block({ block, query, found, chosen, hrefOf }) {
  return html`<div className="block">
    ${block.rows.map((row) => html`<${Line} key=${row.offset} row=${row} query=${query} isFound=${found?.has(row.offset) ?? false} isChosen=${chosen === row.offset} hrefOf=${hrefOf} />`)}
  </div>`;
}, (before, after) =>
  before.block === after.block && before.query === after.query && before.hrefOf === after.hrefOf &&
  (before.found === after.found || !touches(before, after)) && isIn(before) === isIn(after) && (before.chosen === after.chosen || !isIn(after)));

const isIn = ({ block, chosen }) => chosen !== null && chosen >= block.offset && chosen < block.end;

/** Whether lines of this block were found since. */
const touches = ({ block, found }, after) => block.rows.some(({ offset }) => (found?.has(offset) ?? false) !== (after.found?.has(offset) ?? false));

const Line = React.memo(function Line({ row, query, isFound, isChosen, hrefOf }) {
  const pieces = piecesOf(row.text);
  const drawn = isFound || query ? marked(pieces, marksIn(pieces.map(({ text }) => text).join(""), query)) : pieces;
  const names = ["line", row.isStart ? "" : "piece", isFound ? "found" : "", isChosen ? "chosen" : ""].filter(Boolean).join(" ");
  return html`<div className=${names} dir="ltr" data-offset=${row.offset}>
    <a className="place" href=${hrefOf(row.offset)} tabIndex=${-1} aria-label=${`Link to the line at byte ${row.offset}`}></a>
    <span className="text">${drawn.map(drawPiece)}${drawn.length ? "" : "\u200b"}</span>
  </div>`;
});

function drawPiece({ text, style, isMark, isFound }, index) {
  if (!style && !isMark && !isFound) return text;
  const drawn = isFound ? html`<mark>${text}</mark>` : text;
  if (!style && !isMark) return html`<${React.Fragment} key=${index}>${drawn}<//>`;
  return html`<span key=${index} className=${[style ? "ink" : "", isMark ? "mark" : ""].filter(Boolean).join(" ")} style=${style ? inked(style) : undefined}>${drawn}</span>`;
}

function inked(style) {
  const { light, dark } = coloursOf(style);
  return {
    "--light": light.color ?? "inherit",
    "--dark": dark.color ?? "inherit",
    "--light-ground": light.background ?? "transparent",
    "--dark-ground": dark.background ?? "transparent",
    fontWeight: style.bold ? "bold" : undefined,
    fontStyle: style.italic ? "italic" : undefined,
    textDecoration: [style.underline ? "underline" : "", style.strike ? "line-through" : ""].filter(Boolean).join(" ") || undefined,
  };
}
