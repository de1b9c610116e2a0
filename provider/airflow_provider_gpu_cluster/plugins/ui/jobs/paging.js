// The pages of the list, and how long one is.

import { Chakra, html } from "../airflow.js";
import { PAGE_SIZES } from "./query.js";

const ARROWS = { "Previous page": "M15 5l-7 7 7 7", "Next page": "M9 5l7 7-7 7" };

/** @param {{query: import("./query.js").JobsQuery, total: number, change: (change: any) => void}} props */
export function Paging({ query, total, change }) {
  const { page, limit } = query;
  return html`<${Chakra.Flex} as="nav" aria-label="Pages of the list" align="center" justify="space-between" gap=${2} my=${2} wrap="wrap">
    ${
      total > limit || page > 1
        ? html`<${Chakra.Pagination.Root} count=${total} pageSize=${limit} page=${page} siblingCount=${1} onPageChange=${(to) => change({ page: to.page })}>
            <${Chakra.HStack} gap=${1} wrap="wrap">
              <${Chakra.Pagination.PrevTrigger} asChild><${Chakra.IconButton} size="sm" variant="ghost" aria-label="Previous page"><${Arrow} label="Previous page" /><//><//>
              <${Chakra.Pagination.Items} render=${(one) => html`<${Chakra.IconButton} size="sm" variant=${{ base: "outline", _selected: "solid" }} colorPalette="brand">${one.value}<//>`} />
              <${Chakra.Pagination.NextTrigger} asChild><${Chakra.IconButton} size="sm" variant="ghost" aria-label="Next page"><${Arrow} label="Next page" /><//><//>
            <//>
          <//>`
        : html`<span></span>`
    }
    <${Chakra.NativeSelect.Root} size="sm" width="auto">
      <${Chakra.NativeSelect.Field} aria-label="Jobs on a page" value=${limit} onChange=${(event) => change({ limit: Number(event.target.value) })}>
        ${PAGE_SIZES.map((size) => html`<option key=${size} value=${size}>${size.toLocaleString("en-US")} on a page</option>`)}
      <//>
      <${Chakra.NativeSelect.Indicator} />
    <//>
  <//>`;
}

const Arrow = ({ label }) => html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth="2.5" aria-hidden="true"><path d=${ARROWS[label]} /></svg>`;
