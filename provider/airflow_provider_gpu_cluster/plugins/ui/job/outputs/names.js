// Names and texts of a job, made safe to look at: what is invisible or turns text around is written out. No React.

// Control characters, halves of characters, and what is invisible or changes the direction of text.
const TRAPS = /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff]/gu;

/** A name in which every character can be seen: "a\u202etxt" instead of one that reads backwards. */
export const visible = (name) =>
  String(name ?? "").replace(TRAPS, (letter) => `\\u${letter.codePointAt(0).toString(16).padStart(4, "0")}`);

/** A long name without its middle, so that its beginning and its end can be read. */
export function shortened(name, most = 100) {
  const letters = [...name];
  if (letters.length <= most) return name;
  const end = Math.floor((most - 1) / 2);
  return `${letters.slice(0, most - 1 - end).join("")}…${letters.slice(-end).join("")}`;
}

/** Why an output cannot be read, as its list says it; "" if it can.
 *  @param {{kind: string, target?: string | null}} output */
export function whyNot({ kind, target }) {
  if (kind === "file") return "";
  if (kind === "outside") return `a link to ${visible(target ?? "")}, which is not among the outputs`;
  const words = {
    broken: "a link that leads nowhere",
    special: "no file: a pipe, a socket or a device",
    unreadable: "cannot be read by the user that runs the job",
    secret: "its name has a secret in it",
    cut: "a folder with more names than are listed",
    collected: "known from its collection alone",
    unknown: "the element has overwritten its records, which say what is secret",
  };
  return words[kind] ?? `of an unknown kind: ${visible(kind)}`;
}
