// What somebody has chosen on a page, kept in this browser.

import { React } from "../../airflow.js";

/** As React.useState, for a value of JSON that the next visit finds again.
 *  @param {string} key @param {any} usual @param {(value: any) => boolean} isSound */
export function useStored(key, usual, isSound) {
  const name = `gpu-cluster.${key}`;
  const read = () => {
    try {
      const value = JSON.parse(localStorage.getItem(name) ?? "null");
      return value !== null && isSound(value) ? value : usual;
    } catch {
      return usual; // nothing may be stored, or it is no JSON
    }
  };
  const [value, setValue] = React.useState(read);
  React.useEffect(() => setValue(read()), [name]);
  const keep = (next) => {
    setValue(next);
    try {
      if (next === usual) localStorage.removeItem(name);
      else localStorage.setItem(name, JSON.stringify(next));
    } catch {
      // It is kept for this visit.
    }
  };
  return [value, keep];
}
