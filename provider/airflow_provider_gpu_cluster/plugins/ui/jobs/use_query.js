// The query of the list, which the address bar keeps.

import { React, Router } from "../airflow.js";
import { changedQuery, readQuery, writeQuery } from "./query.js";

/** @returns {[import("./query.js").JobsQuery, (change: Partial<import("./query.js").JobsQuery>) => void]} */
export function useQuery() {
  const [search, setSearch] = Router.useSearchParams();
  const text = search.toString();
  const query = React.useMemo(() => readQuery(search), [text]);
  const change = React.useCallback(
    (changes) => setSearch((now) => writeQuery(changedQuery(readQuery(now), changes), now)),
    [setSearch],
  );
  return [query, change];
}
