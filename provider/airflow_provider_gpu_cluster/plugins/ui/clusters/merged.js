// What is known of a cluster after one more answer. No React.

/**
 * Of several API servers each looks by itself, so the next answer may know less than the last one.
 *
 * @param {any} before null if nothing was known @param {any} answer
 */
export function merged(before, answer) {
  if (!before) return answer;
  const isOlder = before.is_up && answer.is_up && Date.parse(answer.as_of) < Date.parse(before.as_of);
  const isSilent = before.is_up === false && answer.is_up === false;
  return {
    ...(isOlder ? before : answer),
    findings: later(before.findings, answer.findings),
    down_since: isSilent && Date.parse(before.down_since) < Date.parse(answer.down_since) ? before.down_since : answer.down_since,
  };
}

const later = (one, other) => (one && (!other || Date.parse(one.at) > Date.parse(other.at)) ? one : other);
