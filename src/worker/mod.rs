//! What happens behind the requests: queues are drained, old things go.

pub mod cleanup;
pub mod sessions;
