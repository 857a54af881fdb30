//! Numbers for events, taken from storage a block at a time. What a process does not use is lost, which costs nothing.

use std::{ops::Range, sync::Arc};

use hearth_core::Result;
use hearth_storage::Storage;

/// How many are taken at once.
const BLOCK: i64 = 4_096;

pub struct Numbers {
    storage: Arc<dyn Storage>,
    block: tokio::sync::Mutex<Range<i64>>,
}

impl Numbers {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, block: tokio::sync::Mutex::new(0..0) }
    }

    /// `count` numbers that nobody else has.
    pub async fn take(&self, count: usize) -> Result<Range<i64>> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let mut block = self.block.lock().await;
        if block.end - block.start < count {
            let reserved = count.max(BLOCK);
            let first = self.storage.reserve_numbers(reserved).await?;
            *block = first..first + reserved;
        }
        let taken = block.start..block.start + count;
        block.start = taken.end;
        Ok(taken)
    }
}
