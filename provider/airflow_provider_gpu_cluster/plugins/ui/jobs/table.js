// The table of jobs. Its rows are plain elements that one style makes look like Airflow's tables: a thousand of Chakra's cells take seconds.

import { Chakra, html, React, Router } from "../airflow.js";
import { STATES, lookOf } from "../parts/chip.js";
import { useNow, useZone } from "../parts/time.js";
import { COLUMNS } from "./columns.js";
import { rowKey } from "./job_link.js";
import { nextOrder, sortOf } from "./query.js";

const FIRST_ROWS = 50;
const TICK_MS = 5_000;

/**
 * @param {{jobs: any[], query: import("./query.js").JobsQuery, onOrder: (orderBy: string) => void, ofRun: boolean, isAsking: boolean, label: string}} props
 */
export function JobsTable({ jobs, query, onOrder, ofRun, isAsking, label }) {
  const columns = ofRun ? COLUMNS.filter((column) => column.isOfRun !== false) : COLUMNS;
  const zone = useZone();
  const isTicking = jobs.some((job) => !job.ended_at);
  const now = useNow(isTicking, TICK_MS);
  const shown = useGradually(jobs);
  const css = useLook();
  return html`<${Chakra.Box} overflowX="auto" role="region" aria-label=${label} tabIndex=${0} css=${css} onClick=${useLinks()} opacity=${isAsking ? 0.6 : 1}>
    <table aria-label=${label} aria-rowcount=${jobs.length + 1}>
      <thead>
        <tr>${columns.map((column) => html`<${Header} key=${column.id} column=${column} query=${query} onOrder=${onOrder} />`)}</tr>
      </thead>
      <tbody>
        ${shown.map((row) => html`<${Row} key=${rowKey(row)} row=${row} columns=${columns} zone=${zone} now=${row.ended_at ? 0 : now} />`)}
      </tbody>
    </table>
  <//>`;
}

function Header({ column, query, onOrder }) {
  const { id, label, isNumber, isNarrow, isSortable, first } = column;
  const classes = classOf({ isNumber, isNarrow });
  if (!isSortable) return html`<th scope="col" className=${classes}>${label}</th>`;
  const sort = sortOf(query, id);
  const arrow = { none: "M5 10l7-7 7 7zM5 14l7 7 7-7z", ascending: "M5 15l7-7 7 7z", descending: "M5 9l7 7 7-7z" }[sort];
  return html`<th scope="col" className=${classes} aria-sort=${sort}>
    <button type="button" data-sort=${sort} onClick=${() => onOrder(nextOrder(query, id, first))}>
      ${label}<svg viewBox="0 0 24 24" aria-hidden="true"><path d=${arrow} fill="currentColor" /></svg>
    </button>
  </th>`;
}

const Row = React.memo(function Row({ row, columns, zone, now }) {
  const context = { zone, now };
  return html`<tr data-job=${row.job_id} className=${row.is_latest === false ? "earlier" : ""}>
    ${columns.map((column) => html`<td key=${column.id} className=${classOf(column)}>${column.of(row, context)}</td>`)}
  </tr>`;
});

const classOf = ({ isNumber, isNarrow }) => `${isNumber ? "number" : ""}${isNarrow ? "" : " wide"}`;

/** The first rows at once, so that there is something to see, and the others right after them. */
function useGradually(jobs) {
  const [isWhole, setWhole] = React.useState(jobs.length <= FIRST_ROWS);
  React.useEffect(() => React.startTransition(() => setWhole(true)), []);
  return isWhole ? jobs : jobs.slice(0, FIRST_ROWS);
}

/** Follows links within Airflow's page as its router does, for the whole table at once. */
function useLinks() {
  const navigate = Router.useNavigate();
  return React.useCallback(
    (event) => {
      const path = event.target.closest?.("a[data-to]")?.dataset.to;
      if (!path || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      navigate(path);
    },
    [navigate],
  );
}

/** Airflow's own looks of a table and of its states' badges, as one style. */
function useLook() {
  const table = Chakra.useSlotRecipe({ key: "table" });
  const badge = Chakra.useRecipe({ key: "badge" });
  return React.useMemo(() => {
    const looks = table({ size: "sm", striped: true });
    const states = STATES.map((state) => {
      const { palette, solid } = lookOf(state);
      return [`& .chip[data-state=${state}]`, { bg: solid, color: `${palette}.contrast` }];
    });
    return {
      "& table": { ...looks.root, width: "full" },
      "& tr": looks.row,
      "& th": { ...looks.columnHeader, whiteSpace: "nowrap", paddingBlock: "1" },
      "& td": { ...looks.cell, maxWidth: "14rem", overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" },
      "& .number": { textAlign: "end", fontVariantNumeric: "tabular-nums" },
      "& .wide": { hideBelow: "md" },
      "& .muted, & .earlier td": { color: "fg.muted" },
      "& a": { color: "fg.info", _hover: { textDecoration: "underline" } },
      "& a.bold": { fontWeight: "bold" },
      "& button": { fontWeight: "inherit", cursor: "pointer", display: "inline-flex", alignItems: "center", gap: "1", minHeight: "6", _hover: { color: "brand.fg" } },
      "& button:not([data-sort=none])": { color: "brand.fg" },
      "& button svg": { width: "3", height: "3" },
      "& .chip svg": { width: "1em", height: "1em", fill: "none", stroke: "currentColor", strokeWidth: "2.5", strokeLinecap: "round", strokeLinejoin: "round" },
      "& progress": { width: "4rem", height: "2", verticalAlign: "middle", appearance: "none", overflow: "hidden", borderRadius: "full", bg: "bg.emphasized" },
      "& progress::-webkit-progress-bar": { bg: "bg.emphasized" },
      "& progress::-webkit-progress-value": { bg: "running.solid" },
      "& progress::-moz-progress-bar": { bg: "running.solid" },
      "& .tag": { ...badge({ variant: "subtle", size: "xs" }), colorPalette: "gray" },
      "& .chip": { colorPalette: "none", ...badge({ variant: "solid", size: "sm" }), borderRadius: "full", fontSize: "sm", px: "2", py: "1" },
      "& .chip, & .chip ~ .muted": { verticalAlign: "middle" },
      ...Object.fromEntries(states),
    };
  }, [table, badge]);
}
