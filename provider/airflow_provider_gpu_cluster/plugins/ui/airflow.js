// What Airflow's own page lends to ours: React, its router, and Chakra with Airflow's theme.

import htm from "./third_party/htm-3.1.1/htm.js";

export const React = globalThis.React;
export const Chakra = globalThis.ChakraUI;
export const Router = globalThis.ReactRouterDOM;

/** Markup: html`<${Chakra.Box} p=${2}>text</${Chakra.Box}>`, or `<//>` at the end. Text is always text. */
export const html = htm.bind(React.createElement);

/** Address below the path at which this Airflow is served. */
export const address = (path) => new URL(path.replace(/^\//, ""), document.baseURI).href;
