// The bars of the last hours: where each stands in a drawing, and what it says. No React.

/**
 * @param {{begins_at: string, gpu_hours: number, measured_gpu_hours: number, used_gpu_hours: number}[]} hours
 * @param {number} gpus how many GPUs there are; the bars reach the top when all were leased
 * @param {{width: number, height: number}} size
 */
export function hourBars(hours, gpus, { width, height }) {
  const most = Math.max(gpus, ...hours.map((hour) => hour.gpu_hours), 1e-9);
  const step = width / Math.max(1, hours.length);
  return hours.map((hour, place) => {
    // Little use is seen as well.
    const tall = hour.gpu_hours > 0 ? Math.max(2, (hour.gpu_hours / most) * height) : 0;
    // Of what was not measured nothing is said.
    const busy = hour.measured_gpu_hours > 0 ? Math.min(1, hour.used_gpu_hours / hour.measured_gpu_hours) * (hour.measured_gpu_hours / Math.max(hour.gpu_hours, 1e-9)) : 0;
    return { x: place * step, width: Math.max(1, step - 1), y: height - tall, height: tall, busyHeight: tall * Math.min(1, busy), hour };
  });
}

/** How many GPUs a bar of full height stands for; "" if nobody knows. */
export const fullHeightText = (gpus) => (gpus > 1 ? `full height: all ${gpus} GPUs` : gpus === 1 ? "full height: the GPU" : "");

/** What the drawing says, in a sentence. */
export function hoursText(hours) {
  const total = hours.reduce((sum, hour) => sum + hour.gpu_hours, 0);
  if (!total) return `No job of this connection had a GPU in the last ${hours.length} hours`;
  const measured = hours.reduce((sum, hour) => sum + hour.measured_gpu_hours, 0);
  const used = hours.reduce((sum, hour) => sum + hour.used_gpu_hours, 0);
  const share = measured ? `; the GPUs computed for ${Math.round((100 * used) / measured)} % of the time that was measured` : "";
  return `${rounded(total)} GPU-hours leased by jobs of this connection in the last ${hours.length} hours${share}`;
}

const rounded = (number) => (number < 0.01 ? "Less than 0.01" : number >= 10 ? Math.round(number) : Number(number.toFixed(number >= 1 ? 1 : 2)));
