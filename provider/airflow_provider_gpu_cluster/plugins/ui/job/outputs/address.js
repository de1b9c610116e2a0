// Addresses of a job's outputs. No React.

import { apiAddress, jobPath } from "../../api.js";

const named = (output) => (output.path_base64 ? { path_base64: output.path_base64 } : { path: output.path });

/** Path of what can be asked about an output: "preview", "image", "file" or "checksum". */
export const outputPath = (job, output, what, query = {}) => jobPath(job, `outputs/${what}`, { ...named(output), ...query });

/** Full address of an image, or of a download. */
export const outputAddress = (job, output, what) => apiAddress(outputPath(job, output, what));
