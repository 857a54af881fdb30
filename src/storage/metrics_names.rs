//! The names of the crate's metrics.

/// Histogram: operations in one commit.
pub const BATCH_OPERATIONS: &str = "storage_batch_operations";
/// Histogram: seconds from BEGIN to the end of COMMIT, for a whole batch.
pub const COMMIT_SECONDS: &str = "storage_commit_seconds";
/// Counter by `operation` and `outcome` (`ok`, `conflict`, `unavailable`, `error`): writes that were answered.
pub const OPERATIONS: &str = "storage_operations_total";
/// Histogram by `operation`: seconds that a read took, without its time in the queue.
pub const READ_SECONDS: &str = "storage_read_seconds";
/// Counter by `operation` and `outcome`: reads that failed.
pub const READ_FAILURES: &str = "storage_read_failures_total";
/// Gauge: writes that wait for their turn (on Postgres: for the lane's).
pub const QUEUE_OPERATIONS: &str = "storage_queue_operations";
/// Counter by `reason` (`dirty`, `deadlock`, `lost`): batches that had to run again.
pub const BATCH_RERUNS: &str = "storage_batch_reruns_total";
