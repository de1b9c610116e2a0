// The columns by which elements are compared: parameters, final metrics, and facts. No React.

const MOST_COLUMNS = 200;
const LOW_IS_GOOD = /loss|error|err\b|perplexity|ppl|rmse|mse|mae|wer\b|cer\b|latency|regret/i;
const HIGH_IS_GOOD = /acc|auc|f1|score|reward|precision|recall|map\b|bleu|rouge|iou|psnr|r2/i;

const FACTS = [
  { id: "duration", name: "Duration", kind: "fact", of: (row) => secondsOf(row) },
  { id: "attempt", name: "Attempt", kind: "fact", of: (row) => row.attempt },
];

/** How long an element ran, in seconds; null if it has not ended. */
export function secondsOf(row) {
  const seconds = (Date.parse(row.ended_at) - Date.parse(row.started_at)) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, seconds) : null;
}

/** A value as a number, "NaN" and "Infinity" too; null if it is none. */
export function numberOf(value) {
  if (typeof value === "number") return value;
  return ["NaN", "Infinity", "-Infinity"].includes(value) ? Number(value) : null;
}

/**
 * All columns of some elements.
 *
 * @param {object[]} rows as the route `elements` has them
 * @returns {{id: string, name: string, kind: "parameter" | "metric" | "progress" | "fact" | "env", of: (row: object) => any, isNumber: boolean,
 *   differs: boolean, count: number}[]} those that most elements have first
 */
export function columnsOf(rows) {
  const found = [
    ...named(rows, "parameter", (row) => row.parameters),
    ...named(rows, "env", (row) => Object.fromEntries((row.env_names ?? []).map((name) => [`$${name}`, "given"]))),
    ...named(rows, "metric", (row) => row.metrics),
    ...named(rows, "progress", (row) => row.progress),
    ...FACTS,
  ];
  // Of environment variables only the names are known, which tell elements apart if not all have them.
  return found.map((column) => described(column, rows)).filter(({ count, kind, differs }) => count > 0 && (kind !== "env" || differs));
}

function named(rows, kind, of) {
  const counts = new Map();
  for (const row of rows) for (const name of Object.keys(of(row) ?? {})) counts.set(name, (counts.get(name) ?? 0) + 1);
  const names = [...counts].sort(([, one], [, other]) => other - one).slice(0, MOST_COLUMNS);
  return names.map(([name]) => ({ id: `${kind} ${name}`, name, kind, of: (row) => plain((of(row) ?? {})[name]) }));
}

const plain = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : value);

function described(column, rows) {
  const values = rows.map(column.of).filter((value) => value !== undefined && value !== null);
  const isNumber = values.length > 0 && values.every((value) => numberOf(value) !== null);
  return { ...column, isNumber, differs: new Set(values).size > 1 || (values.length > 0 && values.length < rows.length), count: values.length };
}

/** The columns to show unless somebody chooses others: parameters that differ, variables that some have, the first metrics, and
 *  how long it took. */
export function usualColumns(columns) {
  const parameters = columns.filter(({ kind, differs }) => kind === "parameter" && differs).slice(0, 8);
  const metrics = columns.filter(({ kind }) => kind === "metric").slice(0, 8);
  const progress = metrics.length ? [] : columns.filter(({ kind, isNumber, name }) => kind === "progress" && isNumber && !["total"].includes(name)).slice(0, 4);
  const given = columns.filter(({ kind }) => kind === "env").slice(0, 8);
  return [...parameters, ...given, ...metrics, ...progress, ...columns.filter(({ id }) => id === "duration")].map(({ id }) => id);
}

/** Whether a low or a high value of a metric is a good one, as far as its name tells: "min", "max" or "". */
export const goalOf = (name) => (LOW_IS_GOOD.test(name) ? "min" : HIGH_IS_GOOD.test(name) ? "max" : "");

/** The metric to compare by unless somebody chooses another: the first whose goal is known, else none. */
export const usualGoal = (columns) => {
  const metric = columns.find(({ kind, isNumber, name }) => kind === "metric" && isNumber && goalOf(name)) ?? columns.find(({ kind, isNumber }) => kind === "metric" && isNumber);
  return metric ? { id: metric.id, goal: goalOf(metric.name) || "max" } : null;
};

/**
 * Rows in the order of a column; those without a value, or with one that is not a number, come last.
 *
 * @param {object[]} rows @param {{of: (row: object) => any, isNumber: boolean}} column @param {boolean} isDown
 */
export function sorted(rows, column, isDown) {
  const key = (row) => (column.isNumber ? numberOf(column.of(row)) : (column.of(row) ?? null));
  const isNone = (value) => value === null || value === undefined || Number.isNaN(value);
  return rows
    .map((row) => [key(row), row])
    .sort(([one, first], [other, second]) => {
      if (isNone(one) || isNone(other)) return isNone(one) - isNone(other) || first.index - second.index;
      const order = column.isNumber ? one - other : String(one).localeCompare(String(other), "en", { numeric: true });
      return (isDown ? -order : order) || first.index - second.index;
    })
    .map(([, row]) => row);
}

/**
 * Indexes of the elements with the best and with the worst value; more than one if several share it.
 *
 * @param {object[]} rows @param {{of: (row: object) => any}} column @param {"min" | "max"} goal
 * @returns {{best: Set<number>, worst: Set<number>}}
 */
export function bestAndWorst(rows, column, goal) {
  const values = rows.map((row) => [numberOf(column.of(row)), row.index]).filter(([value]) => value !== null && !Number.isNaN(value));
  const [low, high] = values.reduce(([least, most], [value]) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  const having = (wanted) => new Set(low === high ? [] : values.filter(([value]) => value === wanted).map(([, index]) => index));
  return goal === "min" ? { best: having(low), worst: having(high) } : { best: having(high), worst: having(low) };
}
