// Asks before something happens that cannot be taken back. Focus goes into the dialog, stays in it, and comes back.

import { Chakra, html, React } from "../airflow.js";
import { Notice } from "./notice.js";

/**
 * A button, and the dialog that it opens.
 *
 * @param {{label: string, title: string, question: any, confirm: string, act: () => Promise<string>, onDone: (sentence: string) => void,
 *   palette?: string, prepare?: () => Promise<any>}} props
 *   `act` does it and returns what to tell; `prepare` is asked when the dialog opens, and `question` is given its answer if it is a function.
 */
export function ConfirmButton({ label, title, question, confirm, act, onDone, palette = "brand", prepare = null, ...others }) {
  const [isOpen, setOpen] = React.useState(false);
  const [isBusy, setBusy] = React.useState(false);
  const [error, setError] = React.useState("");
  const [found, setFound] = React.useState(null);
  const back = React.useRef(null);

  React.useEffect(() => {
    if (!isOpen) return undefined;
    let isHere = true;
    setError("");
    setFound(null);
    prepare?.().then(
      (answer) => isHere && setFound(answer),
      (failure) => isHere && setError(failure.message),
    );
    return () => {
      isHere = false;
    };
  }, [isOpen]);

  async function go() {
    setBusy(true);
    setError("");
    try {
      onDone(await act(found));
      setOpen(false);
    } catch (failure) {
      setError(failure.message);
    } finally {
      setBusy(false);
    }
  }

  const isAsked = prepare !== null && found === null && !error;
  return html`<${Chakra.Dialog.Root} open=${isOpen} onOpenChange=${(change) => isBusy || setOpen(change.open)} initialFocusEl=${() => back.current} role="alertdialog" lazyMount unmountOnExit>
    <${Chakra.Dialog.Trigger} asChild><${Chakra.Button} size="sm" variant="outline" ...${others}>${label}<//><//>
    <${Chakra.Portal}>
      <${Chakra.Dialog.Backdrop} />
      <${Chakra.Dialog.Positioner}>
        <${Chakra.Dialog.Content} mx=${3}>
          <${Chakra.Dialog.Header}><${Chakra.Dialog.Title}>${title}<//><//>
          <${Chakra.Dialog.Body}>
            ${error && html`<${Notice} status="error">${error}<//>`}
            ${typeof question === "function" ? question(found) : question}
          <//>
          <${Chakra.Dialog.Footer}>
            <${Chakra.Dialog.ActionTrigger} asChild><${Chakra.Button} ref=${back} variant="outline" disabled=${isBusy}>Leave it<//><//>
            <${Chakra.Button} colorPalette=${palette} loading=${isBusy || isAsked} loadingText=${confirm} onClick=${go}>${confirm}<//>
          <//>
        <//>
      <//>
    <//>
  <//>`;
}
