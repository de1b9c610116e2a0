// A look into one output: an image, a tree of JSON, a table, or text. Whatever is in it stays text.

import { Chakra, html, React } from "../../airflow.js";
import { get } from "../../api.js";
import { Busy, Empty, Notice } from "../../parts/notice.js";
import { bytesText } from "../../parts/number_text.js";
import { outputAddress, outputPath } from "./address.js";
import { JsonTree } from "./json_tree.js";
import { shortened, visible } from "./names.js";
import { TablePreview } from "./table_preview.js";

const MOST_LETTERS = 1 << 20;

/** @param {{address: object, output: object | null, onClose: () => void}} props the dialog is open while there is an output */
export function PreviewDialog({ address, output, onClose }) {
  return html`<${Chakra.Dialog.Root} open=${output !== null} onOpenChange=${({ open }) => open || onClose()} size="xl" scrollBehavior="inside" lazyMount unmountOnExit>
    <${Chakra.Portal}>
      <${Chakra.Dialog.Backdrop} />
      <${Chakra.Dialog.Positioner}>
        ${output && html`<${Chakra.Dialog.Content} mx=${3} data-gpu-cluster="">
          <${Chakra.Dialog.Header} pr=${12}><${Chakra.Dialog.Title} fontSize="md" overflowWrap="anywhere" dir="ltr">${shortened(visible(output.path), 200)}<//><//>
          <${Chakra.Dialog.CloseTrigger} asChild><${Chakra.CloseButton} aria-label="Close" size="sm" /><//>
          <${Chakra.Dialog.Body} tabIndex=${0}><${Preview} address=${address} output=${output} /><//>
          <${Chakra.Dialog.Footer}>
            <${DownloadLink} address=${address} output=${output} label=${`Download, ${bytesText(output.size)}`} />
          <//>
        <//>`}
      <//>
    <//>
  <//>`;
}

/** A link that saves an output. @param {{address: object, output: object, label?: string}} props */
export const DownloadLink = ({ address, output, label = "Download" }) =>
  html`<${Chakra.Button} asChild size="xs" variant="outline">
    <a href=${outputAddress(address, output, "file")} download="" aria-label=${`${label}: ${shortened(visible(output.path))}`}>${label}</a>
  <//>`;

function Preview({ address, output }) {
  const [found, setFound] = React.useState(null);
  const [error, setError] = React.useState("");
  const [isBusy, setBusy] = React.useState(false);
  const ask = (offset, signal) => get(outputPath(address, output, "preview", { offset }), { signal });
  React.useEffect(() => {
    const leaving = new AbortController();
    ask(0, leaving.signal).then(setFound, (failure) => leaving.signal.aborted || setError(failure.message));
    return () => leaving.abort();
  }, [address, output]);
  async function more() {
    setBusy(true);
    try {
      const part = await ask(found.end);
      setFound({ ...part, text: found.text + (part.text ?? ""), end: part.end ?? part.size });
    } catch (failure) {
      setError(failure.message);
    } finally {
      setBusy(false);
    }
  }
  if (error) return html`<${Notice} status="error">${error}<//>`;
  if (!found) return html`<${Busy} label="The output is read." />`;
  if (found.kind === "image") return html`<${Picture} address=${address} output=${output} whyNot=${found.why_not} />`;
  if (found.kind === "binary") return html`<${Empty}>This is no text and no image that can be shown here. Download it to look at it.<//>`;
  const isCut = found.end < found.size;
  const Kind = { json: JsonTree, table: TablePreview }[found.kind] ?? Text;
  return html`
    <${Kind} text=${found.text} path=${output.path} isCut=${isCut} />
    ${isCut && html`<${Chakra.Flex} align="center" gap=${3} mt=${2} wrap="wrap">
      <${Chakra.Text} color="fg.muted" fontSize="sm">The first ${bytesText(found.end)} of ${bytesText(found.size)}.<//>
      ${found.text.length < MOST_LETTERS && html`<${Chakra.Button} size="xs" variant="outline" loading=${isBusy} loadingText="Show more" onClick=${more}>Show more<//>`}
    <//>`}
  `;
}

/** Text as it is, in the form of a file. */
export const Text = ({ text }) =>
  html`<${Chakra.Box} as="pre" bg="bg.subtle" borderRadius="md" fontFamily="mono" fontSize="xs" maxH="60vh" overflow="auto" p=${3}
      tabIndex=${0} role="region" aria-label="Text" whiteSpace="pre-wrap" overflowWrap="anywhere" dir="ltr">${text.split("\n").map(visible).join("\n")}<//>`;

function Picture({ address, output, whyNot }) {
  const [isBroken, setBroken] = React.useState(false);
  if (whyNot || isBroken) return html`<${Empty}>${whyNot ?? "The image cannot be shown: it is damaged, or too large. Download it to look at it."}<//>`;
  return html`<${Chakra.Image} src=${outputAddress(address, output, "image")} alt=${`The image ${shortened(visible(output.path))}`}
      onError=${() => setBroken(true)} maxW="100%" maxH="60vh" minW="4rem" objectFit="contain" bg="white" imageRendering="auto" />`;
}
