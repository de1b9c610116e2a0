// The checksum of an output: as it is known, or computed when somebody asks for it.

import { Chakra, html, React } from "../../airflow.js";
import { get } from "../../api.js";
import { outputPath } from "./address.js";
import { shortened, visible } from "./names.js";

const SHOWN = 12;

/** @param {{address: object, output: object}} props */
export function Sha256({ address, output }) {
  const [found, setFound] = React.useState(null);
  const [error, setError] = React.useState("");
  const [isBusy, setBusy] = React.useState(false);
  const sha256 = found ?? output.sha256;
  if (sha256) return html`<${Chakra.Code} size="sm" title=${sha256} whiteSpace="nowrap" data-sha256=${sha256}>${sha256.slice(0, SHOWN)}…<${Chakra.VisuallyHidden}>${sha256.slice(SHOWN)}<//><//>`;
  async function compute() {
    setBusy(true);
    setError("");
    try {
      setFound((await get(outputPath(address, output, "checksum"))).sha256);
    } catch (failure) {
      setError(failure.message);
    } finally {
      setBusy(false);
    }
  }
  return html`
    <${Chakra.Button} size="xs" variant="outline" loading=${isBusy} loadingText="Compute" aria-label=${`Compute the SHA-256 of ${shortened(visible(output.path))}`} onClick=${compute}>Compute<//>
    ${error && html`<${Chakra.Text} role="alert" color="fg.error" fontSize="xs">${error}<//>`}
  `;
}
