// Colours of Airflow's page, for what is drawn on a canvas. They change when somebody changes the page's colours.

import { React } from "../../airflow.js";

const NAMES = { text: "fg-muted", strong: "fg", line: "border", ground: "bg" };

/** @returns {{isDark: boolean, text: string, strong: string, line: string, ground: string, font: string}} */
export function useTheme() {
  const told = React.useSyncExternalStore(onTheme, theme);
  return React.useMemo(() => JSON.parse(told), [told]);
}

function onTheme(changed) {
  const observer = new MutationObserver(changed);
  for (const element of [document.documentElement, document.body]) observer.observe(element, { attributes: true, attributeFilter: ["class", "style", "data-theme"] });
  return () => observer.disconnect();
}

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colors = Object.fromEntries(Object.entries(NAMES).map(([name, token]) => [name, style.getPropertyValue(`--chakra-colors-${token}`).trim() || "gray"]));
  return JSON.stringify({ ...colors, isDark: document.documentElement.classList.contains("dark"), font: `12px ${getComputedStyle(document.body).fontFamily}` });
}
