// Chooses the columns of the table, which are the axes of the plot as well.

import { Chakra, html, React } from "../../airflow.js";
import { shortened, visible } from "../outputs/names.js";

const KINDS = [
  ["parameter", "Parameters"],
  ["metric", "Final metrics"],
  ["progress", "Progress"],
  ["fact", "Facts"],
  ["env", "Environment variables"],
];

/** @param {{columns: object[], chosen: string[], onChoose: (ids: string[]) => void}} props */
export const ColumnChoice = React.memo(function ColumnChoice({ columns, chosen, onChoose }) {
  const turn = (id, isOn) => onChoose(isOn ? columns.map((column) => column.id).filter((one) => one === id || chosen.includes(one)) : chosen.filter((one) => one !== id));
  return html`<${Chakra.Menu.Root} closeOnSelect=${false} lazyMount unmountOnExit positioning=${{ placement: "bottom-end" }}>
    <${Chakra.Menu.Trigger} asChild><${Chakra.Button} size="sm" variant="outline">Columns<//><//>
    <${Chakra.Portal}><${Chakra.Menu.Positioner}><${Chakra.Menu.Content} maxH="24rem" overflowY="auto">
      ${KINDS.map(([kind, label]) => {
        const own = columns.filter((column) => column.kind === kind);
        return own.length > 0 && html`<${Chakra.Menu.ItemGroup} key=${kind}>
          <${Chakra.Menu.ItemGroupLabel}>${label}<//>
          ${own.map(
            (column) => html`<${Chakra.Menu.CheckboxItem} key=${column.id} value=${column.id} checked=${chosen.includes(column.id)} onCheckedChange=${(isOn) => turn(column.id, isOn)}>
              <${Chakra.Menu.ItemIndicator} />${shortened(visible(column.name), 40)}${!column.differs && html`<${Chakra.Text} as="span" color="fg.muted"> (the same in all)<//>`}
            <//>`,
          )}
        <//>`;
      })}
    <//><//><//>
  <//>`;
});
