// Smoothing of a curve.

/**
 * Exponential moving average of values, without the pull of its beginning towards zero, as TensorBoard has it.
 * A gap stays a gap, and what is after it goes on from what was before.
 *
 * @param {(number | null)[]} values
 * @param {number} weight of what was before, from 0 (no smoothing) to below 1
 * @returns {(number | null)[]}
 */
export function smoothed(values, weight) {
  if (!(weight > 0)) return values;
  let [sum, total] = [0, 0];
  return values.map((value) => {
    if (value === null || value === undefined) return value;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}
