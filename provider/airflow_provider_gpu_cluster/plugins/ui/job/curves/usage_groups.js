// Which curves of use belong into one chart, and what each is called there.

const ORDER = ["percent", "gpu_memory_bytes", "memory_bytes", "cpus", "power_w", "celsius"];

/**
 * @param {string[]} names such as "gpu/0/percent", "gpu/node1:0/memory_bytes", "host/cpus", "host/node1/cpus"
 * @returns {{unit: string, curves: {name: string, label: string}[]}[]}
 */
export function usageGroups(names) {
  const groups = new Map();
  for (const name of names) {
    const first = name.indexOf("/");
    const last = name.lastIndexOf("/");
    const [kind, which, quantity] = [name.slice(0, first), name.slice(first + 1, Math.max(first + 1, last)), name.slice(last + 1)];
    const unit = kind === "gpu" && quantity === "memory_bytes" ? "gpu_memory_bytes" : quantity;
    if (!groups.has(unit)) groups.set(unit, []);
    groups.get(unit).push({ name, label: labelOf(kind, which) });
  }
  const place = ({ unit }) => (ORDER.includes(unit) ? ORDER.indexOf(unit) : ORDER.length);
  const byLabel = (one, other) => one.label.localeCompare(other.label, "en", { numeric: true });
  return [...groups].map(([unit, curves]) => ({ unit, curves: curves.sort(byLabel) })).sort((one, other) => place(one) - place(other));
}

function labelOf(kind, which) {
  if (kind !== "gpu") return which || "host";
  const border = which.lastIndexOf(":");
  return border < 0 ? `GPU ${which}` : `${which.slice(0, border)} GPU ${which.slice(border + 1)}`;
}
