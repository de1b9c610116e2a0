// Numbers as text. No React.

const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** A number of bytes, such as "1.5 GiB"; "" if it is none. */
export function bytesText(bytes) {
  if (typeof bytes !== "number" || !Number.isFinite(bytes)) return "";
  let [size, unit] = [bytes, 0];
  while (Math.abs(size) >= 1024 && unit < BYTES.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${unit && size < 100 ? Number(size.toFixed(1)) : Math.round(size)} ${BYTES[unit]}`;
}

/** A number with so many digits that it can be read, such as "0.03125" or "12,345.68"; anything else as its text. */
export function numberText(value) {
  if (typeof value !== "number") return String(value ?? "");
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(3).replace(/\.?0+e/, "e");
  return value.toLocaleString("en-US", { maximumFractionDigits: size >= 1000 ? 2 : 6, maximumSignificantDigits: size >= 1000 ? undefined : 6 });
}

/** "1 job", "2 jobs": a count with its noun. */
export const countText = (count, noun, nouns = `${noun}s`) => `${count.toLocaleString("en-US")} ${count === 1 ? noun : nouns}`;

/** Words of the wire for a person: "user_error" as "user error". */
export const wordsText = (name) => String(name ?? "").replaceAll("_", " ");
