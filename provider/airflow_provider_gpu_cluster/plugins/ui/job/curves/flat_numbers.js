// The numbers in one line that a job has reported, and in one sample of its use. gpu_run/series/numbers.py and
// usage_series.py do the same on the cluster, for the history; tests/ui/flat_numbers.json has what both must say.

const DEEPEST = 8;
const MOST_OF_A_LIST = 16;
const MOST_NUMBERS = 12_000;
const MOST_CHARACTERS = 100;
const WORDS = { NaN, Infinity, "-Infinity": -Infinity };
const OF_GPU = ["percent", "memory_bytes", "power_w", "celsius"];
const OF_HOST = ["memory_bytes", "cpus"];

/** Numbers with their names: `{train: {loss: 1}, lr: [2]}` has "train/loss" and "lr/0".
 *  @param {object} values @returns {[string, number][]} */
export function flatNumbers(values) {
  const found = [];
  collect("", values, DEEPEST, found);
  return found;
}

function collect(name, value, depth, found) {
  const items = Array.isArray(value) ? value.slice(0, MOST_OF_A_LIST).entries() : Object.entries(value);
  for (const [part, item] of items) {
    if (found.length >= MOST_NUMBERS) return;
    if (typeof item === "number") found.push([shownName(name + part), item]);
    else if (typeof item === "string") {
      // Browsers cannot read these as numbers, so they come as words.
      if (Object.hasOwn(WORDS, item)) found.push([shownName(name + part), WORDS[item]]);
    } else if (item !== null && typeof item === "object" && depth) collect(`${name}${part}/`, item, depth - 1, found);
  }
}

/** A name in one line, without what turns lines around, cut to a length. */
export function shownName(name) {
  const letters = Array.from(name.slice(0, 2 * MOST_CHARACTERS + 2), (letter) => /[\p{C}\p{Z}]/u.test(letter) ? " " : letter);
  return (letters.length <= MOST_CHARACTERS ? letters : [...letters.slice(0, MOST_CHARACTERS - 1), "…"]).join("");
}

/** The numbers of a line of usage.jsonl: "gpu/0/percent", "gpu/node1:0/memory_bytes", "host/cpus".
 *  @param {object} sample @returns {[string, number][]} */
export function usageNumbers(sample) {
  const found = [];
  const take = (prefix, of, names) => {
    for (const name of names) if (Number.isFinite(of[name])) found.push([`${prefix.slice(0, 80)}/${name}`, of[name]]);
  };
  for (const gpu of Array.isArray(sample.gpus) ? sample.gpus.slice(0, 200) : []) {
    take(gpu.host ? `gpu/${gpu.host}:${gpu.index}` : `gpu/${gpu.index}`, gpu, OF_GPU);
  }
  take(sample.node ? `host/${sample.node}` : "host", sample, OF_HOST);
  return found;
}
