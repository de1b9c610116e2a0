// What the numbers of curves count, and how they are written.

import { bytesText, numberText } from "../../parts/number_text.js";

/** What a curve counts, by the last word of its name: how to write a value, and what the axis begins with.
 *  @param {string} name @returns {{title: string, text: (value: number) => string, base: 2 | 10, range: [number | null, number | null]}} */
export function unitOf(name) {
  return UNITS[name] ?? { title: name, text: numberText, base: 10, range: [null, null] };
}

const decimals = (unit) => (value) => `${numberText(Number(value.toPrecision(4)))}${unit}`;

const UNITS = {
  percent: { title: "GPU use", text: decimals(" %"), base: 10, range: [0, 100] },
  gpu_memory_bytes: { title: "GPU memory", text: bytesText, base: 2, range: [0, null] },
  memory_bytes: { title: "Host memory", text: bytesText, base: 2, range: [0, null] },
  cpus: { title: "Processors busy", text: decimals(""), base: 10, range: [0, null] },
  power_w: { title: "GPU power", text: decimals(" W"), base: 10, range: [0, null] },
  celsius: { title: "GPU temperature", text: decimals(" °C"), base: 10, range: [null, null] },
};

const STEPS_OF_TWO = Array.from({ length: 60 }, (_, power) => 2 ** power);

/** Distances of ticks that give whole numbers of KiB, MiB or GiB; undefined for the usual ones. */
export const tickSteps = (base) => (base === 2 ? STEPS_OF_TWO : undefined);

/** Texts of an axis's ticks: as few digits as tell them apart.
 *  @param {number[]} ticks @param {(value: number) => string} text */
export function tickTexts(ticks, text) {
  return ticks.map((tick) => (tick === null || tick === undefined ? "" : text(Number(tick.toPrecision(10)))));
}

/** A number of an x axis: whole ones in full, so that a step can be read. */
export const xText = (value) => (Number.isInteger(value) ? value.toLocaleString("en-US") : numberText(value));
