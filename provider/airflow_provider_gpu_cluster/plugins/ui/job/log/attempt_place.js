// Where the log of an attempt is: a job that went to another cluster has the logs of its earlier attempts on the old one.

/** The connection of the cluster that has the log of an attempt; of the newest log, that of the job.
 *  @param {object} job
 *  @param {number | null} attempt */
export const connOf = (job, attempt) => (job.attempts ?? []).find((one) => one.attempt === attempt)?.conn_id ?? job.conn_id;
