// What a page says when it has nothing to show, or something to warn of.

import { Chakra, html } from "../airflow.js";

/** A sentence in the place of what is not there. */
export const Empty = ({ children }) => html`<${Chakra.Text} color="fg.muted" fontSize="sm" py=${2}>${children}<//>`;

/** A sentence that people should see.
 *  @param {{status?: "info" | "warning" | "error" | "success", title?: string, actions?: any}} props */
export function Notice({ status = "info", title = "", actions = null, children, ...others }) {
  return html`<${Chakra.Alert.Root} status=${status} role=${status === "error" ? "alert" : "status"} mb=${3} ...${others}>
    <${Chakra.Alert.Indicator} />
    <${Chakra.Alert.Content} minW=${0} overflowWrap="anywhere">
      ${title && html`<${Chakra.Alert.Title}>${title}<//>`}
      ${children && html`<${Chakra.Alert.Description}>${children}<//>`}
    <//>
    ${actions}
  <//>`;
}

/** Something is asked for. @param {{label: string}} props */
export const Busy = ({ label }) => html`<${Chakra.Flex} align="center" color="fg.muted" gap=${2} py=${2} role="status">
  <${Chakra.Spinner} size="sm" /><${Chakra.Text} fontSize="sm">${label}<//>
<//>`;

/** Speaks to screen readers alone, when its text changes; keep it on the page, and change it seldom. */
export const Spoken = ({ children }) => html`<${Chakra.VisuallyHidden} aria-live="polite" role="status">${children}<//>`;
