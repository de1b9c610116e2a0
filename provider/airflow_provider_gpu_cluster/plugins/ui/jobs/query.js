// What the list of jobs is asked for, as the address bar keeps it, so that a view can be shared. No React.

/** Filters that take any number of values. */
export const FILTERS = ["conn_id", "dag_id", "task_id", "user", "state", "reason"];
/** Time ranges that end now, in hours. */
export const RANGES = { "1h": 1, "24h": 24, "7d": 7 * 24, "30d": 30 * 24 };
export const PAGE_SIZES = [50, 100, 1000];
const NEWEST_FIRST = "-submitted_at";
const MINUTE_MS = 60_000;

/**
 * @typedef {{filters: Record<string, string[]>, q: string, range: string, since: string, until: string, isLatest: boolean,
 *   orderBy: string, limit: number, page: number}} JobsQuery `page` counts from 1
 */

/** @param {URLSearchParams} search @returns {JobsQuery} */
export function readQuery(search) {
  const limit = Number(search.get("limit"));
  return {
    filters: Object.fromEntries(FILTERS.map((name) => [name, search.getAll(name).filter(Boolean)])),
    q: search.get("q") ?? "",
    range: Object.hasOwn(RANGES, search.get("range") ?? "") ? search.get("range") : "",
    since: timeOf(search.get("since")),
    until: timeOf(search.get("until")),
    isLatest: search.get("is_latest") === "true",
    orderBy: search.get("order_by") || NEWEST_FIRST,
    limit: PAGE_SIZES.includes(limit) ? limit : PAGE_SIZES[0],
    page: Math.max(1, Math.min(Math.floor(Number(search.get("page"))) || 1, 1_000_000)),
  };
}

/** The search part of an address for a query; parts of the address that are not of the query stay as they are.
 *  @param {JobsQuery} query @param {URLSearchParams} search */
export function writeQuery(query, search = new URLSearchParams()) {
  const changed = new URLSearchParams(search);
  const put = (name, values) => {
    changed.delete(name);
    for (const value of values) if (value) changed.append(name, value);
  };
  for (const name of FILTERS) put(name, query.filters[name]);
  put("q", [query.q]);
  put("range", [query.range]);
  put("since", [query.since]);
  put("until", [query.until]);
  put("is_latest", [query.isLatest && "true"]);
  put("order_by", [query.orderBy !== NEWEST_FIRST && query.orderBy]);
  put("limit", [query.limit !== PAGE_SIZES[0] && String(query.limit)]);
  put("page", [query.page > 1 && String(query.page)]);
  return changed;
}

/** A query with something changed; all but another page begins at the first page again.
 *  @param {JobsQuery} query @param {Partial<JobsQuery>} change @returns {JobsQuery} */
export const changedQuery = (query, change) => ({ ...query, page: 1, ...change });

/** What our API is asked for. @param {JobsQuery} query @param {number} now milliseconds since the epoch */
export function apiQuery(query, now) {
  const hours = RANGES[query.range];
  // The same within a minute, so that what is asked again is the same question.
  const since = hours ? new Date(Math.floor(now / MINUTE_MS) * MINUTE_MS - hours * 60 * MINUTE_MS).toISOString() : query.since;
  return {
    ...query.filters,
    q: query.q,
    since,
    until: hours ? "" : query.until,
    is_latest: query.isLatest || null,
    order_by: query.orderBy,
    limit: query.limit,
    offset: (query.page - 1) * query.limit,
  };
}

/** Whether a query leaves jobs out. @param {JobsQuery} query */
export const isFiltered = (query) =>
  Boolean(query.q || query.range || query.since || query.until || query.isLatest || FILTERS.some((name) => query.filters[name].length));

/** A query without any filter; how it is sorted stays. @param {JobsQuery} query */
export const unfiltered = (query) => ({ ...readQuery(new URLSearchParams()), orderBy: query.orderBy, limit: query.limit });

/** How a column is sorted: "ascending", "descending" or "none", as aria-sort has it. */
export const sortOf = (query, column) =>
  query.orderBy === column ? "ascending" : query.orderBy === `-${column}` ? "descending" : "none";

/** The order after a click on a column's header: the other way round, or `first` where another column is sorted by. */
export function nextOrder(query, column, first = "ascending") {
  const sort = sortOf(query, column);
  const next = sort === "none" ? first : sort === "ascending" ? "descending" : "ascending";
  return next === "ascending" ? column : `-${column}`;
}

function timeOf(text) {
  const time = new Date(text ?? "");
  return Number.isNaN(time.getTime()) ? "" : time.toISOString();
}
